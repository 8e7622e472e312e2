use std::{collections::HashSet, ops::Range, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::{Client, types::TransactWriteItem};
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use millrace_kernel::Timestamp;

use super::{
    actions::Control,
    control,
    items::{MAX_TRANSACTION_ACTIONS, Table, Transacted, check_reason, pause, transact},
    letters,
    values::DynamoFailure,
    view::{DynamoView, ItemWrite},
};
use crate::{
    batch::{Batch, Chunk, Move, NewLetter, Parked},
    error::{StoreError, unavailable},
    generation::{Checkpoint, Generation, GenerationId, Lane},
    letters::Reason,
    store::{GenerationStore, Request, Settled},
};

/// Letters of one transaction: each takes two actions, and the checkpoint's check one.
const MAX_LETTERS_PER_TRANSACTION: usize = 49;

/// How often a checkpoint's transaction whose rivals win is tried again before the batch backs
/// off.
const MAX_CONFLICT_RETRIES: u32 = 8;

/// One generation of a view in DynamoDB, open for folding.
///
/// There is no transaction around a batch. Every item carries the position it has seen and is
/// written only over an older one, and the checkpoint moves last: what a crash leaves half done is
/// done again without effect.
pub(crate) struct DynamoGeneration {
    pub(super) client: Client,
    pub(super) id: GenerationId,
    pub(super) table: Table,
    pub(super) control: Control,
    pub(super) view: Arc<dyn DynamoView>,
    /// Whether the checkpoints count the events: only while a rebuild loads.
    counts: bool,
}

impl DynamoGeneration {
    pub(super) fn new(
        client: Client,
        control_table: String,
        generation: &Generation,
        view: Arc<dyn DynamoView>,
        counts: bool,
    ) -> Self {
        let control = Control {
            table: control_table,
            generation: generation.id,
        };
        let table = Table {
            client: client.clone(),
            name: generation.place.clone(),
        };
        Self {
            client,
            id: generation.id,
            table,
            control,
            view,
            counts,
        }
    }

    /// The whole batch at once.
    async fn apply_whole(
        &self,
        batch: &Batch,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, DynamoFailure> {
        let (writes, letters) = self
            .view
            .fold(&self.table, batch, 0..batch.len(), parked)
            .await?;
        let moves = batch.moves();
        if !letters.is_empty() {
            self.table.store(&writes).await?;
            self.keep_letters(&letters, &moves).await?;
            self.store_and_move(&[], &moves).await?;
            return Ok(letters);
        }
        // The last items travel with the checkpoints: a small batch is a single request.
        let room = MAX_TRANSACTION_ACTIONS.saturating_sub(moves.len());
        let (first, last) = writes.split_at(writes.len().saturating_sub(room));
        self.table.store(first).await?;
        self.store_and_move(last, &moves).await?;
        Ok(letters)
    }

    /// In halves, until the events whose items are refused for good stand alone. Writing an item
    /// again is without effect, so nothing has to be taken back.
    async fn apply_bisecting(
        &self,
        batch: &Batch,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, DynamoFailure> {
        let mut parked = parked.clone();
        let mut letters: Vec<NewLetter> = Vec::new();
        let whole: Range<usize> = 0..batch.len();
        let mut left = Vec::from([whole]);
        while let Some(range) = left.pop() {
            let found = match self.write_range(batch, range.clone(), &parked).await {
                Ok(found) => found,
                Err(DynamoFailure::Data(_)) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    left.push(middle..range.end);
                    left.push(range.start..middle);
                    continue;
                }
                Err(DynamoFailure::Data(error)) => batch
                    .event(range.start)
                    .map(|(lane, event)| NewLetter::new(lane, event, Reason::Store, &*error))
                    .into_iter()
                    .collect(),
                Err(other) => return Err(other),
            };
            for letter in &found {
                parked.insert(&letter.lane, &letter.event.stream);
            }
            letters.extend(found);
        }
        let moves = batch.moves();
        self.keep_letters(&letters, &moves).await?;
        self.store_and_move(&[], &moves).await?;
        Ok(letters)
    }

    async fn write_range(
        &self,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, DynamoFailure> {
        let (writes, letters) = self.view.fold(&self.table, batch, range, parked).await?;
        self.table.store(&writes).await?;
        Ok(letters)
    }

    /// Keeps letters and parks their streams before the checkpoint moves, and only while it is
    /// where this owner left it: a zombie parks nothing.
    async fn keep_letters(
        &self,
        letters: &[NewLetter],
        moves: &[Move],
    ) -> Result<(), DynamoFailure> {
        let now = Timestamp::now();
        for one in moves {
            let at = Checkpoint {
                lane: one.lane.clone(),
                position: one.from,
                epoch: one.epoch,
            };
            let of_lane: Vec<&NewLetter> = letters
                .iter()
                .filter(|letter| letter.lane == one.lane)
                .collect();
            for page in of_lane.chunks(MAX_LETTERS_PER_TRANSACTION) {
                let mut actions = vec![self.control.require_checkpoint(&at)?];
                let mut streams = HashSet::new();
                for letter in page {
                    actions.push(self.control.put_letter(letter, now)?);
                    let stream = &letter.event.stream;
                    if streams.insert(stream) {
                        actions.push(self.control.park(&letter.lane, stream, now)?);
                    }
                }
                self.transact_fenced(actions, &at.lane).await?;
            }
        }
        Ok(())
    }

    /// Runs a transaction whose only condition is the fence of a lane.
    pub(super) async fn transact_fenced(
        &self,
        actions: Vec<TransactWriteItem>,
        lane: &Lane,
    ) -> Result<(), DynamoFailure> {
        for attempt in 0..=MAX_CONFLICT_RETRIES {
            let reasons = match transact(&self.client, actions.clone()).await? {
                Transacted::Done => return Ok(()),
                Transacted::Cancelled(reasons) => reasons,
            };
            for reason in &reasons {
                match reason.code() {
                    Some("ConditionalCheckFailed") => return Err(self.fenced(lane)),
                    code => check_reason(code, reason)?,
                }
            }
            pause(attempt).await;
        }
        Err(conflicts())
    }

    /// Writes the last items of a batch and moves its checkpoints, in one transaction. Items that
    /// are newer already are taken out; a checkpoint that is elsewhere is the end.
    async fn store_and_move(
        &self,
        writes: &[ItemWrite],
        moves: &[Move],
    ) -> Result<(), DynamoFailure> {
        let now = Timestamp::now();
        let mut left: Vec<&ItemWrite> = writes.iter().collect();
        for attempt in 0..=MAX_CONFLICT_RETRIES {
            let mut actions = left
                .iter()
                .map(|write| self.table.guarded_put(write))
                .collect::<Result<Vec<_>, _>>()?;
            for one in moves {
                actions.push(self.control.move_checkpoint(one, now, self.counts)?);
            }
            let reasons = match transact(&self.client, actions).await? {
                Transacted::Done => return Ok(()),
                Transacted::Cancelled(reasons) => reasons,
            };
            let mut newer = HashSet::new();
            for (index, reason) in reasons.iter().enumerate() {
                match reason.code() {
                    Some("ConditionalCheckFailed") => {
                        match moves.get(index.wrapping_sub(left.len())) {
                            Some(one) => return Err(self.fenced(&one.lane)),
                            None => {
                                newer.insert(index);
                            }
                        }
                    }
                    code => check_reason(code, reason)?,
                }
            }
            if newer.is_empty() {
                pause(attempt).await;
            }
            let mut index = 0;
            left.retain(|_| {
                index += 1;
                !newer.contains(&(index - 1))
            });
        }
        Err(conflicts())
    }

    pub(super) fn fenced(&self, lane: &Lane) -> DynamoFailure {
        DynamoFailure::Failed(StoreError::Fenced {
            generation: self.id,
            lane: lane.clone(),
        })
    }
}

pub(super) fn conflicts() -> DynamoFailure {
    DynamoFailure::Transient(unavailable("transactions conflict"))
}

pub(crate) fn store_failure(failure: DynamoFailure) -> StoreError {
    match failure {
        DynamoFailure::Transient(error) | DynamoFailure::Failed(error) => error,
        DynamoFailure::Data(source) => StoreError::Unusable(source),
    }
}

#[async_trait]
impl GenerationStore for DynamoGeneration {
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let found = control::checkpoints(&self.client, &self.control.table, self.id).await?;
        if found.is_empty() {
            return Err(StoreError::Gone(self.id));
        }
        Ok(found)
    }

    async fn parked(&self, lane: &Lane) -> Result<HashSet<StreamId>, StoreError> {
        letters::parked(self, lane).await
    }

    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>) {
        self.view.decode(lane, epoch, previous, events)
    }

    async fn apply(&self, batch: &Batch, parked: &Parked) -> Result<Vec<NewLetter>, StoreError> {
        match self.apply_whole(batch, parked).await {
            Err(DynamoFailure::Data(_)) => {}
            other => return other.map_err(store_failure),
        }
        self.apply_bisecting(batch, parked)
            .await
            .map_err(store_failure)
    }

    async fn requests(&self, lanes: &[Lane]) -> Result<Vec<Request>, StoreError> {
        letters::requests(self, lanes).await
    }

    async fn settle(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Settled, StoreError> {
        letters::settle(self, request, checkpoint)
            .await
            .map_err(store_failure)
    }

    async fn pending_letters(&self) -> Result<u64, StoreError> {
        letters::count_pending(self).await
    }
}
