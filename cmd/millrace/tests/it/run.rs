//! Runs the binary.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::process::Command;

/// How long any command may take in a test.
const BOUND: Duration = Duration::from_secs(120);

/// The binary with nothing of this machine's settings.
pub fn millrace<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars() {
        let ours = ["DATABASE_URL", "NATS_URL", "DYNAMODB_ENDPOINT"].contains(&name.as_str());
        if ours || name.starts_with("MILLRACE_") || name.ends_with("_DATABASE_URL") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        // No `.millrace` of the checkout is found.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// The output as lines of JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.err);
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Ended {
    let output = tokio::time::timeout(BOUND, command.output()).await;
    let output = output.expect("the command ends in time").unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
