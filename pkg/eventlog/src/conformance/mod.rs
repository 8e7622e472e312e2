//! What every backend of the event log has to do, as one suite that runs on any of them.
//!
//! A backend's tests implement [`Backend`] and call each check; [`CHECKS`] names them, so that a
//! backend can prove that it runs all. A check panics with a sentence: a test has nobody to hand an
//! error to.
#![allow(clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod audit;
mod beside;
mod recovery;
mod storm;
mod verdicts;

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use millrace_es::{EventId, Metadata, NewEvent, StreamId};

use crate::{AppendRequest, EventLog, ExpectedVersion, Faults, StreamAppend};

pub use audit::audit;
pub use beside::{
    what_is_beside_is_appended_once_under_a_key,
    what_is_beside_is_decided_again_with_its_aggregate, what_is_beside_rides_in_the_same_append,
};
pub use recovery::{
    a_halted_log_takes_nothing_until_it_is_resumed, a_lost_tail_is_taken_back,
    a_new_epoch_begins_at_the_head, a_tail_that_does_not_continue_is_refused,
};
pub use storm::{
    a_storm_of_writers_and_cuts_loses_and_doubles_nothing,
    a_writer_cut_at_any_step_loses_and_doubles_nothing,
};
pub use verdicts::{
    a_decision_on_an_append_that_failed_is_refused, a_key_is_taken_once, a_name_is_held_once,
    a_newer_snapshot_stays, a_version_is_won_once, an_append_without_events_asserts,
    each_append_of_a_batch_has_its_own_verdict, impossible_appends_are_refused,
    processes_append_side_by_side, several_streams_move_together_or_not_at_all,
};

/// The names of all checks.
pub const CHECKS: [&str; 19] = [
    "a_halted_log_takes_nothing_until_it_is_resumed",
    "a_lost_tail_is_taken_back",
    "a_new_epoch_begins_at_the_head",
    "a_tail_that_does_not_continue_is_refused",
    "a_storm_of_writers_and_cuts_loses_and_doubles_nothing",
    "a_writer_cut_at_any_step_loses_and_doubles_nothing",
    "a_decision_on_an_append_that_failed_is_refused",
    "a_key_is_taken_once",
    "a_name_is_held_once",
    "a_newer_snapshot_stays",
    "a_version_is_won_once",
    "an_append_without_events_asserts",
    "each_append_of_a_batch_has_its_own_verdict",
    "impossible_appends_are_refused",
    "processes_append_side_by_side",
    "several_streams_move_together_or_not_at_all",
    "what_is_beside_is_appended_once_under_a_key",
    "what_is_beside_is_decided_again_with_its_aggregate",
    "what_is_beside_rides_in_the_same_append",
];

/// The events of a large append: more than any backend writes in its way for small ones, and no more
/// than every backend takes in one append (DynamoDB's transactions have 100 items).
const LARGE_APPEND_EVENTS: usize = 90;

/// A new, empty log's store, on which instances are opened as by separate processes.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens one more instance on the store.
    async fn open(&self, faults: Option<Arc<dyn Faults>>) -> Arc<dyn EventLog>;

    /// Cuts every connection that an instance appends through, whatever it is doing.
    async fn cut(&self);

    /// Begins something long elsewhere in the store (a transaction that has written and stays
    /// open), which must not hold up the log or its readers. It ends when it is dropped.
    async fn hold(&self) -> Box<dyn Any + Send>;

    /// Loses what was appended after a position, as a restore from a backup does.
    async fn lose_after(&self, position: millrace_es::Position);
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).expect("the checks name streams well")
}

fn event(text: &str) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "thing.happened".into(),
        schema_version: 1,
        payload: serde_json::value::to_raw_value(text).expect("a text has a JSON form"),
        metadata: Arc::new(Metadata::default()),
    }
}

fn to(name: &str, expected: ExpectedVersion, events: usize) -> StreamAppend {
    StreamAppend {
        stream: stream(name),
        expected,
        events: (0..events).map(|_| event(name)).collect(),
    }
}

fn append(name: &str, expected: ExpectedVersion, events: usize) -> AppendRequest {
    AppendRequest {
        streams: vec![to(name, expected, events)],
        ..AppendRequest::default()
    }
}
