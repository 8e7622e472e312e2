//! `millrace replay`: rebuilds, redrives and rollbacks without Kubernetes, with the same names as the
//! Replay resource's fields.

mod spec;
mod watch;

use clap::{Args, Subcommand};
use millrace_kernel::Timestamp;
use millrace_replay::{Record, ReplaySpec};
use millrace_replaying::{Change, ReplayTable, TableError};
use serde::Serialize;

use crate::{
    endpoints::Target,
    failure::Failure,
    output::{self, Format, Table},
};

/// Rebuild a projection beside the live one and switch to it, redrive dead letters, or roll back
///
/// What is asked for is written down in the read database; a projector drives it from there, and
/// goes on where it stood when it is killed. In Kubernetes the same is asked for by a Replay
/// resource.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(subcommand)]
    command: ReplayCommand,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    /// Fill a new generation of a projection from the log, verify it, and switch to it
    Rebuild(Box<Ask<spec::Rebuild>>),
    /// Switch back to a generation that is still kept
    Rollback(Box<Ask<spec::Rollback>>),
    /// Fold dead letters of a projection again, or give them up
    Redrive(Box<Ask<spec::Redrive>>),
    /// List replays, newest first
    List(List),
    /// Show one replay whole: what was asked for and where it stands
    Show(Named),
    /// Follow a replay until it has ended
    Watch(Named),
    /// Hold the work of a replay, keeping what is done
    Suspend(Named),
    /// Let a replay go on that was held
    Resume(Named),
    /// End a replay and drop what it made; refused once its switch has begun
    Cancel(Named),
    /// Let a rebuild switch that waits for it
    Approve(Named),
    /// Change how fast a replay may go
    Throttle(Throttle),
    /// Remove a replay, and the previous generation that is kept for it
    Delete(Named),
}

#[derive(Debug, Args)]
struct Ask<S: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    spec: S,
    /// The replay's name [default: made of its type, its projection and the time]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// End as soon as it is written down; follow it later with `millrace replay watch`
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    target: Target,
    /// The replay
    name: String,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: Target,
    /// Of this projection
    #[arg(long, value_name = "NAME")]
    projection: Option<String>,
    /// Only those that have not ended
    #[arg(long)]
    active: bool,
}

#[derive(Debug, Args)]
struct Throttle {
    #[command(flatten)]
    named: Named,
    /// Events a second, of all workers together; 0 for no bound
    #[arg(long, value_name = "COUNT")]
    max_events_per_second: u32,
}

/// A replay as it is printed: the resource's own names.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    name: &'a str,
    uid: &'a str,
    created: String,
    deleting: bool,
    spec: &'a ReplaySpec,
    status: &'a millrace_replay::status::ReplayStatus,
}

impl<'a> Shown<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            name: &record.name,
            uid: &record.owner.0,
            created: record.created.to_string(),
            deleting: record.deleting,
            spec: &record.spec,
            status: &record.status,
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Missing(_) => Self::NotFound(error.to_string()),
            TableError::Exists(_) | TableError::Refused(_) => Self::Refused(error.to_string()),
            TableError::Unavailable(source) => source.into(),
            TableError::Undecodable { .. } => Self::Failed(error.into()),
        }
    }
}

impl Replay {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn run(&self, format: Format) -> Result<(), Failure> {
        match &self.command {
            ReplayCommand::Rebuild(ask) => ask.run(ask.spec.spec(), format).await,
            ReplayCommand::Rollback(ask) => ask.run(ask.spec.spec(), format).await,
            ReplayCommand::Redrive(ask) => ask.run(ask.spec.spec()?, format).await,
            ReplayCommand::List(list) => list.run(format).await,
            ReplayCommand::Show(named) => {
                let record = named.table()?.get(&named.name).await?;
                show(&record, format)
            }
            ReplayCommand::Watch(named) => {
                watch::follow(&named.table()?, &named.name, format).await
            }
            ReplayCommand::Suspend(named) => named.change(Change::Suspend(true), format).await,
            ReplayCommand::Resume(named) => named.change(Change::Suspend(false), format).await,
            ReplayCommand::Cancel(named) => named.change(Change::Cancel, format).await,
            ReplayCommand::Approve(named) => named.change(Change::Approve, format).await,
            ReplayCommand::Throttle(throttle) => {
                let change = Change::Throttle(throttle.max_events_per_second);
                throttle.named.change(change, format).await
            }
            ReplayCommand::Delete(named) => {
                named.table()?.delete(&named.name).await?;
                output::say(&format!("replay {} will be gone in a moment", named.name))?;
                Ok(())
            }
        }
    }
}

impl<S: Args> Ask<S> {
    async fn run(&self, spec: ReplaySpec, format: Format) -> Result<(), Failure> {
        let table = table(&self.target)?;
        let name = self.name.clone().unwrap_or_else(|| default_name(&spec));
        let record = table.create(&name, &spec).await?;
        if self.detach {
            return show(&record, format);
        }
        watch::follow(&table, &name, format).await
    }
}

impl Named {
    fn table(&self) -> Result<ReplayTable, Failure> {
        table(&self.target)
    }

    async fn change(&self, change: Change, format: Format) -> Result<(), Failure> {
        let record = self.table()?.change(&self.name, change).await?;
        show(&record, format)
    }
}

impl List {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let mut found = table(&self.target)?.list().await?;
        let wanted = self.projection.as_deref();
        found.retain(|one| {
            wanted.is_none_or(|name| one.spec.projection() == name)
                && !(self.active && one.status.ended())
        });
        let shown: Vec<_> = found.iter().map(Shown::of).collect();
        output::print(format, &shown, |shown| {
            let mut table = Table::new(&[
                "NAME",
                "TYPE",
                "PROJECTION",
                "STATUS",
                "#PROGRESS",
                "#LAG",
                "CREATED",
            ]);
            for one in shown {
                let progress = one.status.progress.as_ref();
                table.row([
                    one.name.to_owned(),
                    format!("{:?}", one.spec.kind),
                    one.spec.projection().to_owned(),
                    phase(one.status),
                    progress.map_or_else(String::new, |progress| format!("{}%", progress.percent)),
                    progress
                        .and_then(|progress| progress.lag)
                        .map_or_else(String::new, |lag| lag.to_string()),
                    one.created.clone(),
                ]);
            }
            table
        })?;
        Ok(())
    }
}

fn phase(status: &millrace_replay::status::ReplayStatus) -> String {
    status
        .phase
        .map_or_else(|| "Pending".to_owned(), |phase| phase.as_str().to_owned())
}

fn table(target: &Target) -> Result<ReplayTable, Failure> {
    Ok(ReplayTable::open(&target.resolve()?.read_database_url)?)
}

fn show(record: &Record, format: Format) -> Result<(), Failure> {
    output::print(format, &Shown::of(record), |shown| {
        let status = shown.status;
        let mut table = Table::new(&["FIELD", "VALUE"]);
        let mut line = |field: &str, value: String| table.row([field.to_owned(), value]);
        line("name", shown.name.to_owned());
        line("type", format!("{:?}", shown.spec.kind));
        line("projection", shown.spec.projection().to_owned());
        line("created", shown.created.clone());
        line("status", phase(status));
        for condition in &status.conditions {
            line(
                &condition.type_,
                format!(
                    "{} {}: {}",
                    condition.status, condition.reason, condition.message
                ),
            );
        }
        if let Some(plan) = &status.plan {
            line("plan", plan.summary.clone());
        }
        if let Some(progress) = &status.progress {
            line(
                "progress",
                format!(
                    "{}%, {} of {} events, {}/s",
                    progress.percent,
                    progress.events_processed,
                    progress.events_total,
                    progress.events_per_second
                ),
            );
        }
        if let Some(generations) = &status.generations {
            for (field, value) in [
                ("candidate", &generations.candidate),
                ("active", &generations.active),
                ("previous", &generations.previous),
            ] {
                if let Some(value) = value {
                    line(field, value.clone());
                }
            }
        }
        if let Some(done) = &status.verification {
            line(
                "verification",
                format!(
                    "{} compared, {} mismatches {:?}",
                    done.compared, done.mismatches, done.sample_keys
                ),
            );
        }
        if let Some(done) = &status.redrive {
            line(
                "redrive",
                format!(
                    "{} matched, {} redriven, {} discarded, {} failed",
                    done.matched, done.redriven, done.discarded, done.failed
                ),
            );
        }
        if let Some(error) = &status.last_error {
            line("last error", error.clone());
        }
        table
    })?;
    Ok(())
}

/// A name that nobody has unless it was asked for in the same millisecond.
fn default_name(spec: &ReplaySpec) -> String {
    let millis = Timestamp::now().unix_micros() / 1_000;
    let kind = format!("{:?}", spec.kind).to_lowercase();
    let mut name = format!("{kind}-{}", spec.projection());
    name.truncate(millrace_replaying::MAX_NAME_CHARS - 12);
    format!("{}-{:x}", name.trim_end_matches('-'), millis)
}
