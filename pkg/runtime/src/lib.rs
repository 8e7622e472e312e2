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

/// Every process takes and gives back millions of small pieces: headers, texts, rows, on another
/// thread than the one that took them. The system's allocator spent half of a projector's time on
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
