//! The embedded SNS as a process: how `up` starts it.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use clap::Args;
use millrace_runtime::shutdown::Signals;

use crate::failure::Failure;

/// Serve the embedded SNS on 127.0.0.1; `GET /` shows what was sent
#[derive(Debug, Args)]
pub struct Sns {
    /// A topic that is there from the start; can be given several times
    #[arg(long = "topic", value_name = "NAME")]
    topics: Vec<String>,
    /// Port
    #[arg(long, value_name = "PORT")]
    port: u16,
}

impl Sns {
    /// Serves until a signal.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .with_context(|| format!("port {} cannot be opened", self.port))?;
        let serving = millrace_parts::serve_sns(listener, &self.topics, std::future::pending());
        tokio::select! {
            served = serving => served.map_err(|error| Failure::Failed(error.into())),
            // Clients that stay connected are not waited for.
            _ = signals.next() => Ok(()),
        }
    }
}
