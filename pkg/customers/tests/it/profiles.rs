//! `GET /users/{id}`: what is said in two contexts, in whatever order it comes.

use http::{Method, StatusCode};
use millrace_es::RecordedEvent;
use serde_json::json;

use crate::system::System;

const ADDRESS: &str = "/system-api/accounts";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_shows_what_both_contexts_say() {
    let system = System::running().await;
    system.user("1", "ann").await;
    assert_eq!(
        system.get_now("/users/1").await.body,
        json!({
            "id": "1", "name": "ann", "email": "ann@demo.com", "shipping_address": null,
            "orders_count": 0, "version": 1,
        })
    );
    for n in 0..10 {
        system.orders.create(&format!("o-{n}"), "1").await;
    }
    system.orders.create("o-other", "2").await;
    system.orders.cancel("o-0", "1").await;
    system.orders.delete("o-1", "1").await;
    let address = json!({"user_id": 1, "street": "s", "city": "c", "state": "ST", "zip": "1"});
    let written = system.post(ADDRESS, address).await;
    system.get_after_orders("/users/1").await;
    let expected = json!({
        "id": "1", "name": "ann", "email": "ann@demo.com", "shipping_address": "s, c, ST 1",
        "orders_count": 9, "version": 2,
    });
    let read = system.get_after("/users/1", &written).await;
    assert_eq!(read.body, expected);
    assert!(read.position().starts_with("customers/2"));
    let strong = system.get("/users/1?consistency=strong").await;
    assert_eq!(strong.expect(StatusCode::OK).body, expected);

    // Somebody whose orders came first.
    let path = "/users/2";
    assert_eq!(system.get(path).await.problem(404).0, "not-found");
    system.user("2", "bob").await;
    let read = system.get_now(path).await;
    assert_eq!(
        (&read.body["name"], &read.body["orders_count"]),
        (&json!("bob"), &json!(1))
    );

    for foreign in ["/users/1?at_least=banking/1", "/users/a%20b"] {
        assert_eq!(system.get(foreign).await.status, 422, "{foreign}");
    }
    let late = system
        .request(Method::GET, "/users/1?at_least=ordering/999999")
        .header("prefer", "wait=0");
    assert_eq!(late.send().await.problem(504).0, "not-yet-readable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_changes_with_what_others_say_and_still_names_the_version() {
    let system = System::running().await;
    system.user("1", "ann").await;
    let plain = system.get_now("/users/1").await;
    assert_eq!(plain.header("etag"), "\"1\"");
    system.orders.create("o", "1").await;
    let counted = system.get_after_orders("/users/1").await;
    let tag = counted.header("etag").to_owned();
    let if_none_match = |tag: &str| {
        let request = system.request(Method::GET, "/users/1");
        request.header("if-none-match", tag).send()
    };
    assert_eq!(if_none_match(&tag).await.status, StatusCode::NOT_MODIFIED);
    let stale = if_none_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!(stale.body["orders_count"], 1);
    let change = |name: &str| {
        let request = system.request(Method::PUT, "/system-api/users/1");
        let request = request.header("if-match", &tag);
        request.json(&json!({ "name": name })).send()
    };
    change("anna").await.expect(StatusCode::OK);
    assert_eq!(change("anne").await.problem(412).0, "precondition-failed");
}

/// Everything that happened, in the order of its logs, the one or the other first.
async fn both(system: &System) -> [Vec<RecordedEvent>; 2] {
    let (users, orders) = (system.events().await, system.orders.events().await);
    let users_first = users.iter().chain(&orders).cloned().collect();
    let orders_first = orders.iter().chain(&users).cloned().collect();
    [users_first, orders_first]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_comes_first_and_however_often_the_end_is_the_same() {
    let mut profiles = Vec::new();
    for nth in 0..2 {
        let system = System::still().await;
        system.user("1", "ann").await;
        for n in 0..20 {
            system.orders.create(&format!("o-{n}"), "1").await;
        }
        system.orders.delete("o-3", "1").await;
        let put = system
            .put("/system-api/users/1", json!({"name": "Anna"}))
            .await;
        put.expect(StatusCode::OK);
        let events = both(&system).await[nth].clone();
        // One by one, with restarts that get everything again, then all at once.
        for many in [1, 7, events.len()] {
            let mut folder = system.folder().await;
            for piece in 1..=events.len().div_ceil(many) {
                let upto = (piece * many).min(events.len());
                let folded = folder.fold(events[..upto].to_vec()).await.unwrap();
                assert_eq!(folded.letters, []);
            }
        }
        profiles.push(system.get_now("/users/1").await.body);
    }
    assert_eq!(profiles[0]["orders_count"], 19);
    assert_eq!(profiles[0]["name"], "Anna");
    assert_eq!(profiles[0], profiles[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_read_needs_no_read_model() {
    let system = System::still().await;
    system.user("1", "ann").await;
    system
        .post(ADDRESS, json!({"user_id": 1, "address": "here"}))
        .await
        .expect(StatusCode::CREATED);
    // Nothing was folded.
    let path = "/users/1?consistency=strong";
    let strong = system.get(path).await.expect(StatusCode::OK);
    assert_eq!(
        strong.body,
        json!({
            "id": "1", "name": "ann", "email": "ann@demo.com", "shipping_address": "here",
            "orders_count": 0, "version": 2,
        })
    );
    assert_eq!(system.get("/users/1").await.problem(404).0, "not-found");
    // Without the read model it does without what only that knows.
    sqlx::query("DROP SCHEMA projections CASCADE")
        .execute(&system.database.pool)
        .await
        .unwrap();
    let schema: String = sqlx::query_scalar(
        "SELECT schemaname::text FROM pg_tables WHERE tablename = 'user_profiles'",
    )
    .fetch_one(&system.database.pool)
    .await
    .unwrap();
    let drop = format!("DROP SCHEMA {schema} CASCADE");
    sqlx::query(sqlx::AssertSqlSafe(drop))
        .execute(&system.database.pool)
        .await
        .unwrap();
    let strong = system.get(path).await.expect(StatusCode::OK);
    assert_eq!(strong.body["orders_count"], json!(null));
    assert_eq!(strong.body["name"], "ann");
    let unknown = system.get("/users/2?consistency=strong").await;
    assert_eq!(unknown.problem(404).0, "not-found");
}
