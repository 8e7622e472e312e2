//! Commands through a repository.

use std::sync::Arc;

use millrace_es::{Metadata, StreamVersion};
use millrace_eventlog::{
    Answer, AnswerKey, EventLog, Execute, ExecuteError, Executed, Outcome, Repository,
    RepositoryOptions,
};
use millrace_kernel::EntityId;

use crate::{
    counter::{Add, Counter},
    support::{open, store, stream},
};

const CEILING: u64 = 1_000_000;

fn repository(log: &Arc<dyn EventLog>) -> Repository<Counter> {
    Repository::new(Arc::clone(log), RepositoryOptions::default())
}

fn add(id: &EntityId, amount: u64) -> Execute<'_, Counter> {
    Execute {
        id,
        command: Add {
            amount,
            ceiling: CEILING,
        },
        if_match: None,
        metadata: Metadata::default(),
        key: None,
        new: false,
    }
}

fn respond(outcome: Outcome<'_, Counter>) -> Answer {
    let (status, text) = match outcome {
        Outcome::Done { state, version, .. } => (200, format!("{} at {version}", state.total)),
        Outcome::Refused { refusal, .. } => (409, refusal.to_string()),
    };
    Answer {
        status,
        headers: Vec::new(),
        body: text.into(),
    }
}

async fn run(
    repository: &Repository<Counter>,
    request: Execute<'_, Counter>,
) -> Result<Executed, ExecuteError> {
    repository.execute(request, respond).await
}

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

#[tokio::test]
async fn many_commands_to_one_aggregate_ride_together() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let repository = repository(&log);
    let one = id("1");
    let commands = (0..200).map(|_| run(&repository, add(&one, 1)));
    let mut bodies = Vec::new();
    for done in futures::future::join_all(commands).await {
        bodies.push(done.unwrap().answer.body);
    }
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 200, "every command saw a total of its own");
    let (counter, version) = repository.load(&one).await.unwrap();
    assert_eq!((counter.total, version), (200, StreamVersion::new(200)));
}

#[tokio::test]
async fn two_processes_contend_and_nothing_is_lost() {
    let database = store().await;
    let logs: [Arc<dyn EventLog>; 2] = [
        Arc::new(open(&database).await),
        Arc::new(open(&database).await),
    ];
    let repositories = logs.each_ref().map(repository);
    let one = id("1");
    let commands = (0..100).map(|n| run(&repositories[n % 2], add(&one, 1)));
    let done = futures::future::join_all(commands).await;
    let taken = done.iter().filter(|done| done.is_ok()).count() as u64;
    for failed in done.iter().filter_map(|done| done.as_ref().err()) {
        assert!(
            matches!(failed, ExecuteError::Contended { .. }),
            "{failed:?}"
        );
    }
    assert!(taken >= 50, "{taken}");
    let (counter, version) = repositories[0].load(&one).await.unwrap();
    assert_eq!((counter.total, version.get()), (taken, taken));
}

#[tokio::test]
async fn a_refusal_is_never_given_from_a_stale_state() {
    let database = store().await;
    let here: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let there: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let (here, there) = (repository(&here), repository(&there));
    let one = id("1");
    run(&here, add(&one, 1)).await.unwrap();
    run(&there, add(&one, CEILING - 1)).await.unwrap();

    // `here` remembers a total of 1, on which this would be taken.
    let refused = run(&here, add(&one, 1)).await.unwrap();
    assert_eq!(refused.answer.status, 409);
    assert_eq!(refused.token.position.get(), 2);
    // And nothing to add is "already so" at the newest version.
    let done = run(&here, add(&one, 0)).await.unwrap();
    assert_eq!(done.answer.body, "1000000 at 2");
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_whatever_came_after() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let repository = repository(&log);
    let one = id("1");
    let keyed = |n: u8, amount: u64, if_match: Option<u64>| Execute {
        key: Some(AnswerKey {
            key_hash: [n; 32],
            request_hash: [n; 32],
        }),
        if_match: if_match.map(StreamVersion::new),
        ..add(&one, amount)
    };
    let first = run(&repository, keyed(1, 5, None)).await.unwrap();
    let refused = run(&repository, keyed(2, CEILING, None)).await.unwrap();
    let matched = run(&repository, keyed(3, 1, Some(1))).await.unwrap();
    run(&repository, add(&one, 1)).await.unwrap();

    for (key, amount, if_match, answer) in [
        (1, 5, None, first),
        (2, CEILING, None, refused),
        (3, 1, Some(1), matched),
    ] {
        let again = run(&repository, keyed(key, amount, if_match))
            .await
            .unwrap();
        assert!(again.replayed);
        assert_eq!((again.answer, again.token), (answer.answer, answer.token));
    }
    let mut reused = keyed(1, 7, None);
    reused.key.as_mut().unwrap().request_hash = [9; 32];
    let error = run(&repository, reused).await.unwrap_err();
    assert!(matches!(error, ExecuteError::KeyReused));
    assert_eq!(repository.load(&one).await.unwrap().0.total, 7);
}

#[tokio::test]
async fn if_match_is_held_against_the_log() {
    let database = store().await;
    let here: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let there: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let (here, there) = (repository(&here), repository(&there));
    let one = id("1");
    run(&here, add(&one, 1)).await.unwrap();
    run(&there, add(&one, 1)).await.unwrap();
    let at = |version| Execute {
        if_match: Some(StreamVersion::new(version)),
        ..add(&one, 1)
    };
    let error = run(&here, at(1)).await.unwrap_err();
    assert!(
        matches!(error, ExecuteError::VersionMismatch { actual } if actual.get() == 2),
        "{error:?}"
    );
    run(&here, at(2)).await.unwrap();
}

#[tokio::test]
async fn a_stream_thought_new_is_read_when_it_is_not() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let one = id("1");
    run(&repository(&log), add(&one, 3)).await.unwrap();
    let new = Execute {
        new: true,
        ..add(&one, 4)
    };
    let done = run(&repository(&log), new).await.unwrap();
    assert_eq!(done.answer.body, "7 at 2");
}

#[tokio::test]
async fn snapshots_shorten_a_load_and_are_not_needed() {
    let database = store().await;
    let log: Arc<dyn EventLog> = Arc::new(open(&database).await);
    let options = RepositoryOptions {
        snapshot_every: 10,
        ..RepositoryOptions::default()
    };
    let one = id("1");
    let writer = Repository::<Counter>::new(Arc::clone(&log), options);
    for _ in 0..25 {
        run(&writer, add(&one, 1)).await.unwrap();
    }
    let kept = log.load_snapshot(&stream("counter-1")).await.unwrap();
    assert_eq!(kept.unwrap().version, StreamVersion::new(20));
    // Proof that it is used: a snapshot that says something else is believed …
    let set = |sql: &'static str| sqlx::query(sql).execute(&database.pool);
    set("UPDATE testing.snapshots SET state = '{\"total\": 1020}'")
        .await
        .unwrap();
    assert_eq!(repository(&log).load(&one).await.unwrap().0.total, 1_025);
    // … and one of another version, or a broken one, is not.
    set("UPDATE testing.snapshots SET snapshot_version = 2")
        .await
        .unwrap();
    assert_eq!(repository(&log).load(&one).await.unwrap().0.total, 25);
    set("UPDATE testing.snapshots SET snapshot_version = 1, state = '[]'")
        .await
        .unwrap();
    assert_eq!(repository(&log).load(&one).await.unwrap().0.total, 25);
}
