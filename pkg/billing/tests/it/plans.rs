//! No question about invoices reads the table from end to end, however large it is.

use millrace_billing::views::invoices::{Invoices, QUERIES};
use millrace_projecting::{PgReadModel, PgRows};
use millrace_testkit::Plans;

/// 400,000 invoices: 20,000 users over twenty months, a twentieth of them with all orders called off,
/// and one user who is there for a thousand months; nine of ten users are known.
const FILL: &str = "
INSERT INTO invoices (user_id, year, month, invoice_id, invoice_dt, orders_count, total)
SELECT user_id, extract(year FROM dt)::smallint, extract(month FROM dt)::smallint,
    gen_random_uuid(), dt, n % 20, 10
FROM (
    SELECT 'u-' || n % 20000 AS user_id,
        timestamptz '2024-01-01 UTC' + n / 20000 * interval '1 month' AS dt, n
    FROM generate_series(0, 399999) AS n
    UNION ALL
    SELECT 'u-many', timestamptz '1950-01-01 UTC' + n * interval '1 month', n
    FROM generate_series(0, 999) AS n
) AS month;
INSERT INTO invoice_account (user_id, email, name, version, addresses)
SELECT 'u-' || n, n || '@demo.com', 'name', 1, '[]' FROM generate_series(1, 18000) AS n";

/// Arguments for each query: of the first page and of one far in.
fn arguments(name: &str) -> [&'static str; 2] {
    match name {
        "one" => ["'u-77', 2025, 4", "'nobody', 2025, 4"],
        "all" => [
            "'1950-01-01', '9999-12-31', '', 51",
            "'2024-06-01', '2024-12-01', 'u-7000', 501",
        ],
        "of_user" => [
            "'u-77', '1950-01-01', '9999-12-31', '', 51",
            "'u-many', '1950-01-01', '2000-06-01', 'u-many', 501",
        ],
        other => panic!("no arguments for {other}"),
    }
}

/// The index that each is read from.
fn index(name: &str) -> &'static str {
    match name {
        "one" => "invoices_pkey",
        "all" => "invoices_newest",
        "of_user" => "invoices_of_user",
        other => panic!("no index for {other}"),
    }
}

#[tokio::test]
async fn no_question_scans_the_table() {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, Invoices::TABLES).await;
    plans.run("SET TimeZone = 'UTC'").await;
    plans.run(FILL).await;
    plans
        .filled(Invoices::INDEXES, &PgReadModel::PLANNING)
        .await;
    for query in QUERIES {
        for plan in plans.of_query(query, &arguments(query.0)).await {
            let case = &plan.case;
            assert!(!plan.has("Seq Scan"), "{case}");
            assert!(plan.has(index(query.0)), "{case}");
            assert!(!plan.has("Sort"), "{case}");
        }
    }
}
