//! What COPY of the log's own rows reaches: the baseline of the append lane.

use std::{fmt::Write as _, path::Path, process::Stdio, time::Instant};

use anyhow::{Context as _, bail};
use futures::TryStreamExt;
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use super::BenchDatabase;

/// The rows that are copied at most: a run's first ones.
const MAX_ROWS: i64 = 100_000;

/// What copying reached.
#[derive(Debug)]
pub struct Copied {
    /// Rows per second.
    pub per_second: f64,
    /// `psql`, or `sqlx` when the machine has no psql. The latter lets small messages wait for
    /// acknowledgements of TCP, up to 40 ms for each batch.
    pub tool: &'static str,
}

/// Copies the log's rows into `ordering.copied`, which has the same indexes, in batches of a size, a
/// transaction each. Making the batches is not counted.
///
/// # Errors
/// When a statement fails.
pub async fn copy_again(database: &BenchDatabase, batch: usize) -> anyhow::Result<Copied> {
    let mut conn = PgConnection::connect(&database.url).await?;
    let head: i64 = sqlx::query_scalar("SELECT position FROM ordering.log_head")
        .fetch_one(&mut conn)
        .await?;
    let rows = head.min(MAX_ROWS);
    let step = i64::try_from(batch.max(1))?;
    let mut batches = Vec::new();
    let mut after = 0;
    while after < rows {
        let through = (after + step).min(rows);
        batches.push(read(&mut conn, after, through).await?);
        after = through;
    }
    let found = Command::new("psql")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    let started;
    let tool = if found.is_ok_and(|status| status.success()) {
        let folder = tempfile::tempdir()?;
        let script = write_script(folder.path(), &batches)?;
        started = Instant::now();
        run_script(&database.url, &script).await?;
        "psql"
    } else {
        started = Instant::now();
        for body in batches {
            let mut copy = conn
                .copy_in_raw("COPY ordering.copied FROM STDIN (FORMAT binary)")
                .await?;
            copy.send(body).await?;
            copy.finish().await?;
        }
        "sqlx"
    };
    let seconds = started.elapsed().as_secs_f64();
    let copied: i64 = sqlx::query_scalar("SELECT count(*) FROM ordering.copied")
        .fetch_one(&mut conn)
        .await?;
    if copied != rows {
        bail!("{copied} of {rows} rows were copied");
    }
    Ok(Copied {
        per_second: f64::from(i32::try_from(rows)?) / seconds,
        tool,
    })
}

async fn read(conn: &mut PgConnection, after: i64, through: i64) -> anyhow::Result<Vec<u8>> {
    let body = conn
        .copy_out_raw(&format!(
            "COPY (SELECT * FROM ordering.events
                   WHERE position > {after} AND position <= {through}
                   ORDER BY position) TO STDOUT (FORMAT binary)"
        ))
        .await?
        .try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await?;
    Ok(body)
}

/// A file for each batch, and a script that copies one after the other.
fn write_script(folder: &Path, batches: &[Vec<u8>]) -> anyhow::Result<std::path::PathBuf> {
    let mut script = String::new();
    for (number, body) in batches.iter().enumerate() {
        let file = folder.join(format!("{number}.copy"));
        std::fs::write(&file, body)?;
        writeln!(
            script,
            "\\copy ordering.copied FROM '{}' WITH (FORMAT binary)",
            file.display()
        )?;
    }
    let path = folder.join("script.sql");
    std::fs::write(&path, script)?;
    Ok(path)
}

async fn run_script(url: &str, script: &Path) -> anyhow::Result<()> {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file"])
        .arg(script)
        .arg(url)
        .output()
        .await
        .context("psql could not be started")?;
    if !output.status.success() {
        bail!("psql failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
