//! A role of Millrace as a process that a test can hurt: the same libraries and settings as the
//! shipped binaries, in one program so that only one has to be linked. `FAULT_ROLE` says which.

use std::process::ExitCode;

use millrace_runtime::main as run_main;

fn main() -> ExitCode {
    match std::env::var("FAULT_ROLE").as_deref() {
        Ok("command") => run_main("millrace-command", millrace_command::run),
        Ok("projector") => run_main("millrace-projector", millrace_projector::run),
        Ok("query") => run_main("millrace-query", millrace_query::run),
        Ok("controller") => run_main("millrace-controller", millrace_controller::run),
        _ => ExitCode::FAILURE,
    }
}
