//! Where fetched parts are kept, and how several processes fetch one only once.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::PartsError;

/// The folder for fetched parts: `$XDG_CACHE_HOME/millrace/parts`, else `~/.cache/millrace/parts`.
///
/// # Errors
/// When neither variable names a folder.
pub fn cache_folder() -> Result<PathBuf, PartsError> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("millrace").join("parts"))
        .ok_or_else(|| PartsError::Io {
            action: "find the cache folder, for want of",
            path: "$XDG_CACHE_HOME or $HOME".into(),
            source: std::io::ErrorKind::NotFound.into(),
        })
}

/// An empty folder of our own for data that ends with a test: not below a private home, since
/// PostgreSQL may have to run as another user.
///
/// # Errors
/// When no temporary folder can be written.
pub fn temporary_folder() -> Result<PathBuf, PartsError> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("millrace-")
            .tempdir_in(parent)
            .map(tempfile::TempDir::keep)
    };
    make(&std::env::temp_dir())
        .or_else(|_| make(Path::new("/var/tmp")))
        .map_err(PartsError::io("make a folder in", std::env::temp_dir()))
}

/// A temporary folder, if any, that goes with its owner.
#[derive(Debug)]
pub(crate) struct RemovedOnDrop(pub(crate) Option<PathBuf>);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        if let Some(folder) = &self.0
            && let Err(error) = std::fs::remove_dir_all(folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "a temporary folder stays");
        }
    }
}

/// Gives `<cache>/<name>`, filled by `fill` if it is not there yet. `fill` gets a new folder, which
/// is renamed into place when it is complete; processes that want the same part at once wait for
/// the first.
pub(crate) async fn cached<F>(name: &str, fill: F) -> Result<PathBuf, PartsError>
where
    F: AsyncFnOnce(&Path) -> Result<(), PartsError>,
{
    let cache = cache_folder()?;
    let target = cache.join(name);
    if target.is_dir() {
        return Ok(target);
    }
    std::fs::create_dir_all(&cache).map_err(PartsError::io("make", &cache))?;
    let _lock = lock(&cache.join(format!("{name}.lock"))).await?;
    if target.is_dir() {
        return Ok(target);
    }
    tracing::info!(part = name, folder = %target.display(), "fetching");
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(&cache)
        .map_err(PartsError::io("make a folder in", &cache))?;
    let content = partial.path().join("content");
    std::fs::create_dir(&content).map_err(PartsError::io("make", &content))?;
    fill(&content).await?;
    std::fs::rename(&content, &target).map_err(PartsError::io("move into place", &target))?;
    Ok(target)
}

/// Holds a file's lock until dropped; the kernel releases it when a process dies.
async fn lock(path: &Path) -> Result<File, PartsError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(PartsError::io("open", path))?;
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        file.lock().map_err(PartsError::io("lock", &path))?;
        Ok(file)
    })
    .await
    .map_err(|error| PartsError::Io {
        action: "wait for the lock of",
        path: "the cache folder".into(),
        source: std::io::Error::other(error),
    })?
}
