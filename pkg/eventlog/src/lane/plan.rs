//! What becomes of a batch: the verdict of each append and the rows to write, decided in memory
//! from what was read of the log. Pure, so that it can be decided again when the log moved.

use std::collections::{HashMap, hash_map::Entry};

use millrace_es::{
    Context, Epoch, EventId, LogToken, NewEvent, Partition, PartitionCount, Position,
    RecordedEvent, StreamId, StreamVersion,
};
use millrace_kernel::Timestamp;

use crate::{
    Answer, AnswerKey, AppendError, AppendRequest, Appended, ExpectedVersion, Reservation,
    StoredAnswer,
};

/// The head as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub position: Position,
    pub epoch: Epoch,
    pub guard: i64,
    pub halted: Option<String>,
    pub partitions: Vec<Position>,
    pub recorded_at: Timestamp,
    /// The store's clock when it was read.
    pub now: Timestamp,
}

/// What was read of the log for a batch.
#[derive(Debug, Clone)]
pub(crate) struct Probed {
    pub head: Head,
    /// The newest event of the batch's streams that have one.
    pub streams: HashMap<StreamId, (StreamVersion, EventId)>,
    /// The answers kept under the batch's keys.
    pub answers: HashMap<[u8; 32], StoredAnswer>,
    /// Keys whose answer is there and has expired.
    pub expired: Vec<[u8; 32]>,
    /// Who holds the batch's names.
    pub holders: HashMap<(String, String), String>,
}

/// An event with its place.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub stream: &'a StreamId,
    pub version: StreamVersion,
    pub position: Position,
    pub partition: Partition,
    pub previous: Position,
    pub recorded_at: Timestamp,
    pub event: &'a NewEvent,
}

/// An answer with its token.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    pub key: &'a AnswerKey,
    pub answer: &'a Answer,
    pub token: LogToken,
}

/// A name and its holder.
pub(crate) type Claim = ((String, String), String);

/// What is to be written, and what is to be answered once it is durable.
pub(crate) struct Plan<'a> {
    pub verdicts: Vec<Result<Appended, AppendError>>,
    pub rows: Vec<Row<'a>>,
    pub kept: Vec<Kept<'a>>,
    pub expired: Vec<[u8; 32]>,
    pub claims: Vec<Claim>,
    pub releases: Vec<Claim>,
    /// The head it was decided on.
    pub before: Head,
    pub position: Position,
    pub partitions: Vec<Position>,
    pub recorded_at: Timestamp,
}

impl Plan<'_> {
    /// Where its commit leaves the log; `None` when it wrote nothing, because then nothing vouches
    /// that what it was decided on still holds.
    pub(crate) fn after(&self) -> Option<Head> {
        (!self.is_empty()).then(|| Head {
            position: self.position,
            partitions: self.partitions.clone(),
            recorded_at: self.recorded_at,
            ..self.before.clone()
        })
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.kept.is_empty()
    }

    /// The rows as the log will hold them, for write-model tables.
    pub(crate) fn recorded(&self, context: &Context) -> Vec<RecordedEvent> {
        self.rows
            .iter()
            .map(|row| RecordedEvent {
                id: row.event.id,
                context: context.clone(),
                epoch: self.before.epoch,
                position: row.position,
                partition: row.partition,
                previous: row.previous,
                stream: row.stream.clone(),
                version: row.version,
                event_type: row.event.event_type.clone(),
                schema_version: row.event.schema_version,
                payload: row.event.payload.clone(),
                metadata: row.event.metadata.clone(),
                recorded_at: self.recorded_at,
            })
            .collect()
    }
}

/// Decides a batch in order: each append sees the effects of those before it.
pub(crate) fn decide<'a>(
    context: &Context,
    requests: impl IntoIterator<Item = &'a AppendRequest>,
    probed: &Probed,
) -> Plan<'a> {
    let mut batch = Batch::new(context, probed);
    let verdicts = requests
        .into_iter()
        .map(|request| batch.decide(request))
        .collect();
    batch.into_plan(verdicts)
}

struct Batch<'a, 'p> {
    context: &'p Context,
    probed: &'p Probed,
    count: PartitionCount,
    recorded_at: Timestamp,
    position: Position,
    partitions: Vec<Position>,
    streams: HashMap<&'a StreamId, (StreamVersion, EventId)>,
    answers: HashMap<[u8; 32], usize>,
    holders: HashMap<(String, String), Option<String>>,
    rows: Vec<Row<'a>>,
    kept: Vec<Kept<'a>>,
}

impl<'a, 'p> Batch<'a, 'p> {
    fn new(context: &'p Context, probed: &'p Probed) -> Self {
        let head = &probed.head;
        let count = u16::try_from(head.partitions.len())
            .ok()
            .and_then(|count| PartitionCount::new(count).ok())
            .unwrap_or(PartitionCount::DEFAULT);
        Self {
            context,
            probed,
            count,
            recorded_at: head.now.max(head.recorded_at),
            position: head.position,
            partitions: head.partitions.clone(),
            streams: HashMap::new(),
            answers: HashMap::new(),
            holders: HashMap::new(),
            rows: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn decide(&mut self, request: &'a AppendRequest) -> Result<Appended, AppendError> {
        if let Some(reason) = &self.probed.head.halted {
            return Err(AppendError::Halted {
                context: self.context.clone(),
                reason: reason.clone(),
            });
        }
        // The key comes first: a repeated request gets its first answer, whatever came after it.
        if let Some((key, _)) = &request.answer
            && let Some(stored) = self.stored(key)
        {
            return Err(AppendError::DuplicateKey(Box::new(stored)));
        }
        for append in &request.streams {
            self.check(&append.stream, append.expected)?;
        }
        let changes = self.claim(&request.reservations)?;
        self.holders.extend(changes);
        Ok(self.take(request))
    }

    fn stored(&self, key: &AnswerKey) -> Option<StoredAnswer> {
        if let Some(stored) = self.probed.answers.get(&key.key_hash) {
            return Some(stored.clone());
        }
        let kept = self.kept.get(*self.answers.get(&key.key_hash)?)?;
        Some(StoredAnswer {
            key: *kept.key,
            answer: kept.answer.clone(),
            token: kept.token.clone(),
        })
    }

    fn newest(&self, stream: &StreamId) -> Option<(StreamVersion, EventId)> {
        self.streams
            .get(stream)
            .or_else(|| self.probed.streams.get(stream))
            .copied()
    }

    fn check(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<(), AppendError> {
        let newest = self.newest(stream);
        let actual = newest.map_or(StreamVersion::ZERO, |(version, _)| version);
        let as_expected = match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::NoStream => newest.is_none(),
            ExpectedVersion::Exact(version) => actual == version,
            ExpectedVersion::Follows { version, event } => newest == Some((version, event)),
        };
        if as_expected {
            return Ok(());
        }
        Err(AppendError::Conflict {
            stream: stream.clone(),
            expected,
            actual,
        })
    }

    /// What the reservations change, or who stands in their way.
    fn claim(
        &self,
        reservations: &[Reservation],
    ) -> Result<HashMap<(String, String), Option<String>>, AppendError> {
        let mut changes = HashMap::new();
        for wanted in reservations {
            let name = (wanted.scope.to_owned(), wanted.value.clone());
            let holder = changes
                .get(&name)
                .or_else(|| self.holders.get(&name))
                .cloned()
                .unwrap_or_else(|| self.probed.holders.get(&name).cloned());
            match holder {
                Some(holder) if holder != wanted.holder => {
                    if !wanted.release {
                        return Err(AppendError::Reserved {
                            scope: wanted.scope,
                            value: wanted.value.clone(),
                            holder,
                        });
                    }
                }
                _ => {
                    let holder = (!wanted.release).then(|| wanted.holder.clone());
                    changes.insert(name, holder);
                }
            }
        }
        Ok(changes)
    }

    /// Gives the request's events their places.
    fn take(&mut self, request: &'a AppendRequest) -> Appended {
        let mut touched: Vec<(Partition, Position)> = Vec::new();
        let mut versions = Vec::with_capacity(request.streams.len());
        for append in &request.streams {
            let partition = append.stream.partition(self.count);
            let mut version = self
                .newest(&append.stream)
                .map_or(StreamVersion::ZERO, |(version, _)| version);
            for event in &append.events {
                version = version.next();
                self.position = self.position.next();
                let last = &mut self.partitions[usize::from(partition.get())];
                let previous = std::mem::replace(last, self.position);
                self.rows.push(Row {
                    stream: &append.stream,
                    version,
                    position: self.position,
                    partition,
                    previous,
                    recorded_at: self.recorded_at,
                    event,
                });
            }
            if let Some(last) = append.events.last() {
                self.streams.insert(&append.stream, (version, last.id));
            }
            let newest = self.partitions[usize::from(partition.get())];
            match touched.iter_mut().find(|(number, _)| *number == partition) {
                Some((_, position)) => *position = newest,
                None => touched.push((partition, newest)),
            }
            versions.push(version);
        }
        touched.sort_unstable();
        let token = LogToken {
            context: self.context.clone(),
            position: self.position,
            epoch: Some(self.probed.head.epoch),
            partitions: touched,
        };
        if let Some((key, answer)) = &request.answer {
            self.answers.insert(key.key_hash, self.kept.len());
            self.kept.push(Kept {
                key,
                answer,
                token: token.clone(),
            });
        }
        Appended {
            position: self.position,
            versions,
            token,
            recorded_at: self.recorded_at,
        }
    }

    fn into_plan(self, verdicts: Vec<Result<Appended, AppendError>>) -> Plan<'a> {
        let mut claims = Vec::new();
        let mut releases = Vec::new();
        for (name, holder) in self.holders {
            let before = self.probed.holders.get(&name);
            if before == holder.as_ref() {
                continue;
            }
            if let Some(before) = before {
                releases.push((name.clone(), before.clone()));
            }
            if let Some(holder) = holder {
                claims.push((name, holder));
            }
        }
        let expired = self
            .probed
            .expired
            .iter()
            .filter(|key| self.answers.contains_key(*key))
            .copied()
            .collect();
        Plan {
            verdicts,
            rows: self.rows,
            kept: self.kept,
            expired,
            claims,
            releases,
            before: self.probed.head.clone(),
            position: self.position,
            partitions: self.partitions,
            recorded_at: self.recorded_at,
        }
    }
}

/// The streams, keys and names that have to be read for a batch, each once.
pub(crate) struct Wanted<'a> {
    /// The batch's streams, each with what the first append to it expects.
    pub streams: Vec<(&'a StreamId, ExpectedVersion)>,
    pub keys: Vec<[u8; 32]>,
    pub names: Vec<(&'static str, &'a str)>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn of(requests: impl IntoIterator<Item = &'a AppendRequest>) -> Self {
        let mut wanted = Self {
            streams: Vec::new(),
            keys: Vec::new(),
            names: Vec::new(),
        };
        let mut seen = HashMap::new();
        for request in requests {
            for append in &request.streams {
                if let Entry::Vacant(entry) = seen.entry(&append.stream) {
                    entry.insert(());
                    wanted.streams.push((&append.stream, append.expected));
                }
            }
            if let Some((key, _)) = &request.answer {
                wanted.keys.push(key.key_hash);
            }
            for reservation in &request.reservations {
                wanted.names.push((reservation.scope, &reservation.value));
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::StreamAppend;

    const PARTITIONS: u16 = 4;

    fn context() -> Context {
        Context::new("testing").unwrap()
    }

    fn empty() -> Probed {
        let at: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        Probed {
            head: Head {
                position: Position::ZERO,
                epoch: Epoch::new(1),
                guard: 0,
                halted: None,
                partitions: vec![Position::ZERO; usize::from(PARTITIONS)],
                recorded_at: at,
                now: at,
            },
            streams: HashMap::new(),
            answers: HashMap::new(),
            expired: Vec::new(),
            holders: HashMap::new(),
        }
    }

    /// What a read of the log would find once a plan is written.
    fn written(mut probed: Probed, plan: &Plan<'_>) -> Probed {
        probed.head.position = plan.position;
        probed.head.partitions.clone_from(&plan.partitions);
        for row in &plan.rows {
            let newest = (row.version, row.event.id);
            probed.streams.insert(row.stream.clone(), newest);
        }
        for kept in &plan.kept {
            let stored = StoredAnswer {
                key: *kept.key,
                answer: kept.answer.clone(),
                token: kept.token.clone(),
            };
            probed.answers.insert(kept.key.key_hash, stored);
        }
        for (name, holder) in &plan.releases {
            assert_eq!(probed.holders.remove(name).as_ref(), Some(holder));
        }
        for (name, holder) in &plan.claims {
            let before = probed.holders.insert(name.clone(), holder.clone());
            assert_eq!(before, None, "a name is claimed over its holder");
        }
        probed
    }

    prop_compose! {
        fn stream_append()(
            stream in 0..4_u8,
            expected in 0..6_u64,
            events in 0..3_usize,
        ) -> StreamAppend {
            StreamAppend {
                stream: StreamId::new(&format!("s-{stream}")).unwrap(),
                expected: match expected {
                    0 | 1 => ExpectedVersion::Any,
                    2 => ExpectedVersion::NoStream,
                    n => ExpectedVersion::Exact(StreamVersion::new(n - 2)),
                },
                events: (0..events).map(|_| NewEvent {
                    id: EventId::generate(),
                    event_type: "thing.happened".into(),
                    schema_version: 1,
                    payload: serde_json::value::RawValue::NULL.to_owned(),
                    metadata: Arc::default(),
                }).collect(),
            }
        }
    }

    prop_compose! {
        fn request()(
            mut streams in prop::collection::vec(stream_append(), 0..3),
            key in prop::option::weighted(0.4, 0..4_u8),
            reservations in prop::collection::vec((0..2_u8, 0..3_u8, any::<bool>()), 0..3),
        ) -> AppendRequest {
            streams.sort_by(|a, b| a.stream.cmp(&b.stream));
            streams.dedup_by(|a, b| a.stream == b.stream);
            AppendRequest {
                streams,
                answer: key.map(|key| (
                    AnswerKey { key_hash: [key; 32], request_hash: [key; 32] },
                    Answer { status: 200, headers: Vec::new(), body: vec![key].into() },
                )),
                reservations: reservations.into_iter().map(|(value, holder, release)| Reservation {
                    scope: "name",
                    value: value.to_string(),
                    holder: holder.to_string(),
                    release,
                }).collect(),
            }
        }
    }

    proptest! {
        /// Committing together changes nothing: a batch decided at once comes to the same verdicts
        /// and rows as its appends one after the other.
        #[test]
        fn a_batch_is_its_appends_one_by_one(
            before in prop::collection::vec(request(), 0..6),
            batch in prop::collection::vec(request(), 1..12),
        ) {
            let context = context();
            let start = written(empty(), &decide(&context, &before, &empty()));
            let together = decide(&context, &batch, &start);

            let mut probed = start.clone();
            let mut verdicts = Vec::new();
            let mut rows = Vec::new();
            for request in &batch {
                let plan = decide(&context, [request], &probed);
                let next = written(probed, &plan);
                verdicts.extend(plan.verdicts.iter().map(|verdict| format!("{verdict:?}")));
                rows.extend(plan.rows.iter().map(|row| format!("{row:?}")));
                probed = next;
            }
            let expected: Vec<_> = together.verdicts.iter().map(|v| format!("{v:?}")).collect();
            prop_assert_eq!(verdicts, expected);
            let expected: Vec<_> = together.rows.iter().map(|row| format!("{row:?}")).collect();
            prop_assert_eq!(rows, expected);
            let after = written(start, &together);
            prop_assert_eq!(after.head.partitions, probed.head.partitions);
            prop_assert_eq!(after.holders, probed.holders);
            prop_assert_eq!(after.streams, probed.streams);
            prop_assert_eq!(after.answers, probed.answers);
        }

        /// Positions are gapless, and each partition's events are a chain.
        #[test]
        fn places_are_gapless_and_chained(batch in prop::collection::vec(request(), 1..12)) {
            let context = context();
            let plan = decide(&context, &batch, &empty());
            let mut last = vec![Position::ZERO; usize::from(PARTITIONS)];
            for (row, position) in plan.rows.iter().zip(1..) {
                prop_assert_eq!(row.position, Position::new(position));
                let last = &mut last[usize::from(row.partition.get())];
                prop_assert_eq!(row.previous, *last);
                *last = row.position;
            }
            prop_assert_eq!(&plan.partitions, &last);
            let taken: Vec<_> = plan.verdicts.iter().flatten().collect();
            for appended in taken {
                for (partition, position) in &appended.token.partitions {
                    let Some(row) = position.get().checked_sub(1) else {
                        continue;
                    };
                    let row = &plan.rows[usize::try_from(row).unwrap()];
                    prop_assert_eq!(row.partition, *partition);
                }
            }
        }
    }
}
