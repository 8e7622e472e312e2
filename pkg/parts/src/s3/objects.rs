//! Objects in memory, or in a folder with a file each.
//!
//! A file is made whole under a name of its own and then takes its place: by a link where the object
//! has to be new, which the file system gives to one of many, by a rename otherwise. It begins with a
//! line of JSON that says what the object is; the content follows.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::PartsError;

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Object {
    /// What it holds.
    pub content: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
    /// The checksum that came with it and was right.
    pub checksum_sha256: Option<String>,
}

/// An object, and since when it is as it is.
pub(super) struct Kept {
    pub(super) object: S3Object,
    pub(super) modified: SystemTime,
}

/// What became of an object.
pub(super) enum Put {
    Kept,
    /// It had to be new, and was not.
    WasThere,
}

/// The objects of a bucket.
pub struct S3Objects(Place);

enum Place {
    Memory(Mutex<BTreeMap<String, S3Object>>),
    Folder(PathBuf),
}

impl S3Objects {
    /// Objects that are gone with this value.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Place::Memory(Mutex::default()))
    }

    /// Objects in a folder, which is made when it is not there. What an earlier process had not
    /// finished is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn in_folder(folder: &Path) -> Result<Self, PartsError> {
        let unfinished = unfinished(folder);
        if let Err(error) = fs::remove_dir_all(&unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(PartsError::io("clear", &unfinished)(error));
        }
        fs::create_dir_all(&unfinished).map_err(PartsError::io("make", &unfinished))?;
        Ok(Self(Place::Folder(folder.to_owned())))
    }

    /// The objects in memory, by key; those of a folder are not listed.
    #[must_use]
    pub fn listed(&self) -> BTreeMap<String, S3Object> {
        match &self.0 {
            Place::Memory(objects) => lock(objects).clone(),
            Place::Folder(_) => BTreeMap::new(),
        }
    }

    pub(super) async fn get(self: Arc<Self>, key: String) -> Result<Option<Kept>, PartsError> {
        off_the_runtime(move || match &self.0 {
            Place::Memory(objects) => Ok(lock(objects).get(&key).cloned().map(|object| Kept {
                object,
                modified: SystemTime::UNIX_EPOCH,
            })),
            Place::Folder(folder) => {
                let path = folder.join(file_name(&key));
                read(&path).map_err(PartsError::io("read", &path))
            }
        })
        .await
    }

    pub(super) async fn put(
        self: Arc<Self>,
        key: String,
        object: S3Object,
        only_new: bool,
    ) -> Result<Put, PartsError> {
        off_the_runtime(move || match &self.0 {
            Place::Memory(objects) => {
                let mut objects = lock(objects);
                if only_new && objects.contains_key(&key) {
                    return Ok(Put::WasThere);
                }
                objects.insert(key, object);
                Ok(Put::Kept)
            }
            Place::Folder(folder) => {
                let path = folder.join(file_name(&key));
                write(folder, &path, &key, &object, only_new)
                    .map_err(PartsError::io("write", &path))
            }
        })
        .await
    }
}

fn lock(objects: &Mutex<BTreeMap<String, S3Object>>) -> MutexGuard<'_, BTreeMap<String, S3Object>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PartsError> + Send + 'static,
) -> Result<T, PartsError> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.unwrap_or_else(|error| {
        Err(PartsError::NotStarted {
            part: "S3",
            reason: error.to_string(),
            log: String::new(),
        })
    })
}

/// Where files are until they are whole: in the folder's own file system.
fn unfinished(folder: &Path) -> PathBuf {
    folder.join("unfinished")
}

/// A key may be longer than a file's name and hold anything: its hash does not.
fn file_name(key: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn write(
    folder: &Path,
    path: &Path,
    key: &str,
    object: &S3Object,
    only_new: bool,
) -> io::Result<Put> {
    let mut file = tempfile::NamedTempFile::new_in(unfinished(folder))?;
    let head = json!({
        "key": key,
        "content_type": object.content_type,
        "checksum_sha256": object.checksum_sha256,
    });
    writeln!(file, "{head}")?;
    file.write_all(&object.content)?;
    file.as_file().sync_all()?;
    let placed = if only_new {
        file.persist_noclobber(path)
    } else {
        file.persist(path)
    };
    match placed {
        Ok(_) => {}
        Err(error) if only_new && error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(Put::WasThere);
        }
        Err(error) => return Err(error.error),
    }
    // The name is durable with its folder.
    fs::File::open(folder)?.sync_all()?;
    Ok(Put::Kept)
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let none = || io::Error::new(io::ErrorKind::InvalidData, "the file is no object");
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(none)?;
    let head: Value = serde_json::from_slice(&bytes.split_to(end)).map_err(|_| none())?;
    let said = |name: &str| Some(head.get(name)?.as_str()?.to_owned());
    Ok(Some(Kept {
        object: S3Object {
            content: bytes.slice(1..),
            content_type: said("content_type"),
            checksum_sha256: said("checksum_sha256"),
        },
        modified: fs::metadata(path)?.modified()?,
    }))
}
