//! The command service: takes writes, appends their events, and relays the log to its stream.
//!
//! Writes need nothing but PostgreSQL. NATS may be away: the relay goes on where the stream stands
//! when it is back.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};
use millrace_es::Context;
use millrace_eventlog::{EventLog, PgEventLog, Repository, RepositoryOptions};
use millrace_http::{Api, ApiOptions, ServerLimits};
use millrace_ordering::{CommandState, command_routes, query_routes};
use millrace_roles::{
    Frame, Late, LogSettings, NatsSettings, bind, check_log, migrate_log, migrate_streams,
    open_log, pool, topology,
};
use millrace_runtime::admin::Health;
use millrace_runtime::{CommonSettings, HttpSettings, Service, instance_name};
use millrace_streaming::{
    Leases, LogCheck, MemberId, Relay, RelayOptions, Topology, check_log_against_stream,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the comparison of log and stream may take before this process serves without it; the
/// relay compares again before it publishes.
const MAX_LOG_CHECK: Duration = Duration::from_secs(3);

/// Takes writes over HTTP, appends their events to the log, and relays the log to NATS JetStream.
///
/// Every setting can be given on the command line, in the environment, or in a TOML file, in this
/// order; a setting that nobody knows is an error.
#[derive(Debug, Clone, Parser)]
#[command(name = "millrace-command", version, max_term_width = 100)]
pub struct Settings {
    /// What every role has.
    #[command(flatten)]
    pub common: CommonSettings,
    /// The public port.
    #[command(flatten)]
    pub http: HttpSettings,
    /// The event log.
    #[command(flatten)]
    pub log: LogSettings,
    /// NATS.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// This service's own.
    #[command(flatten)]
    pub command: CommandSettings,
}

/// What only the command service has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Command service")]
pub struct CommandSettings {
    /// Whether to bring the event log's schema and streams up to date; safe beside others
    #[arg(
        long,
        env = "MILLRACE_MIGRATE",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub migrate: bool,

    /// Whether this process relays the log to its stream, or stands by to do so
    #[arg(
        long,
        env = "MILLRACE_RELAY",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub relay: bool,

    /// How many states of aggregates are kept in memory
    #[arg(
        long,
        env = "MILLRACE_CACHED_AGGREGATES",
        default_value_t = RepositoryOptions::default().cached_aggregates,
        value_name = "COUNT"
    )]
    pub cached_aggregates: u64,

    /// A snapshot is written every so many events of a stream; 0 writes none
    #[arg(
        long,
        env = "MILLRACE_SNAPSHOT_EVERY",
        default_value_t = RepositoryOptions::default().snapshot_every,
        value_name = "EVENTS"
    )]
    pub snapshot_every: u64,
}

impl Service for Settings {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

/// Serves until told to stop.
///
/// # Errors
/// When a port is in use, a setting makes no sense, or the log is not what the settings say.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let log: Late<Arc<PgEventLog>> = Late::default();
    let checked = log.clone();
    let health = Health::new().with("event log", move || {
        let log = checked.get();
        async move { check_log(&*log?).await }
    });
    let operations = axum::Router::new();
    let frame = Frame::open(&settings.common, health, operations, shutdown.clone()).await?;
    let ended = serve(&settings, &frame, &log, &shutdown).await;
    if let Ok(log) = log.get() {
        log.close().await;
    }
    frame.close().await;
    ended
}

async fn serve(
    settings: &Settings,
    frame: &Frame,
    late_log: &Late<Arc<PgEventLog>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = bind(settings.http.listen).await?;
    let context = Context::new(millrace_ordering::CONTEXT)?;
    let namespace = &settings.common.namespace;
    let topology = topology(&settings.nats, namespace, "millrace-command").await?;
    let Some(log) = open(settings, &context, shutdown).await? else {
        return Ok(());
    };
    compare_with_stream(&*log, &topology).await?;
    late_log.set(Arc::clone(&log));

    let orders = Arc::new(Repository::new(
        Arc::clone(&log) as Arc<dyn EventLog>,
        RepositoryOptions {
            cached_aggregates: settings.command.cached_aggregates,
            snapshot_every: settings.command.snapshot_every,
        },
    ));
    let router = Api::new(ApiOptions::try_from(&settings.http)?)
        .serve(command_routes().with_state(CommandState { orders }))
        .document(query_routes())
        .finish();

    let stop = CancellationToken::new();
    let mut background = background(settings, log, topology, context, &stop)?;
    let close_port = CancellationToken::new();
    let limits = ServerLimits::from(&settings.http);
    let drain = settings.common.drain();
    let public = millrace_http::serve(listener, router, limits, close_port.clone(), drain);
    let mut public = std::pin::pin!(public);
    let mut asked = std::pin::pin!(frame.until_asked_to_end());
    loop {
        tokio::select! {
            served = &mut public => break served?,
            // Whatever ends early and badly ends this process: it is started again as a whole.
            Some(ended) = background.join_next() => ended??,
            () = &mut asked => {
                close_port.cancel();
                break public.await?;
            }
        }
    }
    // The relay ends after the last request, and gives its lease to the next one.
    stop.cancel();
    while let Some(ended) = background.join_next().await {
        ended??;
    }
    Ok(())
}

/// What goes on beside the requests, until `stop`.
fn background(
    settings: &Settings,
    log: Arc<PgEventLog>,
    topology: Topology,
    context: Context,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut tasks = JoinSet::new();
    if settings.command.migrate {
        let (topology, stop) = (topology.clone(), stop.clone());
        tasks.spawn(async move { migrate_streams(&topology, &[context], &stop).await });
    }
    if settings.command.relay {
        let member = MemberId::new(&instance_name())?;
        let leases = Leases::new(topology.clone(), member, settings.nats.leases());
        let options = RelayOptions {
            continue_trace: millrace_runtime::trace::set_parent,
            ..RelayOptions::default()
        };
        let relay = Relay::new(log, topology, leases, options);
        let stop = stop.clone();
        tasks.spawn(async move { Ok(relay.run(stop).await?) });
    }
    Ok(tasks)
}

async fn open(
    settings: &Settings,
    context: &Context,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Arc<PgEventLog>>> {
    let pool = pool(&settings.log, "millrace-command")?;
    let own = millrace_ordering::migrations();
    if settings.command.migrate
        && !migrate_log(&pool, context, settings.log.partitions, own, shutdown).await?
    {
        return Ok(None);
    }
    let inline = millrace_ordering::inline_tables();
    Ok(open_log(&pool, &settings.log, context, &inline, shutdown).await?)
}

/// A log that was restored to an earlier point must not give positions out again that readers have
/// seen. When NATS cannot be asked, writes are taken all the same.
async fn compare_with_stream(log: &dyn EventLog, topology: &Topology) -> anyhow::Result<()> {
    match tokio::time::timeout(MAX_LOG_CHECK, check_log_against_stream(log, topology)).await {
        Ok(Ok(LogCheck::Fit)) => {}
        Ok(Ok(LogCheck::Behind { reason })) => {
            tracing::error!(%reason, "the log is behind its stream and takes no writes; run `millrace log recover`");
        }
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log was not compared with its stream; the relay will"
            );
        }
        Err(_) => tracing::warn!("NATS does not answer; the relay will compare log and stream"),
    }
    Ok(())
}
