//! What every process of Millrace needs around its work: settings, logs, traces, metrics, health,
//! and an orderly end. The only crate that reads the environment and listens to signals.

pub mod admin;
pub mod aws;
pub mod config;
mod instance;
mod log_format;
mod metrics;
pub mod secret;
mod service;
mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod trace;

pub use instance::instance_name;
pub use metrics::{Metrics, install_metrics};
pub use secret::Secret;
pub use service::{Service, install_crypto, main, main_from};
pub use settings::{CommonSettings, HttpSettings, LogFormat, TelemetrySettings};
