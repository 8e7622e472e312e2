//! What the table promises the driver and those who ask.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use millrace_projecting::PgStore;
use millrace_replay::{OutsideError, Records as _, ReplaySpec};
use millrace_replaying::{Change, ReplayTable, TableError};
use millrace_testkit::Database;

async fn table() -> (Database, ReplayTable) {
    let database = millrace_testkit::postgres().await;
    PgStore::open(&database.url)
        .unwrap()
        .migrate()
        .await
        .unwrap();
    let table = ReplayTable::open(&database.url).unwrap();
    (database, table)
}

fn rebuild() -> ReplaySpec {
    ReplaySpec::rebuild("order-read-models")
}

#[tokio::test]
async fn what_was_asked_for_is_read_back() {
    let (_database, table) = table().await;
    let mut spec = rebuild();
    spec.active_deadline_seconds = Some(7);
    let made = table.create("one", &spec).await.unwrap();
    assert_eq!(
        (made.spec.clone(), made.generation, made.held),
        (spec, 1, false)
    );
    assert_eq!(made.status.observed_generation, -1);
    assert_eq!(table.get("one").await.unwrap(), made);
    assert_eq!(table.list().await.unwrap(), [made]);

    assert!(matches!(
        table.create("one", &rebuild()).await,
        Err(TableError::Exists(_))
    ));
    assert!(matches!(
        table.get("two").await,
        Err(TableError::Missing(_))
    ));
    for name in ["", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
        let made = table.create(name, &rebuild()).await;
        assert!(matches!(made, Err(TableError::Refused(_))), "{name:?}");
    }
}

#[tokio::test]
async fn a_status_is_written_over_what_was_read_only() {
    let (_database, table) = table().await;
    let read = table.create("one", &rebuild()).await.unwrap();
    let changed = table.change("one", Change::Suspend(true)).await.unwrap();
    assert!(changed.spec.suspend && changed.generation == 2);
    let mut status = read.status.clone();
    status.attempts = 1;
    let stale = table.write(&read, &status).await;
    assert!(matches!(stale, Err(OutsideError::Changed(_))), "{stale:?}");
    let written = table.write(&changed, &status).await.unwrap();
    assert_eq!(written.status.attempts, 1);
    assert!(written.spec.suspend, "the spec is not the driver's");
    let twice = table.write(&changed, &status).await;
    assert!(matches!(twice, Err(OutsideError::Changed(_))), "{twice:?}");
    // A status does not count as a change of what was asked for.
    assert_eq!(table.get("one").await.unwrap().generation, 2);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_refused() {
    let (_database, table) = table().await;
    let made = table.create("one", &rebuild()).await.unwrap();
    let throttled = table.change("one", Change::Throttle(5)).await.unwrap();
    let throttle = throttled.spec.throttle.clone().unwrap();
    assert_eq!(throttle.max_events_per_second, Some(5));
    let free = table.change("one", Change::Throttle(0)).await.unwrap();
    let throttle = free.spec.throttle.clone().unwrap();
    assert_eq!(throttle.max_events_per_second, Some(0));
    assert_eq!(free.spec.rebuild, made.spec.rebuild);

    let now = Some(Time(Timestamp::now()));
    let mut status = free.status.clone();
    status.cutover_started.clone_from(&now);
    let switching = table.write(&free, &status).await.unwrap();
    let late = table.change("one", Change::Cancel).await.unwrap_err();
    assert!(late.to_string().contains("has begun"), "{late}");
    assert!(
        table
            .change("one", Change::Approve)
            .await
            .unwrap()
            .spec
            .approve
    );

    status.completion_time = now;
    let approved = table.get("one").await.unwrap();
    assert_ne!(approved.revision, switching.revision);
    table.write(&approved, &status).await.unwrap();
    for change in [Change::Suspend(true), Change::Approve, Change::Cancel] {
        let late = table.change("one", change).await.unwrap_err();
        assert!(late.to_string().contains("has ended"), "{late}");
    }
    assert_eq!(
        table.all().await.unwrap(),
        [],
        "those that have ended do not compete"
    );
}

#[tokio::test]
async fn what_is_held_goes_when_it_is_let_go() {
    let (_database, table) = table().await;
    table.create("one", &rebuild()).await.unwrap();
    table.hold(&table.get("one").await.unwrap()).await.unwrap();
    let held = table.get("one").await.unwrap();
    assert!(held.held);
    table.delete("one").await.unwrap();
    let going = table.get("one").await.unwrap();
    assert!(going.deleting && going.held, "it waits for the driver");
    assert!(matches!(
        table.release(&held).await,
        Err(OutsideError::Changed(_))
    ));
    table.release(&going).await.unwrap();
    assert!(matches!(
        table.get("one").await,
        Err(TableError::Missing(_))
    ));

    // One whose time is over, too.
    table.create("two", &rebuild()).await.unwrap();
    table.hold(&table.get("two").await.unwrap()).await.unwrap();
    table
        .remove(&table.get("two").await.unwrap())
        .await
        .unwrap();
    let going = table.get("two").await.unwrap();
    assert!(going.deleting);
    table.release(&going).await.unwrap();
    assert!(matches!(
        table.delete("two").await,
        Err(TableError::Missing(_))
    ));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_no_other() {
    let (database, table) = table().await;
    let good = table.create("good", &rebuild()).await.unwrap();
    table.create("bad", &rebuild()).await.unwrap();
    sqlx::query("UPDATE projections.replays SET spec = '{\"type\": \"Dance\"}' WHERE name = 'bad'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert_eq!(table.list().await.unwrap(), [good]);
    let bad = table.get("bad").await;
    assert!(
        matches!(bad, Err(TableError::Undecodable { .. })),
        "{bad:?}"
    );
}
