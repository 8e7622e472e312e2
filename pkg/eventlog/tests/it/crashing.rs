//! Processes that write to one log and are killed or stopped.
//!
//! A child is this test binary again, running one test that does nothing unless it is told where
//! the log is.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use millrace_es::{EventId, Position, RecordedEvent};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, Faults, LaneStep, PgEventLog, PgInlineTable,
    PgLogOptions, conformance::audit,
};
use sqlx::{PgConnection, postgres::PgPoolOptions};

use crate::support::{append, context, open, store};

/// Tells a child where the log is.
pub const URL: &str = "EVENTLOG_CHILD_URL";
const STOP_AT: &str = "EVENTLOG_CHILD_STOP_AT";
const READY: &str = "ready";
/// The events of an append of a child.
const SIZES: [usize; 3] = [1, 3, 40];

/// How many lines of a child are read for the one that is waited for.
const MAX_LINES: usize = 5_000;

/// Blocks the lane at its second time at a step, and says so: a process that stops there.
struct StopAt {
    step: String,
    times: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Faults for StopAt {
    async fn at(&self, step: LaneStep) {
        if format!("{step:?}") == self.step
            && self.times.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 1
        {
            say(&format!("stopped {}", std::process::id()));
            // The whole process stands still here: the parent stops it, and lets it go on later.
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// A write model that is looked at and stays as it is.
struct Beside;

#[async_trait]
impl PgInlineTable for Beside {
    async fn apply(&self, conn: &mut PgConnection, _: &[RecordedEvent]) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("SELECT 1").execute(conn).await.map(|_| ())
    }
}

/// What a child was told about where to stop.
pub fn stop_at() -> Option<Arc<dyn Faults>> {
    let step = std::env::var(STOP_AT).ok()?;
    Some(Arc::new(StopAt {
        step,
        times: std::sync::atomic::AtomicUsize::new(0),
    }))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// What a child does: it appends for ever from several tasks, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let mut options = PgLogOptions::new(context());
    if let Some(faults) = stop_at() {
        // With a write model beside it a batch is a transaction of several statements.
        options.inline = vec![Arc::new(Beside)];
        options.faults = Some(faults);
    }
    let pool = PgPoolOptions::new().connect(&url).await.unwrap();
    let log = PgEventLog::open(pool, options).await.unwrap();
    write_for_ever(&log).await;
}

/// What a child does with its log.
pub async fn write_for_ever(log: &dyn EventLog) {
    say(READY);
    let writers = (0..6).map(|writer| async move {
        for n in 0.. {
            let request = append(
                &format!("thing-{}", (writer + n) % 5),
                ExpectedVersion::Any,
                SIZES[n % SIZES.len()],
            );
            let ids = ids(&request);
            if log.append(request).await.is_ok() {
                say(&format!("acked {}", ids.join(" ")));
            }
        }
    });
    futures::future::join_all(writers).await;
}

fn ids(request: &AppendRequest) -> Vec<String> {
    let events = &request.streams[0].events;
    events.iter().map(|event| event.id.to_string()).collect()
}

pub struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(url: &str, stop_at: Option<LaneStep>) -> Self {
        Self::start_as("crashing::child", &[(URL, url)], stop_at)
    }

    /// Starts the test binary again with a test of this name, which is to write for ever.
    pub fn start_as(test: &str, told: &[(&str, &str)], stop_at: Option<LaneStep>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .envs(told.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(step) = stop_at {
            command.env(STOP_AT, format!("{step:?}"));
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut writer = Self { child, lines };
        writer.until(|line| line == READY);
        writer
    }

    /// Reads on until a line; everything acknowledged before it.
    pub fn until(&mut self, found: impl Fn(&str) -> bool) -> Vec<EventId> {
        let mut acked = Vec::new();
        for line in self.lines.by_ref().take(MAX_LINES) {
            let line = line.unwrap();
            acked.extend(acknowledged(&line));
            if found(&line) {
                return acked;
            }
        }
        panic!("the child ended, or did not come there in {MAX_LINES} lines");
    }

    /// SIGKILL, and all it ever acknowledged since the last read.
    pub fn kill(mut self) -> Vec<EventId> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .flat_map(|line| acknowledged(&line))
            .collect()
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }
}

fn acknowledged(line: &str) -> Vec<EventId> {
    let Some(ids) = line.strip_prefix("acked ") else {
        return Vec::new();
    };
    // A line cut off by the kill was not read by anybody as an acknowledgement.
    ids.split(' ')
        .filter_map(|id| Some(EventId::new(id.parse().ok().filter(|_| id.len() == 36)?)))
        .collect()
}

/// Everything that was acknowledged is there, and nothing twice.
pub async fn check(log: &dyn EventLog, acked: &[EventId]) {
    // `audit` refuses an event that is there twice.
    let events = audit(log).await;
    let there: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    let lost = acked.iter().filter(|id| !there.contains(id)).count();
    assert_eq!(lost, 0, "of {} acknowledged", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_killed_writers() {
    let database = store().await;
    let log = open(&database).await;
    let mut acked = Vec::new();
    for round in 0..6 {
        let mut writers: Vec<Writer> = (0..2).map(|_| Writer::start(&database.url, None)).collect();
        // Killed somewhere in its fifth batch or later, each time after more of them.
        for writer in &mut writers {
            for _ in 0..5 + round * 3 {
                acked.extend(writer.until(|line| line.starts_with("acked ")));
            }
        }
        for writer in writers {
            acked.extend(writer.kill());
        }
        // The dead leave nothing behind that holds up the living.
        log.append(append("mine", ExpectedVersion::Any, 1))
            .await
            .unwrap();
    }
    assert!(acked.len() > 100, "{}", acked.len());
    check(&log, &acked).await;
}

async fn goes_on_beside_a_writer_stopped_at(step: LaneStep) {
    let database = store().await;
    let log = open(&database).await;
    let mut writer = tokio::task::spawn_blocking({
        let url = database.url.clone();
        move || Writer::start(&url, Some(step))
    })
    .await
    .unwrap();
    let mut acked = writer.until(|line| line.starts_with("stopped "));
    writer.signal("-STOP");

    let since = Instant::now();
    let appended = log.append(append("mine", ExpectedVersion::Any, 1)).await;

    let appended = appended.unwrap();
    let waited = since.elapsed();
    assert!(
        waited < Duration::from_secs(9),
        "{step:?} held the lane for {waited:?}"
    );
    writer.signal("-CONT");
    // It finds its transaction gone, and does its batch again: all of it, once.
    for _ in 0..20 {
        acked.extend(writer.until(|line| line.starts_with("acked ")));
    }
    acked.extend(writer.kill());
    let head = log.head().await.unwrap();
    assert!(head.position > appended.position);
    assert!(appended.position > Position::ZERO);
    check(&log, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_stopped_inside_its_transaction_holds_nobody_up_for_long() {
    let steps = [LaneStep::Written, LaneStep::Committing];
    let checks = steps.map(goes_on_beside_a_writer_stopped_at);
    futures::future::join_all(checks).await;
}
