//! `millrace log`: how a context's event log stands, and what an operator decides when it lost its
//! end.

use clap::{Args, Subcommand};
use millrace_es::{Context, Position};
use millrace_eventlog::{EventLog, LogHead};
use millrace_streaming::{StreamState, Topology, import_tail_from_stream, new_epoch};
use serde::Serialize;

use crate::{
    endpoints::Target,
    failure::Failure,
    opened,
    output::{self, Format, Table},
    stream_reader::{Found, StreamReader},
};

/// See how an event log stands, and recover one that lost its end
#[derive(Debug, Args)]
pub struct Log {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Show a log's head beside its stream
    Status(Status),
    /// Bring a log that is behind its stream or its readers (a restore to an earlier point, a
    /// failover that lost commits) back to work
    ///
    /// Appends and relay stand still until one of the two is chosen. Without --yes it says what it
    /// found and what it would do, and asks.
    Recover(Recover),
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    target: Target,
    /// Whose log
    #[arg(long, default_value = "ordering", value_parser = Context::new)]
    context: Context,
}

#[derive(Debug, Args)]
struct Recover {
    #[command(flatten)]
    target: Target,
    /// Whose log
    #[arg(long, value_parser = Context::new)]
    context: Context,
    #[command(flatten)]
    way: Way,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Way {
    /// Take the events that the log lost back from its stream: nothing is lost, nothing rebuilt
    #[arg(long)]
    import_from_stream: bool,
    /// Give up what is beyond the log's head: a new epoch begins, and every projection is rebuilt
    #[arg(long)]
    new_epoch: bool,
}

/// How a log and its stream stand.
#[derive(Debug, Serialize)]
struct Standing {
    context: Context,
    head: Position,
    epoch: u64,
    partitions: u16,
    halted: Option<String>,
    stream: Option<StreamStanding>,
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct StreamStanding {
    first: Position,
    last: Position,
    events: u64,
}

/// What the comparison of log and stream says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Verdict {
    /// The stream has what the log has.
    Even,
    /// The relay has something to publish.
    StreamBehind { events: u64 },
    /// The stream is not there; the relay makes it.
    NoStream,
    /// The log lost events that the stream kept.
    LogBehind { events: u64 },
    /// At the last common position the two hold different events.
    Differs { position: Position, reason: String },
}

impl Verdict {
    fn describe(&self) -> String {
        match self {
            Self::Even => "the stream has what the log has".into(),
            Self::StreamBehind { events } => {
                format!("the relay has {events} events to publish")
            }
            Self::NoStream => "there is no stream; the relay makes it from the log".into(),
            Self::LogBehind { events } => {
                format!("the log is behind its stream by {events} events: it lost its end")
            }
            Self::Differs { position, reason } => {
                format!("log and stream differ at position {position}: {reason}")
            }
        }
    }
}

impl Log {
    pub async fn run(self, format: Format) -> Result<(), Failure> {
        match self.command {
            LogCommand::Status(status) => status.run(format).await,
            LogCommand::Recover(recover) => recover.run(format).await,
        }
    }
}

impl Status {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let endpoints = self.target.resolve()?;
        let log = opened::log(&endpoints, &self.context).await?;
        let topology = opened::topology(&endpoints).await?;
        let standing = compare(&*log, &topology).await?;
        output::print(format, &standing, table)?;
        Ok(())
    }
}

impl Recover {
    async fn run(&self, format: Format) -> Result<(), Failure> {
        let endpoints = self.target.resolve()?;
        let log = opened::log(&endpoints, &self.context).await?;
        let topology = opened::topology(&endpoints).await?;
        let before = compare(&*log, &topology).await?;
        output::say(table(&before).to_string().trim_end())?;
        output::say(&self.plan(&before))?;
        if self.dry_run {
            output::print(format, &before, table)?;
            return Ok(());
        }
        if !self.yes && !output::confirmed("Do it?")? {
            return Err(Failure::Refused(
                "nothing was changed: it needs a yes, on the terminal or as --yes".to_owned(),
            ));
        }
        if self.way.new_epoch {
            new_epoch(&*log, &topology).await?;
        } else {
            let taken = import_tail_from_stream(&*log, &topology).await?;
            output::say(&format!(
                "took back positions {} to {}",
                taken.first, taken.head
            ))?;
            if taken.stream_last > taken.head {
                output::say(&format!(
                    "what follows in the stream, up to {}, are no events of this log: the relay \
                     makes the stream again",
                    taken.stream_last
                ))?;
            }
        }
        let after = compare(&*log, &topology).await?;
        output::print(format, &after, table)?;
        Ok(())
    }

    fn plan(&self, before: &Standing) -> String {
        match (self.way.new_epoch, &before.verdict) {
            (true, verdict) => {
                let given_up = match verdict {
                    Verdict::LogBehind { events } => {
                        format!("; {events} events that only the stream has are given up for good")
                    }
                    _ => String::new(),
                };
                format!(
                    "--new-epoch: epoch {} begins after position {}, the stream is made again \
                     from the log, every projection is rebuilt{given_up}.",
                    before.epoch + 1,
                    before.head
                )
            }
            (false, Verdict::LogBehind { events }) => format!(
                "--import-from-stream: up to {events} events, from position {} on, go back into \
                 the log as far as they continue it; appends go on.",
                before.head.next(),
            ),
            (false, _) => "--import-from-stream: the stream has nothing beyond the log.".to_owned(),
        }
    }
}

/// Holds a log and its stream against each other.
async fn compare(log: &dyn EventLog, topology: &Topology) -> Result<Standing, Failure> {
    let context = log.context().clone();
    // The stream first: what is appended in between makes it look behind, never ahead.
    let state = topology
        .state(&context)
        .await
        .map_err(|error| Failure::unavailable("the stream cannot be read", error))?;
    let head = log.head().await?;
    let verdict = match &state {
        None => Verdict::NoStream,
        Some(state) => judge(log, topology, &head, state).await?,
    };
    Ok(Standing {
        context,
        head: head.position,
        epoch: head.epoch.get(),
        partitions: head.partitions.get(),
        halted: head.halted,
        stream: state.map(|state| StreamStanding {
            first: state.first,
            last: state.last,
            events: state.events,
        }),
        verdict,
    })
}

async fn judge(
    log: &dyn EventLog,
    topology: &Topology,
    head: &LogHead,
    state: &StreamState,
) -> Result<Verdict, Failure> {
    let common = head.position.min(state.last);
    if common >= state.first
        && common > Position::ZERO
        && let Some(reason) = difference(log, topology, common).await?
    {
        return Ok(Verdict::Differs {
            position: common,
            reason,
        });
    }
    let (ours, theirs) = (head.position.get(), state.last.get());
    Ok(if ours == theirs {
        Verdict::Even
    } else if ours > theirs {
        Verdict::StreamBehind {
            events: ours - theirs,
        }
    } else {
        Verdict::LogBehind {
            events: theirs - ours,
        }
    })
}

/// Why log and stream do not hold the same event at a position, if they do not.
async fn difference(
    log: &dyn EventLog,
    topology: &Topology,
    position: Position,
) -> Result<Option<String>, Failure> {
    let before = Position::new(position.get() - 1);
    let ours = log.read_log(before, 1).await?.into_iter().next();
    let mut reader = StreamReader::open(topology, log.context(), before).await?;
    Ok(match (reader.next().await?, ours) {
        (Found::Foreign(message), _) => Some(message.reason),
        (Found::Event(theirs), Some(ours)) if theirs.id != ours.id => Some(format!(
            "the log has event {}, the stream {}",
            ours.id, theirs.id
        )),
        _ => None,
    })
}

fn table(standing: &Standing) -> Table {
    let mut table = Table::new(&["what", "value"]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("context", standing.context.to_string());
    row("log head", standing.head.to_string());
    row("epoch", standing.epoch.to_string());
    row("partitions", standing.partitions.to_string());
    let halted = standing.halted.as_deref();
    row(
        "appends",
        halted.map_or("taken".into(), |reason| format!("HALTED: {reason}")),
    );
    if let Some(stream) = &standing.stream {
        row("stream first", stream.first.to_string());
        row("stream last", stream.last.to_string());
        row("stream events", stream.events.to_string());
    }
    row("verdict", standing.verdict.describe());
    table
}
