use metrics::{Counter, Gauge, counter, gauge};
use millrace_es::{Context, Position};

/// The relay's metrics, looked up once.
pub(super) struct Meters {
    context: String,
    published: Counter,
    lag: Gauge,
    leader: Gauge,
}

impl Meters {
    pub(super) fn new(context: &Context) -> Self {
        let label = context.to_string();
        metrics::describe_counter!(
            "millrace_relay_published_total",
            "Events that the relay of this process put into the stream"
        );
        metrics::describe_gauge!(
            "millrace_relay_lag_events",
            "Events in the log that the stream does not have yet, as the working relay sees it"
        );
        metrics::describe_gauge!(
            "millrace_relay_leader",
            "1 where the relay of this process is the one at work"
        );
        metrics::describe_counter!(
            "millrace_relay_repairs_total",
            "Times a stream had to be brought back in line with its log, by kind"
        );
        Self {
            published: counter!("millrace_relay_published_total", "context" => label.clone()),
            lag: gauge!("millrace_relay_lag_events", "context" => label.clone()),
            leader: gauge!("millrace_relay_leader", "context" => label.clone()),
            context: label,
        }
    }

    pub(super) fn leading(&self, leading: bool) {
        self.leader.set(if leading { 1.0 } else { 0.0 });
        if !leading {
            self.lag.set(0.0);
        }
    }

    pub(super) fn published(&self, events: u64) {
        self.published.increment(events);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge; 2^53 events of lag are not to be told apart"
    )]
    pub(super) fn lag(&self, head: Position, published: Position) {
        self.lag
            .set(head.get().saturating_sub(published.get()) as f64);
    }

    pub(super) fn repaired(&self, kind: &'static str) {
        counter!("millrace_relay_repairs_total", "context" => self.context.clone(), "kind" => kind)
            .increment(1);
    }
}
