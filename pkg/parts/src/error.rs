use std::path::{Path, PathBuf};

/// Why a part could not be found, fetched, started or stopped. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file or folder could not be made, read or changed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Neither the machine nor a registry has the part.
    #[error("{part} was not found on this machine and could not be fetched: {tried}. {remedy}")]
    Missing {
        /// The part.
        part: &'static str,
        /// What was tried, with each reason.
        tried: String,
        /// What to install or set.
        remedy: &'static str,
    },
    /// The server ended or did not become ready.
    #[error("{part} did not start: {reason}{}", tail(log))]
    NotStarted {
        /// The part.
        part: &'static str,
        /// What happened.
        reason: String,
        /// The end of its log, may be empty.
        log: String,
    },
    /// Somebody else listens there.
    #[error("port {port} on 127.0.0.1, wanted for {part}, is in use by another process")]
    PortInUse {
        /// The part.
        part: &'static str,
        /// The port.
        port: u16,
    },
    /// The data folder was made by another major version.
    #[error(
        "the data in {} was made by PostgreSQL {made_by}, and only {found} was found: install PostgreSQL {made_by}, or start afresh", path.display()
    )]
    OtherVersion {
        /// The data folder.
        path: PathBuf,
        /// The major version that made it.
        made_by: u32,
        /// What is there.
        found: String,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and neither the user `postgres` nor `nobody` exists: run as another user, or set DATABASE_URL"
    )]
    NoUnprivilegedUser,
    /// A process could not be signalled.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Our child.
        pid: u32,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

fn tail(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("\nthe end of its log:\n{log}")
    }
}

impl PartsError {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
