//! `up --example`: a few hundred orders with their lives, through the public HTTP API.
//!
//! All of it follows from the order's number, and every request carries an idempotency key, so a
//! second run adds nothing; after the keys have ended their lives the ids say the same.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;

const ORDERS: u32 = 300;
const CONCURRENT_ORDERS: usize = 8;
const MAX_ATTEMPTS: u32 = 8;
const REQUEST_BOUND: Duration = Duration::from_secs(30);

const USERS: [&str; 12] = [
    "ada",
    "alan",
    "barbara",
    "donald",
    "edsger",
    "frances",
    "grace",
    "john",
    "katherine",
    "leslie",
    "margaret",
    "niklaus",
];
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

/// One request of an order's life.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// Feeds everything.
pub async fn feed(url: &str) -> Result<(), Failure> {
    let client = Client::builder()
        .timeout(REQUEST_BOUND)
        .build()
        .context("an HTTP client")?;
    let total = (1..=ORDERS).map(|number| life(number).len() as u64).sum();
    let bar = ProgressBar::new(total);
    if let Ok(style) =
        ProgressStyle::with_template("example orders {wide_bar} {pos}/{len} {per_sec} {eta}")
    {
        bar.set_style(style);
    }
    let orders = futures::stream::iter(1..=ORDERS).map(|number| {
        let (client, bar) = (client.clone(), bar.clone());
        async move {
            for (index, step) in life(number).into_iter().enumerate() {
                let key = format!("example-{number}-{index}");
                send(&client, url, &step, &key).await?;
                bar.inc(1);
            }
            anyhow::Ok(())
        }
    });
    orders
        .buffer_unordered(CONCURRENT_ORDERS)
        .try_collect::<()>()
        .await?;
    bar.finish();
    output::say(&format!(
        "millrace: {total} requests about {ORDERS} example orders are done; try {url}/orders?limit=5"
    ))?;
    Ok(())
}

async fn send(client: &Client, url: &str, step: &Step, key: &str) -> anyhow::Result<()> {
    let mut pause = Duration::from_millis(100);
    for attempt in 1.. {
        let mut request = client
            .request(step.method.clone(), format!("{url}{}", step.path))
            .header("Idempotency-Key", key);
        if let Some(body) = &step.body {
            request = request.json(body);
        }
        let outcome = match request.send().await {
            // A conflict says that an earlier run got here, longer ago than its keys live.
            Ok(answer)
                if answer.status().is_success() || answer.status() == StatusCode::CONFLICT =>
            {
                return Ok(());
            }
            Ok(answer) if answer.status().is_client_error() => {
                let status = answer.status();
                let body = answer.text().await.unwrap_or_default();
                return Err(anyhow!(
                    "{} {} was answered {status}: {body}",
                    step.method,
                    step.path
                ));
            }
            Ok(answer) => anyhow!(
                "{} {} was answered {}",
                step.method,
                step.path,
                answer.status()
            ),
            Err(error) => anyhow::Error::from(error),
        };
        // The key makes it safe to send again whatever became of the last time.
        if attempt == MAX_ATTEMPTS {
            return Err(outcome.context("the example orders could not be fed"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
    }
    Ok(())
}

/// What happens to one order.
fn life(number: u32) -> Vec<Step> {
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
    let mut steps = vec![Step {
        method: Method::POST,
        path: "/orders".to_owned(),
        body: Some(order),
    }];
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

fn money(cents: u32) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The same numbers for the same order, every time: a multiplicative congruential generator.
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let mut state = u64::from(self.0) + 0x9e37_79b9;
        state = (state ^ (state >> 16)).wrapping_mul(0x45d9_f3b3_3353_5d1d) & 0xffff_ffff;
        state ^= state >> 15;
        self.0 = u32::try_from(state & 0xffff_ffff).unwrap_or(self.0);
        usize::try_from(state >> 4).unwrap_or(0) % bound
    }
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
