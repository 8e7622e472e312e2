//! Runs: a redrive or a discard of all dead letters that a selector names, as one piece of work with
//! an owner, that can be asked for, stopped and begun again.
//!
//! A run is pushed forward by whoever wants it done: each push begins some more streams, in an order
//! that it goes through once, and says how far it is. What it begins is done by the owners of the
//! partitions, as for single requests; the counts are written together with the letters they count.

use async_trait::async_trait;
use millrace_es::{Position, StreamId};
use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    dead_letters::DeadLetters,
    error::StoreError,
    letters::{Action, DeadLetter, Reason},
    owner::Owner,
    postgres::PgStore,
    store::Settled,
    view::View,
};

/// The most streams of a run whose letters are being worked on together.
pub const MAX_OPEN_STREAMS: usize = 50;

/// The most ranges of positions, and the most keys, of a selector.
pub const MAX_SELECTOR_ENTRIES: usize = 1_000;

/// Positions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionRange {
    /// The first.
    pub from: Position,
    /// The last.
    pub to: Position,
}

impl PositionRange {
    /// One position.
    #[must_use]
    pub const fn only(position: Position) -> Self {
        Self {
            from: position,
            to: position,
        }
    }

    fn contains(self, position: Position) -> bool {
        self.from <= position && position <= self.to
    }
}

/// Which waiting letters are named. What is not set does not matter; without anything, all are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterSelector {
    /// The event's position is in one of these.
    pub positions: Vec<PositionRange>,
    /// Failed first at or after.
    pub since: Option<Timestamp>,
    /// Failed first before.
    pub until: Option<Timestamp>,
    /// The class of the reason.
    pub reason: Option<Reason>,
    /// The event's stream, which is the key that is parked, is one of these.
    pub keys: Vec<StreamId>,
}

impl LetterSelector {
    pub(crate) fn matches(&self, letter: &DeadLetter) -> bool {
        let mut ranges = self.positions.iter();
        (self.positions.is_empty() || ranges.any(|range| range.contains(letter.position)))
            && self.since.is_none_or(|since| letter.first_failure >= since)
            && self.until.is_none_or(|until| letter.first_failure < until)
            && self.reason.is_none_or(|reason| letter.reason == reason)
            && (self.keys.is_empty() || self.keys.contains(&letter.stream))
    }

    fn check(&self) -> Result<(), StoreError> {
        for (what, count) in [
            ("ranges of positions", self.positions.len()),
            ("keys", self.keys.len()),
        ] {
            if count > MAX_SELECTOR_ENTRIES {
                return Err(StoreError::Invalid(format!(
                    "a selector has at most {MAX_SELECTOR_ENTRIES} {what}, this one has {count}: make several runs"
                )));
            }
        }
        if let Some(range) = self.positions.iter().find(|range| range.from > range.to) {
            return Err(StoreError::Invalid(format!(
                "positions {} to {} are none: the first is above the last",
                range.from, range.to
            )));
        }
        Ok(())
    }
}

/// What becomes of a run when a letter fails again. The letter waits again either way, and its
/// stream stays parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run goes on with the other streams.
    Park,
    /// No further stream is begun. Such a run works on one stream at a time.
    Stop,
}

impl OnFailure {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Stop => "stop",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Park, Self::Stop]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// What a run is to do.
///
/// A redrive takes every waiting letter of a stream that has a named one, oldest first, up to the
/// first that fails again: a letter cannot go before those it follows, and its stream is released
/// only when none is left. A discard gives up the named letters and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRun {
    /// The projection.
    pub projection: String,
    /// Which letters.
    pub selector: LetterSelector,
    /// What to do about them.
    pub action: Action,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// The most letters that are tried, those that fail again included.
    pub max_messages: Option<u64>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// There is more to do.
    Running,
    /// All that was named was tried, or as much as it may.
    Done,
    /// A letter failed again, and the run was to stop then.
    Stopped,
    /// It was cancelled. What was done stays done.
    Cancelled,
}

impl RunStatus {
    const ALL: [Self; 4] = [Self::Running, Self::Done, Self::Stopped, Self::Cancelled];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunState {
    /// Whose it is.
    pub owner: Owner,
    /// The projection.
    pub projection: String,
    /// Where it stands.
    pub status: RunStatus,
    /// How many letters it found to take when it began.
    pub matched: u64,
    /// How many were folded after all.
    pub redriven: u64,
    /// How many were given up.
    pub discarded: u64,
    /// How many failed again and wait.
    pub failed: u64,
    /// How many streams were begun and are not done.
    pub open: u64,
}

/// A run as its store keeps it.
#[derive(Debug, Clone)]
pub(crate) struct StoredRun {
    pub(crate) state: RunState,
    pub(crate) run: LetterRun,
    /// The version whose generations it is about.
    pub(crate) version: u32,
}

/// What a push may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing more: it ends so.
    End(RunStatus),
    /// Nothing until what is open is done.
    Wait,
    /// At most so many streams, with at most so many letters together.
    Begin {
        streams: usize,
        letters: Option<u64>,
    },
}

impl StoredRun {
    /// What comes next, with streams open that may take `reserved` letters yet.
    pub(crate) fn next(&self, open: usize, reserved: u64) -> Next {
        let state = &self.state;
        let used = state.redriven + state.discarded + state.failed;
        let left = |max: u64| max.saturating_sub(used).saturating_sub(reserved);
        let letters = self.run.max_messages.map(left);
        let stopped = self.run.on_failure == OnFailure::Stop && state.failed > 0;
        let most = match self.run.on_failure {
            OnFailure::Park => MAX_OPEN_STREAMS,
            OnFailure::Stop => 1,
        };
        let ends = if stopped {
            Some(RunStatus::Stopped)
        } else {
            (letters == Some(0)).then_some(RunStatus::Done)
        };
        match ends {
            Some(status) if open == 0 => Next::End(status),
            None if open < most => Next::Begin {
                streams: most - open,
                letters,
            },
            _ => Next::Wait,
        }
    }

    /// Whether it is what somebody wants to begin.
    pub(crate) fn require_same(&self, run: &LetterRun) -> Result<(), StoreError> {
        if self.run == *run {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "{} has begun another run, on {}: take another owner",
            self.state.owner, self.run.projection
        )))
    }
}

/// What a run allows one of its requests.
#[derive(Debug, Clone)]
pub(crate) struct RunPart {
    pub(crate) owner: Owner,
    /// How many letters it may still take.
    pub(crate) max_letters: Option<u64>,
}

impl Settled {
    /// How many letters were tried.
    pub(crate) fn tried(&self) -> u64 {
        self.redriven + self.discarded + self.failed()
    }

    /// How many failed again.
    pub(crate) fn failed(&self) -> u64 {
        u64::from(self.failed_again.is_some())
    }
}

/// Runs in one store.
#[async_trait]
pub(crate) trait LetterRuns: Send + Sync {
    async fn count_run(&self, run: &LetterRun, version: u32) -> Result<u64, StoreError>;
    async fn begin_run(
        &self,
        owner: &Owner,
        run: &LetterRun,
        version: u32,
    ) -> Result<RunState, StoreError>;
    async fn find_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError>;
    async fn advance_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError>;
    async fn cancel_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError>;
    async fn forget_run(&self, owner: &Owner) -> Result<(), StoreError>;
}

impl DeadLetters {
    /// How many letters a run would find to take now; nothing is begun.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it can never work; else see [`StoreError`].
    pub async fn count_run(&self, run: &LetterRun) -> Result<u64, StoreError> {
        run.selector.check()?;
        let view = self.named(&run.projection)?;
        self.runs_of(view)?.count_run(run, view.version()).await
    }

    /// Begins a run, or finds the one that its owner began. It is about the generations of the
    /// projection's running version, and nothing is done before it is pushed
    /// ([`DeadLetters::advance_run`]).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the owner has begun another one, or it can never work; else see
    /// [`StoreError`].
    pub async fn begin_run(&self, owner: &Owner, run: &LetterRun) -> Result<RunState, StoreError> {
        run.selector.check()?;
        let view = self.named(&run.projection)?;
        let store = self.runs_of(view)?;
        store.begin_run(owner, run, view.version()).await
    }

    /// How far an owner's run is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        for store in self.all_runs() {
            if let Some(state) = store.find_run(owner).await? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Pushes a run: begins as many streams as may be worked on together, and says how far it is.
    /// To be called about once a second until its status is not [`RunStatus::Running`] any more.
    /// Several callers do no harm.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn advance_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        for store in self.all_runs() {
            if let Some(state) = store.advance_run(owner).await? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Cancels a run that is not over. What it has begun and nobody has done is withdrawn; after
    /// this not one more letter is touched for it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancel_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        for store in self.all_runs() {
            if let Some(state) = store.cancel_run(owner).await? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Cancels a run and removes what is kept of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_run(&self, owner: &Owner) -> Result<(), StoreError> {
        for store in self.all_runs() {
            if store.cancel_run(owner).await?.is_some() {
                store.forget_run(owner).await?;
            }
        }
        Ok(())
    }

    fn all_runs(&self) -> impl Iterator<Item = &dyn LetterRuns> {
        let postgres = self.postgres.iter().flat_map(PgStore::all);
        let postgres = postgres.map(|store| store as &dyn LetterRuns);
        let dynamodb = self.dynamodb.as_ref().map(|store| store as &dyn LetterRuns);
        postgres.chain(dynamodb)
    }

    fn runs_of(&self, view: &View) -> Result<&dyn LetterRuns, StoreError> {
        use crate::view::StoreKind;
        view.require_rows()?;
        match (view.store(), &self.postgres, &self.dynamodb) {
            (StoreKind::Postgres, Some(store), _) => Ok(store.of(view.name())),
            (StoreKind::DynamoDb, _, Some(store)) => Ok(store),
            _ => Err(view.no_store()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(on_failure: OnFailure, max_messages: Option<u64>, failed: u64) -> StoredRun {
        StoredRun {
            state: RunState {
                owner: Owner::new("owner-1").unwrap(),
                projection: "items".to_owned(),
                status: RunStatus::Running,
                matched: 100,
                redriven: 10,
                discarded: 0,
                failed,
                open: 0,
            },
            run: LetterRun {
                projection: "items".to_owned(),
                selector: LetterSelector::default(),
                action: Action::Redrive,
                on_failure,
                max_messages,
            },
            version: 1,
        }
    }

    #[test]
    fn a_run_begins_no_more_than_it_may() {
        let begin = |streams, letters| Next::Begin { streams, letters };
        let run = stored(OnFailure::Park, None, 3);
        assert_eq!(run.next(0, 0), begin(MAX_OPEN_STREAMS, None));
        assert_eq!(run.next(MAX_OPEN_STREAMS - 1, 0), begin(1, None));
        assert_eq!(run.next(MAX_OPEN_STREAMS, 0), Next::Wait);
        let run = stored(OnFailure::Park, Some(20), 3);
        assert_eq!(run.next(1, 5), begin(MAX_OPEN_STREAMS - 1, Some(2)));
        assert_eq!(run.next(1, 7), Next::Wait);
        let run = stored(OnFailure::Park, Some(13), 3);
        assert_eq!(run.next(0, 0), Next::End(RunStatus::Done));
    }

    #[test]
    fn a_run_that_stops_begins_nothing_after_a_failure() {
        let run = stored(OnFailure::Stop, None, 0);
        let one = Next::Begin {
            streams: 1,
            letters: None,
        };
        assert_eq!(run.next(0, 0), one);
        assert_eq!(run.next(1, 0), Next::Wait);
        let run = stored(OnFailure::Stop, None, 1);
        assert_eq!(run.next(1, 0), Next::Wait);
        assert_eq!(run.next(0, 0), Next::End(RunStatus::Stopped));
    }

    #[test]
    fn owners_are_names() {
        for wrong in ["", "Upper", "a b", &"x".repeat(65)] {
            assert!(Owner::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(Owner::new("0b5e-11").is_ok());
    }
}
