//! The append lane against what PostgreSQL gives without it: COPY of the same rows into the same
//! indexes, and one-row inserts of many clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use millrace_es::{Context, DomainEvent, EventId, Metadata, NewEvent, PartitionCount, StreamId};
use millrace_eventlog::{
    Answer, AnswerKey, AppendRequest, EventLog, ExpectedVersion, Faults, LaneStep, PgEventLog,
    PgLogOptions, StreamAppend, migrate,
};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_ordering::{
    OrdersTable,
    order::{Currency, OrderCreated, OrderEvent, OrderId, OrderItem, UserId},
};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::task::JoinSet;

use super::{BenchContext, BenchDatabase, Figure, Latencies, SqlLoad, Target, copying::copy_again};

/// Appends that wait together while the lane is measured at its widest: what a process with many
/// connections has.
const WAITING: usize = 1_000;
/// The clients of the baseline of one-row inserts.
const CLIENTS: usize = 64;
/// What is written in the same transaction as the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    Keys,
    Rows,
    KeysAndRows,
}

impl Beside {
    const fn keys(self) -> bool {
        matches!(self, Self::Keys | Self::KeysAndRows)
    }

    const fn rows(self) -> bool {
        matches!(self, Self::Rows | Self::KeysAndRows)
    }
}

/// Measures appends.
///
/// # Errors
/// When the store fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let time = context.size(Duration::from_secs(10), Duration::from_secs(1));
    let mut figures = Vec::new();

    context.say("appends, events only");
    let bench = Lane::start(context, Beside::Nothing).await?;
    let wide = bench.rate(WAITING, time).await?;
    let narrow = bench.rate(CLIENTS, time).await?;
    context.say("COPY of the same rows");
    make_table(&bench.database.pool, "copied").await?;
    let copied = copy_again(&bench.database, wide.batch).await?;
    context.say("one-row inserts");
    let plain = plain_inserts(&bench.database, time).await?;
    context.say("one client alone");
    let alone = bench.alone(time).await?;
    let insert = plain_insert_alone(&bench.database, time).await?;
    bench.close().await;

    figures.push(
        Figure::new("append.events_only", wide.per_second, "events/s")
            .over(
                format!("{} COPY in batches of {}", copied.tool, wide.batch),
                copied.per_second,
            )
            .target(Target::RatioAtLeast(0.5)),
    );
    let inserts = format!("{} one-row inserts, {CLIENTS} clients", plain.tool);
    figures.push(
        Figure::new("append.over_inserts", wide.per_second, "events/s")
            .over(inserts.clone(), plain.per_second)
            .target(Target::RatioAtLeast(2.5)),
    );
    figures.push(
        Figure::new("append.64_clients", narrow.per_second, "events/s")
            .over(inserts.clone(), plain.per_second),
    );
    figures.push(
        Figure::new("append.alone_p50", alone.quantile_ms(0.5), "ms")
            .over("a plain insert's p50", insert.quantile_ms(0.5))
            .target(Target::RatioAtMost(1.5)),
    );
    for (name, beside) in [
        ("append.with_keys", Beside::Keys),
        ("append.with_rows", Beside::Rows),
        ("append.with_keys_and_rows", Beside::KeysAndRows),
    ] {
        context.say(name);
        let bench = Lane::start(context, beside).await?;
        let rate = bench.rate(WAITING, time).await?;
        bench.close().await;
        figures.push(
            Figure::new(name, rate.per_second, "events/s").over(inserts.clone(), plain.per_second),
        );
    }
    Ok(figures)
}

/// A log, and what its lane does.
pub struct Lane {
    database: BenchDatabase,
    log: Arc<PgEventLog>,
    commits: Arc<Commits>,
    beside: Beside,
}

/// What a run reached.
pub struct Rate {
    /// Events per second.
    pub per_second: f64,
    /// Events per commit.
    pub batch: usize,
}

#[derive(Default)]
struct Commits(AtomicU64);

#[async_trait]
impl Faults for Commits {
    async fn at(&self, step: LaneStep) {
        if step == LaneStep::Committed {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lane {
    async fn start(context: &BenchContext, beside: Beside) -> anyhow::Result<Self> {
        Self::open(context.database("append").await?, beside).await
    }

    /// Opens the log of orders in a database, made if need be.
    pub async fn open(database: BenchDatabase, beside: Beside) -> anyhow::Result<Self> {
        let name = Context::new("ordering")?;
        let count = PartitionCount::DEFAULT;
        migrate(
            &database.pool,
            &name,
            count,
            millrace_ordering::migrations(),
        )
        .await?;
        let commits = Arc::new(Commits::default());
        let mut options = PgLogOptions::new(name);
        options.faults = Some(Arc::clone(&commits) as Arc<dyn Faults>);
        if beside.rows() {
            options.inline = vec![Arc::new(OrdersTable)];
        }
        let log = PgEventLog::open(database.pool.clone(), options).await?;
        Ok(Self {
            database,
            log: Arc::new(log),
            commits,
            beside,
        })
    }

    /// Ends the lane; the log stays.
    pub async fn close(&self) {
        self.log.close().await;
    }

    /// Appends orders until the log has so many events.
    pub async fn fill(&self, clients: usize, length: u64) -> anyhow::Result<()> {
        let missing = length.saturating_sub(self.log.head().await?.position.get());
        let left = Arc::new(AtomicU64::new(missing));
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let (log, left, beside) = (Arc::clone(&self.log), Arc::clone(&left), self.beside);
            running.spawn(async move {
                let taken = |left: u64| left.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
                    .is_ok()
                {
                    log.append(order(beside)?).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(client) = running.join_next().await {
            client??;
        }
        Ok(())
    }

    /// Events per second of clients that each wait for their answer.
    pub async fn rate(&self, clients: usize, time: Duration) -> anyhow::Result<Rate> {
        let commits = self.commits.0.load(Ordering::Relaxed);
        let started = Instant::now();
        let end = started + time;
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let log = Arc::clone(&self.log);
            let beside = self.beside;
            running.spawn(async move {
                let mut done = 0_u32;
                while Instant::now() < end {
                    log.append(order(beside)?).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            });
        }
        let mut done = 0;
        while let Some(client) = running.join_next().await {
            done += client??;
        }
        let seconds = started.elapsed().as_secs_f64();
        let commits = self.commits.0.load(Ordering::Relaxed) - commits;
        Ok(Rate {
            per_second: f64::from(done) / seconds,
            batch: usize::try_from(u64::from(done) / commits.max(1))?,
        })
    }

    async fn alone(&self, time: Duration) -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::default();
        let end = Instant::now() + time;
        while Instant::now() < end {
            let request = order(self.beside)?;
            let started = Instant::now();
            self.log.append(request).await?;
            latencies.record(started.elapsed());
        }
        Ok(latencies)
    }
}

/// The append of a new order of ordinary size.
fn order(beside: Beside) -> anyhow::Result<AppendRequest> {
    let id = EntityId::generate();
    let price = Money::from_cents(24_975);
    let event = OrderEvent::Created(OrderCreated {
        order_id: OrderId::new(id.clone()),
        user_id: UserId::new(EntityId::new("shivam_99")?),
        items: vec![OrderItem {
            description: "A chair of oak".to_owned(),
            quantity: 2,
            unit_price: price,
        }],
        items_count: 2,
        total_amount: Money::from_cents(49_950),
        currency: Currency::Usd,
        shipping_address: Some("1 Mill Lane, Springfield, IL 62701".to_owned()),
        notes: None,
        payment_account_id: None,
        description: None,
        purchase_dt: None,
        created_at: Timestamp::now(),
    });
    let new = NewEvent {
        id: EventId::generate(),
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode()?,
        metadata: Arc::new(Metadata {
            correlation_id: id.to_string(),
            ..Metadata::default()
        }),
    };
    let answer = beside.keys().then(|| {
        let mut key_hash = [0; 32];
        key_hash[..16].copy_from_slice(EventId::generate().get().as_bytes());
        // A hash is spread evenly; an id made from the time is not.
        let turn = usize::from(key_hash[15]) % key_hash.len();
        key_hash.rotate_right(turn);
        let key = AnswerKey {
            key_hash,
            request_hash: key_hash,
        };
        let answer = Answer {
            status: 201,
            headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
            body: new.payload.get().to_owned().into(),
        };
        (key, answer)
    });
    Ok(AppendRequest {
        streams: vec![StreamAppend {
            stream: StreamId::of("order", &id),
            expected: ExpectedVersion::NoStream,
            events: vec![new],
        }],
        answer,
        reservations: Vec::new(),
    })
}

/// A table like the log's, empty.
async fn make_table(pool: &PgPool, name: &str) -> anyhow::Result<()> {
    let sql = format!("CREATE TABLE ordering.{name} (LIKE ordering.events INCLUDING ALL)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await?;
    Ok(())
}

/// A statement that inserts an order's row, as an append would.
async fn insert_of(database: &BenchDatabase, table: &str) -> anyhow::Result<String> {
    make_table(&database.pool, table).await?;
    let sequence = format!("CREATE SEQUENCE ordering.{table}_at CACHE 100");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sequence))
        .execute(&database.pool)
        .await?;
    let request = order(Beside::Nothing)?;
    let event = request
        .streams
        .first()
        .and_then(|append| append.events.first())
        .context("an order is one event")?;
    let metadata = serde_json::to_string(event.metadata.as_ref())?;
    Ok(format!(
        "INSERT INTO ordering.{table} (position, version, previous, recorded_at, event_id,
             schema_version, partition, stream, event_type, payload, metadata)
         VALUES (nextval('ordering.{table}_at'), 1, 0, now(), gen_random_uuid(), 1, 3,
                 'order-' || gen_random_uuid(), 'order.created', '{}', '{metadata}')",
        event.payload.get()
    )
    .replace('\n', " "))
}

async fn plain_inserts(database: &BenchDatabase, time: Duration) -> anyhow::Result<super::SqlRate> {
    let statement = insert_of(database, "plain").await?;
    let load = SqlLoad {
        url: &database.url,
        statement: &statement,
        clients: CLIENTS,
        duration: time,
    };
    load.run().await
}

/// One connection that inserts a row and waits, from this process, as the lane's client does.
async fn plain_insert_alone(database: &BenchDatabase, time: Duration) -> anyhow::Result<Latencies> {
    let statement: Arc<str> = insert_of(database, "plain_alone").await?.into();
    let mut conn = PgConnection::connect(&database.url).await?;
    let mut latencies = Latencies::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let started = Instant::now();
        sqlx::query(sqlx::AssertSqlSafe(Arc::clone(&statement)))
            .execute(&mut conn)
            .await?;
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}
