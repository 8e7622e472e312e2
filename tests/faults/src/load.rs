use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Client, Cluster, History, OrderHistory, Reply, Seed, Step};

/// How long a worker goes on asking for an outcome before it calls the service lost.
const MAX_UNKNOWN: Duration = Duration::from_secs(60);
/// Between two tries of one request, in milliseconds.
const RETRY_MS: (u64, u64) = (20, 120);

/// How the load looks.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How many commands run at once.
    pub workers: usize,
    /// How many users the orders spread over.
    pub users: u64,
    /// The longest pause of a worker between two commands, in milliseconds.
    pub pause_ms: u64,
    /// How many in a hundred commands are followed by a read that must see them.
    pub reads_percent: u64,
    /// Where commands go, instead of to the cluster's own ports: a list that may change meanwhile,
    /// as a load balancer's does.
    pub targets: Option<Arc<RwLock<Vec<String>>>>,
    /// Whether an answer above 499, or none, is a broken promise.
    pub no_errors: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            workers: 8,
            users: 6,
            pause_ms: 10,
            reads_percent: 15,
            targets: None,
            no_errors: false,
        }
    }
}

/// Workers that create, change and delete orders until they are stopped. Each owns its orders, so
/// that what is acknowledged to it is all that happens to them.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<History>,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// Starts the workers.
    #[must_use]
    pub fn start(cluster: &Cluster, seed: &Seed, options: &LoadOptions) -> Self {
        let stop = CancellationToken::new();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        let targets = options
            .targets
            .clone()
            .unwrap_or_else(|| Arc::new(RwLock::new(cluster.command_urls())));
        for number in 0..options.workers {
            let worker = Worker {
                client: Client::new(),
                targets: Arc::clone(&targets),
                queries: cluster.query_urls(),
                seed: seed.part(1 + number as u64),
                options: options.clone(),
                stop: stop.clone(),
                acknowledged: Arc::clone(&acknowledged),
                history: History::default(),
                open: Vec::new(),
            };
            workers.spawn(worker.run());
        }
        Self {
            workers,
            stop,
            acknowledged,
        }
    }

    /// How many commands were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more commands were acknowledged.
    ///
    /// # Panics
    /// When they are not within the bound.
    pub async fn wait_for(&self, more: u64, bound: Duration) {
        let wanted = self.acknowledged() + more;
        let what = format!("{more} more commands to be acknowledged");
        millrace_testkit::eventually(&what, bound, || async {
            (self.acknowledged() >= wanted).then_some(())
        })
        .await;
    }

    /// Stops the workers, each after the command it is at, and gives what they saw.
    ///
    /// # Panics
    /// When a worker did.
    pub async fn stop(mut self) -> History {
        self.stop.cancel();
        let mut history = History::default();
        while let Some(worker) = self.workers.join_next().await {
            history.merge(worker.unwrap());
        }
        history
    }
}

struct Worker {
    client: Client,
    targets: Arc<RwLock<Vec<String>>>,
    queries: Vec<String>,
    seed: Seed,
    options: LoadOptions,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
    history: History,
    /// Own orders to which something can still happen.
    open: Vec<String>,
}

/// What a worker asks for.
enum Ask {
    Create {
        id: Option<String>,
        user: String,
        amount: Decimal,
    },
    Status {
        id: String,
        to: &'static str,
    },
    Delete {
        id: String,
    },
}

impl Worker {
    async fn run(mut self) -> History {
        while !self.stop.is_cancelled() {
            let ask = self.choose();
            self.perform(ask).await;
            let pause = self.seed.millis(0, self.options.pause_ms);
            tokio::time::sleep(pause).await;
        }
        self.history
    }

    fn choose(&self) -> Ask {
        if self.open.is_empty() || self.seed.chance(0.4) {
            // Half of the ids are the client's own choice.
            let id = self
                .seed
                .chance(0.5)
                .then(|| fresh_uuid().simple().to_string());
            return Ask::Create {
                id,
                user: format!("user-{}", self.seed.below(self.options.users)),
                amount: Decimal::new(i64::try_from(self.seed.below(100_000)).unwrap() + 1, 2),
            };
        }
        let id = self.open[self.seed.index(self.open.len())].clone();
        let to = match self.history.orders[&id].status() {
            "PENDING" if self.seed.chance(0.8) => "CONFIRMED",
            "CONFIRMED" if self.seed.chance(0.8) => "SHIPPED",
            "SHIPPED" => "DELIVERED",
            _ if self.seed.chance(0.5) => return Ask::Delete { id },
            _ => "CANCELLED",
        };
        Ask::Status { id, to }
    }

    async fn perform(&mut self, ask: Ask) {
        let (method, path, body) = match &ask {
            Ask::Create {
                id: None,
                user,
                amount,
            } if self.seed.chance(0.3) => (
                Method::POST,
                "/api/orders".to_owned(),
                Some(json!({"userId": user, "amount": amount.to_string()})),
            ),
            Ask::Create { id, user, amount } => {
                let mut body = json!({"user_id": user, "total_amount": amount.to_string()});
                if let Some(id) = id {
                    body["id"] = json!(id);
                }
                (Method::POST, "/orders".to_owned(), Some(body))
            }
            Ask::Status { id, to } => (
                Method::PUT,
                format!("/orders/{id}/status"),
                Some(json!({"status": to})),
            ),
            Ask::Delete { id } => (Method::DELETE, format!("/orders/{id}"), None),
        };
        let Some(reply) = self.until_answered(&method, &path, body.as_ref()).await else {
            let violation = format!("{method} {path}: no answer within {MAX_UNKNOWN:?}");
            self.history.violations.push(violation);
            return;
        };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let Some(id) = self.record(ask, &method, &path, &reply) else {
            return;
        };
        if self.seed.below(100) < self.options.reads_percent {
            self.read_back(&id).await;
        }
    }

    fn target(&self) -> Option<String> {
        let targets = self.targets.read().unwrap();
        targets.get(self.seed.index(targets.len())).cloned()
    }

    /// Sends a request, and again under the same key until its outcome is known: by an answer that
    /// is no server error.
    async fn until_answered(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Reply> {
        let key = fresh_uuid().to_string();
        let headers = [("idempotency-key", key.as_str())];
        let deadline = Instant::now() + MAX_UNKNOWN;
        while Instant::now() < deadline {
            let Some(command) = self.target() else {
                tokio::time::sleep(self.seed.millis(RETRY_MS.0, RETRY_MS.1)).await;
                continue;
            };
            let url = format!("{command}{path}");
            self.history.requests += 1;
            match self.client.send(method.clone(), &url, &headers, body).await {
                Ok(reply) if reply.status >= 500 => {
                    self.history.server_errors += 1;
                    if self.options.no_errors {
                        let violation = format!("{method} {path}: {} {}", reply.status, reply.body);
                        self.history.violations.push(violation);
                    }
                    if reply.status == 503 && reply.header("retry-after").is_empty() {
                        let violation = format!("{method} {path}: a 503 without Retry-After");
                        self.history.violations.push(violation);
                    }
                }
                // Not kept under the key: to be asked again.
                Ok(reply) if reply.contended() => {}
                Ok(reply) => {
                    self.history.replayed += u64::from(reply.replayed());
                    return Some(reply);
                }
                Err(error) => {
                    if self.options.no_errors {
                        let violation = format!("{method} {url}: {error:?}");
                        self.history.violations.push(violation);
                    }
                }
            }
            self.history.unknown += 1;
            tokio::time::sleep(self.seed.millis(RETRY_MS.0, RETRY_MS.1)).await;
        }
        None
    }

    /// Notes what was acknowledged; the order's id, when it was.
    fn record(&mut self, ask: Ask, method: &Method, path: &str, reply: &Reply) -> Option<String> {
        let json = reply.json();
        let token = reply.header("log-position");
        let (id, wanted) = match ask {
            Ask::Create {
                id: chosen,
                user,
                amount,
            } => {
                let answered = json["id"].as_str().or_else(|| json["orderId"].as_str());
                let id = answered.map(str::to_owned).or_else(|| chosen.clone())?;
                if chosen.is_some_and(|chosen| chosen != id) {
                    self.violated(method, path, reply, "another id than was chosen");
                }
                let order = OrderHistory {
                    user,
                    amount,
                    steps: vec![Step::Created],
                    token: token.clone(),
                };
                if reply.status == 201 {
                    if self.history.orders.insert(id.clone(), order).is_some() {
                        self.violated(method, path, reply, "an id for the second time");
                    }
                    self.open.push(id.clone());
                }
                (id, 201)
            }
            Ask::Status { id, to } => {
                self.step(&id, Step::Status(to), &token, reply.status == 200);
                (id, 200)
            }
            Ask::Delete { id } => {
                self.step(&id, Step::Deleted, &token, reply.status == 204);
                (id, 204)
            }
        };
        if reply.status != wanted {
            self.violated(method, path, reply, &format!("not {wanted}"));
            return None;
        }
        let steps = self.history.orders[&id].steps.len() as u64;
        if reply.version() != steps {
            self.violated(method, path, reply, &format!("ETag is not version {steps}"));
        }
        if token.is_empty() {
            self.violated(method, path, reply, "no Log-Position");
        }
        Some(id)
    }

    fn step(&mut self, id: &str, step: Step, token: &str, taken: bool) {
        if !taken {
            return;
        }
        if matches!(
            step,
            Step::Deleted | Step::Status("DELIVERED" | "CANCELLED")
        ) {
            self.open.retain(|open| open != id);
        }
        let order = self.history.orders.get_mut(id).unwrap();
        order.steps.push(step);
        token.clone_into(&mut order.token);
    }

    fn violated(&mut self, method: &Method, path: &str, reply: &Reply, what: &str) {
        self.history.violations.push(format!(
            "{method} {path}: {} {} {:?}: {what}",
            reply.status, reply.body, reply.headers
        ));
    }

    /// Reads an order back in one of the ways that promise to see its last write. No answer, or a
    /// 503 or 504, breaks no promise while things are broken; an older state does.
    async fn read_back(&mut self, id: &str) {
        let order = self.history.orders[id].clone();
        let query = &self.queries[self.seed.index(self.queries.len())];
        let token = &order.token;
        let by_user = self.seed.chance(0.3);
        let (url, headers): (String, Vec<(&str, &str)>) = if by_user {
            let url = format!(
                "{query}/api/orders/{}?limit=500&at_least={token}",
                order.user
            );
            (url, vec![])
        } else if self.seed.chance(0.3) {
            (format!("{query}/orders/{id}?consistency=strong"), vec![])
        } else if self.seed.chance(0.5) {
            (format!("{query}/orders/{id}?at_least={token}"), vec![])
        } else {
            let headers = vec![("min-log-position", token.as_str()), ("prefer", "wait=1")];
            (format!("{query}/orders/{id}"), headers)
        };
        let Ok(reply) = self.client.get(&url, &headers).await else {
            return;
        };
        if matches!(reply.status, 500 | 503 | 504) {
            return;
        }
        self.history.reads += 1;
        let json = reply.json();
        let seen = if by_user {
            let items = json.as_array().cloned().unwrap_or_default();
            let item = items
                .iter()
                .find(|item| item["orderId"].as_str() == Some(id));
            match item {
                Some(item) => item["status"].as_str() == Some(order.status()) && !order.deleted(),
                // More orders than a page holds: not to be judged here.
                None => order.deleted() || items.len() >= 500,
            }
        } else {
            json["version"].as_u64() == Some(order.steps.len() as u64)
                && json["status"].as_str() == Some(order.status())
                && json["is_deleted"].as_bool() == Some(order.deleted())
        };
        if reply.status != 200 || !seen {
            self.violated(
                &Method::GET,
                &url,
                &reply,
                &format!("does not show {order:?}"),
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client chooses its keys and ids"
)]
pub(crate) fn fresh_uuid() -> Uuid {
    Uuid::new_v4()
}
