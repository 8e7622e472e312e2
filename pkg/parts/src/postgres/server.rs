use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::PostgresBinaries;
use crate::cache::RemovedOnDrop;
use crate::child::{Guarded, StopSignal, log_tail};
use crate::net::{free_port, port_is_free};
use crate::user::User;
use crate::{PartsError, temporary_folder};

const READY_BOUND: Duration = Duration::from_secs(60);
const MAX_PORT_ATTEMPTS: usize = 5;
/// Of one server; a test binary's tests share one.
const MAX_CONNECTIONS: u32 = 400;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: `fsync` and `synchronous_commit` on.
    Full,
    /// The death of every process, not power loss: `fsync` off. For tests.
    ProcessDeath,
}

/// Where and how a PostgreSQL runs.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The data folder; made when it is not there.
    pub data: PathBuf,
    /// The file its output is appended to.
    pub log: PathBuf,
    /// The port; `None` picks a free one.
    pub port: Option<u16>,
    /// What a commit survives.
    pub durability: Durability,
    /// A folder that goes with the server.
    pub temporary: Option<PathBuf>,
}

impl PostgresOptions {
    /// A server whose data lies in a new temporary folder and goes with it.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn temporary() -> Result<Self, PartsError> {
        let folder = temporary_folder()?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))
            .map_err(PartsError::io("open up", &folder))?;
        Ok(Self {
            data: folder.join("data"),
            log: folder.join("postgres.log"),
            port: None,
            durability: Durability::ProcessDeath,
            temporary: Some(folder),
        })
    }
}

/// A running PostgreSQL with the superuser `postgres`, trusted on 127.0.0.1.
#[derive(Debug)]
pub struct Postgres {
    binaries: PostgresBinaries,
    options: PostgresOptions,
    user: Option<User>,
    port: u16,
    child: Guarded,
    /// Dropped after the child.
    _folder: RemovedOnDrop,
}

impl Postgres {
    /// Makes the data folder if need be, starts a server on 127.0.0.1 and waits until it answers.
    ///
    /// As root the server runs as `postgres` or `nobody`, and the data folder must lie where that
    /// user may enter: see [`Postgres::reachable_data`].
    ///
    /// # Errors
    /// When PostgreSQL is missing, the port taken, or the server does not become ready.
    pub async fn start(options: PostgresOptions) -> Result<Self, PartsError> {
        let folder = RemovedOnDrop(options.temporary.clone());
        let user = User::unprivileged()?;
        let binaries = match made_by(&options.data) {
            Some(major) => binaries_of(major, &options.data).await?,
            None => make_data(&options.data, user).await?,
        };
        Self::run(binaries, options, user, folder).await
    }

    /// As [`Postgres::start`], with these binaries and no others.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(
        binaries: PostgresBinaries,
        options: PostgresOptions,
    ) -> Result<Self, PartsError> {
        let folder = RemovedOnDrop(options.temporary.clone());
        let user = User::unprivileged()?;
        match made_by(&options.data) {
            Some(major) if major == binaries.major => {}
            Some(made_by) => {
                return Err(PartsError::OtherVersion {
                    path: options.data,
                    made_by,
                    found: binaries.major.to_string(),
                });
            }
            None => initdb(&binaries, &options.data, user).await?,
        }
        Self::run(binaries, options, user, folder).await
    }

    async fn run(
        binaries: PostgresBinaries,
        options: PostgresOptions,
        user: Option<User>,
        folder: RemovedOnDrop,
    ) -> Result<Self, PartsError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = options.port.unwrap_or_else(free_port);
            match launch(&binaries, &options, user, port).await {
                Ok(child) => {
                    return Ok(Self {
                        binaries,
                        options,
                        user,
                        port,
                        child,
                        _folder: folder,
                    });
                }
                Err(PartsError::PortInUse { .. })
                    if options.port.is_none() && attempt < MAX_PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where data wished for at `data` has to lie: there, or, when we are root and the user that
    /// PostgreSQL runs as may not walk into it, in a folder under `/var/tmp` named after it.
    ///
    /// # Errors
    /// When we are root and there is no unprivileged user.
    pub fn reachable_data(data: &Path) -> Result<PathBuf, PartsError> {
        let Some(user) = User::unprivileged()? else {
            return Ok(data.to_owned());
        };
        let absolute = std::path::absolute(data).map_err(PartsError::io("find", data))?;
        if user.can_reach(&absolute) {
            return Ok(data.to_owned());
        }
        let name: String = absolute
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Ok(Path::new("/var/tmp").join(format!("millrace{name}")))
    }

    /// The URL of a database of this server.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Where the program came from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.binaries.source
    }

    /// The process: the postmaster, whose children are signalled with it.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.child
    }

    /// Starts it again on the same port and data, after it was stopped or killed.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<(), PartsError> {
        self.child.kill().await?;
        self.child = launch(&self.binaries, &self.options, self.user, self.port).await?;
        Ok(())
    }
}

fn made_by(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

async fn binaries_of(major: u32, data: &Path) -> Result<PostgresBinaries, PartsError> {
    let installed = PostgresBinaries::installed();
    if let Some(found) = installed.iter().find(|found| found.major == major) {
        return Ok(found.clone());
    }
    let fetched = PostgresBinaries::fetch().await?;
    if fetched.major == major {
        return Ok(fetched);
    }
    let majors: Vec<_> = installed
        .iter()
        .chain([&fetched])
        .map(|b| b.major.to_string())
        .collect();
    Err(PartsError::OtherVersion {
        path: data.to_owned(),
        made_by: major,
        found: majors.join(", "),
    })
}

/// Runs `initdb` of the first installation for which it works: a link or copy on `PATH` may lack
/// the files beside it.
async fn make_data(data: &Path, user: Option<User>) -> Result<PostgresBinaries, PartsError> {
    let mut tried = Vec::new();
    for binaries in PostgresBinaries::installed() {
        match initdb(&binaries, data, user).await {
            Ok(()) => return Ok(binaries),
            Err(error) => {
                tracing::warn!(%error, source = %binaries.source, "this PostgreSQL is of no use");
                tried.push(error.to_string());
            }
        }
    }
    let binaries = PostgresBinaries::fetch()
        .await
        .map_err(|error| match error {
            PartsError::Missing {
                part,
                tried: more,
                remedy,
            } => {
                tried.push(more);
                PartsError::Missing {
                    part,
                    tried: tried.join("; "),
                    remedy,
                }
            }
            other => other,
        })?;
    initdb(&binaries, data, user).await?;
    Ok(binaries)
}

async fn initdb(
    binaries: &PostgresBinaries,
    data: &Path,
    user: Option<User>,
) -> Result<(), PartsError> {
    // Made beside the target and renamed: a folder with PG_VERSION is a complete one.
    let partial = data.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(PartsError::io("remove", &partial))?;
    }
    std::fs::create_dir_all(&partial).map_err(PartsError::io("make", &partial))?;
    if let Some(user) = user {
        user.own(&partial)?;
    }
    // C.UTF-8 compares by code point and knows every letter's case; older systems have only C.
    let mut failure = String::new();
    for locale in ["C.UTF-8", "C"] {
        let mut command = Command::new(binaries.folder.join("initdb"));
        command
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
            ])
            .arg(format!("--locale={locale}"))
            .arg("-D")
            .arg(&partial);
        become_user(&mut command, user);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|error| PartsError::io("run", "initdb")(std::io::Error::other(error)))?
            .map_err(PartsError::io("run", binaries.folder.join("initdb")))?;
        if output.status.success() {
            return std::fs::rename(&partial, data)
                .map_err(PartsError::io("move into place", data));
        }
        failure = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    let _ = std::fs::remove_dir_all(&partial);
    Err(PartsError::NotStarted {
        part: "PostgreSQL",
        reason: format!("initdb of {} failed", binaries.folder.display()),
        log: failure,
    })
}

fn become_user(command: &mut Command, user: Option<User>) {
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    // A folder that the user may enter: ours may be private.
    command.current_dir("/");
}

async fn launch(
    binaries: &PostgresBinaries,
    options: &PostgresOptions,
    user: Option<User>,
    port: u16,
) -> Result<Guarded, PartsError> {
    if !port_is_free(port) {
        return Err(PartsError::PortInUse {
            part: "PostgreSQL",
            port,
        });
    }
    let data = std::path::absolute(&options.data).map_err(PartsError::io("find", &options.data))?;
    let mut command = Command::new(binaries.folder.join("postgres"));
    command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
    let connections = MAX_CONNECTIONS.to_string();
    let mut set = |name: &str, value: &str| {
        command.arg("-c").arg(format!("{name}={value}"));
    };
    set("listen_addresses", "127.0.0.1");
    // No socket file: its path may be at most 107 bytes, and a data folder's may be longer.
    set("unix_socket_directories", "");
    set("max_connections", &connections);
    set("shared_buffers", "256MB");
    set("max_wal_size", "4GB");
    set("log_timezone", "UTC");
    set("timezone", "UTC");
    if options.durability == Durability::ProcessDeath {
        set("fsync", "off");
        set("full_page_writes", "off");
    }
    become_user(&mut command, user);
    let remove = options.temporary.as_deref();
    let mut child = Guarded::spawn(command, &options.log, StopSignal::Interrupt, remove)?;
    wait_until_ready(&mut child, &options.log, port).await?;
    Ok(child)
}

async fn wait_until_ready(child: &mut Guarded, log: &Path, port: u16) -> Result<(), PartsError> {
    let connect = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("postgres")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging();
    let deadline = Instant::now() + READY_BOUND;
    loop {
        if let Ok(connection) = connect.connect().await
            && child.try_wait()?.is_none()
        {
            let _ = connection.close().await;
            return Ok(());
        }
        let ended = child.try_wait()?;
        let tail = log_tail(log);
        if ended.is_some() && tail.contains("could not bind") {
            return Err(PartsError::PortInUse {
                part: "PostgreSQL",
                port,
            });
        }
        if ended.is_some() || Instant::now() > deadline {
            let reason = ended.map_or_else(
                || format!("it did not answer within {} s", READY_BOUND.as_secs()),
                |status| format!("it ended with {status}"),
            );
            return Err(PartsError::NotStarted {
                part: "PostgreSQL",
                reason,
                log: tail,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
