use millrace_es::{LogToken, Position};
use millrace_eventlog::LogHead;

use crate::generation::{Checkpoint, Lane};

/// How checkpoints stand against a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Everything the token asks for is there.
    Reached,
    /// Not yet: these lanes have to reach these positions; the least of them is at `reached`.
    Behind {
        targets: Vec<(Lane, Position)>,
        reached: Position,
    },
    /// A bare position that needs the log's head to be judged: lanes without newer events never
    /// reach it by themselves.
    NeedsHead { reached: Position },
    /// The token is of a life of the log that is over.
    EpochOver(millrace_es::Epoch),
    /// No checkpoint of that context.
    Foreign,
}

/// Judges checkpoints against a token. `head` is of the token's context, if it was read.
pub(crate) fn judge(
    token: &LogToken,
    checkpoints: &[Checkpoint],
    head: Option<&LogHead>,
) -> Judgement {
    let own: Vec<&Checkpoint> = checkpoints
        .iter()
        .filter(|one| one.lane.context == token.context)
        .collect();
    let Some(first) = own.first() else {
        return Judgement::Foreign;
    };
    let least = |lanes: &[(Lane, Position)]| {
        lanes
            .iter()
            .map(|(lane, _)| position_of(&own, lane))
            .min()
            .unwrap_or(Position::ZERO)
    };
    let targets: Vec<(Lane, Position)> = if token.partitions.is_empty() {
        let all = own.iter().map(|one| (one.lane.clone(), token.position));
        match head {
            // Below the head nothing can be added, so a lane's newest position says what of the
            // token's range it can hold at most.
            Some(head) if head.position >= token.position && head.epoch == first.epoch => all
                .map(|(lane, wanted)| {
                    let newest = head
                        .partition_positions
                        .get(usize::from(lane.partition.get()));
                    let wanted = newest.map_or(wanted, |newest| wanted.min(*newest));
                    (lane, wanted)
                })
                .collect(),
            _ => {
                let all: Vec<_> = all.collect();
                let reached = all
                    .iter()
                    .all(|(lane, wanted)| position_of(&own, lane) >= *wanted);
                if !reached {
                    return Judgement::NeedsHead {
                        reached: least(&all),
                    };
                }
                all
            }
        }
    } else {
        token
            .partitions
            .iter()
            .map(|(partition, position)| (Lane::new(token.context.clone(), *partition), *position))
            .collect()
    };
    if let Some(epoch) = token.epoch {
        if epoch < first.epoch {
            return Judgement::EpochOver(first.epoch);
        }
        if epoch > first.epoch {
            // The generation of the new life is still being filled.
            return Judgement::Behind {
                reached: least(&targets),
                targets,
            };
        }
    }
    let reached = targets
        .iter()
        .all(|(lane, wanted)| position_of(&own, lane) >= *wanted);
    if reached {
        Judgement::Reached
    } else {
        Judgement::Behind {
            reached: least(&targets),
            targets,
        }
    }
}

fn position_of(checkpoints: &[&Checkpoint], lane: &Lane) -> Position {
    checkpoints
        .iter()
        .find(|one| one.lane == *lane)
        .map_or(Position::ZERO, |one| one.position)
}

/// How far a whole context is in a read model: a partition that has nothing newer than its
/// checkpoint is as far as the head.
pub(crate) fn watermark(
    context: &millrace_es::Context,
    checkpoints: &[Checkpoint],
    head: Option<&LogHead>,
) -> Option<LogToken> {
    let own = || {
        checkpoints
            .iter()
            .filter(|one| one.lane.context == *context)
    };
    let epoch = own().next()?.epoch;
    let head = head.filter(|head| head.epoch == epoch);
    let position = own()
        .map(|one| {
            let idle = head.filter(|head| {
                head.partition_positions
                    .get(usize::from(one.lane.partition.get()))
                    .is_some_and(|newest| *newest <= one.position)
            });
            idle.map_or(one.position, |head| head.position.max(one.position))
        })
        .min()?;
    Some(LogToken {
        context: context.clone(),
        position,
        epoch: Some(epoch),
        partitions: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use millrace_es::{Context, Epoch, Partition, PartitionCount};

    use super::*;

    fn context() -> Context {
        Context::new("ordering").unwrap()
    }

    fn checkpoints(positions: &[u64]) -> Vec<Checkpoint> {
        positions
            .iter()
            .zip(0_u16..)
            .map(|(position, number)| Checkpoint {
                lane: Lane::new(context(), Partition::new(number)),
                position: Position::new(*position),
                epoch: Epoch::new(1),
            })
            .collect()
    }

    fn head(position: u64, partitions: &[u64]) -> LogHead {
        LogHead {
            position: Position::new(position),
            epoch: Epoch::new(1),
            partitions: PartitionCount::new(u16::try_from(partitions.len()).unwrap()).unwrap(),
            partition_positions: partitions.iter().copied().map(Position::new).collect(),
            halted: None,
        }
    }

    fn token(text: &str) -> LogToken {
        text.parse().unwrap()
    }

    #[test]
    fn a_full_token_waits_for_its_partitions_only() {
        let at = checkpoints(&[3, 9, 0]);
        assert_eq!(
            judge(&token("ordering/9~1~1_9"), &at, None),
            Judgement::Reached
        );
        assert!(matches!(
            judge(&token("ordering/10~1~1_10"), &at, None),
            Judgement::Behind { reached, .. } if reached == Position::new(9)
        ));
    }

    #[test]
    fn a_bare_token_takes_idle_partitions_by_the_head() {
        let at = checkpoints(&[3, 9, 0]);
        let bare = token("ordering/9");
        assert!(matches!(
            judge(&bare, &at, None),
            Judgement::NeedsHead { .. }
        ));
        // Partition 0 has nothing above 3 and partition 2 nothing at all.
        assert_eq!(
            judge(&bare, &at, Some(&head(9, &[3, 9, 0]))),
            Judgement::Reached
        );
        // Newer events beyond the token do not matter.
        assert!(matches!(
            judge(&bare, &at, Some(&head(12, &[8, 9, 12]))),
            Judgement::Behind { targets, .. }
                if targets.iter().map(|(_, at)| at.get()).eq([8, 9, 9])
        ));
        // A head below the token says nothing yet.
        assert!(matches!(
            judge(&bare, &at, Some(&head(8, &[3, 8, 0]))),
            Judgement::NeedsHead { .. }
        ));
    }

    #[test]
    fn lives_of_the_log_do_not_compare() {
        let at = checkpoints(&[3, 9, 0]);
        assert_eq!(
            judge(&token("ordering/1~0~0_1"), &at, None),
            Judgement::EpochOver(Epoch::new(1))
        );
        assert!(matches!(
            judge(&token("ordering/1~2~0_1"), &at, None),
            Judgement::Behind { .. }
        ));
        assert_eq!(judge(&token("banking/1"), &at, None), Judgement::Foreign);
    }

    #[test]
    fn the_watermark_is_never_beyond_an_unread_event() {
        let at = checkpoints(&[3, 9, 0]);
        let of = |head: Option<&LogHead>| watermark(&context(), &at, head).unwrap().position.get();
        assert_eq!(of(None), 0);
        assert_eq!(of(Some(&head(9, &[3, 9, 0]))), 9);
        assert_eq!(of(Some(&head(12, &[12, 9, 0]))), 3);
    }
}
