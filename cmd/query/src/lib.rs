//! The query service: answers from the read models, and hands writes on where it is the only
//! public port.

use clap::{Args, Parser};
use millrace_http::{Api, ApiOptions, Forwarder, ServerLimits};
use millrace_projecting::{DynamoStore, PgReadOptions};
use millrace_roles::{
    ArchiveSettings, DynamoSettings, Frame, Late, LogPlaces, LogSettings, LogUse, Logs,
    NatsSettings, Opened, OwnerSettings, ReadModels, ReadStoreSettings, Work, bind, topology,
    views,
};
use millrace_runtime::admin::Health;
use millrace_runtime::{CommonSettings, HttpSettings, Secret, Service, aws};
use millrace_streaming::Signals;
use tokio_util::sync::CancellationToken;

/// Answers queries over HTTP from the read models in PostgreSQL and DynamoDB.
///
/// Every setting can be given on the command line, in the environment, or in a TOML file, in this
/// order; a setting that nobody knows is an error.
#[derive(Debug, Clone, Parser)]
#[command(name = "millrace-query", version, max_term_width = 100)]
pub struct Settings {
    /// What every role has.
    #[command(flatten)]
    pub common: CommonSettings,
    /// The public port.
    #[command(flatten)]
    pub http: HttpSettings,
    /// The event log, for strong reads and histories.
    #[command(flatten)]
    pub log: LogSettings,
    /// NATS, for hearing that a read model moved on.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// The read models in PostgreSQL, where projectors write them.
    #[command(flatten)]
    pub read: ReadStoreSettings,
    /// The read models in DynamoDB.
    #[command(flatten)]
    pub dynamodb: DynamoSettings,
    /// The other contexts.
    #[command(flatten)]
    pub owners: OwnerSettings,
    /// Where receipts are archived.
    #[command(flatten)]
    pub archive: ArchiveSettings,
    /// This service's own.
    #[command(flatten)]
    pub query: QuerySettings,
}

/// What only the query service has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Query service")]
pub struct QuerySettings {
    /// PostgreSQL that queries are answered from, perhaps a replica [default: where projectors
    /// write]
    #[arg(long, env = "QUERY_DATABASE_URL", value_name = "URL")]
    pub query_database_url: Option<Secret<String>>,

    /// Connections for the queries of one read model
    #[arg(
        long,
        env = "MILLRACE_QUERY_CONNECTIONS",
        default_value_t = PgReadOptions::MAX_CONNECTIONS,
        value_name = "COUNT"
    )]
    pub query_connections: u32,

    /// Command service to hand writes to, where this one is the only public port
    #[arg(long, env = "COMMAND_URL", value_name = "URL")]
    pub command_url: Option<String>,
}

impl Service for Settings {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

/// Serves until told to stop.
///
/// # Errors
/// When a port is in use or a setting makes no sense.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let models: Late<Opened> = Late::default();
    let frame = Frame::open(
        &settings.common,
        health(&models),
        axum::Router::new(),
        shutdown.clone(),
    )
    .await?;
    let ended = serve(&settings, &frame, &models, &shutdown).await;
    frame.close().await;
    ended
}

/// The logs are not among what readiness asks for: without them only strong reads and histories
/// fail.
fn health(models: &Late<Opened>) -> Health {
    let (rows, items) = (models.clone(), models.clone());
    Health::new()
        .with("read database", move || {
            let models = rows.get();
            async move { models?.check_postgres().await }
        })
        .with("dynamodb", move || {
            let models = items.get();
            async move { models?.check_dynamodb().await }
        })
}

async fn serve(
    settings: &Settings,
    frame: &Frame,
    late_models: &Late<Opened>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = bind(settings.http.listen).await?;
    let places = LogPlaces::of(
        &settings.log,
        &settings.dynamodb,
        &settings.common.namespace,
        "millrace-query",
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
    let logs = logs.with_others(&views(&settings.log.contexts()?), &settings.owners.owners())?;
    let models = read_models(settings, &logs).await?;
    let router = routes(settings, &logs, &models)?;
    late_models.set(models.opened.clone());
    let close_port = CancellationToken::new();
    let limits = ServerLimits::from(&settings.http);
    let drain = settings.common.drain();
    let public = millrace_http::serve(listener, router, limits, close_port.clone(), drain);
    let mut public = std::pin::pin!(public);
    tokio::select! {
        served = &mut public => served?,
        () = frame.until_asked_to_end() => {
            close_port.cancel();
            public.await?;
        }
    }
    logs.close().await;
    Ok(())
}

/// The routes of every context that this process serves, and the document of all of theirs.
fn routes(settings: &Settings, logs: &Logs, models: &ReadModels) -> anyhow::Result<axum::Router> {
    let mut api = Api::new(ApiOptions::try_from(&settings.http)?);
    for context in settings.log.contexts()? {
        match &context.work {
            Work::Decides(own) => {
                if let Some(log) = logs.of(context) {
                    api = api.serve((own.queries)(log, models)?);
                }
            }
            Work::Listens(queries) => api = api.serve(queries(models)?),
        }
        api = (context.document)(api);
    }
    let command_url = settings.query.command_url.as_deref();
    if let Some(url) = command_url.filter(|url| !url.is_empty()) {
        api = api.forward(Forwarder::new(url)?);
    }
    Ok(api.finish())
}

async fn read_models(settings: &Settings, logs: &Logs) -> anyhow::Result<ReadModels> {
    let topology = topology(&settings.nats, &settings.common.namespace, "millrace-query").await?;
    let contexts = settings.log.contexts()?;
    let url = match &settings.query.query_database_url {
        Some(url) => url,
        None => settings.read.url(&settings.log)?,
    };
    let mut own_urls = Vec::new();
    for (name, url) in settings.read.own_urls() {
        let own = contexts.iter().filter(|known| known.name == name);
        let views = own.flat_map(|known| (known.views)());
        own_urls.extend(views.map(|view| (view.name(), url.expose().clone())));
    }
    let client = aws::dynamodb_client(settings.dynamodb.endpoint()).await;
    Ok(ReadModels {
        views: views(&contexts),
        logs: logs.shared(),
        signals: Signals::new(topology.jetstream().client(), topology.names().clone()),
        url: url.expose().clone(),
        own_urls,
        options: PgReadOptions {
            max_connections: settings.query.query_connections,
            ..PgReadOptions::default()
        },
        store: DynamoStore::new(client, settings.common.namespace.clone()),
        receipts: settings.archive.receipts()?,
        opened: Opened::default(),
    })
}
