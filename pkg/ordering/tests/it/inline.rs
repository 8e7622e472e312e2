//! The write model's table, in the append's own transaction.

use http::StatusCode;
use serde_json::json;

use crate::system::System;

type Row = (String, String, String, String, Option<String>, bool);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_written_with_the_events() {
    let system = System::start().await;
    let rows = || async {
        sqlx::query_as::<_, Row>(
            "SELECT id, user_id, total_amount::text, status, shipping_address,
                    updated_at > created_at
             FROM ordering.orders ORDER BY id",
        )
        .fetch_all(&system.store.database.pool)
        .await
        .unwrap()
    };
    let row = |id: &str, status: &str, changed: bool| {
        let address = Some("here".to_owned());
        let text = str::to_owned;
        (
            text(id),
            text("u"),
            text("1.50"),
            text(status),
            address,
            changed,
        )
    };
    for id in ["a", "b"] {
        let body = json!({
            "id": id, "user_id": "u", "total_amount": "1.5", "shipping_address": "here",
        });
        system
            .post("/orders", body)
            .await
            .expect(StatusCode::CREATED);
    }
    assert_eq!(
        rows().await,
        [row("a", "PENDING", false), row("b", "PENDING", false)]
    );
    system
        .become_("a", "CONFIRMED")
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        rows().await,
        [row("a", "CONFIRMED", true), row("b", "PENDING", false)]
    );
    system
        .delete("/orders/b")
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_eq!(rows().await, [row("a", "CONFIRMED", true)]);
}

/// Writers of one order and of many at once: the table is always what the events say.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_table_equals_a_fold_of_the_log() {
    let system = System::start().await;
    let users = futures::future::join_all((0..8).map(|user| {
        let system = &system;
        async move {
            for n in 0..6 {
                let id = system.order(&format!("u{user}"), "1").await;
                if n % 2 == 0 {
                    system
                        .become_(&id, "CONFIRMED")
                        .await
                        .expect(StatusCode::OK);
                }
                if n % 3 == 0 {
                    let path = format!("/orders/{id}");
                    system.delete(&path).await.expect(StatusCode::NO_CONTENT);
                }
            }
        }
    }));
    users.await;
    let differing: i64 = sqlx::query_scalar(
        "WITH folded AS (
            SELECT DISTINCT ON (stream) payload::json AS last, event_type
            FROM ordering.events ORDER BY stream, version DESC
         ), expected AS (
            SELECT last->>'order_id' AS id, coalesce(last->>'to', 'PENDING') AS status
            FROM folded WHERE event_type <> 'order.deleted'
         )
         SELECT count(*) FROM expected FULL JOIN ordering.orders AS o
            ON o.id = expected.id AND o.status = expected.status
         WHERE o.id IS NULL OR expected.id IS NULL",
    )
    .fetch_one(&system.store.database.pool)
    .await
    .unwrap();
    assert_eq!(differing, 0);
}
