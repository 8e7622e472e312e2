//! Fetches a pinned server into the cache, whatever the machine has, and prints where it is.
//!
//! ```sh
//! cargo run --example fetch -- postgresql    # the folder with bin, lib and share
//! cargo run --example fetch -- nats-server   # the program
//! ```

use std::process::ExitCode;

use millrace_parts::{NatsBinary, PartsError, PostgresBinaries};

#[tokio::main]
async fn main() -> Result<ExitCode, PartsError> {
    let path = match std::env::args().nth(1).as_deref() {
        Some("postgresql") => {
            let mut folder = PostgresBinaries::fetch().await?.folder;
            folder.pop();
            folder
        }
        Some("nats-server") => NatsBinary::fetch().await?.path,
        _ => {
            eprintln!("usage: fetch postgresql | nats-server");
            return Ok(ExitCode::from(2));
        }
    };
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}
