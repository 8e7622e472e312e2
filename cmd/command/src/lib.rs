//! The command service: takes writes, appends their events, and relays the log to its stream.
//!
//! Writes need nothing but PostgreSQL. NATS may be away: the relay goes on where the stream stands
//! when it is back.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use millrace_es::Context;
use millrace_eventlog::{EventLog, RepositoryOptions};
use millrace_http::{Api, ApiOptions, ServerLimits};
use millrace_roles::{
    DynamoSettings, Frame, Late, LogPlaces, LogSettings, LogUse, Logs, NatsSettings, OwnerSettings,
    bind, bind_internal, migrate_streams, serve_internal, topology,
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
    /// DynamoDB, for the event logs that are kept there.
    #[command(flatten)]
    pub dynamodb: DynamoSettings,
    /// The other contexts.
    #[command(flatten)]
    pub owners: OwnerSettings,
    /// This service's own.
    #[command(flatten)]
    pub command: CommandSettings,
}

/// What only the command service has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Command service")]
pub struct CommandSettings {
    /// Address of the internal port: the logs to read and the commands between contexts, for other
    /// processes of the system; never for the public
    #[arg(
        long,
        env = "MILLRACE_INTERNAL_LISTEN",
        default_value = "127.0.0.1:8090",
        value_name = "ADDRESS:PORT"
    )]
    pub internal_listen: SocketAddr,

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

impl CommandSettings {
    const fn repository(&self) -> RepositoryOptions {
        RepositoryOptions {
            cached_aggregates: self.cached_aggregates,
            snapshot_every: self.snapshot_every,
        }
    }
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
    let logs: Late<Logs> = Late::default();
    let checked = logs.clone();
    let health = Health::new().with("event log", move || {
        let logs = checked.clone();
        async move { logs.check().await }
    });
    let operations = axum::Router::new();
    let frame = Frame::open(&settings.common, health, operations, shutdown.clone()).await?;
    let ended = Box::pin(serve(&settings, &frame, &logs, &shutdown)).await;
    if let Ok(logs) = logs.get() {
        logs.close().await;
    }
    frame.close().await;
    ended
}

async fn serve(
    settings: &Settings,
    frame: &Frame,
    late_logs: &Late<Logs>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = bind(settings.http.listen).await?;
    let internal = bind_internal(settings.command.internal_listen).await?;
    let namespace = &settings.common.namespace;
    let topology = topology(&settings.nats, namespace, "millrace-command").await?;
    let places = LogPlaces::of(
        &settings.log,
        &settings.dynamodb,
        namespace,
        "millrace-command",
    )
    .await?;
    let log_use = LogUse {
        migrate: settings.command.migrate,
        appends: true,
    };
    let Some(logs) = Logs::open(&places, &settings.log.contexts()?, log_use, shutdown).await?
    else {
        return Ok(());
    };
    for log in logs.iter() {
        compare_with_stream(&*log.shared(), &topology).await?;
    }
    late_logs.set(logs.clone());
    let router = routes(settings, &logs)?;
    let contexts = settings.log.contexts()?;

    let stop = CancellationToken::new();
    let mut background = background(settings, &logs, &topology, &stop).await?;
    let close_port = CancellationToken::new();
    let limits = ServerLimits::from(&settings.http);
    let drain = settings.common.drain();
    let public = millrace_http::serve(listener, router, limits, close_port.clone(), drain);
    let mut public = std::pin::pin!(public);
    let repository = (settings.command.repository(), &settings.owners);
    let internal = serve_internal(
        internal,
        &contexts,
        &logs,
        repository,
        close_port.clone(),
        drain,
    );
    let mut both = std::pin::pin!(async { tokio::try_join!(public.as_mut(), internal) });
    let mut asked = std::pin::pin!(frame.until_asked_to_end());
    loop {
        tokio::select! {
            served = &mut both => {
                served?;
                break;
            }
            // Whatever ends early and badly ends this process: it is started again as a whole.
            Some(ended) = background.join_next() => ended??,
            () = &mut asked => {
                close_port.cancel();
                both.await?;
                break;
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

/// The routes of every context that this process serves, and the document of all of theirs.
fn routes(settings: &Settings, logs: &Logs) -> anyhow::Result<axum::Router> {
    let options = settings.command.repository();
    let mut api = Api::new(ApiOptions::try_from(&settings.http)?);
    for context in settings.log.contexts()? {
        if let Some((own, log)) = context.own_log().zip(logs.of(context)) {
            api = api.serve((own.commands)(log, options));
        }
        api = (context.document)(api);
    }
    Ok(api.finish())
}

/// What goes on beside the requests, until `stop`.
async fn background(
    settings: &Settings,
    logs: &Logs,
    topology: &Topology,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut tasks = JoinSet::new();
    if settings.command.migrate {
        let contexts: Vec<Context> = logs.iter().map(|log| log.context().clone()).collect();
        let (topology, stop) = (topology.clone(), stop.clone());
        tasks.spawn(async move { migrate_streams(&topology, &contexts, &stop).await });
    }
    if settings.command.relay {
        let member = MemberId::new(&instance_name())?;
        let leases = Leases::new(topology.clone(), member, settings.nats.leases());
        let options = RelayOptions {
            continue_trace: millrace_runtime::trace::set_parent,
            ..RelayOptions::default()
        };
        for log in logs.iter() {
            let mut relay = Relay::new(log.shared(), topology.clone(), leases.clone(), options);
            let (dynamodb, namespace) = (&settings.dynamodb, &settings.common.namespace);
            if let Some(processor) = log.stream_processor(dynamodb, namespace).await {
                relay = relay.fed_by(processor.feed());
                let stop = stop.clone();
                tasks.spawn(async move {
                    processor.run(stop).await;
                    Ok(())
                });
            }
            let stop = stop.clone();
            tasks.spawn(async move { Ok(relay.run(stop).await?) });
        }
    }
    Ok(tasks)
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
