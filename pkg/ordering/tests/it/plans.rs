//! No list reads the table from end to end, however large it is.

use millrace_ordering::views::order_read_models::{OrderReadModels, lists::QUERIES};
use millrace_projecting::{PgReadModel, PgRows};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// How many orders the table has.
const ORDERS: i64 = 1_000_000;

/// A million orders over two years, of 20,000 users and one who has a tenth of them; a twentieth of
/// them deleted.
const FILL: &str = "
INSERT INTO order_read_models (id, user_id, total_amount, status, created_at, updated_at,
    is_deleted, items_count, version)
SELECT
    'o-' || n,
    CASE WHEN n % 10 = 3 THEN 'u-many' ELSE 'u-' || n % 20000 END,
    (n * 7919 % 1000000) / 100.0 + 0.01,
    (ARRAY['PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[n * 31 % 5 + 1],
    timestamptz '2024-01-01' + n * interval '1 minute',
    timestamptz '2024-01-01' + n * interval '1 minute',
    n % 20 = 0,
    0,
    1
FROM generate_series(1::bigint, $1) AS n";

/// Those who are known by name: every second one who ordered, and as many who did not.
const FILL_USERS: &str = "
INSERT INTO order_users (user_id, username, email)
SELECT 'u-' || n, 'name ' || n, n || '@demo.com' FROM generate_series(1, 40000, 2) AS n
UNION ALL SELECT 'u-many', 'name of many', 'many@demo.com'";

/// Arguments for each query, of the first page and of one far in.
fn arguments(name: &str) -> [&'static str; 2] {
    match name {
        "all" => [
            "'1970-01-01', false, '9999-12-31', '', 51",
            "'1970-01-01', true, '2024-06-01', 'o-200000', 51",
        ],
        "of_user" => [
            "'u-77', '9999-12-31', '', 51",
            "'u-many', '2024-06-01', 'o-200000', 501",
        ],
        "with_status" => [
            "'SHIPPED', '9999-12-31', '', 51",
            "'SHIPPED', '2024-06-01', 'o-200000', 501",
        ],
        "of_user_with_status" => [
            "'u-77', 'SHIPPED', '9999-12-31', '', 51",
            "'u-many', 'SHIPPED', '2024-06-01', 'o-200000', 501",
        ],
        "named" => [
            "'%name 1907%', '9999-12-31', '', 51",
            "'%nobody has this name%', '2024-06-01', 'o-200000', 501",
        ],
        "above" => ["9000, 100000000, '', 51", "10, 5000, 'o-200000', 501"],
        other => panic!("no arguments for {other}"),
    }
}

#[tokio::test]
async fn no_list_scans_the_table() {
    let database = millrace_testkit::postgres().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    run(&mut conn, OrderReadModels::TABLES).await;
    // What is not logged is faster to fill, and planned the same.
    run(&mut conn, "ALTER TABLE order_read_models SET UNLOGGED").await;
    sqlx::query(FILL)
        .bind(ORDERS)
        .execute(&mut conn)
        .await
        .unwrap();
    run(&mut conn, FILL_USERS).await;
    run(&mut conn, "SET maintenance_work_mem = '512MB'").await;
    run(&mut conn, OrderReadModels::INDEXES).await;
    run(&mut conn, "ANALYZE order_read_models, order_users").await;
    for (setting, value) in PgReadModel::PLANNING {
        run(&mut conn, &format!("SET {setting} = {value}")).await;
    }

    for (name, types, sql) in QUERIES {
        run(
            &mut conn,
            &format!("PREPARE list_{name} ({types}) AS {sql}"),
        )
        .await;
        for mode in ["force_custom_plan", "force_generic_plan"] {
            run(&mut conn, &format!("SET plan_cache_mode = {mode}")).await;
            for arguments in arguments(name) {
                let plan = explain(&mut conn, &format!("EXECUTE list_{name}({arguments})")).await;
                let case = format!("{name}({arguments}) under {mode}:\n{plan}");
                assert!(!plan.contains("Seq Scan"), "{case}");
                assert!(plan.contains("Index"), "{case}");
                // The search sorts the few that have the name; all others come in order.
                assert!(name == "named" || !plan.contains("Sort"), "{case}");
            }
        }
    }
    let by_id = "SELECT * FROM order_read_models WHERE id = 'o-77'";
    assert!(explain(&mut conn, by_id).await.contains("Index Scan"));
}

/// What version 1 had and version 2 has unchanged, by name, is there.
#[tokio::test]
async fn what_is_declared_unchanged_is_there() {
    let database = millrace_testkit::postgres().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    run(&mut conn, OrderReadModels::TABLES).await;
    let mut compared = 0;
    for (table, columns) in OrderReadModels::UNCHANGED {
        let listed = columns.join(", ");
        run(&mut conn, &format!("SELECT {listed} FROM {table}")).await;
        compared += columns.len();
    }
    assert_eq!(compared, 11, "all columns of an order but its key");
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(conn)
        .await
        .unwrap();
}

async fn explain(conn: &mut PgConnection, sql: &str) -> String {
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}")))
        .fetch_all(conn)
        .await
        .unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}
