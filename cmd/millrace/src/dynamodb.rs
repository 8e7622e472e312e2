//! The embedded DynamoDB as a process: how `up` starts it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use millrace_runtime::shutdown::Signals;

use crate::failure::Failure;

/// Serve the embedded DynamoDB on 127.0.0.1
#[derive(Debug, Args)]
pub struct DynamoDb {
    /// File of its data; made when it is not there
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Port
    #[arg(long, value_name = "PORT")]
    port: u16,
}

impl DynamoDb {
    /// Serves until a signal.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .with_context(|| format!("port {} cannot be opened", self.port))?;
        let serving =
            millrace_parts::serve_dynamodb(listener, Some(&self.file), std::future::pending());
        tokio::select! {
            served = serving => served.map_err(|error| Failure::Failed(error.into())),
            // Every answered request is in the file; clients that stay connected are not waited
            // for.
            _ = signals.next() => Ok(()),
        }
    }
}
