//! Contexts as installations of their own: a command process each with its own database, and billing
//! with nothing but its database, NATS and the owners' internal ports.

use std::{net::SocketAddr, path::Path, time::Duration};

use millrace_es::Context;
use millrace_streaming::Names;
use millrace_testkit::{Database, HttpClient, Nats, Process, Reply, eventually, free_port};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::run::{millrace, run};

const BOUND: Duration = Duration::from_secs(60);
const NOWHERE: &str = "http://127.0.0.1:1";
const TOKEN: &str = "sesame-for-the-test";
const INVOICE: &str = "/invoice-service/invoices?user_id=1&month=4&year=2025";

/// A role as a process, with no setting but these.
pub struct Running {
    pub process: Process,
    admin: u16,
    pub client: HttpClient,
}

impl Running {
    pub fn start(role: &str, nats: &Nats, more: &[(&str, String)]) -> Self {
        let (port, admin) = (free_port(), free_port());
        let mut settings = vec![
            ("NATS_URL", nats.url.clone()),
            ("MILLRACE_NAMESPACE", nats.namespace.clone()),
            ("MILLRACE_INTERNAL_TOKEN", TOKEN.to_owned()),
            ("MILLRACE_BANKING_LOG", "postgres".to_owned()),
            ("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin}")),
            // Nothing listens there: who needs no DynamoDB asks none.
            ("DYNAMODB_ENDPOINT", NOWHERE.to_owned()),
        ];
        if role != "projector" {
            settings.push(("MILLRACE_LISTEN", format!("127.0.0.1:{port}")));
        }
        settings.extend(more.iter().cloned());
        let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
        let process = Process::start(program, &["role", role], &settings);
        Self {
            process,
            admin,
            client: HttpClient::new(SocketAddr::from(([127, 0, 0, 1], port))),
        }
    }

    pub async fn ready(&mut self) {
        self.process.wait_ready(self.admin, "/readyz", BOUND).await;
    }
}

/// The owner of a context, in a database of its own.
struct Owner {
    role: Running,
    internal: u16,
    database: Database,
}

impl Owner {
    async fn start(context: &str, nats: &Nats, dynamodb: &str) -> Self {
        let database = millrace_testkit::postgres().await;
        let internal = free_port();
        let url = format!("MILLRACE_{}_DATABASE_URL", context.to_uppercase());
        let settings = [
            ("MILLRACE_CONTEXTS", context.to_owned()),
            ("DYNAMODB_ENDPOINT", dynamodb.to_owned()),
            (url.as_str(), database.url.clone()),
            ("MILLRACE_INTERNAL_LISTEN", format!("127.0.0.1:{internal}")),
        ];
        let mut role = Running::start("command", nats, &settings);
        role.ready().await;
        Self {
            role,
            internal,
            database,
        }
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> Reply {
        self.role
            .client
            .post(path, body)
            .await
            .expect(StatusCode::CREATED)
    }

    async fn order(&self, number: u32, bought: &str) -> Reply {
        let body = json!({
            "user_id": 1, "description": format!("Widget {number}"), "amount": 50,
            "purchase_dt": bought,
        });
        self.post("/order-service/orders", body).await
    }
}

/// The contexts, and billing apart from them.
struct Apart {
    users: Owner,
    orders: Owner,
    bank: Owner,
    billing: Database,
    projector: Running,
    query: Running,
    nats: Nats,
}

impl Apart {
    async fn start() -> Self {
        let (nats, dynamodb) = tokio::join!(millrace_testkit::nats(), millrace_testkit::dynamodb());
        // The owner of banking looks whether a log of it is in the other store.
        let (users, orders, bank) = tokio::join!(
            Owner::start("customers", &nats, NOWHERE),
            Owner::start("ordering", &nats, NOWHERE),
            Owner::start("banking", &nats, &dynamodb.endpoint),
        );
        let billing = millrace_testkit::postgres().await;
        let owners = format!(
            "customers=http://127.0.0.1:{},ordering=http://127.0.0.1:{}",
            users.internal, orders.internal
        );
        let settings = [
            ("MILLRACE_CONTEXTS", "billing".to_owned()),
            ("MILLRACE_BILLING_DATABASE_URL", billing.url.clone()),
            ("MILLRACE_OWNERS", owners),
        ];
        let mut projector = Running::start("projector", &nats, &settings);
        let mut query = Running::start("query", &nats, &settings);
        projector.ready().await;
        query.ready().await;
        Self {
            users,
            orders,
            bank,
            billing,
            projector,
            query,
            nats,
        }
    }

    /// The invoice with everything that was written up to here. It is of many streams, and the
    /// write's whole token would be waited for in the write's own partition only.
    async fn invoice(&self, after: &Reply) -> Reply {
        let (everything, _) = after.position().split_once('~').unwrap();
        let request = self.query.client.request(Method::GET, INVOICE);
        let request = request.header("min-log-position", everything);
        let reply = request.header("prefer", "wait=30").send().await;
        reply.expect(StatusCode::OK)
    }

    /// The stream of a context loses everything that is in it.
    async fn lose(&self, context: &str) {
        let names = Names::new(&self.nats.namespace).unwrap();
        let stream = names.stream(&Context::new(context).unwrap());
        self.nats.jetstream.delete_stream(stream).await.unwrap();
    }

    /// The stream of a context keeps nothing of what was in it.
    async fn truncate(&self, context: &str) {
        let names = Names::new(&self.nats.namespace).unwrap();
        let stream = names.stream(&Context::new(context).unwrap());
        let stream = self.nats.jetstream.get_stream(stream).await.unwrap();
        stream.purge().await.unwrap();
    }
}

async fn schemas(database: &Database) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT nspname::text FROM pg_namespace
         WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', 'information_schema')
         ORDER BY 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn billing_stands_apart_and_survives_streams_that_lost_everything() {
    let mut apart = Box::pin(Apart::start()).await;
    let user = json!({"id": 1, "name": "Alice", "email": "alice@demo.com"});
    apart.users.post("/system-api/users", user).await;
    let first = apart.orders.order(1, "2025-04-05T10:00:00Z").await;
    let reply = apart.invoice(&first).await;
    assert!(
        reply.bytes.ends_with(b"\"total\":50.00}"),
        "{:?}",
        reply.bytes
    );

    // While billing looks away, more happens and the streams forget it.
    apart.projector.process.terminate().await;
    let address = json!({
        "user_id": 1, "street": "123 Main St", "city": "Cityville", "state": "ST", "zip": "12345",
    });
    let account = apart.users.post("/system-api/accounts", address).await;
    for number in 2..40 {
        apart.orders.order(number, "2025-04-30T10:00:00Z").await;
    }
    let last = apart.orders.order(40, "2025-04-30T10:00:00Z").await;
    eventually("the relay is through", BOUND, || async {
        let names = Names::new(&apart.nats.namespace).unwrap();
        let stream = names.stream(&Context::new("ordering").unwrap());
        let mut stream = apart.nats.jetstream.get_stream(stream).await.ok()?;
        (stream.info().await.ok()?.state.last_sequence == 40).then_some(())
    })
    .await;
    apart.truncate("ordering").await;
    apart.lose("customers").await;
    apart.projector.process.restart();
    apart.projector.ready().await;

    apart.invoice(&account).await;
    let reply = apart.invoice(&last).await;
    assert_eq!(reply.body["orders"].as_array().unwrap().len(), 40);
    assert!(
        reply.bytes.ends_with(b"\"total\":2000.00}"),
        "{:?}",
        reply.bytes
    );
    assert_eq!(reply.body["email"], "alice@demo.com");
    assert_eq!(
        reply.body["shipping_address"],
        "123 Main St, Cityville, ST 12345"
    );

    // Each has what is its own, and nothing else.
    assert_eq!(
        schemas(&apart.billing).await,
        ["invoices_g1", "projections"]
    );
    assert_eq!(schemas(&apart.users.database).await, ["customers"]);
    assert_eq!(schemas(&apart.orders.database).await, ["ordering"]);
    assert_eq!(schemas(&apart.bank.database).await, ["banking"]);
}

#[tokio::test]
async fn a_context_whose_owner_nobody_names_is_said_at_the_start() {
    let (database, nats) = tokio::join!(millrace_testkit::postgres(), millrace_testkit::nats());
    for role in ["projector", "query"] {
        let mut alone = millrace(["role", role, "--admin-listen", "127.0.0.1:0"]);
        alone
            .env("NATS_URL", &nats.url)
            .env("MILLRACE_NAMESPACE", &nats.namespace)
            .env("MILLRACE_CONTEXTS", "billing")
            .env("MILLRACE_BILLING_DATABASE_URL", &database.url)
            .env("MILLRACE_OWNERS", "ordering=http://127.0.0.1:1");
        if role == "query" {
            alone.env("MILLRACE_LISTEN", "127.0.0.1:0");
        }
        let ended = run(alone).await;
        assert_eq!(ended.code, 1, "{role} {}", ended.err);
        for part in ["invoices", "customers", "MILLRACE_OWNERS=customers="] {
            assert!(ended.err.contains(part), "{role} {part}: {}", ended.err);
        }
    }
}

#[tokio::test]
async fn a_log_without_a_database_is_said_at_the_start() {
    let nats = millrace_testkit::nats().await;
    let mut nowhere = millrace(["role", "command", "--admin-listen", "127.0.0.1:0"]);
    nowhere
        .env("NATS_URL", &nats.url)
        .env("MILLRACE_CONTEXTS", "ordering")
        .env("MILLRACE_LISTEN", "127.0.0.1:0")
        .env("MILLRACE_INTERNAL_LISTEN", "127.0.0.1:0");
    let ended = run(nowhere).await;
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("MILLRACE_ORDERING_DATABASE_URL"),
        "{}",
        ended.err
    );
    let mut creds = millrace(["role", "command", "--admin-listen", "127.0.0.1:0"]);
    creds
        .env("NATS_CREDS", "no-such-file.creds")
        .env("MILLRACE_LISTEN", "127.0.0.1:0")
        .env("MILLRACE_INTERNAL_LISTEN", "127.0.0.1:0");
    let ended = run(creds).await;
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("NATS_CREDS"), "{}", ended.err);
}
