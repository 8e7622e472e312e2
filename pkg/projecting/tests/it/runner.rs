//! The projector as a whole: a log, its relay, JetStream, and runners that share the work.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use millrace_eventlog::EventLog;
use millrace_projecting::{
    DeadLetters, DynamoStore, GenerationStatus, LetterFilter, PgStore, Runner, RunnerParts, View,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::{Database, Dynamo, Nats, dynamodb, eventually, nats, own_nats, postgres};
use sqlx::Row;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    log::{MemoryLog, ordering},
    views::{ItemRow, folded, item_table, items, sums},
};

pub const BOUND: Duration = Duration::from_secs(40);

pub struct World {
    pub log: Arc<MemoryLog>,
    pub nats: Nats,
    pub topology: Topology,
    pub database: Database,
    pub postgres: PgStore,
    pub dynamo: Option<(Dynamo, DynamoStore)>,
    relay: (JoinSet<()>, CancellationToken),
    started: u32,
}

pub struct Running {
    pub task: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

fn quick() -> LeaseOptions {
    LeaseOptions {
        ttl: Duration::from_millis(1_500),
        renew_every: Duration::from_millis(300),
        ..LeaseOptions::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(nats().await, None).await
    }

    pub async fn with(nats: Nats, dynamo: Option<Dynamo>) -> Self {
        let database = postgres().await;
        let postgres = crate::postgres::store(&database).await;
        let dynamo = match dynamo {
            Some(dynamo) => {
                let store = crate::dynamodb::store(&dynamo).await;
                Some((dynamo, store))
            }
            None => None,
        };
        let names = Names::new(&nats.namespace).unwrap();
        let topology = Topology::new(nats.jetstream.clone(), names, TopologyOptions::default());
        topology.ensure(&[ordering()]).await.unwrap();
        let log = MemoryLog::new();
        let mut world = Self {
            log,
            nats,
            topology,
            database,
            postgres,
            dynamo,
            relay: (JoinSet::new(), CancellationToken::new()),
            started: 0,
        };
        world.start_relay();
        world
    }

    fn leases(&mut self) -> Leases {
        self.started += 1;
        let member = MemberId::new(&format!("member-{}", self.started)).unwrap();
        Leases::new(self.topology.clone(), member, quick())
    }

    pub async fn stop_relay(&mut self) {
        let (mut relay, stop) = std::mem::take(&mut self.relay);
        stop.cancel();
        while relay.join_next().await.is_some() {}
    }

    pub fn start_relay(&mut self) {
        let leases = self.leases();
        let log: Arc<dyn EventLog> = self.log.clone();
        let relay = Relay::new(log, self.topology.clone(), leases, RelayOptions::default());
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        task.spawn(async move {
            relay.run(stopped).await.unwrap();
        });
        self.relay = (task, stop);
    }

    pub fn start(&mut self, views: Vec<View>) -> Running {
        let parts = RunnerParts {
            logs: vec![self.log.clone() as Arc<dyn EventLog>],
            topology: self.topology.clone(),
            leases: self.leases(),
            signals: Signals::new(self.nats.client.clone(), self.topology.names().clone()),
            letters: DeadLetterPublisher::new(
                self.nats.jetstream.clone(),
                self.topology.names().clone(),
            ),
            postgres: Some(self.postgres.clone()),
            dynamodb: self.dynamo.as_ref().map(|(_, store)| store.clone()),
            link: None,
        };
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(Runner::new(views, parts).unwrap().run(stop.clone()));
        Running { task, stop }
    }

    /// The place of the generation that answers.
    pub async fn place(&self, projection: &str) -> String {
        eventually("a generation answers", BOUND, async || {
            let found = match &self.dynamo {
                Some((_, store)) if projection == "item-table" => {
                    store.generations(projection).await
                }
                _ => self.postgres.generations(projection).await,
            };
            let active = found
                .unwrap()
                .into_iter()
                .find(|one| one.status == GenerationStatus::Active);
            active.map(|one| one.place)
        })
        .await
    }

    pub async fn rows(&self) -> std::collections::BTreeMap<String, ItemRow> {
        let place = self.place("items").await;
        crate::postgres::rows(&self.database.pool, &place).await
    }

    /// Until the rows are the fold of the log, each event counted once.
    pub async fn rows_are_the_log(&self) {
        eventually("the rows are the fold of the log", BOUND, async || {
            (self.rows().await == folded(&self.log.events())).then_some(())
        })
        .await;
    }

    async fn sums_are_the_log(&self) {
        let place = self.place("sums").await;
        let rows = folded(&self.log.events());
        let count: usize = rows.values().map(|row| row.trail.len()).sum();
        let expected = (
            i64::try_from(count).unwrap(),
            rows.values().map(|row| row.total).sum(),
        );
        eventually("the sums are those of the log", BOUND, async || {
            let found = crate::postgres::total(&self.database.pool, &place).await;
            (found == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn runners_share_the_work_and_take_over() {
    let mut world = World::with(nats().await, Some(dynamodb().await)).await;
    let views = || vec![items(), sums(), item_table()];
    world.log.fill(13, 300);
    let one = world.start(views());
    world.rows_are_the_log().await;
    let two = world.start(views());
    world.log.fill(17, 300);
    world.rows_are_the_log().await;
    one.stop().await;
    world.log.fill(19, 300);
    world.rows_are_the_log().await;
    world.sums_are_the_log().await;
    let place = world.place("item-table").await;
    eventually("the items are the fold of the log", BOUND, async || {
        let (dynamo, _) = world.dynamo.as_ref().unwrap();
        let found = crate::dynamodb::rows(dynamo, &place).await;
        (found == folded(&world.log.events())).then_some(())
    })
    .await;
    two.stop().await;
}

#[tokio::test]
async fn what_the_stream_no_longer_holds_comes_from_the_log() {
    let mut world = World::new().await;
    world.log.fill(8, 120);
    let stream = world.topology.names().stream(&ordering());
    eventually("the relay has published", BOUND, async || {
        let mut stream = world.nats.jetstream.get_stream(&stream).await.ok()?;
        let state = &stream.info().await.ok()?.state;
        (state.last_sequence == 120).then_some(())
    })
    .await;
    let purging = world.nats.jetstream.get_stream(&stream).await.unwrap();
    purging.purge().sequence(101).await.unwrap();
    let running = world.start(vec![items(), sums()]);
    world.rows_are_the_log().await;
    world.sums_are_the_log().await;
    running.stop().await;
}

#[tokio::test]
async fn an_emptied_nats_changes_nothing() {
    let mut server = own_nats().await;
    let mut world = World::with(server.connect().await, None).await;
    let running = world.start(vec![sums()]);
    world.log.fill(9, 90);
    world.sums_are_the_log().await;
    server.wipe().await;
    world.log.fill(9, 90);
    world.sums_are_the_log().await;
    running.stop().await;
}

#[tokio::test]
async fn killed_connections_count_nothing_twice() {
    let mut world = World::new().await;
    let running = world.start(vec![items(), sums()]);
    for _ in 0..15 {
        world.log.fill(11, 60);
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'millrace-projector'",
        )
        .execute(&world.database.pool)
        .await
        .unwrap();
    }
    world.rows_are_the_log().await;
    world.sums_are_the_log().await;
    running.stop().await;
}

#[tokio::test]
async fn a_restored_older_read_database_catches_up_by_itself() {
    let mut world = World::new().await;
    let running = world.start(vec![sums()]);
    world.log.fill(10, 50);
    world.sums_are_the_log().await;
    let place = world.place("sums").await;
    let copy = format!(
        "CREATE TABLE public.copied_sums AS SELECT * FROM {place}.sums;
         CREATE TABLE public.copied_checkpoints AS SELECT * FROM projections.checkpoints;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(copy))
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.log.fill(10, 50);
    world.sums_are_the_log().await;
    let restore = format!(
        "BEGIN;
         UPDATE projections.checkpoints c SET position = o.position FROM public.copied_checkpoints o
         WHERE (c.generation, c.context, c.partition) = (o.generation, o.context, o.partition);
         DELETE FROM {place}.sums; INSERT INTO {place}.sums SELECT * FROM public.copied_sums;
         COMMIT;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(restore))
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.sums_are_the_log().await;
    world.log.fill(10, 50);
    world.sums_are_the_log().await;
    running.stop().await;
}

#[tokio::test]
async fn a_log_behind_its_checkpoints_is_halted_and_a_new_life_rebuilds() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    world.log.fill(10, 60);
    world.rows_are_the_log().await;
    running.stop().await;
    world.stop_relay().await;
    world.log.truncate(40);
    let running = world.start(vec![items()]);
    eventually("the log is halted", BOUND, async || world.log.halted()).await;
    let first = world.place("items").await;
    // The operator gives the lost tail up.
    world.log.start_epoch().await.unwrap();
    world.start_relay();
    eventually("the rebuilt generation answers", BOUND, async || {
        (world.place("items").await != first).then_some(())
    })
    .await;
    world.rows_are_the_log().await;
    world.log.fill(10, 20);
    world.rows_are_the_log().await;
    running.stop().await;
}

#[tokio::test]
async fn an_event_of_a_newer_release_stops_its_partition_only() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    let newer = world.log.push("item-1", "item.painted", "{}");
    let events = world.log.fill(20, 100);
    let elsewhere: Vec<_> = events
        .into_iter()
        .filter(|one| one.partition != newer.partition)
        .collect();
    eventually("the other partitions go on", BOUND, async || {
        (world.rows().await == folded(&elsewhere)).then_some(())
    })
    .await;
    let letters = DeadLetters::new(vec![items()], Some(world.postgres.clone()), None);
    let found = letters.list(&LetterFilter::default(), 10).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_poison_event_is_published_and_settled_on_request() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    let names = world.topology.names();
    let subject = names
        .dead_letter_subject(&ordering(), "items", "malformed")
        .unwrap();
    let mut copies = world.nats.client.subscribe(subject).await.unwrap();
    let mut healthy = world.log.fill(5, 10);
    world.log.push("item-1", "item.added", r#"{"n":"nothing"}"#);
    healthy.push(world.log.push("item-1", "item.added", r#"{"n":3}"#));
    healthy.extend(world.log.fill(1, 4));
    let copy = tokio::time::timeout(BOUND, copies.next()).await.unwrap();
    assert_eq!(copy.unwrap().payload.as_ref(), br#"{"n":"nothing"}"#);
    let letters = DeadLetters::new(vec![items()], Some(world.postgres.clone()), None);
    eventually("the letters wait", BOUND, async || {
        let found = letters.list(&LetterFilter::default(), 10).await.unwrap();
        (found.len() == 2).then_some(())
    })
    .await;
    for (asked, expected) in [
        (
            letters
                .discard(&LetterFilter {
                    reason: Some(millrace_projecting::Reason::Malformed),
                    position: Some(millrace_es::Position::new(11)),
                    ..LetterFilter::default()
                })
                .await
                .unwrap(),
            "1 discarded",
        ),
        (
            letters.redrive(&LetterFilter::default()).await.unwrap(),
            "1 redriven",
        ),
    ] {
        let outcome = eventually("the owner has done it", BOUND, async || {
            letters.outcome(&asked[0]).await.unwrap()
        })
        .await;
        assert!(outcome.contains(expected), "{outcome}");
    }
    eventually(
        "the rows are those of the healthy events",
        BOUND,
        async || (world.rows().await == folded(&healthy)).then_some(()),
    )
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_paused_owner_is_fenced_off_and_holds_nobody_up() {
    let mut world = World::new().await;
    let running = world.start(vec![sums()]);
    world.log.fill(6, 30);
    world.sums_are_the_log().await;
    // A projector that stopped in the middle of its transaction holds the checkpoints locked; the
    // server ends its session after a while. It is stood in for by one that never goes on.
    let place = world.place("sums").await;
    let mut paused = world.database.pool.begin().await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 2000")
        .execute(&mut *paused)
        .await
        .unwrap();
    sqlx::query("SELECT 1 FROM projections.checkpoints FOR UPDATE")
        .execute(&mut *paused)
        .await
        .unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE {place}.sums SET total = -1"
    )))
    .execute(&mut *paused)
    .await
    .unwrap();
    world.log.fill(6, 30);
    world.sums_are_the_log().await;
    assert!(paused.commit().await.is_err());
    let row = sqlx::query("SELECT count(*) FROM projections.dead_letters")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
    running.stop().await;
}
