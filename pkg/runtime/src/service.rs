//! The frame of a role's `main`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError};
use crate::shutdown::Signals;
use crate::{CommonSettings, telemetry};

/// The settings were wrong.
const EXIT_CONFIG: u8 = 2;
/// Ended by a second signal, with work given up.
const EXIT_INSISTED: u8 = 130;
/// What still runs on threads for blocking work is not waited for longer.
const MAX_RUNTIME_STOP: std::time::Duration = std::time::Duration::from_millis(500);

/// A role's settings.
pub trait Service: CommandFactory + FromArgMatches {
    /// The settings that every role has.
    fn common(&self) -> &CommonSettings;
}

/// Reads settings, starts telemetry, runs a role until it ends or a signal asks it to, and gives
/// the exit code: 0 for an orderly end, 1 for a failure, 2 for wrong settings, 130 when a second
/// signal insisted.
pub fn main<S, F, Fut>(name: &'static str, run: F) -> ExitCode
where
    S: Service,
    F: FnOnce(S, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    main_from(name, std::env::args_os(), run)
}

/// As [`main`], with other arguments; the first is the program's name.
pub fn main_from<S, F, Fut>(
    name: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
    run: F,
) -> ExitCode
where
    S: Service,
    F: FnOnce(S, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let settings: S = match config::parse_arguments(arguments) {
        Ok(settings) => settings,
        Err(ConfigError::Clap(error)) => {
            // To standard output for help, to standard error otherwise; nobody is left to tell
            // when even this fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG));
        }
        Err(error) => {
            complain(name, &anyhow::Error::from(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    install_crypto();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(name, &anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match telemetry::init(name, &settings.common().telemetry) {
            Ok(telemetry) => {
                let code = until_signalled(name, settings, run).await;
                telemetry.shutdown().await;
                code
            }
            Err(error) => {
                complain(name, &anyhow::Error::from(error));
                ExitCode::from(EXIT_CONFIG)
            }
        }
    });
    runtime.shutdown_timeout(MAX_RUNTIME_STOP);
    code
}

async fn until_signalled<S, F, Fut>(name: &'static str, settings: S, run: F) -> ExitCode
where
    F: FnOnce(S, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain(name, &anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let shutdown = CancellationToken::new();
    tracing::info!(
        service = name,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    tokio::select! {
        ended = run(settings, shutdown.clone()) => match ended {
            Ok(()) => {
                tracing::info!(service = name, "ended");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(service = name, error = format!("{error:#}"), "failed");
                ExitCode::FAILURE
            }
        },
        () = signals.drive(&shutdown) => ExitCode::from(EXIT_INSISTED),
    }
}

/// Says what is wrong before there are logs.
#[expect(clippy::print_stderr, reason = "there is no subscriber yet")]
fn complain(name: &str, error: &anyhow::Error) {
    eprintln!("{name}: {error:#}");
}

/// Makes ring the cryptography of every TLS connection of this process. [`main`] does it; a program
/// with a `main` of its own does it before it makes an HTTP client, which panics otherwise.
pub fn install_crypto() {
    // An error says that it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
