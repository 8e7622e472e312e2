//! Users who are renamed while everything is killed that stands between them and their orders.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millrace_faults::{Cluster, ClusterOptions, Load, LoadOptions, Seed, check, naming};
use millrace_testkit::eventually;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{RECOVERY_BOUND, SOME_COMMANDS, kills::Down, options};

/// How often something is killed.
const KILLS: usize = 12;
/// Who registers users, side by side.
const REGISTRARS: u64 = 3;
/// How many users there are of whom orders come, and others besides.
const USERS: u64 = 9;
/// Changes that have to be made for the test to say something.
const MIN_CHANGES: u64 = 30;

fn registrars(
    cluster: &Cluster,
    seed: &Seed,
    stop: &CancellationToken,
    changes: &Arc<AtomicU64>,
) -> JoinSet<naming::Names> {
    let registrars = (0..REGISTRARS).map(|number| {
        // As the load names its users: each of them is one registrar's.
        let own = (0..USERS).filter(|user| user % REGISTRARS == number);
        let own = own.map(|user| format!("user-{user}")).collect();
        let registrar = naming::Registrar::new(cluster, seed, number, own, Arc::clone(changes));
        registrar.work(stop.clone())
    });
    registrars.collect()
}

#[tokio::test]
async fn orders_show_what_users_are_called() {
    let seed = Seed::new("naming");
    let options = ClusterOptions {
        own_postgres: true,
        own_nats: true,
        own_dynamodb: true,
        separate_read_database: true,
        ..options()
    };
    let mut cluster = Cluster::start(options).await;
    // Some orders are there before anybody knows their users.
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let stop = CancellationToken::new();
    let changes = Arc::new(AtomicU64::new(0));
    let registrars = registrars(&cluster, &seed, &stop, &changes);
    let mut down = Down::default();
    for _ in 0..KILLS {
        tokio::time::sleep(seed.millis(100, 900)).await;
        down.kill_something(&mut cluster, &seed).await;
        if seed.chance(0.6) {
            tokio::time::sleep(seed.millis(0, 500)).await;
            down.restart_all(&mut cluster).await;
        }
    }
    down.restart_all(&mut cluster).await;
    cluster.wait_ready().await;
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    // On a busy machine little was changed while things were killed.
    let made = || changes.load(Ordering::Relaxed);
    eventually("enough changes", RECOVERY_BOUND, || async {
        (made() >= MIN_CHANGES).then_some(())
    })
    .await;
    stop.cancel();
    let names: naming::Names = registrars.join_all().await.into_iter().flatten().collect();
    let history = load.stop().await;
    println!("{} users, {} changes", names.len(), made());
    check::everything(&cluster, &history).await;
    naming::hold(&cluster, &names).await;
}
