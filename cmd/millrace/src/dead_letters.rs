//! `millrace dead-letters`: events that a projection could not fold, and what is to become of them.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use millrace_es::{Context, Position, StreamId};
use millrace_kernel::Timestamp;
use millrace_projecting::{
    DeadLetter, DeadLetters as Letters, LetterFilter, LetterStatus, Reason, Requested,
};
use serde::Serialize;

use crate::{
    contexts,
    endpoints::Target,
    failure::Failure,
    opened,
    output::{self, Format, Table},
};

/// Letters listed unless more are asked for.
const DEFAULT_LETTERS: usize = 50;
/// How long redrive and discard wait for the projector to do it, unless told otherwise, in seconds.
const DEFAULT_WAIT_S: u64 = 30;
/// How often they look, in milliseconds.
const POLL_MS: u64 = 200;
/// How much of an error a table shows, in characters.
const ERROR_CHARS: usize = 80;

/// List, look at, redrive and discard events that a projection could not fold
#[derive(Debug, Args)]
#[command(name = "dead-letters")]
pub struct DeadLetters {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List letters
    List(List),
    /// Show one letter whole, with its event
    Show(Show),
    /// Fold letters again, in the order of their stream
    Redrive(Ask),
    /// Give letters up: the rows stay as if the events said nothing
    Discard(Ask),
}

#[derive(Debug, Args)]
struct Filter {
    /// Of this projection
    #[arg(long, value_name = "NAME")]
    projection: Option<String>,
    /// Of this context's events
    #[arg(long, value_parser = Context::new)]
    context: Option<Context>,
    /// Of this key: the stream of the events, such as order-42
    #[arg(long, value_name = "STREAM", value_parser = StreamId::new)]
    key: Option<StreamId>,
    /// Of this reason
    #[arg(long, value_enum, value_name = "CLASS")]
    reason: Option<ReasonClass>,
    /// First failed at this time or after
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// First failed before this time
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// The event at this position
    #[arg(long, value_name = "POSITION")]
    position: Option<u64>,
}

/// Why an event is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReasonClass {
    /// The payload is not what its type and version promise
    Malformed,
    /// The projection refused it
    Fold,
    /// The store refused the row for good
    Store,
    /// An earlier event of its key is a dead letter
    Follows,
    /// Its effect can never be performed: a reaction's
    Refused,
}

impl From<ReasonClass> for Reason {
    fn from(class: ReasonClass) -> Self {
        match class {
            ReasonClass::Malformed => Self::Malformed,
            ReasonClass::Fold => Self::Fold,
            ReasonClass::Store => Self::Store,
            ReasonClass::Follows => Self::Follows,
            ReasonClass::Refused => Self::Refused,
        }
    }
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Standing {
    /// It waits; its key is parked
    Pending,
    /// It was folded after all
    Redriven,
    /// It was given up
    Discarded,
}

impl From<Standing> for LetterStatus {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Pending => Self::Pending,
            Standing::Redriven => Self::Redriven,
            Standing::Discarded => Self::Discarded,
        }
    }
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    filter: Filter,
    /// Those that stand so
    #[arg(long, value_enum, default_value = "pending", value_name = "STATUS")]
    status: Standing,
    /// At most so many
    #[arg(long, default_value_t = DEFAULT_LETTERS, value_name = "COUNT")]
    limit: usize,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    target: Target,
    /// The projection
    projection: String,
    /// The event's position
    position: u64,
    /// Whose event
    #[arg(long, default_value = "ordering", value_parser = Context::new)]
    context: Context,
}

#[derive(Debug, Args)]
struct Ask {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    filter: Filter,
    /// Every letter that waits; without it at least one filter has to be set
    #[arg(long)]
    all: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// How long to wait until the projector has done it, in seconds; 0 only asks for it
    #[arg(long, default_value_t = DEFAULT_WAIT_S, value_name = "SECONDS")]
    wait: u64,
}

/// What a redrive or discard came to, for one stream of one projection.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    request: Requested,
    /// `None` while the projector has not got to it.
    outcome: Option<String>,
}

impl DeadLetters {
    pub async fn run(self, format: Format) -> Result<(), Failure> {
        match self.command {
            DeadLettersCommand::List(list) => list.run(format).await,
            DeadLettersCommand::Show(show) => show.run(format).await,
            DeadLettersCommand::Redrive(ask) => ask.run(Verb::Redrive, format).await,
            DeadLettersCommand::Discard(ask) => ask.run(Verb::Discard, format).await,
        }
    }
}

impl Filter {
    fn letters(&self) -> LetterFilter {
        LetterFilter {
            projection: self.projection.clone(),
            context: self.context.clone(),
            stream: self.key.clone(),
            position: self.position.map(Position::new),
            reason: self.reason.map(Reason::from),
            from: self.from,
            to: self.to,
            status: None,
        }
    }
}

async fn open(target: &Target) -> Result<Letters, Failure> {
    let stores = opened::read_stores(&target.resolve()?).await?;
    let views = contexts::all_views_and_reactions();
    Ok(Letters::new(
        views,
        Some(stores.postgres),
        Some(stores.dynamodb),
    ))
}

impl List {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let filter = LetterFilter {
            status: Some(self.status.into()),
            ..self.filter.letters()
        };
        let letters = open(&self.target).await?.list(&filter, self.limit).await?;
        output::print(format, &letters, |letters| table(letters))?;
        Ok(())
    }
}

fn table(letters: &[DeadLetter]) -> Table {
    let mut table = Table::new(&[
        "projection",
        "generation",
        "#position",
        "key",
        "type",
        "reason",
        "first failure",
        "#attempts",
        "error",
    ]);
    for letter in letters {
        table.row([
            letter.projection.clone(),
            letter.generation.to_string(),
            format!("{}/{}", letter.lane.context, letter.position),
            letter.stream.to_string(),
            letter.event.event_type.to_string(),
            letter.reason.to_string(),
            output::millis(letter.first_failure),
            letter.attempts.to_string(),
            output::shortened(&letter.error, ERROR_CHARS),
        ]);
    }
    table
}

impl Show {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let letters = open(&self.target).await?;
        let mut found = Vec::new();
        for status in [
            LetterStatus::Pending,
            LetterStatus::Redriven,
            LetterStatus::Discarded,
        ] {
            let filter = LetterFilter {
                projection: Some(self.projection.clone()),
                context: Some(self.context.clone()),
                position: Some(Position::new(self.position)),
                status: Some(status),
                ..LetterFilter::default()
            };
            found.extend(letters.list(&filter, DEFAULT_LETTERS).await?);
        }
        if found.is_empty() {
            return Err(Failure::NotFound(format!(
                "{} has no dead letter at position {} of {}",
                self.projection, self.position, self.context
            )));
        }
        output::print(format, &found, |found| whole(found))?;
        Ok(())
    }
}

/// Everything about letters, a line per field.
fn whole(letters: &[DeadLetter]) -> Table {
    let mut table = Table::new(&["field", "value"]);
    for letter in letters {
        let event = &letter.event;
        for (field, value) in [
            ("projection", letter.projection.clone()),
            ("generation", letter.generation.to_string()),
            ("status", format!("{:?}", letter.status).to_lowercase()),
            (
                "position",
                format!("{}/{}", letter.lane.context, letter.position),
            ),
            ("partition", letter.lane.partition.to_string()),
            ("key", letter.stream.to_string()),
            ("version", event.version.to_string()),
            ("event id", event.id.to_string()),
            (
                "type",
                format!("{} v{}", event.event_type, event.schema_version),
            ),
            ("recorded at", output::millis(event.recorded_at)),
            ("correlation", event.metadata.correlation_id.clone()),
            ("reason", letter.reason.to_string()),
            ("error", letter.error.clone()),
            ("attempts", letter.attempts.to_string()),
            ("first failure", output::millis(letter.first_failure)),
            ("last failure", output::millis(letter.last_failure)),
            ("payload", event.payload.get().to_owned()),
        ] {
            table.row([field.to_owned(), value]);
        }
    }
    table
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Redrive,
    Discard,
}

impl Ask {
    async fn run(&self, verb: Verb, format: Format) -> Result<(), Failure> {
        let filter = self.filter.letters();
        if filter == LetterFilter::default() && !self.all {
            return Err(Failure::Usage(
                "which letters? Name them by --projection, --key, --reason, --from, --to or \
                 --position, or say --all"
                    .to_owned(),
            ));
        }
        let letters = open(&self.target).await?;
        if letters.list(&filter, 1).await?.is_empty() {
            return Err(Failure::NotFound("no such letter waits".to_owned()));
        }
        // A redrive can be repeated; what is given up is given up.
        if verb == Verb::Discard
            && !self.yes
            && !output::confirmed("Give these events up for good?")?
        {
            return Err(Failure::Refused(
                "nothing was discarded: it needs a yes, on the terminal or as --yes".to_owned(),
            ));
        }
        let requests = match verb {
            Verb::Redrive => letters.redrive(&filter).await?,
            Verb::Discard => letters.discard(&filter).await?,
        };
        let outcomes = self.outcomes(&letters, requests).await?;
        output::print(format, &outcomes, |outcomes| outcome_table(outcomes))?;
        let open = outcomes.iter().filter(|one| one.outcome.is_none()).count();
        if open > 0 && self.wait > 0 {
            return Err(Failure::Unavailable(anyhow::anyhow!(
                "{open} of {} requests wait for a projector; it does them when one runs",
                outcomes.len()
            )));
        }
        Ok(())
    }

    /// Waits until the partitions' owners have done what was asked, or the time is over.
    async fn outcomes(
        &self,
        letters: &Letters,
        requests: Vec<Requested>,
    ) -> Result<Vec<Outcome>, Failure> {
        let deadline = Instant::now() + Duration::from_secs(self.wait);
        let mut outcomes: Vec<_> = requests
            .into_iter()
            .map(|request| Outcome {
                request,
                outcome: None,
            })
            .collect();
        loop {
            for one in outcomes.iter_mut().filter(|one| one.outcome.is_none()) {
                one.outcome = letters.outcome(&one.request).await?;
            }
            let done = outcomes.iter().all(|one| one.outcome.is_some());
            if done || Instant::now() >= deadline {
                return Ok(outcomes);
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }
}

fn outcome_table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&["projection", "generation", "key", "outcome"]);
    for Outcome { request, outcome } in outcomes {
        table.row([
            request.projection.clone(),
            format!("g{}", request.generation),
            request.stream.to_string(),
            outcome
                .clone()
                .unwrap_or_else(|| "asked for, not done yet".to_owned()),
        ]);
    }
    table
}
