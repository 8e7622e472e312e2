//! A server as our child that cannot outlive us.
//!
//! Beside every server runs a guard, a few lines of `sh` that read a pipe from us. When we end,
//! however we end, the kernel closes the pipe and the guard stops the server: politely, then by
//! force. The guard knows the server by process id and start time, so it never touches a process
//! that was given the same number later.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::PartsError;

/// How long a server may take to stop politely before it is killed.
const MAX_STOP_WAIT: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a process that was killed.
const MAX_KILL_WAIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const MAX_LOG_TAIL_BYTES: u64 = 2_000;

/// Runs [`GUARD`] from the environment, so that `ps` shows a short line.
const RUN_GUARD: &str = r#"eval "$MILLRACE_GUARD""#;
/// Arguments: signal, process id, seconds to wait, folder to remove afterwards or nothing.
const GUARD: &str = r#"
trap '' HUP INT TERM
signal=$1 pid=$2 seconds=$3 folder=$4
started() { cut -d' ' -f22 "/proc/$pid/stat" 2>/dev/null || ps -o lstart= -p "$pid" 2>/dev/null; }
birth=$(started)
read -r word && exit 0
alive() { kill -0 "$pid" 2>/dev/null && [ "$(started)" = "$birth" ]; }
if alive; then
  kill -s "$signal" "$pid" 2>/dev/null
  kill -s CONT "$pid" 2>/dev/null
fi
tenths=$((seconds * 10))
while [ "$tenths" -gt 0 ] && alive; do sleep 0.1; tenths=$((tenths - 1)); done
if alive; then kill -s KILL "$pid" 2>/dev/null; sleep 0.2; fi
[ -n "$folder" ] && rm -rf -- "$folder"
exit 0
"#;

/// The signal that asks a server to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT: PostgreSQL's fast shutdown.
    Interrupt,
    /// SIGTERM: everybody else.
    Terminate,
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Interrupt => Signal::INT,
            Self::Terminate => Signal::TERM,
        }
    }
}

/// A child process that ends when this value is dropped and when this process dies.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    guard: Child,
    /// Closed by the kernel when we die; never written to, except to dismiss the guard.
    pipe: Option<ChildStdin>,
    stop_signal: StopSignal,
    remove: Option<PathBuf>,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// Starts `command` in a process group of its own (a terminal's Ctrl-C reaches only us),
    /// without input, its output appended to `log`. `remove` names a folder that the guard
    /// removes when this process dies without having stopped the server.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not started.
    pub fn spawn(
        mut command: Command,
        log: &Path,
        stop_signal: StopSignal,
        remove: Option<&Path>,
    ) -> Result<Self, PartsError> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(PartsError::io("open", log))?;
        let errors = output.try_clone().map_err(PartsError::io("open", log))?;
        let program = PathBuf::from(command.get_program());
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(PartsError::io("start", &program))?;
        let (guard, pipe) = match spawn_guard(&child, stop_signal, remove) {
            Ok(guard) => guard,
            Err(error) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let remove = remove.map(Path::to_owned);
        Ok(Self {
            child,
            guard,
            pipe,
            stop_signal,
            remove,
            ended: None,
        })
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the guard beside it.
    #[must_use]
    pub fn guard_id(&self) -> u32 {
        self.guard.id()
    }

    /// How it ended, if it did. A guard that somebody killed is replaced.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, PartsError> {
        if self.ended.is_none() {
            let id = self.id();
            let failed = |source| PartsError::Signal { pid: id, source };
            self.ended = self.child.try_wait().map_err(failed)?;
            if self.ended.is_some() {
                self.dismiss_guard();
            } else if self.guard.try_wait().map_err(failed)?.is_some() {
                (self.guard, self.pipe) =
                    spawn_guard(&self.child, self.stop_signal, self.remove.as_deref())?;
            }
        }
        Ok(self.ended)
    }

    /// Sends the polite signal without waiting.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn ask_to_stop(&mut self) -> Result<(), PartsError> {
        self.signal(self.stop_signal.signal())
    }

    /// Stops it politely, by force after 10 s, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop(&mut self) -> Result<Option<ExitStatus>, PartsError> {
        self.stop_within(MAX_STOP_WAIT).await
    }

    /// As [`Guarded::stop`], by force after `bound`.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop_within(&mut self, bound: Duration) -> Result<Option<ExitStatus>, PartsError> {
        self.ask_to_stop()?;
        self.signal(Signal::CONT)?;
        if let Some(status) = self.wait_until_gone(bound).await? {
            return Ok(Some(status));
        }
        self.kill().await
    }

    /// SIGKILL to it and to the processes it started, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn kill(&mut self) -> Result<Option<ExitStatus>, PartsError> {
        self.send_kill()?;
        self.wait_until_gone(MAX_KILL_WAIT).await
    }

    /// SIGSTOP to it and to the processes it started.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&mut self) -> Result<(), PartsError> {
        self.signal(Signal::STOP)?;
        self.signal_children(Signal::STOP);
        Ok(())
    }

    /// SIGCONT to it and to the processes it started.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&mut self) -> Result<(), PartsError> {
        self.signal_children(Signal::CONT);
        self.signal(Signal::CONT)
    }

    fn send_kill(&mut self) -> Result<(), PartsError> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        // Stopped first, so that it starts no child between the look and the blow.
        self.signal(Signal::STOP)?;
        let children = children_of(self.id());
        self.signal(Signal::KILL)?;
        for child in children {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    async fn wait_until_gone(&mut self, bound: Duration) -> Result<Option<ExitStatus>, PartsError> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Signals the child if it was not waited for yet: until then its number is ours.
    fn signal(&mut self, signal: Signal) -> Result<(), PartsError> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        let failed = |source| PartsError::Signal {
            pid: self.child.id(),
            source,
        };
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .map_err(|errno| failed(errno.into()))
    }

    fn signal_children(&self, signal: Signal) {
        for child in children_of(self.id()) {
            let _ = rustix::process::kill_process(child, signal);
        }
    }

    fn dismiss_guard(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = std::io::Write::write_all(&mut pipe, b"done\n");
            drop(pipe);
        }
        let _ = self.guard.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // By force: whoever wants more calls `stop` first.
        let _ = self.send_kill();
        if self.ended.is_none() {
            let _ = self.child.wait();
            self.dismiss_guard();
        }
    }
}

fn spawn_guard(
    child: &Child,
    stop_signal: StopSignal,
    remove: Option<&Path>,
) -> Result<(Child, Option<ChildStdin>), PartsError> {
    let mut guard = Command::new("sh")
        .args(["-c", RUN_GUARD, "millrace-guard", stop_signal.name()])
        .arg(child.id().to_string())
        .arg(MAX_STOP_WAIT.as_secs().to_string())
        .arg(remove.unwrap_or_else(|| Path::new("")))
        .env("MILLRACE_GUARD", GUARD)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(PartsError::io("start", "sh"))?;
    let pipe = guard.stdin.take();
    Ok((guard, pipe))
}

/// The direct children of one of our processes; empty where the kernel does not tell.
fn children_of(pid: u32) -> Vec<Pid> {
    // The kernel keeps them by the thread that started them.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|children| {
            children
                .split_ascii_whitespace()
                .filter_map(|word| word.parse().ok().and_then(Pid::from_raw))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The end of a log, at most 2,000 bytes; empty when there is none.
#[must_use]
pub fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MAX_LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}
