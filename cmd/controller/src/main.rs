//! The controller as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::main("millrace-controller", millrace_controller::run)
}
