//! Who a server runs as, and where that user may enter.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::PartsError;

/// An unprivileged user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// Whom a server that refuses root runs as: `None` when we are not root.
    pub(crate) fn unprivileged() -> Result<Option<Self>, PartsError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::in_passwd(&passwd, name))
            .map(Some)
            .ok_or(PartsError::NoUnprivilegedUser)
    }

    fn in_passwd(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid != 0).then_some(Self { uid, gid })
        })
    }

    /// Whether this user may walk into every folder above `path`. Folders that do not exist yet
    /// are ours to make, and do not count.
    pub(crate) fn can_reach(self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty())
            .all(|folder| {
                let Ok(metadata) = folder.metadata() else {
                    return true;
                };
                let mode = metadata.permissions().mode();
                mode & 0o001 != 0
                    || (metadata.uid() == self.uid && mode & 0o100 != 0)
                    || (metadata.gid() == self.gid && mode & 0o010 != 0)
            })
    }

    /// Gives a folder and all in it to this user.
    pub(crate) fn own(self, path: &Path) -> Result<(), PartsError> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .map_err(PartsError::io("give away", path))?;
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).map_err(PartsError::io("read", path))? {
                let entry = entry.map_err(PartsError::io("read", path))?;
                self.own(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/bin/false\n";

    #[test]
    fn a_user_is_found_by_whole_name_and_never_root() {
        assert_eq!(
            User::in_passwd(PASSWD, "nobody"),
            Some(User {
                uid: 65534,
                gid: 65533
            })
        );
        assert_eq!(User::in_passwd(PASSWD, "nobod"), None);
        assert_eq!(User::in_passwd(PASSWD, "root"), None);
    }

    #[test]
    fn a_private_folder_is_out_of_reach() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = User {
            uid: 4_000_000,
            gid: 4_000_000,
        };
        assert!(!stranger.can_reach(&folder.path().join("data")));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.can_reach(&folder.path().join("data")));
    }
}
