use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_eventlog::{
    EventLog,
    dynamodb::streams::{StreamProcessor, StreamsOptions},
};
use millrace_testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::{
    dynamodb_scene::{PATIENT, SHARDS_ONLY, Scene, eat},
    scripted_streams::clients,
    world::{BOUND, position},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_read_side_by_side_and_put_in_order() {
    let shards = ["a", "b", "c", "d", "e"];
    let scene = Scene::with(&shards).await;
    scene.log.grow(30);
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&shards).await;
    running.fed_all(&scene.log).await;
    assert_eq!(scene.gap_events("past"), 30, "what was there before");
    for _ in 0..10 {
        scene.grow_into(37, &shards);
        scene.script().put_other("c");
        tokio::task::yield_now().await;
    }
    running.fed_all(&scene.log).await;
    assert_eq!(scene.counted("events_total"), 370);
    assert_eq!(scene.gap_events("past"), 30);
    assert_eq!(scene.gap_events("hole"), 0);
    assert_eq!(scene.counted("shards"), 5);
    assert_eq!(scene.counted("lag_events"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_read_after_their_parent() {
    let scene = Scene::with(&["parent"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["parent"]).await;
    scene.grow_into(50, &["parent"]);
    {
        let mut script = scene.script();
        for child in ["left", "right"] {
            script.open(child, Some("parent"));
        }
        script.open("grandchild", Some("left"));
    }
    scene.grow_into(10, &["left", "right"]);
    scene.script().close("left");
    scene.grow_into(10, &["grandchild", "right"]);
    let described = || scene.script().calls("DescribeStream", "").len();
    let before = described();
    eventually("the children to be found", BOUND, || async {
        (described() > before + 3).then_some(())
    })
    .await;
    assert!(
        scene.script().calls("GetShardIterator", "left").is_empty(),
        "their parent is open"
    );
    scene.script().close("parent");
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    let begun = |shard| scene.script().calls("GetShardIterator", shard)[0].clone();
    for shard in ["left", "right", "grandchild"] {
        assert_eq!(begun(shard).kind, "TRIM_HORIZON");
    }
    let last = scene
        .script()
        .calls("GetRecords", "left")
        .last()
        .unwrap()
        .at;
    assert!(begun("grandchild").at >= last);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shard_lost_is_read_from_the_log() {
    let scene = Scene::with(&["a"]).await;
    let running = scene.processor(PATIENT);
    scene.read_by_now(&["a"]).await;
    scene.grow_into(40, &["a"]);
    running.fed_all(&scene.log).await;
    let checkpointed = scene.script().newest("a");
    running.stop().await;
    scene.grow_into(60, &["a"]);
    scene.script().trim("a", 10);
    let running = scene.processor_after(position(40), PATIENT);
    running.fed_after(40, &scene.log).await;
    let iterators = scene.script().calls("GetShardIterator", "a");
    assert_eq!(iterators[1].after.as_ref(), Some(&checkpointed));
    assert_eq!(iterators[2].kind, "TRIM_HORIZON");
    assert_eq!(scene.counted("trimmed_total"), 1);
    assert_eq!(scene.gap_events("hole"), 50);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_may_be_trimmed_under_an_iterator() {
    let scene = Scene::with(&["a"]).await;
    let running = scene.processor(PATIENT);
    scene.read_by_now(&["a"]).await;
    scene.grow_into(20, &["a"]);
    running.fed_all(&scene.log).await;
    {
        let mut script = scene.script();
        scene.log.grow(60);
        for event in &scene.log.events()[20..] {
            script.put("a", event);
        }
        script.trim("a", 5);
    }
    running.fed_all(&scene.log).await;
    assert_eq!(scene.counted("trimmed_total"), 1);
    assert_eq!(scene.gap_events("hole"), 55);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_iterator_is_renewed_after_the_last_record() {
    let scene = Scene::with(&["a", "b"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a", "b"]).await;
    scene.grow_into(40, &["a"]);
    running.fed_all(&scene.log).await;
    let last = scene.script().newest("a");
    let before = scene.counted("iterators_expired_total");
    scene.script().expire();
    eventually("the iterators to be renewed", BOUND, || async {
        (scene.counted("iterators_expired_total") == before + 2).then_some(())
    })
    .await;
    scene.read_by_now(&["a", "b"]).await;
    let renewed = scene.script().calls("GetShardIterator", "a").pop().unwrap();
    assert_eq!(renewed.kind, "AFTER_SEQUENCE_NUMBER");
    assert_eq!(renewed.after, Some(last));
    scene.grow_into(60, &["b", "a"]);
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_shard_is_asked_again_with_pauses() {
    let scene = Scene::with(&["a"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a"]).await;
    let before = scene.script().calls("GetRecords", "a").len();
    scene.script().throttled = 4;
    scene.grow_into(40, &["a"]);
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    assert_eq!(scene.counted("calls_failed_total"), 4);
    // Half of 100, 200, 400 and 800 ms at least.
    let calls = scene.script().calls("GetRecords", "a");
    let throttled = scene.script().throttled;
    assert_eq!(throttled, 0);
    let took = calls.last().unwrap().at - calls[before].at;
    assert!(took >= Duration::from_millis(750), "{took:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_not_asked_more_often_than_it_may_be() {
    let scene = Scene::with(&["a"]).await;
    let paced = StreamsOptions {
        call_every: Duration::from_millis(60),
        ..SHARDS_ONLY
    };
    let running = scene.processor(paced);
    scene.read_by_now(&["a"]).await;
    for _ in 0..10 {
        scene.grow_into(30, &["a"]);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    running.fed_all(&scene.log).await;
    let calls = scene.script().calls("GetRecords", "a");
    // They come over a network of sorts, so one may be late and the next in time: on the whole.
    let all = calls.last().unwrap().at - calls[0].at;
    let least = Duration::from_millis(60) * u32::try_from(calls.len() - 2).unwrap();
    assert!(
        calls.len() > 10 && all >= least,
        "{} in {all:?}",
        calls.len()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_may_be_empty_for_long_or_full_of_other_items() {
    let scene = Scene::with(&["empty", "other", "busy"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["empty", "other", "busy"]).await;
    for _ in 0..100 {
        scene.script().put_other("other");
    }
    scene.grow_into(10, &["busy"]);
    running.fed_all(&scene.log).await;
    eventually("an empty shard to be read often", BOUND, || async {
        (scene.script().calls("GetRecords", "empty").len() > 30).then_some(())
    })
    .await;
    scene.grow_into(6, &["empty", "other"]);
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_out_of_order_and_twice_are_fed_in_order_and_once() {
    let scene = Scene::with(&["a", "b"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a", "b"]).await;
    {
        let mut script = scene.script();
        scene.log.grow(90);
        let events = scene.log.events();
        for event in events.iter().rev() {
            script.put("a", event);
        }
        for event in events.iter().step_by(3) {
            script.put("b", event);
        }
    }
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    eventually("the copies to be read", BOUND, || async {
        (scene.counted("duplicates_total") == 30).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_buffer_has_no_room_for_is_read_from_the_log() {
    let scene = Scene::with(&["a"]).await;
    let small = StreamsOptions {
        buffer_events: 10,
        ..SHARDS_ONLY
    };
    let running = scene.processor(small);
    scene.read_by_now(&["a"]).await;
    {
        let mut script = scene.script();
        scene.log.grow(200);
        // The first event never comes, so all others have to wait.
        for event in &scene.log.events()[1..] {
            script.put("a", event);
        }
    }
    running.fed_all(&scene.log).await;
    assert!(scene.gap_events("overflow") >= 1);
    assert_eq!(scene.gap_events("hole"), 0);
    assert_eq!(scene.counted("buffered_events"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_never_come_are_read_from_the_log() {
    let scene = Scene::with(&["a"]).await;
    let running = scene.processor(PATIENT);
    scene.read_by_now(&["a"]).await;
    {
        let mut script = scene.script();
        scene.log.grow(60);
        for event in scene
            .log
            .events()
            .iter()
            .filter(|event| event.position.get() % 20 != 0)
        {
            script.put("a", event);
        }
    }
    // 20 and 40 have later ones behind them; 60 is missed by a look at the head.
    running.fed_all(&scene.log).await;
    assert!((3..60).contains(&scene.gap_events("hole")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_from_the_checkpoint() {
    let scene = Scene::with(&["a", "b"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a", "b"]).await;
    scene.grow_into(60, &["a", "b"]);
    running.fed_all(&scene.log).await;
    let [a, b] = ["a", "b"].map(|shard| scene.script().newest(shard));
    running.stop().await;
    scene.grow_into(60, &["a", "b"]);
    let running = scene.processor_after(position(60), SHARDS_ONLY);
    running.fed_after(60, &scene.log).await;
    scene.only_from_shards();
    let resumed = |shard| {
        scene.script().calls("GetShardIterator", shard)[1]
            .after
            .clone()
    };
    assert_eq!((resumed("a"), resumed("b")), (Some(a), Some(b)));
    assert_eq!(scene.counted("duplicates_total"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_old_or_lost_or_wrong_loses_nothing() {
    let scene = Scene::with(&["a", "b"]).await;
    let first = scene.processor(PATIENT);
    scene.read_by_now(&["a", "b"]).await;
    scene.grow_into(20, &["a", "b"]);
    first.fed_all(&scene.log).await;
    first.stop().await;
    let old = scene.script().checkpoint.clone();
    let mut fed = 20;
    let mut wrong = old.clone().unwrap();
    wrong["shards"]["M"]["a"]["S"] = "1".repeat(21).into();
    let mut torn = old.clone().unwrap();
    torn["position"] = serde_json::json!({ "S": "?" });
    for checkpoint in [None, old.clone(), Some(wrong), Some(torn), old] {
        scene.grow_into(20, &["a", "b"]);
        scene.script().checkpoint = checkpoint;
        let running = scene.processor_after(position(fed), PATIENT);
        let fed_before = usize::try_from(fed).unwrap();
        running.fed_after(fed_before, &scene.log).await;
        scene.read_by_now(&["a", "b"]).await;
        scene.grow_into(20, &["b", "a"]);
        running.fed_after(fed_before, &scene.log).await;
        running.kill().await;
        fed += 40;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_fed_may_go_back_and_forth() {
    let scene = Scene::with(&["a"]).await;
    let mut running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a"]).await;
    scene.grow_into(50, &["a"]);
    running.fed_all(&scene.log).await;
    scene.only_from_shards();
    // The published stream lost its tail.
    running.go_to(10).await;
    running.fed_after(10, &scene.log).await;
    assert_eq!(scene.gap_events("past"), 40);
    // Another relay went on with it.
    running.go_to(50).await;
    {
        let mut script = scene.script();
        scene.log.grow(20);
        for event in &scene.log.events()[60..] {
            script.put("a", event);
        }
    }
    running.go_to(60).await;
    running.fed_after(60, &scene.log).await;
    assert_eq!(scene.gap_events("past"), 40);
    assert_eq!(scene.gap_events("hole"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_event_is_measured() {
    let scene = Scene::with(&["a"]).await;
    let running = scene.processor(SHARDS_ONLY);
    scene.read_by_now(&["a"]).await;
    let first = {
        let mut script = scene.script();
        scene.log.grow(30);
        let events = scene.log.events();
        for event in &events[1..] {
            script.put("a", event);
        }
        events[0].clone()
    };
    eventually("the others to wait", BOUND, || async {
        (scene.counted("buffered_events") == 29).then_some(())
    })
    .await;
    assert_eq!(scene.counted("lag_events"), 30);
    assert!(scene.counted("buffered_bytes") > 29 * 200);
    let age = scene.counted("age_seconds");
    assert!(age > 1_000_000, "the records are years old: {age}");
    scene.script().put("a", &first);
    running.fed_all(&scene.log).await;
    for gauge in [
        "lag_events",
        "buffered_events",
        "buffered_bytes",
        "age_seconds",
    ] {
        eventually(gauge, BOUND, || async {
            (scene.counted(gauge) == 0).then_some(())
        })
        .await;
    }
    scene.only_from_shards();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_gone_and_a_stream_made_anew_are_survived() {
    let scene = Scene::with(&["a", "b"]).await;
    let running = scene.processor(PATIENT);
    scene.read_by_now(&["a", "b"]).await;
    scene.grow_into(20, &["a", "b"]);
    running.fed_all(&scene.log).await;
    scene.grow_into(20, &["a", "b"]);
    scene.script().forget("a");
    running.fed_all(&scene.log).await;
    scene.grow_into(10, &["b"]);
    {
        let mut script = scene.script();
        script.begin_anew();
        script.open("z", None);
    }
    running.fed_all(&scene.log).await;
    scene.read_by_now(&["z"]).await;
    let before = scene.counted("events_total");
    scene.grow_into(30, &["z"]);
    running.fed_all(&scene.log).await;
    assert_eq!(scene.counted("events_total"), before + 30);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_for_nobody() {
    let scene = Scene::with(&["a"]).await;
    let brief = StreamsOptions {
        linger: Duration::from_millis(50),
        ..SHARDS_ONLY
    };
    let (tables, streams) = clients(&scene.endpoint.url);
    let log = Arc::clone(&scene.log) as Arc<dyn EventLog>;
    let processor = StreamProcessor::new(log, tables, streams, "log".to_owned(), brief);
    let (feed, stop) = (processor.feed(), CancellationToken::new());
    let work = tokio::spawn(processor.run(stop.clone()));
    let calls = || scene.script().calls.len();
    let fed = Arc::new(Mutex::new(Vec::new()));
    for round in 0..2 {
        let quiet = calls();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(calls(), quiet, "nobody listens in round {round}");
        let after = scene.log.position();
        let eater = tokio::spawn(eat(Arc::clone(&feed), after, Arc::clone(&fed)));
        scene.read_by_now(&["a"]).await;
        scene.grow_into(10, &["a"]);
        eventually("every event to be fed", BOUND, || async {
            (*fed.lock().unwrap() == scene.log.ids()).then_some(())
        })
        .await;
        eater.abort();
        let _ended = eater.await;
        // The last call may be under way when the processor comes to rest.
        eventually("the processor to rest", BOUND, || async {
            let before = calls();
            tokio::time::sleep(Duration::from_millis(200)).await;
            (calls() == before).then_some(())
        })
        .await;
    }
    stop.cancel();
    work.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_new_images_is_fed_from_the_log() {
    let scene = Scene::with(&["a"]).await;
    scene.script().view = "KEYS_ONLY";
    let running = scene.processor(PATIENT);
    scene.grow_into(30, &["a"]);
    running.fed_all(&scene.log).await;
    assert_eq!(scene.gap_events("hole"), 30);
    assert!(scene.script().calls("GetRecords", "a").is_empty());
    // The stream is put right while the processor runs.
    scene.script().view = "NEW_IMAGE";
    scene.read_by_now(&["a"]).await;
    scene.grow_into(10, &["a"]);
    running.fed_all(&scene.log).await;
    assert_eq!(scene.counted("events_total"), 10);
    running.stop().await;
}
