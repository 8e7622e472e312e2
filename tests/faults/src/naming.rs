//! Users who come, and change their names and e-mail addresses, while orders are placed; and the
//! proof that every order shows what its user is called, from the events of customers alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Client, Cluster, Insistent, Seed,
    check::{agrees, log, log::LoggedEvent, views},
};

/// The context that the users are in.
const CUSTOMERS: &str = "customers";
/// The longest pause between two changes, in milliseconds.
const MAX_PAUSE_MS: u64 = 60;

/// What users are called, by id: name and e-mail address.
pub type Names = BTreeMap<String, (String, String)>;

/// Somebody who registers users of his own and changes them, one change after the other.
#[derive(Debug)]
pub struct Registrar {
    client: Insistent,
    seed: Seed,
    users: Vec<String>,
    /// What was acknowledged.
    names: Names,
    /// How often somebody was changed who was there, by all registrars.
    changes: Arc<AtomicU64>,
}

impl Registrar {
    /// Of these users, none of whom is there yet. `number` tells his requests from others', and
    /// `changes` counts how often somebody was changed who was there.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        seed: &Seed,
        number: u64,
        users: Vec<String>,
        changes: Arc<AtomicU64>,
    ) -> Self {
        Self {
            client: Insistent::new(cluster, seed.part(1_000 + number)),
            seed: seed.part(2_000 + number),
            users,
            names: Names::new(),
            changes,
        }
    }

    /// Changes users until told to stop, and says what they are called then.
    ///
    /// # Panics
    /// When an answer is not what it has to be.
    pub async fn work(mut self, stop: CancellationToken) -> Names {
        for number in 0_usize.. {
            if stop.is_cancelled() {
                break;
            }
            let user = self.users[self.seed.index(self.users.len())].clone();
            if self.names.contains_key(&user) {
                self.change(&user, number).await;
            } else {
                self.register(&user, number).await;
            }
            tokio::time::sleep(self.seed.millis(0, MAX_PAUSE_MS)).await;
        }
        self.names
    }

    async fn register(&mut self, user: &str, number: usize) {
        let (name, email) = (format!("Name {number}"), email(user, number));
        let body = json!({"id": user, "name": name, "email": email});
        let reply = self
            .client
            .until_answered(Method::POST, "/system-api/users", Some(&body));
        let reply = reply.await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.body);
        self.names.insert(user.to_owned(), (name, email));
    }

    /// Another name, another address, or both; sometimes an address that somebody else has.
    async fn change(&mut self, user: &str, number: usize) {
        let (mut name, mut address) = self.names[user].clone();
        let kind = self.seed.below(4);
        let held = self.names.iter().find(|(other, _)| *other != user);
        let held = held.map(|(_, (_, held))| held.to_uppercase());
        if let (0, Some(held)) = (kind, held) {
            // In a body of its own each time: a key stands for one request.
            let body = json!({"name": format!("Name {number}"), "email": held});
            let reply = self.put(user, &body).await;
            assert_eq!(reply.status, 409, "{body}: {}", reply.body);
            return;
        }
        let mut body = json!({});
        if kind != 1 {
            name = format!("Name {number}");
            body["name"] = json!(name);
        }
        if kind != 2 {
            address = email(user, number);
            body["email"] = json!(address);
        }
        let reply = self.put(user, &body).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.body);
        self.names.insert(user.to_owned(), (name, address));
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    async fn put(&self, user: &str, body: &Value) -> crate::Reply {
        let path = format!("/system-api/users/{user}");
        self.client
            .until_answered(Method::PUT, &path, Some(body))
            .await
    }
}

fn email(user: &str, number: usize) -> String {
    format!("{user}-{number}@demo.com")
}

/// What users are called, by the events of their log.
fn names(events: &[LoggedEvent]) -> Names {
    let mut names = Names::new();
    for event in events {
        if !matches!(event.event_type.as_str(), "user.created" | "user.updated") {
            continue;
        }
        let text = |field: &str| event.payload[field].as_str().unwrap().to_owned();
        names.insert(text("id"), (text("name"), text("email")));
    }
    names
}

/// Proves that the log of customers holds what was acknowledged, that nobody has somebody else's
/// address, and that every order and every profile shows what its user is called.
///
/// # Panics
/// With the first promise that is broken.
pub async fn hold(cluster: &Cluster, acknowledged: &Names) {
    let (head, events) = log::read(&cluster.log_pool, CUSTOMERS).await;
    log::prove(&head, &events, 1);
    let names = names(&events);
    assert_eq!(
        &names, acknowledged,
        "the log (left) is not what was acknowledged (right)"
    );
    let addresses: BTreeSet<String> = names.values().map(|(_, one)| one.to_lowercase()).collect();
    assert_eq!(addresses.len(), names.len(), "an address twice: {names:?}");
    let client = Client::new();
    agrees(async || shown(&client, &cluster.query_url(0), &names).await).await;
}

/// Compares what the views show of users with what these are called.
///
/// # Errors
/// The first difference.
pub async fn shown(client: &Client, query: &str, names: &Names) -> Result<(), String> {
    let orders = views::all_orders(client, query).await?;
    if orders.is_empty() {
        return Err("there are no orders".to_owned());
    }
    for (id, row) in &orders {
        let user = row["user_id"].as_str().unwrap_or_default();
        same(
            &format!("order {id}"),
            row,
            ["user_username", "user_email"],
            names.get(user),
        )?;
    }
    for (user, called) in names {
        let profile = views::answer(client, &format!("{query}/users/{user}")).await?;
        same(user, &profile.json(), ["name", "email"], Some(called))?;
    }
    Ok(())
}

fn same(
    whose: &str,
    row: &Value,
    fields: [&str; 2],
    called: Option<&(String, String)>,
) -> Result<(), String> {
    let found = fields.map(|field| &row[field]);
    let wanted = match called {
        Some((name, address)) => [json!(name), json!(address)],
        None => [Value::Null, Value::Null],
    };
    if found == wanted.each_ref() {
        return Ok(());
    }
    Err(format!(
        "{whose} shows {fields:?} as {found:?} and not {wanted:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_and_a_name_too_many_are_noticed() {
        let fields = ["user_username", "user_email"];
        let ada = ("Ada".to_owned(), "ada@demo.com".to_owned());
        let called = json!({"user_username": "Ada", "user_email": "ada@demo.com"});
        let nobody = json!({"user_username": null, "user_email": null});
        same("o-1", &called, fields, Some(&ada)).unwrap();
        same("o-1", &nobody, fields, None).unwrap();
        let old = json!({"user_username": "Ada", "user_email": "old@demo.com"});
        for (row, called) in [
            (&old, Some(&ada)),
            (&nobody, Some(&ada)),
            (&called, None),
            (&json!({}), Some(&ada)),
        ] {
            same("o-1", row, fields, called).unwrap_err();
        }
    }
}
