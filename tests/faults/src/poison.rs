//! Events that no command would make, written into the log's tables as proper events: the head
//! moves, the chain holds, only the payload may be nonsense.

use serde_json::Value;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::check::log::partition_of;

/// Appends an event to a stream behind the back of the command processes; gives its position.
///
/// # Panics
/// When the log cannot be written.
pub async fn append(pool: &PgPool, stream: &str, event_type: &str, payload: &Value) -> i64 {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM ordering.log_lane FOR UPDATE")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let head = sqlx::query("SELECT position, partition_positions FROM ordering.log_head")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let position = head.get::<i64, _>("position") + 1;
    let mut partitions: Vec<i64> = head.get("partition_positions");
    let partition = partition_of(stream, partitions.len());
    let newest = &mut partitions[usize::try_from(partition).unwrap()];
    sqlx::query(
        "INSERT INTO ordering.events (position, version, previous, recorded_at, event_id,
             schema_version, partition, stream, event_type, payload, metadata)
         SELECT $1, coalesce(max(version), 0) + 1, $2, head.recorded_at, $3,
             CASE $6 WHEN 'order.created' THEN 2 ELSE 1 END, $4, $5, $6, $7::json,
             '{\"correlation_id\": \"poison\"}'
         FROM ordering.log_head head LEFT JOIN ordering.events ON stream = $5
         GROUP BY head.recorded_at",
    )
    .bind(position)
    .bind(*newest)
    .bind(id())
    .bind(partition)
    .bind(stream)
    .bind(event_type)
    .bind(payload.to_string())
    .execute(&mut *transaction)
    .await
    .unwrap();
    *newest = position;
    sqlx::query("UPDATE ordering.log_end SET position = $1, partition_positions = $2")
        .bind(position)
        .bind(partitions)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    position
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test names its events at its edge"
)]
fn id() -> Uuid {
    Uuid::now_v7()
}
