//! Actions on the control table, as parts of transactions.

use aws_sdk_dynamodb::types::{ConditionCheck, Delete, TransactWriteItem, Update};
use millrace_es::{Position, StreamId};
use millrace_kernel::Timestamp;

use super::{
    keys,
    values::{DynamoFailure, number, text},
};
use crate::{
    batch::{Move, NewLetter},
    generation::{Checkpoint, GenerationId, Lane},
    letter_runs::RunStatus,
    letters::{LetterStatus, RequestId},
    store::{Request, Settled},
};

/// Where a generation's records are.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) table: String,
    pub(super) generation: GenerationId,
}

/// What a run counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Redriven,
    Discarded,
    Failed,
}

impl Counted {
    pub(super) const fn attribute(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
            Self::Failed => "failed",
        }
    }
}

type Action = Result<TransactWriteItem, DynamoFailure>;

/// A request that the SDK cannot even build is a mistake here, never one of the data.
fn defect(error: aws_sdk_dynamodb::error::BuildError) -> DynamoFailure {
    DynamoFailure::Failed(crate::error::StoreError::Unusable(Box::new(error)))
}

impl Control {
    /// Moves a checkpoint from where its owner believes it to be, and with `counts` says with it
    /// how many events that were.
    pub(super) fn move_checkpoint(&self, one: &Move, now: Timestamp, counts: bool) -> Action {
        let mut update = Update::builder();
        let mut change = "SET #p = :to, updated_at = :now";
        if counts {
            change = "SET #p = :to, updated_at = :now ADD events :events";
            update = update.expression_attribute_values(":events", number(one.events));
        }
        let update = update
            .table_name(&self.table)
            .set_key(Some(keys::checkpoint(self.generation, &one.lane)))
            .update_expression(change)
            .condition_expression("#p = :from AND epoch = :epoch")
            .expression_attribute_names("#p", "position")
            .expression_attribute_values(":from", number(one.from))
            .expression_attribute_values(":to", number(one.to))
            .expression_attribute_values(":epoch", number(one.epoch))
            .expression_attribute_values(":now", text(now.to_string()))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Requires a checkpoint to be where its owner left it.
    pub(super) fn require_checkpoint(&self, at: &Checkpoint) -> Action {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(keys::checkpoint(self.generation, &at.lane)))
            .condition_expression("#p = :at AND epoch = :epoch")
            .expression_attribute_names("#p", "position")
            .expression_attribute_values(":at", number(at.position))
            .expression_attribute_values(":epoch", number(at.epoch))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// Keeps a letter. One that is there already, from an attempt that died before its checkpoint,
    /// keeps the reason it was first given.
    pub(super) fn put_letter(&self, letter: &NewLetter, now: Timestamp) -> Action {
        let event = serde_json::to_string(&letter.event)
            .map_err(|error| DynamoFailure::Data(Box::new(error)))?;
        let (lane, stream) = (&letter.lane, &letter.event.stream);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::letter(
                self.generation,
                lane,
                stream,
                letter.event.position,
            )))
            .update_expression(
                "SET #c = :context, #n = :partition, #p = :position, #s = :stream, #e = :event, \
                 reason = if_not_exists(reason, :reason), #x = if_not_exists(#x, :error), \
                 attempts = if_not_exists(attempts, :one), \
                 first_failure = if_not_exists(first_failure, :now), \
                 last_failure = if_not_exists(last_failure, :now), \
                 #t = if_not_exists(#t, :pending)",
            )
            .expression_attribute_names("#c", "context")
            .expression_attribute_names("#n", "partition")
            .expression_attribute_names("#p", "position")
            .expression_attribute_names("#s", "stream")
            .expression_attribute_names("#e", "event")
            .expression_attribute_names("#x", "error")
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":context", text(lane.context.as_str()))
            .expression_attribute_values(":partition", number(lane.partition))
            .expression_attribute_values(":position", number(letter.event.position))
            .expression_attribute_values(":stream", text(stream.as_str()))
            .expression_attribute_values(":event", text(event))
            .expression_attribute_values(":reason", text(letter.reason.as_str()))
            .expression_attribute_values(":error", text(letter.error.as_str()))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":now", text(now.to_string()))
            .expression_attribute_values(":pending", text(LetterStatus::Pending.as_str()))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Parks a stream.
    pub(super) fn park(&self, lane: &Lane, stream: &StreamId, now: Timestamp) -> Action {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::parked(self.generation, lane, stream)))
            .update_expression("SET #s = :stream, parked_at = if_not_exists(parked_at, :now)")
            .expression_attribute_names("#s", "stream")
            .expression_attribute_values(":stream", text(stream.as_str()))
            .expression_attribute_values(":now", text(now.to_string()))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Lets a stream's events be folded again.
    pub(super) fn release(&self, lane: &Lane, stream: &StreamId) -> Action {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(keys::parked(self.generation, lane, stream)))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Says how a letter ended that waited until now: of two that say it, one is too late.
    pub(super) fn end_letter(
        &self,
        lane: &Lane,
        stream: &StreamId,
        position: Position,
        status: LetterStatus,
    ) -> Action {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::letter(self.generation, lane, stream, position)))
            .update_expression("SET #t = :status")
            .condition_expression("#t = :pending")
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":status", text(status.as_str()))
            .expression_attribute_values(":pending", text(LetterStatus::Pending.as_str()))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Counts letters for the run of a request, while the run goes on, and takes them off what the
    /// request may still take. Nothing for a request without a run.
    pub(super) fn count_letters(
        &self,
        request: &Request,
        what: Counted,
        letters: usize,
    ) -> Result<Vec<TransactWriteItem>, DynamoFailure> {
        let Some(part) = &request.part else {
            return Ok(Vec::new());
        };
        let run = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::letter_run(&part.owner)))
            .update_expression("ADD #f :letters")
            .condition_expression("#t = :running")
            .expression_attribute_names("#f", what.attribute())
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":letters", number(letters))
            .expression_attribute_values(":running", text(RunStatus::Running.as_str()))
            .build()
            .map_err(defect)?;
        // Two that do the same request count its letters once: it is there, or it is done.
        let open = keys::open_request(self.generation, &request.id.0);
        let request = if part.max_letters.is_some() {
            let taken = Update::builder()
                .table_name(&self.table)
                .set_key(Some(open))
                .update_expression("SET max_letters = max_letters - :letters")
                .condition_expression("attribute_exists(max_letters)")
                .expression_attribute_values(":letters", number(letters))
                .build()
                .map_err(defect)?;
            TransactWriteItem::builder().update(taken)
        } else {
            let there = ConditionCheck::builder()
                .table_name(&self.table)
                .set_key(Some(open))
                .condition_expression("attribute_exists(pk)")
                .build()
                .map_err(defect)?;
            TransactWriteItem::builder().condition_check(there)
        };
        let run = TransactWriteItem::builder().update(run);
        Ok(vec![run.build(), request.build()])
    }

    /// Says that and why a letter failed again.
    pub(super) fn fail_letter(
        &self,
        lane: &Lane,
        stream: &StreamId,
        position: Position,
        (reason, error): (&str, &str),
        now: Timestamp,
    ) -> Action {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::letter(self.generation, lane, stream, position)))
            .update_expression(
                "SET reason = :reason, #x = :error, last_failure = :now ADD attempts :one",
            )
            .expression_attribute_names("#x", "error")
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":error", text(error))
            .expression_attribute_values(":now", text(now.to_string()))
            .expression_attribute_values(":one", number(1))
            .build()
            .map_err(defect)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Closes a request with its outcome.
    pub(super) fn finish(
        &self,
        id: &RequestId,
        settled: &Settled,
        now: Timestamp,
    ) -> Result<[TransactWriteItem; 2], DynamoFailure> {
        let open = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(keys::open_request(self.generation, &id.0)))
            .build()
            .map_err(defect)?;
        let done = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::done_request(self.generation, &id.0)))
            .update_expression("SET finished_at = :now, outcome = :outcome")
            .expression_attribute_values(":now", text(now.to_string()))
            .expression_attribute_values(":outcome", text(settled.describe()))
            .build()
            .map_err(defect)?;
        Ok([
            TransactWriteItem::builder().delete(open).build(),
            TransactWriteItem::builder().update(done).build(),
        ])
    }
}
