//! The resource's status: what the driver found and did, for people and tools, and the few facts
//! that it cannot find again: when something happened, and how a comparison ended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most letters of a message that a status carries.
pub const MAX_MESSAGE_CHARS: usize = 1_024;
/// The most keys that a verification names.
pub const MAX_SAMPLE_KEYS: usize = 10;
/// The most letters of such a key.
pub const MAX_SAMPLE_KEY_CHARS: usize = 128;

/// Where a replay stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplayStatus {
    /// The generation of the spec that this status answers; −1 before the first.
    pub observed_generation: i64,
    /// `Succeeded` and `Ready` always; `Reconciling` and `Stalled` only while True; `Validated`,
    /// `CaughtUp`, `Verified`, `CutOver`, `Suspended` as far as it came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
    /// Where it stands, in a word, for people; tools read the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The positions that are replayed, one range for each context that the projection reads,
    /// frozen at the start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["context"]
    ))]
    pub targets: Vec<Target>,
    /// What would happen or happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// How far the work is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The generations it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generations: Option<Generations>,
    /// How the comparison ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// How many letters were dealt with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redrive: Option<RedriveStatus>,
    /// When the switch began. From here it cannot be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutover_started: Option<Time>,
    /// How many replays of the projection come before this one; 0 when it is about to take its
    /// turn, not set when it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// The Job that does the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_ref: Option<JobRef>,
    /// How often the work failed.
    pub attempts: u32,
    /// The last failure, also one that passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When its turn came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the new generation was first within `cutover.maxLag` of the heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_time: Option<Time>,
    /// When the switch happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_time: Option<Time>,
    /// When it ended, however it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

impl Default for ReplayStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            phase: None,
            targets: Vec::new(),
            plan: None,
            progress: None,
            generations: None,
            verification: None,
            redrive: None,
            cutover_started: None,
            queue_position: None,
            job_ref: None,
            attempts: 0,
            last_error: None,
            start_time: None,
            caught_up_time: None,
            switch_time: None,
            completion_time: None,
        }
    }
}

/// Where a replay stands, in a word. Derived, and never read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not looked at yet.
    Pending,
    /// Waits for another replay of its projection.
    Queued,
    /// Events are folded into the new generation.
    Loading,
    /// The new generation gets its indexes.
    Finishing,
    /// The projector brings the new generation up to the heads.
    CatchingUp,
    /// The new generation is compared with the live one.
    Verifying,
    /// Waits for `approve`.
    AwaitingApproval,
    /// The switch has begun.
    CuttingOver,
    /// Dead letters are dealt with.
    Redriving,
    /// Held.
    Suspended,
    /// Ends its work and drops what it made.
    CleaningUp,
    /// Done.
    Succeeded,
    /// Ended without what was asked for.
    Failed,
    /// Ended because it was asked to.
    Cancelled,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Queued,
        Self::Loading,
        Self::Finishing,
        Self::CatchingUp,
        Self::Verifying,
        Self::AwaitingApproval,
        Self::CuttingOver,
        Self::Redriving,
        Self::Suspended,
        Self::CleaningUp,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether a replay leaves the phase by itself: it waits for nobody, and has not ended.
    #[must_use]
    pub const fn gets_on(self) -> bool {
        match self {
            Self::Pending
            | Self::Loading
            | Self::Finishing
            | Self::CatchingUp
            | Self::Verifying
            | Self::CuttingOver
            | Self::Redriving
            | Self::CleaningUp => true,
            Self::Queued
            | Self::AwaitingApproval
            | Self::Suspended
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled => false,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued => "Queued",
            Self::Loading => "Loading",
            Self::Finishing => "Finishing",
            Self::CatchingUp => "CatchingUp",
            Self::Verifying => "Verifying",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::CuttingOver => "CuttingOver",
            Self::Redriving => "Redriving",
            Self::Suspended => "Suspended",
            Self::CleaningUp => "CleaningUp",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// The positions of one context that are replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The context.
    pub context: String,
    /// The first position.
    pub from_position: u64,
    /// The last position: the head when the replay began.
    pub to_position: u64,
}

/// What a replay does, or would do when it is a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanSummary {
    /// It, in a sentence.
    pub summary: String,
    /// The version of the projection's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Where its rows are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// How many events are folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// In how many partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// How many dead letters match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letters: Option<u64>,
}

/// How far the work is. Written at most every 5 s while nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// How many events there are to fold.
    pub events_total: u64,
    /// How many are folded.
    pub events_processed: u64,
    /// The same in percent, rounded down.
    pub percent: u32,
    /// How many a second, since the last time this was written.
    pub events_per_second: u64,
    /// Positions that the new generation is behind the heads of the logs, once it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// When all are folded if it goes on like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<Time>,
    /// How many partitions are at their target.
    pub partitions_done: u32,
    /// Of how many.
    pub partitions_total: u32,
    /// When this was so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
}

/// The generations a replay is about, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Generations {
    /// The one that was live before the switch, while it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The one that is switched to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The one that answered queries when this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// When the previous one is dropped; not set when it is kept as long as the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_retained_until: Option<Time>,
}

/// How the comparison of two generations ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerificationStatus {
    /// How many keys were compared.
    pub compared: u64,
    /// How many differed.
    pub mismatches: u64,
    /// Some that did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SAMPLE_KEYS))]
    pub sample_keys: Vec<String>,
}

/// How many dead letters were dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RedriveStatus {
    /// How many matched when it began.
    pub matched: u64,
    /// How many were folded.
    pub redriven: u64,
    /// How many were given up.
    pub discarded: u64,
    /// How many failed again.
    pub failed: u64,
}

/// The Job that does the work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobRef {
    /// Its name, in the namespace of the Replay.
    pub name: String,
}

impl ReplayStatus {
    /// Whether the replay ended, however it ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.completion_time.is_some()
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == kind)
    }

    /// Whether a condition is there and True.
    #[must_use]
    pub fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.status == "True")
    }

    /// The previous generation, while it is kept.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.generations.as_ref()?.previous.as_deref()
    }
}
