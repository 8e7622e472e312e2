//! What rides beside an aggregate's own events in their append.

use std::{convert::Infallible, sync::Arc};

use futures::future::join_all;
use millrace_es::{Aggregate, DecodeError, DomainEvent, Metadata, Position, StreamVersion, upcast};
use millrace_kernel::EntityId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Backend, audit, to};
use crate::{
    Answer, AnswerKey, AppendError, EventLog, Execute, ExecuteError, Executed, ExpectedVersion,
    Outcome, Repository, RepositoryOptions,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counted;

impl DomainEvent for Counted {
    fn event_type(&self) -> &'static str {
        "tally.counted"
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

/// How often it was counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tally(u64);

impl Aggregate for Tally {
    const CATEGORY: &'static str = "tally";
    const SNAPSHOT_VERSION: u16 = 1;
    type Command = ();
    type Event = Counted;
    type Refusal = Infallible;

    fn decide(&self, (): &()) -> Result<Vec<Counted>, Infallible> {
        Ok(vec![Counted])
    }

    fn evolve(self, _: &Counted) -> Self {
        Self(self.0 + 1)
    }
}

fn tallies(log: &Arc<dyn EventLog>) -> Repository<Tally> {
    Repository::new(Arc::clone(log), RepositoryOptions::default())
}

fn one() -> EntityId {
    EntityId::new("1").expect("the checks name entities well")
}

/// Counts one more, and has an event in a stream of another kind that expects this.
async fn count(
    tallies: &Repository<Tally>,
    (beside, expected): (&str, ExpectedVersion),
    if_match: Option<u64>,
    key: Option<AnswerKey>,
) -> Result<Executed, ExecuteError> {
    let id = one();
    let request = Execute {
        id: &id,
        command: (),
        if_match: if_match.map(StreamVersion::new),
        metadata: Metadata::default(),
        key,
        new: false,
    };
    let respond = |outcome: Outcome<'_, Tally>| {
        let (Outcome::Done { state, .. } | Outcome::Refused { state, .. }) = outcome;
        Answer {
            status: 200,
            headers: Vec::new(),
            body: state.0.to_string().into(),
        }
    };
    tallies
        .execute_beside(request, |_| Ok(vec![to(beside, expected, 1)]), respond)
        .await
}

fn body(executed: &Executed) -> String {
    String::from_utf8_lossy(&executed.answer.body).into_owned()
}

/// The streams of the whole log's events, by position.
async fn streams(log: &dyn EventLog) -> Vec<String> {
    let events = audit(log).await;
    let streams = events.iter().map(|event| event.stream.to_string());
    streams.collect()
}

/// What an aggregate has beside itself is in its append: at the next position, or not at all.
pub async fn what_is_beside_rides_in_the_same_append(backend: &impl Backend) {
    let log = backend.open(None).await;
    let tallies = tallies(&log);
    let none = ExpectedVersion::NoStream;
    let first = count(&tallies, ("beside-1", none), None, None).await;
    let first = first.expect("both streams are new");
    assert_eq!(first.token.position, Position::new(2), "one token for both");
    assert_eq!(body(&first), "1");

    // The other stream moved on: neither is appended to, and nothing is remembered of it.
    let conflict = count(&tallies, ("beside-1", none), None, None).await;
    assert!(
        matches!(&conflict, Err(ExecuteError::Append(AppendError::Conflict { stream, actual, .. }))
            if stream.as_str() == "beside-1" && actual.get() == 1),
        "{conflict:?}"
    );
    // Its own stream is not as the caller saw it: the same.
    let mismatch = count(&tallies, ("beside-2", none), Some(7), None).await;
    assert!(
        matches!(&mismatch, Err(ExecuteError::VersionMismatch { actual }) if actual.get() == 1),
        "{mismatch:?}"
    );
    let both = ["tally-1", "beside-1"];
    assert_eq!(streams(log.as_ref()).await, both);
    let second = count(&tallies, ("beside-2", none), Some(1), None).await;
    assert_eq!(body(&second.expect("nothing stands in the way")), "2");
    let all = ["tally-1", "beside-1", "tally-1", "beside-2"];
    assert_eq!(streams(log.as_ref()).await, all);
}

/// An aggregate that somebody else moved on is decided again, and what is beside it with it: both
/// are appended once.
pub async fn what_is_beside_is_decided_again_with_its_aggregate(backend: &impl Backend) {
    let logs = [backend.open(None).await, backend.open(None).await];
    let [here, there] = logs.each_ref().map(tallies);
    let any = ExpectedVersion::Any;
    for (round, tallies) in (1_u64..).zip([&here, &there, &here, &there]) {
        // Each remembers less than there is from its second turn on.
        let counted = count(tallies, ("beside", any), None, None).await;
        assert_eq!(
            body(&counted.expect("it is decided again")),
            round.to_string()
        );
    }
    let racing = (0..8).map(|n| count([&here, &there][n % 2], ("beside", any), None, None));
    let taken = join_all(racing)
        .await
        .iter()
        .filter(|one| one.is_ok())
        .count();
    assert!(taken > 0, "somebody wins");
    let streams = streams(logs[0].as_ref()).await;
    let expected = ["tally-1", "beside"].repeat(4 + taken);
    assert_eq!(streams, expected, "side by side, however they raced");
}

/// A key that is used again gets the first answer, and appends to neither stream.
pub async fn what_is_beside_is_appended_once_under_a_key(backend: &impl Backend) {
    let logs = [backend.open(None).await, backend.open(None).await];
    let [here, there] = logs.each_ref().map(tallies);
    let key = AnswerKey {
        key_hash: [7; 32],
        request_hash: [8; 32],
    };
    let none = ExpectedVersion::NoStream;
    let first = count(&here, ("beside-1", none), None, Some(key)).await;
    let first = first.expect("both streams are new");
    let later = count(&here, ("beside-2", none), None, None).await;
    assert_eq!(body(&later.expect("nothing stands in the way")), "2");
    // The stream beside is in the way of a repeat; the answer under its key goes before that.
    for tallies in [&here, &there] {
        let again = count(tallies, ("beside-1", none), None, Some(key)).await;
        let again = again.expect("its answer is kept");
        assert!(again.replayed);
        assert_eq!((&again.answer, &again.token), (&first.answer, &first.token));
    }
    let all = ["tally-1", "beside-1", "tally-1", "beside-2"];
    assert_eq!(streams(logs[0].as_ref()).await, all);
}
