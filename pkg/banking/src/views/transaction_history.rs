//! What moved on an account of late? Answered from DynamoDB, the newest movement first.
//!
//! An item per movement under its account, sorted by version: a page goes on below the version it
//! ended at, so that new movements, which come above all others, disturb no page.

use std::{collections::HashMap, time::Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::{extract::State, response::Response};
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_http::{List, ListParams, NoQuery, Page, PathId, Problem};
use millrace_kernel::EntityId;
use millrace_projecting::{
    BadItem, Descending, DynamoRows, Item, KeyAttribute, Origin, TableDefinition, attribute,
};
use millrace_querying::{from_dynamodb, observe, unreadable};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    account::{AccountEvent, AccountId, TransactionId, TransferId},
    movements::{self, Entry, Place, Transaction},
    problems::not_found,
    queries::QueryState,
};

// --------------------------------------------------------------------------------------- fold

/// The projection `transaction-history`.
#[derive(Debug)]
pub struct TransactionHistory;

impl Projection for TransactionHistory {
    const NAME: &'static str = "transaction-history";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        movements::decode(event)
    }
}

impl RowProjection for TransactionHistory {
    type Key = Place;
    type Row = Entry;

    fn key(recorded: Recorded<'_, AccountEvent>) -> Place {
        movements::place(recorded)
    }

    /// Every event makes a row of its own.
    fn starts(_: &AccountEvent) -> bool {
        true
    }

    fn fold(
        _: Option<Entry>,
        recorded: Recorded<'_, AccountEvent>,
    ) -> Result<Option<Entry>, FoldError> {
        movements::entry(recorded)
    }
}

// -------------------------------------------------------------------------------------- table

const ACCOUNT: &str = "account_id";
const VERSION: &str = "version";
const TYPE: &str = "type";
const TRANSACTION: &str = "transaction_id";
const AMOUNT: &str = "amount";
const BALANCE: &str = "balance_after";
const COUNTERPARTY: &str = "counterparty";
const TRANSFER: &str = "transfer_id";
const DESCRIPTION: &str = "description";
const OCCURRED: &str = "occurred_at";

/// The type of the item that an account's opening makes. No movement is called that.
const OPENED: &str = "OPENED";

fn number(version: StreamVersion) -> AttributeValue {
    AttributeValue::N(version.to_string())
}

impl DynamoRows for TransactionHistory {
    const ORIGIN: Option<Origin> = Some(Origin {
        column: ACCOUNT,
        prefix: "account-",
    });

    const TABLE: TableDefinition = TableDefinition {
        partition_key: KeyAttribute::text(ACCOUNT),
        sort_key: Some(KeyAttribute::number(VERSION)),
        local_indexes: &[],
        global_indexes: &[],
    };

    fn item_key(key: &Place) -> Item {
        HashMap::from([
            (
                ACCOUNT.to_owned(),
                AttributeValue::S(key.account_id.to_string()),
            ),
            (VERSION.to_owned(), number(key.version)),
        ])
    }

    fn to_item(_: &Place, row: &Entry) -> Item {
        let text = |value: &dyn ToString| AttributeValue::S(value.to_string());
        let Entry::Moved(row) = row else {
            return HashMap::from([(TYPE.to_owned(), text(&OPENED))]);
        };
        let mut item = HashMap::from([
            (TYPE.to_owned(), text(&row.r#type)),
            (TRANSACTION.to_owned(), text(&row.transaction_id)),
            (AMOUNT.to_owned(), AttributeValue::N(row.amount.to_string())),
            (
                BALANCE.to_owned(),
                AttributeValue::N(row.balance_after.to_string()),
            ),
            (OCCURRED.to_owned(), text(&row.occurred_at)),
        ]);
        let optional: [(&str, Option<&dyn ToString>); 3] = [
            (COUNTERPARTY, row.counterparty.as_ref().map(|id| id as _)),
            (TRANSFER, row.transfer_id.as_ref().map(|id| id as _)),
            (DESCRIPTION, row.description.as_ref().map(|text| text as _)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                item.insert(name.to_owned(), text(value));
            }
        }
        item
    }

    fn from_item(item: &Item) -> Result<Entry, BadItem> {
        fn optional(item: &Item, name: &str) -> Result<Option<EntityId>, BadItem> {
            item.contains_key(name)
                .then(|| attribute(item, name))
                .transpose()
        }
        let kind: String = attribute(item, TYPE)?;
        if kind == OPENED {
            return Ok(Entry::Opened);
        }
        let description = item.get(DESCRIPTION).and_then(|text| text.as_s().ok());
        Ok(Entry::Moved(Transaction {
            transaction_id: TransactionId::new(attribute(item, TRANSACTION)?),
            r#type: kind.parse().map_err(|_| BadItem::at(TYPE))?,
            amount: attribute(item, AMOUNT)?,
            balance_after: attribute(item, BALANCE)?,
            counterparty: optional(item, COUNTERPARTY)?.map(AccountId::new),
            transfer_id: optional(item, TRANSFER)?.map(TransferId::new),
            description: description.cloned(),
            occurred_at: attribute(item, OCCURRED)?,
            version: attribute(item, VERSION)?,
        }))
    }
}

// ------------------------------------------------------------------------------------- routes

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list_account_transactions))
}

/// List the movements on an account
///
/// The newest first. For a range of time or one kind of movement, see the account's statement.
#[utoipa::path(
    get, path = "/accounts/{id}/transactions", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ListParams),
    responses((status = 200, description = "A page of movements.", body = Page<Transaction>)),
)]
async fn list_account_transactions(
    State(state): State<QueryState>,
    PathId(id): PathId,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let context = state.log.context();
    let (reader, token) =
        from_dynamodb(&state.transaction_history, context, list.consistency).await?;
    let below = list.page.after::<StreamVersion>()?;
    let started = Instant::now();
    let found = reader
        .descending::<TransactionHistory>(
            AttributeValue::S(id.to_string()),
            below.map(number),
            list.page.limit + 1,
        )
        .await;
    observe("dynamodb", "account_transactions", started);
    let Descending { rows, unread } = found.map_err(|error| unreadable(error, None))?;
    if rows.is_empty() && below.is_none() {
        return Err(not_found(&AccountId::new(id)));
    }
    // The opening stands below all movements: without it a page is the last one all the same.
    let rows = rows.into_iter().filter_map(Entry::transaction).collect();
    let mut page = list.page.page(rows, |row: &Transaction| row.version)?;
    if let (None, Some(AttributeValue::N(version))) = (&page.next_cursor, unread) {
        let version: StreamVersion = version.parse().map_err(Problem::internal)?;
        page.next_cursor = Some(list.page.cursor(&version)?);
    }
    list.reading.page(&page, token.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, fold, life, recorded};

    #[test]
    fn every_movement_is_a_row_of_its_own_and_so_is_the_opening() {
        let events = life();
        let rows: Vec<Entry> = (1..)
            .zip(&events[..5])
            .map(|(version, event)| {
                fold::<TransactionHistory>(None, event, version)
                    .unwrap()
                    .unwrap()
            })
            .collect();
        assert_eq!(rows[0], Entry::Opened);
        let Entry::Moved(sent) = &rows[3] else {
            panic!("a movement");
        };
        assert_eq!(
            serde_json::to_value(sent).unwrap(),
            serde_json::json!({
                "transaction_id": "t-1",
                "type": "TRANSFER_SENT",
                "amount": "20.00",
                "balance_after": "50.00",
                "counterparty": "a-2",
                "transfer_id": "x-1",
                "description": "dinner",
                "occurred_at": at(4).to_string(),
            })
        );
        // A closing says nothing here.
        let closing = recorded(&events[5], 6);
        assert!(TransactionHistory::decode(&closing).unwrap().is_none());
    }

    #[test]
    fn a_row_comes_back_from_its_item() {
        for (version, event) in (1..).zip(&life()[..5]) {
            let row = fold::<TransactionHistory>(None, event, version);
            let row = row.unwrap().unwrap();
            let envelope = recorded(event, version);
            let place = TransactionHistory::key(Recorded {
                event,
                envelope: &envelope,
            });
            let mut item = TransactionHistory::to_item(&place, &row);
            item.extend(TransactionHistory::item_key(&place));
            assert_eq!(TransactionHistory::from_item(&item), Ok(row));
            item.remove(TYPE);
            assert_eq!(TransactionHistory::from_item(&item), Err(BadItem::at(TYPE)));
        }
    }
}
