//! Fetches a pinned server into the cache, whatever the machine has, and prints where it is.
//!
//! ```sh
//! cargo run --example fetch -- postgresql    # the folder with bin, lib and share
//! cargo run --example fetch -- nats-server   # the program
//! ```

use std::io::Write;

use millrace_parts::{NatsBinary, PostgresBinaries};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = match std::env::args().nth(1).as_deref() {
        Some("postgresql") => {
            let mut folder = PostgresBinaries::fetch().await?.folder;
            folder.pop();
            folder
        }
        Some("nats-server") => NatsBinary::fetch().await?.path,
        _ => anyhow::bail!("usage: fetch postgresql | nats-server"),
    };
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}
