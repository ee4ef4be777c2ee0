//! Who may read a file, who we are, and what stands in the way: what an operator needs in order to mend a file that cannot
//! be read. And how to read one without waiting for ever or taking in more than it should have.
//!
//! Invariant: the advice blames what forbids it. A file whose owner and mode allow it is not told to be changed.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Who may read a file, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The file's owner and mode; `None` if they cannot be told.
    pub owner_and_mode: Option<(u32, u32)>,
    /// The user that this process runs as.
    pub process_uid: u32,
    /// What forbids reading it, if something does.
    pub obstacle: Obstacle,
}

/// What keeps a process from a file that it may not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The file's own owner and mode.
    Mode,
    /// A directory on the way to it, which the process may not pass.
    Directory(PathBuf),
    /// None of these.
    Other,
}

/// Bits of a mode, for one of owner, group and others.
const READ: u32 = 0o4;
const PASS: u32 = 0o1;

/// How many symbolic links are followed on the way to a file: as many as Linux follows.
const MAX_LINKS: usize = 40;

impl FileFacts {
    /// Looks at a file.
    pub fn of(path: &Path) -> Self {
        let file = fs::metadata(path).ok();
        let obstacle = match &file {
            Some(file) if allows(file, READ) => Obstacle::Other,
            Some(_) => Obstacle::Mode,
            None => closed_directory(path).map_or(Obstacle::Other, Obstacle::Directory),
        };
        Self {
            owner_and_mode: file.map(|file| (file.uid(), file.mode() & 0o7777)),
            process_uid: rustix::process::geteuid().as_raw(),
            obstacle,
        }
    }

    /// What helps against an error that came of reading the file. `setting` is the one that names it, if one does.
    pub fn advice(&self, error: &io::Error, setting: Option<&str>) -> String {
        match (error.kind(), setting) {
            (io::ErrorKind::NotFound, Some(setting)) => {
                format!(
                    "the file is missing: create it, see that it is mounted, or correct {setting}"
                )
            }
            (io::ErrorKind::PermissionDenied, Some(_)) if self.obstacle == Obstacle::Mode => {
                // A setting's file may come from a volume, one of the system's does not.
                let volume = "on Kubernetes set the volume's defaultMode to 0444";
                format!("{}; {volume}", self.permission_advice())
            }
            (io::ErrorKind::PermissionDenied, _) => self.permission_advice(),
            _ => "see that the file can be read".to_owned(),
        }
    }

    fn permission_advice(&self) -> String {
        let uid = self.process_uid;
        match &self.obstacle {
            Obstacle::Mode => {
                format!("let uid {uid} read it: chown it to that user or chmod it to 0444")
            }
            Obstacle::Directory(directory) => format!(
                "let uid {uid} into {}: chown that directory to that user or chmod it to 0755",
                directory.display()
            ),
            Obstacle::Other => "its owner and mode allow it, so something else forbids it: look for an access control list \
                                (getfacl), SELinux (ls -Z; mount it with :z in Docker or Podman) or AppArmor"
                .to_owned(),
        }
    }
}

/// Opens a file to read it; `None`, if it is not a regular one. That is looked at before: to open a pipe is to wait for its
/// other end.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<File>> {
    if fs::metadata(path)?.is_file() {
        File::open(path).map(Some)
    } else {
        Ok(None)
    }
}

/// Reads all there is, but hardly more than `largest` bytes. Whether there were no more than that.
pub(crate) fn read_at_most(
    largest: usize,
    reader: impl Read,
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    reader.take(largest as u64 + 1).read_to_end(buffer)?;
    Ok(buffer.len() <= largest)
}

impl fmt::Display for FileFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner_and_mode {
            Some((owner, mode)) => write!(f, "owner uid {owner}, mode {mode:04o}")?,
            None => f.write_str("owner and mode unknown")?,
        }
        write!(f, "; this process: uid {}", self.process_uid)
    }
}

/// Whether owner and mode alone allow it. As in the kernel, an owner has the owner's bits and no other's. Capabilities do
/// not count: a process that may not read a file has none that would help.
fn allows(file: &fs::Metadata, bit: u32) -> bool {
    let group = rustix::process::Gid::from_raw(file.gid());
    let is_member = || {
        group == rustix::process::getegid()
            || rustix::process::getgroups().is_ok_and(|groups| groups.contains(&group))
    };
    let shift = if file.uid() == rustix::process::geteuid().as_raw() {
        6
    } else if is_member() {
        3
    } else {
        0
    };
    file.mode() >> shift & bit != 0
}

/// The first directory on the way that we may not pass, where symbolic links lead too.
fn closed_directory(path: &Path) -> Option<PathBuf> {
    let mut here = PathBuf::new();
    let mut ahead = steps(path);
    let mut links = 0;
    while let Some(step) = ahead.pop() {
        let directory = if here.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &here
        };
        if fs::metadata(directory).is_ok_and(|directory| !allows(&directory, PASS)) {
            return Some(directory.to_owned());
        }
        let next = here.join(step);
        match fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                ahead.append(&mut steps(&target));
            }
            Ok(_) | Err(_) => here = next,
        }
    }
    None
}

/// The names that a path is made of, the first one at the end.
fn steps(path: &Path) -> Vec<PathBuf> {
    let names = path.components().rev();
    names.map(|name| PathBuf::from(name.as_os_str())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn advice(facts: &FileFacts) -> String {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        facts.advice(&error, None)
    }

    #[test]
    fn a_file_that_owner_and_mode_let_us_read_is_not_blamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        for (mode, obstacle) in [
            (0o444, Obstacle::Other),
            (0o400, Obstacle::Other),
            (0o044, Obstacle::Mode),
            (0o000, Obstacle::Mode),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let facts = FileFacts::of(&path);
            assert_eq!(facts.obstacle, obstacle, "{mode:o}");
            assert_eq!(advice(&facts).contains("chmod"), obstacle == Obstacle::Mode);
            assert_eq!(
                advice(&facts).contains("SELinux"),
                obstacle == Obstacle::Other
            );
        }
    }

    #[test]
    fn a_directory_that_we_may_not_pass_is_blamed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
        // Not there for root either, whom no mode keeps out.
        let facts = FileFacts::of(&closed.join("secret"));
        assert_eq!(facts.obstacle, Obstacle::Directory(closed.clone()));
        assert!(advice(&facts).contains(&format!("into {}: ", closed.display())));
        assert_eq!(facts.owner_and_mode, None);
    }

    #[test]
    fn a_directory_that_we_may_not_pass_is_blamed_where_a_link_leads_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let closed = place("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
        for (link, target) in [
            ("file", closed.join("secret")),
            ("data", "closed".into()),
            ("again", "file".into()),
            ("up", "../".into()),
        ] {
            symlink(target, place(link)).unwrap();
        }
        for path in ["file", "again", "data/secret"] {
            let facts = FileFacts::of(&place(path));
            assert_eq!(
                facts.obstacle,
                Obstacle::Directory(closed.clone()),
                "{path}"
            );
        }
        for nowhere in ["none", "up/none/secret"] {
            assert_eq!(FileFacts::of(&place(nowhere)).obstacle, Obstacle::Other);
        }
        symlink("loop", place("loop")).unwrap();
        assert_eq!(FileFacts::of(&place("loop")).obstacle, Obstacle::Other);
    }
}
