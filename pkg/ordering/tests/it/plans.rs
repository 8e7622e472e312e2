//! No list reads the table from end to end, however large it is.

use millrace_ordering::views::{
    order_read_models::{OrderReadModels, lists::QUERIES},
    order_statistics::{self, OrderStatistics},
};
use millrace_projecting::{PgReadModel, PgRows, PgTally};
use millrace_testkit::Plans;

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
FROM generate_series(1::bigint, 1000000) AS n";

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

/// Sums of a thousand days: those of everybody in all their shards, and those of users who order now
/// and then.
const FILL_STATISTICS: &str = "
INSERT INTO order_statistics (user_id, day, status, shard, count, amount)
SELECT '', date '2024-01-01' + day, status, shard, 10, 100
FROM generate_series(0, 999) AS day, generate_series(0, 15) AS shard,
    unnest(ARRAY['PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED']) AS status
UNION ALL
SELECT 'u-' || n % 20000, date '2024-01-01' + n / 200, 'CONFIRMED', 0, 1, 10
FROM generate_series(0, 199999) AS n";

#[tokio::test]
async fn no_list_scans_the_table() {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, OrderReadModels::TABLES).await;
    plans.run(FILL).await;
    plans.run(FILL_USERS).await;
    plans
        .filled(OrderReadModels::INDEXES, &PgReadModel::PLANNING)
        .await;
    for query in QUERIES {
        let name = query.0;
        for plan in plans.of_query(query, &arguments(name)).await {
            let case = &plan.case;
            assert!(!plan.has("Seq Scan"), "{case}");
            assert!(plan.has("Index"), "{case}");
            // The search sorts the few that have the name; all others come in order.
            assert!(name == "named" || !plan.has("Sort"), "{case}");
        }
    }
    let by_id = "SELECT * FROM order_read_models WHERE id = 'o-77'";
    assert!(plans.of(by_id).await.has("Index Scan"));
}

#[tokio::test]
async fn statistics_read_only_what_they_sum_up() {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, OrderStatistics::TABLES).await;
    plans.run(FILL_STATISTICS).await;
    plans
        .filled(OrderStatistics::INDEXES, &PgReadModel::PLANNING)
        .await;
    let arguments = [
        "'u-77', '0001-01-01', '9999-12-31', 366000",
        "'', '2025-03-01', '2025-04-01', 366000",
        "'', '0001-01-01', '9999-12-31', 366000",
    ];
    for plan in plans.of_query(order_statistics::QUERY, &arguments).await {
        let case = &plan.case;
        assert!(!plan.has("Seq Scan"), "{case}");
        assert!(plan.has("order_statistics_pkey"), "{case}");
        // They come in the order of the index, and are summed up as they come.
        assert!(!plan.has("Sort") && !plan.has("HashAggregate"), "{case}");
    }
}

/// What version 1 had and version 2 has unchanged, by name, is there.
#[tokio::test]
async fn what_is_declared_unchanged_is_there() {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, OrderReadModels::TABLES).await;
    let mut compared = 0;
    for (table, columns) in OrderReadModels::UNCHANGED {
        let listed = columns.join(", ");
        plans.run(&format!("SELECT {listed} FROM {table}")).await;
        compared += columns.len();
    }
    assert_eq!(compared, 11, "all columns of an order but its key");
}
