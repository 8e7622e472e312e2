//! A rebuild of the orders' read model from a full log.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt;
use millrace_es::Position;
use millrace_eventlog::{EventLog, MAX_PAGE_EVENTS, PgEventLog, pages_after};
use millrace_ordering::views::order_read_models::OrderReadModels;
use millrace_projecting::{
    Generation, LoadEnd, Owner, Pace, PgRows, PgStore, Rebuilds, Share, View,
};
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;

use super::{
    BenchContext, BenchDatabase, Figure, Target,
    projector::{filled_log, users_log},
    timing::{bounded, per_second},
};

/// Orders in the log, in a full run and in a quick one: there are 1.75 events per order.
const ORDERS: (u64, u64) = (571_440, 2_000);

/// The view's name and its table's.
const PROJECTION: &str = "order-read-models";
const TABLE: &str = "order_read_models";

/// How long each step took.
struct Steps {
    load: Duration,
    finish: Duration,
}

/// Measures a rebuild, as fast as it can, beside what it would be by hand: the log read once, the
/// same rows copied, the same indexes made.
///
/// # Errors
/// When a server fails, a measurement does not end, or the rows are not those of the log.
pub async fn run(bench: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let orders = bench.size(ORDERS.0, ORDERS.1);
    bench.say(&format!("filling a log with {orders} orders"));
    let log = filled_log(bench, orders).await?;
    let read = bench.database("read").await?;
    let store = PgStore::open(&read.url)?;
    store.migrate().await?;
    let rebuilds = Rebuilds::new(
        vec![View::postgres_rows::<OrderReadModels>()],
        vec![
            Arc::clone(&log) as Arc<dyn EventLog>,
            users_log(bench).await?,
        ],
        Some(store),
        None,
        None,
    );
    let owner = Owner::new("bench")?;
    let begun = rebuilds.begin(&owner, PROJECTION, Pace::default()).await?;
    let events: u64 = begun.targets.iter().map(|target| target.events()).sum();
    bench.say("rebuilding");
    forget_peak_memory();
    let steps = bounded("the rebuild", rebuild(&rebuilds, &begun.generation)).await??;
    let peak = peak_memory_mib();
    check(&read, &begun.generation, orders, events).await?;
    bench.say("reading the log, and copying the same rows");
    let reading = bounded("reading the log", read_log(&log)).await??;
    let (copying, indexing) = copy_rows(&read, &begun.generation).await?;
    let by_hand = reading + copying;
    let rate = |took| per_second(events, took);
    Ok(vec![
        Figure::new("rebuild.load", rate(steps.load), "events/s")
            .over("a read of the log and a COPY of the rows", rate(by_hand))
            .target(Target::RatioAtLeast(0.5)),
        Figure::new("rebuild.whole", rate(steps.load + steps.finish), "events/s")
            .over("the same and the same indexes", rate(by_hand + indexing))
            .target(Target::AtLeast(50_000.0)),
        Figure::new("rebuild.log_read", rate(reading), "events/s"),
        Figure::new("rebuild.memory_peak", peak, "MiB").target(Target::AtMost(300.0)),
    ])
}

async fn rebuild(rebuilds: &Rebuilds, generation: &Generation) -> anyhow::Result<Steps> {
    let started = Instant::now();
    let stop = CancellationToken::new();
    let ended = rebuilds.load(generation, Share::WHOLE, stop).await?;
    ensure!(ended == LoadEnd::Done, "the load ended as {ended:?}");
    let load = started.elapsed();
    rebuilds.finish(generation).await?;
    let finish = started.elapsed() - load;
    Ok(Steps { load, finish })
}

/// Each event was folded once.
async fn check(
    read: &BenchDatabase,
    generation: &Generation,
    orders: u64,
    events: u64,
) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT count(*), sum(version)::bigint FROM {}.{TABLE}",
        generation.place
    );
    let found: (i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(&read.pool)
        .await?;
    let expected = (i64::try_from(orders)?, i64::try_from(events)?);
    ensure!(
        found == expected,
        "the rows are {found:?}, not {expected:?}"
    );
    Ok(())
}

async fn read_log(log: &PgEventLog) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let through = log.head().await?.position;
    let mut pages = Box::pin(pages_after(log, Position::ZERO, through, MAX_PAGE_EVENTS));
    while pages.try_next().await?.is_some() {}
    Ok(started.elapsed())
}

/// Copies the rows into a table of the same columns and primary key, and makes its indexes.
async fn copy_rows(
    read: &BenchDatabase,
    generation: &Generation,
) -> anyhow::Result<(Duration, Duration)> {
    let mut conn = read.pool.acquire().await?;
    let rows = conn
        .copy_out_raw(&format!(
            "COPY {}.{TABLE} TO STDOUT (FORMAT binary)",
            generation.place
        ))
        .await?
        .try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await?;
    conn.execute("CREATE SCHEMA by_hand; SET search_path = by_hand, public;")
        .await?;
    conn.execute(OrderReadModels::TABLES).await?;
    let started = Instant::now();
    let mut copy = conn
        .copy_in_raw(&format!("COPY {TABLE} FROM STDIN (FORMAT binary)"))
        .await?;
    copy.send(rows).await?;
    copy.finish().await?;
    let copying = started.elapsed();
    conn.execute(sqlx::raw_sql(OrderReadModels::INDEXES))
        .await
        .context("the indexes were not made")?;
    Ok((copying, started.elapsed() - copying))
}

/// From here on the peak is that of what follows.
fn forget_peak_memory() {
    // Where the kernel does not let it, the peak is that of the whole run: only worse.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most that this process held in memory.
fn peak_memory_mib() -> f64 {
    super::projector::status_mib("VmHWM:")
}
