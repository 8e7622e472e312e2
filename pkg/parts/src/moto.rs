//! moto's server, which speaks SNS and SQS, for tests: from PyPI, run by the machine's Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PartsError;
use crate::cache::{RemovedOnDrop, cached};
use crate::child::{Guarded, StopSignal, log_tail};
use crate::net::{free_port, http_get};

/// The moto that is fetched.
pub const MOTO_VERSION: &str = "5.2.5";
/// It imports a good part of botocore first.
const READY_BOUND: Duration = Duration::from_secs(120);

/// A running moto, in memory.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    folder: PathBuf,
    packages: PathBuf,
    child: Guarded,
    /// Dropped after the child.
    _folder: RemovedOnDrop,
}

impl Moto {
    /// Starts a server on a free port of 127.0.0.1, fetching it when it is not in the cache folder.
    ///
    /// # Errors
    /// When it cannot be fetched, or does not become ready.
    pub async fn start() -> Result<Self, PartsError> {
        let packages = fetch().await?;
        let folder = crate::temporary_folder()?;
        let removed = RemovedOnDrop(Some(folder.clone()));
        let port = free_port();
        let child = launch(&packages, &folder, port).await?;
        Ok(Self {
            port,
            folder,
            packages,
            child,
            _folder: removed,
        })
    }

    /// Its endpoint, for every service.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.child
    }

    /// Starts it again on the same port, with nothing in it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart(&mut self) -> Result<(), PartsError> {
        self.child.kill().await?;
        self.child = launch(&self.packages, &self.folder, self.port).await?;
        Ok(())
    }
}

async fn fetch() -> Result<PathBuf, PartsError> {
    let missing = |tried: String| PartsError::Missing {
        part: "moto",
        tried,
        remedy: "Install python3 with pip",
    };
    cached(&format!("moto-{MOTO_VERSION}"), async |folder: &Path| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
            .arg("--target")
            .arg(folder.join("packages"))
            .arg(format!("moto[server]=={MOTO_VERSION}"));
        let output = tokio::task::spawn_blocking(move || pip.output())
            .await
            .map_err(|error| missing(error.to_string()))?
            .map_err(|error| missing(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| line.contains("ERROR"));
        Err(missing(last.unwrap_or("pip failed").to_owned()))
    })
    .await
    .map(|folder| folder.join("packages"))
}

async fn launch(packages: &Path, folder: &Path, port: u16) -> Result<Guarded, PartsError> {
    let log = folder.join("moto.log");
    let mut command = Command::new("python3");
    command
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
        .arg(port.to_string())
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = Guarded::spawn(command, &log, StopSignal::Terminate, Some(folder))?;
    let deadline = Instant::now() + READY_BOUND;
    loop {
        let answer = http_get(port, "/moto-api/data.json", Duration::from_secs(5)).await;
        if matches!(answer, Ok((200, _))) {
            return Ok(child);
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let reason = ended.map_or_else(
                || format!("it was not ready after {} s", READY_BOUND.as_secs()),
                |status| format!("it ended with {status}"),
            );
            return Err(PartsError::NotStarted {
                part: "moto",
                reason,
                log: log_tail(&log),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
