//! Verification in PostgreSQL: what it finds, what it does not disturb, and what it leaves behind.

use std::{sync::Arc, time::Duration};

use millrace_projecting::{
    Folder, Generation, PgStore, StoreError, Subjects, Verification, VerifyMode, VerifyOptions,
    View,
};
use millrace_testkit::{Database, eventually, postgres};
use sqlx::{AssertSqlSafe, Row};
use tokio_util::sync::CancellationToken;

use crate::{
    bed::logs_of,
    log::MemoryLog,
    runner::World,
    views::{ItemsDoubled, ItemsNext, items, sums},
};

const BOUND: Duration = Duration::from_secs(40);
pub const ALL: VerifyOptions = VerifyOptions {
    mode: VerifyMode::Checksum,
    max_mismatches: 1_000,
};

async fn run(database: &Database, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&database.pool)
        .await
        .unwrap();
}

/// Two generations of one version: one that is kept current, and the one that answers.
async fn two(
    database: &Database,
    store: &PgStore,
    view: &View,
    log: &MemoryLog,
) -> (Generation, Generation) {
    let one = store.ensure_generation(view, &log.heads()).await.unwrap();
    let retained = format!(
        "UPDATE projections.generations SET status = 'retained' WHERE id = {}",
        one.id.get()
    );
    run(database, &retained).await;
    let live = store.ensure_generation(view, &log.heads()).await.unwrap();
    assert_ne!(one.id, live.id);
    (one, live)
}

/// Two generations that have folded the same log, by hand.
struct Folded {
    database: Database,
    store: PgStore,
    log: Arc<MemoryLog>,
    view: View,
    candidate: Generation,
    live: Generation,
}

impl Folded {
    async fn new() -> Self {
        let database = postgres().await;
        let store = crate::postgres::store(&database).await;
        let log = MemoryLog::new();
        log.fill(20, 60);
        log.push("item-4", "item.added", r#"{"n":1,"note":"a note"}"#);
        log.push("item-5", "item.removed", "{}");
        let view = items();
        let (candidate, live) = two(&database, &store, &view, &log).await;
        let made = Self {
            database,
            store,
            log,
            view,
            candidate,
            live,
        };
        for generation in [&made.candidate, &made.live] {
            made.folder(generation)
                .await
                .fold(made.log.events())
                .await
                .unwrap();
        }
        made
    }

    async fn folder(&self, generation: &Generation) -> Folder {
        self.store.folder(generation, &self.view).await.unwrap()
    }

    async fn verify(&self, options: &VerifyOptions) -> Result<Verification, StoreError> {
        self.verify_until(options, &CancellationToken::new()).await
    }

    async fn verify_until(
        &self,
        options: &VerifyOptions,
        stop: &CancellationToken,
    ) -> Result<Verification, StoreError> {
        let subjects = Subjects {
            candidate: &self.candidate,
            live: &self.live,
            view: &self.view,
            logs: &logs_of(&self.log),
        };
        self.store.verify(subjects, options, stop).await
    }

    /// Does something to the candidate's table.
    async fn damage(&self, sql: &str) {
        let table = format!("{}.items", self.candidate.place);
        run(&self.database, &sql.replace("ITEMS", &table)).await;
    }

    async fn holds(&self) -> i64 {
        let sql = "SELECT count(*) FROM projections.checkpoints WHERE hold_until > now()";
        let row = sqlx::query(sql).fetch_one(&self.database.pool).await;
        row.unwrap().get(0)
    }
}

#[tokio::test]
async fn equal_generations_are_equal_whatever_the_order_of_rows_and_columns() {
    let world = Folded::new().await;
    world
        .damage(
            "CREATE TABLE copied AS SELECT * FROM ITEMS;
             DROP TABLE ITEMS;
             CREATE TABLE ITEMS (note text, trail bigint[] NOT NULL, total bigint NOT NULL, id text PRIMARY KEY);
             INSERT INTO ITEMS SELECT note, trail, total, id FROM copied ORDER BY id DESC;",
        )
        .await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (19, 0), "{found:?}");
    assert_eq!((found.sample_keys.len(), found.stood_still_ms), (0, 0));
    let at = world.store.checkpoints(world.live.id).await.unwrap();
    assert_eq!(found.at, at);
}

#[tokio::test]
async fn every_kind_of_damage_is_found_with_its_key() {
    for (damage, key) in [
        (
            "UPDATE ITEMS SET total = total + 1 WHERE id = 'item-3'",
            "items/item-3",
        ),
        (
            "UPDATE ITEMS SET trail = '{}' WHERE id = 'item-3'",
            "items/item-3",
        ),
        ("DELETE FROM ITEMS WHERE id = 'item-7'", "items/item-7"),
        (
            "INSERT INTO ITEMS VALUES ('item-5', 0, '{}', NULL)",
            "items/item-5",
        ),
        (
            "UPDATE ITEMS SET note = NULL WHERE id = 'item-4'",
            "items/item-4",
        ),
        (
            "UPDATE ITEMS SET note = '' WHERE id = 'item-6'",
            "items/item-6",
        ),
    ] {
        let world = Folded::new().await;
        world.damage(damage).await;
        let found = world.verify(&ALL).await.unwrap();
        assert_eq!(found.mismatches, 1, "{damage}: {found:?}");
        assert_eq!(found.sample_keys, [key], "{damage}");
    }
}

#[tokio::test]
async fn damage_is_found_anywhere_in_a_large_table() {
    let world = Folded::new().await;
    for (generation, order) in [(&world.candidate, "DESC"), (&world.live, "ASC")] {
        let sql = format!(
            "DELETE FROM {0}.items;
             INSERT INTO {0}.items SELECT 'row-' || lpad(n::text, 6, '0'), n, ARRAY[n], NULL
             FROM generate_series(1, 45000) n ORDER BY n {order};",
            generation.place
        );
        run(&world.database, &sql).await;
    }
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (45_000, 0));
    world
        .damage(
            "UPDATE ITEMS SET total = -1 WHERE id IN ('row-000001', 'row-045000');
             DELETE FROM ITEMS WHERE id IN ('row-020000', 'row-020001', 'row-040000');
             INSERT INTO ITEMS VALUES ('a first', 1, '{}', NULL), ('zzz', 1, '{}', NULL), ('row-02000x', 1, '{}', NULL);",
        )
        .await;
    let found = world.verify(&ALL).await.unwrap();
    let mut keys = found.sample_keys.clone();
    keys.sort();
    assert_eq!(found.mismatches, 8, "{found:?}");
    assert_eq!(
        keys,
        [
            "items/a first",
            "items/row-000001",
            "items/row-020000",
            "items/row-020001",
            "items/row-02000x",
            "items/row-040000",
            "items/row-045000",
            "items/zzz"
        ]
    );
    // A whole table that is missing ends the search as soon as it is too much, and is named by a few.
    world.damage("DELETE FROM ITEMS").await;
    let found = world
        .verify(&VerifyOptions {
            max_mismatches: 3,
            ..ALL
        })
        .await;
    let found = found.unwrap();
    assert!(
        found.mismatches > 3 && found.mismatches < 1_000,
        "{found:?}"
    );
    assert_eq!(
        found.sample_keys.len(),
        millrace_projecting::MAX_SAMPLE_KEYS
    );
    assert!(!found.is_within(&VerifyOptions {
        max_mismatches: 3,
        ..ALL
    }));
}

#[tokio::test]
async fn keys_and_values_of_every_type_are_told_apart() {
    let world = Folded::new().await;
    for (generation, order) in [(&world.candidate, "DESC"), (&world.live, "ASC")] {
        let sql = format!(
            r#"CREATE TABLE {0}."Odd ""names""" (at timestamptz, "share of" double precision, code char(4),
                 doc jsonb, sum numeric, raw bytea, day date, PRIMARY KEY (at, "share of", code));
             INSERT INTO {0}."Odd ""names""" SELECT timestamptz '2026-01-01' + n * interval '1.000001 s', n / 3.0::float8, 'c' || n % 7,
                 jsonb_build_object('n', n, 'a', 1), n / 7.0, decode(lpad(to_hex(n), 8, '0'), 'hex'), date '2026-01-01' + n
             FROM generate_series(1, 1500) n ORDER BY n {order};"#,
            generation.place
        );
        run(&world.database, &sql).await;
    }
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (1_519, 0), "{found:?}");
    for (change, back) in [
        (
            r#"doc = jsonb_set(doc, '{a}', '2')"#,
            r#"doc = jsonb_set(doc, '{a}', '1')"#,
        ),
        ("raw = raw || '\\x00'", "raw = substr(raw, 1, 4)"),
        ("sum = sum + 0.0000000001", "sum = sum - 0.0000000001"),
        (
            r#""share of" = "share of" + 1e-12"#,
            r#""share of" = 700 / 3.0::float8"#,
        ),
    ] {
        let table = format!(r#"{}."Odd ""names""""#, world.candidate.place);
        let set =
            |what: &str| format!("UPDATE {table} SET {what} WHERE day = date '2026-01-01' + 700");
        run(&world.database, &set(change)).await;
        let found = world.verify(&ALL).await.unwrap();
        // A changed key is a row too many and a row too few.
        let expected = if change.starts_with('"') { 2 } else { 1 };
        assert_eq!(found.mismatches, expected, "{change}: {found:?}");
        assert!(
            found.sample_keys[0].starts_with("Odd \"names\"/2026-01-01 00:11:40.0007+00,233.3"),
            "{found:?}"
        );
        run(&world.database, &set(back)).await;
    }
    assert_eq!(world.verify(&ALL).await.unwrap().mismatches, 0);
}

#[tokio::test]
async fn counts_see_rows_and_not_what_they_hold() {
    let counts = VerifyOptions {
        mode: VerifyMode::Counts,
        max_mismatches: 0,
    };
    let world = Folded::new().await;
    world.damage("UPDATE ITEMS SET total = -1").await;
    let found = world.verify(&counts).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (19, 0));
    assert!(found.is_within(&counts));
    world
        .damage("DELETE FROM ITEMS WHERE id IN ('item-1', 'item-2')")
        .await;
    let found = world.verify(&counts).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (19, 2));
    assert_eq!(found.sample_keys, ["items"]);
    let nothing = VerifyOptions {
        mode: VerifyMode::None,
        max_mismatches: 0,
    };
    let found = world.verify(&nothing).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (0, 0));
}

#[tokio::test]
async fn a_table_that_somebody_changed_is_refused_by_name() {
    let world = Folded::new().await;
    world
        .damage("ALTER TABLE ITEMS ADD COLUMN extra text")
        .await;
    let refused = world.verify(&ALL).await;
    assert!(
        matches!(&refused, Err(StoreError::Unusable(error)) if error.to_string().contains("items")),
        "{refused:?}"
    );
}

/// Until generations have seen what the log has now.
async fn all_are_current(world: &World, generations: [&Generation; 4]) {
    let head = world.log.head_now().partition_positions;
    for generation in generations {
        eventually("the generation is current", BOUND, async || {
            let at = world.postgres.checkpoints(generation.id).await.unwrap();
            let reached = at
                .iter()
                .zip(&head)
                .all(|(one, head)| one.position >= *head);
            reached.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn generations_under_load_are_equal_and_the_live_one_goes_on() {
    let mut world = World::new().await;
    let (view, tally) = (items(), sums());
    world.log.fill(60, 600);
    let rows = two(&world.database, &world.postgres, &view, &world.log).await;
    let totals = two(&world.database, &world.postgres, &tally, &world.log).await;
    let running = world.start(vec![items(), sums()]);
    let all = [&rows.0, &rows.1, &totals.0, &totals.1];
    all_are_current(&world, all).await;
    let stop = CancellationToken::new();
    let (log, stopped) = (Arc::clone(&world.log), stop.clone());
    let mut load = tokio::task::JoinSet::new();
    load.spawn(async move {
        while !stopped.is_cancelled() {
            log.fill(60, 5);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut seen = Vec::new();
    for _ in 0..3 {
        for (view, (candidate, live)) in [(&view, &rows), (&tally, &totals)] {
            let logs = logs_of(&world.log);
            let subjects = Subjects {
                candidate,
                live,
                view,
                logs: &logs,
            };
            let never = CancellationToken::new();
            // On a machine that does much else an attempt may end without a result, as it says.
            let verified = eventually("they are brought level", BOUND, async || {
                match world.postgres.verify(subjects, &ALL, &never).await {
                    Err(StoreError::Unavailable(_)) => None,
                    other => Some(other.unwrap()),
                }
            });
            let found = verified.await;
            assert_eq!(found.mismatches, 0, "{found:?}");
            assert!(
                found.compared > 0 && found.stood_still_ms < 2_000,
                "{found:?}"
            );
            seen.push((
                found.at.iter().map(|one| one.position.get()).max(),
                found.stood_still_ms,
            ));
        }
    }
    println!("verified under load at (position, ms of standstill): {seen:?}");
    assert!(seen[4].0 > seen[0].0, "the log moved on between: {seen:?}");
    stop.cancel();
    while load.join_next().await.is_some() {}
    all_are_current(&world, all).await;
    running.stop().await;
}

#[tokio::test]
async fn a_verifier_that_dies_holds_nothing_for_ever() {
    let world = Folded::new().await;
    let events = world.log.fill(8, 40);
    let mut live = world.folder(&world.live).await;
    live.fold(events[..20].to_vec()).await.unwrap();
    // It holds the candidate where the live one is, and waits for the candidate, which nobody folds.
    let dying = tokio::time::timeout(Duration::from_millis(500), world.verify(&ALL));
    assert!(dying.await.is_err());
    assert_eq!(world.holds().await, 4);
    let mut candidate = world.folder(&world.candidate).await;
    let held = candidate.fold(events.clone()).await;
    assert!(matches!(held, Err(StoreError::Held { .. })), "{held:?}");
    // Up to the hold it may go.
    let mut candidate = world.folder(&world.candidate).await;
    candidate.fold(events[..20].to_vec()).await.unwrap();
    // It runs out by itself, within half a minute.
    let row = sqlx::query(
        "SELECT max(hold_until) < now() + interval '30 s' FROM projections.checkpoints",
    )
    .fetch_one(&world.database.pool)
    .await
    .unwrap();
    assert!(row.get::<bool, _>(0));
    let out = "UPDATE projections.checkpoints SET hold_until = now() WHERE hold_at IS NOT NULL";
    run(&world.database, out).await;
    candidate.fold(events[20..].to_vec()).await.unwrap();
    live.fold(events[20..].to_vec()).await.unwrap();
    assert_eq!(world.verify(&ALL).await.unwrap().mismatches, 0);
}

#[tokio::test]
async fn a_verifier_that_is_stopped_lets_go_at_once() {
    let world = Folded::new().await;
    let events = world.log.fill(8, 40);
    world.folder(&world.live).await.fold(events).await.unwrap();
    let stop = CancellationToken::new();
    let stopping = async {
        eventually("the candidate is held", BOUND, async || {
            (world.holds().await > 0).then_some(())
        })
        .await;
        stop.cancel();
    };
    let (stopped, ()) = tokio::join!(world.verify_until(&ALL, &stop), stopping);
    assert!(matches!(stopped, Err(StoreError::Stopped)), "{stopped:?}");
    assert_eq!(world.holds().await, 0);
}

#[tokio::test]
async fn a_running_projector_stops_at_a_hold_and_goes_on_after_it() {
    let mut world = World::new().await;
    let view = items();
    let (held, live) = two(&world.database, &world.postgres, &view, &world.log).await;
    let running = world.start(vec![items()]);
    world.log.fill(12, 50);
    let current = async |id| {
        let head = world.log.head_now().partition_positions;
        let at = world.postgres.checkpoints(id).await.unwrap();
        (at.iter().map(|one| one.position).collect::<Vec<_>>() == head).then_some(())
    };
    for id in [held.id, live.id] {
        eventually("both are current", BOUND, async || current(id).await).await;
    }
    // Two lanes are held in the middle of what comes: the rest of them waits, the others go on.
    let hold = format!(
        "UPDATE projections.checkpoints SET hold_at = 110, hold_until = now() + interval '4 s'
         WHERE generation = {} AND partition < 2",
        held.id.get()
    );
    run(&world.database, &hold).await;
    world.log.fill(12, 200);
    eventually("the live one is current", BOUND, async || {
        current(live.id).await
    })
    .await;
    let newest_below = |partition: u16| {
        let events = world.log.events();
        let own = events.iter().filter(|one| one.partition.get() == partition);
        own.map(|one| one.position)
            .filter(|at| at.get() <= 110)
            .max()
    };
    eventually("the held one is at its hold", BOUND, async || {
        let at = world.postgres.checkpoints(held.id).await.unwrap();
        let head = world.log.head_now().partition_positions;
        let there = at
            .iter()
            .zip(&head)
            .all(|(one, head)| match one.lane.partition.get() {
                partition @ 0..2 => Some(one.position) == newest_below(partition),
                _ => one.position == *head,
            });
        there.then_some(())
    })
    .await;
    eventually("it goes on when the hold has run out", BOUND, async || {
        current(held.id).await
    })
    .await;
    world.rows_are_the_log().await;
    running.stop().await;
}

/// A live generation of one version and a candidate of the next, both folded.
async fn of_two_versions(next: View) -> Folded {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    log.fill(20, 60);
    let old = items();
    let live = store.ensure_generation(&old, &log.heads()).await.unwrap();
    let candidate = store.ensure_generation(&next, &log.heads()).await.unwrap();
    let mut folder = store.folder(&live, &old).await.unwrap();
    folder.fold(log.events()).await.unwrap();
    let mut folder = store.folder(&candidate, &next).await.unwrap();
    folder.fold(log.events()).await.unwrap();
    Folded {
        database,
        store,
        log,
        view: next,
        candidate,
        live,
    }
}

#[tokio::test]
async fn of_a_changed_fold_what_is_declared_is_compared_and_the_rest_folded_again() {
    let world = of_two_versions(View::postgres_rows::<ItemsDoubled>()).await;
    let found = world.verify(&ALL).await.unwrap();
    // Twenty rows by what is declared, and the twenty streams of them once more.
    assert_eq!((found.compared, found.mismatches), (40, 0), "{found:?}");
    world
        .damage("UPDATE ITEMS SET total = 3 WHERE id = 'item-3'")
        .await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!(found.sample_keys, ["items/item-3"], "{found:?}");
    assert_eq!(found.mismatches, 1);
    world
        .damage("UPDATE ITEMS SET trail = '{}' WHERE id = 'item-9'")
        .await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!(
        found.sample_keys,
        ["items/item-9", "items/item-3"],
        "{found:?}"
    );
    // Nothing of the second fold stays.
    eventually("the tables of the session are gone", BOUND, async || {
        let sql = "SELECT count(*) FROM pg_class WHERE relname = 'items' AND relpersistence = 't'";
        let row = sqlx::query(sql).fetch_one(&world.database.pool).await;
        (row.unwrap().get::<i64, _>(0) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_changed_fold_that_declares_nothing_is_judged_by_samples_alone() {
    let world = of_two_versions(View::postgres_rows::<ItemsNext>()).await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (20, 0), "{found:?}");
    world.damage("DELETE FROM ITEMS WHERE id = 'item-11'").await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!(found.sample_keys, ["items/item-11"], "{found:?}");
}
