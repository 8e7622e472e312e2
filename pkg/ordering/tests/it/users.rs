//! The log of users, as far as others may know it.

use millrace_contracts::customers::{self, CustomersEvent};
use millrace_es::StreamId;
use millrace_kernel::Timestamp;
use millrace_testkit::Database;
use millrace_teststage::{Foreign, facts};

pub struct Users(pub Foreign);

impl Users {
    pub async fn open(database: &Database) -> Self {
        Self(Foreign::open(database, customers::CONTEXT).await)
    }

    async fn append(&self, event: CustomersEvent) {
        let newest = customers::EVENT_TYPES
            .into_iter()
            .find(|(name, _)| *name == event.event_type());
        let stream = StreamId::of("user", event.user_id());
        self.0.append(stream, newest.unwrap(), &event).await;
    }

    pub async fn create(&self, user: &str, name: &str) {
        let (email, at) = (format!("{user}@demo.com"), Timestamp::now());
        self.append(facts::user_created(user, name, &email, at))
            .await;
    }

    pub async fn rename(&self, user: &str, name: &str) {
        let (email, at) = (format!("{user}@demo.com"), Timestamp::now());
        self.append(facts::user_updated(user, name, &email, at))
            .await;
    }

    /// Says something that an order does not show.
    pub async fn moves_to(&self, user: &str, address: &str) {
        let address = facts::address(address);
        self.append(facts::account_created(user, address, Timestamp::now()))
            .await;
    }
}
