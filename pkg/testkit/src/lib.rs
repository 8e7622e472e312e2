//! Real servers for tests, each test with its own database, stream prefix and table prefix, and
//! the means to hurt them.
//!
//! Shared servers are started once per test binary and end with it, however it ends. A test that
//! kills or pauses a server takes one of its own (`own_…`). `DATABASE_URL`, `NATS_URL` and
//! `DYNAMODB_ENDPOINT`, when given, name the shared servers instead.
//!
//! Everything here panics with a sentence when it fails: a test has nobody to hand an error to.
#![allow(clippy::panic, clippy::expect_used, clippy::print_stderr)]

mod client;
#[cfg(feature = "credentials")]
mod credentials;
mod database;
mod dynamo;
mod formats;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod lines;
mod messaging;
mod plans;
mod process;
#[cfg(feature = "effects")]
mod s3;
mod waiting;

pub use client::{HttpClient, Reply, Request};
#[cfg(feature = "credentials")]
pub use credentials::{NatsOperator, NatsPermissions, nats_rights, nats_with_operator};
pub use database::{Database, PostgresServer, own_postgres, postgres};
pub use dynamo::{Dynamo, DynamoServer, dynamodb, own_dynamodb, serve_dynamodb_if_asked};
pub use formats::{Renamed, StoredFormats, payload_schema};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{Kubernetes, KubernetesServer, kubernetes, own_kubernetes};
pub use lines::LogLines;
pub use messaging::{Nats, NatsServer, nats, own_nats};
pub use plans::{Plan, Plans};
pub use process::Process;
#[cfg(feature = "effects")]
pub use s3::{S3_ACCESS_KEY_ID, S3_BUCKET, S3_SECRET_ACCESS_KEY, S3Fault, S3Object, S3Server, s3};
pub use waiting::eventually;

pub use millrace_parts::{free_port, http_get};

/// A name nobody else uses: 1 to 20 of `a-z 0-9`, beginning with a letter, so that it may be a NATS
/// subject token, a PostgreSQL name and the prefix of a DynamoDB table.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a test names things at its edge")]
pub fn namespace() -> String {
    format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..15])
}

/// A setting from the environment, when it is given and not empty.
fn given(variable: &str) -> Option<String> {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
}

/// Unwraps what a test cannot go on without.
trait OrFail<T> {
    fn or_fail(self, what: &str) -> T;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {:#}", error.into()),
        }
    }
}
