//! The read models of accounts against the ledger, read through the public port as any client
//! would.

use rust_decimal::Decimal;
use serde_json::Value;
use time::Duration;

use super::ledger::{Account, Ledger, Movement, decimal};
use crate::Client;

/// The most pages of a list that are followed.
const MAX_PAGES: usize = 200;

/// Compares every read model with the ledger; says what differs.
///
/// # Errors
/// The first difference.
pub async fn compare(client: &Client, query: &str, ledger: &Ledger) -> Result<(), String> {
    let reader = Reader { client, query };
    let listed = reader.list("/accounts?limit=500").await?;
    let mut ids: Vec<_> = listed
        .iter()
        .map(|row| row["account_id"].as_str())
        .collect();
    ids.sort_unstable();
    let wanted: Vec<_> = ledger.accounts.keys().map(|id| Some(id.as_str())).collect();
    same("/accounts", "ids", &ids, &wanted)?;
    for (id, account) in &ledger.accounts {
        reader.standing(id, account).await?;
        reader.movements(id, account).await?;
        reader.summary(id, account).await?;
        reader.today(id, account).await?;
    }
    Ok(())
}

struct Reader<'a> {
    client: &'a Client,
    query: &'a str,
}

fn same<T: PartialEq + std::fmt::Debug>(
    place: &str,
    what: &str,
    found: &T,
    wanted: &T,
) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "{place}: {what} is {found:?} and should be {wanted:?}"
    ))
}

/// The kind of a movement as the routes name it.
fn kind(movement: &Movement) -> &'static str {
    match movement.event_type.as_str() {
        "money.deposited" => "DEPOSIT",
        "money.withdrawn" => "WITHDRAWAL",
        "transfer.sent" => "TRANSFER_SENT",
        _ => "TRANSFER_RECEIVED",
    }
}

impl Reader<'_> {
    async fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}{path}", self.query);
        let reply = self.client.get(&url, &[]).await;
        let reply = reply.map_err(|error| format!("{url}: {error}"))?;
        if reply.status != 200 {
            return Err(format!("{url}: {} {}", reply.status, reply.body));
        }
        Ok(reply.json())
    }

    /// All pages of a list.
    async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..MAX_PAGES {
            let page = self.get(&next).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("{path}&cursor={cursor}"),
                None => return Ok(items),
            }
        }
        Err(format!("{path}: more than {MAX_PAGES} pages"))
    }

    /// The balance in DynamoDB and the account in PostgreSQL.
    async fn standing(&self, id: &str, account: &Account) -> Result<(), String> {
        for path in [format!("/accounts/{id}/balance"), format!("/accounts/{id}")] {
            let row = self.get(&path).await?;
            same(
                &path,
                "balance",
                &decimal(&row["balance"]),
                &account.balance,
            )?;
            same(
                &path,
                "status",
                &row["status"].as_str(),
                &Some(account.status()),
            )?;
            same(
                &path,
                "version",
                &row["version"].as_u64(),
                &Some(account.version),
            )?;
        }
        let path = format!("/accounts/{id}");
        let row = self.get(&path).await?;
        let holder = Some(account.holder.as_str());
        same(&path, "holder", &row["holder_name"].as_str(), &holder)
    }

    /// The history in DynamoDB and the statement in PostgreSQL, the newest first.
    async fn movements(&self, id: &str, account: &Account) -> Result<(), String> {
        for what in ["transactions", "statement"] {
            let path = format!("/accounts/{id}/{what}?limit=7");
            let rows = self.list(&path).await?;
            same(&path, "length", &rows.len(), &account.movements.len())?;
            for (row, movement) in rows.iter().zip(account.movements.iter().rev()) {
                let found = (
                    row["transaction_id"].as_str(),
                    row["type"].as_str(),
                    decimal(&row["amount"]),
                    decimal(&row["balance_after"]),
                    row["counterparty"].as_str(),
                );
                let wanted = (
                    Some(movement.transaction_id.as_str()),
                    Some(kind(movement)),
                    movement.amount,
                    movement.balance,
                    movement.counterparty.as_deref(),
                );
                same(&path, "a movement", &found, &wanted)?;
            }
        }
        Ok(())
    }

    async fn summary(&self, id: &str, account: &Account) -> Result<(), String> {
        let path = format!("/accounts/{id}/summary");
        let row = self.get(&path).await?;
        same(
            &path,
            "balance",
            &decimal(&row["balance"]),
            &account.balance,
        )?;
        for (what, comes_in) in [("credits", true), ("debits", false)] {
            let amounts: Vec<Decimal> = account
                .movements
                .iter()
                .filter(|movement| movement.comes_in() == comes_in)
                .map(|movement| movement.amount)
                .collect();
            let found = &row[what];
            let count = Some(amounts.len() as u64);
            same(&path, what, &found["count"].as_u64(), &count)?;
            let total: Decimal = amounts.iter().sum();
            same(&path, what, &decimal(&found["total"]), &total)?;
            if let Some(largest) = amounts.iter().max() {
                same(&path, what, &decimal(&found["largest"]), largest)?;
            }
        }
        Ok(())
    }

    /// Yesterday and today hold all movements of a test, wherever midnight falls.
    async fn today(&self, id: &str, account: &Account) -> Result<(), String> {
        let today = millrace_kernel::Timestamp::now().date();
        let from = today - Duration::days(1);
        let to = today + Duration::days(1);
        let path = format!("/accounts/{id}/daily-balances?from={from}&to={to}");
        let days = self.get(&path).await?;
        let days = days["items"].as_array().cloned().unwrap_or_default();
        same(&path, "days", &days.len(), &2)?;
        let closing = decimal(&days[1]["closing_balance"]);
        same(&path, "closing balance", &closing, &account.balance)?;
        let moved: u64 = days
            .iter()
            .filter_map(|day| day["movements"].as_u64())
            .sum();
        same(
            &path,
            "movements",
            &moved,
            &(account.movements.len() as u64),
        )
    }
}
