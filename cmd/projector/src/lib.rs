//! The projector: folds the streams into the read models.

mod operations;

use clap::{Args, Parser};
use millrace_projecting::{DeadLetters, DynamoStore, PgStore, Runner, RunnerParts, View};
use millrace_roles::{
    DynamoSettings, Frame, Late, LogPlaces, LogSettings, LogUse, Logs, NatsSettings,
    ReadStoreSettings, check_nats, migrate_views, topology, views,
};
use millrace_runtime::admin::Health;
use millrace_runtime::{CommonSettings, Service, aws, instance_name, trace};
use millrace_streaming::{
    AdvisoryCounter, DeadLetterPublisher, Leases, MemberId, Signals, Topology,
};
use tokio_util::sync::CancellationToken;

/// Folds events from NATS JetStream into the read models in PostgreSQL and DynamoDB.
///
/// Every setting can be given on the command line, in the environment, or in a TOML file, in this
/// order; a setting that nobody knows is an error.
#[derive(Debug, Clone, Parser)]
#[command(name = "millrace-projector", version, max_term_width = 100)]
pub struct Settings {
    /// What every role has.
    #[command(flatten)]
    pub common: CommonSettings,
    /// The event log, for what the stream does not have.
    #[command(flatten)]
    pub log: LogSettings,
    /// NATS.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// The read models in PostgreSQL.
    #[command(flatten)]
    pub read: ReadStoreSettings,
    /// The read models in DynamoDB.
    #[command(flatten)]
    pub dynamodb: DynamoSettings,
    /// This role's own.
    #[command(flatten)]
    pub projector: ProjectorSettings,
}

/// What only the projector has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Projector")]
pub struct ProjectorSettings {
    /// Whether to bring the read models' control tables up to date before working; safe beside
    /// others
    #[arg(
        long,
        env = "MILLRACE_MIGRATE",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub migrate: bool,

    /// The projections that this process keeps, by name, separated by commas, where some are to
    /// be scaled apart from others [default: all]
    #[arg(
        long,
        env = "MILLRACE_PROJECTIONS",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub projections: Vec<String>,
}

impl ProjectorSettings {
    /// The views that are asked for, of all that there are.
    fn choose(&self, all: Vec<View>) -> anyhow::Result<Vec<View>> {
        let known = |name: &String| all.iter().any(|view| view.name() == name);
        if let Some(unknown) = self.projections.iter().find(|name| !known(name)) {
            let names: Vec<_> = all.iter().map(View::name).collect();
            anyhow::bail!(
                "there is no projection {unknown:?}; there are {}",
                names.join(", ")
            );
        }
        let chosen = |view: &View| {
            self.projections.is_empty() || self.projections.iter().any(|name| name == view.name())
        };
        Ok(all.into_iter().filter(chosen).collect())
    }
}

impl Service for Settings {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

/// Works until told to stop.
///
/// # Errors
/// When the admin port is in use, a setting makes no sense, or a store is not what it should be.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let topology = topology(
        &settings.nats,
        &settings.common.namespace,
        "millrace-projector",
    )
    .await?;
    let read_url = settings
        .read
        .read_database_url
        .as_ref()
        .unwrap_or(&settings.log.database_url);
    let postgres = PgStore::open(read_url.expose())?;
    let client = aws::dynamodb_client(settings.dynamodb.endpoint()).await;
    let dynamodb = DynamoStore::new(client, settings.common.namespace.clone());
    let logs: Late<Logs> = Late::default();
    let health = health(&logs, &topology, &postgres, &dynamodb);
    let letters = DeadLetters::new(
        views(&settings.log.contexts()?),
        Some(postgres.clone()),
        Some(dynamodb.clone()),
    );
    let operations = operations::routes(letters);
    let frame = Frame::open(&settings.common, health, operations, shutdown.clone()).await?;
    let stores = Stores {
        topology,
        postgres,
        dynamodb,
    };
    let ended = work(&settings, stores, &frame, &logs, &shutdown).await;
    frame.close().await;
    ended
}

struct Stores {
    topology: Topology,
    postgres: PgStore,
    dynamodb: DynamoStore,
}

fn health(
    logs: &Late<Logs>,
    topology: &Topology,
    postgres: &PgStore,
    dynamodb: &DynamoStore,
) -> Health {
    let logs = logs.clone();
    let nats = topology.jetstream().client();
    let (postgres, dynamodb) = (postgres.clone(), dynamodb.clone());
    // A projection that does not exist: answered by the control tables alone.
    const NOBODY: &str = "readiness";
    Health::new()
        .with("event log", move || {
            let logs = logs.clone();
            async move { logs.check().await }
        })
        .with("nats", move || std::future::ready(check_nats(&nats)))
        .with("read database", move || {
            let store = postgres.clone();
            async move {
                store
                    .generations(NOBODY)
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            }
        })
        .with("dynamodb", move || {
            let store = dynamodb.clone();
            async move {
                store
                    .generations(NOBODY)
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            }
        })
}

async fn work(
    settings: &Settings,
    stores: Stores,
    frame: &Frame,
    late_logs: &Late<Logs>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Stores {
        topology,
        postgres,
        dynamodb,
    } = stores;
    let places = LogPlaces::of(
        &settings.log,
        &settings.dynamodb,
        &settings.common.namespace,
        "millrace-projector",
    )
    .await?;
    let log_use = LogUse {
        migrate: false,
        appends: false,
    };
    let Some(logs) = Logs::open(&places, &settings.log.contexts()?, log_use, shutdown).await?
    else {
        return Ok(());
    };
    late_logs.set(logs.clone());
    if settings.projector.migrate && !migrate_views(&postgres, &dynamodb, shutdown).await? {
        return Ok(());
    }
    let names = topology.names().clone();
    let member = MemberId::new(&instance_name())?;
    let parts = RunnerParts {
        logs: logs.shared(),
        leases: Leases::new(topology.clone(), member, settings.nats.leases()),
        signals: Signals::new(topology.jetstream().client(), names.clone()),
        letters: DeadLetterPublisher::new(topology.jetstream().clone(), names),
        topology: topology.clone(),
        postgres: Some(postgres),
        dynamodb: Some(dynamodb),
        link: Some(trace::set_parent),
    };
    let all = views(&settings.log.contexts()?);
    let runner = Runner::new(settings.projector.choose(all)?, parts)?;
    let stop = CancellationToken::new();
    tokio::join!(
        Box::pin(runner.run(stop.clone())),
        Box::pin(AdvisoryCounter::new(topology).run(stop.clone())),
        async {
            frame.until_asked_to_end().await;
            stop.cancel();
        }
    );
    logs.close().await;
    Ok(())
}
