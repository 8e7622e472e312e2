use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use millrace_testkit as testkit;

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, two) = tokio::join!(testkit::postgres(), testkit::postgres());
    sqlx::query("CREATE TABLE t (id int)")
        .execute(&one.pool)
        .await
        .unwrap();
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM pg_tables WHERE tablename = 't'")
        .fetch_one(&two.pool)
        .await
        .unwrap();
    assert_eq!(count, 0);
    let (same,): (i32,) = sqlx::query_as("SELECT 1")
        .fetch_one(&sqlx::PgPool::connect(&one.url).await.unwrap())
        .await
        .unwrap();
    assert_eq!(same, 1);
}

#[tokio::test]
async fn letters_beyond_ascii_have_a_case() {
    let database = testkit::postgres().await;
    let (lower,): (String,) = sqlx::query_as("SELECT lower('ÄRGER')")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(lower, "ärger");
}

#[tokio::test]
async fn a_killed_postgres_keeps_what_was_committed() {
    let mut server = testkit::own_postgres().await;
    let pool = server.pool().await;
    sqlx::query("CREATE TABLE t (id int)")
        .execute(&pool)
        .await
        .unwrap();
    for round in 1..=2_i64 {
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&pool)
            .await
            .unwrap();
        server.kill().await;
        let refused = sqlx::query("SELECT 1").execute(&pool);
        let answer = tokio::time::timeout(Duration::from_millis(300), refused).await;
        assert!(!matches!(answer, Ok(Ok(_))), "a dead server answered");
        server.restart().await;
        let count = testkit::eventually("the pool to recover", BOUND, || async {
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM t")
                .fetch_one(&pool)
                .await
                .ok()
        })
        .await;
        assert_eq!(count, round);
    }
}

#[tokio::test]
async fn a_paused_postgres_answers_after_it_resumes() {
    let mut server = testkit::own_postgres().await;
    let pool = server.pool().await;
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    server.pause();
    let query = sqlx::query("SELECT 1").execute(&pool);
    tokio::pin!(query);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut query)
            .await
            .is_err()
    );
    server.resume();
    tokio::time::timeout(BOUND, query).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_nats_keeps_its_port_and_a_wiped_one_loses_its_streams() {
    let mut server = testkit::own_nats().await;
    let nats = server.connect().await;
    let config = async_nats::jetstream::stream::Config {
        name: nats.namespace.clone(),
        subjects: vec![format!("{}.>", nats.namespace)],
        ..Default::default()
    };
    nats.jetstream.create_stream(config).await.unwrap();
    let publish = || async {
        let subject = format!("{}.a", nats.namespace);
        let acknowledgement = nats.jetstream.publish(subject, "x".into()).await.ok()?;
        acknowledgement.await.ok()
    };
    testkit::eventually("a first message", BOUND, publish).await;
    server.kill().await;
    server.restart().await;
    testkit::eventually("a message after the kill", BOUND, publish).await;
    server.wipe().await;
    testkit::eventually("the stream to be gone", BOUND, || async {
        let error = nats.jetstream.get_stream(&nats.namespace).await.err()?;
        error.to_string().contains("not found").then_some(())
    })
    .await;
}

async fn create_table(dynamo: &testkit::Dynamo) -> String {
    let table = format!("{}_t", dynamo.prefix);
    dynamo
        .client
        .create_table()
        .table_name(&table)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("id")
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .key_schema(
            KeySchemaElement::builder()
                .attribute_name("id")
                .key_type(KeyType::Hash)
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
    table
}

#[tokio::test]
async fn the_shared_dynamodb_answers_the_sdk() {
    let dynamo = testkit::dynamodb().await;
    let table = create_table(&dynamo).await;
    let key = AttributeValue::S("1".into());
    dynamo
        .client
        .put_item()
        .table_name(&table)
        .item("id", key.clone())
        .send()
        .await
        .unwrap();
    let got = dynamo
        .client
        .get_item()
        .table_name(&table)
        .key("id", key)
        .send()
        .await
        .unwrap();
    assert!(got.item.is_some());
}

#[tokio::test]
async fn a_killed_dynamodb_keeps_its_items() {
    let mut server = testkit::own_dynamodb().await;
    let dynamo = server.connect();
    let table = create_table(&dynamo).await;
    let key = AttributeValue::S("1".into());
    dynamo
        .client
        .put_item()
        .table_name(&table)
        .item("id", key.clone())
        .send()
        .await
        .unwrap();
    server.kill().await;
    let put = dynamo
        .client
        .put_item()
        .table_name(&table)
        .item("id", key.clone());
    assert!(put.send().await.is_err());
    server.restart().await;
    let got = dynamo
        .client
        .get_item()
        .table_name(&table)
        .key("id", key)
        .send()
        .await
        .unwrap();
    assert!(got.item.is_some());
}
