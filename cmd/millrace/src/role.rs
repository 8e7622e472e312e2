//! One role in this process: how `up` starts its children, and the image its containers.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use millrace_runtime::{config, main_from};

/// The roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Takes writes, and relays.
    Command,
    /// Folds.
    Projector,
    /// Answers.
    Query,
    /// Drives the Replay resources of Kubernetes.
    Controller,
}

impl RoleName {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Projector => "projector",
            Self::Query => "query",
            Self::Controller => "controller",
        }
    }

    /// The environment variables that the role's settings come from.
    pub fn variables(self) -> BTreeSet<String> {
        match self {
            Self::Command => config::variables::<millrace_command::Settings>(),
            Self::Projector => config::variables::<millrace_projector::Settings>(),
            Self::Query => config::variables::<millrace_query::Settings>(),
            Self::Controller => config::variables::<millrace_controller::Settings>(),
        }
    }
}

/// Run one role, as its own program would: `millrace role command --help` says how
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Role {
    /// Which one
    #[arg(value_enum)]
    role: RoleName,
    /// The role's own settings
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SETTINGS"
    )]
    settings: Vec<OsString>,
}

impl Role {
    /// Runs it with a runtime, telemetry and signals of its own.
    pub fn run(self) -> ExitCode {
        let with =
            |name: &'static str| std::iter::once(OsString::from(name)).chain(self.settings.clone());
        match self.role {
            RoleName::Command => main_from(
                "millrace-command",
                with("millrace-command"),
                millrace_command::run,
            ),
            RoleName::Projector => main_from(
                "millrace-projector",
                with("millrace-projector"),
                millrace_projector::run,
            ),
            RoleName::Query => main_from(
                "millrace-query",
                with("millrace-query"),
                millrace_query::run,
            ),
            RoleName::Controller => main_from(
                "millrace-controller",
                with("millrace-controller"),
                millrace_controller::run,
            ),
        }
    }
}
