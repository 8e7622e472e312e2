//! The keys of the control table `<namespace>_projections`, which holds for views in DynamoDB what
//! the schema `projections` holds for views in PostgreSQL. A stored format.

use millrace_es::{Position, StreamId};

use crate::{
    generation::{GenerationId, Lane},
    owner::Owner,
    stores::Item,
};

use super::values::text;

/// The control table's partition key.
pub(super) const PK: &str = "pk";
/// The control table's sort key.
pub(super) const SK: &str = "sk";

fn key(pk: String, sk: String) -> Item {
    Item::from([(PK.to_owned(), text(pk)), (SK.to_owned(), text(sk))])
}

/// The number that the newest generation got.
pub(super) fn counter() -> Item {
    key("counter".to_owned(), "generation".to_owned())
}

pub(super) fn generations(projection: &str) -> String {
    format!("generation#{projection}")
}

pub(super) fn generation(projection: &str, id: GenerationId) -> Item {
    key(generations(projection), format!("{:010}", id.get()))
}

/// The item whose revision changes whenever a projection's generations do.
pub(super) fn pointer(projection: &str) -> Item {
    key(format!("pointer#{projection}"), "revision".to_owned())
}

pub(super) fn checkpoints(generation: GenerationId) -> String {
    format!("checkpoint#{generation}")
}

pub(super) fn checkpoint(generation: GenerationId, lane: &Lane) -> Item {
    key(checkpoints(generation), lane_key(lane))
}

fn lane_key(lane: &Lane) -> String {
    format!("{}#{:05}", lane.context, lane.partition.get())
}

pub(super) fn parked_keys(generation: GenerationId) -> String {
    format!("parked#{generation}")
}

/// What the parked streams of a lane begin with.
pub(super) fn parked_prefix(lane: &Lane) -> String {
    format!("{}#", lane_key(lane))
}

pub(super) fn parked(generation: GenerationId, lane: &Lane, stream: &StreamId) -> Item {
    key(
        parked_keys(generation),
        format!("{}{stream}", parked_prefix(lane)),
    )
}

pub(super) fn letters(generation: GenerationId) -> String {
    format!("letter#{generation}")
}

/// What the letters of a stream begin with. Those of a stream whose name goes on with `#` do too,
/// so the stream is compared as well.
pub(super) fn letter_prefix(lane: &Lane, stream: &StreamId) -> String {
    format!("{}#{stream}#", lane_key(lane))
}

pub(super) fn letter(
    generation: GenerationId,
    lane: &Lane,
    stream: &StreamId,
    position: Position,
) -> Item {
    key(
        letters(generation),
        format!("{}{:020}", letter_prefix(lane, stream), position.get()),
    )
}

/// Requests that wait; those that are done stand apart, so that looking for work stays cheap.
pub(super) fn open_requests(generation: GenerationId) -> String {
    format!("open-request#{generation}")
}

pub(super) fn open_request(generation: GenerationId, id: &str) -> Item {
    key(open_requests(generation), id.to_owned())
}

pub(super) fn done_requests(generation: GenerationId) -> String {
    format!("done-request#{generation}")
}

pub(super) fn done_request(generation: GenerationId, id: &str) -> Item {
    key(done_requests(generation), id.to_owned())
}

/// A run over dead letters.
pub(super) fn letter_run(owner: &Owner) -> Item {
    key("letter-run".to_owned(), owner.as_str().to_owned())
}
