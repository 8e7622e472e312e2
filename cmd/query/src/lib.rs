//! The query service: answers from the read models, and hands writes on where it is the only
//! public port.

use std::sync::Arc;

use clap::{Args, Parser};
use millrace_es::Context;
use millrace_eventlog::{EventLog, Repository, RepositoryOptions};
use millrace_http::{Api, ApiOptions, Forwarder, ServerLimits};
use millrace_ordering::{QueryState, command_routes, projections, query_routes};
use millrace_projecting::{
    DynamoReadModel, DynamoStore, PgReadModel, PgReadOptions, StoreError, View,
};
use millrace_roles::{
    DynamoSettings, Frame, Late, LogSettings, NatsSettings, ReadStoreSettings, bind, open_log,
    pool, topology,
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

/// The read models that the routes answer from.
#[derive(Clone)]
struct Models {
    orders_by_user: DynamoReadModel,
    order_read_models: PgReadModel,
    order_statistics: PgReadModel,
}

/// Serves until told to stop.
///
/// # Errors
/// When a port is in use or a setting makes no sense.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let models: Late<Models> = Late::default();
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

/// The log is not among what readiness asks for: without it only strong reads and histories fail.
fn health(models: &Late<Models>) -> Health {
    let (rows, items) = (models.clone(), models.clone());
    Health::new()
        .with("read database", move || {
            let models = rows.get();
            async move {
                let models = models?;
                models
                    .order_read_models
                    .check()
                    .await
                    .map_err(|error| error.to_string())?;
                models
                    .order_statistics
                    .check()
                    .await
                    .map_err(|error| error.to_string())
            }
        })
        .with("dynamodb", move || {
            let models = items.get();
            async move {
                models?
                    .orders_by_user
                    .check()
                    .await
                    .map_err(|error| error.to_string())
            }
        })
}

async fn serve(
    settings: &Settings,
    frame: &Frame,
    late_models: &Late<Models>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = bind(settings.http.listen).await?;
    let context = Context::new(millrace_ordering::CONTEXT)?;
    let pool = pool(&settings.log, "millrace-query")?;
    let Some(log) = open_log(&pool, &settings.log, &context, &[], shutdown).await? else {
        return Ok(());
    };
    let models = open_models(settings, &log).await?;
    late_models.set(models.clone());
    let log_for_routes = Arc::clone(&log) as Arc<dyn EventLog>;
    let state = QueryState {
        orders: Arc::new(Repository::new(
            Arc::clone(&log_for_routes),
            RepositoryOptions {
                snapshot_every: 0,
                ..RepositoryOptions::default()
            },
        )),
        log: log_for_routes,
        orders_by_user: models.orders_by_user,
        order_read_models: models.order_read_models,
        order_statistics: models.order_statistics,
    };
    let mut api = Api::new(ApiOptions::try_from(&settings.http)?)
        .serve(query_routes().with_state(state))
        .document(command_routes());
    if let Some(url) = settings
        .query
        .command_url
        .as_deref()
        .filter(|url| !url.is_empty())
    {
        api = api.forward(Forwarder::new(url)?);
    }
    let close_port = CancellationToken::new();
    let limits = ServerLimits::from(&settings.http);
    let drain = settings.common.drain();
    let public = millrace_http::serve(listener, api.finish(), limits, close_port.clone(), drain);
    let mut public = std::pin::pin!(public);
    tokio::select! {
        served = &mut public => served?,
        () = frame.until_asked_to_end() => {
            close_port.cancel();
            public.await?;
        }
    }
    log.close().await;
    Ok(())
}

async fn open_models<L: EventLog + 'static>(
    settings: &Settings,
    log: &Arc<L>,
) -> anyhow::Result<Models> {
    let topology = topology(&settings.nats, &settings.common.namespace, "millrace-query").await?;
    let signals = Signals::new(topology.jetstream().client(), topology.names().clone());
    let url = settings
        .query
        .query_database_url
        .as_ref()
        .or(settings.read.read_database_url.as_ref())
        .unwrap_or(&settings.log.database_url);
    let options = PgReadOptions {
        max_connections: settings.query.query_connections,
        ..PgReadOptions::default()
    };
    let logs = || vec![Arc::clone(log) as Arc<dyn EventLog>];
    let postgres = |name: &str| {
        PgReadModel::open(
            url.expose(),
            &view(name)?,
            logs(),
            Some(signals.clone()),
            options,
        )
    };
    let client = aws::dynamodb_client(settings.dynamodb.endpoint()).await;
    let dynamodb = DynamoStore::new(client, settings.common.namespace.clone());
    Ok(Models {
        orders_by_user: DynamoReadModel::open(
            dynamodb,
            &view("orders-by-user")?,
            logs(),
            Some(signals.clone()),
        )?,
        order_read_models: postgres("order-read-models")?,
        order_statistics: postgres("order-statistics")?,
    })
}

fn view(name: &str) -> Result<View, StoreError> {
    projections()
        .into_iter()
        .find(|view| view.name() == name)
        .ok_or_else(|| StoreError::Invalid(format!("there is no projection {name}")))
}
