//! What PostgreSQL does with a plain statement from many clients: the baseline of the write side.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection};
use tokio::{process::Command, task::JoinSet};

/// Threads that pgbench drives its clients with.
const PGBENCH_THREADS: usize = 2;

/// A statement, sent again and again by clients that each wait for their answer.
#[derive(Debug, Clone, Copy)]
pub struct SqlLoad<'a> {
    /// The database.
    pub url: &'a str,
    /// One statement without parameters; it draws what differs from row to row inside
    /// (`gen_random_uuid()`, `nextval(…)`).
    pub statement: &'a str,
    /// How many clients.
    pub clients: usize,
    /// For how long.
    pub duration: Duration,
}

/// What a [`SqlLoad`] reached.
#[derive(Debug, Clone)]
pub struct SqlRate {
    /// Statements per second.
    pub per_second: f64,
    /// `pgbench`, or `sqlx` when the machine has no pgbench.
    pub tool: &'static str,
}

impl SqlLoad<'_> {
    /// Runs it: with pgbench when the machine has it, else with the same loop in this process,
    /// which costs this process's time too.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn run(self) -> anyhow::Result<SqlRate> {
        let found = Command::new("pgbench")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        if found.is_ok_and(|status| status.success()) {
            self.with_pgbench().await
        } else {
            self.in_process().await
        }
    }

    async fn with_pgbench(self) -> anyhow::Result<SqlRate> {
        let script = tempfile::NamedTempFile::new()?;
        // One line: pgbench ends a statement at a semicolon, a meta command at a line's end.
        let line = self
            .statement
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        std::fs::write(script.path(), format!("{line};\n"))?;
        let output = Command::new("pgbench")
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--client={}", self.clients))
            .arg(format!("--jobs={}", PGBENCH_THREADS.min(self.clients)))
            .arg(format!("--time={}", self.duration.as_secs().max(1)))
            .arg("--file")
            .arg(script.path())
            .arg(self.url)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "pgbench failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        if text.contains("transactions actually processed: 0") {
            // Its clients were still connecting: a machine that is far too busy.
            return Ok(SqlRate {
                per_second: 0.0,
                tool: "pgbench",
            });
        }
        let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        let per_second = word
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("pgbench printed no rate: {text}"))?;
        Ok(SqlRate {
            per_second,
            tool: "pgbench",
        })
    }

    async fn in_process(self) -> anyhow::Result<SqlRate> {
        let mut clients = JoinSet::new();
        let mut connections = Vec::with_capacity(self.clients);
        for _ in 0..self.clients {
            connections.push(PgConnection::connect(self.url).await?);
        }
        let started = Instant::now();
        let end = started + self.duration;
        for mut connection in connections {
            let statement: Arc<str> = self.statement.into();
            clients.spawn(async move {
                let mut done = 0_u32;
                while Instant::now() < end {
                    let safe = sqlx::AssertSqlSafe(Arc::clone(&statement));
                    sqlx::query(safe).execute(&mut connection).await?;
                    done += 1;
                }
                Ok::<_, sqlx::Error>(done)
            });
        }
        let mut done = 0;
        while let Some(client) = clients.join_next().await {
            done += client??;
        }
        let seconds = started.elapsed().as_secs_f64();
        let per_second = f64::from(done) / seconds;
        Ok(SqlRate {
            per_second,
            tool: "sqlx",
        })
    }
}
