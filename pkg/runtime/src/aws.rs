//! Amazon's SDK, with bounds.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_dynamodb::config::{Credentials, retry::RetryConfig};
use aws_smithy_http_client::{Builder, tls};

const MAX_ATTEMPTS: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(3_000);
const OPERATION_TIMEOUT: Duration = Duration::from_millis(10_000);

/// A DynamoDB client for an endpoint, or, without one, for Amazon's with the usual chain of
/// region and credentials.
///
/// An endpoint of one's own gets a fixed region and fixed credentials, which embedded and local
/// endpoints do not look at.
pub async fn dynamodb_client(endpoint: Option<&str>) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&config(endpoint).await)
}

/// A client for DynamoDB Streams; see [`dynamodb_client`].
pub async fn dynamodb_streams_client(endpoint: Option<&str>) -> aws_sdk_dynamodbstreams::Client {
    aws_sdk_dynamodbstreams::Client::new(&config(endpoint).await)
}

/// A client for SNS; see [`dynamodb_client`].
pub async fn sns_client(endpoint: Option<&str>) -> aws_sdk_sns::Client {
    aws_sdk_sns::Client::new(&config(endpoint).await)
}

async fn config(endpoint: Option<&str>) -> aws_config::SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_millis(1_000));
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(retries);
    match endpoint {
        Some(endpoint) => {
            let loader = loader
                .endpoint_url(endpoint)
                .region(Region::new("us-east-1"))
                .credentials_provider(Credentials::new("local", "local", None, None, "millrace"));
            if endpoint.starts_with("http://") {
                loader.http_client(Builder::new().build_http()).load().await
            } else {
                loader.http_client(https()).load().await
            }
        }
        None => loader.http_client(https()).load().await,
    }
}

fn https() -> aws_sdk_dynamodb::config::SharedHttpClient {
    Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https()
}
