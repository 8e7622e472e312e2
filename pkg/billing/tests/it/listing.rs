//! `GET /invoices`.

use http::StatusCode;
use serde_json::json;

use crate::{
    facts::{account, created, deleted, order, user},
    system::System,
};

#[tokio::test]
async fn invoices_are_listed_newest_first_and_page_by_page() {
    let system = System::still().await;
    system.user(&user("1", "alice@demo.com")).await;
    system.user(&account("1", "2025-01-01T00:00:00Z")).await;
    for (name, owner, bought) in [
        ("o-1", "1", "2025-03-01T00:00:00Z"),
        ("o-2", "2", "2025-04-01T00:00:00Z"),
        ("o-3", "1", "2025-04-02T00:00:00Z"),
        ("o-4", "1", "2025-04-03T00:00:00Z"),
        ("o-5", "1", "2025-05-01T00:00:00Z"),
    ] {
        system
            .order(&created(&order(name, owner, "10.00", bought)))
            .await;
    }
    let gone = order("o-6", "1", "10.00", "2025-06-01T00:00:00Z");
    system.order(&created(&gone)).await;
    system.order(&deleted(&gone)).await;
    system.fold_all().await;

    let all = system.get_now("/invoices").await.expect(StatusCode::OK);
    let months: Vec<(&str, &str)> = all.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let month = &item["invoice_dt"].as_str().unwrap()[..7];
            (month, item["user_id"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("2025-05", "1"),
        ("2025-04", "2"),
        ("2025-04", "1"),
        ("2025-03", "1"),
    ];
    assert_eq!(months, expected);
    let april = &all.body["items"][2];
    assert_eq!(april["orders_count"], 2);
    assert_eq!(april["total"], "20.00");
    assert_eq!(
        april["shipping_address"],
        "123 Main St, Cityville, ST 12345"
    );
    assert_eq!(all.body["items"][1]["email"], json!(null));

    let (walked, pages) = system.walk("/invoices", "invoice_id", 1).await;
    assert_eq!(walked, all.listed("invoice_id"));
    assert_eq!(pages, 4);
    for (query, count) in [
        ("user_id=1", 3),
        ("user_id=1&from=2025-04-01", 2),
        ("from=2025-03-01&to=2025-04-01", 1),
        ("to=2025-03-01", 0),
        ("user_id=nobody", 0),
    ] {
        let found = system.get_now(&format!("/invoices?{query}")).await;
        let found = found.expect(StatusCode::OK);
        assert_eq!(found.listed("invoice_id").len(), count, "{query}");
    }
    let (walked, _) = system.walk("/invoices?user_id=1", "invoice_id", 2).await;
    assert_eq!(walked.len(), 3);
    let wrong = system.get("/invoices?from=2025-05-01&to=2025-04-01").await;
    assert_eq!(wrong.problem(422).1, ["/from"]);
    let cursor = system.get("/invoices?cursor=tampered").await;
    assert_eq!(cursor.problem(400).0, "invalid-cursor");
}
