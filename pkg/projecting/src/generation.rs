use std::fmt;

use millrace_es::{Context, Epoch, Partition, Position};
use millrace_kernel::Timestamp;
use serde::Serialize;

use crate::{error::StoreError, owner::Owner};

/// Names a generation for ever, in its store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct GenerationId(i64);

impl GenerationId {
    /// Takes a number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a generation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationStatus {
    /// Being filled from the log by its rebuild, and by nobody else; no query sees it.
    Loading,
    /// Kept current until it takes over; no query sees it.
    Candidate,
    /// Answers queries of its projection's version.
    Active,
    /// Answered before; kept current, so that a rollback is another switch.
    Retained,
    /// Nobody works on it.
    Retired,
}

/// How a candidate that a rebuild owns is stored: a word of its own, because a release that knows
/// of no owners would switch to every candidate that has caught up.
const REBUILT: &str = "rebuilt";

impl GenerationStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Retained => "retained",
            Self::Retired => "retired",
        }
    }

    /// The word that is stored for it.
    pub(crate) const fn stored(self, owned: bool) -> &'static str {
        match (self, owned) {
            (Self::Candidate, true) => REBUILT,
            _ => self.as_str(),
        }
    }

    /// Reads a stored word. One of a newer release reads as retired: what this release does not
    /// know it leaves alone.
    pub(crate) fn from_stored(text: &str) -> Self {
        let known = [Self::Loading, Self::Candidate, Self::Active, Self::Retained];
        if text == REBUILT {
            return Self::Candidate;
        }
        known
            .into_iter()
            .find(|status| status.as_str() == text)
            .unwrap_or(Self::Retired)
    }

    /// Whether a runner keeps it current.
    #[must_use]
    pub const fn is_worked_on(self) -> bool {
        matches!(self, Self::Candidate | Self::Active | Self::Retained)
    }
}

/// Whether a generation that was replaced may be dropped with the one that `asks`. It may answer again
/// and be replaced by another one, which it is then kept for. One that the release before switched
/// does not say what replaced it.
pub(crate) fn is_kept_for(asks: Option<GenerationId>, replaced_by: Option<GenerationId>) -> bool {
    match (asks, replaced_by) {
        (Some(asks), Some(by)) => asks == by,
        _ => true,
    }
}

/// A whole copy of a projection's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Its name in its store.
    pub id: GenerationId,
    /// The projection.
    pub projection: String,
    /// The version of the projection that folds it.
    pub version: u32,
    /// What it is for.
    pub status: GenerationStatus,
    /// The PostgreSQL schema or the DynamoDB table that holds it.
    pub place: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whose rebuild it comes from; none for one that a projector made by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whether it answers because it was gone back to by force: readers may then go back in time.
    #[serde(skip)]
    pub forced: bool,
}

impl Generation {
    /// The one that answers queries of a version: until the first of its own does, the version
    /// before.
    pub(crate) fn answering(known: &[Self], version: u32) -> Option<&Self> {
        known
            .iter()
            .filter(|one| one.status == GenerationStatus::Active && one.version <= version)
            .max_by_key(|one| one.version)
    }

    /// Of a version's own generations, newest first and each with whether it is of the present life
    /// of its logs: the one to go on with, and candidates that will never take over. One that
    /// answers goes before a candidate, which somebody was quicker than.
    pub(crate) fn to_go_on_with(own: &[(Self, bool)]) -> (Option<&Self>, Vec<&Self>) {
        let present = || {
            own.iter()
                .filter(|(_, present)| *present)
                .map(|(one, _)| one)
        };
        let kept = present()
            .find(|one| one.status == GenerationStatus::Active)
            .or_else(|| present().next());
        let stale = own
            .iter()
            .map(|(one, _)| one)
            .filter(|one| one.status == GenerationStatus::Candidate)
            .filter(|one| kept.is_none_or(|kept| kept.id != one.id));
        (kept, stale.collect())
    }

    /// Whether a rebuild made it and nobody switched to it yet.
    pub(crate) fn is_unfinished(&self) -> bool {
        use GenerationStatus::{Candidate, Loading};
        self.owner.is_some() && matches!(self.status, Loading | Candidate)
    }

    /// An owner's own generation among those of a projection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when it has none, and another's is not done.
    pub(crate) fn of_owner(known: Vec<Self>, owner: &Owner) -> Result<Option<Self>, StoreError> {
        let own = known
            .iter()
            .position(|one| one.owner.as_ref() == Some(owner));
        if let Some(own) = own {
            return Ok(known.into_iter().nth(own));
        }
        let other = known.into_iter().find(Self::is_unfinished);
        match other.map(|one| (one.id, one.projection, one.owner)) {
            Some((generation, projection, Some(owner))) => Err(StoreError::Busy {
                projection,
                generation,
                owner,
            }),
            _ => Ok(None),
        }
    }

    /// Refuses to give up the one that answers; its status may have changed since it was read.
    pub(crate) fn require_idle(&self, status: GenerationStatus) -> Result<(), StoreError> {
        if status != GenerationStatus::Active {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "generation {} of {} answers queries and is not discarded: switch to another one first",
            self.id, self.projection
        )))
    }

    /// Whether it is the one that a runner of its version made by itself, or one that answers: a
    /// candidate that a rebuild owns is neither.
    pub(crate) fn is_own(&self) -> bool {
        match self.status {
            GenerationStatus::Active => true,
            GenerationStatus::Candidate => self.owner.is_none(),
            _ => false,
        }
    }
}

/// What a change of the active generation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// What answered before; it is retained, unless it is of an earlier life of its log. None for
    /// the first generation that answers.
    pub previous: Option<GenerationId>,
}

/// How a generation becomes the one that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// A candidate takes over, once it is nowhere behind.
    Switch,
    /// One that answered before does so again.
    Rollback {
        /// Even if its readers go back by it.
        force: bool,
        /// The version whose readers it is for.
        running: u32,
    },
}

impl Activation {
    /// Whether readers may go back.
    pub(crate) const fn is_forced(self) -> bool {
        matches!(self, Self::Rollback { force: true, .. })
    }

    /// The generation that answers until then. It may be the wanted one.
    pub(crate) fn live<'a>(
        self,
        wanted: &Generation,
        known: &'a [Generation],
    ) -> Option<&'a Generation> {
        let version = match self {
            Self::Switch => wanted.version,
            Self::Rollback { running, .. } => running,
        };
        Generation::answering(known, version)
    }

    /// Those that stop answering when the wanted one begins: the others of its version, and in a
    /// rollback to an earlier version those above it that the running release would prefer.
    pub(crate) fn leaving<'a>(
        self,
        wanted: &'a Generation,
        known: &'a [Generation],
    ) -> impl Iterator<Item = &'a Generation> {
        let newest = match self {
            Self::Switch => wanted.version,
            Self::Rollback { running, .. } => running,
        };
        known.iter().filter(move |one| {
            one.status == GenerationStatus::Active
                && one.id != wanted.id
                && (wanted.version..=newest).contains(&one.version)
        })
    }

    /// Refuses a generation whose status this is not for.
    pub(crate) fn check(self, wanted: &Generation) -> Result<(), StoreError> {
        use GenerationStatus::{Active, Candidate, Loading, Retained, Retired};
        let why = match (self, wanted.status) {
            (_, Retired) => return Err(StoreError::Gone(wanted.id)),
            (Self::Rollback { running, .. }, _) if wanted.version > running => {
                "it is of a newer version than this release reads"
            }
            (Self::Switch, Candidate)
            | (Self::Rollback { .. }, Retained)
            | (Self::Rollback { force: true, .. }, Active) => return Ok(()),
            (Self::Switch, Loading) => "it is still being loaded: finish the rebuild first",
            (Self::Switch, _) => "it answered before: roll back to it instead",
            (Self::Rollback { .. }, _) => {
                "it never answered: only a retained one can be gone back to"
            }
        };
        Err(StoreError::Invalid(format!(
            "generation {} of {} is {} and cannot be made active: {why}",
            wanted.id,
            wanted.projection,
            wanted.status.as_str()
        )))
    }
}

/// One partition of one context: what a projector owns and a checkpoint counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Lane {
    /// The context.
    pub context: Context,
    /// The partition.
    pub partition: Partition,
}

impl Lane {
    /// Names a lane.
    #[must_use]
    pub const fn new(context: Context, partition: Partition) -> Self {
        Self { context, partition }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.context, self.partition)
    }
}

/// How far a generation is in one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The lane.
    pub lane: Lane,
    /// The newest position of the lane whose event is in the rows (or in the dead letters).
    pub position: Position,
    /// The life of the log that the position belongs to.
    pub epoch: Epoch,
}

/// What a generation has to follow in one context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextHead {
    /// The context.
    pub context: Context,
    /// The life of its log.
    pub epoch: Epoch,
    /// The newest position in each partition, by number.
    pub partition_positions: Vec<Position>,
}

impl ContextHead {
    /// Each lane of the context with the newest position in it.
    pub fn lanes(&self) -> impl Iterator<Item = (Lane, Position)> + '_ {
        self.partition_positions
            .iter()
            .zip(0_u16..)
            .map(|(position, number)| {
                let lane = Lane::new(self.context.clone(), Partition::new(number));
                (lane, *position)
            })
    }
}

/// Whether checkpoints belong to the present life of every log they follow.
pub(crate) fn of_this_life(checkpoints: &[Checkpoint], heads: &[ContextHead]) -> bool {
    heads.iter().all(|head| {
        checkpoints
            .iter()
            .filter(|one| one.lane.context == head.context)
            .all(|one| one.epoch == head.epoch)
    })
}

/// Whether two generations follow the same lives of their logs, so that positions compare.
pub(crate) fn of_one_life(own: &[Checkpoint], theirs: &[Checkpoint]) -> bool {
    own.iter().all(|one| {
        theirs
            .iter()
            .filter(|other| other.lane == one.lane)
            .all(|other| other.epoch == one.epoch)
    })
}

/// Refuses checkpoints that are behind in a lane.
pub(crate) fn require_reached(
    candidate: GenerationId,
    own: &[Checkpoint],
    needed: impl Iterator<Item = (Lane, Position)>,
) -> Result<(), StoreError> {
    for (lane, needed) in needed {
        let at = own
            .iter()
            .find(|one| one.lane == lane)
            .map_or(Position::ZERO, |one| one.position);
        if at < needed {
            return Err(StoreError::Behind {
                candidate,
                lane,
                at,
                needed,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_known_is_left_alone() {
        use GenerationStatus::{Active, Candidate, Loading, Retained, Retired};
        for status in [Loading, Candidate, Active, Retained, Retired] {
            for owned in [true, false] {
                assert_eq!(GenerationStatus::from_stored(status.stored(owned)), status);
            }
        }
        // What the release before makes of the words that came since.
        assert_ne!(Candidate.stored(true), Candidate.stored(false));
        assert_eq!(GenerationStatus::from_stored("of-a-later-release"), Retired);
        assert!(!Retired.is_worked_on() && !Loading.is_worked_on());
    }
}
