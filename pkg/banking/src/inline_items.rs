//! The balance of each account as an item of the event log in DynamoDB, kept in the append's own
//! transaction, and its reader.

use std::{error::Error, str::FromStr, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::{RecordedEvent, StreamVersion};
use millrace_eventlog::{
    LogError,
    dynamodb::{DynamoEventLog, DynamoInline, InlineChange, Item},
};

use crate::{
    account::AccountId, balance::balance_attributes, strong_balance::StrongBalance,
    views::account_balance::BalanceRow,
};

/// The items of the table `accounts`.
#[derive(Debug)]
pub struct AccountItems;

const TABLE: &str = "accounts";
const BALANCE: &str = "balance";
const CURRENCY: &str = "currency";
const STATUS: &str = "status";
const VERSION: &str = "version";

impl DynamoInline for AccountItems {
    fn change(
        &self,
        event: &RecordedEvent,
    ) -> Result<Option<InlineChange>, Box<dyn Error + Send + Sync>> {
        let Some(now) = balance_attributes(event)? else {
            return Ok(None);
        };
        let text = |text: String| AttributeValue::S(text);
        let mut set = Item::from([
            (BALANCE.to_owned(), text(now.balance.to_string())),
            (STATUS.to_owned(), text(now.status.to_string())),
            (
                VERSION.to_owned(),
                AttributeValue::N(now.version.to_string()),
            ),
        ]);
        if let Some(currency) = now.currency {
            set.insert(CURRENCY.to_owned(), text(currency.to_string()));
        }
        Ok(Some(InlineChange {
            table: TABLE,
            key: now.account_id.to_string(),
            set,
        }))
    }
}

/// The balance items of a log in DynamoDB.
#[derive(Debug, Clone)]
pub struct DynamoBalances {
    log: Arc<DynamoEventLog>,
}

impl DynamoBalances {
    /// Reads from a log.
    #[must_use]
    pub const fn new(log: Arc<DynamoEventLog>) -> Self {
        Self { log }
    }
}

#[async_trait]
impl StrongBalance for DynamoBalances {
    async fn balance(&self, id: &AccountId) -> Result<Option<BalanceRow>, LogError> {
        let item = self.log.inline_item(TABLE, id.as_str()).await?;
        item.map(|item| read(id, &item)).transpose()
    }
}

fn read(id: &AccountId, item: &Item) -> Result<BalanceRow, LogError> {
    Ok(BalanceRow {
        account_id: id.clone(),
        balance: attribute(id, item, BALANCE)?,
        currency: attribute(id, item, CURRENCY)?,
        status: attribute(id, item, STATUS)?,
        version: attribute::<StreamVersion>(id, item, VERSION)?,
    })
}

fn attribute<T: FromStr>(id: &AccountId, item: &Item, name: &str) -> Result<T, LogError> {
    let text = match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => Some(text),
        _ => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        LogError::Corrupt(format!(
            "the balance item of account {id} has no {name} that can be read"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{life, recorded};

    #[test]
    fn an_item_that_all_events_went_through_says_what_the_last_one_left() {
        let (items, mut item) = (AccountItems, Item::new());
        let events = life();
        for (version, event) in (1..).zip(&events) {
            let event = recorded(event, version);
            let change = items.change(&event).unwrap().unwrap();
            assert_eq!(change.table, TABLE);
            item.extend(change.set);
            let row = read(&AccountId::new(change.key.parse().unwrap()), &item).unwrap();
            let wanted = balance_attributes(&event).unwrap().unwrap();
            assert_eq!((row.balance, row.status), (wanted.balance, wanted.status));
            assert_eq!(row.version.get(), version);
        }
        item.remove(CURRENCY);
        let id = AccountId::new("a".parse().unwrap());
        assert!(matches!(read(&id, &item), Err(LogError::Corrupt(_))));
    }
}
