//! One command, from its decision to its answer.

use std::{
    array,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use millrace_es::{
    Aggregate, DomainEvent, EventId, Metadata, NewEvent, Reservation, StreamId, StreamVersion,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Execute, ExecuteAcross, ExecuteError, Executed, MAX_EXECUTE_ATTEMPTS, Outcome, OutcomeAcross,
    Repository,
    cache::{Entry, Known, Slot, with_all},
};
use crate::{Answer, AnswerKey, AppendError, AppendRequest, Appended, StoredAnswer, StreamAppend};

type Appending<'a> = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send + 'a>>;

/// A command over the aggregates of some streams.
struct Across<A, D, F, const N: usize> {
    streams: [StreamId; N],
    slots: [Arc<Slot<A>>; N],
    /// The places of the streams in the order of their names, in which their slots are locked.
    order: [usize; N],
    if_match: [Option<StreamVersion>; N],
    metadata: Arc<Metadata>,
    key: Option<AnswerKey>,
    decide: D,
    conclude: F,
}

/// What an outcome comes to beside its events.
struct Conclusion {
    answer: Answer,
    /// What is appended to streams of other kinds in the same append.
    beside: Vec<StreamAppend>,
}

/// A decision whose append is under way.
struct Decided<'a, A, const N: usize> {
    append: Appending<'a>,
    answer: Answer,
    of: [DecidedOn<A>; N],
}

/// One aggregate's part in a decision.
struct DecidedOn<A> {
    filling: u64,
    appends: bool,
    /// The state to keep a snapshot of, when the stream passes a multiple of the interval.
    snapshot: Option<(StreamVersion, A)>,
}

impl Conclusion {
    /// An answer with nothing beside.
    const fn alone(answer: Answer) -> Result<Self, ExecuteError> {
        Ok(Self {
            answer,
            beside: Vec::new(),
        })
    }
}

/// What a decision came to.
struct Decision<A, const N: usize> {
    append: AppendRequest,
    /// The states after it, of those to which something happened.
    after: [Option<Known<A>>; N],
    answer: Answer,
}

enum Step<'a, A, const N: usize> {
    /// A slot is empty: read its stream.
    Empty,
    /// The state in memory of the stream at this place, of this filling, is not at the version the
    /// caller saw.
    NotAt(usize, u64),
    Decided(Decided<'a, A, N>),
}

impl<A: Aggregate + Serialize + DeserializeOwned> Repository<A> {
    /// Decides a command on the newest state and appends what happened, with the answer under its
    /// key. A conflict is decided again, at most [`MAX_EXECUTE_ATTEMPTS`] times. A refusal with a
    /// key is kept like any other answer, and no refusal is ever given from a stale state.
    /// `respond` makes the answer; it may be called several times and has to be quick.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute(
        &self,
        request: Execute<'_, A>,
        respond: impl Fn(Outcome<'_, A>) -> Answer + Send + Sync,
    ) -> Result<Executed, ExecuteError> {
        let (across, command) = request.across();
        let decide = |[state]: [&A; 1]| state.decide(&command).map(|events| [events]);
        let command = self.across(across, decide, |outcome: OutcomeAcross<'_, A, _, 1>| {
            Conclusion::alone(respond(outcome.of_one()))
        })?;
        self.run(&command, A::reserved).await
    }

    /// As [`Repository::execute`], and in the same append whatever `beside` makes of the outcome for
    /// streams of other kinds, each with the version that it expects there. A stream of these that is
    /// not as expected is not decided again, since nothing is known of it here: the caller gets the
    /// conflict, reads it, and asks anew. `beside` may be called several times.
    ///
    /// # Errors
    /// See [`ExecuteError`]; [`AppendError::Conflict`] when a stream of `beside` moved on.
    pub async fn execute_beside(
        &self,
        request: Execute<'_, A>,
        beside: impl Fn(Outcome<'_, A>) -> Result<Vec<StreamAppend>, ExecuteError> + Send + Sync,
        respond: impl Fn(Outcome<'_, A>) -> Answer + Send + Sync,
    ) -> Result<Executed, ExecuteError> {
        let (across, command) = request.across();
        let decide = |[state]: [&A; 1]| state.decide(&command).map(|events| [events]);
        let conclude = |outcome: OutcomeAcross<'_, A, A::Refusal, 1>| {
            let outcome = outcome.of_one();
            Ok(Conclusion {
                answer: respond(outcome),
                beside: beside(outcome)?,
            })
        };
        let command = self.across(across, decide, conclude)?;
        self.run(&command, A::reserved).await
    }

    /// Decides a command on the newest states of several aggregates and appends what happened to
    /// all of them as one, or nothing; for the rest it is as [`Repository::execute`]. `decide`
    /// gives the events of each; it may be called several times, and is pure and quick.
    ///
    /// Nobody waits for somebody who waits for him: the states of one decision are locked in the
    /// order of their streams' names, for no longer than deciding and queueing takes, and nothing
    /// is locked while a stream is read or an append is under way. Nobody starves either: within a
    /// process, decisions stand in the log's queue in the order in which they were made, each on
    /// what those before it came to, so that they do not conflict however many share an aggregate.
    /// A conflict means that an append of another process was taken, or that one before it in the
    /// queue was not; the attempts are counted.
    ///
    /// # Errors
    /// See [`ExecuteError`]; [`AppendError::Invalid`] also when an id is given twice. A name that
    /// somebody else holds is an error here, [`AppendError::Reserved`]: no refusal is known for it.
    pub async fn execute_across<R, const N: usize>(
        &self,
        request: ExecuteAcross<'_, N>,
        decide: impl Fn([&A; N]) -> Result<[Vec<A::Event>; N], R> + Send + Sync,
        respond: impl Fn(OutcomeAcross<'_, A, R, N>) -> Answer + Send + Sync,
    ) -> Result<Executed, ExecuteError>
    where
        R: Send + Sync,
    {
        let conclude = |outcome: OutcomeAcross<'_, A, R, N>| Conclusion::alone(respond(outcome));
        let command = self.across(request, decide, conclude)?;
        self.run(&command, |_, _| None).await
    }

    /// Decides until the log has taken it, or says something else than that somebody was faster.
    /// Once somebody else was found to hold a name that was to be taken, `reserved` says why the
    /// command is refused, and that is what the log is given.
    async fn run<R, D, F, const N: usize>(
        &self,
        command: &Across<A, D, F, N>,
        reserved: impl Fn(&'static str, &str) -> Option<R> + Send + Sync,
    ) -> Result<Executed, ExecuteError>
    where
        D: Fn([&A; N]) -> Result<[Vec<A::Event>; N], R> + Send + Sync,
        F: Fn(OutcomeAcross<'_, A, R, N>) -> Result<Conclusion, ExecuteError> + Send + Sync,
        R: Send + Sync,
    {
        let mut taken: Option<R> = None;
        for _ in 0..MAX_EXECUTE_ATTEMPTS {
            match self.step(command, taken.as_ref()).await? {
                Step::Empty => {
                    for (slot, stream) in command.slots.iter().zip(&command.streams) {
                        self.fill(slot, stream).await?;
                    }
                }
                Step::NotAt(place, filling) => {
                    if let Some(executed) = self.check_match(command, place).await? {
                        return Ok(executed);
                    }
                    command.slots[place].discard(filling);
                }
                Step::Decided(decided) => match self.finish(command, decided).await {
                    Ok(Some(executed)) => return Ok(executed),
                    // What was decided did not hold: neither need what stood in its way.
                    Ok(None) => taken = None,
                    Err(error) => {
                        let ExecuteError::Append(AppendError::Reserved { scope, value, .. }) =
                            &error
                        else {
                            return Err(error);
                        };
                        taken = Some(reserved(scope, value).ok_or(error)?);
                    }
                },
            }
        }
        Err(ExecuteError::Contended {
            attempts: MAX_EXECUTE_ATTEMPTS,
        })
    }

    /// Finds the places in memory of those whom a request is for.
    fn across<D, F, const N: usize>(
        &self,
        request: ExecuteAcross<'_, N>,
        decide: D,
        conclude: F,
    ) -> Result<Across<A, D, F, N>, ExecuteError> {
        let streams = request.ids.map(|id| StreamId::of(A::CATEGORY, id));
        let mut order: [usize; N] = array::from_fn(|place| place);
        order.sort_unstable_by(|a, b| streams[*a].cmp(&streams[*b]));
        // A slot cannot be locked twice.
        if let Some(pair) = order
            .windows(2)
            .find(|pair| streams[pair[0]] == streams[pair[1]])
        {
            let reason = format!("a command is for {} twice", streams[pair[0]]);
            return Err(ExecuteError::Append(AppendError::Invalid(reason)));
        }
        let slots = streams.each_ref().map(|stream| self.cache.slot(stream));
        for (slot, new) in slots.iter().zip(request.new) {
            if new {
                slot.fill(Known::default());
            }
        }
        Ok(Across {
            streams,
            slots,
            order,
            if_match: request.if_match,
            metadata: Arc::new(request.metadata),
            key: request.key,
            decide,
            conclude,
        })
    }

    /// Decides on the states in memory and hands the append to the log while they are locked, so
    /// that appends stand in the log's queue in the order of their decisions. The order only saves
    /// conflicts: the log checks what each was decided on.
    async fn step<'s, R, D, F, const N: usize>(
        &'s self,
        command: &Across<A, D, F, N>,
        taken: Option<&R>,
    ) -> Result<Step<'s, A, N>, ExecuteError>
    where
        D: Fn([&A; N]) -> Result<[Vec<A::Event>; N], R>,
        F: Fn(OutcomeAcross<'_, A, R, N>) -> Result<Conclusion, ExecuteError>,
    {
        let slots = command.slots.each_ref().map(Arc::as_ref);
        poll_fn(|context| {
            let step = with_all(slots, command.order, |mut entries| {
                if let Some(place) = command.not_as_matched(&entries) {
                    return Ok(Step::NotAt(place, entries[place].filling));
                }
                let decision = command.decide(&entries, taken)?;
                let mut append = self.log.append(decision.append);
                // The first poll queues it. What is answered at once was refused or is done.
                let append: Appending<'s> = match append.as_mut().poll(context) {
                    Poll::Pending => append,
                    Poll::Ready(verdict) => Box::pin(std::future::ready(verdict)),
                };
                let mut after = decision.after;
                let of = array::from_fn(|place| self.note(entries[place], after[place].take()));
                Ok(Step::Decided(Decided {
                    append,
                    answer: decision.answer,
                    of,
                }))
            });
            Poll::Ready(step.unwrap_or(Ok(Step::Empty)))
        })
        .await
    }

    /// Takes over in memory what a decision made of an aggregate.
    fn note(&self, entry: &mut Entry<A>, after: Option<Known<A>>) -> DecidedOn<A> {
        let mut of = DecidedOn {
            filling: entry.filling,
            appends: after.is_some(),
            snapshot: None,
        };
        if let Some(after) = after {
            if self.passes_interval(entry.known.version, after.version) {
                of.snapshot = Some((after.version, after.state.clone()));
            }
            entry.known = after;
            entry.pending += 1;
        }
        of
    }

    fn passes_interval(&self, before: StreamVersion, after: StreamVersion) -> bool {
        let every = self.options.snapshot_every;
        every > 0 && before.get() / every != after.get() / every
    }

    async fn fill(&self, slot: &Slot<A>, stream: &StreamId) -> Result<(), ExecuteError> {
        if slot.with(|_| ()).is_some() {
            return Ok(());
        }
        let _reading = slot.loading.lock().await;
        if slot.with(|_| ()).is_none() {
            let known = self.read(stream).await?;
            slot.fill(known);
        }
        Ok(())
    }

    /// Holds `If-Match` against the log itself; `None` when it holds there. An answer kept under
    /// the key goes before: the mismatch may be the request's own first effect.
    async fn check_match<D, F, const N: usize>(
        &self,
        command: &Across<A, D, F, N>,
        place: usize,
    ) -> Result<Option<Executed>, ExecuteError> {
        if let Some(key) = &command.key {
            let stored = self.log.stored_answer(key).await;
            if let Some(stored) = stored.map_err(ExecuteError::Log)? {
                return replay(*key, stored).map(Some);
            }
        }
        let actual = self.read(&command.streams[place]).await?.version;
        if actual == StreamVersion::ZERO || command.if_match[place] == Some(actual) {
            return Ok(None);
        }
        Err(ExecuteError::VersionMismatch { actual })
    }

    /// Waits for the verdict. `None` when the command has to be decided again.
    async fn finish<D, F, const N: usize>(
        &self,
        command: &Across<A, D, F, N>,
        decided: Decided<'_, A, N>,
    ) -> Result<Option<Executed>, ExecuteError> {
        let error = match decided.append.await {
            Ok(appended) => {
                for (slot, of) in command.slots.iter().zip(&decided.of) {
                    if of.appends {
                        slot.settled(of.filling);
                    }
                }
                for (stream, of) in command.streams.iter().zip(decided.of) {
                    if let Some((version, state)) = of.snapshot {
                        self.keep_snapshot(stream, version, &state).await;
                    }
                }
                return Ok(Some(Executed {
                    answer: decided.answer,
                    token: appended.token,
                    replayed: false,
                }));
            }
            Err(error) => error,
        };
        // Which of the states does not hold is not asked: all of them include what failed.
        for (slot, of) in command.slots.iter().zip(&decided.of) {
            slot.discard(of.filling);
        }
        match (error, command.key) {
            (AppendError::Conflict { stream, .. }, _) if command.streams.contains(&stream) => {
                Ok(None)
            }
            (AppendError::DuplicateKey(stored), Some(key)) => replay(key, *stored).map(Some),
            (error, _) => Err(ExecuteError::Append(error)),
        }
    }
}

impl<'a, A: Aggregate> Execute<'a, A> {
    /// As the plain case of a command over several, and the command.
    fn across(self) -> (ExecuteAcross<'a, 1>, A::Command) {
        let across = ExecuteAcross {
            ids: [self.id],
            if_match: [self.if_match],
            metadata: self.metadata,
            key: self.key,
            new: [self.new],
        };
        (across, self.command)
    }
}

impl<'a, A: Aggregate> OutcomeAcross<'a, A, A::Refusal, 1> {
    /// The outcome of a command to one aggregate.
    const fn of_one(self) -> Outcome<'a, A> {
        match self {
            Self::Done {
                states: [state],
                versions: [version],
                events: [events],
            } => Outcome::Done {
                state,
                version,
                events: events.as_slice(),
            },
            Self::Refused {
                refusal,
                states: [state],
                versions: [version],
            } => Outcome::Refused {
                refusal,
                state,
                version,
            },
        }
    }
}

fn replay(key: AnswerKey, stored: StoredAnswer) -> Result<Executed, ExecuteError> {
    if stored.key.request_hash != key.request_hash {
        return Err(ExecuteError::KeyReused);
    }
    Ok(Executed {
        answer: stored.answer,
        token: stored.token,
        replayed: true,
    })
}

impl<A: Aggregate, D, F, const N: usize> Across<A, D, F, N> {
    /// The first place whose state is not at the version the caller saw.
    fn not_as_matched(&self, entries: &[&mut Entry<A>; N]) -> Option<usize> {
        (0..N).find(|place| {
            let actual = entries[*place].known.version;
            actual != StreamVersion::ZERO
                && self.if_match[*place].is_some_and(|wanted| wanted != actual)
        })
    }

    /// Decides on the states in memory: the append, the states after it, and the answer. It is a
    /// refusal where a name is `taken`.
    fn decide<R>(
        &self,
        entries: &[&mut Entry<A>; N],
        taken: Option<&R>,
    ) -> Result<Decision<A, N>, ExecuteError>
    where
        D: Fn([&A; N]) -> Result<[Vec<A::Event>; N], R>,
        F: Fn(OutcomeAcross<'_, A, R, N>) -> Result<Conclusion, ExecuteError>,
    {
        let known: [&Known<A>; N] = array::from_fn(|place| &entries[place].known);
        let states = known.map(|known| &known.state);
        let versions = known.map(|known| known.version);
        let mut new: [Vec<NewEvent>; N] = [const { Vec::new() }; N];
        let mut after: [Option<Known<A>>; N] = [const { None }; N];
        let mut reservations = Vec::new();
        let refused = |refusal: &R| {
            (self.conclude)(OutcomeAcross::Refused {
                refusal,
                states,
                versions,
            })
        };
        let decided = match taken {
            Some(refusal) => Err(refused(refusal)),
            None => (self.decide)(states).map_err(|refusal| refused(&refusal)),
        };
        let conclusion = match decided {
            Ok(events) => {
                for place in 0..N {
                    new[place] = encode_events(&events[place], &self.metadata)?;
                    after[place] =
                        fold(known[place], &events[place], &new[place], &mut reservations);
                }
                (self.conclude)(OutcomeAcross::Done {
                    states: array::from_fn(|place| {
                        after[place].as_ref().map_or(states[place], |it| &it.state)
                    }),
                    versions: array::from_fn(|place| {
                        after[place]
                            .as_ref()
                            .map_or(versions[place], |it| it.version)
                    }),
                    events: &events,
                })
            }
            Err(refused) => refused,
        };
        let Conclusion { answer, beside } = conclusion?;
        let streams = self.streams.iter().zip(known).zip(new);
        let append = AppendRequest {
            streams: streams
                .map(|((stream, known), events)| StreamAppend {
                    stream: stream.clone(),
                    expected: known.expected(),
                    events,
                })
                .chain(beside)
                .collect(),
            answer: self.key.map(|key| (key, answer.clone())),
            reservations,
        };
        Ok(Decision {
            append,
            after,
            answer,
        })
    }
}

/// What is known of an aggregate after some events, whose names are added to `reservations`; `None`
/// when nothing happened to it.
fn fold<A: Aggregate>(
    known: &Known<A>,
    events: &[A::Event],
    new: &[NewEvent],
    reservations: &mut Vec<Reservation>,
) -> Option<Known<A>> {
    let last = new.last()?;
    Some(Known {
        state: events.iter().fold(known.state.clone(), |state, event| {
            reservations.extend(state.reservations(event));
            state.evolve(event)
        }),
        version: known.version.plus(events.len() as u64),
        last: Some(last.id),
    })
}

/// Makes events of what was decided, for an append: each with a fresh id.
///
/// # Errors
/// [`ExecuteError::Encode`] when one has no JSON form, which is a defect of its type.
pub fn encode_events<E: DomainEvent>(
    events: &[E],
    metadata: &Arc<Metadata>,
) -> Result<Vec<NewEvent>, ExecuteError> {
    let new = events.iter().map(|event| {
        Ok(NewEvent {
            id: EventId::generate(),
            event_type: event.event_type().into(),
            schema_version: event.schema_version(),
            payload: event.encode().map_err(|source| ExecuteError::Encode {
                event_type: event.event_type(),
                source,
            })?,
            metadata: Arc::clone(metadata),
        })
    });
    new.collect()
}
