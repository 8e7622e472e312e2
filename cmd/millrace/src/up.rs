//! `millrace up`: the whole system on a laptop, in one process tree.
//!
//! Stores first, then what they must contain, then the roles, each as a child process that is
//! started again when it dies. Nothing outlives this process: see [`millrace_parts::Guarded`].

mod banner;
mod data_dir;
mod parts;
mod ports;
mod supervisor;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_roles::LogStore;
use millrace_runtime::config;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::endpoints::{DEFAULT_DATA_DIR, Endpoints, OwnDatabases};
use crate::failure::Failure;
use crate::output;
use banner::Banner;
use data_dir::DataDir;
use parts::{Role, Stores};
use ports::Ports;
use supervisor::{Stage, Supervisor};

/// How long a role may take from its start to ready.
const ROLE_READY_BOUND: Duration = Duration::from_secs(60);

/// Start everything on this machine: PostgreSQL, NATS, DynamoDB, SNS and every role
///
/// What the machine lacks is fetched once. Data stays between runs. Ctrl-C ends what was started,
/// and nothing else.
#[derive(Debug, Args)]
pub struct Up {
    /// Folder of all data and logs
    #[arg(long, env = "MILLRACE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// Remove what earlier runs left in the folder, and begin with nothing
    #[arg(long)]
    fresh: bool,
    /// Also feed a few hundred orders, changes and deletions, and some bank accounts with their
    /// movements, through the HTTP API; a second time it adds nothing
    #[arg(long)]
    example: bool,
    #[command(flatten)]
    ports: ports::PortArgs,
    /// Use this PostgreSQL instead of starting one
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(flatten)]
    own_databases: OwnDatabases,
    /// Use this NATS instead of starting one
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Use this DynamoDB instead of starting one
    #[arg(long, env = "DYNAMODB_ENDPOINT", value_name = "URL")]
    dynamodb_endpoint: Option<String>,
    /// What every name in NATS and DynamoDB begins with
    #[arg(
        long,
        env = "MILLRACE_NAMESPACE",
        default_value = "millrace",
        value_name = "NAME"
    )]
    namespace: String,
    /// Where the event log of banking is kept. Events do not move from one to the other
    #[arg(
        long,
        env = "MILLRACE_BANKING_LOG",
        default_value_t,
        value_enum,
        value_name = "STORE"
    )]
    banking_log: LogStore,
}

impl Up {
    /// Runs until a signal.
    pub async fn run(&self) -> Result<(), Failure> {
        only_known_settings()?;
        let mut signals = Signals::listen()?;
        let data_dir = DataDir::claim(&self.data_dir, self.fresh)?;
        let mut supervisor = Supervisor::default();
        let started = tokio::select! {
            started = self.start(&data_dir, &mut supervisor) => Some(started),
            () = signals.next() => None,
        };
        let ended = match started {
            // Ended while it started.
            None => Ok(()),
            Some(Err(failure)) => Err(failure),
            Some(Ok(banner)) => self.stay(&banner, &mut signals).await,
        };
        output::say("millrace: ending")?;
        // What runs out of our control when a second signal comes is killed with us.
        let end = async {
            let removed = Endpoints::remove(data_dir.path());
            supervisor.stop().await;
            data_dir.ended_well().await;
            removed
        };
        let removed = tokio::select! {
            removed = end => removed,
            () = signals.next() => return Err(Failure::Failed(anyhow::anyhow!("ended at once"))),
        };
        ended?;
        removed?;
        Ok(())
    }

    async fn start(
        &self,
        data_dir: &DataDir,
        supervisor: &mut Supervisor,
    ) -> Result<Banner, Failure> {
        data_dir.wait_for_the_last_run(&self.ports).await?;
        let ports = Ports::choose(&self.ports)?;
        let stores = Stores {
            data_dir,
            ports: &ports,
            database_url: self.database_url.as_deref(),
            own_databases: &self.own_databases,
            nats_url: self.nats_url.as_deref(),
            dynamodb_endpoint: self.dynamodb_endpoint.as_deref(),
            namespace: &self.namespace,
            banking_log: self.banking_log,
        };
        let mut banner = Banner::new(data_dir.path(), &ports);
        let endpoints = stores.start(supervisor, &mut banner).await?;
        let effects = stores.effects(supervisor, &mut banner).await?;
        output::say("millrace: bringing schemas, tables and streams up to date")?;
        crate::migrate::everything(&endpoints).await?;
        let mut programs = Vec::new();
        for role in Role::ALL {
            programs.push(role.start(data_dir, &ports, &endpoints, &effects)?);
        }
        for mut program in programs {
            program.wait_ready("/readyz", ROLE_READY_BOUND).await?;
            banner.process(&program);
            supervisor.add(Box::new(program), Stage::Roles);
        }
        endpoints.write(data_dir.path())?;
        banner.endpoints = Some(endpoints);
        Ok(banner)
    }

    /// Feeds the example if asked to, says where everything is, and waits for a signal.
    async fn stay(&self, banner: &Banner, signals: &mut Signals) -> Result<(), Failure> {
        let work = async {
            if self.example {
                crate::example::feed(&banner.public_url()).await?;
            }
            output::text(&banner.text().await)?;
            std::future::pending::<Result<(), Failure>>().await
        };
        tokio::select! {
            failed = work => failed,
            () = signals.next() => Ok(()),
        }
    }
}

/// A setting that neither `up` nor any role knows would silently do nothing.
fn only_known_settings() -> Result<(), Failure> {
    let mut known: BTreeSet<String> = crate::variables();
    known.extend(Role::ALL.into_iter().flat_map(Role::variables));
    let names: Vec<String> = std::env::vars_os()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    config::only_known(names.iter().map(String::as_str), &known)
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// What ends `up`: Ctrl-C, SIGTERM, and the terminal's end.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
