//! The query service as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_runtime::main("millrace-query", millrace_query::run)
}
