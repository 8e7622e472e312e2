//! The chain of a partition: every event names the position before it, so what was delivered can
//! be told from what is missing, doubled or of another life of the log.

use millrace_es::{Epoch, Position, RecordedEvent};

/// Where a reader of a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The last position taken.
    pub(crate) at: Position,
    /// The life of the log that it belongs to.
    pub(crate) epoch: Epoch,
}

/// What a delivery came to.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All of it was taken or known before.
    All,
    /// Between the chain and this position something is missing: the log has to be read through
    /// it. What was delivered from here on is left out.
    Hole(Position),
    /// An event of an earlier life of the log. The stream may still hold a tail that the log gave
    /// up, so only the log can say whether it counts.
    Older,
    /// An event of a newer life: nothing more belongs to this chain.
    Newer(Epoch),
}

impl Chain {
    /// Takes the longest run that follows the chain into `run`; duplicates are left out.
    pub(crate) fn take(
        &mut self,
        delivered: &mut impl Iterator<Item = RecordedEvent>,
        run: &mut Vec<RecordedEvent>,
    ) -> Taken {
        for event in delivered {
            if event.position <= self.at {
                continue;
            }
            if event.epoch > self.epoch {
                return Taken::Newer(event.epoch);
            }
            if event.epoch < self.epoch {
                return Taken::Older;
            }
            if event.previous != self.at {
                return Taken::Hole(event.position);
            }
            self.at = event.position;
            run.push(event);
        }
        Taken::All
    }

    /// Takes what the log itself gave, which knows of no holes: the first position that does not
    /// follow, if any. Events of earlier lives belong to it.
    pub(crate) fn take_from_log(&mut self, page: &[RecordedEvent]) -> Result<(), Broken> {
        for event in page {
            if event.epoch > self.epoch {
                return Err(Broken::Newer(event.epoch));
            }
            if event.previous != self.at {
                return Err(Broken::Gap(event.position));
            }
            self.at = event.position;
        }
        Ok(())
    }
}

/// Why a page of the log does not follow a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The log began a new life.
    Newer(Epoch),
    /// The event at this position names another one before it.
    Gap(Position),
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, sync::Arc};

    use millrace_es::{Context, EventId, Metadata, Partition, StreamId, StreamVersion};
    use millrace_kernel::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn event(position: u64, previous: u64, epoch: u64) -> RecordedEvent {
        RecordedEvent {
            id: EventId::generate(),
            context: Context::new("ordering").unwrap(),
            epoch: Epoch::new(epoch),
            position: Position::new(position),
            partition: Partition::new(0),
            previous: Position::new(previous),
            stream: StreamId::new("order-1").unwrap(),
            version: StreamVersion::new(position),
            event_type: Cow::Borrowed("order.created"),
            schema_version: 1,
            payload: serde_json::value::RawValue::from_string("{}".to_owned()).unwrap(),
            metadata: Arc::new(Metadata::default()),
            recorded_at: Timestamp::from(time::OffsetDateTime::UNIX_EPOCH),
        }
    }

    const START: Chain = Chain {
        at: Position::ZERO,
        epoch: Epoch::new(1),
    };

    #[test]
    fn a_hole_is_not_stepped_over() {
        let mut chain = START;
        let mut run = Vec::new();
        let mut delivered = [event(1, 0, 1), event(4, 2, 1)].into_iter();
        assert!(matches!(
            chain.take(&mut delivered, &mut run),
            Taken::Hole(at) if at == Position::new(4)
        ));
        assert_eq!((chain.at, run.len()), (Position::new(1), 1));
    }

    #[test]
    fn events_of_other_lives_are_not_taken_from_the_stream() {
        let mut chain = START;
        let mut run = Vec::new();
        let taken = chain.take(&mut [event(1, 0, 2)].into_iter(), &mut run);
        assert!(matches!(taken, Taken::Newer(_)));
        let taken = chain.take(&mut [event(1, 0, 0)].into_iter(), &mut run);
        assert!(matches!(taken, Taken::Older));
        assert!(run.is_empty());
        assert_eq!(chain.take_from_log(&[event(1, 0, 0)]), Ok(()));
    }

    proptest! {
        /// However a stream delivers (doubled, out of order, with holes), and wherever the log
        /// has to help, what is taken is the log itself, in order, each event once.
        #[test]
        fn any_delivery_leaves_the_log(
            steps in prop::collection::vec(1_u64..4, 1..40),
            deliveries in prop::collection::vec(prop::collection::vec(0_usize..40, 0..12), 0..20),
        ) {
            let mut log = Vec::new();
            let mut at = 0;
            for step in steps {
                log.push(event(at + step, at, 1));
                at += step;
            }
            let read_log = |chain: &mut Chain, through: Position, taken: &mut Vec<u64>| {
                let after = chain.at;
                let page: Vec<_> = log
                    .iter()
                    .filter(|one| one.position > after && one.position <= through)
                    .cloned()
                    .collect();
                chain.take_from_log(&page).unwrap();
                taken.extend(page.iter().map(|one| one.position.get()));
            };
            let mut chain = START;
            let mut taken: Vec<u64> = Vec::new();
            for delivery in deliveries {
                let mut delivered = delivery.into_iter().filter_map(|index| log.get(index).cloned());
                loop {
                    let mut run = Vec::new();
                    let outcome = chain.take(&mut delivered, &mut run);
                    taken.extend(run.iter().map(|one| one.position.get()));
                    match outcome {
                        Taken::All => break,
                        Taken::Hole(through) => read_log(&mut chain, through, &mut taken),
                        Taken::Older | Taken::Newer(_) => unreachable!("one life"),
                    }
                }
            }
            read_log(&mut chain, Position::new(at), &mut taken);
            let whole: Vec<u64> = log.iter().map(|one| one.position.get()).collect();
            prop_assert_eq!(taken, whole);
        }
    }
}
