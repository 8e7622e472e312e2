//! The archive on a folder and on a real S3 server, the topic on real SNS endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archive;
mod sns;
mod topic;
