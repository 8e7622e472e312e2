//! How an account stands after an event, as the rows of several views keep it, and what an event
//! has to agree with.
//!
//! Every event of a movement says the balance after it, so a row never adds up by itself; what it
//! has already is there to be compared. An event that contradicts its row can only come from a log
//! that somebody else wrote into: it is a dead letter. Once an operator has discarded one, the next
//! event does not follow the row directly, and the row takes what that event says.

use millrace_es::{FoldError, Recorded, StreamVersion};
use millrace_kernel::Money;

use crate::account::{AccountEvent, AccountStatus, Movement};

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What is on it.
    pub(crate) balance: Money,
    /// Whether it takes movements.
    pub(crate) status: AccountStatus,
    /// The version of its stream.
    pub(crate) version: StreamVersion,
}

/// The version of the event that opens an account.
const FIRST: StreamVersion = StreamVersion::new(1);

impl Standing {
    /// How the account stands after an event.
    ///
    /// # Errors
    /// [`FoldError`] when the event contradicts how it stood.
    pub(crate) fn after(
        before: Option<Self>,
        Recorded { event, envelope }: Recorded<'_, AccountEvent>,
    ) -> Result<Self, FoldError> {
        let version = envelope.version;
        if matches!(event, AccountEvent::Opened(_)) {
            check_opening(version)?;
            return Ok(Self {
                balance: Money::ZERO,
                status: AccountStatus::Open,
                version,
            });
        }
        let before = before.ok_or_else(|| FoldError::new("the account was never opened"))?;
        check_order(before.version, version)?;
        if before.status == AccountStatus::Closed {
            return Err(FoldError::new("the account was closed before"));
        }
        let follows = version == before.version.next();
        let Some(movement) = event.movement() else {
            if follows && before.balance != Money::ZERO {
                let balance = before.balance;
                let reason = format!("the account was closed with {balance} on it");
                return Err(FoldError::new(reason));
            }
            return Ok(Self {
                balance: Money::ZERO,
                status: AccountStatus::Closed,
                version,
            });
        };
        let from = check_movement(&movement)?;
        if follows {
            check_balance(before.balance, from)?;
        }
        Ok(Self {
            balance: movement.balance,
            version,
            ..before
        })
    }
}

/// Refuses an opening that is not the first event of its account.
///
/// # Errors
/// [`FoldError`] when it is not.
pub(crate) fn check_opening(version: StreamVersion) -> Result<(), FoldError> {
    if version == FIRST {
        return Ok(());
    }
    Err(FoldError::new("the account was opened before"))
}

/// Refuses an event that a row has seen.
///
/// # Errors
/// [`FoldError`] when it has.
pub(crate) fn check_order(seen: StreamVersion, version: StreamVersion) -> Result<(), FoldError> {
    if version > seen {
        return Ok(());
    }
    let reason = format!("version {version} comes after version {seen} of the account");
    Err(FoldError::new(reason))
}

/// Refuses a movement that does not begin where the one before it ended.
///
/// # Errors
/// [`FoldError`] when it does not.
pub(crate) fn check_balance(before: Money, from: Money) -> Result<(), FoldError> {
    if before == from {
        return Ok(());
    }
    let reason = format!("the movement begins at {from} and the account is at {before}");
    Err(FoldError::new(reason))
}

/// The balance from which a movement led to the one that it names.
///
/// # Errors
/// [`FoldError`] when no account can have made it: nothing moves, or there is less than nothing
/// before or after it.
pub(crate) fn check_movement(movement: &Movement<'_>) -> Result<Money, FoldError> {
    let Movement {
        kind,
        amount,
        balance,
        ..
    } = *movement;
    if amount <= Money::ZERO {
        return Err(FoldError::new(format!("a movement of {amount}")));
    }
    let from = if kind.is_credit() {
        balance.checked_sub(amount)
    } else {
        balance.checked_add(amount)
    };
    let from = from.ok_or_else(|| FoldError::new("the balance is too large"))?;
    if balance < Money::ZERO || from < Money::ZERO {
        let reason = format!("a {kind} of {amount} from {from} to {balance}");
        return Err(FoldError::new(reason));
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deposited, life, recorded};

    fn after(
        before: Option<Standing>,
        event: &AccountEvent,
        version: u64,
    ) -> Result<Standing, String> {
        let envelope = recorded(event, version);
        let recorded = Recorded {
            event,
            envelope: &envelope,
        };
        Standing::after(before, recorded).map_err(|error| error.to_string())
    }

    /// How the account of [`life`] stands after so many of its events.
    fn stands(upto: usize) -> Option<Standing> {
        let events = life();
        (1..)
            .zip(&events[..upto])
            .fold(None, |before, (version, event)| {
                Some(after(before, event, version).unwrap())
            })
    }

    #[test]
    fn an_account_stands_as_its_events_say() {
        let balances = ["0.00", "100.00", "70.00", "50.00", "0.00", "0.00"];
        for (upto, balance) in (1..).zip(balances) {
            let standing = stands(upto).unwrap();
            assert_eq!(standing.balance.to_string(), balance);
            assert_eq!(standing.version.get(), upto as u64);
            assert_eq!(standing.status == AccountStatus::Closed, upto == 6);
        }
    }

    #[test]
    fn what_contradicts_the_row_is_refused_with_its_reason() {
        let (opened, closed) = (&life()[0], &life()[5]);
        for (upto, event, version, reason) in [
            (0, deposited("1", "1"), 2, "the account was never opened"),
            (2, opened.clone(), 3, "the account was opened before"),
            (6, deposited("1", "1"), 7, "the account was closed before"),
            (6, closed.clone(), 7, "the account was closed before"),
            (
                2,
                closed.clone(),
                3,
                "the account was closed with 100.00 on it",
            ),
            (
                2,
                deposited("1", "102"),
                3,
                "the movement begins at 101.00 and the account is at 100.00",
            ),
            (
                2,
                deposited("1", "101"),
                2,
                "version 2 comes after version 2 of the account",
            ),
            (2, deposited("0", "100"), 3, "a movement of 0.00"),
            (2, deposited("-1", "99"), 3, "a movement of -1.00"),
            (
                2,
                deposited("2", "1"),
                3,
                "a DEPOSIT of 2.00 from -1.00 to 1.00",
            ),
        ] {
            let refused = after(stands(upto), &event, version);
            assert_eq!(refused.unwrap_err(), reason);
        }
    }

    #[test]
    fn after_a_discarded_event_the_next_one_is_believed() {
        let standing = after(stands(2), &deposited("1", "500"), 4).unwrap();
        assert_eq!(standing.balance.to_string(), "500.00");
        assert_eq!(standing.version.get(), 4);
    }
}
