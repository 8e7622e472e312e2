//! Write-model tables kept in the append's transaction.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millrace_es::RecordedEvent;
use millrace_eventlog::{
    AppendError, EventLog, ExpectedVersion, Migration, PgInlineTable, conformance::audit,
};
use sqlx::PgConnection;

use crate::support::{append, open_with, store_with};

const TABLES: Migration = Migration {
    name: "testing/0001_lengths",
    sql: "CREATE TABLE lengths (stream text PRIMARY KEY, version bigint NOT NULL,
                                CHECK (stream <> 'poison'))",
};

/// The version of every stream, and what the session was like.
#[derive(Default)]
struct Lengths {
    settings: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl PgInlineTable for Lengths {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error> {
        let settings = sqlx::query_as(
            "SELECT current_setting('synchronous_commit'), current_setting('search_path')",
        )
        .fetch_one(&mut *conn)
        .await?;
        self.settings.lock().unwrap().push(settings);
        let (streams, versions): (Vec<_>, Vec<_>) = events
            .iter()
            .map(|event| (event.stream.as_str(), event.version.as_i64()))
            .unzip();
        sqlx::query(
            "INSERT INTO lengths SELECT stream, max(version)
             FROM unnest($1::text[], $2::bigint[]) AS e (stream, version) GROUP BY stream
             ON CONFLICT (stream) DO UPDATE SET version = excluded.version",
        )
        .bind(streams)
        .bind(versions)
        .execute(conn)
        .await?;
        Ok(())
    }
}

#[tokio::test]
async fn rows_follow_the_events_and_a_poison_sinks_only_itself() {
    let database = store_with(&[TABLES]).await;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "ALTER DATABASE {} SET synchronous_commit = off",
        database.name
    )))
    .execute(&database.pool)
    .await
    .unwrap();
    let lengths = Arc::new(Lengths::default());
    let table = Arc::clone(&lengths);
    let log = open_with(&database, |options| options.inline = vec![table]).await;

    let names = ["a", "b", "poison", "c", "d", "a"];
    for events in [1, 50] {
        let appends = names.map(|name| log.append(append(name, ExpectedVersion::Any, events)));
        let verdicts = futures::future::join_all(appends).await;
        for (name, verdict) in names.iter().zip(verdicts) {
            match verdict {
                Ok(_) => assert_ne!(*name, "poison"),
                Err(AppendError::Invalid(_)) => assert_eq!(*name, "poison"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT * FROM testing.lengths ORDER BY 1")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let expected = [("a", 102), ("b", 51), ("c", 51), ("d", 51)];
    assert_eq!(rows, expected.map(|(name, n)| (name.to_owned(), n)));
    assert_eq!(audit(&log).await.len(), 255);
    let settings = lengths.settings.lock().unwrap();
    assert!(
        settings
            .iter()
            .all(|(commit, path)| commit == "on" && path == "testing"),
        "{settings:?}"
    );
}
