//! The orders that the benchmark places.

use std::sync::Arc;

use super::http::post;

/// Requests that place an order each, of as many users as asked for, in turn. Ids are left to the
/// server, so the same request may be sent any number of times.
pub fn placing(users: usize) -> Arc<[Vec<u8>]> {
    (0..users)
        .map(|user| post("/orders", &order(user)))
        .collect()
}

/// The id of a user.
pub fn user(number: usize) -> String {
    format!("user-{number}")
}

/// An order as people place them: two lines, an address, sometimes a note.
fn order(number: usize) -> String {
    const GOODS: [(&str, u32); 8] = [
        ("Espresso beans, 1 kg", 1_890),
        ("Filter papers, 100 pieces", 420),
        ("Hand grinder", 8_900),
        ("Kettle with thermometer", 5_450),
        ("Cupping spoon", 1_250),
        ("Descaler, 500 ml", 990),
        ("Porcelain dripper", 2_300),
        ("Scales, 0.1 g", 4_999),
    ];
    let lines = [number, number / 3 + 1].map(|pick| {
        let (description, cents) = GOODS[pick % GOODS.len()];
        let quantity = pick % 3 + 1;
        format!(
            r#"{{"description":"{description}","quantity":{quantity},"unit_price":"{}.{:02}"}}"#,
            cents / 100,
            cents % 100
        )
    });
    let note = if number.is_multiple_of(4) {
        r#","notes":"Please ring twice""#
    } else {
        ""
    };
    format!(
        r#"{{"user_id":"{}","items":[{}],"shipping_address":"{} Harbour Street, Springfield"{note}}}"#,
        user(number),
        lines.join(","),
        number % 200 + 1
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_order_is_json_of_its_user() {
        for number in 0..50 {
            let order: serde_json::Value = serde_json::from_str(&super::order(number)).unwrap();
            assert_eq!(order["user_id"], super::user(number));
            assert_eq!(order["items"].as_array().unwrap().len(), 2);
        }
    }
}
