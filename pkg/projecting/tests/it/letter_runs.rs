//! Runs over dead letters: by selector, counted, stopped, cancelled, and over a projector's death,
//! on both stores.

use std::{sync::atomic::Ordering, time::Duration};

use millrace_es::{Position, StreamId};
use millrace_kernel::Timestamp;
use millrace_projecting::{
    Action, DeadLetters, Folder, LetterFilter, LetterRun, LetterSelector, LetterStatus,
    MAX_OPEN_STREAMS, OnFailure, Owner, PositionRange, Reason, RunState, RunStatus, StoreError,
};
use millrace_testkit::eventually;

use crate::{
    bed::owner,
    letters::{FIX, Store},
    log::MemoryLog,
    runner::World,
    views::{REFUSES, folded, items},
};

const BOUND: Duration = Duration::from_secs(40);
/// What the fold refuses until its fix is out.
const REFUSED: &str = r#"{"n":666}"#;
const MALFORMED: &str = r#"{"n":"many"}"#;

fn run_of(store: &Store, action: Action, selector: LetterSelector) -> LetterRun {
    LetterRun {
        projection: store.view().name().to_owned(),
        selector,
        action,
        on_failure: OnFailure::Park,
        max_messages: None,
    }
}

fn keys(streams: &[&str]) -> LetterSelector {
    LetterSelector {
        keys: streams.iter().map(|s| StreamId::new(s).unwrap()).collect(),
        ..LetterSelector::default()
    }
}

/// Pushes a run and does what it asks, until it is over.
async fn drive(letters: &DeadLetters, owner: &Owner, folder: &mut Folder) -> RunState {
    let mut over = None;
    for _ in 0..100 {
        let state = letters.advance_run(owner).await.unwrap().unwrap();
        if state.status != RunStatus::Running {
            over = Some(state);
            break;
        }
        folder.settle_requests().await.unwrap();
    }
    let state = over.expect("the run is over within its bound");
    assert_eq!(letters.run(owner).await.unwrap().as_ref(), Some(&state));
    state
}

fn counts(state: &RunState) -> [u64; 4] {
    [state.matched, state.redriven, state.discarded, state.failed]
}

async fn waiting(letters: &DeadLetters) -> Vec<(String, u64)> {
    let found = letters.list(&LetterFilter::default(), 500).await.unwrap();
    let mut found: Vec<_> = found
        .into_iter()
        .map(|letter| (letter.stream.to_string(), letter.position.get()))
        .collect();
    found.sort();
    found
}

/// For each of so many streams: a healthy event, one that is refused, and one that follows.
fn poison(log: &MemoryLog, streams: std::ops::Range<usize>, payload: &str) {
    for n in streams {
        let stream = format!("item-{n}");
        log.push(&stream, "item.added", r#"{"n":1}"#);
        log.push(&stream, "item.added", payload);
        log.push(&stream, "item.added", r#"{"n":2}"#);
    }
}

#[tokio::test]
async fn a_selector_names_streams_to_redrive_and_the_rest_waits() {
    let _turn = FIX.lock().await;
    for store in Store::both().await {
        REFUSES.store(true, Ordering::SeqCst);
        let log = MemoryLog::new();
        poison(&log, 0..4, REFUSED);
        poison(&log, 4..6, MALFORMED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        assert_eq!(waiting(&letters).await.len(), 12);
        REFUSES.store(false, Ordering::SeqCst);

        // By key: both letters of each, in order.
        let run = run_of(&store, Action::Redrive, keys(&["item-0", "item-5"]));
        let by_key = owner("by-key");
        assert_eq!(letters.count_run(&run).await.unwrap(), 4);
        assert_eq!(
            letters.run(&by_key).await.unwrap(),
            None,
            "nothing is begun"
        );
        let begun = letters.begin_run(&by_key, &run).await.unwrap();
        assert_eq!(
            (begun.status, counts(&begun)),
            (RunStatus::Running, [4, 0, 0, 0])
        );
        let state = drive(&letters, &by_key, &mut folder).await;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Done, [4, 2, 0, 1])
        );

        // By position: one letter in the middle of a stream is not taken without those before it.
        let positions = vec![
            PositionRange::only(Position::new(6)),
            PositionRange {
                from: Position::new(100),
                to: Position::new(200),
            },
        ];
        let run = run_of(
            &store,
            Action::Redrive,
            LetterSelector {
                positions,
                ..LetterSelector::default()
            },
        );
        letters.begin_run(&owner("by-place"), &run).await.unwrap();
        let state = drive(&letters, &owner("by-place"), &mut folder).await;
        assert_eq!(counts(&state), [2, 2, 0, 0]);

        // By class and time.
        let by_class = LetterSelector {
            reason: Some(Reason::Fold),
            since: Some(Timestamp::now()),
            ..LetterSelector::default()
        };
        let run = run_of(&store, Action::Redrive, by_class.clone());
        letters.begin_run(&owner("too-late"), &run).await.unwrap();
        let state = drive(&letters, &owner("too-late"), &mut folder).await;
        assert_eq!((state.status, counts(&state)), (RunStatus::Done, [0; 4]));
        let run = run_of(
            &store,
            Action::Redrive,
            LetterSelector {
                since: None,
                until: Some(Timestamp::now()),
                ..by_class
            },
        );
        letters.begin_run(&owner("by-class"), &run).await.unwrap();
        let state = drive(&letters, &owner("by-class"), &mut folder).await;
        assert_eq!(counts(&state), [4, 4, 0, 0]);

        let left: Vec<String> = waiting(&letters)
            .await
            .into_iter()
            .map(|one| one.0)
            .collect();
        assert_eq!(left, ["item-4", "item-4", "item-5", "item-5"]);
        // What was released is folded again, behind what was redriven.
        let later = log.push("item-0", "item.added", r#"{"n":1}"#);
        assert_eq!(folder.fold(vec![later]).await.unwrap().letters, []);
        let rows = store.rows(&generation).await;
        let expected = folded(
            &log.events()
                .into_iter()
                .filter(|one| !["item-4", "item-5"].contains(&one.stream.as_str()))
                .collect::<Vec<_>>(),
        );
        for (key, row) in expected {
            assert_eq!(rows.get(&key), Some(&row), "{key}");
        }
        REFUSES.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_discard_gives_up_the_named_letters_and_no_others() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        poison(&log, 0..3, MALFORMED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let only_poison = LetterSelector {
            reason: Some(Reason::Malformed),
            ..LetterSelector::default()
        };
        let run = run_of(&store, Action::Discard, only_poison);
        letters.begin_run(&owner("discard"), &run).await.unwrap();
        let state = drive(&letters, &owner("discard"), &mut folder).await;
        assert_eq!(counts(&state), [3, 0, 3, 0]);
        assert_eq!(waiting(&letters).await.len(), 3, "what follows still waits");
        let run = run_of(&store, Action::Redrive, LetterSelector::default());
        letters.begin_run(&owner("redrive"), &run).await.unwrap();
        let state = drive(&letters, &owner("redrive"), &mut folder).await;
        assert_eq!(counts(&state), [3, 3, 0, 0]);
        let healthy: Vec<_> = log
            .events()
            .into_iter()
            .filter(|one| one.payload.get() != MALFORMED)
            .collect();
        assert_eq!(store.rows(&generation).await, folded(&healthy));
    }
}

#[tokio::test]
async fn a_run_is_begun_once_by_its_owner() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        poison(&log, 0..2, MALFORMED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let who = owner("a-uid");
        assert_eq!(letters.run(&who).await.unwrap(), None);
        assert_eq!(letters.advance_run(&who).await.unwrap(), None);
        let run = run_of(&store, Action::Discard, keys(&["item-0"]));
        letters.begin_run(&who, &run).await.unwrap();
        let first = letters.advance_run(&who).await.unwrap().unwrap();
        assert_eq!(first.open, 1);
        let again = letters.begin_run(&who, &run).await.unwrap();
        assert_eq!((again.matched, again.open), (2, 1));
        let other = run_of(&store, Action::Discard, keys(&["item-1"]));
        let refused = letters.begin_run(&who, &other).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid(_))),
            "{refused:?}"
        );
        // Two that push do no harm.
        let (one, other) = tokio::join!(letters.advance_run(&who), letters.advance_run(&who));
        assert_eq!(
            (one.unwrap().unwrap().open, other.unwrap().unwrap().open),
            (1, 1)
        );
        let state = drive(&letters, &who, &mut folder).await;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Done, [2, 0, 2, 0])
        );
        letters.begin_run(&who, &run).await.unwrap();
        let state = drive(&letters, &who, &mut folder).await;
        assert_eq!(counts(&state), [2, 0, 2, 0], "it is not done twice");
        letters.forget_run(&who).await.unwrap();
        assert_eq!(letters.run(&who).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failure_parks_again_or_stops_the_run() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        poison(&log, 0..5, MALFORMED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let mut run = run_of(&store, Action::Redrive, LetterSelector::default());
        run.on_failure = OnFailure::Stop;
        letters.begin_run(&owner("stop"), &run).await.unwrap();
        let state = drive(&letters, &owner("stop"), &mut folder).await;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Stopped, [10, 0, 0, 1])
        );
        run.on_failure = OnFailure::Park;
        letters.begin_run(&owner("park"), &run).await.unwrap();
        let state = drive(&letters, &owner("park"), &mut folder).await;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Done, [10, 0, 0, 5])
        );
        assert_eq!(waiting(&letters).await.len(), 10);
        let later = log.push("item-2", "item.added", r#"{"n":1}"#);
        let result = folder.fold(vec![later.clone()]).await.unwrap();
        assert_eq!(result.letters, [(later.position, Reason::Follows)]);
    }
}

#[tokio::test]
async fn a_run_takes_no_more_letters_than_it_may() {
    let _turn = FIX.lock().await;
    for store in Store::both().await {
        REFUSES.store(true, Ordering::SeqCst);
        let log = MemoryLog::new();
        poison(&log, 0..4, REFUSED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        REFUSES.store(false, Ordering::SeqCst);
        let letters = store.letters();
        let mut run = run_of(&store, Action::Redrive, LetterSelector::default());
        run.max_messages = Some(5);
        letters.begin_run(&owner("five"), &run).await.unwrap();
        let state = drive(&letters, &owner("five"), &mut folder).await;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Done, [8, 5, 0, 0])
        );
        let left = waiting(&letters).await;
        assert_eq!(left.len(), 3);
        // The stream that was taken in part is still parked.
        let of = |stream: &str| left.iter().filter(|one| one.0 == stream).count();
        let (parked, _) = left.iter().find(|one| of(&one.0) == 1).unwrap();
        let later = log.push(parked, "item.added", r#"{"n":1}"#);
        let result = folder.fold(vec![later.clone()]).await.unwrap();
        assert_eq!(result.letters, [(later.position, Reason::Follows)]);
        run.max_messages = Some(1);
        run.action = Action::Discard;
        letters.begin_run(&owner("one"), &run).await.unwrap();
        let state = drive(&letters, &owner("one"), &mut folder).await;
        assert_eq!(counts(&state), [4, 0, 1, 0]);
        REFUSES.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_cancelled_run_touches_no_letter_any_more() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        poison(&log, 0..3, MALFORMED);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let who = owner("cancelled");
        let run = run_of(&store, Action::Discard, LetterSelector::default());
        letters.begin_run(&who, &run).await.unwrap();
        let pushed = letters.advance_run(&who).await.unwrap().unwrap();
        assert_eq!(pushed.open, 3);
        let state = letters.cancel_run(&who).await.unwrap().unwrap();
        assert_eq!(state.status, RunStatus::Cancelled);
        folder.settle_requests().await.unwrap();
        let state = letters.advance_run(&who).await.unwrap().unwrap();
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Cancelled, [6, 0, 0, 0])
        );
        assert_eq!(waiting(&letters).await.len(), 6);
        assert_eq!(folder.settle_requests().await.unwrap(), [] as [String; 0]);
        letters.forget_run(&who).await.unwrap();
    }
}

#[tokio::test]
async fn a_cancel_in_the_middle_counts_what_was_done_and_no_more() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        for n in 0..MAX_OPEN_STREAMS {
            log.push(&format!("item-{n}"), "item.added", MALFORMED);
        }
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let who = owner("middle");
        let run = run_of(&store, Action::Discard, LetterSelector::default());
        letters.begin_run(&who, &run).await.unwrap();
        letters.advance_run(&who).await.unwrap();
        let cancelling = async {
            eventually("some are done", BOUND, async || {
                let state = letters.run(&who).await.unwrap().unwrap();
                (state.discarded > 3).then_some(())
            })
            .await;
            letters.cancel_run(&who).await.unwrap().unwrap()
        };
        // What is being done while it is cancelled may fail; it is not counted, and not done.
        let (_, cancelled) = tokio::join!(folder.settle_requests(), cancelling);
        let mut folder = store.folder(&generation).await;
        folder.settle_requests().await.unwrap();
        let state = letters.run(&who).await.unwrap().unwrap();
        assert_eq!(state, cancelled);
        let all = MAX_OPEN_STREAMS as u64;
        let left = waiting(&letters).await.len() as u64;
        assert_eq!((state.status, state.open), (RunStatus::Cancelled, 0));
        assert_eq!(state.discarded + left, all, "{state:?}");
    }
}

#[tokio::test]
async fn many_streams_are_begun_in_portions_and_counted_over_an_owners_death() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        let streams = 2 * MAX_OPEN_STREAMS + 20;
        for n in 0..streams {
            log.push(&format!("item-{n}"), "item.added", MALFORMED);
        }
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let who = owner("many");
        let run = run_of(&store, Action::Discard, LetterSelector::default());
        let begun = letters.begin_run(&who, &run).await.unwrap();
        assert_eq!(begun.matched, streams as u64);
        let pushed = letters.advance_run(&who).await.unwrap().unwrap();
        assert_eq!(pushed.open, MAX_OPEN_STREAMS as u64);
        // The owner dies in the middle of what was begun; another one goes on from the store.
        let dying = tokio::time::timeout(Duration::from_millis(60), folder.settle_requests());
        let died = dying.await.is_err();
        drop(folder);
        let mut next = store.folder(&generation).await;
        let state = drive(&letters, &who, &mut next).await;
        let all = streams as u64;
        assert_eq!(
            (state.status, counts(&state)),
            (RunStatus::Done, [all, 0, all, 0]),
            "the first owner died in the middle: {died}"
        );
        let discarded = LetterFilter {
            status: Some(LetterStatus::Discarded),
            ..LetterFilter::default()
        };
        assert_eq!(letters.list(&discarded, 500).await.unwrap().len(), streams);
        assert_eq!(waiting(&letters).await, []);
    }
}

#[tokio::test]
async fn a_run_survives_a_projector_that_is_killed() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    let streams = 80;
    for n in 0..streams {
        world
            .log
            .push(&format!("item-{n}"), "item.added", MALFORMED);
        world
            .log
            .push(&format!("item-{n}"), "item.added", r#"{"n":4}"#);
    }
    let letters = DeadLetters::new(vec![items()], Some(world.postgres.clone()), None);
    eventually("the letters wait", BOUND, async || {
        (waiting(&letters).await.len() == 2 * streams).then_some(())
    })
    .await;
    let discard = LetterRun {
        projection: "items".to_owned(),
        selector: LetterSelector {
            reason: Some(Reason::Malformed),
            ..LetterSelector::default()
        },
        action: Action::Discard,
        on_failure: OnFailure::Park,
        max_messages: None,
    };
    let who = owner("killed");
    letters.begin_run(&who, &discard).await.unwrap();
    let some = eventually("some are done", BOUND, async || {
        let state = letters.advance_run(&who).await.unwrap().unwrap();
        (state.discarded > 0).then_some(state)
    })
    .await;
    assert_eq!(some.status, RunStatus::Running);
    // Killed: no lane is given back, no lease is left.
    drop(running);
    let _next = world.start(vec![items()]);
    let state = eventually("the run is over", BOUND, async || {
        let state = letters.advance_run(&who).await.unwrap().unwrap();
        (state.status != RunStatus::Running).then_some(state)
    })
    .await;
    let all = streams as u64;
    assert_eq!(
        (state.status, counts(&state)),
        (RunStatus::Done, [all, 0, all, 0])
    );
    let redrive = LetterRun {
        selector: LetterSelector::default(),
        action: Action::Redrive,
        ..discard
    };
    letters.begin_run(&owner("rest"), &redrive).await.unwrap();
    let state = eventually("the rest is redriven", BOUND, async || {
        let state = letters.advance_run(&owner("rest")).await.unwrap().unwrap();
        (state.status != RunStatus::Running).then_some(state)
    })
    .await;
    assert_eq!(
        (state.status, counts(&state)),
        (RunStatus::Done, [all, all, 0, 0])
    );
    let healthy: Vec<_> = world
        .log
        .events()
        .into_iter()
        .filter(|one| one.payload.get() != MALFORMED)
        .collect();
    assert_eq!(world.rows().await, folded(&healthy));
}
