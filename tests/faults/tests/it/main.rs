//! Faults, each on a whole system of real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod banking;
mod dynamodb;
mod kills;
mod naming;
mod pauses;
mod payments;
mod poison;
mod reactions;
mod requests;
mod restores;
mod shutdown;
mod streams;

use std::time::Duration;

use millrace_faults::{Cluster, ClusterOptions, Load, LoadOptions, Seed, check};

millrace_testkit::dynamodb_process!();

/// How long commands may stay away after the damage is over. Generous: the machine may be busy with
/// other things, and a run that is well does not come near it.
const RECOVERY_BOUND: Duration = Duration::from_secs(180);
/// Commands before and after the damage.
const SOME_COMMANDS: u64 = 30;
/// Commands that show that others go on.
const FEW_COMMANDS: u64 = 12;

fn options() -> ClusterOptions {
    ClusterOptions::new(env!("CARGO_BIN_EXE_fault-role"))
}

/// Runs a system under load, does damage to it, and proves that nothing came of it.
async fn survive(
    test: &str,
    options: ClusterOptions,
    damage: impl AsyncFnOnce(&mut Cluster, &Seed, &Load),
) {
    let seed = Seed::new(test);
    let mut cluster = Cluster::start(options).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    damage(&mut cluster, &seed, &load).await;
    cluster.wait_ready().await;
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&cluster, &history).await;
}
