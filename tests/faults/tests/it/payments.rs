//! Orders that pay themselves while everything between shop and bank is killed.

use std::time::Duration;

use millrace_faults::{ClusterOptions, Role, Seed, check, payments};

use crate::{RECOVERY_BOUND, options};

/// How often something is killed.
const KILLS: usize = 12;
/// Orders of each customer.
const ORDERS: usize = 40;
/// Customers side by side.
const CUSTOMERS: u64 = 3;
/// A payment that waits the longest pause, and then for the claim of a projector that was killed.
const SETTLE_BOUND: Duration = Duration::from_secs(240);

/// Kills a process of any role, the nats-server, or PostgreSQL, which keeps both logs.
async fn kill_one(cluster: &mut millrace_faults::Cluster, seed: &Seed, number: usize) {
    let pause = seed.millis(0, 800);
    match number % 6 {
        0 | 3 => kill_role(cluster, Role::Projector, seed, pause).await,
        1 | 4 => kill_role(cluster, Role::Command, seed, pause).await,
        2 => {
            let nats = cluster.servers.nats.as_mut().unwrap();
            nats.kill().await;
            tokio::time::sleep(pause).await;
            nats.restart().await;
        }
        _ => {
            let postgres = cluster.servers.postgres.as_mut().unwrap();
            postgres.kill().await;
            tokio::time::sleep(pause).await;
            postgres.restart().await;
        }
    }
}

async fn kill_role(
    cluster: &mut millrace_faults::Cluster,
    role: Role,
    seed: &Seed,
    pause: Duration,
) {
    let victim = seed.index(cluster.role(role).len());
    cluster.role(role)[victim].kill().await;
    tokio::time::sleep(pause).await;
    cluster.role(role)[victim].restart();
}

#[tokio::test]
async fn payments_conserve_money() {
    let seed = Seed::new("payments");
    let options = ClusterOptions {
        own_postgres: true,
        own_nats: true,
        settings: vec![
            ("MILLRACE_CONTEXTS", "ordering,banking,customers".to_owned()),
            ("MILLRACE_BANKING_LOG", "postgres".to_owned()),
        ],
        ..options()
    };
    let mut cluster = millrace_faults::Cluster::start(options).await;
    payments::Customer::new(&cluster, &seed, 0)
        .open_accounts()
        .await;
    let customers: Vec<_> = (1..=CUSTOMERS)
        .map(|number| payments::Customer::new(&cluster, &seed, number))
        .collect();
    let shopping = futures::future::join_all(customers.iter().map(|one| one.shop(ORDERS)));
    let killing = async {
        for number in 0..KILLS {
            tokio::time::sleep(seed.millis(300, 1_500)).await;
            kill_one(&mut cluster, &seed, number).await;
        }
    };
    tokio::join!(shopping, killing);
    cluster.wait_ready().await;
    let customer = payments::Customer::new(&cluster, &seed, CUSTOMERS + 1);
    tokio::time::timeout(RECOVERY_BOUND, customer.shop(3))
        .await
        .unwrap();
    payments::settled(&cluster, SETTLE_BOUND).await;
    let (head, ordering) = check::log::read(&cluster.log_pool, "ordering").await;
    // An order and the beginning of its payment.
    check::log::prove(&head, &ordering, 2);
    let (head, banking) = check::log::read(&cluster.log_pool, "banking").await;
    check::log::prove(&head, &banking, 2);
    payments::conserve(&ordering, &banking);
}
