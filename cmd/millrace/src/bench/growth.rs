//! Whether a longer log makes anything slower: appends, their way through relay and projector,
//! commands, reads, and how soon a write is readable, at two lengths.
//!
//! What is measured adds to the log, so each length is what the log has when its measurements
//! begin. The view in DynamoDB has no part in it: the embedded endpoint would take half an hour to
//! be filled, and a query reads one collection of items however many others there are.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::{
    BenchContext, Figure, Target,
    append::{Beside, Lane},
    commands, readable, reads,
    system::{Roles, System},
};

/// The lengths, in events.
const SHORT: u64 = 10_000;
const LONG: u64 = 1_000_000;
/// The same for a quick run.
const QUICK_SHORT: u64 = 200;
const QUICK_LONG: u64 = 600;
/// Appends that wait together while the lane is measured.
const WAITING: usize = 1_000;
/// Orders that are read, spread over all there are.
const READ_ORDERS: i64 = 10_000;
/// What a figure should keep of itself.
const RATIO: f64 = 0.8;
/// What a latency may become of itself.
const LATENCY_RATIO: f64 = 1.2;
/// How long the views may take to have all orders, in milliseconds.
const CATCH_UP_MS: u64 = 600_000;

/// What was measured at one length.
struct Measured {
    appends: f64,
    catch_up: f64,
    readable_ms: f64,
    commands: f64,
    reads: f64,
}

/// Measures at both lengths.
///
/// # Errors
/// When a role or a server fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let database = context.database("growth").await?;
    let lane = Lane::open(database.clone(), Beside::Rows).await?;
    let system = System::start_on(context, Roles::WITHOUT_DYNAMODB, database).await?;
    let short = context.size(SHORT, QUICK_SHORT);
    let long = context.size(LONG, QUICK_LONG);
    let before = measure(context, &system, &lane, short).await?;
    let after = measure(context, &system, &lane, long).await?;
    lane.close().await;
    system.stop().await?;
    let figure = |name: &str, unit, after: f64, before: f64| {
        Figure::new(format!("growth.{name}"), after, unit)
            .over(format!("the same at {short} events"), before)
            .target(Target::RatioAtLeast(RATIO))
    };
    Ok(vec![
        figure("appends", "events/s", after.appends, before.appends),
        figure("catch_up", "events/s", after.catch_up, before.catch_up),
        figure("commands", "orders/s", after.commands, before.commands),
        figure("reads", "reads/s", after.reads, before.reads),
        Figure::new("growth.readable_p50", after.readable_ms, "ms")
            .over(format!("the same at {short} events"), before.readable_ms)
            .target(Target::RatioAtMost(LATENCY_RATIO)),
    ])
}

/// Fills the log up to a length and measures.
async fn measure(
    context: &BenchContext,
    system: &System,
    lane: &Lane,
    length: u64,
) -> anyhow::Result<Measured> {
    context.say(&format!("filling the log up to {length} events"));
    lane.fill(WAITING, length).await?;
    context.say("waiting until the views have them");
    let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS);
    system.caught_up(deadline).await?;
    let ids = some_ids(&system.database.pool).await?;
    context.say("reads");
    let reads = reads::one_order(context, system, &ids).await?.per_second;
    context.say("from 201 to readable");
    let readable = readable::in_postgres(context, system).await?;
    context.say("appends, and until the views have them");
    let time = Duration::from_secs(context.size(5, 1));
    let began = Instant::now();
    let appends = lane.rate(WAITING, time).await?.per_second;
    system.caught_up(deadline).await?;
    let catch_up = appends * time.as_secs_f64() / began.elapsed().as_secs_f64();
    context.say("commands");
    let commands = commands::placed(context, system, None).await?.per_second;
    Ok(Measured {
        appends,
        catch_up,
        readable_ms: readable.quantile_ms(0.50),
        commands,
        reads,
    })
}

/// Ids of orders from the whole length of the log.
pub(super) async fn some_ids(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    let streams: Vec<String> = sqlx::query_scalar(
        "SELECT substr(stream, 7) FROM ordering.events, ordering.log_head
         WHERE events.position % (1 + log_head.position / $1) = 0",
    )
    .bind(READ_ORDERS)
    .fetch_all(pool)
    .await?;
    Ok(streams)
}
