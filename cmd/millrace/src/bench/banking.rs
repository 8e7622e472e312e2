//! Accounts: deposits over HTTP beside orders, one account that everybody pays into, transfers, the
//! log in DynamoDB beside raw transactions, and a balance beside the raw item.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use millrace_roles::LogStore;

use super::{
    BenchContext, Figure, HttpLoad, Latencies, Seen, Target, commands,
    http::{Answered, get, post},
    load::send_each,
    readable::{OwnWrites, position},
    reads,
    system::{Roles, System},
};

/// Connections that pay in, and that send.
const CONNECTIONS: usize = 256;
/// Connections that pay into one account, and that read balances.
const CALLERS: usize = 64;
/// Accounts that deposits and transfers spread over.
const ACCOUNTS: usize = 1_000;
/// Deposits per second whose payers read them, and in a quick run.
const OWN_WRITES_PER_SECOND: f64 = 100.0;
const QUICK_PER_SECOND: f64 = 20.0;
/// What deposits should reach of orders.
const OF_ORDERS: f64 = 0.8;
/// What one account should take.
const HOT_PER_SECOND: f64 = 5_000.0;
/// What transfers should reach of deposits.
const OF_DEPOSITS: f64 = 0.5;
/// What deposits on DynamoDB should reach of raw transactions.
const OF_TRANSACTIONS: f64 = 0.5;
/// What a balance should reach of the raw item.
const OF_ITEM: f64 = 0.7;
/// How long the views may take to have all accounts, in milliseconds.
const CATCH_UP_MS: u64 = 120_000;
/// Deposits in one raw transaction: with the head, each with its event and its balance, as many as
/// its 100 items hold.
const DEPOSITS_PER_TRANSACTION: usize = 49;

/// Measures all of it.
///
/// # Errors
/// When a role or a server fails.
pub async fn run(context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    Box::pin(on_postgres(context, &mut figures)).await?;
    Box::pin(on_dynamodb(context, &mut figures)).await?;
    Ok(figures)
}

async fn on_postgres(context: &BenchContext, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let log = LogStore::Postgres;
    let pairs = [
        ("everything", Roles::ALL, Roles::banking(log)),
        ("alone", Roles::COMMAND, Roles::banking_command(log)),
    ];
    for (what, ordering, banking) in pairs {
        let system = System::start(context, ordering).await?;
        context.say(&format!("orders, {what}"));
        let orders = commands::placed(context, &system, None).await?;
        system.stop().await?;

        let system = System::start(context, banking).await?;
        let accounts = open_accounts(context, &system).await?;
        context.say(&format!("deposits, {what}"));
        let deposits = paid_in(context, &system, accounts, connections(context)).await?;
        let name = format!("banking.deposits_{what}");
        let figure = Figure::new(format!("{name}.max"), deposits.per_second, "deposits/s");
        let figure = figure.over("orders, the same roles", orders.per_second);
        figures.push(figure.target(Target::RatioAtLeast(OF_ORDERS)));
        quantiles(figures, &name, &deposits);
        if what == "alone" {
            context.say("one account");
            let callers = context.size(CALLERS, 16);
            let hot = paid_in(context, &system, 1, callers).await?;
            let figure = Figure::new("banking.hot_account.max", hot.per_second, "deposits/s");
            figures.push(figure.target(Target::AtLeast(HOT_PER_SECOND)));
            quantiles(figures, "banking.hot_account", &hot);
            context.say("transfers");
            let sent = transferred(context, &system, accounts).await?;
            let figure = Figure::new("banking.transfers.max", sent.per_second, "transfers/s");
            let figure = figure.over("deposits, the same roles", deposits.per_second);
            figures.push(figure.target(Target::RatioAtLeast(OF_DEPOSITS)));
            quantiles(figures, "banking.transfers", &sent);
        } else {
            own_writes(context, &system, accounts, "postgres", figures).await?;
        }
        system.stop().await?;
    }
    Ok(())
}

async fn on_dynamodb(context: &BenchContext, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let system = System::start(context, Roles::banking_command(LogStore::DynamoDb)).await?;
    let accounts = open_accounts(context, &system).await?;
    context.say("deposits, the log in DynamoDB");
    let deposits = paid_in(context, &system, accounts, connections(context)).await?;
    system.stop().await?;
    context.say("raw transactions of the same size");
    let raw = raw_transactions(context).await?;
    let figure = Figure::new("banking.dynamodb.max", deposits.per_second, "deposits/s");
    let figure = figure.over("raw transactions of 100 items", raw);
    figures.push(figure.target(Target::RatioAtLeast(OF_TRANSACTIONS)));
    quantiles(figures, "banking.dynamodb", &deposits);

    let system = System::start(context, Roles::banking(LogStore::DynamoDb)).await?;
    let accounts = open_accounts(context, &system).await?;
    let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS);
    system.caught_up(deadline).await?;
    context.say("GET /accounts/{id}/balance");
    let paths = (0..accounts).map(|number| format!("/accounts/{}/balance", id(number)));
    let seen = read(context, &system, paths).await?;
    let table = system.dynamodb_table("account-balance").await?;
    let raw = raw_items(context, &table, accounts).await?;
    let figure = Figure::new("banking.balance.max", seen.per_second, "reads/s");
    let figure = figure.over("SDK, GetItem of the same item", raw.per_second);
    figures.push(figure.target(Target::RatioAtLeast(OF_ITEM)));
    quantiles(figures, "banking.balance", &seen);
    context.say("GET /accounts/{id}/balance?consistency=strong");
    let paths =
        (0..accounts).map(|number| format!("/accounts/{}/balance?consistency=strong", id(number)));
    let strong = read(context, &system, paths).await?;
    figures.push(Figure::new(
        "banking.balance_strong.max",
        strong.per_second,
        "reads/s",
    ));
    quantiles(figures, "banking.balance_strong", &strong);
    own_writes(context, &system, accounts, "dynamodb", figures).await?;
    system.stop().await?;
    Ok(())
}

/// The ways to read what was just paid in, from the answer of the deposit to that of the read.
async fn own_writes(
    context: &BenchContext,
    system: &System,
    accounts: usize,
    log: &str,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    type Ask = fn(usize, &Answered<'_>) -> anyhow::Result<String>;
    let ways: [(&str, Ask); 5] = [
        ("eventual", |number, _| {
            Ok(format!("/accounts/{}/balance", id(number)))
        }),
        ("view_in_dynamodb", |number, answered| {
            let position = position(answered)?;
            Ok(format!(
                "/accounts/{}/balance?at_least={position}",
                id(number)
            ))
        }),
        ("view_in_postgres", |number, answered| {
            let position = position(answered)?;
            Ok(format!("/accounts/{}?at_least={position}", id(number)))
        }),
        ("strong_row", |number, _| {
            Ok(format!(
                "/accounts/{}/balance?consistency=strong",
                id(number)
            ))
        }),
        ("strong_fold", |number, _| {
            Ok(format!("/accounts/{}?consistency=strong", id(number)))
        }),
    ];
    let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS);
    system.caught_up(deadline).await?;
    for (way, ask) in ways {
        let rate = context.size(OWN_WRITES_PER_SECOND, QUICK_PER_SECOND);
        context.say(&format!(
            "reading one's own deposit: {way}, the log in {log}"
        ));
        let writes = deposits(accounts);
        let latencies = OwnWrites { rate, writes, ask }
            .measure(context, system)
            .await?;
        quantiles_of(
            figures,
            &format!("banking.own_write.{log}.{way}"),
            &latencies,
        );
    }
    Ok(())
}

fn quantiles(figures: &mut Vec<Figure>, name: &str, seen: &Seen) {
    quantiles_of(figures, name, &seen.latencies);
}

fn quantiles_of(figures: &mut Vec<Figure>, name: &str, latencies: &Latencies) {
    for (quantile, share) in [("p50", 0.50), ("p99", 0.99)] {
        let ms = latencies.quantile_ms(share);
        figures.push(Figure::new(format!("{name}.{quantile}"), ms, "ms"));
    }
}

fn id(number: usize) -> String {
    format!("account-{number}")
}

/// Opens the accounts, with enough on each for whatever is sent from it; gives how many there are.
async fn open_accounts(context: &BenchContext, system: &System) -> anyhow::Result<usize> {
    let count = context.size(ACCOUNTS, 20);
    context.say(&format!("opening {count} accounts"));
    let requests = (0..count).map(|number| {
        let body = format!(
            r#"{{"id":"{}","holder_name":"Ada Lovelace","initial_deposit":"1000000.00"}}"#,
            id(number)
        );
        post("/accounts", &body)
    });
    send_each(
        system.command,
        requests.collect(),
        count,
        CALLERS,
        |answered| {
            ensure!(answered.status == 201, "an account got {}", answered.status);
            Ok(())
        },
    )
    .await?;
    Ok(count)
}

async fn paid_in(
    context: &BenchContext,
    system: &System,
    accounts: usize,
    connections: usize,
) -> anyhow::Result<Seen> {
    load(context, system, deposits(accounts), connections)
        .run(201)
        .await?
        .mostly_well("a deposit")
}

fn deposits(accounts: usize) -> Arc<[Vec<u8>]> {
    let requests = (0..accounts).map(|number| {
        let path = format!("/accounts/{}/deposits", id(number));
        post(
            &path,
            r#"{"amount":"12.34","description":"Wages, November"}"#,
        )
    });
    requests.collect()
}

/// From each account to one some way on, so that neighbours in the queue seldom meet and sometimes
/// do.
async fn transferred(
    context: &BenchContext,
    system: &System,
    accounts: usize,
) -> anyhow::Result<Seen> {
    let requests = (0..accounts).map(|number| {
        let other = (number * 7 + 1) % accounts;
        let other = if other == number {
            (number + 1) % accounts
        } else {
            other
        };
        let body = format!(
            r#"{{"from_account_id":"{}","to_account_id":"{}","amount":"0.01"}}"#,
            id(number),
            id(other)
        );
        post("/transfers", &body)
    });
    load(context, system, requests.collect(), connections(context))
        .run(201)
        .await?
        .mostly_well("a transfer")
}

fn load(
    context: &BenchContext,
    system: &System,
    requests: Arc<[Vec<u8>]>,
    connections: usize,
) -> HttpLoad {
    HttpLoad {
        address: system.command,
        connections,
        duration: Duration::from_secs(context.size(12, 1)),
        warm_up: context.size(Duration::from_secs(2), Duration::from_millis(300)),
        requests,
        rate: None,
    }
}

async fn read(
    context: &BenchContext,
    system: &System,
    paths: impl Iterator<Item = String>,
) -> anyhow::Result<Seen> {
    let requests = paths.map(|path| get(&path)).collect();
    let mut load = load(context, system, requests, context.size(CALLERS, 16));
    load.address = system.query;
    load.run(200).await?.mostly_well("a balance")
}

fn connections(context: &BenchContext) -> usize {
    context.size(CONNECTIONS, 16)
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: usize) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The same item by as many concurrent callers, by the SDK that the query side uses.
async fn raw_items(context: &BenchContext, table: &str, accounts: usize) -> anyhow::Result<Seen> {
    let client = context.dynamodb().await;
    let table = table.to_owned();
    reads::callers(context, context.size(CALLERS, 16), move |turn| {
        let key = text(id(turn % accounts));
        let read = client.get_item().table_name(&table).key("account_id", key);
        async move {
            read.send().await?;
            Ok(())
        }
    })
    .await
}

/// Deposits per second that transactions reach that write what the lane writes and decide nothing:
/// the head under its condition, and for each deposit the event and the balance.
async fn raw_transactions(context: &BenchContext) -> anyhow::Result<f64> {
    let client = context.dynamodb().await;
    let table = raw_log(context, &client).await?;
    let lasts = Duration::from_secs(context.size(10, 1));
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < lasts {
        let actions = (1..=DEPOSITS_PER_TRANSACTION)
            .flat_map(|place| deposit(&table, done + place))
            .chain([head(&table, done)])
            .collect::<anyhow::Result<Vec<_>>>()?;
        let write = client.transact_write_items();
        write.set_transact_items(Some(actions)).send().await?;
        done += DEPOSITS_PER_TRANSACTION;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 deposits")]
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// A log's table, made by the log's own code.
async fn raw_log(
    context: &BenchContext,
    client: &aws_sdk_dynamodb::Client,
) -> anyhow::Result<String> {
    let banking = millrace_es::Context::new(millrace_banking::CONTEXT)?;
    let namespace = context.fresh_name("raw");
    let partitions = millrace_es::PartitionCount::DEFAULT;
    millrace_eventlog::dynamodb::create_log_table(client, &namespace, &banking, partitions).await?;
    Ok(millrace_eventlog::dynamodb::table_name(
        &namespace, &banking,
    ))
}

fn deposit(table: &str, position: usize) -> [anyhow::Result<TransactWriteItem>; 2] {
    let account = id(position % ACCOUNTS);
    let payload = format!(
        r#"{{"account_id":"{account}","transaction_id":"01a1fd01-db91-70dd-8708-{position:012}","amount":"12.34","balance":"1000012.34","description":"Wages, November"}}"#
    );
    let metadata = r#"{"correlation_id":"01a1fd01-ed34-7516-b450-b02f07a69e63","traceparent":"00-53fa6cab81dc482fb317b94f58360b1b-e0edd5e4d9ea4334-00"}"#;
    let event = HashMap::from([
        ("pk".to_owned(), text(format!("stream#account-{account}"))),
        ("sk".to_owned(), number(position)),
        ("bucket".to_owned(), number(position % 16)),
        ("position".to_owned(), number(position)),
        (
            "id".to_owned(),
            text("01a1fd01-db91-70dd-8708-5dde0c896b1e"),
        ),
        ("type".to_owned(), text("money.deposited")),
        ("schema".to_owned(), number(1)),
        ("partition".to_owned(), number(position % 16)),
        ("previous".to_owned(), number(position.saturating_sub(16))),
        ("epoch".to_owned(), number(1)),
        ("payload".to_owned(), text(payload)),
        ("metadata".to_owned(), text(metadata)),
        (
            "recorded_at".to_owned(),
            text("2026-11-21T07:28:44.123456Z"),
        ),
    ]);
    let put = Put::builder()
        .table_name(table)
        .set_item(Some(event))
        .condition_expression("attribute_not_exists(pk)")
        .build();
    let balance = Update::builder()
        .table_name(table)
        .key("pk", text(format!("inline#accounts#{account}")))
        .key("sk", number(0))
        .update_expression("SET #b = :b, #v = :v")
        .expression_attribute_names("#b", "balance")
        .expression_attribute_names("#v", "version")
        .expression_attribute_values(":b", text("1000012.34"))
        .expression_attribute_values(":v", number(position))
        .build();
    [
        put.map(|put| TransactWriteItem::builder().put(put).build())
            .map_err(Into::into),
        balance
            .map(|update| TransactWriteItem::builder().update(update).build())
            .map_err(Into::into),
    ]
}

fn head(table: &str, before: usize) -> anyhow::Result<TransactWriteItem> {
    let update = Update::builder()
        .table_name(table)
        .key("pk", text("raw-head"))
        .key("sk", number(0))
        .update_expression("SET #p = :after")
        .condition_expression("attribute_not_exists(#p) OR #p = :before")
        .expression_attribute_names("#p", "position")
        .expression_attribute_values(":before", number(before))
        .expression_attribute_values(":after", number(before + DEPOSITS_PER_TRANSACTION))
        .build()?;
    Ok(TransactWriteItem::builder().update(update).build())
}
