use std::time::Duration;

/// Latencies in buckets of 1.6 % width: constant memory, however many are recorded, and cheap
/// enough to sit in the loop that makes the load.
#[derive(Debug, Clone)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

/// Buckets per doubling.
const STEPS: usize = 64;
/// Doublings from a microsecond: the last bucket begins at 67 s and takes all above.
const DOUBLINGS: usize = 26;

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; STEPS * DOUBLINGS + 1],
            count: 0,
        }
    }
}

impl Latencies {
    /// Takes one.
    pub fn record(&mut self, latency: Duration) {
        self.buckets[bucket(latency)] += 1;
        self.count += 1;
    }

    /// Takes another's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// How many were taken.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The latency that `share` (0 to 1) of all do not exceed, in milliseconds; 0 without any.
    #[expect(
        clippy::cast_precision_loss,
        reason = "buckets are 1.6 % wide; a share needs no more"
    )]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = self.count as f64 * share;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return upper_edge_us(index) / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let doubling = us.ilog2() as usize;
    // The bits below the leading one, as a fraction of the doubling.
    let below = us - (1 << doubling);
    let step = usize::try_from((u128::from(below) * STEPS as u128) >> doubling).unwrap_or(0);
    (doubling * STEPS + step).min(STEPS * DOUBLINGS)
}

#[expect(clippy::cast_precision_loss, reason = "indexes are small")]
fn upper_edge_us(index: usize) -> f64 {
    let doubling = i32::try_from(index / STEPS).unwrap_or(0);
    let step = (index % STEPS + 1) as f64 / STEPS as f64;
    2_f64.powi(doubling) * (1.0 + step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut all = Latencies::default();
        let mut other = Latencies::default();
        for ms in 1..=1_000 {
            let half = if ms % 2 == 0 { &mut all } else { &mut other };
            half.record(Duration::from_millis(ms));
        }
        all.merge(&other);
        assert_eq!(all.count(), 1_000);
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = all.quantile_ms(share);
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found}");
        }
    }

    #[test]
    fn nothing_falls_out_of_the_buckets() {
        let mut all = Latencies::default();
        assert!(all.quantile_ms(0.5) < f64::EPSILON);
        all.record(Duration::ZERO);
        all.record(Duration::from_secs(1 << 40));
        assert_eq!(all.count(), 2);
        assert!(all.quantile_ms(1.0) > 60_000.0);
    }
}
