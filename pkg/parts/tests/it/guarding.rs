//! A child ends when we do. "We" is a copy of this test binary, which these tests kill.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millrace_parts::{
    Guarded, Nats, NatsOptions, Postgres, PostgresOptions, StopSignal, port_is_free,
};

const ROLE: &str = "MILLRACE_PARTS_TEST_PARENT";
const BOUND: Duration = Duration::from_secs(20);

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !until() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Not a zombie either: nobody may be left to reap it, but it holds nothing.
fn gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|s| s.trim().starts_with('Z'))
    })
}

/// Passes at once, unless this process is to be the parent: then it starts servers, says where
/// they are, and waits to be killed.
#[test]
fn is_the_parent_when_asked() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let postgres = PostgresOptions::temporary().unwrap();
        let nats = NatsOptions::temporary().unwrap();
        let folders = [&postgres.data, &nats.data].map(|data| data.parent().unwrap().to_owned());
        let mut postgres = Postgres::start(postgres).await.unwrap();
        let mut nats = Nats::start(nats).await.unwrap();
        let port = |url: String| url.rsplit(':').next().unwrap().replace("/x", "");
        println!(
            "\nstarted {} {} {} {} {} {}",
            postgres.process().id(),
            nats.process().id(),
            port(postgres.url("x")),
            port(nats.url()),
            folders[0].display(),
            folders[1].display()
        );
        std::future::pending::<()>().await;
    });
}

#[test]
fn servers_and_their_folders_go_when_the_parent_is_killed() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["is_the_parent_when_asked", "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let started = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("started ").map(str::to_owned))
        .expect("the parent says where its servers are");
    let words: Vec<&str> = started.split(' ').collect();
    let pids: Vec<u32> = words[..2]
        .iter()
        .map(|word| word.parse().unwrap())
        .collect();
    let ports: Vec<u16> = words[2..4]
        .iter()
        .map(|word| word.parse().unwrap())
        .collect();
    assert!(pids.iter().all(|pid| !gone(*pid)));
    assert!(ports.iter().all(|port| !port_is_free(*port)));
    // SIGKILL: the parent has no chance to do anything.
    parent.kill().unwrap();
    parent.wait().unwrap();
    for (pid, port) in pids.iter().zip(ports) {
        wait("the server's end", || gone(*pid));
        wait("the server's port", || port_is_free(port));
    }
    for folder in &words[4..] {
        wait("the folder's end", || {
            !std::path::Path::new(folder).exists()
        });
    }
}

#[test]
fn a_stopped_child_goes_when_dropped_and_a_lost_guard_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut child = Guarded::spawn(command, &log, StopSignal::Terminate, None).unwrap();
    let pid = child.id();
    let guard = child.guard_id();
    assert!(
        Command::new("kill")
            .args(["-KILL", &guard.to_string()])
            .status()
            .unwrap()
            .success()
    );
    wait("another guard", || {
        assert!(child.try_wait().unwrap().is_none());
        child.guard_id() != guard
    });
    child.pause().unwrap();
    drop(child);
    assert!(gone(pid));
}

#[tokio::test]
async fn a_child_that_does_not_listen_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    ]);
    let mut child = Guarded::spawn(command, &log, StopSignal::Terminate, None).unwrap();
    wait("the child to be deaf", || {
        std::fs::read_to_string(&log).unwrap().contains("ready")
    });
    let status = child
        .stop_within(Duration::from_millis(300))
        .await
        .unwrap()
        .unwrap();
    assert!(!status.success());
}
