//! Halting a log, and what an operator decides after it.

use std::sync::Arc;

use millrace_es::{NewEvent, RecordedEvent};
use sqlx::{Connection, PgConnection};

use super::{
    PgInlineTable, copy, failure::Failure, read::Reader, session, sql::Statements, store::Store,
};
use crate::{
    LogError, LogHead,
    halted::show_halted,
    lane::{
        plan::{Row, Wanted},
        seen::Seen,
        tail::{as_new, place, streams_of},
    },
};

/// The events of one COPY while a tail is taken back.
const IMPORT_CHUNK_EVENTS: usize = 1_000;

impl Reader {
    pub(super) async fn halt(&self, reason: &str) -> Result<(), LogError> {
        sqlx::query(&self.statements.halt)
            .bind(reason)
            .execute(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        show_halted(&self.context, true);
        tracing::error!(context = %self.context, reason, "the log is halted; run `millrace log recover`");
        Ok(())
    }

    pub(super) async fn resume(&self) -> Result<(), LogError> {
        sqlx::query(&self.statements.resume)
            .execute(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        show_halted(&self.context, false);
        Ok(())
    }

    pub(super) async fn start_epoch(&self) -> Result<LogHead, LogError> {
        sqlx::query(&self.statements.start_epoch)
            .execute(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        self.head().await
    }
}

/// Takes a tail back, in one transaction on a connection of its own.
pub(super) async fn import(
    reader: &Reader,
    inline: Vec<Arc<dyn PgInlineTable>>,
    events: &[RecordedEvent],
) -> Result<LogHead, LogError> {
    let store = Store {
        context: reader.context.clone(),
        statements: Arc::clone(&reader.statements),
        inline,
        faults: None,
        options: session::import_options(&reader.pool.connect_options(), &reader.context),
        conn: None,
        contended: false,
        seen: Seen::default(),
        left: None,
        clock: None,
    };
    match import_with(&store, events).await {
        Ok(()) => {}
        Err(Failure::Fatal(error)) => return Err(error),
        Err(Failure::WentBack(reason)) => return Err(LogError::Corrupt(reason)),
        Err(Failure::Data(error) | Failure::Raced(error)) => {
            return Err(LogError::Corrupt(error.to_string()));
        }
        Err(Failure::Passing(error)) => return Err(LogError::unreachable(error)),
    }
    reader.head().await
}

async fn import_with(store: &Store, events: &[RecordedEvent]) -> Result<(), Failure> {
    let mut conn = session::connect(&store.options).await?;
    let mut tx = conn.begin().await.map_err(Failure::of)?;
    sqlx::query(&store.statements.lock)
        .fetch_one(&mut *tx)
        .await
        .map_err(Failure::of)?;
    let streams = streams_of(events);
    let wanted = Wanted::of(&streams);
    let mut probed = store.probe(&mut tx, &wanted).await?;
    for chunk in events.chunks(IMPORT_CHUNK_EVENTS) {
        let new: Vec<NewEvent> = chunk.iter().map(as_new).collect();
        let rows = chunk
            .iter()
            .zip(&new)
            .map(|(event, new)| place(&mut probed, event, new).map_err(Failure::Fatal))
            .collect::<Result<Vec<_>, _>>()?;
        copy_in(&mut tx, &store.statements, &rows).await?;
        store.write_inline(&mut tx, chunk).await?;
    }
    let partitions: Vec<i64> = probed.head.partitions.iter().map(|p| p.as_i64()).collect();
    for statement in [&store.statements.drop_end, &store.statements.import_lane] {
        sqlx::query(statement)
            .execute(&mut *tx)
            .await
            .map_err(Failure::of)?;
    }
    sqlx::query(&store.statements.import_end)
        .bind(probed.head.position.as_i64())
        .bind(partitions)
        .bind(probed.head.recorded_at.get())
        .execute(&mut *tx)
        .await
        .map_err(Failure::of)?;
    tx.commit().await.map_err(Failure::of)
}

async fn copy_in(
    conn: &mut PgConnection,
    statements: &Statements,
    rows: &[Row<'_>],
) -> Result<(), Failure> {
    let body =
        copy::encode(rows).map_err(|error| Failure::Data(sqlx::Error::Encode(error.into())))?;
    let mut copy = conn
        .copy_in_raw(statements.copy.as_str())
        .await
        .map_err(Failure::of)?;
    copy.send(body).await.map_err(Failure::of)?;
    copy.finish().await.map_err(Failure::of)?;
    Ok(())
}
