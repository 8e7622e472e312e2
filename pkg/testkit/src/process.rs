use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use millrace_parts::{Guarded, StopSignal, http_get, log_tail};

use crate::{OrFail as _, eventually, waiting::eventually_or_not};

/// A program of ours under test, its output kept in a file, ended with the test.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Guarded,
    folder: PathBuf,
}

impl Process {
    /// Starts a program with arguments and, beside what is inherited, these variables.
    #[must_use]
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let folder = millrace_parts::temporary_folder().or_fail("a folder for a process");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let process = launch(program, &arguments, &environment, &folder);
        Self {
            program: program.to_owned(),
            arguments,
            environment,
            process,
            folder,
        }
    }

    /// The file its output goes to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// All it wrote.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `GET path` of a port on 127.0.0.1 answers 200; panics when the process ends.
    pub async fn wait_ready(&mut self, port: u16, path: &str, bound: Duration) {
        let log = self.log();
        let process = std::cell::RefCell::new(&mut self.process);
        let said = std::cell::RefCell::new(String::new());
        let ready = eventually_or_not(bound, || async {
            if let Ok(Some(status)) = process.borrow_mut().try_wait() {
                panic!("the process ended with {status}\n{}", log_tail(&log));
            }
            let answer = http_get(port, path, Duration::from_secs(2)).await;
            let ready = answer.as_ref().is_ok_and(|(status, _)| *status == 200);
            *said.borrow_mut() = format!("{answer:?}");
            ready.then_some(())
        });
        assert!(
            ready.await.is_some(),
            "waited {bound:?} in vain for {path} on port {port} to say 200; it said {}\n{}",
            said.borrow(),
            log_tail(&log)
        );
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process
            .try_wait()
            .or_fail("asking for the end of a process")
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, bound: Duration) -> ExitStatus {
        let log = self.log();
        let process = std::cell::RefCell::new(&mut self.process);
        let what = format!("the process to end; its log ends with\n{}", log_tail(&log));
        eventually(&what, bound, || async {
            process.borrow_mut().try_wait().ok().flatten()
        })
        .await
    }

    /// SIGKILL to it and the processes it started.
    pub async fn kill(&mut self) {
        self.process.kill().await.or_fail("killing a process");
    }

    /// SIGTERM, and waits until it is gone; `None` when it had to be killed.
    pub async fn terminate(&mut self) -> Option<ExitStatus> {
        self.process.stop().await.or_fail("ending a process")
    }

    /// SIGTERM without waiting.
    pub fn ask_to_stop(&mut self) {
        self.process.ask_to_stop().or_fail("ending a process");
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.pause().or_fail("pausing a process");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume().or_fail("resuming a process");
    }

    /// Starts it again as it was started, after it ended or was killed.
    pub fn restart(&mut self) {
        self.process = launch(
            &self.program,
            &self.arguments,
            &self.environment,
            &self.folder,
        );
    }
}

fn launch(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    folder: &Path,
) -> Guarded {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let log = folder.join("output.log");
    Guarded::spawn(command, &log, StopSignal::Terminate, Some(folder)).or_fail("starting a process")
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the log of {} ends with\n{}",
                self.program.display(),
                log_tail(&self.log())
            );
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
