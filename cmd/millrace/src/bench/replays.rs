//! What the users of a running system notice of a rebuild and of a switch: how long commands take
//! meanwhile, and how long a read is held up.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use millrace_ordering::views::order_read_models::OrderReadModels;
use millrace_projecting::{Generation, LoadEnd, Owner, Pace, Rebuilds, Share, StoreError, View};
use millrace_replay::DEFAULT_EVENTS_PER_SECOND;
use tokio_util::sync::CancellationToken;

use super::{
    BenchContext, Figure, HttpLoad, Latencies, Target,
    append::{Beside, Lane},
    growth::some_ids,
    http::get,
    orders,
    system::{Roles, System},
};

/// Events in the log, in a full run and in a quick one.
const EVENTS: (u64, u64) = (400_000, 600);
/// Appends that wait together while the log is filled.
const WAITING: usize = 1_000;
/// Users whose orders are placed.
const USERS: usize = 1_000;
/// Orders placed and orders read in a second: a load, not the most that goes.
const RATE: f64 = 200.0;
/// Connections that place or read orders.
const CONNECTIONS: usize = 16;
/// How long each measurement counts, in seconds.
const SECONDS: (u64, u64) = (15, 1);
/// The view that is rebuilt.
const PROJECTION: &str = "order-read-models";
/// How long the views may take to have all orders, in milliseconds.
const CATCH_UP_MS: u64 = 600_000;
/// When in a measurement of reads the switch comes, and how long before its end: a query process
/// looks once a second which generation answers.
const BEFORE_SWITCH: Duration = Duration::from_secs(2);
/// What the slowest hundredth of the commands may become of itself under a rebuild as nobody
/// throttled it.
const P99_RATIO: f64 = 2.0;
/// How long a read may be held up by a switch, in milliseconds.
const STALL_MS: f64 = 50.0;

/// Measures both.
///
/// # Errors
/// When a role or a server fails, or a rebuild does not come to its end.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let database = context.database("replays").await?;
    let lane = Lane::open(database.clone(), Beside::Rows).await?;
    let system = System::start_on(context, Roles::WITHOUT_DYNAMODB, database).await?;
    context.say("filling the log, and waiting until the views have it");
    lane.fill(WAITING, context.size(EVENTS.0, EVENTS.1)).await?;
    let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS);
    system.caught_up(deadline).await?;
    // What the filling left to do is done before anything is measured.
    for tidy in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        sqlx::raw_sql(tidy).execute(&system.database.pool).await?;
    }
    let view = View::postgres_rows::<OrderReadModels>();
    let rebuilds = system.rebuilds(view).await?;
    let mut figures = commands(context, &system, &rebuilds).await?;
    figures.extend(switch(context, &system, &rebuilds, deadline).await?);
    lane.close().await;
    system.stop().await?;
    Ok(figures)
}

async fn commands(
    context: &BenchContext,
    system: &System,
    rebuilds: &Rebuilds,
) -> anyhow::Result<Vec<Figure>> {
    context.say("commands without a rebuild");
    let before = placed(context, system).await?.quantile_ms(0.99);
    let mut measured = Vec::new();
    let throttled = Pace {
        max_events_per_second: NonZeroU32::new(DEFAULT_EVENTS_PER_SECOND),
        suspended: false,
    };
    for (name, pace) in [("default", throttled), ("unthrottled", Pace::default())] {
        context.say(&format!("commands beside a rebuild, {name}"));
        let stop = CancellationToken::new();
        let rebuild = rebuild_on(rebuilds, pace, &stop);
        let place = async {
            let placed = placed(context, system).await;
            stop.cancel();
            placed
        };
        let (rate, placed) = tokio::join!(Box::pin(rebuild), place);
        measured.push((name, placed?.quantile_ms(0.99), rate?));
    }
    context.say("commands without a rebuild, once more");
    let after = placed(context, system).await?.quantile_ms(0.99);
    // The better of the two, so that a machine that calms down is not taken for a cheap rebuild.
    let calm = before.min(after);
    let mut figures = Vec::new();
    for (name, p99, rate) in measured {
        let figure = Figure::new(format!("replays.command_p99.{name}"), p99, "ms")
            .over("the same without a rebuild", calm);
        figures.push(if name == "default" {
            figure.target(Target::RatioAtMost(P99_RATIO))
        } else {
            figure
        });
        figures.push(Figure::new(
            format!("replays.load.{name}"),
            rate,
            "events/s",
        ));
    }
    Ok(figures)
}

async fn placed(context: &BenchContext, system: &System) -> anyhow::Result<Latencies> {
    let load = HttpLoad {
        address: system.command,
        connections: CONNECTIONS,
        duration: seconds(context),
        warm_up: context.size(Duration::from_secs(2), Duration::from_millis(300)),
        requests: orders::placing(USERS),
        rate: Some(RATE),
    };
    Ok(load.run(201).await?.mostly_well("POST /orders")?.latencies)
}

fn seconds(context: &BenchContext) -> Duration {
    Duration::from_secs(context.size(SECONDS.0, SECONDS.1))
}

/// Rebuilds until told to stop, from the beginning again when one is loaded, and gives how many
/// events it loaded in a second.
async fn rebuild_on(
    rebuilds: &Rebuilds,
    pace: Pace,
    stop: &CancellationToken,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let (mut events, mut number) = (0, 0);
    while !stop.is_cancelled() {
        number += 1;
        let owner = Owner::new(&format!("bench-{number}"))?;
        let begun = rebuilds.begin(&owner, PROJECTION, pace).await?;
        rebuilds
            .load(&begun.generation, Share::WHOLE, stop.clone())
            .await?;
        let state = rebuilds.find(&owner, PROJECTION).await?;
        events += state.map_or(0, |state| state.events_done);
        rebuilds.discard(&begun.generation).await?;
    }
    Ok(super::timing::per_second(events, began.elapsed()))
}

async fn switch(
    context: &BenchContext,
    system: &System,
    rebuilds: &Rebuilds,
    deadline: Instant,
) -> anyhow::Result<Vec<Figure>> {
    let ids = some_ids(&system.database.pool).await?;
    context.say("reads without a switch");
    let calm = read(context, system, &ids).await?;
    context.say("reads while the generation is switched");
    let generation = candidate(rebuilds, deadline).await?;
    let switching = async {
        tokio::time::sleep(context.size(BEFORE_SWITCH, Duration::from_millis(300))).await;
        switched(rebuilds, &generation, deadline).await
    };
    let (seen, done) = tokio::join!(read(context, system, &ids), switching);
    done?;
    let (seen, longest) = (seen?, 1.0);
    Ok(vec![
        Figure::new(
            "replays.switch.slowest_read",
            seen.quantile_ms(longest),
            "ms",
        )
        .over("the same without a switch", calm.quantile_ms(longest))
        .target(Target::AtMost(STALL_MS)),
        Figure::new("replays.switch.read_p99", seen.quantile_ms(0.99), "ms")
            .over("the same without a switch", calm.quantile_ms(0.99)),
    ])
}

/// A generation that is loaded, and kept current by the projector.
async fn candidate(rebuilds: &Rebuilds, deadline: Instant) -> anyhow::Result<Generation> {
    let owner = Owner::new("bench-switch")?;
    let begun = rebuilds.begin(&owner, PROJECTION, Pace::default()).await?;
    let generation = begun.generation;
    let stop = CancellationToken::new();
    let ended = rebuilds.load(&generation, Share::WHOLE, stop).await?;
    ensure!(ended == LoadEnd::Done, "the load ended as {ended:?}");
    rebuilds.finish(&generation).await?;
    while rebuilds.lag(&generation).await? > 0 {
        ensure!(Instant::now() < deadline, "the candidate did not catch up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(generation)
}

async fn switched(
    rebuilds: &Rebuilds,
    generation: &Generation,
    deadline: Instant,
) -> anyhow::Result<()> {
    loop {
        match rebuilds.switch(generation).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Behind { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error).context("the switch"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn read(
    context: &BenchContext,
    system: &System,
    ids: &[String],
) -> anyhow::Result<Latencies> {
    let requests: Arc<[Vec<u8>]> = ids.iter().map(|id| get(&format!("/orders/{id}"))).collect();
    let load = HttpLoad {
        address: system.query,
        connections: CONNECTIONS,
        duration: seconds(context),
        warm_up: context.size(Duration::from_secs(1), Duration::from_millis(200)),
        requests,
        rate: Some(RATE),
    };
    let seen = load.run(200).await?;
    let others: u64 = seen.others.values().sum();
    ensure!(
        others == 0,
        "reads were answered otherwise: {:?}",
        seen.others
    );
    Ok(seen.latencies)
}
