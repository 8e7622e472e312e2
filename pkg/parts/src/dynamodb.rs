//! The embedded DynamoDB behind its HTTP listener.

use std::path::Path;

use crate::PartsError;

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn not_started<E: ToString>(reason: E) -> PartsError {
    PartsError::NotStarted {
        part: "DynamoDB",
        reason: reason.to_string(),
        log: String::new(),
    }
}

/// What the embedded DynamoDB lacks: it asks for the newest sequence number of a table's stream with
/// every record that it writes, and for those after a number with every read, without an index. A
/// transaction on a table with a stream would so cost more with every transaction before it.
const STREAM_INDEXES: &str = "\
    CREATE INDEX IF NOT EXISTS millrace_newest_record
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER));
    CREATE INDEX IF NOT EXISTS millrace_records_of_a_shard
        ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));";

/// Serves DynamoDB on `listener` until `shutdown` resolves, on a file or, without one, in memory.
///
/// # Errors
/// When the file cannot be opened or the server fails.
pub async fn serve_dynamodb(
    listener: tokio::net::TcpListener,
    file: Option<&Path>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PartsError> {
    let database = match file {
        Some(file) => on_file(file)?,
        None => dynoxide::Database::memory().map_err(not_started)?,
    };
    dynoxide::server::serve_with_shutdown(listener, database, shutdown)
        .await
        .map_err(not_started)
}

fn on_file(file: &Path) -> Result<dynoxide::Database, PartsError> {
    let database = dynoxide::Database::new(&file.to_string_lossy()).map_err(not_started)?;
    rusqlite::Connection::open(file)
        .and_then(|connection| connection.execute_batch(STREAM_INDEXES))
        .map_err(not_started)?;
    Ok(database)
}

/// A DynamoDB endpoint in memory, on a thread and runtime of its own, so that it belongs to no
/// caller's runtime. It ends when dropped.
#[derive(Debug)]
pub struct DynamoDb {
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl DynamoDb {
    /// Starts an endpoint on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn in_memory() -> Result<Self, PartsError> {
        let listener =
            std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(not_started)?;
        let port = listener.local_addr().map_err(not_started)?.port();
        listener.set_nonblocking(true).map_err(not_started)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dynamodb")
            .enable_all()
            .build()
            .map_err(not_started)?;
        std::thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || {
                let served = runtime.block_on(async {
                    let listener =
                        tokio::net::TcpListener::from_std(listener).map_err(not_started)?;
                    tokio::select! {
                        served = serve_dynamodb(listener, None, std::future::pending()) => served,
                        // Connections of callers may stay open for ever: not waited for.
                        _ = stopped => Ok(()),
                    }
                });
                if let Err(error) = served {
                    tracing::error!(%error, "the embedded DynamoDB ended");
                }
                runtime.shutdown_background();
            })
            .map_err(not_started)?;
        Ok(Self {
            port,
            stop: Some(stop),
        })
    }

    /// The endpoint, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}
