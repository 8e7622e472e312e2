//! One attempt after another at making a batch durable.
//!
//! A batch is decided on what this process remembers (see [`super::memory`]) and else on reads, and
//! written by one transaction that holds all of it to the truth: the head to its place, streams to
//! their ends, keys to be free. Where something was not so, the reasons of the cancellation name it;
//! that is read, the batch is decided again, so that whoever was wrong gets its verdict, and the rest
//! goes again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use millrace_es::{Context, StreamId, StreamVersion};
use tokio::time::{sleep, timeout};

use super::{
    DynamoInline,
    calls::{Table, Transacted},
    failure::{Failure, Said},
    items,
    lease::Lease,
    limits::Share,
    memory::Memory,
    recover,
    transaction::{self, Cancelled, Transaction},
    values::get_text,
};
use crate::{
    AppendError, AppendRequest, ExpectedVersion, LogError,
    lane::{
        Faults, LaneStep, LaneStore, Refused, SharedError,
        plan::{self, Plan, Probed, Wanted},
        seen::Seen,
    },
};

/// How long one attempt at a batch may take once this process leads.
const ATTEMPT_MS: u64 = 5_000;
/// The pauses between attempts: doubled from the first to the second, a random half left out.
const FIRST_PAUSE_MS: u64 = 5;
const MAX_PAUSE_MS: u64 = 200;
/// How often a batch is decided again at once because something was not as thought; then it pauses.
const MAX_RACES: u32 = 5;
/// How often that may be because events stand where the head says that there are none.
const MAX_STRAY_EVENTS: u32 = 12;

/// The lane's store.
pub(super) struct Store {
    pub context: Context,
    pub table: Table,
    pub inline: Vec<Arc<dyn DynamoInline>>,
    pub faults: Option<Arc<dyn Faults>>,
    pub lease: Lease,
    /// The newest head this process has seen.
    pub seen: Seen,
    pub memory: Memory,
    /// What was refused to the batch at work as not being so: read, and not guessed again.
    pub doubts: Doubts,
}

/// What turned out not to be as it was guessed.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    streams: HashSet<StreamId>,
    keys: HashSet<[u8; 32]>,
    /// How often events stood where the head says that there are none.
    stray: u32,
}

/// What a batch is decided on.
struct Basis {
    probed: Probed,
    /// Whether anything of it is remembered or guessed.
    guessed: bool,
    /// Streams that were taken for empty and not looked at.
    empty: HashSet<StreamId>,
}

#[async_trait]
impl LaneStore for Store {
    fn context(&self) -> &Context {
        &self.context
    }

    async fn commit<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        deadline: Instant,
    ) -> Result<Plan<'a>, Refused> {
        let requests = &requests[..together(requests)];
        let mut pause = Duration::from_millis(FIRST_PAUSE_MS);
        let mut races = 0;
        self.doubts = Doubts::default();
        loop {
            let mut sent = None;
            let after = match self.attempt(requests, deadline, &mut sent).await {
                Ok(plan) => After::Done(Box::new(plan)),
                Err(failure) => self.judge(failure, sent).await,
            };
            let error = match after {
                After::Done(plan) => {
                    self.seen.committed(plan.before.epoch, plan.position);
                    return Ok(*plan);
                }
                After::Refused(refused) => return Err(refused),
                After::Again => continue,
                After::Raced if races < MAX_RACES => {
                    races += 1;
                    continue;
                }
                After::Raced => SharedError::new(Said("others write all the time".to_owned())),
                After::Passing(error) => error,
            };
            if Instant::now() + pause >= deadline {
                return Err(Refused::Unavailable(error));
            }
            tracing::warn!(context = %self.context, %error, "a batch did not commit, trying again");
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(Duration::from_millis(MAX_PAUSE_MS));
        }
    }

    async fn rest(&mut self) -> Option<Duration> {
        self.lease.rest().await
    }

    async fn end(&mut self) {
        self.lease.free().await;
    }
}

/// How many requests from the first on go into one transaction whatever becomes of them, without
/// their write-model rows; at least one.
fn together(requests: &[&AppendRequest]) -> usize {
    let mut share = Share::HEAD;
    let fitting = requests.iter().take_while(|request| {
        share = share.plus(Share::of(request));
        share.fits()
    });
    fitting.count().max(1).min(requests.len())
}

/// What follows from an attempt.
enum After<'a> {
    /// The batch is there.
    Done(Box<Plan<'a>>),
    Refused(Refused),
    /// Try again at once.
    Again,
    /// Try again at once, unless that was too often already.
    Raced,
    /// Try again after a pause.
    Passing(SharedError),
}

impl Store {
    /// Finds out what a failure means for the batch, which was `sent` if it may be there.
    async fn judge<'a>(&mut self, failure: Failure, sent: Option<Plan<'a>>) -> After<'a> {
        match failure {
            Failure::Data { reason, error } => After::Refused(Refused::Data { reason, error }),
            Failure::Fatal(error) => After::Refused(Refused::Broken(error)),
            Failure::Raced => After::Raced,
            Failure::Passing(error) => After::Passing(error),
            Failure::WentBack(reason) => {
                tracing::error!(context = %self.context, reason, "the log is halted; run `millrace log recover`");
                match recover::halt(&self.table, &reason).await {
                    Ok(()) => After::Again,
                    Err(failure) => After::Passing(SharedError::new(LogError::from(failure))),
                }
            }
            Failure::Open(error) => {
                self.memory.forget();
                let Some(plan) = sent else {
                    return After::Passing(error);
                };
                match self.settle(&plan).await {
                    Ok(true) => After::Done(Box::new(plan)),
                    Ok(false) => After::Passing(error),
                    Err(settling) => {
                        tracing::error!(context = %self.context, ?settling, %error,
                            "a transaction's outcome could not be found out");
                        After::Refused(Refused::Open(error))
                    }
                }
            }
        }
    }

    /// One attempt. `sent` holds the plan from the moment on at which it may have been committed.
    async fn attempt<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        deadline: Instant,
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        if self.lease.hold(deadline).await? {
            self.memory.forget();
        }
        self.at(LaneStep::Locked).await;
        let bound = Duration::from_millis(ATTEMPT_MS);
        match timeout(bound, self.run(requests, sent)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::open(format!(
                "an attempt at a batch took more than {ATTEMPT_MS} ms"
            ))),
        }
    }

    async fn run<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        let wanted = Wanted::of(requests.iter().copied());
        let basis = self.probe(&wanted).await?;
        let (plan, transaction) = self.decide(requests, &basis)?;
        self.at(LaneStep::Probed).await;
        // A verdict on a guess that no transaction holds to the truth is worth nothing.
        if plan.is_empty() && basis.guessed {
            self.memory.forget();
            self.doubts.streams.extend(basis.empty);
            self.doubts.keys.extend(&wanted.keys);
            return Err(Failure::Raced);
        }
        let streams = unheld_streams(requests, &plan, &basis.empty);
        let keys = unheld_keys(requests, &plan, &self.doubts.keys);
        if !streams.is_empty() || !keys.is_empty() {
            self.doubts.streams.extend(streams);
            self.doubts.keys.extend(keys);
            return Err(Failure::Raced);
        }
        if plan.verdicts.iter().all(Result::is_err) {
            return Ok(plan);
        }
        self.write(plan, transaction, sent).await
    }

    /// Decides as many of the requests as go into one transaction with their write-model rows.
    fn decide<'a>(
        &self,
        requests: &[&'a AppendRequest],
        basis: &Basis,
    ) -> Result<(Plan<'a>, Transaction), Failure> {
        let mut count = requests.len();
        loop {
            let some = &requests[..count];
            let plan = plan::decide(&self.context, some.iter().copied(), &basis.probed);
            let ends = asserted(some, &plan);
            let transaction =
                transaction::of_plan(&self.table.name, &self.context, &plan, &ends, &self.inline)?;
            if transaction.fits() {
                return Ok((plan, transaction));
            }
            if count <= 1 {
                return Err(Failure::data(transaction.too_large()));
            }
            count = transaction.share_that_fits(count);
        }
    }

    async fn write<'a>(
        &mut self,
        plan: Plan<'a>,
        transaction: Transaction,
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        self.at(LaneStep::Written).await;
        self.at(LaneStep::Committing).await;
        let Transaction { actions, about, .. } = transaction;
        let token = format!("{:032x}", rand::random::<u128>());
        // From here on it may be durable.
        *sent = Some(plan);
        match self.table.transact(actions, &token).await {
            Ok(Transacted::Done) => {}
            Ok(Transacted::Cancelled(reasons)) => {
                *sent = None;
                let cancelled = Cancelled::of(&about, &reasons)?;
                return Err(self.learn(cancelled));
            }
            Err(failure) => return Err(failure),
        }
        self.at(LaneStep::Committed).await;
        let plan = sent
            .take()
            .ok_or_else(|| Failure::passing("the batch was lost on its way"))?;
        self.memory.committed(&plan);
        Ok(plan)
    }

    /// Takes from a cancelled transaction what was not as it was thought.
    fn learn(&mut self, cancelled: Cancelled) -> Failure {
        if cancelled.head || cancelled.names {
            self.memory.forget();
        }
        if !cancelled.head && !cancelled.streams.is_empty() {
            // Right for a stream that was guessed empty. Others were held by the head; that an event
            // is there all the same is so for a moment while another's transaction takes effect.
            self.doubts.stray += 1;
            self.memory.forget();
        }
        if self.doubts.stray > MAX_STRAY_EVENTS {
            return Failure::Fatal(LogError::Corrupt(format!(
                "{} has events behind those that its head knows: {:?}",
                self.table.name, cancelled.streams
            )));
        }
        self.doubts.streams.extend(cancelled.streams);
        self.doubts.keys.extend(cancelled.keys);
        Failure::Raced
    }

    /// Gathers what a batch has to know: what is remembered, what may be guessed because the
    /// transaction holds it to the truth, and else what the store says. The head comes first: what
    /// is read after it is no older, and if the head is still there in the end, no newer.
    async fn probe(&mut self, wanted: &Wanted<'_>) -> Result<Basis, Failure> {
        let mut guessed = true;
        let head = match self.memory.head() {
            Some(head) => head,
            None => {
                let (head, _) = self.table.head().await?;
                self.seen.take(&head)?;
                self.memory.read(&head);
                guessed = false;
                head
            }
        };
        let mut probed = Probed {
            head,
            streams: std::collections::HashMap::new(),
            answers: std::collections::HashMap::new(),
            expired: Vec::new(),
            holders: std::collections::HashMap::new(),
        };
        let mut empty = HashSet::new();
        let mut unknown = Vec::new();
        for (stream, expected) in &wanted.streams {
            match self.memory.end(stream) {
                Some(end) => {
                    if let Some(end) = end {
                        probed.streams.insert((*stream).clone(), end);
                    }
                }
                None if *expected == ExpectedVersion::NoStream
                    && !self.doubts.streams.contains(*stream) =>
                {
                    guessed = true;
                    empty.insert((*stream).clone());
                }
                None => unknown.push((*stream).clone()),
            }
        }
        for (stream, end) in self.table.ends(unknown).await? {
            self.memory.learn(&stream, end);
            if let Some(end) = end {
                probed.streams.insert(stream, end);
            }
        }
        guessed |= wanted
            .keys
            .iter()
            .any(|key| !self.doubts.keys.contains(key));
        self.read_answers(wanted, &mut probed).await?;
        self.read_holders(wanted, &mut probed).await?;
        Ok(Basis {
            probed,
            guessed,
            empty,
        })
    }

    /// Keys are taken for free until a transaction was refused for one.
    async fn read_answers(&self, wanted: &Wanted<'_>, probed: &mut Probed) -> Result<(), Failure> {
        let keys = wanted.keys.iter();
        let doubted = keys.filter(|key| self.doubts.keys.contains(*key));
        let keys = doubted.map(items::answer_key).collect();
        let found = self.table.get_each(keys).await?;
        let now = probed.head.now.get().unix_timestamp();
        for item in found.iter().flatten() {
            let (stored, expires) = items::answer_from(item)?;
            if expires > now {
                probed.answers.insert(stored.key.key_hash, stored);
            }
        }
        Ok(())
    }

    async fn read_holders(&self, wanted: &Wanted<'_>, probed: &mut Probed) -> Result<(), Failure> {
        let names: HashSet<(&str, &str)> = wanted.names.iter().copied().collect();
        let names: Vec<_> = names.into_iter().collect();
        let keys = names
            .iter()
            .map(|(scope, value)| items::name_key(scope, value));
        let found = self.table.get_each(keys.collect()).await?;
        for ((scope, value), item) in names.into_iter().zip(found) {
            if let Some(item) = item {
                let holder = get_text(&item, items::HOLDER)?.to_owned();
                let name = (scope.to_owned(), value.to_owned());
                probed.holders.insert(name, holder);
            }
        }
        Ok(())
    }

    pub(super) async fn at(&self, step: LaneStep) {
        if let Some(faults) = &self.faults {
            faults.at(step).await;
        }
    }
}

/// The streams that a plan relies on and appends nothing to, at the version it took them to have.
fn asserted<'a>(
    requests: &[&'a AppendRequest],
    plan: &Plan<'a>,
) -> Vec<(&'a StreamId, StreamVersion)> {
    let mut seen: HashSet<&StreamId> = plan.rows.iter().map(|row| row.stream).collect();
    let mut ends = Vec::new();
    for (request, verdict) in requests.iter().zip(&plan.verdicts) {
        let Ok(appended) = verdict else { continue };
        for (append, version) in request.streams.iter().zip(&appended.versions) {
            if append.events.is_empty() && seen.insert(&append.stream) {
                ends.push((&append.stream, *version));
            }
        }
    }
    ends
}

/// Streams that were taken for empty, and that the plan's transaction does not hold to it: somebody
/// may have got a verdict that is not so.
fn unheld_streams(
    requests: &[&AppendRequest],
    plan: &Plan<'_>,
    empty: &HashSet<StreamId>,
) -> Vec<StreamId> {
    if empty.is_empty() {
        return Vec::new();
    }
    let put: HashSet<&StreamId> = plan.rows.iter().map(|row| row.stream).collect();
    // A plan may be of the first of the requests only.
    let judged = requests.iter().take(plan.verdicts.len());
    judged
        .flat_map(|request| &request.streams)
        .map(|append| &append.stream)
        .filter(|stream| empty.contains(*stream) && !put.contains(stream))
        .cloned()
        .collect()
}

/// Keys that were taken for free, of requests that were refused for another reason. A request that
/// was taken before is told so, whatever came after it.
fn unheld_keys(
    requests: &[&AppendRequest],
    plan: &Plan<'_>,
    read: &HashSet<[u8; 32]>,
) -> Vec<[u8; 32]> {
    let refused = requests.iter().zip(&plan.verdicts).filter(|(_, verdict)| {
        matches!(
            verdict,
            Err(AppendError::Conflict { .. } | AppendError::Reserved { .. })
        )
    });
    refused
        .filter_map(|(request, _)| request.answer.as_ref())
        .map(|(key, _)| key.key_hash)
        .filter(|key| !read.contains(key))
        .collect()
}
