//! The children of `up`: stores and roles.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use millrace_kernel::EntityId;
use millrace_parts::{
    Durability, Guarded, Nats, NatsOptions, PartsError, Postgres, PostgresOptions, StopSignal,
    http_get, log_tail,
};
use millrace_roles::LogStore;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::banner::Banner;
use super::data_dir::DataDir;
use super::ports::Ports;
use super::supervisor::{Part, Stage, Supervisor};
use crate::endpoints::{Endpoints, OwnDatabases};
use crate::failure::Failure;
use crate::output;
use crate::role::RoleName;

/// The database that `up` makes in its own PostgreSQL.
const DATABASE: &str = "millrace";
/// The contexts that it makes a database of their own for, beside that.
const OWN_DATABASES: [&str; 2] = ["customers", "billing"];
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const HTTP_BOUND: Duration = Duration::from_secs(3);
const DYNAMODB_READY_BOUND: Duration = Duration::from_secs(30);

/// Which stores are started, and which are given.
pub struct Stores<'a> {
    pub data_dir: &'a DataDir,
    pub ports: &'a Ports,
    pub database_url: Option<&'a str>,
    pub own_databases: &'a OwnDatabases,
    pub nats_url: Option<&'a str>,
    pub dynamodb_endpoint: Option<&'a str>,
    pub namespace: &'a str,
    pub banking_log: LogStore,
}

/// The topic that `up` tells of orders.
const TOPIC: &str = "orders.fifo";
const SNS_READY_BOUND: Duration = Duration::from_secs(30);

/// Where the effects of reactions go, as settings of the roles. What was said to `up` itself goes
/// to the roles as it is.
#[derive(Debug, Default)]
pub struct EffectPlaces {
    archive: Vec<(&'static str, String)>,
    notifications: Vec<(&'static str, String)>,
}

impl Stores<'_> {
    /// Starts what effects need and was not given.
    pub async fn effects(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<EffectPlaces, Failure> {
        let mut places = EffectPlaces::default();
        match given("MILLRACE_RECEIPTS_URL") {
            Some(url) => banner.given("receipts", &url),
            None => {
                let folder = self.data_dir.receipts();
                let url = url::Url::from_directory_path(&folder).map_err(|()| {
                    Failure::Failed(anyhow!("{} is no folder for receipts", folder.display()))
                })?;
                banner.given("receipts", url.as_str());
                places.archive.push(("MILLRACE_RECEIPTS_URL", url.into()));
            }
        }
        match given("MILLRACE_NOTIFICATIONS_TOPIC_ARN") {
            Some(arn) => banner.given("notifications", &arn),
            None => {
                let url = self.sns(supervisor, banner).await?;
                let arn = millrace_parts::topic_arn(TOPIC);
                places.notifications = vec![
                    ("SNS_ENDPOINT", url),
                    ("MILLRACE_NOTIFICATIONS_TOPIC_ARN", arn),
                ];
            }
        }
        Ok(places)
    }

    async fn sns(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<String, Failure> {
        output::say("millrace: starting the embedded SNS")?;
        let port = self.ports.sns;
        let arguments = ["sns", "--topic", TOPIC, "--listen"].map(OsString::from);
        let arguments = arguments.into_iter().chain([on_loopback(port)]);
        let log = self.data_dir.log("sns");
        let mut program =
            Program::start("sns", arguments.collect(), Vec::new(), port, log.clone())?;
        program.wait_ready("/", SNS_READY_BOUND).await?;
        let url = format!("http://127.0.0.1:{port}");
        banner.store("sns", program.process().id(), &url, &log);
        supervisor.add(Box::new(program), Stage::Stores);
        Ok(url)
    }

    /// Starts what was not given, and says where everything is.
    pub async fn start(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<Endpoints, Failure> {
        let (database_url, mut own_databases) = match self.database_url {
            Some(url) => {
                banner.given("postgres", url);
                (url.to_owned(), BTreeMap::new())
            }
            None => self.postgres(supervisor, banner).await?,
        };
        own_databases.extend(self.own_databases.given());
        let nats_url = match self.nats_url {
            Some(url) => {
                banner.given("nats-server", url);
                url.to_owned()
            }
            None => self.nats(supervisor, banner).await?,
        };
        let dynamodb_endpoint = match self.dynamodb_endpoint {
            Some(url) => {
                banner.given("dynamodb", url);
                url.to_owned()
            }
            None => self.dynamodb(supervisor, banner).await?,
        };
        Ok(Endpoints {
            read_database_url: given("READ_DATABASE_URL").unwrap_or_else(|| database_url.clone()),
            database_url,
            own_databases,
            nats_url,
            nats_creds: None,
            dynamodb_endpoint: Some(dynamodb_endpoint),
            namespace: self.namespace.to_owned(),
            banking_log: self.banking_log,
            public_url: Some(format!("http://127.0.0.1:{}", self.ports.public)),
            admin_url: Some(format!("http://127.0.0.1:{}", self.ports.projector_admin)),
        })
    }

    async fn postgres(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<(String, BTreeMap<String, String>), Failure> {
        let data = self.data_dir.postgres()?;
        if !data.starts_with(self.data_dir.path()) {
            output::say(&format!(
                "millrace: the user that PostgreSQL runs as may not enter {}, so its data lies in {}",
                self.data_dir.path().display(),
                data.display()
            ))?;
        }
        output::say("millrace: starting PostgreSQL")?;
        let log = self.data_dir.log("postgres");
        let mut server = Postgres::start(PostgresOptions {
            data,
            log: log.clone(),
            port: Some(self.ports.postgres),
            durability: Durability::Full,
            temporary: None,
        })
        .await
        .map_err(|error| failed(error, "--postgres-port"))?;
        make_database(&server.url("postgres"), DATABASE).await?;
        let mut own_databases = BTreeMap::new();
        for context in OWN_DATABASES {
            let name = format!("{DATABASE}_{context}");
            make_database(&server.url("postgres"), &name).await?;
            own_databases.insert(context.to_owned(), server.url(&name));
        }
        let url = server.url(DATABASE);
        output::say(&format!("millrace: {}", server.source()))?;
        banner.store("postgres", server.process().id(), &url, &log);
        supervisor.add(Box::new(server), Stage::Stores);
        Ok((url, own_databases))
    }

    async fn nats(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<String, Failure> {
        output::say("millrace: starting nats-server")?;
        let log = self.data_dir.log("nats-server");
        let mut server = Nats::start(NatsOptions {
            data: self.data_dir.nats(),
            log: log.clone(),
            port: Some(self.ports.nats),
            config: None,
            temporary: None,
        })
        .await
        .map_err(|error| failed(error, "--nats-port"))?;
        let url = server.url();
        output::say(&format!("millrace: nats-server {}", server.source()))?;
        banner.store("nats-server", server.process().id(), &url, &log);
        supervisor.add(Box::new(server), Stage::Stores);
        Ok(url)
    }

    async fn dynamodb(
        &self,
        supervisor: &mut Supervisor,
        banner: &mut Banner,
    ) -> Result<String, Failure> {
        output::say("millrace: starting the embedded DynamoDB")?;
        let folder = self.data_dir.dynamodb();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let port = self.ports.dynamodb;
        let arguments = [
            OsString::from("dynamodb"),
            "--file".into(),
            folder.join("dynamodb.sqlite").into(),
            "--listen".into(),
            on_loopback(port),
        ];
        let log = self.data_dir.log("dynamodb");
        let mut program =
            Program::start("dynamodb", arguments.into(), Vec::new(), port, log.clone())?;
        program.wait_ready("/", DYNAMODB_READY_BOUND).await?;
        let url = format!("http://127.0.0.1:{port}");
        banner.store("dynamodb", program.process().id(), &url, &log);
        supervisor.add(Box::new(program), Stage::Stores);
        Ok(url)
    }
}

/// Where an embedded server is to listen.
fn on_loopback(port: u16) -> OsString {
    format!("127.0.0.1:{port}").into()
}

fn failed(error: PartsError, flag: &str) -> Failure {
    let in_use = matches!(error, PartsError::PortInUse { .. });
    let error = anyhow::Error::from(error);
    Failure::Failed(if in_use {
        anyhow!("{error}: end that process, or choose another port with `{flag} <PORT>`")
    } else {
        error
    })
}

async fn make_database(url: &str, name: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
    if !there {
        let sql = format!("CREATE DATABASE {name}");
        connection.execute(sqlx::AssertSqlSafe(sql)).await?;
    }
    connection.close().await?;
    Ok(())
}

/// A setting from the environment, when it is not empty.
fn given(variable: &str) -> Option<String> {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
}

/// The roles that run without Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Command,
    Projector,
    Query,
}

impl Role {
    /// In the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Command, Self::Projector, Self::Query];

    fn name(self) -> RoleName {
        match self {
            Self::Command => RoleName::Command,
            Self::Projector => RoleName::Projector,
            Self::Query => RoleName::Query,
        }
    }

    fn admin_port(self, ports: &Ports) -> u16 {
        match self {
            Self::Command => ports.command_admin,
            Self::Projector => ports.projector_admin,
            Self::Query => ports.query_admin,
        }
    }

    /// Starts the role, without waiting for it.
    pub fn start(
        self,
        data_dir: &DataDir,
        ports: &Ports,
        endpoints: &Endpoints,
        effects: &EffectPlaces,
    ) -> Result<Program, Failure> {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut settings = vec![
            ("DATABASE_URL", endpoints.database_url.clone()),
            ("READ_DATABASE_URL", endpoints.read_database_url.clone()),
            ("NATS_URL", endpoints.nats_url.clone()),
            (
                "DYNAMODB_ENDPOINT",
                endpoints.dynamodb_endpoint.clone().unwrap_or_default(),
            ),
            ("MILLRACE_NAMESPACE", endpoints.namespace.clone()),
            (
                "MILLRACE_BANKING_LOG",
                endpoints.banking_log.as_str().to_owned(),
            ),
            ("MILLRACE_ADMIN_LISTEN", local(self.admin_port(ports))),
        ];
        if self == Self::Query && given("MILLRACE_CURSOR_KEY").is_none() {
            // Cursors outlive the process that gave them out, not the run.
            let key = format!("{}{}", EntityId::generate(), EntityId::generate());
            settings.push(("MILLRACE_CURSOR_KEY", key));
        }
        match self {
            Self::Command => {
                settings.push(("MILLRACE_LISTEN", local(ports.command)));
                settings.push(("MILLRACE_INTERNAL_LISTEN", local(ports.internal)));
            }
            Self::Query => {
                settings.push(("MILLRACE_LISTEN", local(ports.public)));
                settings.push(("COMMAND_URL", format!("http://{}", local(ports.command))));
                settings.extend(effects.archive.iter().cloned());
            }
            Self::Projector => {
                settings.extend(effects.archive.iter().cloned());
                settings.extend(effects.notifications.iter().cloned());
                if given("MILLRACE_OWNERS").is_none() {
                    let banking = format!("banking=http://{}", local(ports.internal));
                    settings.push(("MILLRACE_OWNERS", banking));
                }
            }
        }
        // What was said to `up` for all roles goes to those that know it.
        let known = self.variables();
        for (context, variable) in OwnDatabases::VARIABLES {
            if let Some(url) = endpoints.own_databases.get(context)
                && known.contains(variable)
            {
                settings.push((variable, url.clone()));
            }
        }
        let forget = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with("MILLRACE_") && !known.contains(name))
            .collect();
        let name = self.name().as_str();
        Program::with_environment(
            name,
            vec!["role".into(), name.into()],
            settings,
            forget,
            self.admin_port(ports),
            data_dir.log(name),
        )
    }

    /// The environment variables that the role's settings come from.
    pub fn variables(self) -> BTreeSet<String> {
        self.name().variables()
    }
}

/// A child that is this program in another part.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    arguments: Vec<OsString>,
    settings: Vec<(&'static str, String)>,
    forget: Vec<String>,
    port: u16,
    log: PathBuf,
    child: Guarded,
}

impl Program {
    fn start(
        name: &'static str,
        arguments: Vec<OsString>,
        settings: Vec<(&'static str, String)>,
        port: u16,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        Self::with_environment(name, arguments, settings, Vec::new(), port, log)
    }

    fn with_environment(
        name: &'static str,
        arguments: Vec<OsString>,
        settings: Vec<(&'static str, String)>,
        forget: Vec<String>,
        port: u16,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let child = launch(&arguments, &settings, &forget, &log)
            .map_err(|error| Failure::Failed(error.into()))?;
        Ok(Self {
            name,
            arguments,
            settings,
            forget,
            port,
            log,
            child,
        })
    }

    /// Its name.
    pub fn label(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `path` is answered with 200.
    ///
    /// # Errors
    /// When it ends, or `bound` is over; with the end of its log.
    pub async fn wait_ready(&mut self, path: &str, bound: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + bound;
        let mut said = String::new();
        let why = loop {
            match http_get(self.port, path, HTTP_BOUND).await {
                Ok((200, _)) => return Ok(()),
                Ok((_, body)) => said = body,
                Err(_) => {}
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break format!("ended with {status}"),
                Err(error) => break error.to_string(),
            }
            if Instant::now() > deadline {
                break format!("is not ready after {} s {said}", bound.as_secs());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        let (name, log) = (self.name, self.log.display());
        let tail = log_tail(&self.log);
        Err(Failure::Failed(anyhow!(
            "{name} {why}\nthe end of {log}:\n{tail}"
        )))
    }
}

#[async_trait]
impl Part for Program {
    fn name(&self) -> &'static str {
        self.name
    }

    fn process(&mut self) -> &mut Guarded {
        &mut self.child
    }

    async fn restart(&mut self) -> Result<(), PartsError> {
        self.child.kill().await?;
        self.child = launch(&self.arguments, &self.settings, &self.forget, &self.log)?;
        Ok(())
    }
}

fn launch(
    arguments: &[OsString],
    settings: &[(&'static str, String)],
    forget: &[String],
    log: &Path,
) -> Result<Guarded, PartsError> {
    let mut command = Command::new(ourselves());
    for name in forget {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(settings.iter().map(|(name, value)| (name, value)));
    Guarded::spawn(command, log, StopSignal::Terminate, None)
}

/// This program's file; where a newer build has replaced it, the one that is running.
fn ourselves() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}
