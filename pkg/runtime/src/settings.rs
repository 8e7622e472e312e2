use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::Secret;

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
        env = "MILLRACE_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090",
        value_name = "ADDRESS:PORT"
    )]
    pub admin_listen: SocketAddr,

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

    /// Logs and traces
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

/// Settings of a public HTTP port.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Address of the public port
    #[arg(
        long,
        env = "MILLRACE_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,

    /// How many connections are open at once; more wait to be accepted
    #[arg(
        long,
        env = "MILLRACE_MAX_CONNECTIONS",
        default_value = "8192",
        value_name = "COUNT"
    )]
    pub max_connections: usize,

    /// How long a connection is kept on which no request comes, in milliseconds. Longer than any
    /// proxy in front keeps its end, or a request meets a connection that is just being closed
    #[arg(
        long,
        env = "MILLRACE_IDLE_TIMEOUT_MS",
        default_value = "120000",
        value_name = "MS"
    )]
    pub idle_timeout_ms: u64,

    /// How many requests are worked on at once; more are answered 503
    #[arg(
        long,
        env = "MILLRACE_MAX_IN_FLIGHT",
        default_value = "4096",
        value_name = "COUNT"
    )]
    pub max_in_flight: usize,

    /// How long a request may take before it is answered 504, in milliseconds
    #[arg(
        long,
        env = "MILLRACE_REQUEST_DEADLINE_MS",
        default_value = "60000",
        value_name = "MS"
    )]
    pub request_deadline_ms: u64,

    /// Secret that signs the cursors of lists, at least 32 bytes; all processes of an installation
    /// share it. Without it a process makes one up, and cursors end with the process
    #[arg(long, env = "MILLRACE_CURSOR_KEY", value_name = "SECRET")]
    pub cursor_key: Option<Secret<String>>,
}
