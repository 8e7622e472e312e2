use millrace_parts::{Postgres, PostgresOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::OnceCell;

use crate::{OrFail as _, given, namespace};

/// Of one test.
const MAX_POOL_CONNECTIONS: u32 = 20;
const MAX_ACQUIRE_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// The server that the tests of one binary share, and how to reach a database of it.
struct Shared {
    /// Kept until the process ends; its guard stops it then.
    _server: Option<Postgres>,
    admin: PgConnectOptions,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            let (server, url) = match given("DATABASE_URL") {
                Some(url) => (None, url),
                None => {
                    let server = start().await;
                    let url = server.url("postgres");
                    (Some(server), url)
                }
            };
            let admin = url.parse().or_fail("DATABASE_URL is not a PostgreSQL URL");
            Shared {
                _server: server,
                admin,
            }
        })
        .await
}

async fn start() -> Postgres {
    let options = PostgresOptions::temporary().or_fail("a folder for PostgreSQL");
    Postgres::start(options)
        .await
        .or_fail("starting PostgreSQL for tests")
}

/// A database of one test.
#[derive(Debug)]
pub struct Database {
    /// How a process of the test reaches it.
    pub url: String,
    /// Connections of the test.
    pub pool: PgPool,
    /// Its name.
    pub name: String,
    admin: PgConnectOptions,
    /// On a server that outlives the test binary the database is dropped with the test.
    outlived: bool,
}

/// A new, empty database on the server that this test binary shares.
pub async fn postgres() -> Database {
    let shared = shared().await;
    create(shared.admin.clone(), shared._server.is_none()).await
}

async fn create(admin: PgConnectOptions, outlived: bool) -> Database {
    let name = namespace();
    let mut connection = connect(&admin).await;
    connection
        .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .or_fail("creating the test's database");
    let _ = connection.close().await;
    let options = admin.clone().database(&name);
    let url = options.to_url_lossy().to_string();
    Database {
        url,
        pool: pool(options),
        name,
        admin,
        outlived,
    }
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options)
        .await
        .or_fail("connecting to PostgreSQL")
}

fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MAX_POOL_CONNECTIONS)
        .acquire_timeout(MAX_ACQUIRE_WAIT)
        .connect_lazy_with(options)
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.outlived {
            return;
        }
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // The test's runtime may be at its end: a thread with one of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&admin).await?;
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                connection.execute(sqlx::AssertSqlSafe(sql)).await?;
                anyhow::Ok(())
            })
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("the test's database {} stays: {dropped:?}", self.name);
        }
    }
}

/// A PostgreSQL of one test, to be hurt. Port and data stay over kills and restarts.
#[derive(Debug)]
pub struct PostgresServer {
    server: Postgres,
}

/// Starts a PostgreSQL of the test's own. Commits survive SIGKILL, not power loss.
pub async fn own_postgres() -> PostgresServer {
    PostgresServer {
        server: start().await,
    }
}

impl PostgresServer {
    /// The URL of its database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url("postgres")
    }

    /// The URL of another database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// Connections to its database `postgres`.
    pub async fn pool(&self) -> PgPool {
        pool(self.url().parse().or_fail("the server's own URL"))
    }

    /// A new, empty database.
    pub async fn database(&self) -> Database {
        create(self.url().parse().or_fail("the server's own URL"), false).await
    }

    /// SIGKILL to every process of the server.
    pub async fn kill(&mut self) {
        self.server
            .process()
            .kill()
            .await
            .or_fail("killing PostgreSQL");
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) {
        self.server
            .restart()
            .await
            .or_fail("starting PostgreSQL again");
    }

    /// Stops it politely.
    pub async fn stop(&mut self) {
        self.server
            .process()
            .stop()
            .await
            .or_fail("stopping PostgreSQL");
    }

    /// SIGSTOP to every process of the server.
    pub fn pause(&mut self) {
        self.server.process().pause().or_fail("pausing PostgreSQL");
    }

    /// SIGCONT to every process of the server.
    pub fn resume(&mut self) {
        self.server
            .process()
            .resume()
            .or_fail("resuming PostgreSQL");
    }
}
