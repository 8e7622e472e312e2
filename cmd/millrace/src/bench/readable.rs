//! How long it takes from the answer of a command until a query shows what it did.
//!
//! A command's answer says where its event stands (`Log-Position`); the query is asked at once with
//! `?at_least=` that place, as a client does that wants to read its own write, and answers when its
//! view is there. Both are sent on a schedule, whatever the answers take (open loop).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::{
    BenchContext, Figure, Latencies, Target,
    http::{Answered, Client, get_patiently},
    orders,
    system::{Roles, System},
};

/// Commands per second while the view in PostgreSQL is watched.
const POSTGRES_PER_SECOND: f64 = 500.0;
/// Commands per second while the view in DynamoDB is watched.
const DYNAMODB_PER_SECOND: f64 = 200.0;
/// Commands per second that leave a machine with both views in PostgreSQL room.
const ROOMY_PER_SECOND: f64 = 200.0;
/// Commands per second of an idle system.
const IDLE_PER_SECOND: f64 = 4.0;
/// The most commands per second of a quick run.
const QUICK_PER_SECOND: f64 = 20.0;
/// Clients, each with a connection to either side. A schedule that finds none free is counted as
/// late.
const CLIENTS: usize = 64;
/// The bounds, in milliseconds.
const P50_MS: f64 = 15.0;
const P99_MS: f64 = 100.0;
const IDLE_P50_MS: f64 = 20.0;
/// Users whose orders they are.
const USERS: usize = 1_000;

/// The query that is asked after the command.
#[derive(Debug, Clone, Copy)]
enum View {
    Postgres,
    DynamoDb,
}

/// Measures both views under load, and an idle system.
///
/// # Errors
/// When a role or a server fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let system = System::start(context, Roles::ALL).await?;
    let mut figures = Vec::new();
    for (view, rate, name) in [
        (View::Postgres, IDLE_PER_SECOND, "readable.postgres_idle"),
        (View::DynamoDb, IDLE_PER_SECOND, "readable.dynamodb_idle"),
        (View::DynamoDb, DYNAMODB_PER_SECOND, "readable.dynamodb"),
        (View::Postgres, POSTGRES_PER_SECOND, "readable.postgres"),
    ] {
        let idle = rate <= IDLE_PER_SECOND;
        let rate = context.size(rate, rate.min(QUICK_PER_SECOND));
        context.say(&format!("{name}: {rate} orders/s"));
        let latencies = measure(context, &system, view, rate).await?;
        let p50 = Figure::new(format!("{name}.p50"), latencies.quantile_ms(0.50), "ms");
        let p99 = Figure::new(format!("{name}.p99"), latencies.quantile_ms(0.99), "ms");
        if idle {
            figures.push(p50.target(Target::AtMost(IDLE_P50_MS)));
            figures.push(p99);
        } else {
            figures.push(p50.target(Target::AtMost(P50_MS)));
            figures.push(p99.target(Target::AtMost(P99_MS)));
        }
    }
    system.stop().await?;
    Ok(figures)
}

/// How soon a write is readable in PostgreSQL, at a rate that leaves the machine room.
pub async fn in_postgres(context: &BenchContext, system: &System) -> anyhow::Result<Latencies> {
    let rate = context.size(ROOMY_PER_SECOND, QUICK_PER_SECOND);
    measure(context, system, View::Postgres, rate).await
}

async fn measure(
    context: &BenchContext,
    system: &System,
    view: View,
    rate: f64,
) -> anyhow::Result<Latencies> {
    let ask = match view {
        View::Postgres => ask_for_order,
        View::DynamoDb => ask_for_users_orders,
    };
    let writes = OwnWrites {
        rate,
        writes: orders::placing(USERS),
        ask,
    };
    writes.measure(context, system).await
}

fn ask_for_order(_: usize, answered: &Answered<'_>) -> anyhow::Result<String> {
    let order: serde_json::Value = serde_json::from_slice(answered.body)?;
    let id = order["id"].as_str().context("the order has no id")?;
    Ok(format!("/orders/{id}?at_least={}", position(answered)?))
}

fn ask_for_users_orders(user: usize, answered: &Answered<'_>) -> anyhow::Result<String> {
    let (user, position) = (orders::user(user), position(answered)?);
    Ok(format!("/api/orders/{user}?limit=1&at_least={position}"))
}

/// Where the event of a write stands.
pub fn position<'a>(answered: &'a Answered<'_>) -> anyhow::Result<&'a str> {
    answered.header("log-position").context("no Log-Position")
}

/// Clients that read what they have just written.
pub struct OwnWrites {
    /// Writes per second, on a schedule.
    pub rate: f64,
    /// What is written, in turn; each has to be answered with 201.
    pub writes: Arc<[Vec<u8>]>,
    /// The path to read after a write, by its number among the writes and its answer; it has to be
    /// answered with 200.
    pub ask: fn(usize, &Answered<'_>) -> anyhow::Result<String>,
}

impl OwnWrites {
    /// How long it takes from the answer of a write to the answer of the read.
    ///
    /// # Errors
    /// When a request fails.
    pub async fn measure(
        self,
        context: &BenchContext,
        system: &System,
    ) -> anyhow::Result<Latencies> {
        let began = Instant::now();
        let counts_from = began + context.size(Duration::from_secs(3), Duration::from_millis(300));
        let schedule = Arc::new(Schedule {
            began,
            counts_from,
            ends: counts_from + Duration::from_secs(context.size(15, 2)),
            next: AtomicUsize::new(0),
            own: self,
        });
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let command = Client::connect(system.command).await?;
            let query = Client::connect(system.query).await?;
            let schedule = Arc::clone(&schedule);
            clients.spawn(async move { schedule.run(command, query).await });
        }
        let mut latencies = Latencies::default();
        while let Some(client) = clients.join_next().await {
            latencies.merge(&client??);
        }
        Ok(latencies)
    }
}

struct Schedule {
    began: Instant,
    counts_from: Instant,
    ends: Instant,
    next: AtomicUsize,
    own: OwnWrites,
}

impl Schedule {
    async fn run(&self, mut command: Client, mut query: Client) -> anyhow::Result<Latencies> {
        let own = &self.own;
        let mut latencies = Latencies::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53 requests")]
            let due = self.began + Duration::from_secs_f64(number as f64 / own.rate);
            if due >= self.ends {
                return Ok(latencies);
            }
            tokio::time::sleep_until(due.into()).await;
            let number = number % own.writes.len();
            let answered = command.send(&own.writes[number]).await?;
            let durable = Instant::now();
            ensure!(answered.status == 201, "a write got {}", answered.status);
            let path = (own.ask)(number, &answered)?;
            let shown = query.send(&get_patiently(&path)).await?.status;
            ensure!(shown == 200, "{path} got {shown}");
            if due >= self.counts_from {
                latencies.record(durable.elapsed());
            }
        }
    }
}
