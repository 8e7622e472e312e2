//! What an event says about an account's balance, by itself: the rows and items that are kept in
//! the append's own transaction are written from it, without reading what was there.

use millrace_es::{DecodeError, RecordedEvent, StreamVersion};
use millrace_kernel::Money;

use crate::account::{AccountEvent, AccountId, AccountStatus, Currency, stored::account_event};

/// What of an account's balance is known after an event, from the event alone: every movement says
/// the balance after it and happens on an open account only, and an account is closed when nothing
/// is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceAttributes {
    /// The account.
    pub account_id: AccountId,
    /// What is on it.
    pub balance: Money,
    /// What it is kept in, which its opening says; it never changes, so that what is there stays
    /// where this is `None`.
    pub currency: Option<Currency>,
    /// Whether money moves on it.
    pub status: AccountStatus,
    /// The version of the account's stream.
    pub version: StreamVersion,
}

/// What a stored event sets of an account's balance; `None` when it is none of an account.
///
/// # Errors
/// See [`DecodeError`].
pub fn balance_attributes(
    recorded: &RecordedEvent,
) -> Result<Option<BalanceAttributes>, DecodeError> {
    let event = account_event(recorded)?;
    Ok(event.map(|event| BalanceAttributes::after(&event, recorded.version)))
}

impl BalanceAttributes {
    /// What an event sets that made this version.
    #[must_use]
    pub fn after(event: &AccountEvent, version: StreamVersion) -> Self {
        let balance = event.movement().map_or(Money::ZERO, |moved| moved.balance);
        let (currency, status) = match event {
            AccountEvent::Opened(opened) => (Some(opened.currency), AccountStatus::Open),
            AccountEvent::Closed(_) => (None, AccountStatus::Closed),
            AccountEvent::Deposited(_)
            | AccountEvent::Withdrawn(_)
            | AccountEvent::Sent(_)
            | AccountEvent::Received(_) => (None, AccountStatus::Open),
        };
        Self {
            account_id: event.account_id().clone(),
            balance,
            currency,
            status,
            version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::{Account, fixtures as account},
        testing::recorded,
    };
    use millrace_es::Aggregate;

    #[test]
    fn an_event_says_what_the_state_after_it_says() {
        let events = account::events(&[
            account::open(),
            account::deposit("2"),
            account::withdraw("0.50"),
            account::withdraw("1.50"),
            account::close(),
        ]);
        let mut state = Account::default();
        for (version, event) in (1..).zip(&events) {
            state = state.evolve(event);
            let details = state.details().unwrap();
            let said = balance_attributes(&recorded(event, version))
                .unwrap()
                .unwrap();
            assert_eq!(said.account_id, details.opened.account_id);
            assert_eq!(said.balance, details.balance);
            assert_eq!(Some(said.status), state.status());
            assert_eq!(said.version.get(), version);
            let opening = (version == 1).then_some(details.opened.currency);
            assert_eq!(said.currency, opening);
        }
    }
}
