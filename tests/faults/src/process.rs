use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use millrace_runtime::config::variables;
use millrace_testkit::{Process, free_port, http_get};

/// How long a role may take from its start to ready.
const READY_BOUND: Duration = Duration::from_secs(30);

/// Which part of the system a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes commands, and relays.
    Command,
    /// Folds the stream into read models.
    Projector,
    /// Answers queries.
    Query,
    /// Drives Replays.
    Controller,
}

/// Where a role of Kubernetes finds the API server; read by its client, not by the settings.
const KUBECONFIG: &str = "KUBECONFIG";

impl Role {
    /// The environment that a role of this kind reads; another variable would be an error.
    fn variables(self) -> BTreeSet<String> {
        match self {
            Self::Command => variables::<millrace_command::Settings>(),
            Self::Projector => variables::<millrace_projector::Settings>(),
            Self::Query => variables::<millrace_query::Settings>(),
            Self::Controller => {
                let mut known = variables::<millrace_controller::Settings>();
                known.insert(KUBECONFIG.to_owned());
                known
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Projector => "projector",
            Self::Query => "query",
            Self::Controller => "controller",
        }
    }
}

/// A role as a process of its own, on ports that stay over kills and restarts.
#[derive(Debug)]
pub struct RoleProcess {
    process: Process,
    name: String,
    port: u16,
    admin_port: u16,
    internal_port: u16,
}

impl RoleProcess {
    /// Starts a role with its settings. `program` is the path of `fault-role`.
    #[must_use]
    pub fn start(
        program: &Path,
        role: Role,
        number: usize,
        settings: &BTreeMap<String, String>,
    ) -> Self {
        let (port, admin_port, internal_port) = (free_port(), free_port(), free_port());
        let name = format!("{}-{number}", role.name());
        let mut settings = settings.clone();
        settings.insert("MILLRACE_LISTEN".to_owned(), format!("127.0.0.1:{port}"));
        settings.insert(
            "MILLRACE_ADMIN_LISTEN".to_owned(),
            format!("127.0.0.1:{admin_port}"),
        );
        settings.insert(
            "MILLRACE_INTERNAL_LISTEN".to_owned(),
            format!("127.0.0.1:{internal_port}"),
        );
        let known = role.variables();
        let mut environment: Vec<(&str, String)> = settings
            .iter()
            .filter(|(name, _)| known.contains(*name))
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        environment.push(("FAULT_ROLE", role.name().to_owned()));
        let process = Process::start(program, &[], &environment);
        Self {
            process,
            name,
            port,
            admin_port,
            internal_port,
        }
    }

    /// What other processes name it by as the owner of a context; only a command process is one.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal_port)
    }

    /// Its public address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its public port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its admin port.
    #[must_use]
    pub const fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Its name in this test: `command-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&mut self) {
        self.process
            .wait_ready(self.admin_port, "/readyz", READY_BOUND)
            .await;
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again, without waiting for it to be ready.
    pub fn restart(&mut self) {
        self.process.restart();
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// SIGTERM, and waits for its end; whether it ended well.
    pub async fn terminate(&mut self) -> bool {
        self.process
            .terminate()
            .await
            .is_some_and(|status| status.success())
    }

    /// Whether it ended.
    pub fn ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Whether it ended well, if it ended.
    pub fn succeeded(&mut self) -> Option<bool> {
        self.process.ended().map(|status| status.success())
    }

    /// All it logged.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Reads its metrics: the sum over every series that has this name and these label texts.
    /// `None` when it does not answer or has no such series.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = http_get(self.admin_port, "/metrics", Duration::from_secs(2))
            .await
            .ok()?;
        let mut sum = None;
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let own = series.split('{').next() == Some(name);
            if own && labels.iter().all(|label| series.contains(label)) {
                *sum.get_or_insert(0.0) += value.parse::<f64>().ok()?;
            }
        }
        sum
    }
}
