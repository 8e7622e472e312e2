//! The projector as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::main("millrace-projector", millrace_projector::run)
}
