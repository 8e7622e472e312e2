//! `millrace`: the whole system on a laptop, and the tools to look into a running one.

mod bench;
mod completions;
mod contexts;
mod dead_letters;
mod endpoints;
mod events;
mod failure;
mod lag;
mod log;
mod openapi;
mod opened;
mod output;
mod stream_reader;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{failure::Failure, output::Format};

/// Event-sourced back office over NATS JetStream: runs it, looks into it, measures it.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = failure::HELP, max_term_width = 100)]
struct Cli {
    /// Form of the output
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    Completions(completions::Completions),
    DeadLetters(dead_letters::DeadLetters),
    Events(events::Events),
    Lag(lag::Lag),
    Log(log::Log),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                // Nobody is left to tell when even this fails.
                let _ = output::say(&format!("millrace: {failure}"));
            }
            failure.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Bench(bench) => bench.run(cli.output).await,
        Command::Completions(completions) => completions.run(),
        Command::DeadLetters(letters) => letters.run(cli.output).await,
        Command::Events(events) => events.run(cli.output).await,
        Command::Lag(lag) => lag.run(cli.output).await,
        Command::Log(log) => log.run(cli.output).await,
        Command::OpenApi(openapi) => openapi.run(),
    }
}
