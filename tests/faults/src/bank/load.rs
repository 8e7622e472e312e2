use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, decimal};
use crate::{Client, Cluster, Reply, Seed, load::fresh_uuid};

/// How many accounts everybody shares: few, so that they meet.
const ACCOUNTS: u64 = 8;
/// How many commands run at once.
const WORKERS: u64 = 8;
/// The most that moves at once, in cents; above what an account begins with, so that some of it is
/// refused.
const MOST_CENTS: u64 = 20_000;
/// What an account begins with, in cents.
const FIRST_CENTS: u64 = 10_000;
/// How long a worker goes on asking for an outcome before it calls the service lost.
const MAX_UNKNOWN: Duration = Duration::from_secs(60);
/// Between two tries of one request, in milliseconds.
const RETRY_MS: (u64, u64) = (20, 120);
/// The longest pause of a worker between two commands, in milliseconds.
const PAUSE_MS: u64 = 10;

/// What an acknowledged command did.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// An account was opened.
    Opened {
        /// With this on it.
        initial: Decimal,
    },
    /// Money was paid in.
    Deposited {
        /// Where.
        account: String,
        /// How much.
        amount: Decimal,
    },
    /// Money was paid out.
    Withdrawn {
        /// Where.
        account: String,
        /// How much.
        amount: Decimal,
    },
    /// Money went from one account to another.
    Sent {
        /// From here.
        from: String,
        /// To here.
        to: String,
        /// How much.
        amount: Decimal,
    },
    /// An account was closed.
    Closed,
}

/// What the workers saw.
#[derive(Debug, Default)]
pub struct BankHistory {
    /// What was acknowledged, by the id that the answer gave: of the movement, of the transfer, of
    /// the account for its opening; `close:<id>` for its closing.
    pub done: BTreeMap<String, Done>,
    /// Answers that break a promise of the contract.
    pub violations: Vec<String>,
    /// Requests sent, repeats included.
    pub requests: u64,
    /// Outcomes that were not known at first.
    pub unknown: u64,
    /// Answers that said `Idempotent-Replayed: true`.
    pub replayed: u64,
    /// Commands that a rule of the bank refused.
    pub refused: u64,
    /// Reads that claim to be strong, or name what they must have seen, and were answered.
    pub reads: u64,
}

impl BankHistory {
    fn merge(&mut self, other: Self) {
        self.done.extend(other.done);
        self.violations.extend(other.violations);
        self.requests += other.requests;
        self.unknown += other.unknown;
        self.replayed += other.replayed;
        self.refused += other.refused;
        self.reads += other.reads;
    }

    /// Proves that a ledger is what was acknowledged, no more and no less, and that money was
    /// conserved.
    ///
    /// # Panics
    /// With the first difference.
    pub fn holds(&self, ledger: &Ledger) {
        assert_eq!(self.violations, Vec::<String>::new());
        let mut wanted = self.done.clone();
        let mut total = Decimal::ZERO;
        for (id, account) in &ledger.accounts {
            let opened = wanted.remove(id);
            let Some(Done::Opened { initial }) = opened else {
                panic!("account {id} was opened, and acknowledged as {opened:?}");
            };
            let closed = wanted.remove(&format!("close:{id}")).is_some();
            assert_eq!(account.is_closed, closed, "the closing of {id}");
            let first = account.movements.first();
            if initial > Decimal::ZERO {
                let first = first.map(|movement| (movement.comes_in(), movement.amount));
                assert_eq!(first, Some((true, initial)), "the first deposit of {id}");
                total += initial;
            }
            for movement in account
                .movements
                .iter()
                .skip(usize::from(initial > Decimal::ZERO))
            {
                let (account, amount) = (id.clone(), movement.amount);
                let other = || movement.counterparty.clone().unwrap_or_default();
                let (name, logged) = match movement.event_type.as_str() {
                    "money.deposited" => {
                        total += amount;
                        (
                            &movement.transaction_id,
                            Done::Deposited { account, amount },
                        )
                    }
                    "money.withdrawn" => {
                        total -= amount;
                        (
                            &movement.transaction_id,
                            Done::Withdrawn { account, amount },
                        )
                    }
                    // The other side was compared with this one when the ledger was folded.
                    "transfer.received" => continue,
                    _ => {
                        let (from, to) = (account, other());
                        let transfer = movement.transfer_id.as_ref().unwrap();
                        (transfer, Done::Sent { from, to, amount })
                    }
                };
                let acknowledged = wanted.remove(name);
                assert_eq!(acknowledged, Some(logged), "{movement:?}");
            }
        }
        assert!(
            wanted.is_empty(),
            "acknowledged and not in the log: {wanted:?}"
        );
        assert_eq!(ledger.total(), total, "money was made or lost");
    }
}

/// Workers that move money on accounts that all of them share, until they are stopped.
#[derive(Debug)]
pub struct BankLoad {
    workers: JoinSet<BankHistory>,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
}

impl BankLoad {
    /// Starts the workers. Each begins by opening some of the accounts.
    #[must_use]
    pub fn start(cluster: &Cluster, seed: &Seed) -> Self {
        let stop = CancellationToken::new();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(Seen::default());
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let worker = Worker {
                number,
                client: Client::new(),
                commands: cluster.command_urls(),
                queries: cluster.query_urls(),
                seed: seed.part(100 + number),
                stop: stop.clone(),
                acknowledged: Arc::clone(&acknowledged),
                seen: Arc::clone(&seen),
                history: BankHistory::default(),
            };
            workers.spawn(worker.run());
        }
        Self {
            workers,
            stop,
            acknowledged,
        }
    }

    /// Waits until so many more commands were answered.
    ///
    /// # Panics
    /// When they are not within the bound.
    pub async fn wait_for(&self, more: u64, bound: Duration) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        let what = format!("{more} more movements to be answered");
        millrace_testkit::eventually(&what, bound, || async {
            (self.acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Stops the workers, each after the command it is at, and gives what they saw.
    ///
    /// # Panics
    /// When a worker did.
    pub async fn stop(mut self) -> BankHistory {
        self.stop.cancel();
        let mut history = BankHistory::default();
        while let Some(worker) = self.workers.join_next().await {
            history.merge(worker.unwrap());
        }
        history
    }
}

/// The newest version of each account that any worker was told of, and its token. A read that
/// begins later and claims to be strong has to see it.
#[derive(Debug, Default)]
struct Seen(Mutex<HashMap<String, (u64, String)>>);

impl Seen {
    fn note(&self, account: &str, version: u64, token: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = seen.entry(account.to_owned()).or_default();
        if version > newest.0 {
            *newest = (version, token.to_owned());
        }
    }

    fn of(&self, account: &str) -> Option<(u64, String)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(account).cloned()
    }
}

struct Worker {
    number: u64,
    client: Client,
    commands: Vec<String>,
    queries: Vec<String>,
    seed: Seed,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
    seen: Arc<Seen>,
    history: BankHistory,
}

/// A request, and what it did if it is taken.
struct Ask {
    path: String,
    body: Option<Value>,
    done: Done,
    /// The account whose version the answer says.
    account: String,
}

impl Worker {
    async fn run(mut self) -> BankHistory {
        let own = self.number;
        for number in (0..ACCOUNTS).filter(|number| number % WORKERS == own) {
            self.perform(opening(&name(number), cents(FIRST_CENTS)))
                .await;
        }
        while !self.stop.is_cancelled() {
            if self.seed.chance(0.03) {
                self.live_and_die().await;
            } else {
                let ask = self.choose();
                self.perform(ask).await;
            }
            if self.seed.chance(0.3) {
                self.read_back().await;
            }
            tokio::time::sleep(self.seed.millis(0, PAUSE_MS)).await;
        }
        self.history
    }

    fn choose(&self) -> Ask {
        let account = name(self.seed.below(ACCOUNTS));
        let amount = cents(1 + self.seed.below(MOST_CENTS));
        match self.seed.below(10) {
            0..=2 => movement(&account, "deposits", amount),
            3..=5 => movement(&account, "withdrawals", amount),
            _ => {
                let other = name(self.seed.below(ACCOUNTS));
                if other == account {
                    return movement(&account, "deposits", amount);
                }
                transfer(&account, &other, amount)
            }
        }
    }

    /// An account of this worker's own from its opening to its closing.
    async fn live_and_die(&mut self) {
        let account = format!("{}-{}", self.number, fresh_uuid().simple());
        let amount = cents(1 + self.seed.below(MOST_CENTS));
        self.perform(opening(&account, Decimal::ZERO)).await;
        self.perform(movement(&account, "deposits", amount)).await;
        self.perform(movement(&account, "withdrawals", amount))
            .await;
        self.perform(Ask {
            path: format!("/accounts/{account}/close"),
            body: None,
            done: Done::Closed,
            account,
        })
        .await;
    }

    async fn perform(&mut self, ask: Ask) {
        let Some(reply) = self.until_answered(&ask).await else {
            let violation = format!("{}: no answer within {MAX_UNKNOWN:?}", ask.path);
            self.history.violations.push(violation);
            return;
        };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let json = reply.json();
        if self.is_fair_refusal(&ask, &reply, &json) {
            self.history.refused += 1;
            return;
        }
        let (status, field) = match &ask.done {
            Done::Opened { .. } => (201, "account_id"),
            Done::Deposited { .. } | Done::Withdrawn { .. } => (201, "transaction_id"),
            Done::Sent { .. } => (201, "transfer_id"),
            Done::Closed => (200, "account_id"),
        };
        let Some(id) = json[field].as_str().filter(|_| reply.status == status) else {
            self.violated(&ask.path, &reply, &format!("not {status} with {field}"));
            return;
        };
        let token = reply.header("log-position");
        if token.is_empty() || reply.version() == 0 {
            self.violated(&ask.path, &reply, "no Log-Position, or no ETag");
        }
        self.seen.note(&ask.account, reply.version(), &token);
        let id = match ask.done {
            Done::Closed => format!("close:{id}"),
            _ => id.to_owned(),
        };
        if self.history.done.insert(id, ask.done).is_some() {
            self.violated(&ask.path, &reply, "an id for the second time");
        }
    }

    /// Short of funds, and the problem says so; or an account that another worker has not opened
    /// yet.
    fn is_fair_refusal(&self, ask: &Ask, reply: &Reply, json: &Value) -> bool {
        match reply.status {
            422 if reply.problem() == "insufficient-funds" => {
                decimal(&json["balance"]) < decimal(&json["requested"])
            }
            404 => !matches!(ask.done, Done::Opened { .. } | Done::Closed),
            _ => false,
        }
    }

    /// Sends a request, and again under the same key until its outcome is known.
    async fn until_answered(&mut self, ask: &Ask) -> Option<Reply> {
        let key = fresh_uuid().to_string();
        let headers = [("idempotency-key", key.as_str())];
        let deadline = Instant::now() + MAX_UNKNOWN;
        while Instant::now() < deadline {
            let command = &self.commands[self.seed.index(self.commands.len())];
            let url = format!("{command}{}", ask.path);
            self.history.requests += 1;
            let sent = self
                .client
                .send(Method::POST, &url, &headers, ask.body.as_ref());
            match sent.await {
                // Not kept under the key: to be asked again.
                Ok(reply) if reply.status == 409 && reply.problem() == "contended" => {}
                Ok(reply) if reply.status < 500 => {
                    self.history.replayed += u64::from(reply.replayed());
                    return Some(reply);
                }
                _ => {}
            }
            self.history.unknown += 1;
            tokio::time::sleep(self.seed.millis(RETRY_MS.0, RETRY_MS.1)).await;
        }
        None
    }

    /// Reads an account in one of the ways that promise to see what was acknowledged before.
    async fn read_back(&mut self) {
        let account = name(self.seed.below(ACCOUNTS));
        let Some((version, token)) = self.seen.of(&account) else {
            return;
        };
        let query = &self.queries[self.seed.index(self.queries.len())];
        let what = if self.seed.chance(0.5) {
            "/balance"
        } else {
            ""
        };
        let how = if self.seed.chance(0.5) {
            "consistency=strong".to_owned()
        } else {
            format!("at_least={token}")
        };
        let url = format!("{query}/accounts/{account}{what}?{how}");
        let Ok(reply) = self.client.get(&url, &[]).await else {
            return;
        };
        if matches!(reply.status, 500 | 503 | 504) {
            return;
        }
        self.history.reads += 1;
        let json = reply.json();
        let seen = json["version"].as_u64().unwrap_or(0);
        if reply.status != 200 || seen < version {
            self.violated(&url, &reply, &format!("does not show version {version}"));
        } else if decimal(&json["balance"]) < Decimal::ZERO {
            self.violated(&url, &reply, "less than nothing");
        }
    }

    fn violated(&mut self, what: &str, reply: &Reply, why: &str) {
        self.history.violations.push(format!(
            "{what}: {} {} {:?}: {why}",
            reply.status, reply.body, reply.headers
        ));
    }
}

fn name(number: u64) -> String {
    format!("shared-{number}")
}

fn cents(cents: u64) -> Decimal {
    Decimal::new(i64::try_from(cents).unwrap(), 2)
}

fn opening(account: &str, initial: Decimal) -> Ask {
    let mut body = json!({"id": account, "holder_name": "Ada Lovelace"});
    if initial > Decimal::ZERO {
        body["initial_deposit"] = json!(initial.to_string());
    }
    Ask {
        path: "/accounts".to_owned(),
        body: Some(body),
        done: Done::Opened { initial },
        account: account.to_owned(),
    }
}

fn movement(account: &str, what: &str, amount: Decimal) -> Ask {
    let owned = account.to_owned();
    Ask {
        path: format!("/accounts/{account}/{what}"),
        body: Some(json!({"amount": amount.to_string()})),
        done: if what == "deposits" {
            Done::Deposited {
                account: owned,
                amount,
            }
        } else {
            Done::Withdrawn {
                account: owned,
                amount,
            }
        },
        account: account.to_owned(),
    }
}

fn transfer(from: &str, to: &str, amount: Decimal) -> Ask {
    Ask {
        path: "/transfers".to_owned(),
        body: Some(json!({
            "from_account_id": from, "to_account_id": to, "amount": amount.to_string(),
        })),
        done: Done::Sent {
            from: from.to_owned(),
            to: to.to_owned(),
            amount,
        },
        account: from.to_owned(),
    }
}
