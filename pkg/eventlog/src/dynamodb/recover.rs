//! Halting a log, and what an operator decides after it.

use std::{collections::HashMap, sync::Arc};

use millrace_es::{NewEvent, RecordedEvent};
use millrace_kernel::Timestamp;

use super::{
    DynamoInline,
    calls::{Expression, Table, Transacted, pause},
    failure::Failure,
    items::{self, EPOCH, HALTED},
    read::Reader,
    transaction::{Cancelled, HeadMove, Transaction},
    values::{Item, PK, number, text},
};
use crate::{
    LogError, LogHead,
    halted::show_halted,
    lane::{
        plan::{Head, Probed, Row, Wanted},
        tail::{as_new, place, streams_of},
    },
};

/// The events of one transaction while a tail is taken back: with as many write-model rows and the
/// head they stay below DynamoDB's 100 items.
const IMPORT_CHUNK_EVENTS: usize = 48;
/// How often a transaction of an import is tried.
const MAX_IMPORT_TRIES: u32 = 10;
/// How often a new epoch is tried while others write.
const MAX_EPOCH_TRIES: u32 = 10;
/// Why appends are refused while a tail is taken back, if the log was not halted before.
const IMPORTING: &str = "a lost tail is being taken back";

/// Changes the head; `None` when the condition does not hold.
async fn change(
    table: &Table,
    change: String,
    condition: String,
    expression: Expression,
) -> Result<Option<Item>, Failure> {
    let values = (!expression.values.is_empty()).then_some(expression.values);
    let update = table
        .updating(items::head_key())
        .update_expression(change)
        .condition_expression(condition)
        .set_expression_attribute_names(Some(expression.names))
        .set_expression_attribute_values(values);
    table.update(update).await
}

/// Stops appends, unless they are stopped already; then the first reason stays.
pub(super) async fn halt(table: &Table, reason: &str) -> Result<(), Failure> {
    let mut expression = Expression::default();
    let halted = expression.name(HALTED);
    let condition = format!(
        "attribute_exists({}) AND attribute_not_exists({halted})",
        expression.name(PK)
    );
    let set = format!("SET {halted} = {}", expression.value(text(reason)));
    change(table, set, condition, expression).await?;
    show_halted(&table.context, true);
    Ok(())
}

pub(super) async fn resume(table: &Table) -> Result<(), Failure> {
    let mut expression = Expression::default();
    let condition = format!("attribute_exists({})", expression.name(PK));
    let remove = format!("REMOVE {}", expression.name(HALTED));
    change(table, remove, condition, expression).await?;
    show_halted(&table.context, false);
    Ok(())
}

/// Starts the next epoch. Repeated after an answer that was lost, it is not started twice.
pub(super) async fn start_epoch(table: &Table) -> Result<(), Failure> {
    let (head, _) = table.head().await?;
    for attempt in 0..MAX_EPOCH_TRIES {
        let mut expression = Expression::default();
        let condition = expression.equals(EPOCH, number(head.epoch));
        let epoch = expression.name(EPOCH);
        let set = format!(
            "SET {epoch} = {} REMOVE {}",
            expression.value(number(head.epoch.next())),
            expression.name(HALTED)
        );
        match change(table, set, condition, expression).await {
            // Where the condition does not hold, the epoch that was to end has ended.
            Ok(_) => return Ok(()),
            Err(Failure::Open(_) | Failure::Passing(_)) if attempt + 1 < MAX_EPOCH_TRIES => {
                pause(attempt).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::passing("the epoch could not be started"))
}

/// Takes a tail back.
///
/// It is judged whole before anything is written. It does not fit into one transaction, so it comes
/// in several, each of which leaves a right log; meanwhile appends are halted. An import that is cut
/// leaves a halted log with a part of its tail: the next one goes on behind it.
pub(super) async fn import(
    reader: &Reader,
    inline: &[Arc<dyn DynamoInline>],
    events: &[RecordedEvent],
) -> Result<LogHead, LogError> {
    let table = &reader.table;
    let (head, _) = table.head().await?;
    let mut probed = probe(table, events, head.clone()).await?;
    let new: Vec<NewEvent> = events.iter().map(as_new).collect();
    for (event, new) in events.iter().zip(&new) {
        let _: Row<'_> = place(&mut probed, event, new)?;
    }
    halt(table, IMPORTING).await?;
    let mut before = Head {
        halted: Some(head.halted.unwrap_or_else(|| IMPORTING.to_owned())),
        ..head
    };
    for chunk in events.chunks(IMPORT_CHUNK_EVENTS) {
        before = write(reader, inline, chunk, before).await?;
    }
    resume(table).await?;
    reader.head().await
}

/// What has to be known to judge a tail: the head, and where its streams end.
async fn probe(table: &Table, events: &[RecordedEvent], head: Head) -> Result<Probed, Failure> {
    let streams = streams_of(events);
    let wanted = Wanted::of(&streams).streams.into_iter();
    let ends = table
        .ends(wanted.map(|(stream, _)| stream.clone()).collect())
        .await?;
    Ok(Probed {
        head,
        streams: ends
            .into_iter()
            .filter_map(|(stream, end)| Some((stream, end?)))
            .collect(),
        answers: HashMap::new(),
        expired: Vec::new(),
        holders: HashMap::new(),
    })
}

/// Writes a part of the tail; in halves where it does not fit into one transaction.
async fn write(
    reader: &Reader,
    inline: &[Arc<dyn DynamoInline>],
    events: &[RecordedEvent],
    mut before: Head,
) -> Result<Head, LogError> {
    let mut left = vec![events];
    while let Some(events) = left.pop() {
        let after = behind(&before, events);
        let mut transaction = Transaction::new(&reader.table.name);
        transaction.head(HeadMove {
            before: &before,
            after: Some(after.clone()),
            halted: before.halted.clone(),
        })?;
        transaction.events(events)?;
        transaction.inline(inline, events)?;
        if transaction.fits() {
            send(reader, transaction, &before, &after).await?;
            before = after;
            continue;
        }
        let Some((first, second)) = halves(events) else {
            return Err(LogError::Corrupt(format!(
                "an event of the tail does not fit into a transaction: {}",
                transaction.too_large()
            )));
        };
        left.push(second);
        left.push(first);
    }
    Ok(before)
}

fn halves(events: &[RecordedEvent]) -> Option<(&[RecordedEvent], &[RecordedEvent])> {
    (events.len() > 1).then(|| events.split_at(events.len() / 2))
}

/// The head behind events that continue it.
fn behind(before: &Head, events: &[RecordedEvent]) -> Head {
    let mut head = before.clone();
    head.guard += 1;
    for event in events {
        head.position = event.position;
        head.recorded_at = head.recorded_at.max(event.recorded_at);
        if let Some(last) = head.partitions.get_mut(usize::from(event.partition.get())) {
            *last = event.position;
        }
    }
    head.now = Timestamp::now();
    head
}

/// Sends a transaction of an import until it is known to be there.
async fn send(
    reader: &Reader,
    transaction: Transaction,
    before: &Head,
    after: &Head,
) -> Result<(), LogError> {
    let Transaction { actions, about, .. } = transaction;
    for attempt in 0..MAX_IMPORT_TRIES {
        let token = format!("{:032x}", rand::random::<u128>());
        match reader.table.transact(actions.clone(), &token).await {
            Ok(Transacted::Done) => return Ok(()),
            Ok(Transacted::Cancelled(reasons)) => match Cancelled::of(&about, &reasons) {
                Ok(_) => {
                    // The one before may have arrived without its answer.
                    let (head, _) = reader.table.head().await?;
                    if attempt > 0 && (head.position, head.guard) == (after.position, after.guard) {
                        return Ok(());
                    }
                    return Err(LogError::Corrupt(format!(
                        "the log of {} moved from {} to {} while a tail was taken back",
                        reader.context, before.position, head.position
                    )));
                }
                Err(failure @ Failure::Data { .. }) => return Err(failure.into()),
                Err(_) => {}
            },
            Err(Failure::Open(_) | Failure::Passing(_)) => {}
            Err(failure) => return Err(failure.into()),
        }
        pause(attempt).await;
    }
    Err(LogError::Unreachable(
        format!(
            "the tail was taken back up to {} only; take the rest back when the store answers again",
            before.position
        )
        .into(),
    ))
}
