//! Each append gets the verdict it deserves, however many race.

use futures::future::join_all;
use millrace_es::{EventId, Position, StreamVersion};

use super::{Backend, LARGE_APPEND_EVENTS, append, audit, event, stream, to};
use crate::{
    Answer, AnswerKey, AppendError, AppendRequest, EventLog, ExpectedVersion, Faults,
    MAX_APPEND_EVENTS, MAX_APPEND_STREAMS, MAX_PAYLOAD_BYTES, Reservation, SnapshotRecord,
};

/// How many instances race.
const INSTANCES: usize = 3;
/// How many racers each has.
const RACERS: usize = 6;

async fn instances(backend: &impl Backend) -> Vec<std::sync::Arc<dyn EventLog>> {
    let none = || None::<std::sync::Arc<dyn Faults>>;
    join_all((0..INSTANCES).map(|_| backend.open(none()))).await
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(StreamVersion::new(version))
}

/// Appends that expect the same version: one is taken, the others are told where the stream is.
pub async fn a_version_is_won_once(backend: &impl Backend) {
    let logs = instances(backend).await;
    for round in 0..10 {
        let expected = if round == 0 {
            ExpectedVersion::NoStream
        } else {
            exact(round)
        };
        let racing = (0..INSTANCES * RACERS).map(|n| {
            let log = &logs[n % INSTANCES];
            log.append(append("raced", expected, 1))
        });
        let verdicts = join_all(racing).await;
        let won = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
        assert_eq!(won, 1, "{verdicts:?}");
        for verdict in verdicts {
            match verdict {
                Ok(appended) => assert_eq!(appended.versions, [StreamVersion::new(round + 1)]),
                Err(AppendError::Conflict { actual, .. }) => {
                    assert_eq!(actual, StreamVersion::new(round + 1));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(audit(logs[0].as_ref()).await.len(), 10);
}

/// One stream in the way keeps all of an append out.
pub async fn several_streams_move_together_or_not_at_all(backend: &impl Backend) {
    let log = backend.open(None).await;
    let both = |a, b| AppendRequest {
        streams: vec![to("a", a, 2), to("b", b, 1)],
        ..AppendRequest::default()
    };
    let none = ExpectedVersion::NoStream;
    let appended = log.append(both(none, none)).await.expect("both are new");
    assert_eq!(
        appended.versions,
        [StreamVersion::new(2), StreamVersion::new(1)]
    );
    let conflict = log.append(both(exact(2), exact(2))).await;
    assert!(
        matches!(&conflict, Err(AppendError::Conflict { stream, actual, .. })
            if stream.as_str() == "b" && actual.get() == 1),
        "{conflict:?}"
    );
    log.append(both(exact(2), exact(1)))
        .await
        .expect("nothing of the refused append is there");
    assert_eq!(audit(log.as_ref()).await.len(), 6);
}

/// Appends that wait together: each is judged after those before it, and one's refusal is no
/// other's business.
pub async fn each_append_of_a_batch_has_its_own_verdict(backend: &impl Backend) {
    let log = backend.open(None).await;
    let requests = [
        (append("one", ExpectedVersion::NoStream, 1), true),
        (append("one", ExpectedVersion::NoStream, 1), false),
        (append("two", exact(7), 1), false),
        (append("one", exact(1), 2), true),
        (append("one", exact(3), 1), true),
        (append("three", ExpectedVersion::Any, 40), true),
        (append("one", exact(3), 1), false),
    ];
    let expected: Vec<bool> = requests.iter().map(|(_, taken)| *taken).collect();
    let verdicts = join_all(requests.map(|(request, _)| log.append(request))).await;
    let taken: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
    assert_eq!(taken, expected, "{verdicts:?}");
    for verdict in verdicts.iter().flatten() {
        let token = &verdict.token;
        assert_eq!(token.position, verdict.position);
        assert_eq!(token.partitions.len(), 1);
    }
    assert_eq!(audit(log.as_ref()).await.len(), 44);
}

/// Several processes append at once and in turns, little and much: all of it is taken.
pub async fn processes_append_side_by_side(backend: &impl Backend) {
    let logs = instances(backend).await;
    let sizes = [1, 40, 3, LARGE_APPEND_EVENTS];
    let mut expected = 0;
    for round in 0..6 {
        let at_once = (0..INSTANCES * 4).map(|n| {
            let events = sizes[(n / INSTANCES + round) % sizes.len()];
            let stream = format!("s-{}", n % 4);
            logs[n % INSTANCES].append(append(&stream, ExpectedVersion::Any, events))
        });
        for verdict in join_all(at_once).await {
            verdict.expect("nothing stands in the way");
        }
        expected += INSTANCES * sizes.iter().sum::<usize>();
        for (log, events) in logs.iter().zip(sizes) {
            log.append(append("turns", ExpectedVersion::Any, events))
                .await
                .expect("nothing stands in the way");
            expected += events;
        }
    }
    assert_eq!(audit(logs[0].as_ref()).await.len(), expected);
}

/// A key that many use at once is taken by one, and the others get its answer and place.
pub async fn a_key_is_taken_once(backend: &impl Backend) {
    let logs = instances(backend).await;
    for round in 0..6_u8 {
        // Every other round is a refusal, which appends nothing.
        let refusal = round % 2 == 1;
        let request = |n: usize| AppendRequest {
            streams: if refusal {
                Vec::new()
            } else {
                vec![to(&format!("s-{round}-{n}"), ExpectedVersion::NoStream, 1)]
            },
            answer: Some((
                AnswerKey {
                    key_hash: [round; 32],
                    request_hash: [100 + round; 32],
                },
                Answer {
                    status: 200,
                    headers: Vec::new(),
                    body: n.to_string().into(),
                },
            )),
            reservations: Vec::new(),
        };
        let racing = (0..INSTANCES * RACERS).map(|n| logs[n % INSTANCES].append(request(n)));
        let verdicts = join_all(racing).await;
        let won: Vec<_> = verdicts
            .iter()
            .enumerate()
            .filter_map(|(n, verdict)| Some((n, verdict.as_ref().ok()?)))
            .collect();
        assert_eq!(won.len(), 1, "{verdicts:?}");
        let (winner, appended) = won[0];
        for verdict in &verdicts {
            let Err(error) = verdict else { continue };
            let AppendError::DuplicateKey(stored) = error else {
                panic!("{error:?}");
            };
            assert_eq!(stored.answer.body, winner.to_string());
            assert_eq!(stored.token, appended.token);
        }
    }
    assert_eq!(audit(logs[0].as_ref()).await.len(), 3);
}

/// A name that many claim at once goes to one; given back it can be claimed again.
pub async fn a_name_is_held_once(backend: &impl Backend) {
    let logs = instances(backend).await;
    let claim = |holder: &str, release| Reservation {
        scope: "name",
        value: "ada@example.org".to_owned(),
        holder: holder.to_owned(),
        release,
    };
    let with = |n: usize, reservations| AppendRequest {
        reservations,
        ..append(&format!("user-{n}"), ExpectedVersion::Any, 1)
    };
    let racing = (0..INSTANCES * RACERS).map(|n| {
        let request = with(n, vec![claim(&n.to_string(), false)]);
        logs[n % INSTANCES].append(request)
    });
    let verdicts = join_all(racing).await;
    let winner = verdicts
        .iter()
        .position(Result::is_ok)
        .expect("somebody gets the name");
    for (n, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Ok(_) => assert_eq!(n, winner, "the name is held once"),
            Err(AppendError::Reserved { holder, .. }) => assert_eq!(*holder, winner.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }
    let holder = winner.to_string();
    let log = &logs[0];
    log.append(with(winner, vec![claim(&holder, false)]))
        .await
        .expect("its holder may claim it again");
    log.append(with(99, vec![claim("99", true)]))
        .await
        .expect("giving back what one does not hold changes nothing");
    let refused = log.append(with(99, vec![claim("99", false)])).await;
    assert!(matches!(refused, Err(AppendError::Reserved { .. })));
    log.append(with(winner, vec![claim(&holder, true), claim("98", false)]))
        .await
        .expect("a name goes from hand to hand in one append");
    let refused = log.append(with(winner, vec![claim(&holder, false)])).await;
    assert!(matches!(refused, Err(AppendError::Reserved { holder, .. }) if holder == "98"));
    // In one batch, too: given back and claimed by the append behind it.
    let (back, taken) = futures::join!(
        log.append(with(98, vec![claim("98", true)])),
        log.append(with(97, vec![claim("97", false)]))
    );
    back.expect("its holder gives it back");
    taken.expect("the append behind claims it");
    audit(log.as_ref()).await;
}

/// A decision made on an append that was then refused does not pass, although the version is the
/// one it expects.
pub async fn a_decision_on_an_append_that_failed_is_refused(backend: &impl Backend) {
    let log = backend.open(None).await;
    let first = event("first");
    let follows = |version, event| ExpectedVersion::Follows {
        version: StreamVersion::new(version),
        event,
    };
    let mut request = append("hot", ExpectedVersion::NoStream, 0);
    request.streams[0].events.push(first.clone());
    log.append(request).await.expect("the stream is new");

    // Somebody else is faster than `lost`; `on_lost` was decided on `lost`, at version 2.
    let lost = event("lost");
    let mut losing = append("hot", follows(1, first.id), 0);
    losing.streams[0].events.push(lost.clone());
    let (faster, losing, on_lost) = futures::join!(
        log.append(append("hot", follows(1, first.id), 1)),
        log.append(losing),
        log.append(append("hot", follows(2, lost.id), 1))
    );
    faster.expect("the first of the batch is decided on what is there");
    for refused in [losing, on_lost] {
        assert!(
            matches!(&refused, Err(AppendError::Conflict { actual, .. }) if actual.get() == 2),
            "{refused:?}"
        );
    }
    // The chain of decisions that all hold rides in one batch.
    let events: Vec<_> = (0..20).map(|_| event("chained")).collect();
    let last = log
        .read_stream(&stream("hot"), StreamVersion::new(1), 10)
        .await
        .expect("the stream is read")[0]
        .id;
    let before = std::iter::once(last).chain(events.iter().map(|event| event.id));
    let chain = events
        .iter()
        .zip(before)
        .zip(2..)
        .map(|((new, on), version)| {
            let mut request = append("hot", follows(version, on), 0);
            request.streams[0].events.push(new.clone());
            log.append(request)
        });
    for verdict in join_all(chain).await {
        verdict.expect("each follows the one before");
    }
    let stranger = append("hot", follows(22, EventId::generate()), 1);
    assert!(matches!(
        log.append(stranger).await,
        Err(AppendError::Conflict { .. })
    ));
    assert_eq!(audit(log.as_ref()).await.len(), 22);
}

/// An append without events holds its expectation against the log and keeps its answer.
pub async fn an_append_without_events_asserts(backend: &impl Backend) {
    let log = backend.open(None).await;
    log.append(append("a", ExpectedVersion::NoStream, 1))
        .await
        .expect("the stream is new");
    let with_answer = |expected, n: u8| AppendRequest {
        answer: Some((
            AnswerKey {
                key_hash: [n; 32],
                request_hash: [n; 32],
            },
            Answer {
                status: 409,
                headers: Vec::new(),
                body: "no".into(),
            },
        )),
        ..append("a", expected, 0)
    };
    let stale = log.append(with_answer(ExpectedVersion::NoStream, 1)).await;
    assert!(
        matches!(&stale, Err(AppendError::Conflict { actual, .. }) if actual.get() == 1),
        "{stale:?}"
    );
    let asserted = log.append(with_answer(exact(1), 2)).await;
    let asserted = asserted.expect("the stream is at version 1");
    assert_eq!(asserted.position, Position::new(1));
    assert_eq!(asserted.versions, [StreamVersion::new(1)]);
    log.append(append("a", exact(1), 0))
        .await
        .expect("nothing has to be written for an assertion");
    let kept = |n: u8| AnswerKey {
        key_hash: [n; 32],
        request_hash: [n; 32],
    };
    assert_eq!(log.stored_answer(&kept(1)).await.ok(), Some(None));
    assert!(matches!(log.stored_answer(&kept(2)).await, Ok(Some(_))));
    assert_eq!(audit(log.as_ref()).await.len(), 1);
}

/// What breaks a limit is refused with a reason, and its batch-mates are not held up.
pub async fn impossible_appends_are_refused(backend: &impl Backend) {
    let log = backend.open(None).await;
    let any = ExpectedVersion::Any;
    let mut large = append("a", any, 1);
    large.streams[0].events[0].payload =
        serde_json::value::to_raw_value(&"x".repeat(MAX_PAYLOAD_BYTES)).expect("a text is JSON");
    let wide = AppendRequest {
        streams: (0..=MAX_APPEND_STREAMS)
            .map(|n| to(&format!("s-{n}"), any, 1))
            .collect(),
        ..AppendRequest::default()
    };
    let twice = AppendRequest {
        streams: vec![to("a", any, 1), to("a", any, 1)],
        ..AppendRequest::default()
    };
    let impossible = [
        AppendRequest::default(),
        append("a", any, MAX_APPEND_EVENTS + 1),
        large,
        wide,
        twice,
    ];
    let mate = log.append(append("mate", any, 1));
    let (mate, refused) = futures::join!(
        mate,
        join_all(impossible.map(|request| log.append(request)))
    );
    mate.expect("a possible append is taken");
    for verdict in refused {
        assert!(
            matches!(verdict, Err(AppendError::Invalid(_))),
            "{verdict:?}"
        );
    }
    assert_eq!(audit(log.as_ref()).await.len(), 1);
}

/// Snapshots come back, and an older one never replaces a newer one.
pub async fn a_newer_snapshot_stays(backend: &impl Backend) {
    let log = backend.open(None).await;
    let of = |version, snapshot_version| SnapshotRecord {
        version: StreamVersion::new(version),
        snapshot_version,
        state: serde_json::value::to_raw_value(&version).expect("a number is JSON"),
    };
    let s = stream("s");
    for (save, kept) in [
        ((5, 1), (5, 1)),
        ((4, 1), (5, 1)),
        ((3, 2), (3, 2)),
        ((9, 1), (3, 2)),
    ] {
        log.save_snapshot(&s, of(save.0, save.1))
            .await
            .expect("a snapshot is kept");
        let found = log.load_snapshot(&s).await.expect("it is read");
        let found = found.expect("it is there");
        assert_eq!((found.version.get(), found.snapshot_version), kept);
        assert_eq!(found.state.get(), found.version.to_string());
    }
    assert!(matches!(log.load_snapshot(&stream("t")).await, Ok(None)));
}
