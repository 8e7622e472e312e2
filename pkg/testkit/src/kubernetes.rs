use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use millrace_parts::{Kubernetes as Servers, KubernetesBinaries, KubernetesOptions};
use tokio::sync::OnceCell;

use crate::{OrFail as _, eventually, namespace};

/// How long an API server may take until it answers, on a loaded machine.
const READY_BOUND: Duration = Duration::from_secs(60);

/// The API server that this test binary shares, and a namespace of the test's own in it.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// How a process of the test reaches the server.
    pub kubeconfig: PathBuf,
    /// `kubectl`, where there is one.
    pub kubectl: Option<PathBuf>,
    /// The namespace.
    pub namespace: String,
}

/// Kept until the process ends; its guards stop it then.
static SHARED: OnceCell<Servers> = OnceCell::const_new();

/// A namespace of the test's own on the shared API server.
pub async fn kubernetes() -> Kubernetes {
    let servers = SHARED.get_or_init(start).await;
    of(servers).await
}

async fn start() -> Servers {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let binaries = KubernetesBinaries::find(&checkout)
        .await
        .or_fail("finding kube-apiserver and etcd");
    let options = KubernetesOptions::temporary().or_fail("a folder for kube-apiserver");
    let servers = Servers::start(binaries, options)
        .await
        .or_fail("starting kube-apiserver for tests");
    ready(&servers.kubeconfig()).await;
    servers
}

async fn ready(kubeconfig: &Path) {
    let client = client(kubeconfig).await;
    eventually("the API server to be ready", READY_BOUND, || async {
        let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
        client.request_text(request).await.ok().map(drop)
    })
    .await;
}

async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).or_fail("reading the kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .or_fail("the kubeconfig")
}

async fn client(kubeconfig: &Path) -> Client {
    let config = config(kubeconfig).await;
    Client::try_from(config).or_fail("a client of the API server")
}

async fn of(servers: &Servers) -> Kubernetes {
    let kubernetes = Kubernetes {
        kubeconfig: servers.kubeconfig(),
        kubectl: servers.binaries().kubectl(),
        namespace: namespace(),
    };
    let wanted = Namespace {
        metadata: ObjectMeta {
            name: Some(kubernetes.namespace.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(kubernetes.client().await)
        .create(&PostParams::default(), &wanted)
        .await
        .or_fail("making the test's namespace");
    kubernetes
}

impl Kubernetes {
    /// A new client, which belongs to the runtime that asks for it.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig).await
    }

    /// How a role under test reaches the server.
    pub async fn config(&self) -> Config {
        config(&self.kubeconfig).await
    }

    /// Runs `kubectl` in the test's namespace and gives what it printed; panics when it fails.
    /// `None` where there is no `kubectl`.
    pub async fn kubectl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.try_kubectl(arguments).await?;
        Some(output.unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}")))
    }

    /// As [`Kubernetes::kubectl`], with what it said when it failed.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Option<Result<String, String>> {
        let mut command = Command::new(self.kubectl.as_ref()?);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .or_fail("waiting for kubectl")
            .or_fail("running kubectl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        })
    }
}

/// An API server of one test, to be hurt. Port and data stay over kills and restarts.
#[derive(Debug)]
pub struct KubernetesServer {
    servers: Servers,
}

/// Starts an API server of the test's own.
pub async fn own_kubernetes() -> KubernetesServer {
    KubernetesServer {
        servers: start().await,
    }
}

impl KubernetesServer {
    /// A new namespace on it.
    pub async fn namespace(&self) -> Kubernetes {
        of(&self.servers).await
    }

    /// SIGKILL to the API server; etcd goes on.
    pub async fn kill(&mut self) {
        self.servers
            .apiserver()
            .kill()
            .await
            .or_fail("killing kube-apiserver");
    }

    /// Starts the API server again on the same port and data, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.servers
            .restart_apiserver()
            .await
            .or_fail("starting kube-apiserver again");
        ready(&self.servers.kubeconfig()).await;
    }
}
