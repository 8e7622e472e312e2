//! The embedded DynamoDB as a process: how `up` starts it, and a cluster for development.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use millrace_runtime::shutdown::Signals;

use crate::{failure::Failure, listening};

/// Serve the embedded DynamoDB
#[derive(Debug, Args)]
pub struct DynamoDb {
    /// File of its data; made when it is not there, beside it SQLite's own [default: in memory]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Address and port
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
}

impl DynamoDb {
    /// Serves until a signal.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let listener = listening::on(self.listen).await?;
        let file = self.file.as_deref();
        let serving = millrace_parts::serve_dynamodb(listener, file, std::future::pending());
        tokio::select! {
            served = serving => served.map_err(|error| Failure::Failed(error.into())),
            // Every answered request is in the file; clients that stay connected are not waited
            // for.
            _ = signals.next() => Ok(()),
        }
    }
}
