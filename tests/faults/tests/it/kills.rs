//! SIGKILL at random moments under load, and back again.

use millrace_faults::{Cluster, ClusterOptions, Role, Seed};

use crate::{options, survive};

/// How often one kind of process is killed in a test.
const KILLS: usize = 5;

/// Kills a role's processes, one after another, any of them at any moment.
async fn kill_some(cluster: &mut Cluster, role: Role, seed: &Seed) {
    for _ in 0..KILLS {
        tokio::time::sleep(seed.millis(50, 700)).await;
        let processes = cluster.role(role);
        let victim = seed.index(processes.len());
        processes[victim].kill().await;
        tokio::time::sleep(seed.millis(0, 600)).await;
        cluster.role(role)[victim].restart();
    }
}

#[tokio::test]
async fn command_processes_are_killed() {
    survive("commands", options(), async |cluster, seed, _| {
        kill_some(cluster, Role::Command, seed).await;
    })
    .await;
}

#[tokio::test]
async fn projectors_are_killed() {
    survive("projectors", options(), async |cluster, seed, _| {
        kill_some(cluster, Role::Projector, seed).await;
    })
    .await;
}

#[tokio::test]
async fn query_processes_are_killed() {
    let options = ClusterOptions {
        queries: 2,
        ..options()
    };
    survive("queries", options, async |cluster, seed, _| {
        kill_some(cluster, Role::Query, seed).await;
    })
    .await;
}

#[tokio::test]
async fn nats_server_is_killed() {
    let options = ClusterOptions {
        own_nats: true,
        ..options()
    };
    survive("nats", options, async |cluster, seed, _| {
        let nats = cluster.servers.nats.as_mut().unwrap();
        for _ in 0..KILLS {
            tokio::time::sleep(seed.millis(50, 1_000)).await;
            nats.kill().await;
            tokio::time::sleep(seed.millis(0, 1_000)).await;
            nats.restart().await;
        }
    })
    .await;
}

#[tokio::test]
async fn postgresql_is_killed() {
    let options = ClusterOptions {
        own_postgres: true,
        ..options()
    };
    survive("postgresql", options, async |cluster, seed, _| {
        let postgres = cluster.servers.postgres.as_mut().unwrap();
        for _ in 0..KILLS {
            tokio::time::sleep(seed.millis(50, 1_000)).await;
            postgres.kill().await;
            tokio::time::sleep(seed.millis(0, 1_000)).await;
            postgres.restart().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_dynamodb_endpoint_is_killed() {
    let options = ClusterOptions {
        own_dynamodb: true,
        ..options()
    };
    survive("dynamodb", options, async |cluster, seed, _| {
        let dynamodb = cluster.servers.dynamodb.as_mut().unwrap();
        for _ in 0..KILLS {
            tokio::time::sleep(seed.millis(50, 1_000)).await;
            dynamodb.kill().await;
            tokio::time::sleep(seed.millis(0, 1_000)).await;
            dynamodb.restart().await;
        }
    })
    .await;
}

/// Which servers are down.
#[derive(Default)]
pub struct Down {
    postgres: bool,
    nats: bool,
    dynamodb: bool,
}

impl Down {
    pub async fn kill_something(&mut self, cluster: &mut Cluster, seed: &Seed) {
        let servers = &mut cluster.servers;
        let role = match seed.below(6) {
            0 => {
                servers.postgres.as_mut().unwrap().kill().await;
                self.postgres = true;
                return;
            }
            1 => {
                servers.nats.as_mut().unwrap().kill().await;
                self.nats = true;
                return;
            }
            2 => {
                servers.dynamodb.as_mut().unwrap().kill().await;
                self.dynamodb = true;
                return;
            }
            3 => Role::Command,
            4 => Role::Projector,
            _ => Role::Query,
        };
        let processes = cluster.role(role);
        let victim = seed.index(processes.len());
        processes[victim].kill().await;
    }

    pub async fn restart_all(&mut self, cluster: &mut Cluster) {
        let servers = &mut cluster.servers;
        if std::mem::take(&mut self.postgres) {
            servers.postgres.as_mut().unwrap().restart().await;
        }
        if std::mem::take(&mut self.nats) {
            servers.nats.as_mut().unwrap().restart().await;
        }
        if std::mem::take(&mut self.dynamodb) {
            servers.dynamodb.as_mut().unwrap().restart().await;
        }
        for process in cluster.processes() {
            if process.ended() {
                process.restart();
            }
        }
    }
}

#[tokio::test]
async fn anything_is_killed() {
    let options = ClusterOptions {
        own_postgres: true,
        own_nats: true,
        own_dynamodb: true,
        separate_read_database: true,
        queries: 2,
        ..options()
    };
    survive("anything", options, async |cluster, seed, _| {
        let mut down = Down::default();
        for _ in 0..3 * KILLS {
            tokio::time::sleep(seed.millis(50, 700)).await;
            down.kill_something(cluster, seed).await;
            // Two or three may be down at once before anything comes back.
            if seed.chance(0.6) {
                tokio::time::sleep(seed.millis(0, 500)).await;
                down.restart_all(cluster).await;
            }
        }
        down.restart_all(cluster).await;
    })
    .await;
}
