//! The lane's connection.

use std::time::Duration;

use millrace_es::Context;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;

use super::{
    failure::{Failure, timed_out},
    guard::lane_name,
};

/// How long a connection may take.
const CONNECT_MS: u64 = 3_000;
/// The session settings that keep a paused or lost process from holding the lane: its transaction
/// ends when it idles, its connection when the network is gone. A process that sleeps between
/// the messages of a statement is ended by the one that waits for it longest, see [`super::guard`].
const IDLE_IN_TRANSACTION_MS: u64 = 3_000;
const LOCK_WAIT_MS: u64 = 4_000;
const STATEMENT_MS: u64 = 6_000;
const TCP_USER_TIMEOUT_MS: u64 = 10_000;
const TCP_KEEPALIVE_S: u64 = 5;

/// The options of the lane's connection.
pub(super) fn lane_options(base: &PgConnectOptions, context: &Context) -> PgConnectOptions {
    let ms = |ms: u64| format!("{ms}ms");
    base.clone().application_name(&lane_name(context)).options([
        ("search_path", context.as_str().to_owned()),
        ("default_transaction_isolation", "read committed".to_owned()),
        (
            "idle_in_transaction_session_timeout",
            ms(IDLE_IN_TRANSACTION_MS),
        ),
        ("lock_timeout", ms(LOCK_WAIT_MS)),
        ("statement_timeout", ms(STATEMENT_MS)),
        ("tcp_user_timeout", ms(TCP_USER_TIMEOUT_MS)),
        ("tcp_keepalives_idle", TCP_KEEPALIVE_S.to_string()),
        ("tcp_keepalives_interval", TCP_KEEPALIVE_S.to_string()),
        ("tcp_keepalives_count", "3".to_owned()),
        // Few statements, run very often, always by index: planned once, and never as a scan
        // because the table was empty when the plan was made.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("jit", "off".to_owned()),
    ])
}

/// The options of a connection that takes a tail back: one long transaction, under an operator's
/// eyes.
pub(super) fn import_options(base: &PgConnectOptions, context: &Context) -> PgConnectOptions {
    base.clone()
        .application_name(&format!("millrace-import-{context}"))
        .options([
            ("search_path", context.as_str()),
            ("default_transaction_isolation", "read committed"),
            ("idle_in_transaction_session_timeout", "60s"),
        ])
}

/// Connects, within a bound.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    let connecting = async {
        let mut conn = PgConnection::connect_with(options).await?;
        // An append is acknowledged when it is on disk, whatever the server's default; a stronger
        // setting (remote_apply) stays.
        let commit: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
            .fetch_one(&mut conn)
            .await?;
        if matches!(commit.as_str(), "off" | "local") {
            sqlx::raw_sql("SET synchronous_commit = on")
                .execute(&mut conn)
                .await?;
        }
        Ok(conn)
    };
    match timeout(Duration::from_millis(CONNECT_MS), connecting).await {
        Ok(conn) => conn.map_err(Failure::of),
        Err(_) => Err(Failure::Passing(timed_out("connecting", CONNECT_MS))),
    }
}
