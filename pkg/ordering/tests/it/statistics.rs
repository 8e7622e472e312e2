//! Sums that the fold keeps.

use serde_json::json;

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_follow_every_order() {
    let system = System::start().await;
    let empty = system.get_now("/orders/statistics").await;
    assert_eq!(
        empty.body,
        json!({
            "total_orders": 0,
            "total_amount": "0.00",
            "average_amount": "0.00",
            "by_status": {},
            "by_day": [],
        })
    );
    let mut ids = Vec::new();
    for (user, amount) in [
        ("ann", "10"),
        ("ann", "0.01"),
        ("bob", "20"),
        ("bob", "99999999.99"),
    ] {
        ids.push(system.order(user, amount).await);
    }
    system.become_(&ids[0], "CONFIRMED").await;
    system.become_(&ids[0], "SHIPPED").await;
    system.become_(&ids[1], "CANCELLED").await;
    system.delete(&format!("/orders/{}", ids[3])).await;

    let order = system.get_now(&format!("/orders/{}", ids[0])).await;
    let day = order.body["created_at"].as_str().unwrap()[..10].to_owned();
    let all = system.get_now("/orders/statistics").await;
    assert_eq!(
        all.body,
        json!({
            "total_orders": 3,
            "total_amount": "30.01",
            "average_amount": "10.00",
            "by_status": {
                "CANCELLED": {"count": 1, "amount": "0.01"},
                "PENDING": {"count": 1, "amount": "20.00"},
                "SHIPPED": {"count": 1, "amount": "10.00"},
            },
            "by_day": [{"date": day, "count": 3, "amount": "30.01"}],
        })
    );
    let ann = system.get("/orders/statistics?user_id=ann").await;
    assert_eq!(ann.body["total_orders"], 2);
    assert_eq!(ann.body["total_amount"], "10.01");
    let nobody = system.get("/orders/statistics?user_id=nobody").await;
    assert_eq!(nobody.body, empty.body);
    let today = system
        .get(&format!("/orders/statistics?from={day}T00:00:00Z"))
        .await;
    assert_eq!(today.body, all.body);
    let before = system.get(&format!("/orders/statistics?to={day}")).await;
    assert_eq!(before.body, empty.body);
}
