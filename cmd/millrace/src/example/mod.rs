//! `example` and `up --example`: users with their addresses, some bank accounts and a few hundred orders with their
//! lives, through the public HTTP API. Some orders pay themselves from an account, and invoices,
//! receipts and messages follow by themselves.
//!
//! All of it follows from the number of the order or account, and every request carries an
//! idempotency key, so a second run adds nothing; after the keys have ended their lives the ids say
//! the same.

mod accounts;
mod orders;
mod users;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::failure::Failure;
use crate::output;

/// Feed a running Millrace with example users, accounts and orders, through its HTTP API
///
/// A second run adds nothing.
#[derive(Debug, Args)]
pub struct Example {
    /// Where reads and writes go, such as http://127.0.0.1:8080
    #[arg(value_name = "URL")]
    url: String,
}

impl Example {
    /// Feeds it.
    pub async fn run(&self) -> Result<(), Failure> {
        feed(self.url.trim_end_matches('/')).await
    }
}

const CONCURRENT_LIVES: usize = 8;
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

/// One request of a life.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Step {
    fn post(path: &str, body: Value) -> Self {
        Self {
            method: Method::POST,
            path: path.to_owned(),
            body: Some(body),
        }
    }
}

/// What happens to one order or account, a request after the other.
struct Life {
    /// Begins the idempotency keys.
    name: String,
    steps: Vec<Step>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It was done, now or by an earlier run whose keys still live.
    Done,
    /// It was done by an earlier run, longer ago than its keys live.
    Conflict,
}

/// Feeds everything.
pub async fn feed(url: &str) -> Result<(), Failure> {
    let feeder = Feeder::new(url)?;
    feeder
        .live("example users", users::lives().collect())
        .await?;
    let openings = accounts::all().map(|number| Life {
        name: format!("example-opening-{number}"),
        steps: vec![accounts::opening(number)],
    });
    let opened = feeder.live("example accounts", openings.collect()).await?;
    // Movements have no ids of their own: what an earlier run moved must not be moved again.
    let fresh = accounts::all()
        .zip(opened)
        .filter(|(_, sent)| *sent == Sent::Done);
    let movements = fresh.map(|(number, _)| Life {
        name: format!("example-account-{number}"),
        steps: accounts::movements(number),
    });
    feeder
        .live("example movements", movements.collect())
        .await?;
    let orders = (1..=orders::ORDERS).map(|number| Life {
        name: format!("example-{number}"),
        steps: orders::life(number),
    });
    feeder.live("example orders", orders.collect()).await?;
    output::say(&format!(
        "millrace: {} example users, {} accounts and {} orders are there; try {url}/orders?limit=5, \
         {url}/accounts?limit=5 and {url}/invoices?user_id=ada",
        USERS.len(),
        accounts::all().count(),
        orders::ORDERS
    ))?;
    Ok(())
}

/// Sends requests to the public port.
struct Feeder {
    client: Client,
    url: String,
}

impl Feeder {
    fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(REQUEST_BOUND)
            .build()
            .context("an HTTP client")?;
        Ok(Self {
            client,
            url: url.to_owned(),
        })
    }

    /// Lives lives, a few at a time, with a progress bar; says how each ended, in their order.
    async fn live(&self, what: &'static str, lives: Vec<Life>) -> anyhow::Result<Vec<Sent>> {
        let bar = ProgressBar::new(lives.iter().map(|life| life.steps.len() as u64).sum());
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(what);
        let lived = futures::stream::iter(lives).map(|life| {
            let bar = bar.clone();
            async move {
                let mut last = Sent::Done;
                for (index, step) in life.steps.iter().enumerate() {
                    let key = format!("{}-{index}", life.name);
                    last = send(&self.client, &self.url, step, &key).await?;
                    bar.inc(1);
                }
                anyhow::Ok(last)
            }
        });
        let ended = lived.buffered(CONCURRENT_LIVES).try_collect().await?;
        bar.finish();
        Ok(ended)
    }
}

async fn send(client: &Client, url: &str, step: &Step, key: &str) -> anyhow::Result<Sent> {
    let mut pause = Duration::from_millis(100);
    for attempt in 1.. {
        let mut request = client
            .request(step.method.clone(), format!("{url}{}", step.path))
            .header("Idempotency-Key", key);
        if let Some(body) = &step.body {
            request = request.json(body);
        }
        let outcome = match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(Sent::Done),
            Ok(answer) if answer.status() == StatusCode::CONFLICT => return Ok(Sent::Conflict),
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
            return Err(outcome.context("the example could not be fed"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
    }
    Ok(Sent::Done)
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
