//! Halting, and going on after the log lost its tail.

use millrace_es::{Epoch, Position, RecordedEvent};

use super::{Backend, LARGE_APPEND_EVENTS, append, audit};
use crate::{AppendError, EventLog, ExpectedVersion, LogError};

async fn fill(log: &dyn EventLog, events: usize) {
    for n in 0..events {
        log.append(append(&format!("s-{}", n % 3), ExpectedVersion::Any, 1))
            .await
            .expect("the append is taken");
    }
}

/// A halt in one process stops all of them, keeps its first reason, and is lifted by a resume.
pub async fn a_halted_log_takes_nothing_until_it_is_resumed(backend: &impl Backend) {
    let here = backend.open(None).await;
    let there = backend.open(None).await;
    fill(here.as_ref(), 2).await;
    there.halt("the stream is ahead").await.expect("it halts");
    there.halt("again").await.expect("it stays halted");
    for events in [1, LARGE_APPEND_EVENTS] {
        for log in [&here, &there] {
            let refused = log.append(append("a", ExpectedVersion::Any, events)).await;
            assert!(
                matches!(&refused, Err(AppendError::Halted { reason, .. })
                    if reason == "the stream is ahead"),
                "{refused:?}"
            );
        }
    }
    let head = here.head().await.expect("the head is read");
    assert_eq!(head.halted.as_deref(), Some("the stream is ahead"));
    here.resume().await.expect("it resumes");
    fill(there.as_ref(), 1).await;
    assert_eq!(audit(here.as_ref()).await.len(), 3);
}

/// A tail that the log lost comes back with everything it had, and the log goes on behind it.
pub async fn a_lost_tail_is_taken_back(backend: &impl Backend) {
    let log = backend.open(None).await;
    fill(log.as_ref(), 12).await;
    let before = audit(log.as_ref()).await;
    backend.lose_after(Position::new(5)).await;
    log.halt("lost").await.expect("it halts");

    let head = log.import_tail(before[5..].to_vec()).await;

    let head = head.expect("the tail continues the log");
    assert_eq!((head.position, head.halted), (Position::new(12), None));
    assert_eq!(*log.appended().borrow(), Position::new(12));
    let after = audit(log.as_ref()).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.id, after.id);
        assert_eq!(before.recorded_at, after.recorded_at);
        assert_eq!(before.payload.get(), after.payload.get());
    }
    fill(log.as_ref(), 3).await;
    assert_eq!(audit(log.as_ref()).await.len(), 15);
}

/// A tail with a hole, of another epoch, or that somebody else's events took the place of, is
/// refused whole.
pub async fn a_tail_that_does_not_continue_is_refused(backend: &impl Backend) {
    let log = backend.open(None).await;
    fill(log.as_ref(), 10).await;
    let before = audit(log.as_ref()).await;
    backend.lose_after(Position::new(5)).await;
    let change = |change: &dyn Fn(&mut Vec<RecordedEvent>)| {
        let mut tail = before[5..].to_vec();
        change(&mut tail);
        tail
    };
    let tails = [
        change(&|tail| drop(tail.remove(0))),
        change(&|tail| drop(tail.remove(2))),
        change(&|tail| tail[1].epoch = Epoch::new(9)),
        change(&|tail| tail[1].previous = Position::ZERO),
        change(&|tail| tail[3].version = tail[3].version.next()),
        change(&|tail| tail.insert(0, before[4].clone())),
    ];
    for tail in tails {
        let refused = log.import_tail(tail).await;
        assert!(matches!(refused, Err(LogError::Corrupt(_))), "{refused:?}");
        assert_eq!(audit(log.as_ref()).await.len(), 5);
    }
}

/// A new epoch goes on at the head: nothing is lost, a halt is lifted, other processes follow.
pub async fn a_new_epoch_begins_at_the_head(backend: &impl Backend) {
    let here = backend.open(None).await;
    let there = backend.open(None).await;
    fill(here.as_ref(), 4).await;
    here.halt("lost").await.expect("it halts");
    let head = there.start_epoch().await.expect("an epoch starts");
    assert_eq!((head.position, head.epoch.get()), (Position::new(4), 2));
    assert_eq!(head.halted, None);
    let appended = here.append(append("s-0", ExpectedVersion::Any, 1)).await;
    let token = appended.expect("appends go on").token;
    assert_eq!(token.epoch, Some(Epoch::new(2)));
    let events = audit(here.as_ref()).await;
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event.epoch == Epoch::new(2)));
}
