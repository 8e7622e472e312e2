use metrics::gauge;
use millrace_es::Context;

/// Shows whether a log is halted. Whoever reads a head shows what it says: a process that only did so
/// when it halted the log, or when it was refused, would go on showing it when all is well again.
pub fn show_halted(context: &Context, halted: bool) {
    gauge!("millrace_log_halted", "context" => context.to_string()).set(u8::from(halted));
}
