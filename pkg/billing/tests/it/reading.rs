//! `GET /invoice-service/invoices`, to the letter.

use http::StatusCode;
use millrace_contracts::ordering::OrderStatus;

use crate::{
    facts::{account, becomes, created, deleted, moved, order, renamed, user},
    system::System,
};

const APRIL: &str = "/invoice-service/invoices?user_id=1&month=4&year=2025";

/// The story of the document, with the facts in the order of its steps.
async fn story(system: &System) {
    system.user(&user("1", "alice@demo.com")).await;
    system.user(&account("1", "2025-04-02T00:00:00Z")).await;
    let first = order("o-1", "1", "50.00", "2025-04-05T10:00:00Z");
    let second = order("o-2", "1", "100", "2025-04-30T23:59:59.999999Z");
    let may = order("o-3", "1", "7.00", "2025-05-01T00:00:00Z");
    for order in [&second, &first, &may] {
        system.order(&created(order)).await;
    }
    system.fold_all().await;
}

#[tokio::test]
async fn an_invoice_is_answered_to_the_letter() {
    let system = System::still().await;
    story(&system).await;
    let reply = system.get_now(APRIL).await.expect(StatusCode::OK);
    // As bytes: numbers with two decimals are no floats.
    assert_eq!(
        String::from_utf8(reply.bytes.to_vec()).unwrap(),
        "{\"invoice_id\":\"97898168-b553-5836-87fe-f1dc4eff63ff\",\"user_id\":1,\"email\":\"alice@demo.com\",\
         \"shipping_address\":\"123 Main St, Cityville, ST 12345\",\
         \"invoice_dt\":\"2025-04-01T00:00:00Z\",\"orders\":[\
         {\"order_id\":\"o-1\",\"description\":\"Widget\",\"amount\":50.00,\
         \"purchase_dt\":\"2025-04-05T10:00:00Z\"},\
         {\"order_id\":\"o-2\",\"description\":\"Widget\",\"amount\":100.00,\
         \"purchase_dt\":\"2025-04-30T23:59:59.999999Z\"}],\"total\":150.00}"
    );
    let tag = reply.header("etag").to_owned();
    let request = system.request(http::Method::GET, APRIL);
    let same = request.header("if-none-match", &tag).send().await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_is_called_off_leaves_the_invoice_and_the_last_one_takes_it_along() {
    let system = System::still().await;
    let first = order("o-1", "1", "50.00", "2025-04-05T10:00:00Z");
    let second = order("o-2", "1", "0.01", "2025-04-06T10:00:00Z");
    system.order(&created(&first)).await;
    system.order(&created(&second)).await;
    system.fold_all().await;
    let reply = system.get_now(APRIL).await.expect(StatusCode::OK);
    // Nothing is known about the user yet.
    assert!(reply.body["email"].is_null() && reply.body["shipping_address"].is_null());
    system.order(&becomes(&first, OrderStatus::Confirmed)).await;
    system.order(&becomes(&first, OrderStatus::Cancelled)).await;
    system.fold_all().await;
    let reply = system.get_now(APRIL).await.expect(StatusCode::OK);
    assert_eq!(reply.body["orders"].as_array().unwrap().len(), 1);
    assert!(
        reply.bytes.ends_with(b"\"total\":0.01}"),
        "{:?}",
        reply.bytes
    );
    system.order(&deleted(&second)).await;
    system.order(&deleted(&first)).await;
    system.fold_all().await;
    let reply = system.get(&format!("{APRIL}&at_least=ordering/6")).await;
    assert_eq!(reply.problem(404).0, "not-found");
}

#[tokio::test]
async fn the_address_is_that_of_the_months_end_and_the_email_the_latest() {
    let system = System::still().await;
    story(&system).await;
    let moves = [
        ("Oak St", "2025-05-01T00:00:00Z"),
        ("Ash St", "2025-06-01T00:00:00Z"),
    ];
    for (address, since) in moves {
        system.user(&moved("1", address, since)).await;
    }
    system.user(&renamed("1", "ann@demo.com")).await;
    let march = order("o-0", "1", "1.00", "2025-03-01T00:00:00Z");
    system.order(&created(&march)).await;
    system.fold_all().await;
    for (month, address) in [
        (3, "123 Main St, Cityville, ST 12345"),
        (4, "123 Main St, Cityville, ST 12345"),
        (5, "Oak St"),
    ] {
        let path = format!("/invoice-service/invoices?user_id=1&month={month}&year=2025");
        let reply = system.get_now(&path).await.expect(StatusCode::OK);
        assert_eq!(reply.body["shipping_address"], address, "{month}");
        assert_eq!(reply.body["email"], "ann@demo.com");
    }
}

#[tokio::test]
async fn what_is_no_month_is_said() {
    let system = System::still().await;
    for (query, field) in [
        ("user_id=1&month=0&year=2025", "/month"),
        ("user_id=1&month=13&year=2025", "/month"),
        ("user_id=1&month=-4&year=2025", "/month"),
        ("user_id=1&month=4&year=10000", "/year"),
        ("user_id=1&month=4&year=-1", "/year"),
        ("user_id=1&month=april&year=2025", "/month"),
        ("user_id=1&month=4", "/year"),
        ("user_id=-&month=4&year=2025", "/user_id"),
        ("month=4&year=2025", "/user_id"),
        ("user_id=1&month=4&year=2025&day=1", "/day"),
    ] {
        let path = format!("/invoice-service/invoices?{query}");
        let reply = system.get(&path).await;
        assert_eq!(
            reply.problem(422),
            ("invalid-request", vec![field]),
            "{query}"
        );
    }
    let strong = system.get(&format!("{APRIL}&consistency=strong")).await;
    strong.problem(422);
    for nobody in [
        "user_id=nobody&month=4&year=2025",
        "user_id=1&month=4&year=9999",
    ] {
        let reply = system
            .get(&format!("/invoice-service/invoices?{nobody}"))
            .await;
        assert_eq!(reply.problem(404).0, "not-found");
    }
}

#[tokio::test]
async fn a_token_of_either_context_is_waited_for_and_of_no_other() {
    let system = System::still().await;
    story(&system).await;
    for token in ["customers/2", "ordering/3"] {
        let reply = system.get_at(APRIL, token).await.expect(StatusCode::OK);
        let context = token.split('/').next().unwrap();
        assert!(
            reply.position().starts_with(context),
            "{}",
            reply.position()
        );
    }
    let foreign = system.get(&format!("{APRIL}&at_least=banking/1")).await;
    assert_eq!(foreign.problem(422).1, ["/at_least"]);
    system.user(&renamed("1", "ann@demo.com")).await;
    let request = system.request(http::Method::GET, &format!("{APRIL}&at_least=customers/3"));
    let behind = request.header("prefer", "wait=0").send().await;
    assert_eq!(behind.problem(504).0, "not-yet-readable");
}
