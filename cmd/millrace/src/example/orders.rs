//! Orders with their lives.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Dice, Step, USERS, accounts, money};

/// One order in so many pays itself from a bank account.
const PAID_EVERY: u32 = 10;
/// How many.
pub(super) const ORDERS: u32 = 300;

const GOODS: [(&str, u32); 10] = [
    ("Notebook, ruled, A5", 450),
    ("Fountain pen", 3_290),
    ("Ink, blue-black, 50 ml", 1_175),
    ("Green tea, 250 g", 1_240),
    ("Desk lamp", 5_900),
    ("Mechanical keyboard", 11_999),
    ("USB-C cable, 2 m", 1_499),
    ("Monitor arm", 8_450),
    ("Headphones", 14_900),
    ("Coffee, 1 kg", 2_180),
];
const STREETS: [&str; 5] = [
    "Mill Lane",
    "Harbour Street",
    "Orchard Road",
    "Station Square",
    "River Walk",
];

/// What happens to one order.
pub(super) fn life(number: u32) -> Vec<Step> {
    let mut dice = Dice(number);
    let id = format!("example-{number:04}");
    let user = USERS[dice.below(USERS.len())];
    let mut total = 0;
    let items: Vec<Value> = (0..=dice.below(3))
        .map(|_| {
            let (description, cents) = GOODS[dice.below(GOODS.len())];
            let quantity = 1 + u32::try_from(dice.below(4)).unwrap_or(0);
            total += cents * quantity;
            json!({"description": description, "quantity": quantity, "unit_price": money(cents)})
        })
        .collect();
    let street = STREETS[dice.below(STREETS.len())];
    let mut order = json!({
        "id": id, "user_id": user, "items": items, "total_amount": money(total),
        "shipping_address": format!("{} {street}", 1 + dice.below(120)),
    });
    if dice.below(5) == 0 {
        order["notes"] = json!("Please leave it with the neighbour.");
    }
    if number.is_multiple_of(PAID_EVERY) {
        // What becomes of it is its payment's affair.
        order["payment_account_id"] = json!(accounts::paying(number));
        return vec![Step::post("/orders", order)];
    }
    let mut steps = vec![Step::post("/orders", order)];
    let status = |status: &str, reason: Option<&str>| Step {
        method: Method::PUT,
        path: format!("/orders/{id}/status"),
        body: Some(match reason {
            Some(reason) => json!({"status": status, "reason": reason}),
            None => json!({"status": status}),
        }),
    };
    let delete = || Step {
        method: Method::DELETE,
        path: format!("/orders/{id}"),
        body: None,
    };
    match dice.below(20) {
        0..=2 => {}
        3..=5 => steps.push(status("CONFIRMED", None)),
        6..=7 => steps.push(status("CANCELLED", Some("Changed my mind"))),
        8 => steps.extend([
            status("CONFIRMED", None),
            status("CANCELLED", Some("Out of stock")),
        ]),
        9 => steps.push(delete()),
        10 => steps.extend([status("CANCELLED", None), delete()]),
        11..=14 => steps.extend([status("CONFIRMED", None), status("SHIPPED", None)]),
        _ => steps.extend(["CONFIRMED", "SHIPPED", "DELIVERED"].map(|step| status(step, None))),
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_the_same_every_time_and_of_every_kind() {
        let all: Vec<_> = (1..=ORDERS).flat_map(life).collect();
        assert_eq!(all, (1..=ORDERS).flat_map(life).collect::<Vec<_>>());
        let count = |method: Method| all.iter().filter(|step| step.method == method).count();
        assert_eq!(count(Method::POST), ORDERS as usize);
        assert!(count(Method::PUT) > 200, "{}", count(Method::PUT));
        assert!(count(Method::DELETE) > 10, "{}", count(Method::DELETE));
        let users: std::collections::BTreeSet<_> = all
            .iter()
            .filter_map(|step| step.body.as_ref()?.get("user_id")?.as_str())
            .collect();
        assert_eq!(users.len(), USERS.len());
    }
}
