//! A batch as one transaction: the head, and with it everything that the batch changes.
//!
//! DynamoDB takes 100 actions and 4 MB in a transaction and each item once in it, so what changes
//! one item several times is one action here.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Put, TransactWriteItem, Update,
};
use millrace_es::{Context, RecordedEvent, StreamId, StreamVersion};

use super::{
    DynamoInline,
    calls::{Expression, defect},
    failure::{Failure, Said},
    items,
    limits::{ANSWER_SECONDS, MAX_ITEM_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_ITEMS},
    values::{Item, PK, item_bytes, number, text},
};
use crate::{
    StoredAnswer,
    lane::{
        SharedError,
        plan::{Head, Plan},
    },
};

/// What an action of the transaction is about, to understand why it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    Head,
    Stream(StreamId),
    Answer([u8; 32]),
    Name,
    Inline,
}

/// A transaction that is being put together.
#[derive(Debug)]
pub(super) struct Transaction {
    table: String,
    pub actions: Vec<TransactWriteItem>,
    pub about: Vec<About>,
    bytes: usize,
}

/// What is to become of the head.
pub(super) struct HeadMove<'a> {
    /// As it has to be.
    pub before: &'a Head,
    /// As it is to become; `None` to leave it and only hold it against the condition.
    pub after: Option<Head>,
    /// Whether a halt is lifted with it, or stands.
    pub halted: Option<String>,
}

impl Transaction {
    pub(super) fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            actions: Vec::new(),
            about: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether DynamoDB would take it.
    pub(super) fn fits(&self) -> bool {
        self.actions.len() <= MAX_TRANSACTION_ITEMS && self.bytes <= MAX_TRANSACTION_BYTES
    }

    /// Why it does not fit, for whoever is alone in it.
    pub(super) fn too_large(&self) -> String {
        format!(
            "with its write-model rows it changes {} items of {} bytes; a transaction of DynamoDB \
             takes {MAX_TRANSACTION_ITEMS} items and {MAX_TRANSACTION_BYTES} bytes",
            self.actions.len(),
            self.bytes
        )
    }

    /// How many of `count` requests to try instead: fewer, at least one.
    pub(super) fn share_that_fits(&self, count: usize) -> usize {
        let items = count * MAX_TRANSACTION_ITEMS / self.actions.len().max(1);
        let bytes = count * MAX_TRANSACTION_BYTES / self.bytes.max(1);
        items.min(bytes).min(count - 1).max(1)
    }

    fn push(&mut self, about: About, action: TransactWriteItem) {
        self.actions.push(action);
        self.about.push(about);
    }

    /// A put under a condition, which `expression` holds the values of.
    fn put(
        &mut self,
        about: About,
        item: Item,
        condition: String,
        expression: Expression,
    ) -> Result<(), Failure> {
        let bytes = item_bytes(&item);
        if bytes > MAX_ITEM_BYTES {
            return Err(Failure::data(format!(
                "one of its items would have {bytes} bytes; DynamoDB takes {MAX_ITEM_BYTES}"
            )));
        }
        self.bytes += bytes;
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition)
            .set_expression_attribute_names(some(expression.names))
            .set_expression_attribute_values(some(expression.values))
            .build()
            .map_err(defect)?;
        self.push(about, TransactWriteItem::builder().put(put).build());
        Ok(())
    }

    /// A put where nothing is.
    fn put_new(&mut self, about: About, item: Item) -> Result<(), Failure> {
        let mut expression = Expression::default();
        let condition = format!("attribute_not_exists({})", expression.name(PK));
        self.put(about, item, condition, expression)
    }

    fn check(
        &mut self,
        about: About,
        key: Item,
        condition: String,
        expression: Expression,
    ) -> Result<(), Failure> {
        self.bytes += item_bytes(&key);
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key))
            .condition_expression(condition)
            .set_expression_attribute_names(some(expression.names))
            .set_expression_attribute_values(some(expression.values))
            .build()
            .map_err(defect)?;
        self.push(
            about,
            TransactWriteItem::builder().condition_check(check).build(),
        );
        Ok(())
    }

    fn update(
        &mut self,
        about: About,
        key: Item,
        change: String,
        condition: Option<String>,
        expression: Expression,
    ) -> Result<(), Failure> {
        self.bytes += item_bytes(&key);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key))
            .update_expression(change)
            .set_condition_expression(condition)
            .set_expression_attribute_names(some(expression.names))
            .set_expression_attribute_values(some(expression.values))
            .build()
            .map_err(defect)?;
        self.push(about, TransactWriteItem::builder().update(update).build());
        Ok(())
    }

    /// Moves the head, or only holds it to what the batch was decided on.
    pub(super) fn head(&mut self, head: HeadMove<'_>) -> Result<(), Failure> {
        let mut expression = Expression::default();
        let condition = expression.head_is(head.before);
        let Some(after) = head.after else {
            return self.check(About::Head, items::head_key(), condition, expression);
        };
        let mut change = [
            expression.equals(items::POSITION, number(after.position)),
            expression.equals(items::GUARD, number(after.guard)),
            expression.equals(
                items::PARTITION_POSITIONS,
                items::positions(&after.partitions),
            ),
            expression.equals(items::RECORDED_AT, text(after.recorded_at.to_string())),
        ]
        .join(", ");
        change.insert_str(0, "SET ");
        match head.halted {
            Some(reason) => {
                change.push_str(", ");
                change.push_str(&expression.equals(items::HALTED, text(reason)));
            }
            None if head.before.halted.is_some() => {
                change.push_str(" REMOVE ");
                change.push_str(&expression.name(items::HALTED));
            }
            None => {}
        }
        // A list of up to 256 numbers.
        self.bytes += item_bytes(&items::head_item(&after));
        self.update(
            About::Head,
            items::head_key(),
            change,
            Some(condition),
            expression,
        )
    }

    /// Puts events where none are.
    pub(super) fn events(&mut self, events: &[RecordedEvent]) -> Result<(), Failure> {
        for event in events {
            let item = items::event_item(event).map_err(defect)?;
            self.put_new(About::Stream(event.stream.clone()), item)?;
        }
        Ok(())
    }

    /// Holds streams that the batch appends nothing to, to the version they were decided on.
    pub(super) fn ends(&mut self, ends: &[(&StreamId, StreamVersion)]) -> Result<(), Failure> {
        for (stream, version) in ends {
            let mut expression = Expression::default();
            let condition = format!("attribute_not_exists({})", expression.name(PK));
            let key = items::event_key(stream, version.next());
            self.check(About::Stream((*stream).clone()), key, condition, expression)?;
        }
        Ok(())
    }

    /// Keeps answers under keys that are free, or have expired.
    pub(super) fn answers(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        // What recorded the events also tells the age of answers: one clock for both.
        let now = plan.before.now.get().unix_timestamp();
        for kept in &plan.kept {
            let stored = StoredAnswer {
                key: *kept.key,
                answer: kept.answer.clone(),
                token: kept.token.clone(),
            };
            let item = items::answer_item(&stored, now + ANSWER_SECONDS).map_err(defect)?;
            let mut expression = Expression::default();
            let condition = format!(
                "attribute_not_exists({}) OR {} <= {}",
                expression.name(PK),
                expression.name(items::EXPIRES),
                expression.value(number(now))
            );
            self.put(
                About::Answer(kept.key.key_hash),
                item,
                condition,
                expression,
            )?;
        }
        Ok(())
    }

    /// Claims and gives back names. One that goes from hand to hand is one put.
    pub(super) fn names(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        for ((scope, value), holder) in &plan.claims {
            let before = plan.releases.iter().find(|(name, _)| {
                (name.0.as_str(), name.1.as_str()) == (scope.as_str(), value.as_str())
            });
            let mut item = items::name_key(scope, value);
            item.insert(items::HOLDER.to_owned(), text(holder.as_str()));
            match before {
                None => self.put_new(About::Name, item)?,
                Some((_, before)) => {
                    let mut expression = Expression::default();
                    let condition = expression.equals(items::HOLDER, text(before.as_str()));
                    self.put(About::Name, item, condition, expression)?;
                }
            }
        }
        for (name, holder) in &plan.releases {
            if plan.claims.iter().any(|(claimed, _)| claimed == name) {
                continue;
            }
            let mut expression = Expression::default();
            let condition = expression.equals(items::HOLDER, text(holder.as_str()));
            let key = items::name_key(&name.0, &name.1);
            self.bytes += item_bytes(&key);
            let delete = Delete::builder()
                .table_name(&self.table)
                .set_key(Some(key))
                .condition_expression(condition)
                .set_expression_attribute_names(some(expression.names))
                .set_expression_attribute_values(some(expression.values))
                .build()
                .map_err(defect)?;
            self.push(
                About::Name,
                TransactWriteItem::builder().delete(delete).build(),
            );
        }
        Ok(())
    }

    /// Sets what events change in the write model: one action an item, the later event's
    /// attributes over the earlier one's.
    pub(super) fn inline(
        &mut self,
        tables: &[Arc<dyn DynamoInline>],
        events: &[RecordedEvent],
    ) -> Result<(), Failure> {
        let mut rows: BTreeMap<(&'static str, String), Item> = BTreeMap::new();
        for event in events {
            for table in tables {
                let change = table.change(event).map_err(|error| {
                    let reason = format!(
                        "its {} does not fit the write model: {error}",
                        event.event_type
                    );
                    Failure::Data {
                        error: SharedError::new(Said(reason.clone())),
                        reason,
                    }
                })?;
                if let Some(change) = change {
                    let row = rows.entry((change.table, change.key)).or_default();
                    row.extend(change.set);
                }
            }
        }
        for ((table, key), set) in rows {
            self.row(items::inline_key(table, &key), set)?;
        }
        Ok(())
    }

    fn row(&mut self, key: Item, set: Item) -> Result<(), Failure> {
        if set.keys().any(|name| key.contains_key(name)) {
            return Err(Failure::data(
                "a write-model row sets the key of its item; name the attribute otherwise"
                    .to_owned(),
            ));
        }
        let bytes = item_bytes(&set);
        if bytes > MAX_ITEM_BYTES {
            return Err(Failure::data(format!(
                "a write-model row would have {bytes} bytes; DynamoDB takes {MAX_ITEM_BYTES}"
            )));
        }
        if set.is_empty() {
            return Ok(());
        }
        self.bytes += bytes;
        let mut expression = Expression::default();
        let changes: Vec<String> = set
            .into_iter()
            .map(|(name, value)| expression.equals(&name, value))
            .collect();
        let change = format!("SET {}", changes.join(", "));
        self.update(About::Inline, key, change, None, expression)
    }
}

fn some<T>(
    map: std::collections::HashMap<String, T>,
) -> Option<std::collections::HashMap<String, T>> {
    (!map.is_empty()).then_some(map)
}

/// Why a transaction was cancelled.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    /// The head is not where the batch was decided.
    pub head: bool,
    /// These streams have more events than the batch was decided on.
    pub streams: HashSet<StreamId>,
    /// These keys are taken.
    pub keys: HashSet<[u8; 32]>,
    /// A name is not held as it was read.
    pub names: bool,
}

impl Cancelled {
    /// Sorts the reasons; each belongs to the action of its number.
    ///
    /// # Errors
    /// When it is no condition that failed: a conflict or throttling that passes, or bad data.
    pub(super) fn of(about: &[About], reasons: &[CancellationReason]) -> Result<Self, Failure> {
        let mut cancelled = Self::default();
        let mut passing = None;
        for (about, reason) in about.iter().zip(reasons) {
            let said = || reason.message().unwrap_or_default().to_owned();
            match (reason.code(), about) {
                (None | Some("None"), _) => {}
                (Some("ConditionalCheckFailed"), About::Head) => cancelled.head = true,
                (Some("ConditionalCheckFailed"), About::Stream(stream)) => {
                    cancelled.streams.insert(stream.clone());
                }
                (Some("ConditionalCheckFailed"), About::Answer(key)) => {
                    cancelled.keys.insert(*key);
                }
                (Some("ConditionalCheckFailed"), About::Name | About::Inline) => {
                    cancelled.names = true;
                }
                (Some("ValidationError" | "ItemCollectionSizeLimitExceeded"), _) => {
                    return Err(Failure::data(said()));
                }
                (Some(code), _) => passing = Some(format!("{code} {}", said())),
            }
        }
        if cancelled.is_empty() {
            let what = passing.unwrap_or_else(|| "no reason was given".to_owned());
            return Err(Failure::passing(format!(
                "the transaction was cancelled: {what}"
            )));
        }
        Ok(cancelled)
    }

    fn is_empty(&self) -> bool {
        !self.head && self.streams.is_empty() && self.keys.is_empty() && !self.names
    }
}

/// The whole of a plan as a transaction. `ends` are streams that it relies on and does not change.
pub(super) fn of_plan(
    table: &str,
    context: &Context,
    plan: &Plan<'_>,
    ends: &[(&StreamId, StreamVersion)],
    inline: &[Arc<dyn DynamoInline>],
) -> Result<Transaction, Failure> {
    let mut transaction = Transaction::new(table);
    let after = (!plan.rows.is_empty()).then(|| Head {
        position: plan.position,
        partitions: plan.partitions.clone(),
        recorded_at: plan.recorded_at,
        ..plan.before.clone()
    });
    transaction.head(HeadMove {
        before: &plan.before,
        after,
        halted: None,
    })?;
    let events = plan.recorded(context);
    transaction.events(&events)?;
    transaction.ends(ends)?;
    transaction.answers(plan)?;
    transaction.names(plan)?;
    transaction.inline(inline, &events)?;
    Ok(transaction)
}
