use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `text` on a terminal, `json` elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Settings of logs and traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetrySettings {
    /// What is logged: a level, or levels by module as in `info,millrace_streaming=debug`
    #[arg(
        long,
        env = "MILLRACE_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// The form of log lines, written to standard error
    #[arg(long, env = "MILLRACE_LOG_FORMAT", default_value = "auto", value_enum)]
    pub log_format: LogFormat,

    /// OpenTelemetry collector (OTLP over HTTP) that traces are sent to; none when not set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Share of the traces begun here that are sent, 0 to 1; traces begun elsewhere follow their
    /// beginning
    #[arg(long, env = "MILLRACE_TRACE_RATIO", default_value = "1", value_name = "SHARE",
          value_parser = ratio)]
    pub trace_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

/// Settings that every role has.
#[derive(Debug, Clone, Args)]
pub struct CommonSettings {
    /// What every name in NATS and DynamoDB begins with; all roles of an installation share it
    #[arg(
        long,
        env = "MILLRACE_NAMESPACE",
        default_value = "millrace",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Address of the admin port: health, metrics and operations; never for the public
    #[arg(
        long,
        env = "MILLRACE_ADMIN_ADDRESS",
        default_value = "127.0.0.1:9090",
        value_name = "ADDRESS:PORT"
    )]
    pub admin_address: SocketAddr,

    /// How long this process still serves after its readiness went off, before it closes its
    /// ports, in milliseconds: at least as long as a load balancer takes to notice
    #[arg(
        long,
        env = "MILLRACE_LAME_DUCK_MS",
        default_value = "0",
        value_name = "MS"
    )]
    pub lame_duck_ms: u64,

    /// How long running requests and batches may take to finish at the end, in milliseconds
    #[arg(
        long,
        env = "MILLRACE_DRAIN_MS",
        default_value = "20000",
        value_name = "MS"
    )]
    pub drain_ms: u64,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

impl CommonSettings {
    /// How long to serve after readiness went off.
    #[must_use]
    pub fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    /// How long what runs may take to finish.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}
