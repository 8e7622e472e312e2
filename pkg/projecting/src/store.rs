use async_trait::async_trait;
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use std::collections::HashSet;

use crate::{
    batch::{Batch, Chunk, NewLetter, Parked},
    error::StoreError,
    generation::{Checkpoint, Lane},
    letter_runs::{LetterSelector, PositionRange, RunPart},
    letters::{Action, RequestId},
};

/// A generation as the process that folds into it sees it, whatever the store.
#[async_trait]
pub(crate) trait GenerationStore: Send + Sync {
    /// Where every lane is.
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError>;

    /// The parked streams of a lane.
    async fn parked(&self, lane: &Lane) -> Result<HashSet<StreamId>, StoreError>;

    /// See [`Chunk::decode`].
    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>);

    /// Folds a batch into the rows and moves the checkpoints with it; the effect of each event is
    /// there exactly once, whoever else tries. Gives the events that became dead letters.
    async fn apply(&self, batch: &Batch, parked: &Parked) -> Result<Vec<NewLetter>, StoreError>;

    /// The requests about dead letters that wait for the owners of these lanes, oldest first.
    async fn requests(&self, lanes: &[Lane]) -> Result<Vec<Request>, StoreError>;

    /// Does what a request asks, in order of the stream, provided that the checkpoint is where the
    /// owner left it.
    async fn settle(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Settled, StoreError>;

    /// The lanes that a verification holds, and how far each may go meanwhile.
    async fn holds(&self) -> Result<Vec<(Lane, Position)>, StoreError> {
        Ok(Vec::new())
    }

    /// How many letters wait.
    async fn pending_letters(&self) -> Result<u64, StoreError>;
}

/// A request about the letters of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) lane: Lane,
    pub(crate) stream: StreamId,
    pub(crate) action: Action,
    /// Discard only this letter; all of the stream without.
    pub(crate) position: Option<Position>,
    /// The run that it belongs to.
    pub(crate) part: Option<RunPart>,
}

impl Request {
    /// Which letters of the stream it is about, where no run says it.
    pub(crate) fn selector(&self) -> LetterSelector {
        LetterSelector {
            positions: self.position.map(PositionRange::only).into_iter().collect(),
            ..LetterSelector::default()
        }
    }

    /// How many letters it may take; all without.
    pub(crate) fn max_letters(&self) -> Option<u64> {
        self.part.as_ref().and_then(|part| part.max_letters)
    }
}

/// What a request came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) redriven: u64,
    pub(crate) discarded: u64,
    /// The stream has no letters left: its events are folded again.
    pub(crate) released: bool,
    /// Why a letter failed again.
    pub(crate) failed_again: Option<String>,
    /// There is more to do than one step may hold; the request stays open.
    pub(crate) unfinished: bool,
    /// Nothing was done: its run is over.
    pub(crate) withdrawn: bool,
}

impl Settled {
    /// The outcome in words, kept with the request.
    pub(crate) fn describe(&self) -> String {
        if self.withdrawn {
            return "withdrawn".to_owned();
        }
        let mut text = format!("{} redriven, {} discarded", self.redriven, self.discarded);
        if self.released {
            text.push_str(", stream released");
        }
        if let Some(error) = &self.failed_again {
            text.push_str(", failed again: ");
            text.push_str(error);
        }
        text
    }
}
