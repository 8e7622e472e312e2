use metrics::{Gauge, gauge};
use millrace_es::Context;

/// Shows whether a log is halted. Whoever reads a head shows what it says: a process that only did so
/// when it halted the log, or when it was refused, would go on showing it when all is well again.
pub fn show_halted(context: &Context, halted: bool) {
    halted_gauge(context).set(u8::from(halted));
}

/// The gauge itself, for who sets it with every batch.
pub fn halted_gauge(context: &Context) -> Gauge {
    gauge!("millrace_log_halted", "context" => context.to_string())
}
