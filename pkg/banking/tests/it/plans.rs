//! No list reads a table from end to end, however large it is.

use millrace_banking::views::{
    accounts::{Accounts, lists},
    daily_balances::{self, DailyBalances},
    transactions::{self, Transactions},
};
use millrace_projecting::{PgReadModel, PgRows};
use millrace_testkit::Plans;

/// 300,000 accounts over a year and a half, a tenth of them closed, a twentieth of them rich.
const ACCOUNTS: &str = "
INSERT INTO accounts (account_id, holder_name, currency, balance, status, opened_at, updated_at,
    version)
SELECT 'a-' || n, 'Holder ' || n % 20000, 'USD',
    CASE WHEN n % 20 = 7 THEN 1000000 + n ELSE n * 7919 % 100000 / 100.0 END,
    CASE WHEN n % 10 = 0 THEN 'CLOSED' ELSE 'OPEN' END,
    timestamptz '2024-01-01' + n * interval '3 minutes',
    timestamptz '2025-01-01' + n * interval '3 minutes',
    1 + n % 50
FROM generate_series(1::bigint, 300000) AS n;
INSERT INTO account_holders SELECT account_id, holder_name FROM accounts";

/// 400,000 movements: half of them on one account, the others on 2,000.
const TRANSACTIONS: &str = "
INSERT INTO transactions (account_id, version, transaction_id, type, amount, balance_after,
    occurred_at)
SELECT CASE WHEN n % 2 = 0 THEN 'a-many' ELSE 'a-' || n % 4000 END, n, 't-' || n,
    (ARRAY['DEPOSIT', 'WITHDRAWAL', 'TRANSFER_SENT', 'TRANSFER_RECEIVED'])[n * 31 % 4 + 1],
    (n * 7919 % 100000) / 100.0 + 0.01, 1000000,
    timestamptz '2024-01-01' + n * interval '1 minute'
FROM generate_series(1::bigint, 400000) AS n;
INSERT INTO transaction_accounts SELECT DISTINCT account_id, 1 FROM transactions";

/// 1,000 days of 300 accounts.
const DAYS: &str = "
INSERT INTO daily_balances (account_id, day, opening, closing, credits, debits, movements, version)
SELECT 'a-' || n, date '2024-01-01' + day, 1, 1, 0, 0, 1, day
FROM generate_series(1, 300) AS n, generate_series(1, 1000) AS day";

/// Arguments for each query: usual ones, and the worst.
fn arguments(name: &str) -> &'static [&'static str] {
    match name {
        "all" => &[
            "0, 9999999999999999.99, '9999-12-31', '', 51",
            "1000000, 1000100, '2024-06-01', 'a-7000', 501",
        ],
        "with_status" => &[
            "'OPEN', 0, 9999999999999999.99, '9999-12-31', '', 51",
            "'CLOSED', 500, 600, '2024-06-01', 'a-7000', 501",
        ],
        "held" => &[
            "'%holder 1907%', NULL, 0, 9999999999999999.99, '9999-12-31', '', 51",
            "'%nobody has this name%', 'OPEN', 10, 20, '2024-06-01', 'a-7000', 501",
            "'%older%', NULL, 0, 9999999999999999.99, '9999-12-31', '', 51",
            "'%o%', 'CLOSED', 0, 9999999999999999.99, '9999-12-31', '', 51",
        ],
        "of_account" => &[
            "'a-77', '1970-01-01', 0, '9999-12-31', 0, 51",
            "'a-many', '2024-03-01', 999, '2024-06-01', 200000, 501",
        ],
        "of_type" => &[
            "'a-77', 'DEPOSIT', '1970-01-01', 0, '9999-12-31', 0, 51",
            "'a-many', 'TRANSFER_SENT', '2024-03-01', 999, '2024-06-01', 200000, 501",
        ],
        "exists" => &["'a-77'", "'nobody'"],
        "days" => &[
            "'a-77', '2025-01-01', '2025-02-01'",
            "'a-77', '2024-01-01', '2025-01-01'",
        ],
        other => panic!("no arguments for {other}"),
    }
}

/// The index that each list is read from; a search by name has the choice.
fn index(name: &str) -> &'static str {
    match name {
        "all" => "accounts_opened",
        "with_status" => "accounts_status",
        "of_account" => "transactions_time",
        "of_type" => "transactions_type",
        "exists" => "transaction_accounts_pkey",
        "days" => "daily_balances_pkey",
        "held" => "account",
        other => panic!("no index for {other}"),
    }
}

#[tokio::test]
async fn no_list_scans_a_table() {
    check::<Accounts>(ACCOUNTS, &lists::QUERIES).await;
    check::<Transactions>(TRANSACTIONS, &transactions::QUERIES).await;
    check::<DailyBalances>(DAYS, &daily_balances::QUERIES).await;
}

async fn check<P: PgRows>(fill: &str, queries: &[(&str, &str, &str)]) {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, P::TABLES).await;
    plans.run(fill).await;
    plans.filled(P::INDEXES, &PgReadModel::PLANNING).await;
    for query in queries {
        let name = query.0;
        for plan in plans.of_query(*query, arguments(name)).await {
            // A search by name is planned anew each time; all others may keep one plan.
            if name == "held" && plan.generic {
                continue;
            }
            let case = &plan.case;
            assert!(!plan.has("Seq Scan"), "{case}");
            assert!(plan.has(index(name)), "{case}");
            // The search sorts the few that have the name; all others come in order.
            assert!(
                matches!(name, "held" | "days") || !plan.has("Sort"),
                "{case}"
            );
        }
    }
}
