//! An S3 endpoint as a process, for development in a cluster.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use millrace_parts::{S3Bucket, S3Keys, S3Objects, serve_s3};
use millrace_runtime::{Secret, shutdown::Signals};

use crate::{failure::Failure, listening};

/// Serve an S3 bucket from a folder
#[derive(Debug, Args)]
pub struct S3 {
    /// Address and port
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Folder of its objects; made when it is not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The bucket
    #[arg(long, value_name = "NAME")]
    bucket: String,
    /// The id of the access key that clients sign with
    #[arg(long, env = "S3_ACCESS_KEY_ID", value_name = "ID")]
    access_key_id: String,
    /// The secret of that key
    #[arg(
        long,
        env = "S3_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true
    )]
    secret_access_key: Secret<String>,
}

impl S3 {
    /// Serves until a signal, and then answers the requests that are open.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let objects = S3Objects::in_folder(&self.data_dir.join(&self.bucket))
            .map_err(|error| Failure::Failed(error.into()))?;
        let keys = S3Keys {
            id: self.access_key_id.clone(),
            secret: self.secret_access_key.expose().clone(),
        };
        let bucket = S3Bucket::new(&self.bucket, Arc::new(objects), &keys);
        let listener = listening::on(self.listen).await?;
        let answer = move |request| {
            let bucket = bucket.clone();
            async move { bucket.answer(request).await }
        };
        let asked_to_end = async {
            signals.next().await;
        };
        serve_s3(listener, answer, asked_to_end).await;
        Ok(())
    }
}
