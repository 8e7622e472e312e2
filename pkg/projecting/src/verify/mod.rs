//! Verification: whether a candidate holds what the live generation holds, before anyone reads it.
//!
//! Two generations of one fold must be equal wherever they have seen the same events. In PostgreSQL
//! they are brought to equal checkpoints for an instant and compared in a snapshot of it; in
//! DynamoDB every item says which events it has seen, and unequal items are read again until both
//! have seen the same. Where the fold changed, what it declares unchanged is compared, and for the
//! rest the rows of sampled streams are folded a second time, straight from the log.
//!
//! The same second fold shows whether a live generation still is what its log makes of it
//! ([`Check`]).

mod against;
mod dynamodb;
mod items;
mod level;
mod live;
mod live_items;
mod postgres;
mod ranges;
mod refold;
mod refold_items;
mod samples;
mod tables;
mod whole;

use std::{future::Future, sync::Arc, time::Duration};

use millrace_eventlog::EventLog;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    error::StoreError,
    generation::{Checkpoint, Generation},
    view::View,
};

pub use against::{
    Check, CheckOptions, Checked, Difference, DifferenceKind, MAX_CHECKED_KEYS, MAX_DIFFERENCES,
};

/// The most keys that a verification names.
pub const MAX_SAMPLE_KEYS: usize = 10;

/// The longest rest after a page, in milliseconds. A verification rests as long as it worked, so
/// that it takes at most half of one connection.
const MAX_REST_MS: u64 = 250;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyMode {
    /// Nothing.
    None,
    /// How many rows there are; in DynamoDB, which items.
    Counts,
    /// What the rows hold.
    Checksum,
}

/// What a verification is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyOptions {
    /// How much is compared.
    pub mode: VerifyMode,
    /// How many mismatches are still accepted. Comparing ends soon after there are more.
    pub max_mismatches: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// How many rows were compared, those of sampled streams included.
    pub compared: u64,
    /// How many of them differ, or are on one side only. Once it is above
    /// [`VerifyOptions::max_mismatches`] there may be more that were not looked for.
    pub mismatches: u64,
    /// Some of their keys as `<table>/<key>`, at most [`MAX_SAMPLE_KEYS`].
    pub sample_keys: Vec<String>,
    /// Where the candidate was: in PostgreSQL the equal checkpoints that were compared at, in
    /// DynamoDB its checkpoints when the comparison ended.
    pub at: Vec<Checkpoint>,
    /// How long the live generation stood still for it, in milliseconds; 0 where it did not.
    pub stood_still_ms: u64,
}

impl Verification {
    /// What is found where there is nothing to compare with.
    pub(crate) const fn of_nothing() -> Self {
        Self {
            compared: 0,
            mismatches: 0,
            sample_keys: Vec::new(),
            at: Vec::new(),
            stood_still_ms: 0,
        }
    }

    /// Whether no more was found than the options accept.
    #[must_use]
    pub const fn is_within(&self, options: &VerifyOptions) -> bool {
        self.mismatches <= options.max_mismatches
    }
}

/// What a verification compares, and with which code and logs.
#[derive(Clone, Copy)]
pub struct Subjects<'a> {
    /// The generation that would take over.
    pub candidate: &'a Generation,
    /// The generation that answers.
    pub live: &'a Generation,
    /// The projection, in the version that folds the candidate.
    pub view: &'a View,
    /// The event logs of the contexts that it reads.
    pub logs: &'a [Arc<dyn EventLog>],
}

impl Subjects<'_> {
    /// Refuses what cannot be compared at all.
    fn check(&self) -> Result<(), StoreError> {
        let (candidate, live, view) = (self.candidate, self.live, self.view);
        let wrong = if candidate.id == live.id {
            "they are one".to_owned()
        } else if candidate.projection != live.projection || candidate.projection != view.name() {
            format!(
                "they are of {} and {}, and the code is of {}",
                candidate.projection,
                live.projection,
                view.name()
            )
        } else if candidate.version != view.version() {
            format!(
                "the candidate is of version {}, this release folds version {}",
                candidate.version,
                view.version()
            )
        } else {
            return Ok(());
        };
        Err(StoreError::Invalid(format!(
            "generations {} and {} cannot be compared: {wrong}",
            candidate.id, live.id
        )))
    }

    /// Whether both are made by the same fold.
    const fn same_fold(&self) -> bool {
        self.candidate.version == self.live.version
    }

    /// Whether what the fold declares unchanged speaks of this live generation: it is a word about
    /// the version just before.
    const fn declaration_holds(&self) -> bool {
        self.live.version + 1 == self.candidate.version
    }
}

/// What has been found so far.
#[derive(Debug)]
struct Findings {
    compared: u64,
    mismatches: u64,
    sample_keys: Vec<String>,
    accepted: u64,
}

impl Findings {
    const fn new(options: &VerifyOptions) -> Self {
        Self {
            compared: 0,
            mismatches: 0,
            sample_keys: Vec::new(),
            accepted: options.max_mismatches,
        }
    }

    /// Counts a row that differs.
    fn mismatch(&mut self, table: &str, key: &str) {
        self.mismatches += 1;
        self.name(&format!("{table}/{key}"));
    }

    /// Names a place of a mismatch.
    fn name(&mut self, place: &str) {
        if self.sample_keys.len() >= MAX_SAMPLE_KEYS {
            return;
        }
        let text = against::shortened(place);
        if !self.sample_keys.contains(&text) {
            self.sample_keys.push(text);
        }
    }

    /// Takes what a second fold found.
    fn add(&mut self, found: &against::Differences) {
        self.compared += found.rows;
        self.mismatches += found.count;
        for difference in &found.named {
            self.name(&difference.row);
        }
    }

    /// Whether more was found than is accepted: what is beyond changes nothing.
    const fn are_enough(&self) -> bool {
        self.mismatches > self.accepted
    }

    fn end(self, at: Vec<Checkpoint>, stood_still: Duration) -> Verification {
        Verification {
            compared: self.compared,
            mismatches: self.mismatches,
            sample_keys: self.sample_keys,
            at,
            stood_still_ms: u64::try_from(stood_still.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Works until it is done or told to stop.
async fn until_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let done = stop.run_until_cancelled(work).await;
    done.unwrap_or(Err(StoreError::Stopped))
}

/// Rests as long as the work since then took, within a bound: a verification is in no hurry.
async fn rest(since: Instant) {
    let rest = since.elapsed().min(Duration::from_millis(MAX_REST_MS));
    tokio::time::sleep(rest).await;
}

fn log_error(error: millrace_eventlog::LogError) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}
