//! The address of a user's account: in parts or as one text, and replaced by another.

use http::StatusCode;
use serde_json::{Value, json};
use sqlx::Row;

use crate::system::System;

const PATH: &str = "/system-api/accounts";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_makes_the_account_and_another_replaces_it() {
    let system = System::still().await;
    system.user("1", "ann").await;
    let parts = json!({
        "user_id": 1, "street": "123 Main St", "city": "Cityville", "state": "ST", "zip": "12345",
    });
    let reply = system.post(PATH, parts.clone()).await;
    let reply = reply.expect(StatusCode::CREATED);
    assert_eq!(
        reply.body,
        json!({
            "user_id": "1", "street": "123 Main St", "city": "Cityville", "state": "ST",
            "zip": "12345", "address": null,
            "shipping_address": "123 Main St, Cityville, ST 12345",
        })
    );
    assert_eq!(reply.header("etag"), "\"2\"");
    assert_eq!(reply.header("location"), "/users/1");
    let same = system.post(PATH, parts).await;
    assert_eq!(same.expect(StatusCode::CREATED).header("etag"), "\"2\"");

    let text = json!({"user_id": "1", "address": "c/o Bob\nElsewhere"});
    let reply = system.post(PATH, text).await.expect(StatusCode::CREATED);
    assert_eq!(
        reply.body,
        json!({
            "user_id": "1", "street": null, "city": null, "state": null, "zip": null,
            "address": "c/o Bob\nElsewhere", "shipping_address": "c/o Bob\nElsewhere",
        })
    );
    let types: Vec<String> = system
        .events()
        .await
        .iter()
        .map(|event| event.event_type.to_string())
        .collect();
    assert_eq!(
        types,
        ["user.created", "account.created", "account.updated"]
    );

    let row = sqlx::query("SELECT street, address, created_at, updated_at FROM customers.accounts")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(row.get::<Option<String>, _>(0), None);
    assert_eq!(row.get::<String, _>(1), "c/o Bob\nElsewhere");
    let (created, updated): (time::OffsetDateTime, time::OffsetDateTime) = (row.get(2), row.get(3));
    assert!(created < updated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_one_or_the_other_and_of_somebody_who_is_there() {
    let system = System::still().await;
    system.user("1", "ann").await;
    let unknown = system
        .post(PATH, json!({"user_id": 2, "address": "here"}))
        .await;
    assert_eq!(unknown.problem(404).0, "not-found");
    let parts = json!({"user_id": 1, "street": "s", "city": "c", "state": "s", "zip": "z"});
    let with = |field: &str, value: Value| {
        let mut body = parts.clone();
        body[field] = value;
        body
    };
    for (body, pointers) in [
        (json!({"address": "here"}), vec!["/user_id"]),
        (json!({"user_id": 1}), vec![""]),
        (
            json!({"user_id": 1, "street": "s"}),
            vec!["/city", "/state", "/zip"],
        ),
        (with("address", json!("here")), vec!["/address"]),
        (with("street", json!(" ")), vec!["/street"]),
        (with("zip", json!("z".repeat(21))), vec!["/zip"]),
        (with("city", json!("c".repeat(201))), vec!["/city"]),
        (with("zip", json!(12345)), vec!["/zip"]),
        (with("country", json!("US")), vec!["/country"]),
        (json!({"user_id": 1, "address": ""}), vec!["/address"]),
        (
            json!({"user_id": 1, "address": "a".repeat(1001)}),
            vec!["/address"],
        ),
        (
            json!({"user_id": "a b", "address": "here"}),
            vec!["/user_id"],
        ),
    ] {
        let reply = system.post(PATH, body.clone()).await;
        assert_eq!(reply.problem(422), ("invalid-request", pointers), "{body}");
    }
    assert_eq!(system.head().await, 1, "nothing of this was appended");
}
