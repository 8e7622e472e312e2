//! A user is found without reading the table, however many there are.

use millrace_customers::views::user_profiles::{QUERIES, UserProfiles};
use millrace_projecting::{PgReadModel, PgTally};
use millrace_testkit::Plans;

/// 200,000 who ordered, a tenth of them no users yet.
const FILL: &str = "
INSERT INTO user_profiles (user_id, name, email, orders_count, version)
SELECT 'u-' || n, 'name ' || n, n || '@demo.com', n % 7, CASE WHEN n % 10 = 0 THEN 0 ELSE 1 END
FROM generate_series(1, 200000) AS n";

#[tokio::test]
async fn no_question_scans_the_table() {
    let database = millrace_testkit::postgres().await;
    let mut plans = Plans::on(&database, UserProfiles::TABLES).await;
    plans.run(FILL).await;
    plans
        .filled(UserProfiles::INDEXES, &PgReadModel::PLANNING)
        .await;
    for query in QUERIES {
        for plan in plans.of_query(query, &["'u-77'", "'nobody'"]).await {
            let case = &plan.case;
            assert!(!plan.has("Seq Scan"), "{case}");
            assert!(plan.has("user_profiles_pkey"), "{case}");
        }
    }
}
