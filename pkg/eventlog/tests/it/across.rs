//! Commands over several aggregates.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use millrace_es::{Metadata, PartitionCount, StreamVersion};
use millrace_eventlog::{
    Answer, AnswerKey, AppendError, EventLog, Execute, ExecuteAcross, ExecuteError, Executed,
    Outcome, OutcomeAcross, Repository, RepositoryOptions,
};
use millrace_kernel::EntityId;
use millrace_testkit::Database;

use crate::{
    purse::{Purse, TooLittle, move_},
    support::{open, store, stream},
};

/// How long a storm of commands may take: one that waits for itself would wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);
const STORM_THREADS: usize = 4;

async fn repository(database: &Database) -> Arc<Repository<Purse>> {
    let log: Arc<dyn EventLog> = Arc::new(open(database).await);
    Arc::new(Repository::new(log, RepositoryOptions::default()))
}

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn ids(count: usize) -> Vec<EntityId> {
    (0..count).map(|n| id(&n.to_string())).collect()
}

async fn put(repository: &Repository<Purse>, id: &EntityId, amount: i64) {
    let request = Execute {
        id,
        command: amount,
        if_match: None,
        metadata: Metadata::default(),
        key: None,
        new: false,
    };
    let respond = |_: Outcome<'_, Purse>| text(200, String::new());
    repository.execute(request, respond).await.unwrap();
}

fn text(status: u16, body: String) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn between<'a>(from: &'a EntityId, to: &'a EntityId) -> ExecuteAcross<'a, 2> {
    ExecuteAcross {
        ids: [from, to],
        if_match: [None; 2],
        metadata: Metadata::default(),
        key: None,
        new: [false; 2],
    }
}

fn respond(outcome: OutcomeAcross<'_, Purse, TooLittle, 2>) -> Answer {
    match outcome {
        OutcomeAcross::Done {
            states: [from, to],
            versions: [sent, received],
            ..
        } => text(
            200,
            format!("{} at {sent}, {} at {received}", from.total, to.total),
        ),
        OutcomeAcross::Refused {
            refusal,
            versions: [from, to],
            ..
        } => text(422, format!("{refusal}, at {from} and {to}")),
    }
}

async fn run(
    repository: &Repository<Purse>,
    request: ExecuteAcross<'_, 2>,
    amount: i64,
) -> Result<Executed, ExecuteError> {
    let decide = |purses: [&Purse; 2]| move_(amount, purses);
    repository.execute_across(request, decide, respond).await
}

/// Runs commands side by side, on threads that nothing else needs: should they wait for each other,
/// the test fails instead of waiting with them.
async fn storm<T: Send + 'static>(
    commands: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    // For as long as the test program: connections of the log may have been opened on them.
    static THREADS: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(STORM_THREADS)
            .enable_all()
            .build()
            .unwrap()
    });
    let threads = &*THREADS;
    let running: Vec<_> = commands.into_iter().map(|one| threads.spawn(one)).collect();
    let done = tokio::time::timeout(PATIENCE, futures::future::join_all(running)).await;
    let done = done.expect("commands wait for each other");
    done.into_iter().map(Result::unwrap).collect()
}

async fn total_of(repository: &Repository<Purse>, id: &EntityId) -> i64 {
    repository.load(id).await.unwrap().0.total
}

#[tokio::test]
async fn it_happens_to_all_of_them_in_one_append() {
    let database = store().await;
    let repository = repository(&database).await;
    let (a, b) = (id("a"), id("b"));
    put(&repository, &a, 10).await;
    let done = run(&repository, between(&a, &b), 4).await.unwrap();
    assert_eq!(done.answer.body, "6 at 2, 4 at 1");
    assert_eq!(done.token.position.get(), 3);
    let mut partitions =
        ["purse-a", "purse-b"].map(|name| stream(name).partition(PartitionCount::DEFAULT));
    partitions.sort_unstable();
    let covered: Vec<_> = done.token.partitions.iter().map(|(it, _)| *it).collect();
    assert_eq!(covered, partitions, "the token covers both streams");

    let refused = run(&repository, between(&a, &b), 7).await.unwrap();
    assert_eq!(
        (refused.answer.status, refused.token.position.get()),
        (422, 3)
    );
    let nothing = run(&repository, between(&b, &a), 0).await.unwrap();
    assert_eq!(nothing.answer.body, "4 at 1, 6 at 2", "it was so already");
    assert_eq!(total_of(&repository, &a).await, 6);
    assert_eq!(total_of(&repository, &b).await, 4);
}

#[tokio::test]
async fn one_aggregate_twice_is_refused() {
    let database = store().await;
    let repository = repository(&database).await;
    let a = id("a");
    put(&repository, &a, 10).await;
    let error = run(&repository, between(&a, &a), 1).await.unwrap_err();
    assert!(
        matches!(error, ExecuteError::Append(AppendError::Invalid(_))),
        "{error:?}"
    );
    assert_eq!(total_of(&repository, &a).await, 10);
}

/// Every pair of a few purses in both directions at once, from one process: nobody waits for ever,
/// nobody conflicts with his own process, nothing is lost and nothing is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ride_together_and_none_conflicts() {
    let database = store().await;
    let repository = repository(&database).await;
    let purses = ids(3);
    for purse in &purses {
        put(&repository, purse, 100).await;
    }
    let commands = (0..300).map(|n: usize| {
        let repository = Arc::clone(&repository);
        let (from, to) = (
            purses[n % 3].clone(),
            purses[(n + 1 + n / 3 % 2) % 3].clone(),
        );
        async move { run(&repository, between(&from, &to), 1).await }
    });
    for done in storm(commands).await {
        assert_eq!(done.unwrap().answer.status, 200);
    }
    let mut total = 0;
    for purse in &purses {
        total += total_of(&repository, purse).await;
    }
    assert_eq!(total, 300);
    let head = open(&database).await.head().await.unwrap();
    assert_eq!(head.position.get(), 3 + 2 * 300);
}

/// The same from two processes, with amounts that the purses often do not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_contend_and_the_total_stays() {
    let database = store().await;
    let repositories = [repository(&database).await, repository(&database).await];
    let purses = ids(4);
    for purse in &purses {
        put(&repositories[0], purse, 50).await;
    }
    let commands = (0..200).map(|n: usize| {
        let repository = Arc::clone(&repositories[n % 2]);
        let (from, step) = (n * 7 % 4, 1 + n % 3);
        let (from, to) = (purses[from].clone(), purses[(from + step) % 4].clone());
        let amount = i64::try_from(1 + n * 13 % 60).unwrap();
        async move { run(&repository, between(&from, &to), amount).await }
    });
    let done = storm(commands).await;
    let (mut taken, mut refused) = (0, 0);
    for done in &done {
        match done {
            Ok(done) if done.answer.status == 200 => taken += 1,
            Ok(_) => refused += 1,
            Err(ExecuteError::Contended { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    // How many are refused is a matter of who comes first; that most are answered is not.
    assert!(taken > 0 && taken + refused >= 150, "{taken} and {refused}");
    let log = open(&database).await;
    let events = log.read_log(millrace_es::Position::new(0), 1_000).await;
    let events = events.unwrap();
    assert_eq!(events.len(), 4 + 2 * taken, "both sides, or none");
    // Purse by purse, no event takes more than was there.
    let mut totals = std::collections::HashMap::new();
    for event in &events {
        let change: crate::purse::Changed = serde_json::from_str(event.payload.get()).unwrap();
        let total = totals.entry(event.stream.clone()).or_insert(0);
        *total += change.by;
        assert!(*total >= 0, "{}: {total}", event.stream);
    }
    assert_eq!(totals.values().sum::<i64>(), 200);
    for repository in &repositories {
        for purse in &purses {
            let total = totals[&stream(&format!("purse-{purse}"))];
            assert_eq!(total_of(repository, purse).await, total);
        }
    }
}

#[tokio::test]
async fn neither_a_refusal_nor_a_move_rests_on_a_stale_state() {
    let database = store().await;
    let [here, there] = [repository(&database).await, repository(&database).await];
    let (a, b) = (id("a"), id("b"));
    put(&here, &a, 10).await;
    run(&here, between(&a, &b), 1).await.unwrap();
    // `here` remembers 9 at 2 in the one and 1 at 1 in the other. Only the second is otherwise …
    put(&there, &b, 20).await;
    let done = run(&here, between(&a, &b), 1).await.unwrap();
    assert_eq!(done.answer.body, "8 at 3, 22 at 3");
    put(&there, &b, 1).await;
    let refused = run(&here, between(&a, &b), 9).await.unwrap();
    assert_eq!(refused.answer.body, "8 is in it, at 3 and 4");
    // … only the first …
    put(&there, &a, 100).await;
    let done = run(&here, between(&a, &b), 1).await.unwrap();
    assert_eq!(done.answer.body, "107 at 5, 24 at 5");
    put(&there, &a, -107).await;
    let refused = run(&here, between(&a, &b), 1).await.unwrap();
    assert_eq!(refused.answer.body, "0 is in it, at 6 and 5");
    // … and both.
    run(&there, between(&b, &a), 4).await.unwrap();
    let nothing = run(&here, between(&a, &b), 0).await.unwrap();
    assert_eq!(nothing.answer.body, "4 at 7, 20 at 6");
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    let database = store().await;
    let repository = repository(&database).await;
    let (a, b) = (id("a"), id("b"));
    put(&repository, &a, 10).await;
    let keyed = |n: u8| ExecuteAcross {
        key: Some(AnswerKey {
            key_hash: [n; 32],
            request_hash: [n; 32],
        }),
        ..between(&a, &b)
    };
    let first = run(&repository, keyed(1), 4).await.unwrap();
    let refused = run(&repository, keyed(2), 7).await.unwrap();
    run(&repository, between(&b, &a), 4).await.unwrap();
    for (key, amount, answer) in [(1, 4, first), (2, 7, refused)] {
        let again = run(&repository, keyed(key), amount).await.unwrap();
        assert!(again.replayed);
        assert_eq!((again.answer, again.token), (answer.answer, answer.token));
    }
    // What was only remembered of the repeats is not there.
    assert_eq!(total_of(&repository, &a).await, 10);
    let done = run(&repository, between(&a, &b), 10).await.unwrap();
    assert_eq!(done.answer.body, "0 at 4, 10 at 3");
}

#[tokio::test]
async fn if_match_is_held_against_each_of_them() {
    let database = store().await;
    let repository = repository(&database).await;
    let (a, b) = (id("a"), id("b"));
    put(&repository, &a, 10).await;
    put(&repository, &b, 10).await;
    let at = |from: Option<u64>, to: Option<u64>| ExecuteAcross {
        if_match: [from, to].map(|version| version.map(StreamVersion::new)),
        ..between(&a, &b)
    };
    for wrong in [at(Some(2), None), at(None, Some(2)), at(Some(1), Some(2))] {
        let error = run(&repository, wrong, 1).await.unwrap_err();
        assert!(
            matches!(error, ExecuteError::VersionMismatch { actual } if actual.get() == 1),
            "{error:?}"
        );
    }
    run(&repository, at(Some(1), Some(1)), 1).await.unwrap();
    run(&repository, at(None, Some(2)), 1).await.unwrap();
}
