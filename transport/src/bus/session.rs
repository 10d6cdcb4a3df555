use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::backend::BackendError;
use super::handle::Quota;
use crate::os::{Deadline, Owned};
use crate::pool::look_at_quota;
use crate::port::{hold_still, members_of};

/// Session that a bus joins when neither the program nor the environment names one.
pub const DEFAULT_SESSION: &str = "default";

/// Environment variable that names the session for programs that do not.
pub const SESSION_VARIABLE: &str = "TENSORBUS_SESSION";

/// Most characters of a session's name: its directory has to fit into a socket's path.
pub const MAX_SESSION_NAME: usize = 24;

/// Most bytes of a session's directory. iceoryx2 puts sockets into it, whose paths may have 108.
pub(super) const MAX_PATH_BYTES: usize = 50;
/// Held shared by every member of the session while it lives, however it dies.
const LOCK_FILE: &str = ".lock";
/// Longest wait for another process that is just removing or sweeping the session.
const OPEN_BOUND: Duration = Duration::from_secs(5);

/// Why a session cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The name is not one a session can have.
    #[error("session name {name:?} must have 1 to {MAX_SESSION_NAME} characters out of a-z A-Z 0-9 _ -")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no place for it, or not the one that was asked for.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The directory's path is too long for the sockets in it.
    #[error("session directory {} has {} bytes, at most {MAX_PATH_BYTES} fit; use a shorter session name or directory", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to somebody else or is open to others.
    #[error("session directory {} has owner {owner} and mode {mode:o}, it must be owned by user {expected_owner} with mode 700; remove it or use another session name", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Who runs this program.
        expected_owner: u32,
    },
    /// Another process kept the session's lock for itself for too long.
    #[error("session directory {} is being cleaned by another process for too long; look at it with `tensorbus doctor`", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("session directory {}: {reason}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The session has another quota.
    #[error(
        "session {session:?} has a quota of {existing} bytes, this program asks for {requested}; use the same `quota_bytes` in all programs, or leave it open in this one"
    )]
    Quota {
        /// Name of the session.
        session: String,
        /// The quota it has.
        existing: u64,
        /// What was asked for.
        requested: u64,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// iceoryx2 refused.
    #[error("could not join the session in {}: {reason}; `tensorbus doctor` tells what the machine lacks", path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
        /// What was refused.
        reason: String,
    },
}

/// One directory that holds everything of a session, and the promise that it is not removed while we are in it.
#[derive(Debug)]
pub(crate) struct Session {
    name: String,
    directory: PathBuf,
    /// Released when the last member of this process goes, or by the kernel when the process dies.
    lock: Owned<Membership>,
}

#[derive(Debug)]
struct Membership {
    directory: PathBuf,
    lock: File,
}

/// What can be seen of a session without joining it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SessionFacts {
    /// The session's name.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// Whether a living process is in it. If not, all of it was left behind by dead ones.
    pub in_use: bool,
    /// Bytes that its files take, as the file system counts them.
    pub bytes: u64,
    /// Number of files.
    pub files: usize,
}

impl SessionFacts {
    /// Process ids of the session's living members, and of dead ones whose objects are still there. Changes nothing.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn members(&self) -> Result<(Vec<u32>, Vec<u32>), SessionError> {
        members_of(&self.directory).map_err(|error| super::handle::session_error(&self.directory, error))
    }

    /// The session's quota and what is used of it, pools of dead publishers included until they are removed. `None` if it has
    /// no quota. Changes nothing.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn quota(&self) -> Result<Option<Quota>, SessionError> {
        let _still = hold_still(&self.directory);
        let found = look_at_quota(&self.directory)
            .map_err(|reason| SessionError::Io { path: self.directory.clone(), reason })?;
        Ok(found.map(|(bytes, used)| Quota { bytes, used }))
    }
}

impl Session {
    /// Enters the session, making it if it is not there and clearing out what was left by members that are all dead.
    pub(crate) fn enter(base: &Path, name: &str) -> Result<Self, SessionError> {
        let directory = directory_of(base, name)?;
        let lock = enter_directory(&directory)?;
        let lock = Owned::new(Membership { directory: directory.clone(), lock });
        Ok(Self { name: name.to_owned(), directory, lock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.lock.get().is_ok()
    }
}

impl Drop for Membership {
    /// The last one out takes the directory along.
    fn drop(&mut self) {
        // Who looks whether the session is in use has its lock for a moment, and must not be taken for another member.
        let _still = hold_still(&self.directory);
        if flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_contents(&self.directory);
            let _ = fs::remove_file(self.directory.join(LOCK_FILE));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// All sessions of this user in a base directory.
pub(crate) fn sessions(base: &Path) -> io::Result<Vec<SessionFacts>> {
    let prefix = directory_prefix();
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        if check_private(&entry.path()).is_err() {
            continue;
        }
        let (bytes, files) = usage(&entry.path());
        found.push(SessionFacts {
            name: name.to_owned(),
            in_use: is_in_use(&entry.path()),
            directory: entry.path(),
            bytes,
            files,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Between a session's name and what marks it as that of one process. No name that a program gives may have it.
const MARK: char = '.';
/// Hexadecimal digits behind it.
const MARK_DIGITS: usize = 8;

/// The session of this name that no other process has by chance: the same at each call in this process and in those that it forks.
pub(super) fn local_name(name: &str) -> String {
    static MARK_OF_PROCESS: OnceLock<u32> = OnceLock::new();
    if split_mark(name).1 {
        return name.to_owned();
    }
    let mark = MARK_OF_PROCESS.get_or_init(|| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.finish() as u32
    });
    format!("{name}{MARK}{mark:0MARK_DIGITS$x}")
}

/// A session's name without the mark of a process, and whether it had one.
pub(super) fn split_mark(name: &str) -> (&str, bool) {
    match name.split_once(MARK) {
        Some((given, mark)) if mark.len() == MARK_DIGITS && mark.bytes().all(|b| b.is_ascii_hexdigit()) => {
            (given, true)
        }
        _ => (name, false),
    }
}

pub(super) fn directory_prefix() -> String {
    format!("tb-{}-", rustix::process::geteuid().as_raw())
}

fn directory_of(base: &Path, name: &str) -> Result<PathBuf, SessionError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (given, _) = split_mark(name);
    if !(1..=MAX_SESSION_NAME).contains(&given.len()) || !given.chars().all(legal) {
        return Err(SessionError::Name { name: name.chars().take(2 * MAX_SESSION_NAME).collect() });
    }
    let path = base.join(format!("{}{name}", directory_prefix()));
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(SessionError::PathTooLong { path });
    }
    Ok(path)
}

fn enter_directory(directory: &Path) -> Result<File, SessionError> {
    let io = |reason| SessionError::Io { path: directory.to_owned(), reason };
    let deadline = Deadline::after(OPEN_BOUND);
    while deadline.left().is_some() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
        match check_private(directory) {
            Err(SessionError::Io { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => continue,
            checked => checked?,
        }
        let path = directory.join(LOCK_FILE);
        let lock = match File::options().create(true).truncate(false).read(true).write(true).open(&path) {
            Ok(lock) => lock,
            // Somebody removed the directory in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(error)),
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&lock, &path) {
            // No living process is here: whatever lies here was left by dead ones.
            remove_contents(directory);
        }
        if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() && is_at(&lock, &path) {
            return Ok(lock);
        }
        std::thread::yield_now();
    }
    Err(SessionError::Busy { path: directory.to_owned() })
}

/// Whether the locked file is still the one that others would find, and not one that was removed since it was opened.
fn is_at(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

fn check_private(directory: &Path) -> Result<(), SessionError> {
    let found =
        fs::symlink_metadata(directory).map_err(|reason| SessionError::Io { path: directory.to_owned(), reason })?;
    let expected_owner = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == expected_owner && found.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    Err(SessionError::NotPrivate {
        path: directory.to_owned(),
        owner: found.uid(),
        mode: found.mode() & 0o7777,
        expected_owner,
    })
}

/// Removes everything but the lock. Only called while the lock is held exclusively.
fn remove_contents(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() == LOCK_FILE {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %entry.path().display(), %error, "could not remove what a dead process left");
        }
    }
}

fn is_in_use(directory: &Path) -> bool {
    let _still = hold_still(directory);
    match File::open(directory.join(LOCK_FILE)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(),
        // What cannot be looked at may be in use.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Bytes and files below a directory.
fn usage(directory: &Path) -> (u64, usize) {
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            let (inner_bytes, inner_files) = usage(&entry.path());
            bytes += inner_bytes;
            files += inner_files;
        } else {
            // With a quota a pool has two names, both in here.
            bytes += found.blocks() * 512 / found.nlink().max(1);
            files += 1;
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn base() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("s").rand_bytes(4).tempdir_in("/tmp").unwrap()
    }

    #[test]
    fn last_one_out_removes_the_directory() {
        let base = base();
        let first = Session::enter(base.path(), "s").unwrap();
        let second = Session::enter(base.path(), "s").unwrap();
        fs::write(first.directory().join("object"), "x").unwrap();
        let mode = fs::metadata(first.directory()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let facts = &sessions(base.path()).unwrap()[0];
        assert_eq!((facts.name.as_str(), facts.in_use, facts.files), ("s", true, 2));
        drop(first);
        assert!(second.directory().join("object").exists());
        drop(second);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_the_dead_left_is_gone_before_a_newcomer_sees_it() {
        let base = base();
        let directory = directory_of(base.path(), "s").unwrap();
        DirBuilder::new().mode(0o700).create(&directory).unwrap();
        fs::create_dir(directory.join("nodes")).unwrap();
        fs::write(directory.join("nodes/left"), "x").unwrap();
        assert!(!sessions(base.path()).unwrap()[0].in_use);
        let session = Session::enter(base.path(), "s").unwrap();
        assert!(!session.directory().join("nodes").exists());
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let base = base();
        let directory = directory_of(base.path(), "s").unwrap();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Session::enter(base.path(), "s"), Err(SessionError::NotPrivate { mode: 0o755, .. })));
    }

    #[test]
    fn bad_names_and_long_paths_are_refused() {
        for name in ["", "a b", "a/b", "..", "a.b", "a.1234567g", ".12345678", "x".repeat(25).as_str()] {
            assert!(matches!(directory_of(Path::new("/dev/shm"), name), Err(SessionError::Name { .. })), "{name}");
        }
        let long = PathBuf::from(format!("/{}", "d".repeat(60)));
        assert!(matches!(directory_of(&long, "s"), Err(SessionError::PathTooLong { .. })));
        assert!(directory_of(Path::new("/dev/shm"), &"x".repeat(24)).is_ok());
    }

    #[test]
    fn the_mark_of_a_process_is_part_of_a_legal_name() {
        let local = local_name("s");
        assert_eq!(split_mark(&local), ("s", true));
        assert_eq!((local_name("s"), local_name(&local)), (local.clone(), local.clone()));
        assert!(directory_of(Path::new("/dev/shm"), &local).is_ok());
    }

    #[test]
    fn entering_and_leaving_at_once_never_meets_a_removed_directory() {
        let base = base();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let session = Session::enter(base.path(), "s").unwrap();
                        let mine = session.directory().join(format!("{:?}", std::thread::current().id()));
                        fs::write(&mine, "x").unwrap();
                        assert!(mine.exists());
                        fs::remove_file(&mine).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
