//! Names that only one aggregate of all may have, through a repository.

use std::sync::Arc;

use millrace_es::{Aggregate, DecodeError, DomainEvent, Metadata, Reservation, upcast};
use millrace_eventlog::{
    Answer, AnswerKey, EventLog, Execute, ExecuteError, Executed, Outcome, Repository,
    RepositoryOptions,
};
use millrace_kernel::EntityId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::support::{open, store};

const SCOPE: &str = "boat-name";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    boat: String,
    name: String,
}

impl DomainEvent for Named {
    fn event_type(&self) -> &'static str {
        "boat.named"
    }

    fn schema_version(&self) -> u16 {
        1
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }

    fn decode(event_type: &str, version: u16, payload: &RawValue) -> Result<Self, DecodeError> {
        upcast(event_type, version, payload, &[])
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("another boat is called {name}")]
struct Taken {
    name: String,
}

/// A boat: no two of them have one name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Boat {
    name: Option<String>,
}

impl Aggregate for Boat {
    const CATEGORY: &'static str = "boat";
    const SNAPSHOT_VERSION: u16 = 1;
    type Command = Named;
    type Event = Named;
    type Refusal = Taken;

    fn decide(&self, command: &Named) -> Result<Vec<Named>, Taken> {
        let is_so = self.name.as_ref() == Some(&command.name);
        Ok(if is_so { vec![] } else { vec![command.clone()] })
    }

    fn evolve(self, event: &Named) -> Self {
        Self {
            name: Some(event.name.clone()),
        }
    }

    fn reservations(&self, event: &Named) -> Vec<Reservation> {
        let of = |name: &String, release| Reservation {
            scope: SCOPE,
            value: name.clone(),
            holder: event.boat.clone(),
            release,
        };
        let before = self.name.iter().map(|name| of(name, true));
        before.chain([of(&event.name, false)]).collect()
    }

    fn reserved(_: &'static str, name: &str) -> Option<Taken> {
        Some(Taken {
            name: name.to_owned(),
        })
    }
}

fn respond(outcome: Outcome<'_, Boat>) -> Answer {
    let (status, text) = match outcome {
        Outcome::Done { version, .. } => (200, version.to_string()),
        Outcome::Refused { refusal, .. } => (409, refusal.to_string()),
    };
    Answer {
        status,
        headers: Vec::new(),
        body: text.into(),
    }
}

/// Names a boat, as a request of its own if it has a number.
async fn name(
    boats: &Repository<Boat>,
    boat: &str,
    name: &str,
    key: Option<u8>,
) -> Result<Executed, ExecuteError> {
    let id = EntityId::new(boat).unwrap();
    let request = Execute {
        id: &id,
        command: Named {
            boat: boat.to_owned(),
            name: name.to_owned(),
        },
        if_match: None,
        metadata: Metadata::default(),
        key: key.map(|n| AnswerKey {
            key_hash: [n; 32],
            request_hash: [n; 32],
        }),
        new: false,
    };
    boats.execute(request, respond).await
}

async fn status(boats: &Repository<Boat>, boat: &str, called: &str) -> u16 {
    name(boats, boat, called, None).await.unwrap().answer.status
}

fn repository(log: &Arc<dyn EventLog>) -> Repository<Boat> {
    Repository::new(Arc::clone(log), RepositoryOptions::default())
}

#[tokio::test]
async fn of_all_who_want_a_name_one_gets_it() {
    let database = store().await;
    let logs: [Arc<dyn EventLog>; 2] = [
        Arc::new(open(&database).await),
        Arc::new(open(&database).await),
    ];
    let repositories = logs.each_ref().map(repository);
    let boats: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let asked = boats
        .iter()
        .enumerate()
        .map(|(n, boat)| status(&repositories[n % 2], boat, "Argo"));
    let statuses = futures::future::join_all(asked).await;
    let won = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 409).count();
    assert_eq!((won, refused), (1, 59));
    assert_eq!(logs[0].head().await.unwrap().position.get(), 1);
}

#[tokio::test]
async fn a_name_is_free_again_when_its_holder_takes_another() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let boats = repository(&log);
    assert_eq!(status(&boats, "1", "Argo").await, 200);
    assert_eq!(status(&boats, "2", "Argo").await, 409);
    assert_eq!(status(&boats, "1", "Argo").await, 200, "it is so already");
    assert_eq!(status(&boats, "1", "Beagle").await, 200);
    assert_eq!(status(&boats, "2", "Argo").await, 200);
    assert_eq!(status(&boats, "1", "Argo").await, 409);
    // Two that swap names over a third one.
    assert_eq!(status(&boats, "1", "Calypso").await, 200);
    assert_eq!(status(&boats, "2", "Beagle").await, 200);
    assert_eq!(status(&boats, "1", "Argo").await, 200);
}

#[tokio::test]
async fn a_refusal_for_a_taken_name_is_kept_under_its_key() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let boats = repository(&log);
    name(&boats, "1", "Argo", Some(1)).await.unwrap();
    let refused = name(&boats, "2", "Argo", Some(2)).await.unwrap();
    assert_eq!(refused.answer.status, 409);
    assert_eq!(refused.answer.body, "another boat is called Argo");
    name(&boats, "1", "Beagle", None).await.unwrap();

    // What a key was answered it is answered again, whatever came after.
    let again = name(&boats, "2", "Argo", Some(2)).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.answer, again.token), (refused.answer, refused.token));
    let first = name(&boats, "1", "Argo", Some(1)).await.unwrap();
    assert!(first.replayed);
    assert_eq!(first.answer.status, 200);
    assert_eq!(status(&boats, "2", "Argo").await, 200, "another request");
}
