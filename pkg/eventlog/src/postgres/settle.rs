//! Finding out what became of a commit that was not answered.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{
    failure::{Failure, timed_out},
    read, session,
    store::Store,
};
use crate::lane::plan::Plan;

/// How long an open commit is looked after before its appends are told that it is not known.
const SETTLE_MS: u64 = 10_000;
/// The pause between two looks.
const SETTLE_PAUSE_MS: u64 = 200;

impl Store {
    /// Finds out whether a batch whose commit was not answered is there. It waits for the head's
    /// row, which the batch's transaction holds while it is alive, and moves the guard, so that a
    /// statement still on its way finds its condition broken.
    pub(super) async fn settle(&mut self, plan: &Plan<'_>) -> Result<bool, sqlx::Error> {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, self.is_there(plan)).await {
                Ok(Ok(there)) => return Ok(there),
                Ok(Err(Failure::Fatal(error))) => {
                    return Err(sqlx::Error::Io(std::io::Error::other(error)));
                }
                Ok(Err(Failure::WentBack(reason))) => {
                    return Err(sqlx::Error::Io(std::io::Error::other(reason)));
                }
                Ok(Err(Failure::Data(error) | Failure::Raced(error) | Failure::Passing(error))) => {
                    error
                }
                Err(_) => return Err(timed_out("settling a commit", SETTLE_MS)),
            };
            tracing::warn!(context = %self.context, %error, "a commit's outcome is still open");
            sleep(Duration::from_millis(SETTLE_PAUSE_MS)).await;
        }
    }

    async fn is_there(&mut self, plan: &Plan<'_>) -> Result<bool, Failure> {
        let mut conn = session::connect(&self.options).await?;
        sqlx::query(&self.statements.fence)
            .execute(&mut conn)
            .await
            .map_err(Failure::of)?;
        let there = if let Some(first) = plan.rows.first() {
            let found: Option<uuid::Uuid> = sqlx::query_scalar(&self.statements.event_at)
                .bind(first.position.as_i64())
                .fetch_optional(&mut conn)
                .await
                .map_err(Failure::of)?;
            found == Some(first.event.id.get())
        } else if let Some(first) = plan.kept.first() {
            let row = sqlx::query(&self.statements.answers)
                .bind([first.key.key_hash.as_slice()].as_slice())
                .fetch_optional(&mut conn)
                .await
                .map_err(Failure::of)?;
            let stored = row
                .map(|row| read::answer(&row))
                .transpose()
                .map_err(Failure::Fatal)?;
            stored.is_some_and(|(stored, _)| {
                stored.key == *first.key && stored.answer == *first.answer
            })
        } else {
            true
        };
        self.conn = Some(conn);
        Ok(there)
    }
}
