//! Reactions: effects in order per stream, tried again while they cannot be performed, parked when
//! they never will be, and never part of a replay.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millrace_es::{DecodeError, Position, Reaction, Recorded, RecordedEvent};
use millrace_projecting::{
    DeadLetters, EffectError, LetterFilter, Owner, Pace, React, Reason, Rebuilds, Requested,
    StoreError, View,
};
use millrace_testkit::eventually;
use sqlx::Row;

use crate::{
    runner::{BOUND, World},
    views::{ItemEvent, decode, items},
};

/// Rings for every event.
struct Rings;

impl Reaction for Rings {
    const NAME: &'static str = "rings";
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

/// What a bell does about an event before it is rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Rings,
    Away,
    Refuses,
    Hangs,
}

/// Remembers every effect, by stream and in the order they were performed.
struct Bell {
    rung: Mutex<Vec<(String, Position)>>,
    /// What holds of a stream; of all others, that it rings.
    moods: Mutex<BTreeMap<String, Mood>>,
    tries: AtomicUsize,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rung: Mutex::default(),
            moods: Mutex::default(),
            tries: AtomicUsize::new(0),
        })
    }

    fn view(self: &Arc<Self>) -> View {
        View::reaction::<Rings>(self.clone())
    }

    fn set(&self, stream: &str, mood: Mood) {
        self.moods.lock().unwrap().insert(stream.to_owned(), mood);
    }

    fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }

    fn rung(&self) -> Vec<(String, Position)> {
        self.rung.lock().unwrap().clone()
    }

    /// The positions of each stream, in the order they rang.
    fn by_stream(&self) -> BTreeMap<String, Vec<Position>> {
        by_stream(self.rung())
    }
}

fn by_stream(
    rung: impl IntoIterator<Item = (String, Position)>,
) -> BTreeMap<String, Vec<Position>> {
    let mut streams: BTreeMap<String, Vec<Position>> = BTreeMap::new();
    for (stream, position) in rung {
        streams.entry(stream).or_default().push(position);
    }
    streams
}

/// What has to have rung of a log: every event once, in order per stream.
fn expected(events: &[RecordedEvent]) -> BTreeMap<String, Vec<Position>> {
    let named = |event: &RecordedEvent| (event.stream.as_str().to_owned(), event.position);
    by_stream(events.iter().map(named))
}

#[async_trait]
impl React<Rings> for Bell {
    async fn react(&self, event: Recorded<'_, ItemEvent>) -> Result<(), EffectError> {
        let stream = event.envelope.stream.as_str().to_owned();
        self.tries.fetch_add(1, Ordering::SeqCst);
        // An effect takes a moment, so that others come in between.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mood = self.moods.lock().unwrap().get(&stream).copied();
        match mood.unwrap_or(Mood::Rings) {
            Mood::Rings => {
                let mut rung = self.rung.lock().unwrap();
                rung.push((stream, event.envelope.position));
                Ok(())
            }
            Mood::Away => Err(EffectError::unavailable("nobody is there")),
            Mood::Refuses => Err(EffectError::refused("no bell for this one")),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

impl World {
    /// Until the checkpoints of the reaction are at the log's head.
    async fn reaction_is_at_the_head(&self) {
        eventually("the reaction is at the head", BOUND, async || {
            let generation = self.postgres.generations("rings").await.unwrap();
            let id = generation.first()?.id;
            let at = self.postgres.checkpoints(id).await.unwrap();
            let newest = self.log.head_now().partition_positions;
            let is_there = |one: &millrace_projecting::Checkpoint| {
                one.position == newest[usize::from(one.lane.partition.get())]
            };
            at.iter().all(is_there).then_some(())
        })
        .await;
    }

    fn reaction_letters(&self) -> DeadLetters {
        let known = vec![items(), View::named_reaction::<Rings>()];
        DeadLetters::new(known, Some(self.postgres.clone()), None)
    }

    async fn until_letters(&self, count: usize) -> Vec<millrace_projecting::DeadLetter> {
        let letters = self.reaction_letters();
        eventually("the letters wait", BOUND, async || {
            let found = letters.list(&LetterFilter::default(), 100).await.unwrap();
            (found.len() == count).then_some(found)
        })
        .await
    }

    async fn outcome_of(&self, asked: &Requested) -> String {
        let letters = self.reaction_letters();
        eventually("the owner has done it", BOUND, async || {
            letters.outcome(asked).await.unwrap()
        })
        .await
    }
}

fn of_the_reaction() -> LetterFilter {
    LetterFilter {
        projection: Some("rings".to_owned()),
        ..LetterFilter::default()
    }
}

#[tokio::test]
async fn every_event_has_its_effect_once_in_order_per_stream() {
    let mut world = World::new().await;
    // What was there before the reaction is meant too.
    world.log.fill(7, 150);
    let bell = Bell::new();
    let running = world.start(vec![bell.view(), items()]);
    world.log.fill(13, 150);
    world.reaction_is_at_the_head().await;
    assert_eq!(bell.by_stream(), expected(&world.log.events()));
    world.rows_are_the_log().await;
    running.stop().await;
    // Another process goes on where this one ended.
    let running = world.start(vec![bell.view()]);
    world.log.fill(13, 20);
    world.reaction_is_at_the_head().await;
    assert_eq!(bell.by_stream(), expected(&world.log.events()));
    running.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_away_parks_nothing_and_repeats_only_what_was_not_done() {
    let mut world = World::new().await;
    let bell = Bell::new();
    bell.set("item-2", Mood::Away);
    let running = world.start(vec![bell.view(), items()]);
    let away = world.log.fill(9, 90);
    let held = away.iter().find(|one| one.stream.as_str() == "item-2");
    let held = held.unwrap().partition;
    // Views go on, and so do the streams of other lanes, up to their end.
    world.rows_are_the_log().await;
    let of_others: Vec<_> = away
        .iter()
        .filter(|one| one.partition != held)
        .cloned()
        .collect();
    eventually("the other lanes go on", BOUND, async || {
        let rung = bell.by_stream();
        let others = expected(&of_others);
        others
            .iter()
            .all(|(stream, all)| rung.get(stream) == Some(all))
            .then_some(())
    })
    .await;
    let tries = bell.tries();
    eventually("it is tried again and again", BOUND, async || {
        (bell.tries() > tries + 3).then_some(())
    })
    .await;
    world.until_letters(0).await;
    bell.set("item-2", Mood::Rings);
    world.reaction_is_at_the_head().await;
    assert_eq!(bell.by_stream(), expected(&world.log.events()));
    running.stop().await;
}

#[tokio::test]
async fn a_refused_effect_parks_its_stream_and_a_redrive_performs_it_in_order() {
    let mut world = World::new().await;
    let bell = Bell::new();
    bell.set("item-3", Mood::Refuses);
    let running = world.start(vec![bell.view()]);
    let events = world.log.fill(8, 40);
    world.reaction_is_at_the_head().await;
    let parked: Vec<_> = expected(&events).remove("item-3").unwrap();
    let found = world.until_letters(parked.len()).await;
    assert_eq!(
        found.iter().map(|one| one.position).collect::<Vec<_>>(),
        parked
    );
    assert_eq!(found[0].reason, Reason::Refused);
    assert!(found[0].error.contains("no bell"), "{}", found[0].error);
    assert_eq!(found[1].reason, Reason::Follows);
    assert!(!bell.by_stream().contains_key("item-3"));
    let letters = world.reaction_letters();
    // A redrive of everything is one of projections: effects are asked for by name.
    let asked = letters.redrive(&LetterFilter::default()).await.unwrap();
    assert!(asked.is_empty(), "{asked:?}");
    let asked = letters.redrive(&of_the_reaction()).await.unwrap();
    let outcome = world.outcome_of(&asked[0]).await;
    assert!(outcome.contains("failed again"), "{outcome}");
    // While the endpoint is away a redrive waits and fails nothing.
    bell.set("item-3", Mood::Away);
    let asked = letters.redrive(&of_the_reaction()).await.unwrap();
    let tries = bell.tries();
    eventually("the redrive is tried", BOUND, async || {
        (bell.tries() > tries + 1).then_some(())
    })
    .await;
    assert_eq!(letters.outcome(&asked[0]).await.unwrap(), None);
    bell.set("item-3", Mood::Rings);
    let outcome = world.outcome_of(&asked[0]).await;
    assert!(outcome.contains("5 redriven"), "{outcome}");
    assert!(outcome.contains("released"), "{outcome}");
    world.log.fill(8, 16);
    world.reaction_is_at_the_head().await;
    assert_eq!(bell.by_stream(), expected(&world.log.events()));
    running.stop().await;
}

#[tokio::test]
async fn a_long_redrive_goes_in_steps_and_a_discard_gives_up_its_letter() {
    let mut world = World::new().await;
    let bell = Bell::new();
    bell.set("item-0", Mood::Refuses);
    let running = world.start(vec![bell.view()]);
    let events = world.log.fill(1, 47);
    world.reaction_is_at_the_head().await;
    world.until_letters(47).await;
    let letters = world.reaction_letters();
    let first = LetterFilter {
        position: Some(events[0].position),
        ..of_the_reaction()
    };
    let asked = letters.discard(&first).await.unwrap();
    let outcome = world.outcome_of(&asked[0]).await;
    assert!(outcome.contains("1 discarded"), "{outcome}");
    bell.set("item-0", Mood::Rings);
    let asked = letters.redrive(&of_the_reaction()).await.unwrap();
    world.outcome_of(&asked[0]).await;
    world.until_letters(0).await;
    assert_eq!(bell.by_stream(), expected(&events[1..]));
    running.stop().await;
}

#[tokio::test]
async fn a_malformed_event_is_a_letter_of_its_stream() {
    let mut world = World::new().await;
    let bell = Bell::new();
    let running = world.start(vec![bell.view()]);
    let mut healthy = world.log.fill(4, 8);
    let poison = world.log.push("item-1", "item.added", r#"{"n":"nothing"}"#);
    let follower = world.log.push("item-1", "item.added", r#"{"n":1}"#);
    healthy.extend(
        world
            .log
            .fill(4, 1)
            .into_iter()
            .filter(|one| one.stream.as_str() != "item-1"),
    );
    world.reaction_is_at_the_head().await;
    let found = world.until_letters(2).await;
    let reasons: Vec<_> = found.iter().map(|one| (one.position, one.reason)).collect();
    assert_eq!(
        reasons,
        [
            (poison.position, Reason::Malformed),
            (follower.position, Reason::Follows)
        ]
    );
    assert_eq!(bell.by_stream(), expected(&healthy));
    running.stop().await;
}

#[tokio::test]
async fn two_processes_share_the_lanes_and_one_that_is_killed_repeats_little() {
    let mut world = World::new().await;
    let bell = Bell::new();
    let one = world.start(vec![bell.view()]);
    world.log.fill(11, 100);
    let two = world.start(vec![bell.view()]);
    world.log.fill(17, 200);
    eventually("something rang", BOUND, async || {
        (bell.rung().len() > 50).then_some(())
    })
    .await;
    // Killed: nothing is finished, nothing given back.
    drop(one.task);
    world.log.fill(17, 100);
    world.reaction_is_at_the_head().await;
    let rung = bell.rung();
    let all: HashSet<_> = rung.iter().cloned().collect();
    let named = |event: &RecordedEvent| (event.stream.as_str().to_owned(), event.position);
    assert_eq!(all, world.log.events().iter().map(named).collect());
    let repeated = rung.len() - all.len();
    assert!(repeated <= 2 * 64, "{repeated} effects were repeated");
    two.stop().await;
}

#[tokio::test]
async fn told_to_stop_it_writes_down_what_was_performed() {
    let mut world = World::new().await;
    let bell = Bell::new();
    bell.set("item-5", Mood::Hangs);
    let running = world.start(vec![bell.view()]);
    world.log.fill(6, 60);
    // The streams before the one that hangs are through, and a batch is in hand.
    eventually("the others rang", BOUND, async || {
        (bell.rung().len() >= 10).then_some(())
    })
    .await;
    let told = std::time::Instant::now();
    running.stop().await;
    assert!(told.elapsed() < Duration::from_secs(12));
    bell.set("item-5", Mood::Rings);
    let running = world.start(vec![bell.view()]);
    world.reaction_is_at_the_head().await;
    // What hung had not rung, and nothing rang twice: all that was performed was written down,
    // but for what lay in the hanging lane behind the effect that hung.
    let hung = world.log.events();
    let hung = hung.iter().find(|one| one.stream.as_str() == "item-5");
    let lane = hung.unwrap().partition;
    let others: Vec<_> = world.log.events();
    let others: Vec<_> = others
        .into_iter()
        .filter(|one| one.partition != lane)
        .collect();
    let rung = bell.by_stream();
    for (stream, positions) in expected(&others) {
        assert_eq!(rung[&stream], positions, "{stream}");
    }
    let all: HashSet<_> = bell.rung().into_iter().collect();
    assert_eq!(all.len(), 60);
    running.stop().await;
}

#[tokio::test]
async fn the_database_away_repeats_no_effect() {
    let mut world = World::new().await;
    let bell = Bell::new();
    let running = world.start(vec![bell.view()]);
    world.log.fill(5, 20);
    world.reaction_is_at_the_head().await;
    // What is performed cannot be written down for a while.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE projections.checkpoints IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    world.log.fill(5, 20);
    eventually("effects are performed", BOUND, async || {
        (bell.rung().len() > 20).then_some(())
    })
    .await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'millrace-projector'",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    lock.rollback().await.unwrap();
    world.reaction_is_at_the_head().await;
    assert_eq!(bell.by_stream(), expected(&world.log.events()));
    running.stop().await;
}

#[tokio::test]
async fn a_log_that_lost_its_tail_repeats_little_and_skips_nothing() {
    let mut world = World::new().await;
    let bell = Bell::new();
    bell.set("item-3", Mood::Refuses);
    let running = world.start(vec![bell.view()]);
    world.log.fill(7, 50);
    world.reaction_is_at_the_head().await;
    running.stop().await;
    world.stop_relay().await;
    // As if a minute had passed since those events: only what is taken from now on is in doubt.
    sqlx::query("UPDATE projections.checkpoints SET updated_at = now() + interval '60 seconds'")
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.log.truncate(40);
    bell.set("item-3", Mood::Rings);
    let before = bell.rung();
    let running = world.start(vec![bell.view()]);
    eventually("the log is halted", BOUND, async || world.log.halted()).await;
    // The operator gives the lost tail up; what follows takes the positions of what is gone.
    millrace_eventlog::EventLog::start_epoch(&*world.log)
        .await
        .unwrap();
    world.start_relay();
    let new = world.log.fill(5, 30);
    world.reaction_is_at_the_head().await;
    let parked: HashSet<String> = std::iter::once("item-3".to_owned()).collect();
    let after = by_stream(bell.rung().split_off(before.len()));
    let mut wanted = expected(&new);
    // Its first letter is of an event that the log still has: it stays parked.
    wanted.retain(|stream, _| !parked.contains(stream));
    assert_eq!(after, wanted);
    assert_eq!(world.postgres.generations("rings").await.unwrap().len(), 1);
    let asked = world.reaction_letters().redrive(&of_the_reaction()).await;
    world.outcome_of(&asked.unwrap()[0]).await;
    let own = expected(&world.log.events()).remove("item-3").unwrap();
    assert_eq!(bell.by_stream()["item-3"], own);
    running.stop().await;
}

#[tokio::test]
async fn no_replay_touches_a_reaction() {
    let mut world = World::new().await;
    let bell = Bell::new();
    let running = world.start(vec![bell.view()]);
    world.log.fill(3, 12);
    world.reaction_is_at_the_head().await;
    let known = vec![items(), View::named_reaction::<Rings>()];
    let rebuilds = Rebuilds::new(
        known,
        vec![world.log.clone()],
        Some(world.postgres.clone()),
        None,
        Some(world.topology.clone()),
    );
    let owner = Owner::new("somebody").unwrap();
    let own = world.postgres.generations("rings").await.unwrap();
    let refused = [
        rebuilds.plan("rings").await.map(drop),
        rebuilds
            .begin(&owner, "rings", Pace::default())
            .await
            .map(drop),
        rebuilds.rollback("rings", own[0].id, true).await.map(drop),
        rebuilds.switch(&own[0]).await.map(drop),
        rebuilds.discard(&own[0]).await,
    ];
    for refused in refused {
        let Err(StoreError::Invalid(why)) = refused else {
            panic!("not refused: {refused:?}");
        };
        assert!(why.contains("rings is a reaction"), "{why}");
    }
    assert!(rebuilds.loading().await.unwrap().is_empty());
    assert_eq!(own.len(), 1);
    let row = sqlx::query("SELECT count(*) FROM information_schema.tables WHERE table_schema = $1")
        .bind(&own[0].place)
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
    running.stop().await;
}
