//! The log of users, as far as others may know it.

use std::sync::Arc;

use millrace_contracts::customers::{
    self, AccountCreated, Address, CustomersEvent, UserCreated, UserUpdated,
};
use millrace_es::{Context, EventId, Metadata, NewEvent, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, migrate,
};
use millrace_kernel::{EntityId, Timestamp};
use millrace_testkit::Database;

pub fn users_context() -> Context {
    Context::new(customers::CONTEXT).unwrap()
}

pub struct Users {
    pub log: Arc<PgEventLog>,
}

impl Users {
    pub async fn open(database: &Database) -> Self {
        let options = PgLogOptions::new(users_context());
        let partitions = options.partitions;
        migrate(&database.pool, &users_context(), partitions, &[])
            .await
            .unwrap();
        let log = PgEventLog::open(database.pool.clone(), options).await;
        Self {
            log: Arc::new(log.unwrap()),
        }
    }

    async fn append(&self, event: CustomersEvent) {
        let event_type = event.event_type();
        let newest = customers::EVENT_TYPES.iter().find(|it| it.0 == event_type);
        let new = NewEvent {
            id: EventId::generate(),
            event_type: event_type.into(),
            schema_version: newest.unwrap().1,
            payload: serde_json::value::to_raw_value(&event).unwrap(),
            metadata: Arc::new(Metadata::default()),
        };
        let request = AppendRequest {
            streams: vec![StreamAppend {
                stream: StreamId::of("user", event.user_id()),
                expected: ExpectedVersion::Any,
                events: vec![new],
            }],
            ..AppendRequest::default()
        };
        self.log.append(request).await.unwrap();
    }

    pub async fn create(&self, user: &str, name: &str) {
        self.append(CustomersEvent::UserCreated(UserCreated {
            id: id(user),
            name: name.to_owned(),
            email: format!("{user}@demo.com"),
            created_at: Timestamp::now(),
        }))
        .await;
    }

    pub async fn rename(&self, user: &str, name: &str) {
        self.append(CustomersEvent::UserUpdated(UserUpdated {
            id: id(user),
            name: name.to_owned(),
            email: format!("{user}@demo.com"),
            updated_at: Timestamp::now(),
        }))
        .await;
    }

    /// Says something that an order does not show.
    pub async fn moves_to(&self, user: &str, address: &str) {
        self.append(CustomersEvent::AccountCreated(AccountCreated {
            user_id: id(user),
            address: Address::Text {
                address: address.to_owned(),
            },
            created_at: Timestamp::now(),
        }))
        .await;
    }
}

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}
