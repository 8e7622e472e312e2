//! What only a process that knows several contexts can try: orders that are paid by a real bank.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod paying;
mod town;
