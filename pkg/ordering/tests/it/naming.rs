//! The user's name and e-mail address in what is answered about orders: eventual, in whatever order
//! the two contexts are heard.

use http::{Method, StatusCode};
use millrace_testkit::Reply;
use serde_json::{Value, json};

use crate::system::System;

/// Every answer that shows orders of this user.
fn paths(user: &str, order: &str) -> [String; 7] {
    [
        format!("/orders/{order}"),
        format!("/orders/{order}?consistency=strong"),
        "/orders".to_owned(),
        format!("/orders/user/{user}"),
        "/orders/status/PENDING".to_owned(),
        "/orders/date-range?from=2020-01-01&to=2100-01-01".to_owned(),
        "/orders/amount-greater-than?amount=0".to_owned(),
    ]
}

fn shown(reply: &Reply) -> Value {
    let order = reply.body.get("items").filter(|items| items[0].is_object());
    let order = order.map_or(&reply.body, |items| &items[0]);
    json!([order["user_username"], order["user_email"]])
}

async fn assert_shown(system: &System, user: &str, order: &str, expected: &Value) {
    for path in paths(user, order) {
        let reply = system.get(&path).await.expect(StatusCode::OK);
        assert_eq!(shown(&reply), *expected, "{path}: {:#}", reply.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_come_after_his_orders_and_be_called_otherwise_later() {
    let system = System::start().await;
    let order = system.order("u", "1").await;
    system.get_now("/orders").await;
    assert_shown(&system, "u", &order, &json!([null, null])).await;

    let users = &system.store.users;
    users.create("u", "Shivam").await;
    system.get_after_users("/orders").await;
    assert_shown(&system, "u", &order, &json!(["Shivam", "u@demo.com"])).await;

    users.rename("u", "Shivam B.").await;
    users.moves_to("u", "elsewhere").await;
    system.get_after_users("/orders").await;
    assert_shown(&system, "u", &order, &json!(["Shivam B.", "u@demo.com"])).await;
    let found = async |part: &str| {
        let path = format!("/orders/search/username?username={part}");
        let reply = system.get(&path).await.expect(StatusCode::OK);
        reply.ids().len()
    };
    assert_eq!((found("vam%20b").await, found("vam").await), (1, 1));
    assert_eq!(found("nobody").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_be_there_before_his_orders() {
    let system = System::start().await;
    system.store.users.create("u", "Ann").await;
    system.get_after_users("/orders").await;
    let order = system.order("u", "1").await;
    system.get_now("/orders").await;
    assert_shown(&system, "u", &order, &json!(["Ann", "u@demo.com"])).await;
    let confirmed = system.become_(&order, "CONFIRMED").await;
    let path = format!("/orders/{order}");
    let read = system.get_after(&path, &confirmed).await;
    assert_eq!(shown(&read), json!(["Ann", "u@demo.com"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_shows_a_new_name_has_a_new_tag() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    let path = format!("/orders/{id}");
    let tag = system.get_now(&path).await.header("etag").to_owned();
    assert_eq!(tag, "\"1\"");
    system.store.users.create("u", "Ann").await;
    let read = system.get_after_users(&path).await;
    let named = read.header("etag").to_owned();
    let strong = system.get(&format!("{path}?consistency=strong")).await;
    assert_eq!(strong.header("etag"), named, "the same answer");
    let if_none_match = |tag: &str| {
        let request = system.request(Method::GET, &path);
        request.header("if-none-match", tag).send()
    };
    if_none_match(&tag).await.expect(StatusCode::OK);
    assert_eq!(if_none_match(&named).await.status, StatusCode::NOT_MODIFIED);
    let change = |tag: &str| {
        let request = system.request(Method::PUT, &format!("/orders/{id}/status"));
        let request = request.header("if-match", tag);
        request.json(&json!({"status": "CONFIRMED"})).send()
    };
    change(&named).await.expect(StatusCode::OK);
    assert_eq!(change(&named).await.problem(412).0, "precondition-failed");
}

/// All orders of a name come by time and in pages, whoever of that name has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_goes_through_several_users_in_pages() {
    let system = System::start().await;
    let mut expected = Vec::new();
    for n in 0..12 {
        let user = ["a", "b", "c"][n % 3];
        let id = system.order(user, "1").await;
        if user != "c" {
            expected.push(id);
        }
    }
    expected.reverse();
    for (user, name) in [("a", "Ann Lee"), ("b", "Bob Leeds"), ("c", "Cid")] {
        system.store.users.create(user, name).await;
    }
    system.get_now("/orders").await;
    system.get_after_users("/orders").await;
    for limit in [1, 3, 100] {
        let (ids, _) = system
            .walk("/orders/search/username?username=LEE", "id", limit)
            .await;
        assert_eq!(ids, expected, "by {limit}");
    }
    system.delete(&format!("/orders/{}", expected[0])).await;
    let left = system.get_now("/orders/search/username?username=lee").await;
    assert_eq!(left.ids(), expected[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_read_does_without_names_when_the_read_model_is_gone() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    system.store.users.create("u", "Ann").await;
    let schema: String = sqlx::query_scalar(
        "SELECT schemaname::text FROM pg_tables WHERE tablename = 'order_users'",
    )
    .fetch_one(&system.store.database.pool)
    .await
    .unwrap();
    let path = format!("/orders/{id}?consistency=strong");
    system.get_after_users("/orders").await;
    let named = system.get(&path).await;
    assert_eq!(shown(&named), json!(["Ann", "u@demo.com"]));
    let sql = format!("ALTER TABLE {schema}.order_users RENAME TO gone");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(&system.store.database.pool)
        .await
        .unwrap();
    let unnamed = system.get(&path).await.expect(StatusCode::OK);
    assert_eq!(shown(&unnamed), json!([null, null]));
    assert_eq!(unnamed.body["total_amount"], "1.00");
}
