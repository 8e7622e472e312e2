//! Noticing that the log went back under a running process.

use millrace_es::{Epoch, Position};

use super::plan::Head;

/// The log is older than this process has seen it: it has to be halted, for this reason.
#[derive(Debug)]
pub(crate) struct WentBack(pub String);

/// The newest head that this process has seen. A log never goes back by itself: one that did was
/// restored from a copy or lost its end in a failover, and an append to it would take a position
/// that readers have seen used.
#[derive(Debug, Default)]
pub(crate) struct Seen(Option<(Epoch, Position)>);

impl Seen {
    /// Takes a head as it was read.
    ///
    /// # Errors
    /// [`WentBack`] when the log has to be halted because it went back. Once it is halted, by
    /// whomever, the older head is taken: what an operator decides then stands.
    pub(crate) fn take(&mut self, head: &Head) -> Result<(), WentBack> {
        let now = (head.epoch, head.position);
        match self.0 {
            Some(before) if now < before && head.halted.is_none() => Err(WentBack(format!(
                "the log ends at {} of epoch {}, and this process has seen {} of epoch {}: \
                     the log was restored to an earlier point or lost its end",
                now.1, now.0, before.1, before.0
            ))),
            _ => {
                self.0 = Some(now);
                Ok(())
            }
        }
    }

    /// Whether nobody has moved the head since this process saw it last.
    pub(crate) fn is(&self, head: &Head) -> bool {
        self.0 == Some((head.epoch, head.position))
    }

    /// A batch of this process is durable.
    pub(crate) fn committed(&mut self, epoch: Epoch, position: Position) {
        self.0 = self.0.max(Some((epoch, position)));
    }
}

#[cfg(test)]
mod tests {
    use millrace_kernel::Timestamp;

    use super::*;

    fn head(epoch: u64, position: u64) -> Head {
        Head {
            position: Position::new(position),
            epoch: Epoch::new(epoch),
            guard: 0,
            halted: None,
            partitions: Vec::new(),
            recorded_at: Timestamp::now(),
            now: Timestamp::now(),
        }
    }

    #[test]
    fn a_log_that_goes_back_has_to_be_halted() {
        let mut seen = Seen::default();
        assert!(seen.take(&head(1, 5)).is_ok());
        seen.committed(Epoch::new(1), Position::new(7));
        assert!(seen.take(&head(1, 7)).is_ok());
        assert!(seen.take(&head(1, 6)).is_err());
        assert!(seen.take(&head(1, 6)).is_err());
        let halted = Head {
            halted: Some("it went back".to_owned()),
            ..head(1, 6)
        };
        assert!(seen.take(&halted).is_ok());
        assert!(seen.take(&head(1, 6)).is_ok(), "an operator resumed it");
    }

    #[test]
    fn a_new_epoch_is_no_step_back() {
        let mut seen = Seen::default();
        assert!(seen.take(&head(1, 5)).is_ok());
        assert!(seen.take(&head(2, 3)).is_ok());
        assert!(seen.take(&head(1, 9)).is_err());
    }
}
