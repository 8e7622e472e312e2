//! The command service as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::main("millrace-command", millrace_command::run)
}
