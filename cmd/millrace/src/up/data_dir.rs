//! The folder that `up` keeps everything in, for one `up` at a time.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use millrace_parts::{Postgres, port_is_free};

use super::ports::PortArgs;
use crate::failure::Failure;
use crate::output;

/// How long the servers of a run that was killed may take to end by themselves.
const MAX_LEFTOVER_WAIT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A log longer than this is put aside at the next start.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// What lies in the folder. Nothing else in it is ever touched.
const POSTGRES: &str = "postgres";
const NATS: &str = "nats";
const DYNAMODB: &str = "dynamodb";
const RECEIPTS: &str = "receipts";
const LOGS: &str = "logs";
const LOCK: &str = "lock";

/// The claimed folder. The claim ends with this value, or with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked while we live; holds our process id until we ended well.
    lock: File,
    /// The process id of a run that did not end well.
    killed: Option<String>,
}

impl DataDir {
    /// Makes the folder and takes its lock; with `fresh`, removes earlier data.
    ///
    /// # Errors
    /// When another `up` has it, or it cannot be written.
    pub fn claim(path: &Path, fresh: bool) -> Result<Self, Failure> {
        let context = || format!("the data folder {} cannot be used", path.display());
        fs::create_dir_all(path).with_context(context)?;
        let path = path.canonicalize().with_context(context)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .with_context(context)?;
        let mut holder = String::new();
        let locked = lock.try_lock();
        lock.read_to_string(&mut holder).with_context(context)?;
        let holder = Some(holder.trim().to_owned()).filter(|text| !text.is_empty());
        if locked.is_err() {
            return Err(Failure::Refused(format!(
                "another `millrace up`{} is running on {}: end it, or choose another folder with \
                 `--data-dir <DIR>`",
                holder
                    .map(|id| format!(" (process {id})"))
                    .unwrap_or_default(),
                path.display()
            )));
        }
        let mut claimed = Self {
            path,
            lock,
            killed: holder,
        };
        claimed
            .note(&std::process::id().to_string())
            .with_context(context)?;
        if fresh {
            claimed.empty().with_context(context)?;
        }
        fs::create_dir_all(claimed.path.join(LOGS)).with_context(context)?;
        Ok(claimed)
    }

    fn note(&mut self, text: &str) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(text.as_bytes())
    }

    fn empty(&self) -> anyhow::Result<()> {
        for folder in [
            self.postgres()?,
            self.nats(),
            self.dynamodb(),
            self.receipts(),
            self.path.join(LOGS),
        ] {
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("{} cannot be removed", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Servers of a run that was killed end by themselves; waits until their ports are free.
    ///
    /// # Errors
    /// When they are not free in time.
    pub async fn wait_for_the_last_run(&self, args: &PortArgs) -> Result<(), Failure> {
        let Some(id) = &self.killed else {
            return Ok(());
        };
        let pid_file = self.postgres()?.join("postmaster.pid");
        let leftovers = || !port_is_free(args.port) || alive(&pid_file);
        if !leftovers() {
            return Ok(());
        }
        output::say(&format!(
            "millrace: the last `up` here (process {id}) was killed; its servers are ending by \
             themselves, waiting for them"
        ))?;
        let deadline = Instant::now() + MAX_LEFTOVER_WAIT;
        while leftovers() && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        if alive(&pid_file) {
            return Err(Failure::Failed(anyhow!(
                "a PostgreSQL is still running on {}: end it (its process id is the first line of \
                 {}), or choose another folder with `--data-dir <DIR>`",
                self.path.display(),
                pid_file.display()
            )));
        }
        Ok(())
    }

    /// Notes that nothing was left behind.
    pub async fn ended_well(mut self) {
        // If it cannot be noted, the next run looks for leftovers in vain.
        let _ = self.note("");
    }

    /// The folder itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// PostgreSQL's folder: elsewhere when the user that PostgreSQL runs as may not enter ours.
    pub fn postgres(&self) -> anyhow::Result<PathBuf> {
        Ok(Postgres::reachable_data(&self.path.join(POSTGRES))?)
    }

    /// The folder of NATS.
    pub fn nats(&self) -> PathBuf {
        self.path.join(NATS)
    }

    /// Where receipts are archived.
    pub fn receipts(&self) -> PathBuf {
        self.path.join(RECEIPTS)
    }

    /// DynamoDB's folder.
    pub fn dynamodb(&self) -> PathBuf {
        self.path.join(DYNAMODB)
    }

    /// A program's log. One that has grown long is put aside first, over the one before.
    pub fn log(&self, name: &str) -> PathBuf {
        let log = self.path.join(LOGS).join(format!("{name}.log"));
        if log
            .metadata()
            .is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES)
        {
            // Appending to a long log is no reason not to start.
            let _ = fs::rename(&log, log.with_extension("log.1"));
        }
        log
    }
}

/// Whether the process in the first line of PostgreSQL's own pid file lives and is a PostgreSQL.
fn alive(pid_file: &Path) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return false;
    };
    let Some(Ok(id)) = text.lines().next().map(str::parse::<u32>) else {
        return false;
    };
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with("postgres"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_up_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::claim(folder.path(), false).unwrap();
        let refused = DataDir::claim(folder.path(), false)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        assert!(refused.contains("--data-dir"), "{refused}");
        first.ended_well().await;
        let second = DataDir::claim(folder.path(), false).unwrap();
        assert_eq!(second.killed, None);
        drop(second);
        let third = DataDir::claim(folder.path(), false).unwrap();
        assert_eq!(third.killed, Some(std::process::id().to_string()));
    }

    #[test]
    fn fresh_removes_what_is_ours_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(NATS)).unwrap();
        fs::write(folder.path().join("mine.txt"), "x").unwrap();
        let claimed = DataDir::claim(folder.path(), true).unwrap();
        assert!(!claimed.nats().exists());
        assert!(folder.path().join("mine.txt").exists());
    }
}
