//! Commands over HTTP: orders placed as fast as they are taken, and at half of that rate.

use std::time::Duration;

use super::{
    BenchContext, Figure, HttpLoad, Seen, Target,
    baseline::one_row_inserts,
    orders,
    system::{Roles, System},
};

/// Connections that place orders, and clients of the baseline.
const CONNECTIONS: usize = 256;
/// Users whose orders they are.
const USERS: usize = 1_000;
/// The bound for the slowest hundredth at half of the maximum, in milliseconds.
const P99_MS: f64 = 100.0;
/// What the maximum should be over the baseline.
const RATIO: f64 = 1.2;

/// Measures commands with everything running, then without relay and projectors.
///
/// # Errors
/// When a role or a server fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (roles, what) in [(Roles::ALL, "commands"), (Roles::COMMAND, "commands_alone")] {
        let system = System::start(context, roles).await?;
        let clients = connections(context);
        context.say(&format!("{what}: {clients} connections"));
        let most = placed(context, &system, None).await?;
        let half = (most.per_second / 2.0).max(1.0);
        context.say(&format!("{what}: {half:.0} orders/s, open loop"));
        let calm = placed(context, &system, Some(half)).await?;
        let database = system.stop().await?;
        context.say("one-row inserts of the same row");
        let plain = one_row_inserts(&database, clients, seconds(context)).await?;
        let baseline = format!("{} one-row inserts, {clients} clients", plain.tool);
        let reached = Figure::new(format!("{what}.max"), most.per_second, "orders/s")
            .over(baseline, plain.per_second);
        let all = roles == Roles::ALL;
        let target = |figure: Figure, target| if all { figure.target(target) } else { figure };
        figures.push(target(reached, Target::RatioAtLeast(RATIO)));
        let quantile = |seen: &Seen, name: &str, share| {
            Figure::new(
                format!("{what}.{name}"),
                seen.latencies.quantile_ms(share),
                "ms",
            )
        };
        figures.push(quantile(&most, "max.p50", 0.50));
        figures.push(quantile(&most, "max.p99", 0.99));
        figures.push(quantile(&calm, "half.p50", 0.50));
        let slowest = quantile(&calm, "half.p99", 0.99);
        figures.push(target(slowest, Target::AtMost(P99_MS)));
    }
    Ok(figures)
}

/// Places orders at a rate, or as fast as they are taken.
pub async fn placed(
    context: &BenchContext,
    system: &System,
    rate: Option<f64>,
) -> anyhow::Result<Seen> {
    let load = HttpLoad {
        address: system.command,
        connections: connections(context),
        duration: seconds(context),
        warm_up: context.size(Duration::from_secs(3), Duration::from_millis(500)),
        requests: orders::placing(USERS),
        rate,
    };
    load.run(201).await?.mostly_well("POST /orders")
}

fn connections(context: &BenchContext) -> usize {
    context.size(CONNECTIONS, 16)
}

fn seconds(context: &BenchContext) -> Duration {
    Duration::from_secs(context.size(15, 1))
}
