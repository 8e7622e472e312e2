//! Roles with the rights in NATS that the operator's guide tells to grant, and no more.

use std::path::Path;

use millrace_testkit::{
    Nats, NatsOperator, NatsPermissions, Reply, free_port, namespace, nats_rights,
    nats_with_operator,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::apart::Running;

/// A system whose processes each have credentials of their own.
struct Guarded {
    operator: NatsOperator,
    nats: Nats,
    settings: Vec<(&'static str, String)>,
}

impl Guarded {
    /// A role for some contexts, with the rights that stand under a heading.
    async fn start(&self, role: &str, heading: &str, contexts: &[&str]) -> Running {
        let rights = nats_rights(heading, &self.nats.namespace, contexts);
        let name = format!("{role}-{}", contexts.join("-"));
        let credentials = self.operator.credentials(&name, &rights);
        self.start_with(role, contexts, &credentials).await
    }

    async fn start_with(&self, role: &str, contexts: &[&str], credentials: &Path) -> Running {
        let mut settings = self.settings.clone();
        settings.push(("MILLRACE_CONTEXTS", contexts.join(",")));
        settings.push(("NATS_CREDS", credentials.display().to_string()));
        if role == "command" {
            let internal = format!("127.0.0.1:{}", free_port());
            settings.push(("MILLRACE_INTERNAL_LISTEN", internal));
        }
        let mut running = Running::start(role, &self.nats, &settings);
        running.ready().await;
        running
    }
}

/// What a process was refused that it asked for.
fn refusals(role: &Running) -> Vec<String> {
    let output = role.process.output();
    let lines = output.lines().filter(|line| {
        let line = line.to_lowercase();
        line.contains("permissions violation") || line.contains("authorization")
    });
    lines.map(str::to_owned).collect()
}

async fn read(query: &Running, path: &str, after: &Reply) -> Reply {
    let request = query.client.request(Method::GET, path);
    let request = request.header("min-log-position", after.position());
    let reply = request.header("prefer", "wait=30").send().await;
    reply.expect(StatusCode::OK)
}

#[tokio::test]
async fn the_rights_that_the_guide_grants_are_enough() {
    let (operator, database, dynamodb) = tokio::join!(
        nats_with_operator(),
        millrace_testkit::postgres(),
        millrace_testkit::dynamodb()
    );
    let anybody = operator.credentials("anybody", &NatsPermissions::default());
    let url = operator.server.url();
    let client = millrace_streaming::connect(&url, Some(&anybody), "test").await;
    let client = client.unwrap();
    let system = Guarded {
        nats: Nats {
            jetstream: async_nats::jetstream::new(client.clone()),
            client,
            url,
            namespace: namespace(),
        },
        operator,
        settings: vec![
            ("DATABASE_URL", database.url.clone()),
            ("DYNAMODB_ENDPOINT", dynamodb.endpoint.clone()),
        ],
    };
    // Each may publish the events of its own context alone.
    let heading = "A command process";
    let (users, orders) = tokio::join!(
        system.start("command", heading, &["customers"]),
        system.start("command", heading, &["ordering"]),
    );
    let both = ["ordering", "customers"];
    let projector = system.start("projector", "A projector", &both).await;
    let query = system.start("query", "A query process", &both).await;

    let ada = json!({"id": "u-1", "name": "Ada", "email": "ada@demo.com"});
    let user = users.client.post("/system-api/users", ada).await;
    let user = user.expect(StatusCode::CREATED);
    let order = json!({"id": "o-1", "user_id": "u-1", "total_amount": "4.50"});
    let order = orders.client.post("/orders", order).await;
    let order = order.expect(StatusCode::CREATED);
    // One position is waited for at a time: first the order, then the name beside it.
    read(&query, "/orders/o-1", &order).await;
    let shown = read(&query, "/orders/o-1", &user).await;
    assert_eq!(shown.body["user_username"], "Ada", "{}", shown.body);
    // Any position: every partition of it is asked for, those without events too.
    let head = read(&query, "/orders/statistics", &order).await;
    assert_eq!(head.body["total_orders"], 1);
    for role in [&users, &orders, &projector, &query] {
        assert_eq!(refusals(role), Vec::<String>::new());
    }
}
