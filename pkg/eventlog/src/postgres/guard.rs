//! What may go wrong with the lane from outside: a process that sleeps holds the head.

use millrace_es::Context;
use sqlx::PgConnection;

use super::sql::Statements;

/// How long a session may hold the head and wait for its process before others end it.
const MAX_SLEEP_MS: f64 = 3_000.0;

/// Ends the sessions of other processes that hold the head while their process sleeps. The
/// server's own time-outs end an idle transaction, but none of them ends a statement whose
/// messages do not come.
pub(super) async fn end_sleepers(
    conn: &mut PgConnection,
    statements: &Statements,
    context: &Context,
) -> Result<(), sqlx::Error> {
    let ended: i64 = sqlx::query_scalar(&statements.end_sleepers)
        .bind(lane_name(context))
        .bind(MAX_SLEEP_MS)
        .fetch_one(conn)
        .await?;
    if ended > 0 {
        tracing::warn!(%context, ended, "ended a session that held the log while its process slept");
    }
    Ok(())
}

/// The name that lanes' sessions go by in the server.
pub(super) fn lane_name(context: &Context) -> String {
    format!("millrace-lane-{context}")
}
