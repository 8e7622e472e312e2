use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_es::{Partition, PartitionCount};
use millrace_streaming::{
    LeaseEvent, LeaseOptions, Leases, MemberId, Ownership, PartitionLeases, Standing,
};
use millrace_testkit::{Nats, eventually, nats, own_nats};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::world::{BOUND, LEASE, member, topology};

fn leases(nats: &Nats) -> Leases {
    Leases::new(topology(nats, &nats.namespace), member(), LEASE)
}

/// A process that takes part in a group and holds what it gets.
struct Worker {
    held: Arc<Mutex<BTreeMap<Partition, Ownership>>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Worker {
    fn start(nats: &Nats) -> Self {
        Self::start_with(nats, LEASE, true)
    }

    fn start_with(nats: &Nats, options: LeaseOptions, lets_go: bool) -> Self {
        let leases = Leases::new(topology(nats, &nats.namespace), member(), options);
        let (group, mut events) =
            PartitionLeases::new(&leases, "orders", PartitionCount::DEFAULT).unwrap();
        let (stop, held) = (CancellationToken::new(), Arc::default());
        let keeping: Arc<Mutex<BTreeMap<Partition, Ownership>>> = Arc::clone(&held);
        let run = tokio::spawn(group.run(stop.clone()));
        let keep = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    LeaseEvent::Gained(ownership) => {
                        let had = keeping
                            .lock()
                            .unwrap()
                            .insert(ownership.partition(), ownership);
                        assert!(had.is_none(), "gained what it still held");
                    }
                    LeaseEvent::Lost(partition) if lets_go => {
                        keeping.lock().unwrap().remove(&partition);
                    }
                    LeaseEvent::Lost(_) => {}
                }
            }
        });
        Self {
            held,
            stop,
            tasks: vec![run, keep],
        }
    }

    fn held(&self) -> Vec<Partition> {
        let held = self.held.lock().unwrap();
        let held = held.iter().filter(|(_, ownership)| ownership.is_held());
        held.map(|(partition, _)| *partition).collect()
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(BOUND, task).await.unwrap().unwrap();
        }
    }

    /// Without a word. What it held stays in its hands, which are dead.
    async fn kill(self) {
        for task in self.tasks {
            task.abort();
            let _ended = task.await;
        }
    }
}

/// Looks for twice the time to live whether nothing moves.
async fn stays(workers: &[Worker], held: &[Vec<Partition>]) {
    let until = Instant::now() + LEASE.ttl * 2;
    while Instant::now() < until {
        assert_eq!(held, workers.iter().map(Worker::held).collect::<Vec<_>>());
        tokio::time::sleep(LEASE.renew_every / 4).await;
    }
}

/// Waits until every partition has exactly one owner and the shares are these.
async fn spread(workers: &[Worker], shares: &[usize]) {
    let what = format!("shares of {shares:?}");
    eventually(&what, BOUND, || async {
        let held: Vec<_> = workers.iter().map(Worker::held).collect();
        let mut all: Vec<_> = held.iter().flatten().copied().collect();
        all.sort();
        let mut counts: Vec<_> = held.iter().map(Vec::len).collect();
        counts.sort_unstable();
        let whole: Vec<_> = PartitionCount::DEFAULT.all().collect();
        (all == whole && counts == shares).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_spread_from_one_to_four_and_back() {
    let nats = nats().await;
    let mut workers = vec![Worker::start(&nats)];
    spread(&workers, &[16]).await;
    workers.push(Worker::start(&nats));
    spread(&workers, &[8, 8]).await;
    workers.extend([Worker::start(&nats), Worker::start(&nats)]);
    spread(&workers, &[4, 4, 4, 4]).await;
    for left in [vec![5, 5, 6], vec![8, 8], vec![16]] {
        workers.remove(0).stop().await;
        let stopped = Instant::now();
        spread(&workers, &left).await;
        assert!(
            stopped.elapsed() < LEASE.ttl,
            "an orderly end is not waited out"
        );
    }
    workers.remove(0).stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_the_dead_move() {
    let nats = nats().await;
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(&nats)).collect();
    spread(&workers, &[5, 5, 6]).await;
    workers.remove(0).kill().await;
    let killed = Instant::now();
    spread(&workers, &[8, 8]).await;
    let slack = Duration::from_secs(2);
    assert!(killed.elapsed() < LEASE.ttl + LEASE.renew_every * 2 + slack);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_partition_before_its_work_is_done() {
    let nats = nats().await;
    let slow = Worker::start_with(&nats, LEASE, false);
    eventually("all partitions", BOUND, || async {
        (slow.held().len() == 16).then_some(())
    })
    .await;
    let quick = Worker::start(&nats);
    eventually("half of them asked back", BOUND, || async {
        (slow.held().len() == 8).then_some(())
    })
    .await;
    assert!(
        quick.held().is_empty(),
        "they are still in the other's hands"
    );
    let done: Vec<_> = {
        let mut held = slow.held.lock().unwrap();
        let lost: Vec<_> = held
            .extract_if(.., |_, ownership| !ownership.is_held())
            .collect();
        lost
    };
    assert_eq!(done.len(), 8);
    drop(done);
    spread(&[slow, quick], &[8, 8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_does_not_end_does_not_hold_a_partition_for_ever() {
    let nats = nats().await;
    let options = LeaseOptions {
        handover: Duration::from_millis(500),
        ..LEASE
    };
    let stuck = Worker::start_with(&nats, options, false);
    eventually("all partitions", BOUND, || async {
        (stuck.held().len() == 16).then_some(())
    })
    .await;
    let other = Worker::start(&nats);
    eventually("the other's half", BOUND, || async {
        (other.held().len() == 8).then_some(())
    })
    .await;
    other.stop().await;
    stuck.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_stay_where_they_are_when_nats_is_lost_and_emptied() {
    let mut server = own_nats().await;
    let nats = server.connect().await;
    let workers: Vec<_> = (0..2).map(|_| Worker::start(&nats)).collect();
    spread(&workers, &[8, 8]).await;
    let before: Vec<_> = workers.iter().map(Worker::held).collect();
    server.kill().await;
    tokio::time::sleep(LEASE.ttl * 2).await;
    assert_eq!(before, workers.iter().map(Worker::held).collect::<Vec<_>>());
    server.restart().await;
    stays(&workers, &before).await;
    server.kill().await;
    server.wipe().await;
    stays(&workers, &before).await;
    // Both have found the new bucket, so somebody new gets a part of each one's share.
    let mut workers = workers;
    workers.push(Worker::start(&nats));
    spread(&workers, &[5, 5, 6]).await;
    for (kept, had) in workers.iter().map(Worker::held).zip(&before) {
        assert!(kept.iter().all(|partition| had.contains(partition)));
    }
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_one_holder_and_expires() {
    let nats = nats().await;
    let mut first = leases(&nats).claim("x").unwrap();
    let mut second = leases(&nats).claim("x").unwrap();
    assert!(first.attempt().await.unwrap().is_held());
    let renewed = Instant::now();
    assert_eq!(second.attempt().await.unwrap(), Standing::NotHeld);
    while !second.attempt().await.unwrap().is_held() {
        assert!(renewed.elapsed() < BOUND, "the lease should have expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(renewed.elapsed() >= LEASE.ttl, "not before its time");
    assert_eq!(first.attempt().await.unwrap(), Standing::NotHeld);
    second.release().await.unwrap();
    assert!(
        first.attempt().await.unwrap().is_held(),
        "given back is free at once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_renewed_stays() {
    let nats = nats().await;
    let mut first = leases(&nats).claim("x").unwrap();
    let mut second = leases(&nats).claim("x").unwrap();
    let until = Instant::now() + LEASE.ttl * 2;
    while Instant::now() < until {
        assert!(first.attempt().await.unwrap().is_held());
        assert!(!second.attempt().await.unwrap().is_held());
        tokio::time::sleep(LEASE.renew_every).await;
    }
}

#[test]
fn member_ids_are_checked() {
    assert!(MemberId::new("pod-1_a").is_ok());
    assert!(MemberId::new("pod.1").is_err());
}
