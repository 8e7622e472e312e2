//! Fixtures for tests beside the account's own.

use std::sync::Arc;

use millrace_es::{
    Context, DomainEvent, Epoch, EventId, FoldError, Metadata, Partition, Position, Recorded,
    RecordedEvent, RowProjection, StreamId, StreamVersion,
};
use millrace_kernel::Timestamp;

use crate::account::{AccountEvent, AccountId, MoneyDeposited, TransactionId, fixtures};

/// The events of an account that was opened, got 100.00, gave 30.00, sent 20.00, gave the 50.00
/// that were left, and was closed.
pub(crate) fn life() -> Vec<AccountEvent> {
    let mut events = fixtures::events(&[
        fixtures::open(),
        fixtures::deposit("100"),
        fixtures::withdraw("30"),
    ]);
    let sender = fixtures::after(&[
        fixtures::open(),
        fixtures::deposit("100"),
        fixtures::withdraw("30"),
    ]);
    let receiver = fixtures::holding("a-2", crate::account::Currency::USD, "0");
    let transfer = fixtures::transfer("a-1", "a-2", "20").unwrap();
    let [sent, _] = transfer.decide([&sender, &receiver]).unwrap();
    events.extend(sent);
    let rest = fixtures::events(&[
        fixtures::open(),
        fixtures::deposit("50"),
        fixtures::withdraw("50"),
        fixtures::close(),
    ]);
    events.extend(rest.into_iter().skip(2));
    events
}

/// A deposit of so many cents that is said to lead to a balance.
pub(crate) fn deposited(amount: &str, balance: &str) -> AccountEvent {
    AccountEvent::Deposited(MoneyDeposited {
        account_id: AccountId::new(fixtures::id("a-1")),
        transaction_id: TransactionId::new(fixtures::id("t-9")),
        amount: fixtures::money(amount),
        balance: fixtures::money(balance),
        description: None,
    })
}

/// When the event of this version happened: noon of a day of its own for every two versions.
pub(crate) fn at(version: u64) -> Timestamp {
    let day = 1 + version / 2;
    format!("2026-01-{day:02}T12:00:00.000001Z")
        .parse()
        .unwrap()
}

/// An event as the log would hold it at this version of its stream.
pub(crate) fn recorded(event: &AccountEvent, version: u64) -> RecordedEvent {
    RecordedEvent {
        id: EventId::new(uuid::Uuid::from_u128(u128::from(version))),
        context: Context::new(crate::CONTEXT).unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(version),
        partition: Partition::new(1),
        previous: Position::new(version - 1),
        stream: StreamId::of("account", event.account_id().get()),
        version: StreamVersion::new(version),
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode().unwrap(),
        metadata: Arc::new(Metadata::default()),
        recorded_at: at(version),
    }
}

/// Folds one event into a row.
pub(crate) fn fold<P: RowProjection<Event = AccountEvent>>(
    row: Option<P::Row>,
    event: &AccountEvent,
    version: u64,
) -> Result<Option<P::Row>, FoldError> {
    let envelope = recorded(event, version);
    P::fold(
        row,
        Recorded {
            event,
            envelope: &envelope,
        },
    )
}

/// Folds events of one row, from version 1.
pub(crate) fn folded<P: RowProjection<Event = AccountEvent>>(
    events: &[AccountEvent],
) -> Option<P::Row> {
    (1..).zip(events).fold(None, |row, (version, event)| {
        fold::<P>(row, event, version).unwrap()
    })
}
