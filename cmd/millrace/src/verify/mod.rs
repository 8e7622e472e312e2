//! `millrace verify`: whether views are what the log makes of them, and streams hold what it holds.

mod looking;
mod report;

use std::time::Duration;

use clap::{Args, value_parser};
use millrace_es::Context;
use millrace_projecting::{CheckOptions, MAX_CHECKED_KEYS};
use millrace_roles::OwnerSettings;
use tokio::time::Instant;

use self::{
    looking::Looking,
    report::{Outcome, Report},
};
use crate::{
    endpoints::Target,
    failure::Failure,
    opened,
    output::{self, Format},
};

/// Compare views with a fold of the log, and streams with the log's positions
///
/// Of every view that answers some keys are folded from the log again, up to exactly what the view
/// has seen, and compared with its rows; a view of sums is folded whole. Of every stream some
/// positions are compared with the log. Being behind is no difference. What it came to is kept in
/// the read database, where projectors take their metrics from, and what differed is looked at
/// again by the next run.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    target: Target,
    /// The contexts that this installation's processes serve, by name, separated by commas; the logs
    /// of others are read through their owners [default: all]
    #[arg(
        long = "contexts",
        env = "MILLRACE_CONTEXTS",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    served: Vec<String>,
    /// Only the views and the stream of this context; can be given several times
    #[arg(long = "context", value_name = "NAME", value_parser = Context::new)]
    contexts: Vec<Context>,
    /// Only this projection, and no stream; can be given several times
    #[arg(long = "projection", value_name = "NAME")]
    projections: Vec<String>,
    /// Only this key, a stream such as order-42, of the views that have rows of it; can be given
    /// several times. Nothing is kept of such a run
    #[arg(long = "key", value_name = "STREAM", conflicts_with_all = ["sample", "seed"])]
    keys: Vec<String>,
    /// How many keys of each view, and how many positions of each stream, are looked at
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "200",
        value_parser = sample_size
    )]
    sample: usize,
    /// What the sample is drawn with, to draw the same again [default: drawn, and printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// The longest log, in events, of which views of sums are folded whole; they are skipped beyond
    #[arg(long, value_name = "COUNT", default_value = "1000000")]
    max_events: u64,
    /// After how long it ends; what was not compared by then is said
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "300",
        value_parser = value_parser!(u64).range(1..=86_400)
    )]
    deadline: u64,
    #[command(flatten)]
    owners: OwnerSettings,
}

fn sample_size(text: &str) -> Result<usize, String> {
    let count = text.parse().ok();
    count
        .filter(|count| (1..=MAX_CHECKED_KEYS).contains(count))
        .ok_or_else(|| format!("must be a number from 1 to {MAX_CHECKED_KEYS}"))
}

impl Verify {
    /// Compares, keeps what it came to, prints it.
    ///
    /// # Errors
    /// [`Failure::Different`] when something differs; [`Failure::Unavailable`] when something could
    /// not be compared.
    pub async fn run(&self, format: Format) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(self.deadline);
        let endpoints = self.target.resolve()?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let looking = Looking {
            stores: opened::read_stores(&endpoints).await?,
            served: self.served()?,
            owners: self.owners.owners(),
            endpoints,
            options: CheckOptions {
                keys: if self.keys.is_empty() { self.sample } else { 0 },
                seed: u64::from(seed),
                also: self.keys.clone(),
                max_events: self.max_events,
            },
            deadline,
        };
        let report = self.look(&looking, seed).await?;
        output::print(format, &report, Report::table)?;
        if format == Format::Table {
            output::text(&report.differences())?;
        }
        report.end()
    }

    async fn look(&self, looking: &Looking, seed: u32) -> Result<Report, Failure> {
        let chosen = looking.views(&self.contexts, &self.projections)?;
        let kept = looking.kept().await;
        let mut report = Report::begin(seed);
        let logs = looking.logs(&chosen).await;
        for (known, view) in &chosen {
            let looked = looking.look_at_view(known, view, &logs, &kept).await;
            report.projections.push(looked);
        }
        if self.projections.is_empty() && self.keys.is_empty() {
            for known in looking.with_streams(&self.contexts) {
                report
                    .streams
                    .push(looking.look_at_stream(known, &kept).await);
            }
        }
        if self.keys.is_empty() {
            for outcome in report.outcomes_mut() {
                looking.keep(outcome).await;
            }
        }
        Ok(report)
    }

    /// The contexts of this installation.
    fn served(&self) -> Result<Vec<&'static millrace_roles::KnownContext>, Failure> {
        let all = millrace_roles::CONTEXTS.iter();
        if let Some(unknown) = self
            .served
            .iter()
            .find(|name| all.clone().all(|known| known.name != **name))
        {
            return Err(Failure::Usage(format!(
                "there is no context {unknown:?} (MILLRACE_CONTEXTS)"
            )));
        }
        let serves = |name: &str| self.served.is_empty() || self.served.iter().any(|s| s == name);
        Ok(all.filter(|known| serves(known.name)).collect())
    }
}

/// What is kept of an outcome is kept by its context and its name.
fn is_kept_of(kept: &millrace_projecting::KeptCheck, outcome: &Outcome) -> bool {
    kept.context == outcome.context && kept.projection.as_deref() == outcome.projection
}
