//! Copies of a database, taken and put back while clients run: to them it is a server that closed
//! their connections and came back as it was some time ago.

use sqlx::{AssertSqlSafe, Executor as _, PgPool, postgres::PgPoolOptions};

/// A copy of a database at a moment, on the same server.
#[derive(Debug)]
pub struct Backup {
    admin: PgPool,
    database: String,
    copy: String,
}

/// Takes a copy. Connections to the database break meanwhile.
///
/// # Panics
/// When the server refuses.
pub async fn take(pool: &PgPool) -> Backup {
    let options = pool.connect_options();
    let database = options.get_database().unwrap().to_owned();
    let admin = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with((*options).clone().database("postgres"));
    let backup = Backup {
        admin,
        copy: format!("{database}_copy"),
        database,
    };
    backup.close_out().await;
    let (database, copy) = (&backup.database, &backup.copy);
    backup
        .run(format!("CREATE DATABASE {copy} TEMPLATE {database}"))
        .await;
    backup
        .run(format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"))
        .await;
    backup
}

impl Backup {
    /// Puts the copy in the database's place; what the database held since is gone.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn restore(self) {
        self.close_out().await;
        let (database, copy) = (&self.database, &self.copy);
        self.run(format!("DROP DATABASE {database} WITH (FORCE)"))
            .await;
        self.run(format!("ALTER DATABASE {copy} RENAME TO {database}"))
            .await;
    }

    /// Lets nobody in and sends everybody away.
    async fn close_out(&self) {
        let database = &self.database;
        self.run(format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"))
            .await;
        millrace_testkit::eventually("the database to be left", BOUND, || async {
            let left: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1",
            )
            .bind(database)
            .fetch_one(&self.admin)
            .await
            .unwrap();
            (left == 0).then_some(())
        })
        .await;
    }

    async fn run(&self, sql: String) {
        self.admin.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

const BOUND: std::time::Duration = std::time::Duration::from_secs(20);
