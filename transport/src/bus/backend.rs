//! Where a session's files lie, how that is chosen, and why not elsewhere.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::session::{MAX_PATH_BYTES, MAX_SESSION_NAME, directory_prefix};
use crate::pool::MemoryFacts;

/// Environment variable that names the backend for programs that do not: `shm`, `file` or `local`.
pub const BACKEND_VARIABLE: &str = "TENSORBUS_BACKEND";

/// Bytes that `/dev/shm` must have in all to be chosen: 16 MiB, room for a session and a few small pools.
///
/// Its size counts, not what is free at the moment: all processes of a session have to choose alike.
pub const MIN_SHARED_MEMORY: u64 = 16 << 20;

const SHARED_MEMORY: &str = "/dev/shm";
const TEMPORARY: &str = "/tmp";

/// Where a session's files lie. Everything else is the same: each process maps them, and nobody copies a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Backend {
    /// In memory: `/dev/shm`. The default where it can be used.
    Shm,
    /// In a directory for temporary files, `TMPDIR` or else `/tmp`: the default where `/dev/shm` cannot be used.
    ///
    /// Tensors lie in the page cache, and are read there as fast; the system may write them to the disk meanwhile. Processes
    /// whose `TMPDIR` differs do not meet.
    File,
    /// Where the default is, under a name that no other process has: for nodes of one process and its children.
    ///
    /// [`Bus::session`](crate::Bus::session) tells the whole name: a child that is given it, by `TENSORBUS_SESSION` for
    /// instance, joins. Never chosen by default.
    Local,
}

/// Which backend a bus has, and why it has no other.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tensorbus_transport::{Backend, Bus};
///
/// let bus = Bus::builder().session("doc-backend").backend(Backend::File).open()?;
/// assert_eq!(bus.backend().backend, Backend::File);
/// for passed_over in &bus.backend().passed_over {
///     println!("not {}: {}", passed_over.backend, passed_over.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackendChoice {
    /// The backend.
    pub backend: Backend,
    /// The directory that sessions lie in.
    pub directory: PathBuf,
    /// Who chose it.
    pub chosen_by: ChosenBy,
    /// The others, and why they were not chosen.
    pub passed_over: Vec<PassedOver>,
}

/// A backend that was not chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PassedOver {
    /// The backend.
    pub backend: Backend,
    /// Why it was not chosen.
    pub reason: NotChosen,
}

/// Who chose a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChosenBy {
    /// The best one that can be used.
    Default,
    /// The environment variable `TENSORBUS_BACKEND`.
    Environment,
    /// The program, by [`BusBuilder::backend`](crate::BusBuilder::backend) or
    /// [`BusBuilder::directory`](crate::BusBuilder::directory).
    Program,
}

/// Why a backend was not chosen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotChosen {
    /// There is no such directory.
    #[error("{} is not there", directory.display())]
    NotThere {
        /// The directory.
        directory: PathBuf,
    },
    /// Something else has its name.
    #[error("{} is not a directory", directory.display())]
    NotADirectory {
        /// What is not one.
        directory: PathBuf,
    },
    /// This user may not make files in it, or its file system is mounted read-only.
    #[error("{} is not writable", directory.display())]
    NotWritable {
        /// The directory.
        directory: PathBuf,
    },
    /// It lies on a disk.
    #[error("{} is no tmpfs, it does not lie in memory", directory.display())]
    NotInMemory {
        /// The directory.
        directory: PathBuf,
    },
    /// Its file system is too small.
    #[error("{} has {bytes} bytes in all, at least {least} are needed", directory.display())]
    TooSmall {
        /// The directory.
        directory: PathBuf,
        /// Bytes of its file system, free or not.
        bytes: u64,
        /// Bytes that are needed.
        least: u64,
    },
    /// A session with a long name would not fit into it.
    #[error("the path {} has {} bytes, at most {most} leave room for any session", directory.display(), directory.as_os_str().len())]
    PathTooLong {
        /// The directory.
        directory: PathBuf,
        /// Bytes that it may have.
        most: usize,
    },
    /// The system would not tell about it.
    #[error("{} cannot be looked at: {kind}", directory.display())]
    Unknown {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        kind: ErrorKind,
    },
    /// Another one that can be used comes first.
    #[error("{chosen} can be used, and comes first")]
    ComesLater {
        /// The one that comes first.
        chosen: Backend,
    },
    /// Another one was asked for.
    #[error("{asked} was asked for")]
    AnotherAsked {
        /// The one that was asked for.
        asked: Backend,
    },
    /// No other process would see the session.
    #[error("other processes would not see the session; it has to be asked for")]
    OnlyWhenAsked,
}

/// Why no backend can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The environment names a backend that there is not.
    #[error("{BACKEND_VARIABLE} is {value:?}; it can be shm, file or local")]
    NoSuchBackend {
        /// The variable's value.
        value: String,
    },
    /// The one that was asked for cannot be used.
    #[error("backend {backend} cannot be used: {reason}; ask for another one, or for none")]
    Unusable {
        /// The backend.
        backend: Backend,
        /// Why not.
        reason: NotChosen,
    },
    /// None can be used.
    #[error("no place for sessions: {shm}, and {file}; name a directory that can be written to in TMPDIR")]
    NoneUsable {
        /// Why not in memory.
        shm: NotChosen,
        /// Why not on disk.
        file: NotChosen,
    },
}

impl Backend {
    const ALL: [Self; 3] = [Self::Shm, Self::File, Self::Local];

    fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::File => "file",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.backend, self.directory.display())?;
        match (self.chosen_by, &self.passed_over[..]) {
            (ChosenBy::Environment, _) => write!(f, ", as {BACKEND_VARIABLE} says"),
            (ChosenBy::Default, [PassedOver { backend: Backend::Shm, reason }, ..]) => write!(f, ", because {reason}"),
            _ => Ok(()),
        }
    }
}

/// The places that sessions can lie in.
pub(super) struct Places {
    shm: PathBuf,
    /// The first one that can be used is.
    temporary: Vec<PathBuf>,
}

impl Places {
    pub(super) fn of_this_machine() -> Self {
        Self { shm: SHARED_MEMORY.into(), temporary: vec![std::env::temp_dir(), TEMPORARY.into()] }
    }

    /// The backend that a program gets: the one that it asks for, else that of the environment, else the best.
    pub(super) fn choose(&self, program: Option<Backend>) -> Result<BackendChoice, BackendError> {
        let (asked, by) = match program {
            Some(backend) => (Some(backend), ChosenBy::Program),
            None => from_environment()?.map_or((None, ChosenBy::Default), |asked| (Some(asked), ChosenBy::Environment)),
        };
        self.chosen(asked, by)
    }

    fn chosen(&self, asked: Option<Backend>, chosen_by: ChosenBy) -> Result<BackendChoice, BackendError> {
        let unusable = |backend| move |reason| BackendError::Unusable { backend, reason };
        let best = || match (self.shm(), self.file()) {
            (Ok(directory), _) => Ok((Backend::Shm, directory)),
            (_, Ok(directory)) => Ok((Backend::File, directory)),
            (Err(shm), Err(file)) => Err(BackendError::NoneUsable { shm, file }),
        };
        let (backend, directory) = match asked {
            None => best()?,
            Some(Backend::Shm) => (Backend::Shm, self.shm().map_err(unusable(Backend::Shm))?),
            Some(Backend::File) => (Backend::File, self.file().map_err(unusable(Backend::File))?),
            Some(Backend::Local) => (Backend::Local, best()?.1),
        };
        let others = Backend::ALL.into_iter().filter(|&other| other != backend);
        let passed_over =
            others.map(|other| PassedOver { backend: other, reason: self.why_not(other, backend, asked) });
        Ok(BackendChoice { backend, directory, chosen_by, passed_over: passed_over.collect() })
    }

    fn why_not(&self, other: Backend, chosen: Backend, asked: Option<Backend>) -> NotChosen {
        let looked_at = match other {
            Backend::Shm => self.shm(),
            Backend::File => self.file(),
            Backend::Local => Err(NotChosen::OnlyWhenAsked),
        };
        match (looked_at, asked) {
            (_, Some(asked)) => NotChosen::AnotherAsked { asked },
            (Err(reason), None) => reason,
            (Ok(_), None) => NotChosen::ComesLater { chosen },
        }
    }

    /// `/dev/shm`, if it can be used.
    fn shm(&self) -> Result<PathBuf, NotChosen> {
        let directory = usable(&self.shm)?;
        let facts = MemoryFacts::gather(&directory)
            .map_err(|error| NotChosen::Unknown { directory: directory.clone(), kind: error.kind() })?;
        if !facts.in_memory {
            return Err(NotChosen::NotInMemory { directory });
        }
        // A tmpfs without a bound of its own says that its size is 0.
        if (1..MIN_SHARED_MEMORY).contains(&facts.filesystem_size) {
            return Err(NotChosen::TooSmall { directory, bytes: facts.filesystem_size, least: MIN_SHARED_MEMORY });
        }
        Ok(directory)
    }

    /// The first directory for temporary files that can be used; or why the first one of all cannot.
    fn file(&self) -> Result<PathBuf, NotChosen> {
        let mut looked_at = self.temporary.iter().map(|place| usable(place));
        let first = looked_at.next().unwrap_or_else(|| Err(NotChosen::NotThere { directory: TEMPORARY.into() }));
        first.or_else(|reason| looked_at.find_map(Result::ok).ok_or(reason))
    }

    /// Every directory that sessions of this user may lie in.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = self.shm().into_iter().chain(self.file()).collect();
        all.dedup();
        all
    }
}

/// The backend of a program that names a directory of its own: what its file system is like decides.
pub(super) fn of_directory(directory: &Path, asked: Option<Backend>) -> BackendChoice {
    let in_memory = || MemoryFacts::gather(directory).is_ok_and(|facts| facts.in_memory);
    let backend = asked.unwrap_or_else(|| if in_memory() { Backend::Shm } else { Backend::File });
    let others = Backend::ALL.into_iter().filter(|&other| other != backend);
    let passed_over =
        others.map(|other| PassedOver { backend: other, reason: NotChosen::AnotherAsked { asked: backend } });
    BackendChoice {
        backend,
        directory: directory.to_owned(),
        chosen_by: ChosenBy::Program,
        passed_over: passed_over.collect(),
    }
}

fn from_environment() -> Result<Option<Backend>, BackendError> {
    let Some(value) = std::env::var_os(BACKEND_VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    match Backend::ALL.into_iter().find(|backend| backend.name() == value) {
        Some(backend) => Ok(Some(backend)),
        None => Err(BackendError::NoSuchBackend { value: value.to_string_lossy().into_owned() }),
    }
}

/// Whether this user can make any session in the directory.
fn usable(directory: &Path) -> Result<PathBuf, NotChosen> {
    let directory = directory.to_owned();
    // The same for every session, whatever its name: all of a user's sessions lie in one place.
    let most = MAX_PATH_BYTES.saturating_sub("/".len() + directory_prefix().len() + MAX_SESSION_NAME);
    if directory.as_os_str().len() > most {
        return Err(NotChosen::PathTooLong { directory, most });
    }
    match std::fs::metadata(&directory) {
        Ok(found) if !found.is_dir() => return Err(NotChosen::NotADirectory { directory }),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(NotChosen::NotThere { directory }),
        Err(error) => return Err(NotChosen::Unknown { directory, kind: error.kind() }),
    }
    if rustix::fs::access(&directory, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Err(NotChosen::NotWritable { directory });
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(shm: &str, temporary: &[&str]) -> Places {
        Places { shm: shm.into(), temporary: temporary.iter().map(PathBuf::from).collect() }
    }

    fn default_of(places: &Places) -> BackendChoice {
        places.chosen(None, ChosenBy::Default).unwrap()
    }

    #[test]
    fn shared_memory_comes_first_and_the_others_say_why_not() {
        let choice = default_of(&places("/dev/shm", &["/tmp"]));
        assert_eq!((choice.backend, choice.directory.to_str().unwrap()), (Backend::Shm, "/dev/shm"));
        let reasons: Vec<_> = choice.passed_over.into_iter().map(|other| (other.backend, other.reason)).collect();
        let later = NotChosen::ComesLater { chosen: Backend::Shm };
        assert_eq!(reasons, [(Backend::File, later), (Backend::Local, NotChosen::OnlyWhenAsked)]);
    }

    #[test]
    fn without_shared_memory_it_is_the_directory_for_temporary_files() {
        for (shm, reason) in [
            ("/no/shm", NotChosen::NotThere { directory: "/no/shm".into() }),
            ("/dev/null", NotChosen::NotADirectory { directory: "/dev/null".into() }),
            ("/sys", NotChosen::NotInMemory { directory: "/sys".into() }),
        ] {
            // `/sys` is mounted read-only for those who may not change it.
            let choice = default_of(&places(shm, &["/tmp"]));
            assert_eq!((choice.backend, choice.directory.to_str().unwrap()), (Backend::File, "/tmp"));
            let found = &choice.passed_over[0].reason;
            let read_only = NotChosen::NotWritable { directory: shm.into() };
            assert!(*found == reason || *found == read_only, "{found:?}");
            assert_eq!(choice.to_string(), format!("file in /tmp, because {found}"));
        }
    }

    #[test]
    fn a_long_directory_for_temporary_files_gives_way_to_a_short_one() {
        let long = tempfile::tempdir_in("/tmp").unwrap().path().join("d".repeat(60));
        std::fs::create_dir_all(&long).unwrap();
        let choice = default_of(&places("/no/shm", &[long.to_str().unwrap(), "/tmp"]));
        assert_eq!(choice.directory.to_str().unwrap(), "/tmp");
        let only = places("/no/shm", &[long.to_str().unwrap()]).chosen(None, ChosenBy::Default).unwrap_err();
        let file = match &only {
            BackendError::NoneUsable { file: NotChosen::PathTooLong { directory, .. }, .. } => directory,
            other => panic!("{other:?}"),
        };
        assert_eq!(*file, long);
        std::fs::remove_dir_all(long.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_is_asked_for_is_had_or_refused() {
        let here = places("/dev/shm", &["/tmp"]);
        for asked in Backend::ALL {
            let choice = here.chosen(Some(asked), ChosenBy::Program).unwrap();
            assert_eq!(choice.backend, asked);
            assert!(choice.passed_over.iter().all(|other| other.reason == NotChosen::AnotherAsked { asked }));
        }
        let refused = places("/no/shm", &["/tmp"]).chosen(Some(Backend::Shm), ChosenBy::Program);
        let reason = NotChosen::NotThere { directory: "/no/shm".into() };
        assert_eq!(refused, Err(BackendError::Unusable { backend: Backend::Shm, reason }));
    }
}
