use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use metrics::{counter, gauge, histogram};
use millrace_es::Position;
use millrace_eventlog::LogHead;
use millrace_kernel::Timestamp;

use super::lane::newest_of;
use crate::{
    batch::Batch,
    generation::{GenerationStatus, Lane},
};

/// How many heads are remembered per lane to date its oldest unread event, one a second.
const MAX_SAMPLES: usize = 600;

/// A projection's figures. Lag and partitions are those of the generation that answers: another one
/// of the same process has a meter of its own, and would write over them.
pub(super) struct Meter {
    projection: &'static str,
    lanes: HashMap<Lane, LaneFigures>,
    /// Whether the partitions that are held are shown.
    shown: bool,
}

#[derive(Default)]
struct LaneFigures {
    /// When the newest position of the lane was first seen to be at least this.
    seen: VecDeque<(Position, Timestamp)>,
    /// When the log took the newest event that was applied since the lag was last measured.
    applied: Option<Timestamp>,
    /// Whether its lag is shown.
    shown: bool,
}

impl Meter {
    pub(super) fn new(projection: &'static str) -> Self {
        Self {
            projection,
            lanes: HashMap::new(),
            shown: false,
        }
    }

    /// A batch is committed, so its events can be read.
    pub(super) fn applied(&mut self, batch: &Batch, took: Duration, status: GenerationStatus) {
        let projection = self.projection;
        let events = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        counter!("millrace_projection_events_total", "projection" => projection).increment(events);
        #[expect(
            clippy::cast_precision_loss,
            reason = "batches are far below 2^52 events"
        )]
        histogram!("millrace_projection_batch_events", "projection" => projection)
            .record(events as f64);
        histogram!("millrace_projection_batch_seconds", "projection" => projection).record(took);
        let now = Timestamp::now();
        // A candidate answers no query.
        if status == GenerationStatus::Active {
            let readable =
                histogram!("millrace_write_to_readable_seconds", "projection" => projection);
            for event in batch.events() {
                readable.record(seconds_between(event.recorded_at, now));
            }
        }
        for (lane, event) in batch.last_events() {
            self.lanes.entry(lane.clone()).or_default().applied = Some(event.recorded_at);
        }
    }

    /// Measures how far a lane is behind: in positions (the events of other partitions in between
    /// count too, so it is an upper bound that ends at 0), and in seconds since its oldest unread
    /// event.
    pub(super) fn lag(&mut self, lane: &Lane, at: Position, head: &LogHead, now: Timestamp) {
        let newest = newest_of(head, lane);
        let figures = self.lanes.entry(lane.clone()).or_default();
        if figures.seen.back().is_none_or(|(seen, _)| *seen < newest) {
            if figures.seen.len() == MAX_SAMPLES {
                figures.seen.pop_front();
            }
            figures.seen.push_back((newest, now));
        }
        while figures.seen.front().is_some_and(|(seen, _)| *seen <= at) {
            figures.seen.pop_front();
        }
        let applied = figures.applied.take();
        let oldest_unread = figures.seen.front().map(|(_, since)| *since);
        // While a backlog is worked through, its events date themselves.
        let since = match (oldest_unread, applied) {
            (None, _) => None,
            (Some(seen), Some(applied)) => Some(seen.min(applied)),
            (seen, None) => seen,
        };
        let seconds = since.map_or(0.0, |since| seconds_between(since, now));
        figures.shown = true;
        let events = newest.get().saturating_sub(at.get());
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.show_lag(lane, events as f64, seconds);
    }

    fn show_lag(&self, lane: &Lane, events: f64, seconds: f64) {
        let labels = [
            ("projection", self.projection.to_owned()),
            ("context", lane.context.to_string()),
            ("partition", lane.partition.to_string()),
        ];
        gauge!("millrace_projection_lag_events", &labels).set(events);
        gauge!("millrace_projection_lag_seconds", &labels).set(seconds);
    }

    /// How many partitions this process works on.
    pub(super) fn held(&mut self, partitions: usize) {
        self.shown = true;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!("millrace_projection_partitions", "projection" => self.projection)
            .set(partitions as f64);
    }

    /// Another process measures the lane now.
    pub(super) fn forget(&mut self, lane: &Lane) {
        if self.lanes.remove(lane).is_some_and(|figures| figures.shown) {
            self.show_lag(lane, 0.0, 0.0);
        }
    }

    /// Another generation answers now, or none of this process.
    pub(super) fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            gauge!("millrace_projection_partitions", "projection" => self.projection).set(0.0);
        }
        let mut hidden = Vec::new();
        for (lane, figures) in &mut self.lanes {
            if std::mem::take(&mut figures.shown) {
                hidden.push(lane.clone());
            }
        }
        for lane in hidden {
            self.show_lag(&lane, 0.0, 0.0);
        }
    }

    pub(super) fn retry(&self) {
        counter!("millrace_projection_retries_total", "projection" => self.projection).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    pub(super) fn letters(&self, waiting: u64) {
        gauge!("millrace_dead_letters", "projection" => self.projection).set(waiting as f64);
    }

    /// A condition that somebody has to look at.
    pub(super) fn alert(&self, kind: &'static str) {
        counter!("millrace_projection_alerts_total", "projection" => self.projection, "kind" => kind)
            .increment(1);
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.get() - from.get()).as_seconds_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use millrace_es::{Context, Epoch, Partition, PartitionCount};

    use super::*;

    fn lane(context: &str) -> Lane {
        Lane::new(Context::new(context).unwrap(), Partition::new(0))
    }

    fn head(newest: u64) -> LogHead {
        LogHead {
            position: Position::new(newest),
            epoch: Epoch::new(1),
            partitions: PartitionCount::new(1).unwrap(),
            partition_positions: vec![Position::new(newest)],
            halted: None,
        }
    }

    #[test]
    fn what_a_meter_hides_it_no_longer_says_and_says_nothing_of_another_ones() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = recorder.handle();
        let lag = |context: &str, events: u64| {
            let lag = format!(
                "millrace_projection_lag_events{{projection=\"p\",context=\"{context}\",partition=\"0\"}} {events}\n"
            );
            text.render().contains(&lag)
        };
        metrics::with_local_recorder(&recorder, || {
            let (mut old, mut new) = (Meter::new("p"), Meter::new("p"));
            let now = Timestamp::now();
            old.lag(&lane("a"), Position::new(1), &head(4), now);
            old.lag(&lane("b"), Position::new(1), &head(9), now);
            old.held(2);
            assert!(lag("a", 3) && lag("b", 8), "{}", text.render());
            assert!(
                text.render()
                    .contains("millrace_projection_partitions{projection=\"p\"} 2")
            );

            old.hide();
            assert!(lag("a", 0) && lag("b", 0), "{}", text.render());
            assert!(
                text.render()
                    .contains("millrace_projection_partitions{projection=\"p\"} 0")
            );

            new.lag(&lane("a"), Position::new(2), &head(4), now);
            new.held(1);
            old.hide();
            old.forget(&lane("a"));
            assert!(lag("a", 2), "{}", text.render());
            assert!(
                text.render()
                    .contains("millrace_projection_partitions{projection=\"p\"} 1")
            );
        });
    }
}
