//! The embedded SNS as a process: how `up` starts it, and a cluster for development.

use std::net::SocketAddr;

use clap::Args;
use millrace_runtime::shutdown::Signals;

use crate::{failure::Failure, listening};

/// Serve the embedded SNS, in memory; `GET /` shows what was sent
#[derive(Debug, Args)]
pub struct Sns {
    /// A topic that is there from the start; can be given several times
    #[arg(long = "topic", value_name = "NAME")]
    topics: Vec<String>,
    /// Address and port
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
}

impl Sns {
    /// Serves until a signal.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let listener = listening::on(self.listen).await?;
        let serving = millrace_parts::serve_sns(listener, &self.topics, std::future::pending());
        tokio::select! {
            served = serving => served.map_err(|error| Failure::Failed(error.into())),
            // Clients that stay connected are not waited for.
            _ = signals.next() => Ok(()),
        }
    }
}
