//! `millrace events`: what happened, as the log or the stream has it.

use std::{collections::VecDeque, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use millrace_es::{Context, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_kernel::EntityId;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    contexts,
    endpoints::Target,
    failure::Failure,
    opened,
    output::{self, Format},
    stream_reader::{Found, StreamReader},
};

/// Events read from the log at a time.
const PAGE_EVENTS: usize = 500;
/// How often a followed log is asked for more, in milliseconds.
const POLL_MS: u64 = 100;
/// How much of a payload a table shows, in characters.
const PAYLOAD_CHARS: usize = 100;

/// Follow a context's events, or read one entity's audit trail
#[derive(Debug, Args)]
pub struct Events {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Print events as they come, from the log or from its JetStream stream
    Tail(Tail),
    /// Print every event of one stream: `millrace events stream order-42`
    Stream(OneStream),
}

#[derive(Debug, Args)]
struct Tail {
    #[command(flatten)]
    target: Target,
    /// Whose events
    #[arg(long, default_value = "ordering", value_parser = Context::new)]
    context: Context,
    /// Read the event log (the truth) or its stream (what projectors get)
    #[arg(long, value_enum, default_value_t, value_name = "WHERE")]
    source: Source,
    /// The first position to print; 1 is the beginning [default: only what is new]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// End when everything that was there at the start is printed
    #[arg(long)]
    no_follow: bool,
}

/// Where events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Source {
    #[default]
    Log,
    Stream,
}

#[derive(Debug, Args)]
struct OneStream {
    #[command(flatten)]
    target: Target,
    /// Whose stream
    #[arg(long, default_value = "ordering", value_parser = Context::new)]
    context: Context,
    /// The stream (`order-42`), or an order's id alone
    #[arg(value_name = "STREAM")]
    stream: String,
    /// The first version to print
    #[arg(long, default_value_t = 1, value_name = "VERSION")]
    from: u64,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Events {
    pub async fn run(self, format: Format) -> Result<(), Failure> {
        match self.command {
            EventsCommand::Tail(tail) => {
                tokio::select! {
                    ended = tail.run(format) => ended,
                    // Whoever follows ends it so: that is no failure.
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            }
            EventsCommand::Stream(stream) => stream.run(format).await,
        }
    }
}

impl Tail {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(());
        }
        match self.source {
            Source::Log => self.log(format, limit).await,
            Source::Stream => self.stream(format, limit).await,
        }
    }

    async fn log(&self, format: Format, limit: usize) -> Result<(), Failure> {
        let log = opened::log(&self.target.resolve()?, &self.context).await?;
        let head = log.head().await?.position;
        let mut after = self.after(head);
        let mut left = limit;
        let mut lines = Lines::begin(format)?;
        let mut ticks = interval(Duration::from_millis(POLL_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let page = log.read_log(after, PAGE_EVENTS.min(left)).await?;
            for event in &page {
                if self.no_follow && event.position > head {
                    return Ok(());
                }
                lines.event(event)?;
                after = event.position;
                left -= 1;
            }
            if left == 0 || (self.no_follow && after >= head) {
                return Ok(());
            }
            if page.is_empty() {
                ticks.tick().await;
            }
        }
    }

    async fn stream(&self, format: Format, limit: usize) -> Result<(), Failure> {
        let topology = opened::topology(&self.target.resolve()?).await?;
        let state = topology
            .state(&self.context)
            .await
            .map_err(|error| Failure::unavailable("the stream cannot be read", error))?;
        let Some(state) = state else {
            return Err(Failure::NotFound(format!(
                "{} has no stream {}: start a relay, or run `millrace migrate`",
                topology.names().namespace(),
                topology.names().stream(&self.context)
            )));
        };
        let mut lines = Lines::begin(format)?;
        let after = self.after(state.last);
        if self.no_follow && after >= state.last {
            return Ok(());
        }
        let mut reader = StreamReader::open(&topology, &self.context, after).await?;
        for _ in 0..limit {
            let found = reader.next().await?;
            lines.found(&found)?;
            if self.no_follow && found.sequence() >= state.last {
                break;
            }
        }
        Ok(())
    }

    /// The position after which printing begins.
    fn after(&self, end: Position) -> Position {
        match self.from {
            Some(from) => Position::new(from.saturating_sub(1)),
            None if self.no_follow => Position::ZERO,
            None => end,
        }
    }
}

impl OneStream {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let log = opened::log(&self.target.resolve()?, &self.context).await?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut found = VecDeque::new();
        for stream in self.candidates()? {
            let mut after = StreamVersion::new(self.from.saturating_sub(1));
            while left > 0 {
                let page = log
                    .read_stream(&stream, after, PAGE_EVENTS.min(left))
                    .await?;
                let Some(last) = page.last() else { break };
                after = last.version;
                left -= page.len();
                found.extend(page);
            }
            if !found.is_empty() {
                break;
            }
        }
        if found.is_empty() && self.from <= 1 && self.limit != Some(0) {
            return Err(Failure::NotFound(format!(
                "the log of {} has no stream {:?}",
                self.context, self.stream
            )));
        }
        let mut lines = Lines::begin(format)?;
        for event in &found {
            lines.event(event)?;
        }
        Ok(())
    }

    /// The stream as it was named; or, since people have an order's id at hand, that order's.
    fn candidates(&self) -> Result<Vec<StreamId>, Failure> {
        let named =
            StreamId::new(&self.stream).map_err(|error| Failure::Usage(error.to_string()))?;
        let category = contexts::main_category(&self.context)?;
        let entity = EntityId::new(self.stream.as_str());
        let entity = entity.ok().map(|id| StreamId::of(category, &id));
        Ok([Some(named), entity].into_iter().flatten().collect())
    }
}

/// Events as lines: of JSON, or of a table whose columns are as wide as they usually need.
struct Lines {
    format: Format,
}

impl Lines {
    fn begin(format: Format) -> Result<Self, Failure> {
        if format == Format::Table {
            output::text(&format!(
                "{:>9}  {:<24}  {:>9}  {:<42}  {:>7}  {:<22}  payload",
                "position", "recorded at", "partition", "stream", "version", "type"
            ))?;
        }
        Ok(Self { format })
    }

    fn event(&mut self, event: &RecordedEvent) -> Result<(), Failure> {
        match self.format {
            Format::Json => output::json_line(event)?,
            Format::Table => output::text(&format!(
                "{:>9}  {:<24}  {:>9}  {:<42}  {:>7}  {:<22}  {}",
                event.position,
                output::millis(event.recorded_at),
                event.partition,
                output::printable(event.stream.as_str()),
                event.version,
                output::printable(&event.event_type),
                output::shortened(event.payload.get(), PAYLOAD_CHARS),
            ))?,
        }
        Ok(())
    }

    fn found(&mut self, found: &Found) -> Result<(), Failure> {
        match found {
            Found::Event(event) => self.event(event),
            Found::Foreign(message) => {
                match self.format {
                    Format::Json => output::json_line(&serde_json::json!({
                        "position": message.sequence,
                        "foreign": message.reason,
                    }))?,
                    Format::Table => {
                        output::text(&format!(
                            "{:>9}  foreign: {}",
                            message.sequence, message.reason
                        ))?;
                    }
                }
                Ok(())
            }
        }
    }
}
