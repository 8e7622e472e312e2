//! SIGTERM under load, as in a rolling release behind a load balancer.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use millrace_faults::{Cluster, ClusterOptions, Load, LoadOptions, Role, Seed, check};
use tokio::task::JoinSet;

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options};

/// How often the balancer asks who is ready.
const BALANCER_PERIOD: Duration = Duration::from_millis(50);

#[tokio::test]
async fn every_process_is_replaced_under_load() {
    let seed = Seed::new("replaced");
    let options = ClusterOptions {
        queries: 2,
        // Longer than the balancer takes to notice.
        settings: vec![("MILLRACE_LAME_DUCK_MS", "300".to_owned())],
        ..options()
    };
    let mut cluster = Cluster::start(options).await;
    let targets = Arc::new(RwLock::new(cluster.command_urls()));
    let mut balancer = JoinSet::new();
    let processes: Vec<_> = cluster
        .commands
        .iter()
        .map(|p| (p.url(), p.admin_port()))
        .collect();
    balancer.spawn(balance(processes, Arc::clone(&targets)));
    let options = LoadOptions {
        targets: Some(targets),
        no_errors: true,
        ..LoadOptions::default()
    };
    let load = Load::start(&cluster, &seed, &options);
    for _ in 0..2 {
        for number in 0..2 {
            load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
            tokio::time::sleep(seed.millis(0, 300)).await;
            for role in [Role::Command, Role::Projector, Role::Query] {
                let process = &mut cluster.role(role)[number];
                assert!(
                    process.terminate().await,
                    "{} did not end well",
                    process.name()
                );
                process.restart();
                process.wait_ready().await;
            }
        }
    }
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&cluster, &history).await;
}

/// Keeps the list of processes that say they are ready.
async fn balance(processes: Vec<(String, u16)>, targets: Arc<RwLock<Vec<String>>>) {
    loop {
        let mut ready = Vec::new();
        for (url, admin_port) in &processes {
            let answer =
                millrace_testkit::http_get(*admin_port, "/readyz", Duration::from_secs(1)).await;
            if answer.is_ok_and(|(status, _)| status == 200) {
                ready.push(url.clone());
            }
        }
        *targets.write().unwrap() = ready;
        tokio::time::sleep(BALANCER_PERIOD).await;
    }
}
