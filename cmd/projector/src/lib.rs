//! The projector: folds the streams into the read models, and performs the reactions.

mod operations;
mod rebuild;

use std::sync::Arc;

use clap::{Args, Parser};
use millrace_projecting::{
    DeadLetters, DynamoStore, PgStore, Rebuilds, Runner, RunnerParts, StoreKind, View, show_checks,
};
use millrace_replay::{Engine, ProjectorWorks};
use millrace_replaying::{ReadStores, ReplayTable, drive, load_what_is_asked};
use millrace_roles::{
    Around, DynamoSettings, EffectSettings, Effects, Frame, Late, LogPlaces, LogSettings, LogUse,
    Logs, NatsSettings, OwnerSettings, ReadStoreSettings, RebuildBy, Running, check_nats,
    known_reactions, migrate_views, reactions, topology, views,
};
use millrace_runtime::admin::Health;
use millrace_runtime::{CommonSettings, Service, aws, instance_name, trace};
use millrace_streaming::{
    AdvisoryCounter, DeadLetterPublisher, Leases, MemberId, Signals, Topology,
};
use tokio_util::sync::CancellationToken;

pub use rebuild::RebuildSettings;
use rebuild::load_share;

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
    /// The other contexts.
    #[command(flatten)]
    pub owners: OwnerSettings,
    /// Where effects go.
    #[command(flatten)]
    pub effects: EffectSettings,
    /// This role's own.
    #[command(flatten)]
    pub projector: ProjectorSettings,
    /// What makes the process a worker of a rebuild.
    #[command(flatten)]
    pub rebuild: RebuildSettings,
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

    /// The projections that this process keeps and the reactions that it performs, by name,
    /// separated by commas, where some are to be scaled apart from others [default: all]
    #[arg(
        long,
        env = "MILLRACE_PROJECTIONS",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub projections: Vec<String>,

    /// Who does the bulk work of rebuilds. With `projector` this process also drives the replays
    /// that were asked for by `millrace replay`; with `job` those of Kubernetes have Jobs of their own
    #[arg(
        long,
        env = "MILLRACE_REBUILD_BY",
        default_value = "projector",
        value_enum,
        value_name = "WHO"
    )]
    pub rebuild_by: RebuildBy,
}

impl ProjectorSettings {
    /// The views and the reactions that are asked for, of all that there are.
    fn choose(&self, all: Vec<View>, known_reactions: &[View]) -> anyhow::Result<Vec<View>> {
        let is_in = |views: &[View], name: &str| views.iter().any(|view| view.name() == name);
        let wanting = self.projections.iter().find(|name| !is_in(&all, name));
        if let Some(name) = wanting {
            anyhow::ensure!(
                !is_in(known_reactions, name),
                "{name} is asked for, but nothing says where its effects go"
            );
            let names: Vec<_> = all.iter().map(View::name).collect();
            anyhow::bail!(
                "there is no projection {name:?}; there are {}",
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
    let postgres = settings
        .read
        .open(&settings.log, &settings.log.contexts()?)?;
    let replays = ReplayTable::open(settings.read.url(&settings.log)?.expose())?;
    let views = views(&settings.log.contexts()?);
    let dynamodb = dynamodb(&settings, &views).await;
    let logs: Late<Logs> = Late::default();
    let health = health(&logs, &topology, &postgres, dynamodb.as_ref());
    let letters = DeadLetters::new(known(&settings)?, Some(postgres.clone()), dynamodb.clone());
    let operations = operations::routes(letters.clone());
    let frame = Frame::open(&settings.common, health, operations, shutdown.clone()).await?;
    let stores = Stores {
        topology,
        postgres,
        dynamodb,
        letters,
        replays,
    };
    let ended = Box::pin(work(&settings, stores, &frame, &logs, &shutdown)).await;
    frame.close().await;
    ended
}

/// The views of this process's contexts, and its reactions by name.
fn known(settings: &Settings) -> anyhow::Result<Vec<View>> {
    let contexts = settings.log.contexts()?;
    let mut all = views(&contexts);
    all.extend(known_reactions(&contexts));
    Ok(all)
}

/// What this process works on: the views, and the reactions whose effects have somewhere to go.
async fn chosen(settings: &Settings) -> anyhow::Result<Vec<View>> {
    let contexts = settings.log.contexts()?;
    let effects = Effects::of(&settings.effects, &settings.common.namespace).await?;
    let performed = reactions(&contexts, &effects);
    let known = known_reactions(&contexts);
    for reaction in &known {
        let name = reaction.name();
        if !performed.iter().any(|one| one.name() == name) {
            tracing::info!(
                reaction = name,
                "not performed: nothing says where its effects go"
            );
        }
    }
    let mut all = views(&contexts);
    all.extend(performed);
    settings.projector.choose(all, &known)
}

struct Stores {
    topology: Topology,
    postgres: PgStore,
    dynamodb: Option<DynamoStore>,
    letters: DeadLetters,
    replays: ReplayTable,
}

/// DynamoDB, where some of these views are kept there: a process of others does without it.
async fn dynamodb(settings: &Settings, views: &[View]) -> Option<DynamoStore> {
    if views.iter().all(|view| view.store() == StoreKind::Postgres) {
        return None;
    }
    let client = aws::dynamodb_client(settings.dynamodb.endpoint()).await;
    Some(DynamoStore::new(client, settings.common.namespace.clone()))
}

fn health(
    logs: &Late<Logs>,
    topology: &Topology,
    postgres: &PgStore,
    dynamodb: Option<&DynamoStore>,
) -> Health {
    let logs = logs.clone();
    let nats = topology.jetstream().client();
    let postgres = postgres.clone();
    // A projection that does not exist: answered by the control tables alone.
    const NOBODY: &str = "readiness";
    let health = Health::new()
        .with("event log", move || {
            let logs = logs.clone();
            async move { logs.check().await }
        })
        .with("nats", move || std::future::ready(check_nats(&nats)))
        .with("read database", move || {
            let store = postgres.clone();
            async move {
                for one in store.all() {
                    one.generations(NOBODY).await.map_err(|e| e.to_string())?;
                }
                Ok(())
            }
        });
    let Some(dynamodb) = dynamodb.cloned() else {
        return health;
    };
    health.with("dynamodb", move || {
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
        letters,
        replays,
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
        // Its sagas append; the tables of the append's own transaction have to follow.
        appends: true,
    };
    let Some(logs) = Logs::open(&places, &settings.log.contexts()?, log_use, shutdown).await?
    else {
        return Ok(());
    };
    let all = views(&settings.log.contexts()?);
    let logs = logs.with_others(&all, &settings.owners.owners())?;
    late_logs.set(logs.clone());
    if settings.projector.migrate && !migrate_views(&postgres, dynamodb.as_ref(), shutdown).await? {
        return Ok(());
    }
    let rebuilds = Rebuilds::new(
        known(settings)?,
        logs.shared(),
        Some(postgres.clone()),
        dynamodb.clone(),
        Some(topology.clone()),
    );
    if let Some(asked) = settings.rebuild.asked() {
        let loaded = load_share(&rebuilds, &settings.rebuild, asked, shutdown.clone()).await;
        logs.close().await;
        return loaded;
    }
    let names = topology.names().clone();
    let checks = postgres.clone();
    let member = MemberId::new(&instance_name())?;
    let parts = RunnerParts {
        logs: logs.shared(),
        leases: Leases::new(topology.clone(), member, settings.nats.leases()),
        signals: Signals::new(topology.jetstream().client(), names.clone()),
        letters: DeadLetterPublisher::new(topology.jetstream().clone(), names),
        topology: topology.clone(),
        postgres: Some(postgres),
        dynamodb,
        link: Some(trace::set_parent),
    };
    let stop = CancellationToken::new();
    let timers = timers(settings, &logs, &parts.signals, &stop)?;
    let runner = Runner::new(chosen(settings).await?, parts)?;
    tokio::join!(
        futures::future::join_all(timers),
        Box::pin(runner.run(stop.clone())),
        Box::pin(AdvisoryCounter::new(topology).run(stop.clone())),
        Box::pin(show_checks(checks, stop.clone())),
        Box::pin(replay(
            settings.projector.rebuild_by,
            rebuilds,
            letters,
            replays,
            stop.clone()
        )),
        async {
            frame.until_asked_to_end().await;
            stop.cancel();
        }
    );
    logs.close().await;
    Ok(())
}

/// The timers of the sagas of this process's contexts.
fn timers(
    settings: &Settings,
    logs: &Logs,
    signals: &Signals,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Running>> {
    let around = Around {
        owners: settings.owners.owners(),
        signals: signals.clone(),
    };
    let mut all = Vec::new();
    for known in settings.log.contexts()? {
        if let (Some(own), Some(log)) = (known.own_log(), logs.of(known)) {
            all.extend((own.timers)(log, &around, stop)?);
        }
    }
    Ok(all)
}

/// Drives the replays of the read database and loads their generations, unless Jobs do.
async fn replay(
    by: RebuildBy,
    rebuilds: Rebuilds,
    letters: DeadLetters,
    replays: ReplayTable,
    stop: CancellationToken,
) {
    if by == RebuildBy::Job {
        return;
    }
    let engine: Arc<dyn Engine> = Arc::new(ReadStores::new(rebuilds.clone(), letters));
    tokio::join!(
        drive(
            replays.clone(),
            engine,
            Arc::new(ProjectorWorks),
            stop.clone()
        ),
        load_what_is_asked(rebuilds, replays, stop),
    );
}
