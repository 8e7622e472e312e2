//! An API server and its etcd as children, with one administrator who has a token.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt as _;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::KubernetesBinaries;
use crate::PartsError;
use crate::cache::RemovedOnDrop;
use crate::child::{Guarded, StopSignal, log_tail};
use crate::net::{free_port, http_get, port_is_free};

const READY_BOUND: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_PORT_ATTEMPTS: usize = 5;
/// What comes before the point of a P-256 key where Go reads public keys.
const PUBLIC_KEY_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Where an API server and its etcd keep what they have.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// The folder of data, keys and logs.
    pub folder: PathBuf,
    /// Whether the folder goes with the servers.
    pub temporary: bool,
}

impl KubernetesOptions {
    /// Servers whose data lies in a new temporary folder and goes with them.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn temporary() -> Result<Self, PartsError> {
        Ok(Self {
            folder: crate::temporary_folder()?,
            temporary: true,
        })
    }
}

/// A running API server with its etcd.
#[derive(Debug)]
pub struct Kubernetes {
    binaries: KubernetesBinaries,
    options: KubernetesOptions,
    etcd_port: u16,
    port: u16,
    apiserver: Guarded,
    etcd: Guarded,
    /// Dropped after the children.
    _folder: RemovedOnDrop,
}

impl Kubernetes {
    /// Starts both on 127.0.0.1 and waits until the API server listens. It answers a moment
    /// later: ask its `/readyz`.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn start(
        binaries: KubernetesBinaries,
        options: KubernetesOptions,
    ) -> Result<Self, PartsError> {
        let folder = RemovedOnDrop(options.temporary.then(|| options.folder.clone()));
        write_keys(&options.folder)?;
        let (etcd_port, etcd) =
            with_free_port(|port| launch_etcd(&binaries, &options, port)).await?;
        let (port, apiserver) =
            with_free_port(|port| launch_apiserver(&binaries, &options, port, etcd_port)).await?;
        let servers = Self {
            binaries,
            options,
            etcd_port,
            port,
            apiserver,
            etcd,
            _folder: folder,
        };
        servers.write_kubeconfig()?;
        Ok(servers)
    }

    /// A kubeconfig of the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.options.folder.join("kubeconfig")
    }

    /// Where the programs came from.
    #[must_use]
    pub fn binaries(&self) -> &KubernetesBinaries {
        &self.binaries
    }

    /// The API server's process.
    pub fn apiserver(&mut self) -> &mut Guarded {
        &mut self.apiserver
    }

    /// The process of etcd.
    pub fn etcd(&mut self) -> &mut Guarded {
        &mut self.etcd
    }

    /// Starts the API server again on the same port and data, after it was killed.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub async fn restart_apiserver(&mut self) -> Result<(), PartsError> {
        self.apiserver.kill().await?;
        self.apiserver =
            launch_apiserver(&self.binaries, &self.options, self.port, self.etcd_port).await?;
        Ok(())
    }

    fn write_kubeconfig(&self) -> Result<(), PartsError> {
        let folder = &self.options.folder;
        let certificate = folder.join("certificates/apiserver.crt");
        let certificate =
            std::fs::read(&certificate).map_err(PartsError::io("read", &certificate))?;
        let token_file = folder.join("token");
        let token =
            std::fs::read_to_string(&token_file).map_err(PartsError::io("read", &token_file))?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{}\", certificate-authority-data: {}}}}}]\n\
             users: [{{name: admin, user: {{token: {token}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n",
            self.port,
            STANDARD.encode(certificate),
        );
        write_private(&self.kubeconfig(), text.as_bytes())
    }
}

/// Launches a server on a free port, and on another when somebody took it first.
async fn with_free_port<F, Fut>(launch: F) -> Result<(u16, Guarded), PartsError>
where
    F: Fn(u16) -> Fut,
    Fut: Future<Output = Result<Guarded, PartsError>>,
{
    let mut attempt = 0;
    loop {
        attempt += 1;
        let port = free_port();
        match launch(port).await {
            Ok(child) => return Ok((port, child)),
            Err(PartsError::PortInUse { .. }) if attempt < MAX_PORT_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

async fn launch_etcd(
    binaries: &KubernetesBinaries,
    options: &KubernetesOptions,
    port: u16,
) -> Result<Guarded, PartsError> {
    const PART: &str = "etcd";
    if !port_is_free(port) {
        return Err(PartsError::PortInUse { part: PART, port });
    }
    let url = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(binaries.folder.join(PART));
    command
        .arg("--data-dir")
        .arg(options.folder.join("etcd"))
        .args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ])
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        // A test's data need not survive the machine.
        .args(["--unsafe-no-fsync", "--log-level", "warn"]);
    let log = options.folder.join("etcd.log");
    // Whatever ends last removes the folder; etcd writes to it longest.
    let remove = options.temporary.then_some(options.folder.as_path());
    let mut child = Guarded::spawn(command, &log, StopSignal::Terminate, remove)?;
    let deadline = Instant::now() + READY_BOUND;
    loop {
        let answer = http_get(port, "/health", Duration::from_secs(1)).await;
        if matches!(answer, Ok((200, _))) && child.try_wait()?.is_none() {
            return Ok(child);
        }
        still_starting(PART, port, &mut child, &log, deadline)?;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn launch_apiserver(
    binaries: &KubernetesBinaries,
    options: &KubernetesOptions,
    port: u16,
    etcd_port: u16,
) -> Result<Guarded, PartsError> {
    const PART: &str = "kube-apiserver";
    if !port_is_free(port) {
        return Err(PartsError::PortInUse { part: PART, port });
    }
    let folder = &options.folder;
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let mut command = Command::new(binaries.folder.join(PART));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!("--secure-port={port}"))
        .arg(file("cert-dir", "certificates"))
        .arg(file("token-auth-file", "tokens.csv"))
        .arg(file("service-account-key-file", "accounts.pub"))
        .arg(file("service-account-signing-key-file", "accounts.key"))
        .args([
            "--bind-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            // No controllers run here, so service accounts get no tokens: pods may be made
            // without one.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--profiling=false",
        ]);
    let log = folder.join("kube-apiserver.log");
    let mut child = Guarded::spawn(command, &log, StopSignal::Terminate, None)?;
    let certificate = folder.join("certificates/apiserver.crt");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + READY_BOUND;
    loop {
        let connected = tokio::net::TcpStream::connect(address).await.is_ok();
        if connected && certificate.is_file() && child.try_wait()?.is_none() {
            return Ok(child);
        }
        still_starting(PART, port, &mut child, &log, deadline)?;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn still_starting(
    part: &'static str,
    port: u16,
    child: &mut Guarded,
    log: &Path,
    deadline: Instant,
) -> Result<(), PartsError> {
    let ended = child.try_wait()?;
    let log = log_tail(log);
    if ended.is_some() && log.contains("address already in use") {
        return Err(PartsError::PortInUse { part, port });
    }
    if ended.is_none() && Instant::now() < deadline {
        return Ok(());
    }
    let reason = ended.map_or_else(
        || format!("it was not ready after {} s", READY_BOUND.as_secs()),
        |status| format!("it ended with {status}"),
    );
    Err(PartsError::NotStarted { part, reason, log })
}

/// The administrator's token and the key of the service accounts, once.
fn write_keys(folder: &Path) -> Result<(), PartsError> {
    if folder.join("tokens.csv").is_file() {
        return Ok(());
    }
    let token = format!("{:032x}", rand::rng().random::<u128>());
    let random = ring::rand::SystemRandom::new();
    let failed = |_| PartsError::NotStarted {
        part: "kube-apiserver",
        reason: "no key could be made for it".to_owned(),
        log: String::new(),
    };
    let key =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random)
        .map_err(|_| failed(ring::error::Unspecified))?;
    let public = [&PUBLIC_KEY_PREFIX, pair.public_key().as_ref()].concat();
    write_private(
        &folder.join("accounts.key"),
        pem("PRIVATE KEY", key.as_ref()).as_bytes(),
    )?;
    write_private(
        &folder.join("accounts.pub"),
        pem("PUBLIC KEY", &public).as_bytes(),
    )?;
    write_private(&folder.join("token"), token.as_bytes())?;
    let tokens = format!("{token},admin,admin,\"system:masters\"\n");
    write_private(&folder.join("tokens.csv"), tokens.as_bytes())
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {kind}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {kind}-----\n"));
    pem
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PartsError> {
    let write = || {
        let mut file = std::fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        std::io::Write::write_all(&mut file, bytes)
    };
    write().map_err(PartsError::io("write", path))
}
