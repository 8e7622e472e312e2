//! One command, from its decision to its answer.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use millrace_es::{Aggregate, DomainEvent, EventId, Metadata, NewEvent, StreamId, StreamVersion};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Execute, ExecuteError, Executed, MAX_EXECUTE_ATTEMPTS, Outcome, Repository,
    cache::{Entry, Known, Slot},
};
use crate::{Answer, AnswerKey, AppendError, AppendRequest, Appended, StoredAnswer, StreamAppend};

type Appending<'a> = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send + 'a>>;

/// A decision whose append is under way.
struct Decided<'a, A> {
    append: Appending<'a>,
    answer: Answer,
    filling: u64,
    appends: bool,
    /// The state to keep a snapshot of, when the stream passes a multiple of the interval.
    snapshot: Option<(StreamVersion, A)>,
}

enum Step<'a, A> {
    /// The slot is empty: read the stream.
    Empty,
    /// The state in memory is not at the version the caller saw.
    NotAt(u64),
    Decided(Decided<'a, A>),
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
        let stream = StreamId::of(A::CATEGORY, request.id);
        let slot = self.cache.slot(&stream);
        if request.new {
            slot.fill(Known::default());
        }
        let metadata = Arc::new(request.metadata.clone());
        for _ in 0..MAX_EXECUTE_ATTEMPTS {
            match self
                .step(&slot, &stream, &request, &metadata, &respond)
                .await?
            {
                Step::Empty => self.fill(&slot, &stream).await?,
                Step::NotAt(filling) => {
                    if let Some(executed) = self.check_match(&stream, &request).await? {
                        return Ok(executed);
                    }
                    slot.discard(filling);
                }
                Step::Decided(decided) => {
                    if let Some(executed) =
                        self.finish(&slot, &stream, request.key, decided).await?
                    {
                        return Ok(executed);
                    }
                }
            }
        }
        Err(ExecuteError::Contended {
            attempts: MAX_EXECUTE_ATTEMPTS,
        })
    }

    /// Decides on the state in memory and hands the append to the log while the state is locked,
    /// so that appends stand in the log's queue in the order of their decisions. The order only
    /// saves conflicts: the log checks what each was decided on.
    async fn step<'s>(
        &'s self,
        slot: &Slot<A>,
        stream: &StreamId,
        request: &Execute<'_, A>,
        metadata: &Arc<Metadata>,
        respond: &(impl Fn(Outcome<'_, A>) -> Answer + Send + Sync),
    ) -> Result<Step<'s, A>, ExecuteError> {
        poll_fn(|context| {
            let step = slot.with(|entry| {
                let actual = entry.known.version;
                if actual != StreamVersion::ZERO
                    && request.if_match.is_some_and(|wanted| wanted != actual)
                {
                    return Ok(Step::NotAt(entry.filling));
                }
                let (append, after, answer) = decide(entry, stream, request, metadata, respond)?;
                let appends = append.streams.iter().any(|s| !s.events.is_empty());
                let mut append = self.log.append(append);
                // The first poll queues it. What is answered at once was refused or is done.
                let append: Appending<'s> = match append.as_mut().poll(context) {
                    Poll::Pending => append,
                    Poll::Ready(verdict) => Box::pin(std::future::ready(verdict)),
                };
                let mut snapshot = None;
                if let Some(after) = after {
                    if self.passes_interval(entry.known.version, after.version) {
                        snapshot = Some((after.version, after.state.clone()));
                    }
                    entry.known = after;
                    entry.pending += 1;
                }
                Ok(Step::Decided(Decided {
                    append,
                    answer,
                    filling: entry.filling,
                    appends,
                    snapshot,
                }))
            });
            Poll::Ready(step.unwrap_or(Ok(Step::Empty)))
        })
        .await
    }

    fn passes_interval(&self, before: StreamVersion, after: StreamVersion) -> bool {
        let every = self.options.snapshot_every;
        every > 0 && before.get() / every != after.get() / every
    }

    async fn fill(&self, slot: &Slot<A>, stream: &StreamId) -> Result<(), ExecuteError> {
        let _reading = slot.loading.lock().await;
        if slot.with(|_| ()).is_none() {
            let known = self.read(stream).await?;
            slot.fill(known);
        }
        Ok(())
    }

    /// Holds `If-Match` against the log itself; `None` when it holds there. An answer kept under
    /// the key goes before: the mismatch may be the request's own first effect.
    async fn check_match(
        &self,
        stream: &StreamId,
        request: &Execute<'_, A>,
    ) -> Result<Option<Executed>, ExecuteError> {
        if let Some(key) = &request.key {
            let stored = self.log.stored_answer(key).await;
            if let Some(stored) = stored.map_err(ExecuteError::Log)? {
                return replay(*key, stored).map(Some);
            }
        }
        let actual = self.read(stream).await?.version;
        if actual == StreamVersion::ZERO || request.if_match == Some(actual) {
            return Ok(None);
        }
        Err(ExecuteError::VersionMismatch { actual })
    }

    /// Waits for the verdict. `None` when the command has to be decided again.
    async fn finish(
        &self,
        slot: &Slot<A>,
        stream: &StreamId,
        key: Option<AnswerKey>,
        decided: Decided<'_, A>,
    ) -> Result<Option<Executed>, ExecuteError> {
        let error = match decided.append.await {
            Ok(appended) => {
                if decided.appends {
                    slot.settled(decided.filling);
                }
                if let Some((version, state)) = decided.snapshot {
                    self.keep_snapshot(stream, version, &state).await;
                }
                return Ok(Some(Executed {
                    answer: decided.answer,
                    token: appended.token,
                    replayed: false,
                }));
            }
            Err(error) => error,
        };
        slot.discard(decided.filling);
        match (error, key) {
            (AppendError::Conflict { .. }, _) => Ok(None),
            (AppendError::DuplicateKey(stored), Some(key)) => replay(key, *stored).map(Some),
            (error, _) => Err(ExecuteError::Append(error)),
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

/// The append of a decision, the state after it when something happened, and the answer.
fn decide<A: Aggregate>(
    entry: &Entry<A>,
    stream: &StreamId,
    request: &Execute<'_, A>,
    metadata: &Arc<Metadata>,
    respond: &(impl Fn(Outcome<'_, A>) -> Answer + Send + Sync),
) -> Result<(AppendRequest, Option<Known<A>>, Answer), ExecuteError> {
    let known = &entry.known;
    let mut new = Vec::new();
    let mut after = None;
    let answer = match known.state.decide(&request.command) {
        Ok(events) if events.is_empty() => respond(Outcome::Done {
            state: &known.state,
            version: known.version,
            events: &events,
        }),
        Ok(events) => {
            for event in &events {
                new.push(encode(event, metadata)?);
            }
            let state = events
                .iter()
                .fold(known.state.clone(), |state, event| state.evolve(event));
            let version = known.version.plus(events.len() as u64);
            let answer = respond(Outcome::Done {
                state: &state,
                version,
                events: &events,
            });
            after = Some(Known {
                state,
                version,
                last: new.last().map(|event: &NewEvent| event.id),
            });
            answer
        }
        Err(refusal) => respond(Outcome::Refused {
            refusal: &refusal,
            state: &known.state,
            version: known.version,
        }),
    };
    let append = AppendRequest {
        streams: vec![StreamAppend {
            stream: stream.clone(),
            expected: known.expected(),
            events: new,
        }],
        answer: request.key.map(|key| (key, answer.clone())),
        reservations: Vec::new(),
    };
    Ok((append, after, answer))
}

fn encode<E: DomainEvent>(event: &E, metadata: &Arc<Metadata>) -> Result<NewEvent, ExecuteError> {
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
}
