//! What can be asked for, as options of the command line: the fields of the resource's spec.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff};
use millrace_replay::{
    CutoverSpec, CutoverStrategy, DEFAULT_EVENTS_PER_SECOND, LetterSelector, MAX_PARALLELISM,
    OnConflict, OnFailure, PositionRange, ReasonClass, RedriveAction, ReplaySpec, Throttle,
    VerifyMode, VerifySpec,
};

use crate::failure::Failure;

/// A value of the resource, by its name in lower case.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident => $resource:ident { $($(#[$value_doc:meta])* $value:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        enum $name { $($(#[$value_doc])* $value),+ }

        impl From<$name> for $resource {
            fn from(chosen: $name) -> Self {
                match chosen { $($name::$value => Self::$value),+ }
            }
        }
    };
}

choice! {
    /// How two generations are compared.
    Verify => VerifyMode {
        /// Not at all
        None,
        /// Rows are counted
        Counts,
        /// Rows are counted and their contents summed up
        Checksum,
    }
}

choice! {
    /// Who decides that the switch may happen.
    Cutover => CutoverStrategy {
        /// As soon as the new generation is current and verified
        Automatic,
        /// When `millrace replay approve` says so
        Manual,
    }
}

choice! {
    /// What to do when another replay of the projection is active.
    Conflict => OnConflict {
        /// Wait its turn
        Queue,
        /// Fail
        Fail,
    }
}

choice! {
    /// Why an event is a dead letter.
    Reason => ReasonClass {
        /// The payload is not what its type and version promise
        Malformed,
        /// The projection refused it
        Fold,
        /// The store refused the row for good
        Store,
        /// An earlier event of its key is a dead letter
        Follows,
    }
}

choice! {
    /// What happens when a letter fails again.
    Failed => OnFailure {
        /// Its key is parked again, the others go on
        Park,
        /// Its key is parked again, and no further letter is taken
        Stop,
    }
}

choice! {
    /// What is done with letters.
    Action => RedriveAction {
        /// They are folded again
        Redrive,
        /// They are given up
        Discard,
    }
}

/// What every replay may be asked for with.
#[derive(Debug, Args)]
struct Common {
    /// Say what would happen, and end
    #[arg(long)]
    dry_run: bool,
    /// What to do when another replay of the projection is active
    #[arg(long, value_enum, default_value = "queue", value_name = "WHAT")]
    on_conflict: Conflict,
    /// How often the work may fail; a store that does not answer is waited for and no failure
    #[arg(long, default_value_t = 6, value_name = "COUNT")]
    backoff_limit: u32,
    /// How long it may take until the switch begins, in seconds [default: no bound]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    active_deadline_seconds: Option<u32>,
    /// How long after its success it is removed, in seconds [default: it stays]
    #[arg(long, value_name = "SECONDS")]
    ttl_seconds_after_finished: Option<u32>,
}

impl Common {
    fn over(&self, spec: ReplaySpec) -> ReplaySpec {
        ReplaySpec {
            dry_run: self.dry_run,
            on_conflict: self.on_conflict.into(),
            backoff_limit: self.backoff_limit,
            active_deadline_seconds: self.active_deadline_seconds,
            ttl_seconds_after_finished: self.ttl_seconds_after_finished,
            ..spec
        }
    }
}

/// A rebuild.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// The projection
    projection: String,
    /// How many workers share the partitions
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PARALLELISM)),
        value_name = "COUNT"
    )]
    parallelism: u16,
    /// What is compared before the switch
    #[arg(long, value_enum, default_value = "counts", value_name = "MODE")]
    verify: Verify,
    /// How many keys may differ without stopping the switch
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    max_mismatches: u32,
    /// Who decides that the switch may happen
    #[arg(long, value_enum, default_value = "automatic", value_name = "STRATEGY")]
    cutover: Cutover,
    /// How many positions the new generation may be behind when the switch begins
    #[arg(long, default_value_t = CutoverSpec::default().max_lag, value_name = "POSITIONS")]
    max_lag: u32,
    /// How long the switch may be tried, in seconds
    #[arg(
        long,
        default_value_t = CutoverSpec::default().timeout_seconds,
        value_parser = clap::value_parser!(u32).range(1..=86_400),
        value_name = "SECONDS"
    )]
    timeout_seconds: u32,
    /// How long the previous generation is kept for a rollback, in seconds
    #[arg(
        long,
        default_value_t = CutoverSpec::default().retain_previous_seconds,
        value_name = "SECONDS"
    )]
    retain_previous_seconds: u32,
    /// Events a second, of all workers together; 0 for as fast as they can
    #[arg(long, default_value_t = DEFAULT_EVENTS_PER_SECOND, value_name = "COUNT")]
    max_events_per_second: u32,
    #[command(flatten)]
    common: Common,
}

impl Rebuild {
    /// As the resource has it.
    pub fn spec(&self) -> ReplaySpec {
        let mut spec = self.common.over(ReplaySpec::rebuild(&self.projection));
        spec.throttle = Some(Throttle {
            max_events_per_second: Some(self.max_events_per_second),
        });
        if let Some(rebuild) = &mut spec.rebuild {
            rebuild.parallelism = self.parallelism;
            rebuild.verify = VerifySpec {
                mode: self.verify.into(),
                max_mismatches: self.max_mismatches,
            };
            rebuild.cutover = CutoverSpec {
                strategy: self.cutover.into(),
                max_lag: self.max_lag,
                timeout_seconds: self.timeout_seconds,
                retain_previous_seconds: self.retain_previous_seconds,
            };
        }
        spec
    }
}

/// A rollback.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The projection
    projection: String,
    /// The generation, such as g12: `millrace replay show` of the rebuild names the previous one
    #[arg(long, value_name = "GENERATION", value_parser = generation)]
    to_generation: String,
    /// Switch even to a generation that nobody kept current, so that readers go back in time
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

impl Rollback {
    /// As the resource has it.
    pub fn spec(&self) -> ReplaySpec {
        let asked = ReplaySpec::rollback(&self.projection, &self.to_generation);
        let mut spec = self.common.over(asked);
        if let Some(rollback) = &mut spec.rollback {
            rollback.force = self.force;
        }
        spec
    }
}

fn generation(text: &str) -> Result<String, String> {
    let number = text
        .strip_prefix('g')
        .and_then(|digits| digits.parse::<i64>().ok());
    match number {
        Some(number) if number > 0 => Ok(format!("g{number}")),
        _ => Err("must be a generation such as g12".to_owned()),
    }
}

/// A redrive.
#[derive(Debug, Args)]
pub struct Redrive {
    /// The projection
    projection: String,
    /// Events of this context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Events from this position on
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    from_position: Option<u64>,
    /// Events up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    to_position: Option<u64>,
    /// First failed at this time or after
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// First failed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Why they failed
    #[arg(long, value_enum, value_name = "CLASS")]
    reason_class: Option<Reason>,
    /// Their keys, the streams of the events, such as order-42; may be given again
    #[arg(long = "key", value_name = "STREAM")]
    keys: Vec<String>,
    /// At most so many letters [default: all that match]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_messages: Option<u32>,
    /// What happens when a letter fails again
    #[arg(long, value_enum, default_value = "park", value_name = "WHAT")]
    on_failure: Failed,
    /// What is done with the letters
    #[arg(long, value_enum, default_value = "redrive", value_name = "ACTION")]
    action: Action,
    #[command(flatten)]
    common: Common,
}

impl Redrive {
    /// As the resource has it.
    ///
    /// # Errors
    /// When a time is none.
    pub fn spec(&self) -> Result<ReplaySpec, Failure> {
        let mut spec = self.common.over(ReplaySpec::redrive(&self.projection));
        let range = PositionRange {
            context: self.context.clone(),
            from: self.from_position,
            to: self.to_position,
        };
        let selector = LetterSelector {
            positions: (range != PositionRange::default()).then_some(range),
            since: time(self.since.as_deref())?,
            until: time(self.until.as_deref())?,
            reason_class: self.reason_class.map(Into::into),
            keys: self.keys.clone(),
        };
        if let Some(redrive) = &mut spec.redrive {
            redrive.selector = selector;
            redrive.max_messages = self.max_messages;
            redrive.on_failure = self.on_failure.into();
            redrive.action = self.action.into();
        }
        Ok(spec)
    }
}

fn time(text: Option<&str>) -> Result<Option<Time>, Failure> {
    let Some(text) = text else {
        return Ok(None);
    };
    let parsed = jiff::Timestamp::from_str(text).map_err(|_| {
        Failure::Usage(format!("{text:?} is no time, such as 2026-11-21T09:00:00Z"))
    })?;
    Ok(Some(Time(parsed)))
}
