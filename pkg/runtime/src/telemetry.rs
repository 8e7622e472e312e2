//! Logs and traces of a process.

use std::io::IsTerminal as _;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::log_format::{Json, Text};
use crate::{LogFormat, TelemetrySettings};

/// Where the collector takes traces, below its address.
const TRACES_PATH: &str = "/v1/traces";
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take to leave at the end.
const MAX_FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter cannot be made.
    #[error("traces cannot be sent to {endpoint:?}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another subscriber is installed.
    #[error("logs are already being written by another subscriber")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// The telemetry of this process while it runs.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts logs to standard error, and traces to the collector if there is one. Has to be called
/// within a tokio runtime, which sends the traces and must outlive [`Telemetry::shutdown`].
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(
    service: &'static str,
    settings: &TelemetrySettings,
) -> Result<Telemetry, TelemetryError> {
    let on_terminal = std::io::stderr().is_terminal();
    let (telemetry, layers) = layers(service, settings, on_terminal, std::io::stderr)?;
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(telemetry)
}

/// A stack of layers over the registry.
pub type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// What [`init`] installs, with another place for the log lines.
///
/// # Errors
/// See [`TelemetryError`].
pub fn layers<W>(
    service: &'static str,
    settings: &TelemetrySettings,
    on_terminal: bool,
    writer: W,
) -> Result<(Telemetry, Layers), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let provider = tracer_provider(service, settings)?;
    let tracer = provider.tracer("millrace");
    let traces = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter(&settings.log)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !on_terminal,
    };
    let lines = if json {
        lines
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(Json)
            .with_filter(filter(&settings.log)?)
            .boxed()
    } else {
        let format = tracing_subscriber::fmt::format().with_ansi(on_terminal);
        lines
            .event_format(Text(format))
            .with_filter(filter(&settings.log)?)
            .boxed()
    };
    // Traces first: log lines carry the ids that they give.
    Ok((Telemetry { provider }, vec![traces.boxed(), lines]))
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|source| TelemetryError::Filter {
            filter: text.to_owned(),
            source,
        })
}

fn tracer_provider(
    service: &'static str,
    settings: &TelemetrySettings,
) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder();
    let endpoint = settings
        .otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.is_empty());
    let Some(endpoint) = endpoint else {
        // Nobody listens: spans have ids for logs and events, and record nothing.
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| TelemetryError::Exporter {
        endpoint: crate::secret::without_password(endpoint),
        source,
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .with_http_client(Client::new().map_err(|error| failed(error.into()))?)
        .build()
        .map_err(|error| failed(error.into()))?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.trace_ratio)));
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(builder
        .with_sampler(sampler)
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

impl Telemetry {
    /// Sends what was gathered, and stops. Waits at most 5 s.
    pub async fn shutdown(self) {
        let stopped = tokio::task::spawn_blocking(move || {
            self.provider.shutdown_with_timeout(MAX_FLUSH_WAIT)
        })
        .await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(error = %error, "the last spans were not sent");
        }
    }
}

/// The exporter's batches leave from a thread of its own; the requests run on our runtime.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Client {
    fn new() -> Result<Self, reqwest::Error> {
        crate::service::install_crypto();
        let client = reqwest::Client::builder().timeout(EXPORT_TIMEOUT).build()?;
        Ok(Self {
            client,
            runtime: tokio::runtime::Handle::current(),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            let headers = answer.headers().clone();
            let mut response = http::Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, HttpError>(response)
        });
        sent.await?
    }
}
