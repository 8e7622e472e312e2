//! `millrace`: the whole system on a laptop, and the tools to look into a running one.

mod bench;
mod completions;
mod contexts;
mod crds;
mod dead_letters;
mod dynamodb;
mod endpoints;
mod events;
mod example;
mod failure;
mod lag;
mod listening;
mod log;
mod migrate;
mod openapi;
mod opened;
mod output;
mod replay;
mod role;
mod s3;
mod sns;
mod stream_reader;
mod up;
mod verify;

use std::{collections::BTreeSet, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

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
    Crds(crds::Crds),
    DeadLetters(dead_letters::DeadLetters),
    #[command(hide = true)]
    Dynamodb(dynamodb::DynamoDb),
    Events(events::Events),
    Example(example::Example),
    Lag(lag::Lag),
    Log(log::Log),
    Migrate(migrate::Migrate),
    Replay(replay::Replay),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    Role(role::Role),
    #[command(hide = true)]
    S3(s3::S3),
    #[command(hide = true)]
    Sns(sns::Sns),
    Up(Box<up::Up>),
    Verify(Box<verify::Verify>),
}

/// The environment variables that settings of any command come from.
fn variables() -> BTreeSet<String> {
    let cli = Cli::command();
    let commands = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    commands
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Role(role) = cli.command {
        // A role brings its own runtime, telemetry and exit codes.
        return role.run();
    }
    millrace_runtime::install_crypto();
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
        Command::Bench(bench) => Box::pin(bench.run(cli.output)).await,
        Command::Completions(completions) => completions.run(),
        Command::Crds(crds) => crds.run(),
        Command::DeadLetters(letters) => letters.run(cli.output).await,
        Command::Events(events) => events.run(cli.output).await,
        Command::Example(example) => example.run().await,
        Command::Lag(lag) => lag.run(cli.output).await,
        Command::Dynamodb(dynamodb) => dynamodb.run().await,
        Command::Log(log) => log.run(cli.output).await,
        Command::Migrate(migrate) => migrate.run().await,
        Command::OpenApi(openapi) => openapi.run(),
        Command::Replay(replay) => replay.run(cli.output).await,
        // `main` took it.
        Command::Role(_) => Ok(()),
        Command::S3(s3) => s3.run().await,
        Command::Sns(sns) => sns.run().await,
        Command::Up(up) => up.run().await,
        Command::Verify(verify) => Box::pin(verify.run(cli.output)).await,
    }
}
