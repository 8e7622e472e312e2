use metrics::{Counter, Gauge, counter, gauge};
use millrace_es::Context;
use millrace_kernel::Timestamp;

use super::buffer::{Buffer, Gap};

/// The stream processor's metrics, looked up once.
pub(super) struct Meters {
    context: String,
    lag: Gauge,
    age: Gauge,
    buffered: Gauge,
    buffered_bytes: Gauge,
    shards: Gauge,
    events: Counter,
    duplicates: Counter,
    expired: Counter,
    trimmed: Counter,
    throttled: Counter,
}

impl Meters {
    pub(super) fn new(context: &Context) -> Self {
        describe();
        let label = context.to_string();
        let of = |name: &'static str| gauge!(name, "context" => label.clone());
        let count = |name: &'static str| counter!(name, "context" => label.clone());
        Self {
            lag: of("millrace_dynamodb_stream_lag_events"),
            age: of("millrace_dynamodb_stream_age_seconds"),
            buffered: of("millrace_dynamodb_stream_buffered_events"),
            buffered_bytes: of("millrace_dynamodb_stream_buffered_bytes"),
            shards: of("millrace_dynamodb_stream_shards"),
            events: count("millrace_dynamodb_stream_events_total"),
            duplicates: count("millrace_dynamodb_stream_duplicates_total"),
            expired: count("millrace_dynamodb_stream_iterators_expired_total"),
            trimmed: count("millrace_dynamodb_stream_trimmed_total"),
            throttled: count("millrace_dynamodb_stream_calls_failed_total"),
            context: label,
        }
    }

    /// Says where the buffer stands. `newest` is when the newest record was written that was read.
    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges; 2^53 of anything are not to be told apart"
    )]
    pub(super) fn buffer(&self, buffer: &Buffer, newest: Option<Timestamp>) {
        let lag = buffer.known().get().saturating_sub(buffer.fed().get());
        self.lag.set(lag as f64);
        self.buffered.set(buffer.len() as f64);
        self.buffered_bytes.set(buffer.bytes() as f64);
        // Where nothing is behind, an old record only means that little happens.
        let age = newest
            .filter(|_| lag > 0)
            .map_or(0, |at| Timestamp::now().unix_micros() - at.unix_micros());
        self.age.set(age.max(0) as f64 / 1_000_000.0);
    }

    /// Nothing is read here at present: another process does it.
    pub(super) fn rests(&self) {
        for gauge in [
            &self.lag,
            &self.age,
            &self.buffered,
            &self.buffered_bytes,
            &self.shards,
        ] {
            gauge.set(0.0);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of at most thousands")]
    pub(super) fn shards(&self, reading: usize) {
        self.shards.set(reading as f64);
    }

    pub(super) fn events(&self, events: u64, duplicates: u64) {
        self.events.increment(events);
        self.duplicates.increment(duplicates);
    }

    pub(super) fn expired(&self) {
        self.expired.increment(1);
    }

    pub(super) fn trimmed(&self) {
        self.trimmed.increment(1);
    }

    pub(super) fn call_failed(&self) {
        self.throttled.increment(1);
    }

    pub(super) fn gap(&self, why: Gap, events: usize) {
        let labels = [
            ("context", self.context.clone()),
            ("reason", why.reason().to_owned()),
        ];
        counter!("millrace_dynamodb_stream_gap_reads_total", &labels).increment(1);
        counter!("millrace_dynamodb_stream_gap_events_total", &labels).increment(events as u64);
    }
}

fn describe() {
    metrics::describe_gauge!(
        "millrace_dynamodb_stream_lag_events",
        "Events that the log has and the stream processor has not handed to the relay"
    );
    metrics::describe_gauge!(
        "millrace_dynamodb_stream_age_seconds",
        "While there is lag: how long ago the newest record was written that was read"
    );
    metrics::describe_gauge!(
        "millrace_dynamodb_stream_buffered_events",
        "Events that wait for one before them"
    );
    metrics::describe_gauge!(
        "millrace_dynamodb_stream_buffered_bytes",
        "Bytes of the events that wait for one before them"
    );
    metrics::describe_gauge!(
        "millrace_dynamodb_stream_shards",
        "Shards that are being read"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_events_total",
        "Events that came out of the shards"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_duplicates_total",
        "Events of the shards that were there already"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_iterators_expired_total",
        "Shard iterators that expired and were renewed"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_trimmed_total",
        "Times a shard no longer had the records that came next"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_calls_failed_total",
        "Calls that were throttled or failed and are repeated"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_gap_reads_total",
        "Times events were read from the log instead, by reason"
    );
    metrics::describe_counter!(
        "millrace_dynamodb_stream_gap_events_total",
        "Events that were read from the log instead, by reason"
    );
}
