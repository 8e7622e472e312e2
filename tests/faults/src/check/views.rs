//! The read models against a fold of the log, read through the public port as any client would.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::fold::{Expected, OrderRow, Sums};
use crate::Client;

/// The most pages of a list that are followed.
const MAX_PAGES: usize = 200;

/// Compares every read model with what the log makes of them; says what differs.
///
/// # Errors
/// The first difference.
pub async fn compare(client: &Client, query: &str, expected: &Expected) -> Result<(), String> {
    order_read_models(client, query, expected).await?;
    statistics(client, query, expected, None).await?;
    for user in expected.users() {
        statistics(client, query, expected, Some(&user)).await?;
        orders_by_user(client, query, expected, &user).await?;
    }
    Ok(())
}

pub(crate) async fn answer(client: &Client, url: &str) -> Result<crate::Reply, String> {
    let reply = client
        .get(url, &[])
        .await
        .map_err(|error| format!("{url}: {error}"))?;
    if reply.status != 200 {
        return Err(format!("{url}: {} {}", reply.status, reply.body));
    }
    Ok(reply)
}

/// Every row of `GET /orders?include_deleted=true`, all pages, by the order's id.
///
/// # Errors
/// When a page is not what it has to be.
pub(crate) async fn all_orders(
    client: &Client,
    query: &str,
) -> Result<BTreeMap<String, Value>, String> {
    let mut found = BTreeMap::new();
    let mut cursor = None::<String>;
    for _ in 0..MAX_PAGES {
        let after = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let url = format!("{query}/orders?include_deleted=true&limit=500{after}");
        let page = answer(client, &url).await?.json();
        for row in page["items"].as_array().ok_or("a list without items")? {
            let id = row["id"].as_str().ok_or("a row without an id")?.to_owned();
            if found.insert(id.clone(), row.clone()).is_some() {
                return Err(format!("order {id} is listed twice"));
            }
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

async fn order_read_models(
    client: &Client,
    query: &str,
    expected: &Expected,
) -> Result<(), String> {
    let mut found = all_orders(client, query).await?;
    for (id, order) in &expected.orders {
        let row = found
            .remove(id)
            .ok_or_else(|| format!("order {id} is not in order_read_models"))?;
        compare_row(order, &row)?;
    }
    match found.into_keys().next() {
        Some(id) => Err(format!(
            "order {id} is in order_read_models and not in the log"
        )),
        None => Ok(()),
    }
}

fn compare_row(order: &OrderRow, row: &Value) -> Result<(), String> {
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    let differs = |what: &str, found: String, wanted: String| {
        Err(format!(
            "order_read_models, order {}: {what} is {found} and should be {wanted}",
            order.id
        ))
    };
    let pairs = [
        ("user_id", text("user_id"), Some(order.user.clone())),
        ("status", text("status"), Some(order.status.clone())),
        (
            "shipping_address",
            text("shipping_address"),
            order.shipping_address.clone(),
        ),
        ("notes", text("notes"), order.notes.clone()),
    ];
    for (what, found, wanted) in pairs {
        if found != wanted {
            return differs(what, format!("{found:?}"), format!("{wanted:?}"));
        }
    }
    let numbers = [
        ("version", row["version"].as_u64(), order.version),
        (
            "items_count",
            row["items_count"].as_u64(),
            order.items_count,
        ),
        (
            "is_deleted",
            row["is_deleted"].as_bool().map(u64::from),
            u64::from(order.is_deleted),
        ),
    ];
    for (what, found, wanted) in numbers {
        if found != Some(wanted) {
            return differs(what, format!("{found:?}"), wanted.to_string());
        }
    }
    if amount(&row["total_amount"]) != Some(order.amount) {
        return differs(
            "total_amount",
            row["total_amount"].to_string(),
            order.amount.to_string(),
        );
    }
    for (what, wanted) in [
        ("created_at", &order.created_at),
        ("updated_at", &order.updated_at),
    ] {
        if instant(&row[what]) != instant(&Value::String(wanted.clone())) {
            return differs(what, row[what].to_string(), wanted.clone());
        }
    }
    Ok(())
}

fn amount(value: &Value) -> Option<Decimal> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// An instant in microseconds: what PostgreSQL keeps.
fn instant(value: &Value) -> Option<i128> {
    let time = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos() / 1_000)
}

async fn statistics(
    client: &Client,
    query: &str,
    expected: &Expected,
    user: Option<&str>,
) -> Result<(), String> {
    let parameter = user.map_or(String::new(), |user| format!("?user_id={user}"));
    let url = format!("{query}/orders/statistics{parameter}");
    let found = sums_of(&answer(client, &url).await?.json());
    let wanted = expected.sums(user);
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "order_statistics of {user:?} are {found:?} and should be {wanted:?}"
    ))
}

fn sums_of(json: &Value) -> Sums {
    let pair = |value: &Value| {
        (
            value["count"].as_u64().unwrap_or(u64::MAX),
            amount(&value["amount"]).unwrap_or(Decimal::MAX),
        )
    };
    let by_status = json["by_status"].as_object().into_iter().flatten();
    let by_day = json["by_day"].as_array().into_iter().flatten();
    Sums {
        count: json["total_orders"].as_u64().unwrap_or(u64::MAX),
        amount: amount(&json["total_amount"]).unwrap_or(Decimal::MAX),
        by_status: by_status
            .map(|(status, value)| (status.clone(), pair(value)))
            .filter(|(_, (count, _))| *count != 0)
            .collect(),
        by_day: by_day
            .map(|day| {
                (
                    day["date"].as_str().unwrap_or_default().to_owned(),
                    pair(day),
                )
            })
            .filter(|(_, (count, _))| *count != 0)
            .collect(),
    }
}

/// Every page of `GET /api/orders/{userId}`.
async fn orders_by_user(
    client: &Client,
    query: &str,
    expected: &Expected,
    user: &str,
) -> Result<(), String> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    for _ in 0..MAX_PAGES {
        let after = if cursor.is_empty() {
            String::new()
        } else {
            format!("&cursor={cursor}")
        };
        let reply = answer(
            client,
            &format!("{query}/api/orders/{user}?limit=500{after}"),
        )
        .await?;
        for order in reply.json().as_array().ok_or("orders-by-user is no list")? {
            let id = order["orderId"].as_str().ok_or("an order without an id")?;
            if found.insert(id.to_owned(), order.clone()).is_some() {
                return Err(format!("orders-by-user lists {id} twice"));
            }
        }
        cursor = reply.header("next-cursor");
        if cursor.is_empty() {
            break;
        }
    }
    let wanted = expected.active_of(user);
    if !found.keys().eq(wanted.keys()) {
        let missing: Vec<_> = wanted
            .keys()
            .filter(|id| !found.contains_key(*id))
            .collect();
        let extra: Vec<_> = found
            .keys()
            .filter(|id| !wanted.contains_key(*id))
            .collect();
        return Err(format!(
            "orders-by-user of {user}: missing {missing:?}, too many {extra:?}"
        ));
    }
    for (id, order) in wanted {
        let item = &found[&id];
        let same = item["userId"].as_str() == Some(user)
            && item["status"].as_str() == Some(&order.status)
            && amount(&item["amount"]) == Some(order.amount)
            && instant(&item["createdAt"]) == instant(&Value::String(order.created_at.clone()));
        if !same {
            return Err(format!("orders-by-user has {item} for {order:?}"));
        }
    }
    Ok(())
}
