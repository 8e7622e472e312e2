//! The resource's spec: what an operator asks for.
//!
//! What is asked cannot be changed afterwards, only how it goes on: `throttle`, `suspend`,
//! `approve` and `cancel`. The API server holds everybody to that by the rules written here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::ReplayStatus;

/// The most letters of a projection's name.
pub const MAX_PROJECTION_CHARS: usize = 63;
/// The most workers of a rebuild.
pub const MAX_PARALLELISM: u16 = 64;
/// The most keys that a selector names.
pub const MAX_KEYS: usize = 100;

/// What a replay is to do. `type` says which of `rebuild`, `redrive` and `rollback` is given.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Replay",
    namespaced,
    status = "ReplayStatus",
    derive = "PartialEq",
    doc = "A rebuild of a projection, a redrive of its dead letters, or a rollback to an earlier generation.",
    shortname = "rpl",
    category = "millrace",
    selectable = ".spec.rebuild.projection",
    selectable = ".spec.redrive.projection",
    selectable = ".spec.rollback.projection",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Projection", type_ = "string", json_path = ".spec.*.projection"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Progress",
        type_ = "integer",
        description = "Percent of the events that are folded",
        json_path = ".status.progress.percent"
    ),
    printcolumn(
        name = "Lag",
        type_ = "integer",
        description = "Positions behind the heads of the logs",
        json_path = ".status.progress.lag"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "ETA",
        type_ = "string",
        priority = 1,
        json_path = ".status.progress.estimatedCompletionTime"
    ),
    printcolumn(
        name = "Generation",
        type_ = "string",
        priority = 1,
        json_path = ".status.generations.candidate"
    ),
    validation = Rule::new(
        "!self.spec.cancel || oldSelf.spec.cancel || !has(oldSelf.status) || !has(oldSelf.status.cutoverStarted)"
    )
    .message("the switch has begun: it cannot be cancelled any more, a Rollback leads back")
)]
#[x_kube(
    validation = Rule::new("(self.type == 'Rebuild') == has(self.rebuild)")
        .message("rebuild must be given when type is Rebuild, and only then"),
    validation = Rule::new("(self.type == 'Redrive') == has(self.redrive)")
        .message("redrive must be given when type is Redrive, and only then"),
    validation = Rule::new("(self.type == 'Rollback') == has(self.rollback)")
        .message("rollback must be given when type is Rollback, and only then"),
    validation = Rule::new("self.type == oldSelf.type").message("type is immutable"),
    validation = Rule::new("has(self.rebuild) == has(oldSelf.rebuild) && (!has(self.rebuild) || self.rebuild == oldSelf.rebuild)")
        .message("rebuild is immutable"),
    validation = Rule::new("has(self.redrive) == has(oldSelf.redrive) && (!has(self.redrive) || self.redrive == oldSelf.redrive)")
        .message("redrive is immutable"),
    validation = Rule::new("has(self.rollback) == has(oldSelf.rollback) && (!has(self.rollback) || self.rollback == oldSelf.rollback)")
        .message("rollback is immutable"),
    validation = Rule::new("self.dryRun == oldSelf.dryRun").message("dryRun is immutable"),
    validation = Rule::new("self.approve || !oldSelf.approve").message("approve cannot be taken back"),
    validation = Rule::new("self.cancel || !oldSelf.cancel").message("cancel cannot be taken back")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    /// What kind of replay this is. Immutable.
    #[serde(rename = "type")]
    pub kind: ReplayType,
    /// The body of a Rebuild. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<RebuildSpec>,
    /// The body of a Redrive. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<RedriveSpec>,
    /// The body of a Rollback. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackSpec>,
    /// How fast it may go. May change while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// Writes what would happen into the status, and ends. Immutable.
    #[serde(default)]
    pub dry_run: bool,
    /// Lets a rebuild whose cutover is Manual switch. Cannot be taken back.
    #[serde(default)]
    pub approve: bool,
    /// Holds the work, keeping what is done, until it is false again. Without effect once the
    /// switch has begun.
    #[serde(default)]
    pub suspend: bool,
    /// Ends the work and drops what it made. Cannot be taken back, and is refused once the switch
    /// has begun.
    #[serde(default)]
    pub cancel: bool,
    /// What to do when another replay of the same projection is active.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// How often the work may fail before the replay fails. A store that does not answer is not
    /// a failure: it is waited for.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(max = 1000))]
    pub backoff_limit: u32,
    /// How long the replay may take from its start, or since it was resumed, until its switch
    /// begins, in seconds. No bound when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<u32>,
    /// How long after it succeeded the resource is deleted, in seconds; never before the previous
    /// generation was dropped. A replay that failed stays. Stays for ever when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// The kinds of replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplayType {
    /// Fills a new generation from the log and switches to it.
    Rebuild,
    /// Folds dead letters again, or gives them up.
    Redrive,
    /// Switches back to a generation that is still kept.
    Rollback,
}

/// Fills a new generation of a projection from the log, and switches to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuildSpec {
    /// The projection's name.
    #[schemars(length(min = 1, max = MAX_PROJECTION_CHARS), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub projection: String,
    /// How many workers share the partitions.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = MAX_PARALLELISM))]
    pub parallelism: u16,
    /// What is compared before the switch.
    #[serde(default)]
    pub verify: VerifySpec,
    /// When and how the switch happens.
    #[serde(default)]
    pub cutover: CutoverSpec,
}

/// What is compared before the switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerifySpec {
    /// How the new generation is compared with the live one.
    pub mode: VerifyMode,
    /// How many keys may differ without stopping the switch: some will after a change of the fold.
    #[schemars(range(max = u32::MAX))]
    pub max_mismatches: u32,
}

/// How two generations are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// Not at all.
    None,
    /// Rows are counted by key range.
    #[default]
    Counts,
    /// Rows are counted and their contents summed up by key range.
    Checksum,
}

/// When and how the switch happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CutoverSpec {
    /// Whether the switch waits for `approve`.
    pub strategy: CutoverStrategy,
    /// How many positions the new generation may be behind the heads of the logs when the switch
    /// begins.
    #[schemars(range(max = u32::MAX))]
    pub max_lag: u32,
    /// How long the switch may be tried, in seconds. When it did not happen by then, the replay
    /// fails and the live generation stays.
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: u32,
    /// How long the previous generation is kept current after the switch, so that a Rollback
    /// finds it, in seconds. It goes with the resource when that is deleted earlier.
    #[schemars(range(max = 31_536_000))]
    pub retain_previous_seconds: u32,
}

/// Who decides that the switch may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CutoverStrategy {
    /// It happens as soon as the new generation is current and verified.
    #[default]
    Automatic,
    /// It waits for `approve`.
    Manual,
}

/// Folds dead letters again, or gives them up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveSpec {
    /// The projection's name.
    #[schemars(length(min = 1, max = MAX_PROJECTION_CHARS), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub projection: String,
    /// Which letters are meant; all of the projection when empty. Later letters of a key follow
    /// those before them.
    #[serde(default)]
    pub selector: LetterSelector,
    /// How many letters are taken at most. No bound when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_messages: Option<u32>,
    /// What happens when a letter fails again.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What is done with the letters.
    #[serde(default)]
    pub action: RedriveAction,
}

/// Which dead letters are meant. What is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LetterSelector {
    /// The positions of their events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<PositionRange>,
    /// Failed first at or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Failed first before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Why they failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_class: Option<ReasonClass>,
    /// Their keys, which are streams such as `order-42`; any key when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_KEYS), inner(length(min = 1, max = 256)))]
    pub keys: Vec<String>,
}

/// A range of positions, both ends within.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PositionRange {
    /// The context whose positions are meant; any of the projection's when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub context: Option<String>,
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub from: Option<u64>,
    /// The last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub to: Option<u64>,
}

/// Why an event is a dead letter, as a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReasonClass {
    /// The payload is not what its type and version promise.
    Malformed,
    /// The projection refused it.
    Fold,
    /// The store refused the row for good.
    Store,
    /// An earlier event of its key is a dead letter.
    Follows,
}

/// What happens when a redriven letter fails again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Its key is parked again, and the other keys go on.
    #[default]
    Park,
    /// Its key is parked again, and no further letter is taken.
    Stop,
}

/// What is done with dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedriveAction {
    /// They are folded again.
    #[default]
    Redrive,
    /// They are given up.
    Discard,
}

/// Switches back to a generation that is still kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackSpec {
    /// The projection's name.
    #[schemars(length(min = 1, max = MAX_PROJECTION_CHARS), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub projection: String,
    /// The generation, as `status.generations.previous` of the rebuild named it.
    #[schemars(regex(pattern = "^g[1-9][0-9]{0,17}$"))]
    pub to_generation: String,
    /// Switches even to a generation that nobody kept current, so that readers go back in time.
    #[serde(default)]
    pub force: bool,
}

/// How fast a replay may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Throttle {
    /// Events a second, of all workers together; 0 is as fast as they can. When not set a rebuild
    /// loads 10000 a second, which leaves commands and queries theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub max_events_per_second: Option<u32>,
}

/// How fast a rebuild loads whose throttle is not set, in events a second of all its workers.
pub const DEFAULT_EVENTS_PER_SECOND: u32 = 10_000;

/// What to do when another replay of the same projection is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnConflict {
    /// Waits its turn, in the order of creation.
    #[default]
    Queue,
    /// Fails.
    Fail,
}

const fn default_backoff_limit() -> u32 {
    6
}

const fn default_parallelism() -> u16 {
    1
}

impl Default for VerifySpec {
    fn default() -> Self {
        Self {
            mode: VerifyMode::Counts,
            max_mismatches: 0,
        }
    }
}

impl Default for CutoverSpec {
    fn default() -> Self {
        Self {
            strategy: CutoverStrategy::Automatic,
            max_lag: 1_000,
            timeout_seconds: 300,
            retain_previous_seconds: 3_600,
        }
    }
}

impl ReplaySpec {
    /// What is asked for and nothing else, everything else as the schema's defaults have it.
    fn of(kind: ReplayType) -> Self {
        Self {
            kind,
            rebuild: None,
            redrive: None,
            rollback: None,
            throttle: None,
            dry_run: false,
            approve: false,
            suspend: false,
            cancel: false,
            on_conflict: OnConflict::Queue,
            backoff_limit: default_backoff_limit(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
        }
    }

    /// A rebuild of a projection, with the schema's defaults.
    #[must_use]
    pub fn rebuild(projection: &str) -> Self {
        Self {
            rebuild: Some(RebuildSpec {
                projection: projection.to_owned(),
                parallelism: default_parallelism(),
                verify: VerifySpec::default(),
                cutover: CutoverSpec::default(),
            }),
            ..Self::of(ReplayType::Rebuild)
        }
    }

    /// A redrive of all dead letters of a projection, with the schema's defaults.
    #[must_use]
    pub fn redrive(projection: &str) -> Self {
        Self {
            redrive: Some(RedriveSpec {
                projection: projection.to_owned(),
                selector: LetterSelector::default(),
                max_messages: None,
                on_failure: OnFailure::Park,
                action: RedriveAction::Redrive,
            }),
            ..Self::of(ReplayType::Redrive)
        }
    }

    /// A rollback of a projection, with the schema's defaults.
    #[must_use]
    pub fn rollback(projection: &str, to_generation: &str) -> Self {
        Self {
            rollback: Some(RollbackSpec {
                projection: projection.to_owned(),
                to_generation: to_generation.to_owned(),
                force: false,
            }),
            ..Self::of(ReplayType::Rollback)
        }
    }

    /// The body that `type` names; `None` when it is missing, which the API server refuses.
    #[must_use]
    pub fn body(&self) -> Option<Body<'_>> {
        match self.kind {
            ReplayType::Rebuild => self.rebuild.as_ref().map(Body::Rebuild),
            ReplayType::Redrive => self.redrive.as_ref().map(Body::Redrive),
            ReplayType::Rollback => self.rollback.as_ref().map(Body::Rollback),
        }
    }

    /// The projection that is meant; empty when the body is missing.
    #[must_use]
    pub fn projection(&self) -> &str {
        match self.body() {
            Some(Body::Rebuild(body)) => &body.projection,
            Some(Body::Redrive(body)) => &body.projection,
            Some(Body::Rollback(body)) => &body.projection,
            None => "",
        }
    }
}

/// The one body of a spec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body<'a> {
    /// Of a Rebuild.
    Rebuild(&'a RebuildSpec),
    /// Of a Redrive.
    Redrive(&'a RedriveSpec),
    /// Of a Rollback.
    Rollback(&'a RollbackSpec),
}
