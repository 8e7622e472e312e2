//! Queries over HTTP, beside what the store itself gives for the same read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::{
    BenchContext, BenchDatabase, Figure, HttpLoad, Latencies, Seen, Target,
    http::get,
    load::send_each,
    orders,
    system::{Roles, System},
};

/// Connections that read, and concurrent readers of the baseline.
const CONNECTIONS: usize = 64;
/// What a read over HTTP should reach of what the store gives.
const RATIO: f64 = 0.7;
/// Users whose orders are read.
const USERS: usize = 200;
/// Orders of each user.
const ORDERS_PER_USER: usize = 20;
/// How long views may take to have all orders, in milliseconds.
const CATCH_UP_MS: u64 = 120_000;

/// Measures `GET /orders/{id}` (PostgreSQL) and `GET /api/orders/{userId}` (DynamoDB).
///
/// # Errors
/// When a role or a server fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let system = System::start(context, Roles::ALL).await?;
    let users = context.size(USERS, 10);
    let ids = prepare(context, &system, users, ORDERS_PER_USER).await?;
    let mut figures = Vec::new();

    context.say("GET /orders/{id}");
    let seen = one_order(context, &system, &ids).await?;
    let store = sqlx_reads(context, &system.database, &ids).await?;
    push(
        &mut figures,
        "reads.order",
        "sqlx, the same row",
        &seen,
        &store,
    );

    context.say("GET /api/orders/{userId}");
    let paths = (0..users).map(|user| format!("/api/orders/{}", orders::user(user)));
    let seen = read(context, &system, paths).await?;
    let store = sdk_reads(context, &system, users).await?;
    push(
        &mut figures,
        "reads.orders_by_user",
        "SDK, the same query",
        &seen,
        &store,
    );
    system.stop().await?;
    Ok(figures)
}

/// Reads single orders by id.
pub async fn one_order(
    context: &BenchContext,
    system: &System,
    ids: &[String],
) -> anyhow::Result<Seen> {
    read(
        context,
        system,
        ids.iter().map(|id| format!("/orders/{id}")),
    )
    .await
}

async fn read(
    context: &BenchContext,
    system: &System,
    paths: impl Iterator<Item = String>,
) -> anyhow::Result<Seen> {
    let load = HttpLoad {
        address: system.query,
        connections: CONNECTIONS,
        duration: seconds(context),
        warm_up: context.size(Duration::from_secs(2), Duration::from_millis(300)),
        requests: paths.map(|path| get(&path)).collect(),
        rate: None,
    };
    load.run(200).await?.mostly_well("GET")
}

fn push(figures: &mut Vec<Figure>, name: &str, baseline: &str, seen: &Seen, store: &Seen) {
    let baseline = |what: &str| format!("{baseline}{what}");
    figures.push(
        Figure::new(format!("{name}.max"), seen.per_second, "reads/s")
            .over(baseline(""), store.per_second)
            .target(Target::RatioAtLeast(RATIO)),
    );
    for (quantile, share) in [("p50", 0.50), ("p99", 0.99)] {
        let ms = seen.latencies.quantile_ms(share);
        let theirs = store.latencies.quantile_ms(share);
        let figure = Figure::new(format!("{name}.{quantile}"), ms, "ms");
        figures.push(figure.over(baseline(&format!(", {quantile}")), theirs));
    }
}

/// Places orders and waits until both views have them; gives their ids.
pub async fn prepare(
    context: &BenchContext,
    system: &System,
    users: usize,
    each: usize,
) -> anyhow::Result<Vec<String>> {
    context.say(&format!("placing {} orders", users * each));
    let requests = orders::placing(users);
    let ids = send_each(
        system.command,
        requests,
        users * each,
        CONNECTIONS,
        |answered| {
            ensure!(answered.status == 201, "an order got {}", answered.status);
            let order: serde_json::Value = serde_json::from_slice(answered.body)?;
            let id = order["id"].as_str().context("the order has no id")?;
            Ok(id.to_owned())
        },
    )
    .await?;
    context.say("waiting until the views have them");
    let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS);
    system.caught_up(deadline).await?;
    Ok(ids)
}

/// The same row read by its key on as many connections, by the library that the query side uses.
async fn sqlx_reads(
    context: &BenchContext,
    database: &BenchDatabase,
    ids: &[String],
) -> anyhow::Result<Seen> {
    let schema = active_schema(database, "order-read-models").await?;
    let read: Arc<str> = format!(
        "SELECT id, o.user_id, username, email, items::text, items_count,
                total_amount::text, status, shipping_address, notes, is_deleted,
                created_at, updated_at, version
         FROM {schema}.order_read_models o
         LEFT JOIN {schema}.order_users u ON u.user_id = o.user_id WHERE id = $1"
    )
    .into();
    let ids: Arc<[String]> = ids.into();
    let mut readers = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = PgConnection::connect(&database.url).await?;
        readers.push(connection);
    }
    let course = Course::new(context);
    let mut tasks = JoinSet::new();
    for mut connection in readers {
        let (read, ids, course) = (Arc::clone(&read), Arc::clone(&ids), Arc::clone(&course));
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            while let Some((number, began)) = course.next() {
                let read = sqlx::AssertSqlSafe(Arc::clone(&read));
                let row = sqlx::query(read).bind(&ids[number % ids.len()]);
                row.fetch_one(&mut connection).await?;
                course.record(&mut latencies, began);
            }
            Ok::<_, anyhow::Error>(latencies)
        });
    }
    course.finish(tasks).await
}

/// The same query by as many concurrent callers, by the SDK that the query side uses.
async fn sdk_reads(context: &BenchContext, system: &System, users: usize) -> anyhow::Result<Seen> {
    let client = context.dynamodb().await;
    let table = system.dynamodb_table("orders-by-user").await?;
    callers(context, CONNECTIONS, move |turn| {
        let user = AttributeValue::S(orders::user(turn % users));
        let query = client
            .query()
            .table_name(&table)
            .key_condition_expression("user_id = :user")
            .filter_expression("attribute_not_exists(tombstone)")
            .expression_attribute_values(":user", user)
            .scan_index_forward(false)
            .limit(51);
        async move {
            query.send().await?;
            Ok(())
        }
    })
    .await
}

/// Calls again and again from as many concurrent callers, each call with the number of its turn.
pub async fn callers<F, Called>(
    context: &BenchContext,
    count: usize,
    call: F,
) -> anyhow::Result<Seen>
where
    F: Fn(usize) -> Called + Clone + Send + 'static,
    Called: Future<Output = anyhow::Result<()>> + Send,
{
    let course = Course::new(context);
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (call, course) = (call.clone(), Arc::clone(&course));
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            while let Some((turn, began)) = course.next() {
                call(turn).await?;
                course.record(&mut latencies, began);
            }
            Ok(latencies)
        });
    }
    course.finish(tasks).await
}

/// The schema of the generation that answers for a projection.
async fn active_schema(database: &BenchDatabase, projection: &str) -> anyhow::Result<String> {
    sqlx::query_scalar(
        "SELECT schema_name FROM projections.generations
         WHERE projection = $1 AND status = 'active'",
    )
    .bind(projection)
    .fetch_optional(&database.pool)
    .await?
    .with_context(|| format!("no generation of {projection} answers"))
}

/// When a baseline's readers begin to count and end.
struct Course {
    counts_from: Instant,
    ends: Instant,
    next: AtomicUsize,
}

impl Course {
    fn new(context: &BenchContext) -> Arc<Self> {
        let counts_from =
            Instant::now() + context.size(Duration::from_secs(2), Duration::from_millis(300));
        Arc::new(Self {
            counts_from,
            ends: counts_from + seconds(context),
            next: AtomicUsize::new(0),
        })
    }

    fn next(&self) -> Option<(usize, Instant)> {
        let now = Instant::now();
        (now < self.ends).then(|| (self.next.fetch_add(1, Ordering::Relaxed), now))
    }

    fn record(&self, latencies: &mut Latencies, began: Instant) {
        let now = Instant::now();
        if began >= self.counts_from && now < self.ends {
            latencies.record(now - began);
        }
    }

    async fn finish(&self, mut tasks: JoinSet<anyhow::Result<Latencies>>) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        while let Some(reader) = tasks.join_next().await {
            seen.latencies.merge(&reader??);
        }
        let seconds = (self.ends - self.counts_from).as_secs_f64();
        seen.per_second = f64::from(u32::try_from(seen.latencies.count())?) / seconds;
        Ok(seen)
    }
}

fn seconds(context: &BenchContext) -> Duration {
    Duration::from_secs(context.size(10, 1))
}
