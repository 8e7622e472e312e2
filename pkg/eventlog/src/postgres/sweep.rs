//! Removing expired answers.

use std::{sync::Arc, time::Duration};

use millrace_es::Context;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::sql::Statements;

/// How often expired answers are looked for.
const SWEEP_EVERY_MS: u64 = 60_000;
/// The most answers one statement removes: it holds no lock for long.
const MAX_SWEEP_ROWS: i64 = 1_000;
/// The pause between two full statements, which leaves the store to others.
const SWEEP_PAUSE_MS: u64 = 50;

/// Sweeps until stopped. Every process of a context sweeps; they skip each other's rows.
pub(super) async fn run(
    pool: PgPool,
    statements: Arc<Statements>,
    context: Context,
    stop: CancellationToken,
) {
    let mut pause = Duration::from_millis(SWEEP_EVERY_MS);
    loop {
        let paused = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        if paused.is_none() {
            return;
        }
        pause = match sweep(&pool, &statements).await {
            Ok(true) => Duration::from_millis(SWEEP_PAUSE_MS),
            Ok(false) => Duration::from_millis(SWEEP_EVERY_MS),
            Err(error) => {
                tracing::warn!(%context, %error, "expired answers could not be removed");
                Duration::from_millis(SWEEP_EVERY_MS)
            }
        };
    }
}

/// Removes one batch; `true` when there may be more.
async fn sweep(pool: &PgPool, statements: &Statements) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(&statements.sweep)
        .bind(MAX_SWEEP_ROWS)
        .execute(pool)
        .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX) >= MAX_SWEEP_ROWS)
}
