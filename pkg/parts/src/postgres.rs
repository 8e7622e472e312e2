//! PostgreSQL: the machine's own, or the pinned registry package.

mod binaries;
mod server;

pub use binaries::{POSTGRES_VERSION, PostgresBinaries};
pub use server::{Durability, Postgres, PostgresOptions};
