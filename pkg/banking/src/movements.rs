//! What the two views that list movements have in common: a row for every movement of an account,
//! under the version of its event, and one for its opening, so that an account without movements is
//! told from one that does not exist.

use millrace_es::{DecodeError, FoldError, Recorded, RecordedEvent, StreamVersion};
use millrace_kernel::{EntityId, Money, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    account::{
        AccountEvent, AccountId, MovementKind, TransactionId, TransferId, stored::account_event,
    },
    ledger::{check_movement, check_opening},
};

/// A movement on an account, as its lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Transaction {
    /// The movement.
    #[schema(value_type = EntityId)]
    pub transaction_id: TransactionId,
    /// What kind it is.
    pub r#type: MovementKind,
    /// How much moved; above 0, whichever way.
    pub amount: Money,
    /// What was on the account after it.
    pub balance_after: Money,
    /// The other account of a transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<EntityId>)]
    pub counterparty: Option<AccountId>,
    /// The transfer that it is one side of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<EntityId>)]
    pub transfer_id: Option<TransferId>,
    /// What it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When the log took it.
    pub occurred_at: Timestamp,
    /// Its version, by which the lists are paged.
    #[serde(skip)]
    pub version: StreamVersion,
}

/// Names a row: the account, and the version of the event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The account.
    pub account_id: AccountId,
    /// The version of the event.
    pub version: StreamVersion,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The account's opening.
    Opened,
    /// A movement.
    Moved(Transaction),
}

impl Entry {
    /// The movement, if it is one.
    #[must_use]
    pub fn transaction(self) -> Option<Transaction> {
        match self {
            Self::Opened => None,
            Self::Moved(transaction) => Some(transaction),
        }
    }
}

/// Reads an event; a closing moves nothing.
pub(crate) fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
    let event = account_event(event)?;
    Ok(event.filter(|event| !matches!(event, AccountEvent::Closed(_))))
}

/// The row of an event.
pub(crate) fn place(Recorded { event, envelope }: Recorded<'_, AccountEvent>) -> Place {
    Place {
        account_id: event.account_id().clone(),
        version: envelope.version,
    }
}

/// The row that an event makes.
///
/// # Errors
/// [`FoldError`] when no account can have made the event.
pub(crate) fn entry(
    Recorded { event, envelope }: Recorded<'_, AccountEvent>,
) -> Result<Option<Entry>, FoldError> {
    let version = envelope.version;
    let Some(movement) = event.movement() else {
        check_opening(version)?;
        return Ok(Some(Entry::Opened));
    };
    check_movement(&movement)?;
    Ok(Some(Entry::Moved(Transaction {
        transaction_id: movement.transaction_id.clone(),
        r#type: movement.kind,
        amount: movement.amount,
        balance_after: movement.balance,
        counterparty: movement.counterparty.cloned(),
        transfer_id: movement.transfer_id.cloned(),
        description: movement.description.map(str::to_owned),
        occurred_at: envelope.recorded_at,
        version,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deposited, life, recorded};

    fn refused(event: &AccountEvent, version: u64) -> String {
        let envelope = recorded(event, version);
        let recorded = Recorded {
            event,
            envelope: &envelope,
        };
        entry(recorded).unwrap_err().to_string()
    }

    #[test]
    fn what_no_account_can_have_made_is_refused() {
        assert_eq!(refused(&life()[0], 2), "the account was opened before");
        assert_eq!(refused(&deposited("0", "5"), 2), "a movement of 0.00");
        let below = refused(&deposited("2", "1"), 2);
        assert_eq!(below, "a DEPOSIT of 2.00 from -1.00 to 1.00");
    }
}
