//! Lists: who is in them, in which order, and page after page.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_has_its_orders_in_its_order() {
    let system = System::start().await;
    let mut orders = Vec::new();
    for n in 0..12 {
        let (user, amount) = (["ann", "bob", "cid"][n % 3], (n * 7 % 12) + 1);
        let id = system.order(user, &amount.to_string()).await;
        if n % 4 == 0 {
            system.become_(&id, "CONFIRMED").await;
        }
        orders.push((id, user, amount, n % 4 == 0));
    }
    system.get_now("/orders").await;
    type Order = (String, &'static str, usize, bool);
    let newest = |keep: &dyn Fn(&Order) -> bool| -> Vec<String> {
        let kept = orders.iter().rev().filter(|order| keep(order));
        kept.map(|order| order.0.clone()).collect()
    };
    let mut dearest: Vec<_> = orders.iter().filter(|order| order.2 > 5).collect();
    dearest.sort_by(|a, b| (b.2, &b.0).cmp(&(a.2, &a.0)));
    let dearest: Vec<String> = dearest.iter().map(|order| order.0.clone()).collect();
    let cases = [
        ("/orders", newest(&|_| true)),
        ("/orders/user/bob", newest(&|order| order.1 == "bob")),
        ("/orders/status/CONFIRMED", newest(&|order| order.3)),
        (
            "/orders/user/bob/status/PENDING",
            newest(&|order| order.1 == "bob" && !order.3),
        ),
        (
            "/orders/date-range?from=2020-01-01&to=2100-01-01",
            newest(&|_| true),
        ),
        ("/orders/date-range?from=2020-01-01&to=2020-01-01", vec![]),
        ("/orders/amount-greater-than?amount=5", dearest),
        ("/orders/user/nobody", vec![]),
        ("/orders/search/username?username=ann", vec![]),
    ];
    for (path, expected) in cases {
        for limit in [1, 5, 500] {
            let (ids, pages) = system.walk(path, "id", limit).await;
            assert_eq!(ids, expected, "{path} by {limit}");
            assert_eq!(
                pages,
                expected.len().div_ceil(limit).max(1),
                "{path} by {limit}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_a_range_are_in_and_out() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    let order = system.get_now(&format!("/orders/{id}")).await;
    let at = order.body["created_at"].as_str().unwrap();
    let range = |from: &str, to: &str| format!("/orders/date-range?from={from}&to={to}");
    let from_here = system.get(&range(at, "2100-01-01")).await;
    assert_eq!(from_here.ids(), [&id], "from is included");
    let to_here = system.get(&range("2020-01-01", at)).await;
    assert!(to_here.ids().is_empty(), "to is excluded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_neither_skip_nor_repeat_while_orders_come_and_go() {
    let system = System::start().await;
    let mut before = BTreeSet::new();
    for _ in 0..30 {
        before.insert(system.order("u", "1").await);
    }
    system.get_now("/orders").await;
    for path in ["/orders/user/u", "/orders"] {
        let (mut seen, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = system.get(&format!("{path}?limit=7{cursor}")).await;
            for id in page.ids() {
                *seen.entry(id.to_owned()).or_insert(0) += 1;
            }
            system.order("u", "1").await;
            system.get_now("/orders?limit=1").await;
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(seen.values().all(|times| *times == 1), "{path}");
        assert!(before.iter().all(|id| seen.contains_key(id)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_orders_come_in_pages_from_dynamodb() {
    let system = System::start().await;
    let mut orders = Vec::new();
    for n in 0..25 {
        orders.push(system.order("u", &(n + 1).to_string()).await);
        system.order("other", "1").await;
    }
    // Deleted orders leave gaps that the pages close.
    for id in orders.iter().skip(3).take(9) {
        system.delete(&format!("/orders/{id}")).await;
    }
    orders.drain(3..12);
    orders.reverse();
    system.get_now("/api/orders/u").await;
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = system.get(&format!("/api/orders/u?limit=4{cursor}")).await;
        let items = page.body.as_array().unwrap();
        ids.extend(
            items
                .iter()
                .map(|item| item["orderId"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        match page.headers.get("next-cursor") {
            Some(next) => {
                assert_eq!(items.len(), 4, "only the last page may be short");
                cursor = format!("&cursor={}", next.to_str().unwrap());
            }
            None => break,
        }
    }
    assert_eq!(ids, orders);
    assert_eq!(pages, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_belongs_to_its_list() {
    let system = System::start().await;
    for _ in 0..3 {
        system.order("u", "1").await;
    }
    let page = system.get_now("/orders/user/u?limit=1").await;
    let cursor = page.body["next_cursor"].as_str().unwrap().to_owned();
    for path in [
        format!("/orders/user/v?cursor={cursor}"),
        format!("/orders?cursor={cursor}"),
        format!("/api/orders/u?cursor={cursor}"),
        format!("/orders/user/u?cursor={}A", cursor),
        format!(
            "/orders/user/u?cursor={}",
            cursor.replace(&cursor[5..6], "_")
        ),
    ] {
        let reply = system.get(&path).await;
        assert_eq!(reply.problem(400).0, "invalid-cursor", "{path}");
    }
    let again = system
        .get(&format!("/orders/user/u?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(again.ids().len(), 2, "another limit is no other list");
    assert_eq!(again.body["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_found_by_any_part_of_it() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    let other = system.order("v", "1").await;
    system.get_now("/orders").await;
    for (user, name) in [("u", "Shivam_99%"), ("v", "Bob\\Müller")] {
        system.store.users.create(user, name).await;
    }
    system.get_after_users("/orders").await;
    for (part, found) in [
        ("shivam", vec![&id]),
        ("VAM_9", vec![&id]),
        ("9%25", vec![&id]),
        ("m%C3%9Cl", vec![&other]),
        ("b%5Cm", vec![&other]),
        ("_", vec![&id]),
        ("%25", vec![&id]),
        ("b", vec![&other]),
        ("nobody", vec![]),
    ] {
        let reply = system
            .get(&format!("/orders/search/username?username={part}"))
            .await;
        assert_eq!(reply.ids(), found, "{part}");
    }
    let read = system.get(&format!("/orders/{id}")).await;
    assert_eq!(read.body["user_username"], json!("Shivam_99%"));
}
