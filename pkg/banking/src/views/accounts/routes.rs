//! The routes that answer from the rows of accounts.

use std::time::Instant;

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::{Aggregate, LogToken, StreamId, StreamVersion};
use millrace_eventlog::EventLog;
use millrace_http::{
    Consistency, List, ListParams, NoQuery, Page, PathId, Problem, StrongRead, StrongReadParams,
};
use millrace_kernel::{EntityId, Money, MoneyInput, Timestamp};
use millrace_projecting::containing;
use millrace_querying::{from_postgres, head_token, invalid_parameter, more_than, observe};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AccountRow, from_row,
    lists::{END_OF_TIME, Selection},
};
use crate::{
    account::{Account, AccountId, AccountStatus, MAX_HOLDER_NAME_CHARS},
    ledger::Standing,
    problems::not_found,
    queries::QueryState,
};

const BY_ID: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM accounts WHERE account_id = $1"
);

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(list_accounts))
        .routes(routes!(get_account))
}

/// Read an account
///
/// With `consistency=strong` it is folded from the event log.
#[utoipa::path(
    get, path = "/accounts/{id}", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), StrongReadParams),
    responses((status = 200, description = "The account.", body = AccountRow)),
)]
async fn get_account(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: StrongRead<NoQuery>,
) -> Result<Response, Problem> {
    let id = AccountId::new(id);
    let (row, token) = match read.consistency {
        Consistency::Strong => {
            let started = Instant::now();
            let found = strong(&state, &id).await?;
            observe("log", "account", started);
            found
        }
        eventual => {
            from_postgres(
                &state.accounts,
                state.log.context(),
                eventual,
                "account",
                |conn| by_id(conn, id.clone()).boxed(),
            )
            .await?
        }
    };
    let row = row.ok_or_else(|| not_found(&id))?;
    read.reading.entity(&row, row.version, token.as_ref())
}

async fn by_id(conn: &mut PgConnection, id: AccountId) -> Result<Option<AccountRow>, sqlx::Error> {
    let row = sqlx::query(BY_ID)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

async fn strong(
    state: &QueryState,
    id: &AccountId,
) -> Result<(Option<AccountRow>, Option<LogToken>), Problem> {
    // The head first: the account is then at least as far.
    let token = head_token(&*state.log).await?;
    let (account, version) = state.repository.load(id.get()).await?;
    let (Some(details), Some(status)) = (account.details(), account.status()) else {
        return Ok((None, Some(token)));
    };
    // An account does not know when things happened to it; its first event and its last one do.
    let stream = StreamId::of(Account::CATEGORY, id.get());
    let opened_at = recorded_at(&*state.log, &stream, StreamVersion::new(1)).await?;
    let updated_at = recorded_at(&*state.log, &stream, version).await?;
    let standing = Standing {
        balance: details.balance,
        status,
        version,
    };
    let row = AccountRow::opened(&details.opened, version, opened_at);
    Ok((Some(row.standing_at(standing, updated_at)), Some(token)))
}

/// When the log took an event that a stream has.
async fn recorded_at(
    log: &dyn EventLog,
    stream: &StreamId,
    version: StreamVersion,
) -> Result<Timestamp, Problem> {
    let before = StreamVersion::new(version.get().saturating_sub(1));
    let events = log.read_stream(stream, before, 1).await?;
    let event = events.first();
    event
        .map(|event| event.recorded_at)
        .ok_or_else(|| Problem::unavailable("The event log was restored meanwhile; try again"))
}

/// Which accounts are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Accounts with this in their holder's name, whatever its case.
    #[param(min_length = 1, max_length = 200)]
    holder: Option<String>,
    /// Accounts of this status.
    status: Option<AccountStatus>,
    /// Accounts with at least this on them, in whatever currency.
    #[param(inline, value_type = Option<MoneyInput>)]
    min_balance: Option<Money>,
    /// Accounts with at most this on them, in whatever currency.
    #[param(inline, value_type = Option<MoneyInput>)]
    max_balance: Option<Money>,
}

impl Which {
    fn selection(self) -> Result<Selection, Problem> {
        if let Some(part) = &self.holder
            && (part.is_empty() || part.chars().count() > MAX_HOLDER_NAME_CHARS)
        {
            let reason = format!("must have 1 to {MAX_HOLDER_NAME_CHARS} characters");
            return Err(invalid_parameter("holder", reason));
        }
        if let (Some(min), Some(max)) = (self.min_balance, self.max_balance)
            && min > max
        {
            return Err(invalid_parameter(
                "min_balance",
                "must not be above max_balance",
            ));
        }
        Ok(Selection {
            holder: self.holder.as_deref().map(containing),
            status: self.status,
            min_balance: self.min_balance,
            max_balance: self.max_balance,
        })
    }
}

/// List accounts
///
/// Newest first. An account keeps its place while money moves on it, so that no page skips or
/// repeats one.
#[utoipa::path(
    get, path = "/accounts", tag = "banking", params(Which, ListParams),
    responses((status = 200, description = "A page of accounts.", body = Page<AccountRow>)),
)]
async fn list_accounts(
    State(state): State<QueryState>,
    list: List<Which>,
) -> Result<Response, Problem> {
    let selection = list.query.selection()?;
    let (at, id) = match list.page.after::<(Timestamp, EntityId)>()? {
        Some((at, id)) => (at.get(), id.to_string()),
        None => (END_OF_TIME, String::new()),
    };
    let limit = more_than(&list.page);
    let (rows, token) = from_postgres(
        &state.accounts,
        state.log.context(),
        list.consistency,
        selection.name(),
        |conn| fetch(conn, selection.clone(), (at, id.clone()), limit).boxed(),
    )
    .await?;
    let page = list
        .page
        .page(rows, |row| (row.opened_at, row.account_id.clone()))?;
    list.reading.page(&page, token.as_ref())
}

async fn fetch(
    conn: &mut PgConnection,
    selection: Selection,
    (at, id): (time::OffsetDateTime, String),
    limit: i64,
) -> Result<Vec<AccountRow>, sqlx::Error> {
    let query = selection.query().bind(at).bind(id).bind(limit);
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(from_row).collect()
}
