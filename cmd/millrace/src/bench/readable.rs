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
    http::{Client, get_patiently},
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
    let began = Instant::now();
    let counts_from = began + context.size(Duration::from_secs(3), Duration::from_millis(300));
    let schedule = Arc::new(Schedule {
        began,
        counts_from,
        ends: counts_from + Duration::from_secs(context.size(15, 2)),
        rate,
        next: AtomicUsize::new(0),
        placing: orders::placing(USERS),
        view,
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

struct Schedule {
    began: Instant,
    counts_from: Instant,
    ends: Instant,
    rate: f64,
    next: AtomicUsize,
    placing: Arc<[Vec<u8>]>,
    view: View,
}

impl Schedule {
    async fn run(&self, mut command: Client, mut query: Client) -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53 requests")]
            let due = self.began + Duration::from_secs_f64(number as f64 / self.rate);
            if due >= self.ends {
                return Ok(latencies);
            }
            tokio::time::sleep_until(due.into()).await;
            let user = number % self.placing.len();
            let answered = command.send(&self.placing[user]).await?;
            let durable = Instant::now();
            ensure!(answered.status == 201, "an order got {}", answered.status);
            let position = answered.header("log-position").context("no Log-Position")?;
            let path = match self.view {
                View::Postgres => {
                    let order: serde_json::Value = serde_json::from_slice(answered.body)?;
                    let id = order["id"].as_str().context("the order has no id")?;
                    format!("/orders/{id}?at_least={position}")
                }
                View::DynamoDb => {
                    format!(
                        "/api/orders/{}?limit=1&at_least={position}",
                        orders::user(user)
                    )
                }
            };
            let shown = query.send(&get_patiently(&path)).await?.status;
            ensure!(shown == 200, "{path} got {shown}");
            if due >= self.counts_from {
                latencies.record(durable.elapsed());
            }
        }
    }
}
