//! How much is on an account? Answered from DynamoDB, an item per account.

use std::{collections::HashMap, time::Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::{extract::State, response::Response};
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_http::{Consistency, NoQuery, PathId, Problem, StrongRead, StrongReadParams};
use millrace_kernel::{EntityId, Money};
use millrace_projecting::{
    BadItem, DynamoRows, Item, KeyAttribute, Origin, TableDefinition, attribute,
};
use millrace_querying::{from_dynamodb, head_token, observe, unreadable};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    account::{AccountEvent, AccountId, AccountStatus, Currency, stored::account_event},
    ledger::Standing,
    problems::not_found,
    queries::QueryState,
};

// ---------------------------------------------------------------------------------------- row

/// What is on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AccountBalance)]
pub struct BalanceRow {
    /// The account.
    #[schema(value_type = EntityId)]
    pub account_id: AccountId,
    /// What is on it; never below 0.
    pub balance: Money,
    /// What it is kept in.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    pub currency: Currency,
    /// Whether money moves on it.
    pub status: AccountStatus,
    /// The version of its stream.
    #[schema(value_type = u64)]
    pub version: StreamVersion,
}

impl BalanceRow {
    const fn standing(&self) -> Standing {
        Standing {
            balance: self.balance,
            status: self.status,
            version: self.version,
        }
    }
}

// --------------------------------------------------------------------------------------- fold

/// The projection `account-balance`.
#[derive(Debug)]
pub struct AccountBalance;

impl Projection for AccountBalance {
    const NAME: &'static str = "account-balance";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        account_event(event)
    }
}

impl RowProjection for AccountBalance {
    type Key = AccountId;
    type Row = BalanceRow;

    fn key(Recorded { event, .. }: Recorded<'_, AccountEvent>) -> AccountId {
        event.account_id().clone()
    }

    fn starts(event: &AccountEvent) -> bool {
        matches!(event, AccountEvent::Opened(_))
    }

    fn fold(
        row: Option<BalanceRow>,
        recorded: Recorded<'_, AccountEvent>,
    ) -> Result<Option<BalanceRow>, FoldError> {
        let Standing {
            balance,
            status,
            version,
        } = Standing::after(row.as_ref().map(BalanceRow::standing), recorded)?;
        let (account_id, currency) = match (row, recorded.event) {
            (_, AccountEvent::Opened(event)) => (event.account_id.clone(), event.currency),
            (Some(row), _) => (row.account_id, row.currency),
            (None, _) => return Err(FoldError::new("the account was never opened")),
        };
        Ok(Some(BalanceRow {
            account_id,
            balance,
            currency,
            status,
            version,
        }))
    }
}

// -------------------------------------------------------------------------------------- table

const ACCOUNT: &str = "account_id";
const BALANCE: &str = "balance";
const CURRENCY: &str = "currency";
const STATUS: &str = "status";
const VERSION: &str = "version";

impl DynamoRows for AccountBalance {
    const ORIGIN: Option<Origin> = Some(Origin {
        column: ACCOUNT,
        prefix: "account-",
    });

    const TABLE: TableDefinition = TableDefinition {
        partition_key: KeyAttribute::text(ACCOUNT),
        sort_key: None,
        local_indexes: &[],
        global_indexes: &[],
    };

    fn item_key(key: &AccountId) -> Item {
        HashMap::from([(ACCOUNT.to_owned(), AttributeValue::S(key.to_string()))])
    }

    fn to_item(_: &AccountId, row: &BalanceRow) -> Item {
        let text = |value: &dyn ToString| AttributeValue::S(value.to_string());
        let number = |value: &dyn ToString| AttributeValue::N(value.to_string());
        HashMap::from([
            (BALANCE.to_owned(), number(&row.balance)),
            (CURRENCY.to_owned(), text(&row.currency)),
            (STATUS.to_owned(), text(&row.status)),
            (VERSION.to_owned(), number(&row.version)),
        ])
    }

    fn from_item(item: &Item) -> Result<BalanceRow, BadItem> {
        let currency = attribute::<String>(item, CURRENCY)?;
        Ok(BalanceRow {
            account_id: AccountId::new(attribute(item, ACCOUNT)?),
            balance: attribute(item, BALANCE)?,
            currency: Currency::stored(&currency).map_err(|_| BadItem::at(CURRENCY))?,
            status: attribute(item, STATUS)?,
            version: attribute(item, VERSION)?,
        })
    }
}

// ------------------------------------------------------------------------------------- routes

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_account_balance))
}

/// Read an account's balance
///
/// With `consistency=strong` it comes from the row that the append's own transaction keeps: no
/// stream is folded, and nothing that was acknowledged before is missing.
#[utoipa::path(
    get, path = "/accounts/{id}/balance", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), StrongReadParams),
    responses((status = 200, description = "What is on the account.", body = BalanceRow)),
)]
async fn get_account_balance(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: StrongRead<NoQuery>,
) -> Result<Response, Problem> {
    let id = AccountId::new(id);
    let started = Instant::now();
    let (row, token) = match read.consistency {
        Consistency::Strong => {
            // The head first: the row is then at least as far.
            let token = head_token(&*state.log).await?;
            let row = state.strong_balance.balance(&id).await?;
            observe("log", "account_balance", started);
            (row, Some(token))
        }
        eventual => {
            let (reader, token) =
                from_dynamodb(&state.account_balance, state.log.context(), eventual).await?;
            let row = reader.row::<AccountBalance>(&id).await;
            observe("dynamodb", "account_balance", started);
            (row.map_err(|error| unreadable(error, None))?, token)
        }
    };
    let row = row.ok_or_else(|| not_found(&id))?;
    read.reading.entity(&row, row.version, token.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deposited, fold, folded, life};

    #[test]
    fn the_balance_follows_every_event() {
        let events = life();
        let row = folded::<AccountBalance>(&events[..3]).unwrap();
        assert_eq!(row.balance, Money::from_cents(7_000));
        assert_eq!(row.status, AccountStatus::Open);
        assert_eq!(row.version, StreamVersion::new(3));
        let row = folded::<AccountBalance>(&events).unwrap();
        assert_eq!(row.balance, Money::ZERO);
        assert_eq!(row.status, AccountStatus::Closed);
    }

    #[test]
    fn a_contradiction_is_refused() {
        let row = folded::<AccountBalance>(&life()[..3]);
        let refused = fold::<AccountBalance>(row, &deposited("1", "1"), 4);
        assert!(refused.is_err());
        assert!(fold::<AccountBalance>(None, &deposited("1", "1"), 4).is_err());
    }

    #[test]
    fn a_row_comes_back_from_its_item() {
        let row = folded::<AccountBalance>(&life()).unwrap();
        let mut item = AccountBalance::to_item(&row.account_id, &row);
        item.extend(AccountBalance::item_key(&row.account_id));
        assert_eq!(AccountBalance::from_item(&item), Ok(row));
        item.insert(CURRENCY.to_owned(), AttributeValue::S("usd".to_owned()));
        assert_eq!(AccountBalance::from_item(&item), Err(BadItem::at(CURRENCY)));
    }
}
