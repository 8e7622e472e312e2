use millrace_parts::{
    NATS_VERSION, Nats, NatsBinary, NatsOptions, POSTGRES_VERSION, Postgres, PostgresBinaries,
    PostgresOptions,
};
use sqlx::Connection as _;

async fn server_version(server: &Postgres) -> String {
    let mut connection = sqlx::PgConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    let (version,): (String,) = sqlx::query_as("SHOW server_version")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    version
}

#[tokio::test]
async fn the_pinned_postgres_is_fetched_and_runs() {
    let fetched = PostgresBinaries::fetch().await.unwrap();
    println!("used: {}", fetched.source);
    let major = fetched.major.to_string();
    assert!(POSTGRES_VERSION.starts_with(&major));
    let server = Postgres::start_with(fetched, PostgresOptions::temporary().unwrap())
        .await
        .unwrap();
    assert!(server_version(&server).await.starts_with(&major));
}

#[tokio::test]
async fn the_pinned_nats_is_fetched_once_by_many_and_runs() {
    let (one, two, three) = tokio::join!(
        NatsBinary::fetch(),
        NatsBinary::fetch(),
        NatsBinary::fetch()
    );
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    println!("used: {} at {}", one.source, one.path.display());
    assert!(one.path == two.path && two.path == three.path);
    let output = std::process::Command::new(&one.path)
        .arg("--version")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(NATS_VERSION));
    let server = Nats::start_with(one, NatsOptions::temporary().unwrap())
        .await
        .unwrap();
    assert!(server.url().starts_with("nats://127.0.0.1:"));
}

#[tokio::test]
async fn what_the_machine_has_comes_first() {
    let installed = PostgresBinaries::installed();
    assert!(installed.iter().all(|found| found.major >= 15));
    let server = Postgres::start(PostgresOptions::temporary().unwrap())
        .await
        .unwrap();
    println!("used: {}", server.source());
    match installed.first() {
        Some(first) => assert_eq!(server.source(), first.source),
        None => assert!(server.source().contains(POSTGRES_VERSION)),
    }
}

#[tokio::test]
async fn data_of_a_run_before_is_found_again() {
    let options = PostgresOptions::temporary().unwrap();
    let mut first = Postgres::start(options.clone()).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&first.url("postgres"))
        .await
        .unwrap();
    sqlx::query("CREATE TABLE t (id int)")
        .execute(&mut connection)
        .await
        .unwrap();
    let status = first.process().stop().await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    first.restart().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&first.url("postgres"))
        .await
        .unwrap();
    sqlx::query("INSERT INTO t VALUES (1)")
        .execute(&mut connection)
        .await
        .unwrap();
    drop(first);
    assert!(
        !options.data.exists(),
        "a temporary folder goes with its server"
    );
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_in_a_sentence() {
    let options = PostgresOptions::temporary().unwrap();
    std::fs::create_dir(&options.data).unwrap();
    std::fs::write(options.data.join("PG_VERSION"), "12\n").unwrap();
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("made by PostgreSQL 12"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = NatsOptions {
        port: Some(port),
        ..NatsOptions::temporary().unwrap()
    };
    let error = Nats::start(options).await.unwrap_err().to_string();
    assert!(error.contains(&format!("port {port}")), "{error}");
    let options = PostgresOptions {
        port: Some(port),
        ..PostgresOptions::temporary().unwrap()
    };
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains(&format!("port {port}")), "{error}");
}
