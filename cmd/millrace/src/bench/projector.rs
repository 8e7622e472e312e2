//! The projector from a full stream to the read models of orders.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream;
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use futures::{StreamExt, TryStreamExt};
use millrace_es::{
    Context, DomainEvent, EventId, LogToken, Metadata, NewEvent, Position, Recorded, RowProjection,
    StreamId,
};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, events_after,
};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_ordering::{
    order::{
        Currency, OrderCreated, OrderEvent, OrderId, OrderItem, OrderStatus, OrderStatusUpdated,
        UserId,
    },
    views::{
        order_read_models::OrderReadModels, order_statistics::OrderStatistics,
        orders_by_user::OrdersByUser,
    },
};
use millrace_projecting::{
    Checkpoint, DynamoRows, DynamoStore, Generation, GenerationStatus, Item, PgStore, Runner,
    RunnerParts, View,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Signals, Topology, TopologyOptions,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BenchContext, BenchDatabase, Figure, Target,
    relay::relayed,
    timing::{bounded, per_second},
};

/// Orders in the log for the views in PostgreSQL, in a full run and in a quick one. Half of them
/// are confirmed later and a quarter shipped, so there are 1.75 events per order.
const ORDERS: (u64, u64) = (120_000, 1_000);
/// Orders in the log for the view in DynamoDB.
const DYNAMO_ORDERS: (u64, u64) = (8_000, 400);
/// Who ordered.
const USERS: u64 = 5_000;
/// Orders of one append.
const APPEND_ORDERS: u64 = 50;
/// How many appends later an order's status changes: not in the batch that creates it.
const LATER_APPENDS: u64 = 120;
/// How often the checkpoints are asked how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Raw writes under way at once.
const WRITERS: usize = 32;
/// The most puts of one transaction.
const TRANSACTION_PUTS: usize = 100;

/// Measures how fast a projector works off a full stream.
///
/// # Errors
/// When a server fails, a measurement does not end, or a view counted an event twice or not at
/// all.
pub async fn run(bench: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let mut figures = postgres(bench).await?;
    figures.extend(dynamodb(bench).await?);
    Ok(figures)
}

async fn postgres(bench: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let bed = Bed::make(bench, bench.size(ORDERS.0, ORDERS.1)).await?;
    let read = bench.database("read").await?;
    let store = PgStore::open(&read.url)?;
    store.migrate().await?;
    let views = [
        View::postgres_rows::<OrderReadModels>(),
        View::postgres_tally::<OrderStatistics>(),
    ];
    bench.say("folding the two views in PostgreSQL");
    let memory = resident_mib();
    let folded = bed.fold(&views, Some(store.clone()), None, async |view: &View| {
        let generation = active(|| store.generations(view.name())).await?;
        Ok(store.checkpoints(generation.id).await?)
    });
    let (took, resident) = folded.await?;
    let grown = resident - memory;
    check_counts(&read, &store, &bed).await?;
    Ok(vec![
        Figure::new(
            "projector.postgres",
            per_second(bed.events, took),
            "events/s",
        )
        .target(Target::AtLeast(30_000.0)),
        Figure::new("projector.memory_growth", grown, "MiB"),
    ])
}

/// Each event was counted once, by both views.
async fn check_counts(read: &BenchDatabase, store: &PgStore, bed: &Bed) -> anyhow::Result<()> {
    let place = |name: &'static str| active(move || store.generations(name));
    let rows = place("order-read-models").await?.place;
    let sums = place("order-statistics").await?.place;
    let sql = format!(
        "SELECT (SELECT count(*) FROM {rows}.order_read_models),
                (SELECT sum(version)::bigint FROM {rows}.order_read_models),
                (SELECT sum(count)::bigint FROM {sums}.order_statistics WHERE user_id = '')"
    );
    let (orders, events, counted): (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(&read.pool)
        .await?;
    let whole = |count: u64| i64::try_from(count);
    ensure!(
        (orders, events, counted) == (whole(bed.orders)?, whole(bed.events)?, whole(bed.orders)?),
        "the views hold {orders} orders of {events} events and count {counted}"
    );
    Ok(())
}

async fn dynamodb(bench: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let bed = Bed::make(bench, bench.size(DYNAMO_ORDERS.0, DYNAMO_ORDERS.1)).await?;
    let client = millrace_runtime::aws::dynamodb_client(Some(&bench.dynamodb_endpoint)).await;
    let store = DynamoStore::new(client.clone(), bench.fresh_name("views"));
    store.migrate().await?;
    let view = View::dynamodb_rows::<OrdersByUser>();
    let items = bed.items().await?;
    bench.say("raw conditional writes of the same items");
    let table = raw_table(bench, &client, &view, &bed).await?;
    let singles = per_second(bed.orders, raw_puts(&client, &table, &items).await?);
    let table = raw_table(bench, &client, &view, &bed).await?;
    let packed = per_second(bed.orders, raw_transactions(&client, &table, &items).await?);
    bench.say("folding the view in DynamoDB");
    let views = [view];
    let folded = bed.fold(&views, None, Some(store.clone()), async |view: &View| {
        let generation = active(|| store.generations(view.name())).await?;
        Ok(store.checkpoints(generation.id).await?)
    });
    let (took, _) = folded.await?;
    Ok(vec![
        Figure::new(
            "projector.dynamodb_items",
            per_second(bed.orders, took),
            "items/s",
        )
        .over("conditional puts of the same items, 32 at once", singles)
        .target(Target::RatioAtLeast(0.8)),
        Figure::new(
            "projector.dynamodb_packed",
            per_second(bed.orders, took),
            "items/s",
        )
        .over("the same in transactions of 100", packed),
        Figure::new(
            "projector.dynamodb",
            per_second(bed.events, took),
            "events/s",
        ),
    ])
}

/// A table like the view's, made by the same code, for raw writes.
async fn raw_table(
    bench: &BenchContext,
    client: &aws_sdk_dynamodb::Client,
    view: &View,
    bed: &Bed,
) -> anyhow::Result<String> {
    let store = DynamoStore::new(client.clone(), bench.fresh_name("raw"));
    store.migrate().await?;
    Ok(store
        .ensure_generation(view, &bed.heads().await?)
        .await?
        .place)
}

async fn raw_puts(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    items: &[(Item, Position)],
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let puts: Vec<_> = items
        .iter()
        .map(|(item, position)| {
            client
                .put_item()
                .table_name(table)
                .set_item(Some(item.clone()))
                .condition_expression("attribute_not_exists(#p) OR #p < :p")
                .expression_attribute_names("#p", "position")
                .expression_attribute_values(":p", number(*position))
                .send()
        })
        .collect();
    let mut puts = futures::stream::iter(puts).buffer_unordered(WRITERS);
    while puts.try_next().await?.is_some() {}
    Ok(started.elapsed())
}

async fn raw_transactions(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    items: &[(Item, Position)],
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    for page in items.chunks(TRANSACTION_PUTS) {
        let actions = page
            .iter()
            .map(|(item, position)| {
                let put = Put::builder()
                    .table_name(table)
                    .set_item(Some(item.clone()))
                    .condition_expression("attribute_not_exists(#p) OR #p < :p")
                    .expression_attribute_names("#p", "position")
                    .expression_attribute_values(":p", number(*position))
                    .build()?;
                Ok(TransactWriteItem::builder().put(put).build())
            })
            .collect::<anyhow::Result<_>>()?;
        client
            .transact_write_items()
            .set_transact_items(Some(actions))
            .send()
            .await?;
    }
    Ok(started.elapsed())
}

fn number(position: Position) -> aws_sdk_dynamodb::types::AttributeValue {
    aws_sdk_dynamodb::types::AttributeValue::N(position.to_string())
}

/// A log and a stream full of orders.
struct Bed {
    log: Arc<PgEventLog>,
    users: Arc<dyn EventLog>,
    topology: Topology,
    leases: Leases,
    orders: u64,
    events: u64,
    newest: Vec<Position>,
}

struct Running {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    async fn stop(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Bed {
    async fn make(bench: &BenchContext, orders: u64) -> anyhow::Result<Self> {
        bench.say(&format!(
            "filling a log and its stream with {orders} orders"
        ));
        let log = filled_log(bench, orders).await?;
        let users = users_log(bench).await?;
        let contexts = [log.context().clone(), users.context().clone()];
        let client = millrace_streaming::connect(&bench.nats_url, None, "millrace-bench").await?;
        let names = Names::new(&bench.fresh_name("views"))?;
        let topology = Topology::new(jetstream::new(client), names, TopologyOptions::default());
        topology.ensure(&contexts).await?;
        let member = MemberId::new("bench")?;
        let leases = Leases::new(topology.clone(), member, LeaseOptions::default());
        let head = log.head().await?;
        let bed = Self {
            log,
            users,
            topology,
            leases,
            orders,
            events: head.position.get(),
            newest: head.partition_positions,
        };
        bed.relay().await?;
        Ok(bed)
    }

    async fn relay(&self) -> anyhow::Result<()> {
        let log = Arc::clone(&self.log) as Arc<dyn EventLog>;
        let last = Position::new(self.events);
        relayed(log, &self.topology, self.leases.clone(), last).await?;
        Ok(())
    }

    fn start(
        &self,
        views: Vec<View>,
        postgres: Option<PgStore>,
        dynamodb: Option<DynamoStore>,
    ) -> anyhow::Result<(Running, Instant)> {
        let jetstream = self.topology.jetstream().clone();
        let names = self.topology.names().clone();
        let parts = RunnerParts {
            logs: vec![
                Arc::clone(&self.log) as Arc<dyn EventLog>,
                Arc::clone(&self.users),
            ],
            topology: self.topology.clone(),
            leases: self.leases.clone(),
            signals: Signals::new(jetstream.client(), names.clone()),
            letters: DeadLetterPublisher::new(jetstream, names),
            postgres,
            dynamodb,
            link: None,
        };
        let runner = Runner::new(views, parts)?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        tasks.spawn(runner.run(stop.clone()));
        Ok((Running { tasks, stop }, started))
    }

    /// Runs a projector until its views have everything: how long that took, and what this process
    /// held in memory at the end.
    async fn fold(
        &self,
        views: &[View],
        postgres: Option<PgStore>,
        dynamodb: Option<DynamoStore>,
        checkpoints: impl AsyncFn(&View) -> anyhow::Result<Vec<Checkpoint>>,
    ) -> anyhow::Result<(Duration, f64)> {
        let (mut running, started) = self.start(views.to_vec(), postgres, dynamodb)?;
        let done = async {
            for view in views {
                while !self.is_reached(&checkpoints(view).await?) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
            anyhow::Ok(())
        };
        let done = bounded("the projector", done).await?;
        let ended = (started.elapsed(), resident_mib());
        running.stop().await;
        done?;
        Ok(ended)
    }

    /// Whether every partition's newest event is in the view.
    fn is_reached(&self, checkpoints: &[Checkpoint]) -> bool {
        checkpoints.iter().all(|one| {
            if one.lane.context != *self.log.context() {
                return true;
            }
            let newest = self.newest.get(usize::from(one.lane.partition.get()));
            newest.is_none_or(|newest| one.position >= *newest)
        })
    }

    async fn heads(&self) -> anyhow::Result<Vec<millrace_projecting::ContextHead>> {
        let head = self.log.head().await?;
        Ok(vec![millrace_projecting::ContextHead {
            context: self.log.context().clone(),
            epoch: head.epoch,
            partition_positions: head.partition_positions,
        }])
    }

    /// What the view in DynamoDB will hold, each with the position it will have seen.
    async fn items(&self) -> anyhow::Result<Vec<(Item, Position)>> {
        let mut rows = BTreeMap::new();
        let through = Position::new(self.events);
        let mut events = Box::pin(events_after(&*self.log, Position::ZERO, through, 1_000));
        while let Some(envelope) = events.next().await {
            let envelope = envelope?;
            let event = OrderEvent::decode(
                &envelope.event_type,
                envelope.schema_version,
                &envelope.payload,
            )?;
            let recorded = Recorded {
                event: &event,
                envelope: &envelope,
            };
            let key = OrdersByUser::key(recorded);
            let row = rows.remove(&key).and_then(|(row, _)| row);
            let row = OrdersByUser::fold(row, recorded)?;
            rows.insert(key, (row, envelope.position));
        }
        Ok(rows
            .into_iter()
            .filter_map(|(key, (row, position))| {
                let mut item = OrdersByUser::item_key(&key);
                item.extend(OrdersByUser::to_item(&key, &row?));
                item.insert("position".to_owned(), number(position));
                Some((item, position))
            })
            .collect())
    }
}

/// A log of its own, full of orders.
///
/// # Errors
/// When PostgreSQL fails.
pub(super) async fn filled_log(
    bench: &BenchContext,
    orders: u64,
) -> anyhow::Result<Arc<PgEventLog>> {
    let database = bench.database("log").await?;
    let context = Context::new(millrace_ordering::CONTEXT)?;
    let options = PgLogOptions::new(context.clone());
    millrace_eventlog::migrate(&database.pool, &context, options.partitions, &[]).await?;
    let log = Arc::new(PgEventLog::open(database.pool.clone(), options).await?);
    fill(&log, orders).await?;
    Ok(log)
}

/// The log of users, whose names the views of orders show; nothing happens in it.
///
/// # Errors
/// When PostgreSQL fails.
pub(super) async fn users_log(bench: &BenchContext) -> anyhow::Result<Arc<dyn EventLog>> {
    let database = bench.database("users").await?;
    let context = Context::new(millrace_contracts::customers::CONTEXT)?;
    let options = PgLogOptions::new(context.clone());
    millrace_eventlog::migrate(&database.pool, &context, options.partitions, &[]).await?;
    Ok(Arc::new(
        PgEventLog::open(database.pool.clone(), options).await?,
    ))
}

/// The generation that answers, once there is one.
async fn active<F, Fut>(list: F) -> anyhow::Result<Generation>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Vec<Generation>, millrace_projecting::StoreError>>,
{
    loop {
        let mut known = list().await?.into_iter();
        if let Some(found) = known.find(|one| one.status == GenerationStatus::Active) {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Appends orders, and later what becomes of them.
async fn fill(log: &PgEventLog, orders: u64) -> anyhow::Result<()> {
    let appends = orders.div_ceil(APPEND_ORDERS);
    let mut last: Option<LogToken> = None;
    for number in 0..appends + 2 * LATER_APPENDS {
        let mut streams = Vec::new();
        for (step, later) in [0, LATER_APPENDS, 2 * LATER_APPENDS]
            .into_iter()
            .enumerate()
        {
            let Some(of) = number.checked_sub(later) else {
                continue;
            };
            for order in of * APPEND_ORDERS..((of + 1) * APPEND_ORDERS).min(orders) {
                // All are created, every second one confirmed, every fourth one shipped.
                if order % (1 << step) == 0 {
                    streams.push(append(order, step)?);
                }
            }
        }
        if streams.is_empty() {
            continue;
        }
        let request = AppendRequest {
            streams,
            ..AppendRequest::default()
        };
        last = Some(log.append(request).await?.token);
    }
    last.map(drop).context("nothing was appended")
}

fn append(order: u64, step: usize) -> anyhow::Result<StreamAppend> {
    let event = event(order, step)?;
    Ok(StreamAppend {
        stream: StreamId::of("order", event.order_id().get()),
        expected: ExpectedVersion::Any,
        events: vec![NewEvent {
            id: EventId::generate(),
            event_type: event.event_type().into(),
            schema_version: event.schema_version(),
            payload: event.encode()?,
            metadata: Arc::new(Metadata {
                correlation_id: format!("0197f3a0-0000-7000-8000-{order:012}"),
                ..Metadata::default()
            }),
        }],
    })
}

/// What happens to an order: it is created, confirmed, shipped.
fn event(order: u64, step: usize) -> anyhow::Result<OrderEvent> {
    // A few a second over some days.
    let seconds = i64::try_from(order)? * 4;
    let created_at =
        Timestamp::from_unix_micros((1_760_000_000 + seconds) * 1_000_000).context("a time")?;
    let order_id = OrderId::new(EntityId::new(format!(
        "0197f3a0-{:04x}-7000-8000-{order:012}",
        order % 0x1_0000
    ))?);
    let user_id = UserId::new(EntityId::new(format!("user_{}", order % USERS))?);
    let price = Money::from_cents(4_975);
    let total_amount = Money::from_cents(9_950);
    let (from, to) = match step {
        0 => {
            return Ok(OrderEvent::Created(OrderCreated {
                order_id,
                user_id,
                items: vec![OrderItem {
                    description: "A thing that somebody wants".to_owned(),
                    quantity: 2,
                    unit_price: price,
                }],
                items_count: 1,
                total_amount,
                currency: Currency::Usd,
                shipping_address: Some("1 Long Street, Springfield, IL 62701".to_owned()),
                notes: None,
                payment_account_id: None,
                description: None,
                purchase_dt: None,
                created_at,
            }));
        }
        1 => (OrderStatus::Pending, OrderStatus::Confirmed),
        2 => (OrderStatus::Confirmed, OrderStatus::Shipped),
        _ => bail!("an order has three steps"),
    };
    Ok(OrderEvent::StatusUpdated(OrderStatusUpdated {
        order_id,
        user_id,
        from,
        to,
        reason: None,
        total_amount,
        purchase_dt: None,
        created_at,
        updated_at: created_at,
    }))
}

/// What this process holds in memory.
fn resident_mib() -> f64 {
    status_mib("VmRSS:")
}

/// A size that the kernel tells of this process.
pub(super) fn status_mib(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
