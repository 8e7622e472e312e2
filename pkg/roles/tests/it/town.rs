//! A shop and a bank as two processes have them: each with its own log, the bank behind its internal
//! endpoint, and on the way there whatever can happen to a request.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, Uri};
use millrace_banking::{InternalState, account::stored::account_event};
use millrace_es::Context;
use millrace_eventlog::{EventLog, Repository, RepositoryOptions};
use millrace_internal::{InternalService, Owner, OwnerClient};
use millrace_ordering::{Payments, sagas::payment};
use millrace_runtime::Secret;
use millrace_sagas::{Schedule, Timer, TimerOptions};
use millrace_testkit::{Database, Dynamo, HttpClient, Reply};
use millrace_teststage::{Tasks, api, dynamo_log, events, pg_log};
use serde_json::json;

/// What the shop and its bank share.
const TOKEN: &str = "sesame";
/// How long a step of a payment may take here.
pub const MAX_STEP: Duration = Duration::from_millis(400);

/// What happens to a request on its way to the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives, and so does its answer.
    Open,
    /// It does not arrive: 503.
    Closed,
    /// It arrives, and its answer is a 500 of somebody on the way.
    AnswerLost,
    /// It arrives, and its answer comes too late.
    Slow,
    /// It is answered at once with what nobody can read.
    Garbled,
}

impl Way {
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Closed,
        Self::AnswerLost,
        Self::Slow,
        Self::Garbled,
    ];
}

type Ways = Arc<Mutex<Box<dyn FnMut() -> Way + Send>>>;

/// The way to the bank.
#[derive(Clone)]
struct Road {
    ways: Ways,
    bank: Arc<HttpClient>,
}

async fn travel(State(road): State<Road>, method: Method, uri: Uri, body: Bytes) -> Response {
    let way = (road.ways.lock().unwrap())();
    let forward = async || {
        let request = road
            .bank
            .request(method, uri.path())
            .header("authorization", &format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(body);
        let reply = request.send().await;
        (reply.status, reply.bytes).into_response()
    };
    match way {
        Way::Open => forward().await,
        Way::Closed => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Way::AnswerLost => {
            forward().await;
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Way::Slow => {
            let answer = forward().await;
            tokio::time::sleep(MAX_STEP * 2).await;
            answer
        }
        Way::Garbled => "{\"outcome\":\"perhaps\"}".into_response(),
    }
}

/// Where the bank's log is.
#[derive(Debug, Clone, Copy)]
pub enum Store {
    Postgres,
    DynamoDb,
}

pub struct Town {
    tasks: Tasks,
    pub shop: HttpClient,
    pub bank: HttpClient,
    pub payments: Payments,
    pub bank_log: Arc<dyn EventLog>,
    pub shop_log: Arc<dyn EventLog>,
    ways: Ways,
    database: Database,
    _dynamo: Option<Dynamo>,
}

impl Town {
    /// With two timers, as two projectors have them.
    pub async fn start(store: Store) -> Self {
        let database = millrace_testkit::postgres().await;
        let shop_log = shop_log(&database).await;
        let (bank_log, dynamo) = bank_log(store, &database).await;
        let mut tasks = Tasks::default();
        let options = RepositoryOptions::default();

        let accounts = Arc::new(Repository::new(Arc::clone(&bank_log), options));
        let routes = millrace_banking::command_routes()
            .with_state(millrace_banking::CommandState { accounts });
        let bank = tasks.listen(api().serve(routes).finish()).await;
        let orders = Arc::new(Repository::new(Arc::clone(&shop_log), options));
        let routes = millrace_ordering::command_routes()
            .with_state(millrace_ordering::CommandState { orders });
        let shop = tasks.listen(api().serve(routes).finish()).await;

        let internal =
            millrace_banking::internal_routes().with_state(InternalState::new(&bank_log, options));
        let service = InternalService::new(Some(Secret::new(TOKEN.to_owned())))
            .serve(Arc::clone(&bank_log), Some(internal))
            .finish();
        let service = tasks.listen(service).await;
        let open: Box<dyn FnMut() -> Way + Send> = Box::new(|| Way::Open);
        let ways: Ways = Arc::new(Mutex::new(open));
        let road = Road {
            ways: Arc::clone(&ways),
            bank: Arc::new(service),
        };
        let road = Router::new().fallback(travel).with_state(road);
        let road = tasks.listen(road).await;

        let town = Self {
            tasks,
            shop,
            bank,
            payments: Payments::new(database.pool.clone()),
            bank_log,
            shop_log,
            ways,
            database,
            _dynamo: dynamo,
        };
        town.with_timers(&road, 2)
    }

    fn with_timers(mut self, road: &HttpClient, timers: usize) -> Self {
        let owner = Owner {
            context: Context::new(millrace_banking::CONTEXT).unwrap(),
            url: format!("http://{}", road.address()),
        };
        let owner = OwnerClient::new(owner, Some(Secret::new(TOKEN.to_owned()))).unwrap();
        let options = TimerOptions {
            poll_every: Duration::from_millis(50),
            first_pause: Duration::from_millis(20),
            max_pause: Duration::from_millis(200),
        };
        for _ in 0..timers {
            let bank = Arc::new(payment::OwnerBank::new(owner.clone()));
            let pump = payment::payments(&self.shop_log, bank).with_max_step(MAX_STEP);
            let timer = Timer::new(pump, Arc::new(self.payments.clone()), options);
            self.tasks.spawn(|stop| timer.run(stop));
        }
        self
    }

    /// From now on requests go these ways.
    pub fn go(&self, ways: impl FnMut() -> Way + Send + 'static) {
        *self.ways.lock().unwrap() = Box::new(ways);
    }

    pub async fn account(&self, id: &str, currency: &str, deposit: &str) {
        let body = json!({"id": id, "holder_name": "Ann", "currency": currency,
            "initial_deposit": deposit});
        let reply = self.bank.post("/accounts", body).await;
        reply.expect(StatusCode::CREATED);
    }

    pub async fn order(&self, id: &str, account: &str, amount: &str) -> Reply {
        let body = json!({"id": id, "user_id": "u-1", "total_amount": amount,
            "payment_account_id": account});
        let reply = self.shop.post("/orders", body).await;
        reply.expect(StatusCode::CREATED)
    }

    pub async fn become_(&self, id: &str, status: &str) -> Reply {
        let path = format!("/orders/{id}/status");
        self.shop.put(&path, json!({ "status": status })).await
    }

    /// Everything that requests left behind them to be known again by is gone, as after an outage
    /// longer than it lives.
    pub async fn forget_keys(&self) {
        for context in ["ordering", "banking"] {
            let sql = format!("DELETE FROM {context}.answers");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .execute(&self.database.pool)
                .await
                .unwrap();
        }
    }

    /// How many payments are unfinished.
    pub async fn unfinished(&self) -> u64 {
        self.payments.standing().await.unwrap().unfinished
    }

    /// Every movement of the bank, as its log has them: account, transaction, signed cents.
    pub async fn movements(&self) -> Vec<(String, String, i64)> {
        let mut all = Vec::new();
        for event in events(&*self.bank_log).await {
            let Some(event) = account_event(&event).unwrap() else {
                continue;
            };
            if let Some(moved) = event.movement() {
                let cents = cents(&moved.amount.to_string());
                let signed = if moved.kind.is_credit() {
                    cents
                } else {
                    -cents
                };
                let (account, id) = (moved.account_id, moved.transaction_id);
                all.push((account.to_string(), id.to_string(), signed));
            }
        }
        all
    }
}

pub fn cents(amount: &str) -> i64 {
    amount.replace('.', "").parse().unwrap()
}

async fn shop_log(database: &Database) -> Arc<dyn EventLog> {
    use millrace_ordering::{CONTEXT, inline_tables, migrations};
    pg_log(database, CONTEXT, inline_tables(), migrations()).await
}

async fn bank_log(store: Store, database: &Database) -> (Arc<dyn EventLog>, Option<Dynamo>) {
    use millrace_banking::{CONTEXT, inline_items, inline_tables, migrations};
    match store {
        Store::Postgres => {
            let log = pg_log(database, CONTEXT, inline_tables(), migrations()).await;
            (log, None)
        }
        Store::DynamoDb => {
            let dynamo = millrace_testkit::dynamodb().await;
            let log = dynamo_log(&dynamo, CONTEXT, inline_items()).await;
            (log, Some(dynamo))
        }
    }
}
