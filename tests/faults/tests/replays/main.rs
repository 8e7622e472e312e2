//! Replays while everything that they need is killed, 200 times in one run. Not part of the
//! default suite: `cargo test -p millrace-faults --test replays`, some minutes. `REPLAY_KILLS` sets
//! another number, `FAULT_SEED` repeats a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod asking;
mod leftovers;
mod reading;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::{Api, api::PostParams};
use millrace_faults::{
    Cluster, ClusterOptions, Load, LoadOptions, Role, RoleProcess, Seed, check, jobs::JobRunner,
};
use millrace_replay::replay_crd;
use millrace_testkit::{Kubernetes, KubernetesServer, eventually, own_kubernetes};
use tokio::{sync::Mutex, task::JoinSet};

use asking::{Asking, Counts};

millrace_testkit::dynamodb_process!();

/// How often something is killed, unless `REPLAY_KILLS` says otherwise.
const KILLS: u32 = 200;
/// How many orders there are before the first replay.
const ORDERS: u64 = 1_500;
/// How long the first orders may take.
const FILL_BOUND: Duration = Duration::from_secs(180);
/// How long commands may stay away after the damage is over.
const RECOVERY_BOUND: Duration = Duration::from_secs(60);
/// How often Jobs are looked at, in milliseconds.
const JOBS_MS: u64 = 150;
/// The projections that are replayed, each by somebody of its own.
const PROJECTIONS: [&str; 3] = ["order-read-models", "order-statistics", "orders-by-user"];

/// All that can be killed.
struct World {
    cluster: Cluster,
    controller: RoleProcess,
    api: KubernetesServer,
    jobs: Arc<Mutex<JobRunner>>,
    down: BTreeMap<&'static str, u32>,
    /// How often PostgreSQL was killed; counted before it is.
    crashes: Arc<AtomicU64>,
}

/// What is down and has to come back.
#[derive(Default)]
struct Down {
    postgres: bool,
    nats: bool,
    api: bool,
}

impl World {
    async fn kill_something(&mut self, down: &mut Down, seed: &Seed) {
        let servers = &mut self.cluster.servers;
        // A worker is there only while something is loaded; then it is what is hurt most.
        if seed.chance(0.3) && self.jobs.lock().await.kill_one(seed).await {
            *self.down.entry("worker").or_default() += 1;
            return;
        }
        let victim = match seed.below(5) {
            0 if !down.postgres => {
                self.crashes.fetch_add(1, Ordering::SeqCst);
                servers.postgres.as_mut().unwrap().kill().await;
                down.postgres = true;
                "PostgreSQL"
            }
            1 if !down.nats => {
                servers.nats.as_mut().unwrap().kill().await;
                down.nats = true;
                "nats-server"
            }
            2 if !down.api => {
                self.api.kill().await;
                down.api = true;
                "API server"
            }
            3 => {
                self.controller.kill().await;
                "controller"
            }
            _ => {
                let victim = seed.index(self.cluster.projectors.len());
                self.cluster.projectors[victim].kill().await;
                "projector"
            }
        };
        *self.down.entry(victim).or_default() += 1;
    }

    async fn restart_all(&mut self, down: &mut Down) {
        let servers = &mut self.cluster.servers;
        if std::mem::take(&mut down.postgres) {
            servers.postgres.as_mut().unwrap().restart().await;
        }
        if std::mem::take(&mut down.nats) {
            servers.nats.as_mut().unwrap().restart().await;
        }
        if std::mem::take(&mut down.api) {
            self.api.restart().await;
        }
        for process in self.cluster.processes().chain([&mut self.controller]) {
            if process.ended() {
                process.restart();
            }
        }
    }

    async fn damage(&mut self, seed: &Seed) {
        let mut down = Down::default();
        while self.killed() < kills() {
            tokio::time::sleep(seed.millis(100, 1_500)).await;
            self.kill_something(&mut down, seed).await;
            // Two or three may be down at once before anything comes back.
            if seed.chance(0.7) {
                tokio::time::sleep(seed.millis(0, 800)).await;
                self.restart_all(&mut down).await;
            }
        }
        self.restart_all(&mut down).await;
    }

    fn killed(&self) -> u32 {
        self.down.values().sum()
    }
}

fn kills() -> u32 {
    let set = std::env::var("REPLAY_KILLS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

fn controller(cluster: &Cluster, kubernetes: &Kubernetes) -> RoleProcess {
    let mut settings = cluster.settings.clone();
    let kubeconfig = kubernetes.kubeconfig.display().to_string();
    for (name, value) in [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("MILLRACE_CONTROLLER_NAMESPACE", &kubernetes.namespace),
        ("MILLRACE_POD_NAME", "controller-0"),
        ("MILLRACE_REBUILD_BY", "job"),
        ("MILLRACE_JOB_IMAGE", "example.test/projector:1"),
    ] {
        settings.insert(name.to_owned(), value.to_owned());
    }
    RoleProcess::start(&cluster.program, Role::Controller, 0, &settings)
}

async fn world() -> (World, Kubernetes) {
    let options = ClusterOptions {
        own_postgres: true,
        own_nats: true,
        commands: 1,
        settings: vec![("MILLRACE_REBUILD_BY", "job".to_owned())],
        ..ClusterOptions::new(env!("CARGO_BIN_EXE_fault-role"))
    };
    let (cluster, api) = tokio::join!(Cluster::start(options), own_kubernetes());
    let kubernetes = api.namespace().await;
    let client = kubernetes.client().await;
    Api::all(client.clone())
        .create(&PostParams::default(), &replay_crd().unwrap())
        .await
        .unwrap();
    let mut controller = controller(&cluster, &kubernetes);
    controller.wait_ready().await;
    let jobs = JobRunner::new(
        Api::namespaced(client.clone(), &kubernetes.namespace),
        Api::namespaced(client, &kubernetes.namespace),
        cluster.program.clone(),
        cluster.settings.clone(),
    );
    let world = World {
        cluster,
        controller,
        api,
        jobs: Arc::new(Mutex::new(jobs)),
        down: BTreeMap::new(),
        crashes: Arc::default(),
    };
    (world, kubernetes)
}

async fn run_jobs(jobs: Arc<Mutex<JobRunner>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        jobs.lock().await.look().await;
        tokio::time::sleep(Duration::from_millis(JOBS_MS)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_survive_whatever_is_killed() {
    let seed = Seed::new("replays");
    let (mut world, kubernetes) = world().await;
    let gentle = LoadOptions {
        pause_ms: 20,
        ..LoadOptions::default()
    };
    let load = Load::start(&world.cluster, &seed, &gentle);
    load.wait_for(ORDERS, FILL_BOUND).await;

    // The Jobs go on until every replay has ended, the others only until the damage is done.
    let (stop, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut beside = JoinSet::new();
    let (runner, until) = (Arc::clone(&world.jobs), Arc::clone(&ended));
    beside.spawn(async move {
        run_jobs(runner, until).await;
        None
    });
    let (crashes, until) = (Arc::clone(&world.crashes), Arc::clone(&ended));
    let reading = reading::read_on(world.cluster.query_url(0), crashes, until);
    beside.spawn(async move { Some(reading.await) });
    let mut asking = Vec::new();
    for (part, projection) in (100..).zip(PROJECTIONS) {
        let asks = Asking::new(&kubernetes, projection, seed.part(part)).await;
        asking.push(asks.go_on(Arc::clone(&stop)));
    }
    let damage = async {
        world.damage(&seed).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (all, ()) = tokio::join!(futures::future::join_all(asking), damage);
    let counts = all.into_iter().fold(Counts::default(), Counts::and);
    println!("killed {:?}; {counts:?}", world.down);
    assert!(counts.succeeded > 0, "{counts:?}");

    world.cluster.wait_ready().await;
    world.controller.wait_ready().await;
    load.wait_for(30, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&world.cluster, &history).await;
    asking::delete_all(&kubernetes).await;
    eventually(
        "nothing to be left",
        RECOVERY_BOUND,
        async || match leftovers::look(&world.cluster, &kubernetes).await {
            Ok(()) => Some(()),
            Err(left) => {
                println!("left: {left}");
                None
            }
        },
    )
    .await;
    ended.store(true, Ordering::SeqCst);
    let ended = beside.join_all().await;
    let reads: u64 = ended.into_iter().flatten().sum();
    println!("{reads} reads, none of which went back");
    assert!(reads > 100, "{reads} reads");
}
