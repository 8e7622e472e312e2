//! No two users have one e-mail address, whoever asks, and when.

use std::collections::BTreeSet;

use http::StatusCode;
use millrace_testkit::{HttpClient, Reply};
use serde_json::json;

use crate::system::System;

async fn create(client: &HttpClient, id: &str, email: &str) -> Reply {
    let body = json!({"id": id, "name": id, "email": email});
    client.post("/system-api/users", body).await
}

async fn take(client: &HttpClient, id: &str, email: &str) -> Reply {
    let path = format!("/system-api/users/{id}");
    client.put(&path, json!({ "email": email })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_want_an_address_at_once_one_gets_it() {
    let mut system = System::still().await;
    let second = system.second().await;
    let clients = [&*system, &second];
    let asked = (0..60).map(|n| {
        let email = ["alice@demo.com", "Alice@Demo.COM"][n / 2 % 2];
        let client = clients[n % 2];
        async move { create(client, &n.to_string(), email).await }
    });
    let replies = futures::future::join_all(asked).await;
    let won = replies.iter().filter(|it| it.status == StatusCode::CREATED);
    assert_eq!(won.count(), 1);
    for refused in replies.iter().filter(|it| it.status != StatusCode::CREATED) {
        assert_eq!(refused.problem(409).0, "email-taken");
        assert_eq!(refused.body["email"], "alice@demo.com");
    }
    assert_eq!(system.head().await, 1);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM customers.users")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_change_to_one_address_one_gets_it_and_leaves_his_own_free() {
    let mut system = System::still().await;
    let second = system.second().await;
    let clients = [&*system, &second];
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for id in &ids {
        let created = create(&system, id, &format!("{id}@demo.com")).await;
        created.expect(StatusCode::CREATED);
    }
    let asked = ids.iter().enumerate().map(|(n, id)| {
        let client = clients[n % 2];
        async move { (id, take(client, id, "best@demo.com").await.status) }
    });
    let replies = futures::future::join_all(asked).await;
    let won: Vec<&str> = replies
        .iter()
        .filter(|(_, status)| *status == StatusCode::OK)
        .map(|(id, _)| id.as_str())
        .collect();
    let [winner] = won.as_slice() else {
        panic!("{replies:?}");
    };
    let lost = replies.iter().filter(|it| it.1 == StatusCode::CONFLICT);
    assert_eq!(lost.count(), 19);
    // Everybody else still has his own, and the winner's is free.
    for id in &ids {
        let reply = create(&second, &format!("new-{id}"), &format!("{id}@demo.com")).await;
        let expected = if id == winner { 201 } else { 409 };
        assert_eq!(reply.status, expected, "{id}");
    }
    let emails: Vec<String> = sqlx::query_scalar("SELECT lower(email) FROM customers.users")
        .fetch_all(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(emails.len(), 21);
    assert_eq!(emails.iter().collect::<BTreeSet<_>>().len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_may_be_written_in_another_case_by_its_user_only() {
    let system = System::still().await;
    create(&system, "a", "ann@demo.com")
        .await
        .expect(StatusCode::CREATED);
    let recased = take(&system, "a", "Ann@Demo.com").await;
    assert_eq!(recased.expect(StatusCode::OK).body["email"], "Ann@Demo.com");
    for email in ["ann@demo.com", "Ann@Demo.com", "ANN@DEMO.COM"] {
        let reply = create(&system, "b", email).await;
        assert_eq!(reply.problem(409).0, "email-taken", "{email}");
    }
    take(&system, "a", "anna@demo.com")
        .await
        .expect(StatusCode::OK);
    create(&system, "b", "ANN@demo.com")
        .await
        .expect(StatusCode::CREATED);
    let back = take(&system, "a", "ann@demo.com").await;
    assert_eq!(back.problem(409).0, "email-taken");
    // A name may change beside it: only what is used is refused, and all of it.
    let both = json!({"name": "Anne", "email": "ann@demo.com"});
    let reply = system.put("/system-api/users/a", both).await;
    assert_eq!(reply.problem(409).0, "email-taken");
    let name: String = sqlx::query_scalar("SELECT name FROM customers.users WHERE id = 'a'")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(name, "a");
}
