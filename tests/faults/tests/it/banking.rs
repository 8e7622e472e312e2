//! Money under damage, on both backends of the log: it is conserved, never less than nothing, and
//! every view becomes what the log says.

use millrace_faults::{
    Cluster, ClusterOptions, Role, Seed,
    bank::{self, Backend, BankLoad},
};

use crate::{RECOVERY_BOUND, options};

/// Movements before and after the damage.
const MOVEMENTS: u64 = 150;
/// How often something is killed in a test.
const KILLS: usize = 8;

fn banking(backend: Backend) -> ClusterOptions {
    let mut options = options();
    options.settings.extend([
        ("MILLRACE_CONTEXTS", "banking".to_owned()),
        ("MILLRACE_BANKING_LOG", backend.as_str().to_owned()),
    ]);
    options
}

/// Runs a system under a load of movements, kills what `victim` names, and proves that no money was
/// lost or made.
async fn survive(
    test: &str,
    backend: Backend,
    options: ClusterOptions,
    damage: impl AsyncFnOnce(&mut Cluster, &Seed),
) {
    let seed = Seed::new(test);
    let mut cluster = Cluster::start(options).await;
    let load = BankLoad::start(&cluster, &seed);
    load.wait_for(MOVEMENTS, RECOVERY_BOUND).await;
    damage(&mut cluster, &seed).await;
    cluster.wait_ready().await;
    load.wait_for(MOVEMENTS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    bank::everything(&cluster, backend, &history).await;
}

/// Kills processes of all roles, any of them at any moment.
async fn kill_roles(cluster: &mut Cluster, seed: &Seed) {
    for number in 0..KILLS {
        tokio::time::sleep(seed.millis(50, 700)).await;
        let role = match number % 4 {
            0 | 2 => Role::Command,
            1 => Role::Projector,
            _ => Role::Query,
        };
        let victim = seed.index(cluster.role(role).len());
        cluster.role(role)[victim].kill().await;
        tokio::time::sleep(seed.millis(0, 600)).await;
        cluster.role(role)[victim].restart();
    }
}

#[tokio::test]
async fn roles_are_killed_over_a_log_in_postgresql() {
    let backend = Backend::Postgres;
    let test = "bank on PostgreSQL";
    survive(test, backend, banking(backend), kill_roles).await;
}

#[tokio::test]
async fn roles_are_killed_over_a_log_in_dynamodb() {
    let backend = Backend::DynamoDb;
    let test = "bank on DynamoDB";
    survive(test, backend, banking(backend), kill_roles).await;
}

#[tokio::test]
async fn the_endpoint_of_a_log_in_dynamodb_is_killed() {
    let backend = Backend::DynamoDb;
    let options = ClusterOptions {
        own_dynamodb: true,
        own_nats: true,
        ..banking(backend)
    };
    survive(
        "bank's endpoint",
        backend,
        options,
        async |cluster, seed| {
            for number in 0..KILLS {
                tokio::time::sleep(seed.millis(50, 900)).await;
                if number % 3 == 2 {
                    let nats = cluster.servers.nats.as_mut().unwrap();
                    nats.kill().await;
                    tokio::time::sleep(seed.millis(0, 500)).await;
                    nats.restart().await;
                    continue;
                }
                let dynamodb = cluster.servers.dynamodb.as_mut().unwrap();
                dynamodb.kill().await;
                tokio::time::sleep(seed.millis(0, 800)).await;
                dynamodb.restart().await;
            }
        },
    )
    .await;
}
