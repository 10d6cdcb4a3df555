//! The files of a session's request rings: `NAME@NUMBER`, and beside it one for each party, `NAME@NUMBER.cINDEX` or `.wINDEX`, which that party
//! keeps mapped. A ring is used as long as some process has it mapped; what nobody uses goes with the next change of the session.
//! Changed in a turn only.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::blobs::{counts, files, is_used};

/// The directory of the rings, in that of the session.
const DIRECTORY: &str = "rings";
/// Ending of a ring's file that is being made.
const UNFINISHED: &str = "new";
/// Between a ring's name and its number. No ring's name has it.
const SEPARATOR: char = '@';
/// What stands for the slash of a ring's name in the name of its file.
const SLASH: &str = ":";

/// A ring that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RingFile {
    pub(crate) name: String,
    /// Grows with each ring of this name: the highest is what the name means.
    number: u64,
    pub(crate) path: PathBuf,
}

/// A ring that is being made.
pub(crate) struct NewRing {
    pub(crate) file: File,
    pub(crate) unfinished: PathBuf,
    path: PathBuf,
}

/// What a file of the directory is.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    Ring,
    Unfinished,
    Party,
}

/// The session's rings, by name and number. In a turn.
pub(crate) fn rings(session: &Path) -> io::Result<Vec<RingFile>> {
    let mut found: Vec<_> = files(&session.join(DIRECTORY))?.into_iter().filter_map(RingFile::at).collect();
    found.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
    Ok(found)
}

/// Begins a ring, the one that its name means once it is finished. In a turn.
pub(crate) fn begin_ring(session: &Path, name: &str) -> io::Result<NewRing> {
    let directory = session.join(DIRECTORY);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let newest = rings(session)?.into_iter().rfind(|ring| ring.name == name);
    let number = newest.map_or(0, |newest| newest.number.saturating_add(1));
    let path = directory.join(format!("{}{SEPARATOR}{number}", name.replace('/', SLASH)));
    let unfinished = path_of(&path, UNFINISHED);
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    Ok(NewRing { file, unfinished, path })
}

impl NewRing {
    /// Gives the ring its name. In a turn.
    pub(crate) fn finish(self) -> io::Result<PathBuf> {
        fs::rename(&self.unfinished, &self.path)?;
        Ok(self.path)
    }
}

impl RingFile {
    fn at(path: PathBuf) -> Option<Self> {
        let (ring, kind) = parse(&path)?;
        if kind != Kind::Ring {
            return None;
        }
        let (name, number) = ring.rsplit_once(SEPARATOR)?;
        Some(Self { name: name.replace(SLASH, "/"), number: number.parse().ok()?, path })
    }
}

/// The file of a party of a ring.
pub(crate) fn path_of(ring: &Path, party: &str) -> PathBuf {
    let mut path = ring.as_os_str().to_owned();
    path.push(".");
    path.push(party);
    path.into()
}

/// Name and number of the ring that a file belongs to, and what it is.
fn parse(path: &Path) -> Option<(&str, Kind)> {
    let file = path.file_name()?.to_str()?;
    let number_at = file.rfind(SEPARATOR)? + 1;
    let Some((_, ending)) = file[number_at..].split_once('.') else { return Some((file, Kind::Ring)) };
    let ring = &file[..file.len() - ending.len() - 1];
    Some((ring, if ending == UNFINISHED { Kind::Unfinished } else { Kind::Party }))
}

/// Whether there are rings that nobody uses any more. Needs no turn: the answer may be wrong by the time it is given.
pub(crate) fn has_unused_rings(session: &Path) -> bool {
    let is_unused = |path: &PathBuf| {
        matches!(parse(path), Some((_, Kind::Ring | Kind::Unfinished))) && is_used(path).is_ok_and(|used| !used)
    };
    files(&session.join(DIRECTORY)).is_ok_and(|files| files.iter().any(is_unused))
}

/// Removes the rings that nobody uses, and says how many bytes the others take. In a turn.
pub(super) fn settle_rings(session: &Path) -> io::Result<u64> {
    let files = files(&session.join(DIRECTORY))?;
    for path in &files {
        if matches!(parse(path), Some((_, Kind::Ring | Kind::Unfinished))) && !counts(path) {
            fs::remove_file(path)?;
        }
    }
    // Of a party that died with its ring.
    for path in &files {
        if let Some((ring, Kind::Party)) = parse(path)
            && !path.with_file_name(ring).exists()
        {
            fs::remove_file(path)?;
        }
    }
    bytes_of_rings(session)
}

/// How many bytes the session's rings take.
pub(super) fn bytes_of_rings(session: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in files(&session.join(DIRECTORY))? {
        bytes += match fs::metadata(&path) {
            Ok(found) => found.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_goes_with_its_last_user() {
        let session = tempfile::tempdir().unwrap();
        assert_eq!(rings(session.path()).unwrap(), []);
        let first = begin_ring(session.path(), "a.b/c").unwrap();
        assert_eq!(rings(session.path()).unwrap(), [], "not before it is finished");
        let keep = first.file.try_clone().unwrap();
        first.file.set_len(10_000).unwrap();
        let path = first.finish().unwrap();
        let second = begin_ring(session.path(), "a.b/c").unwrap();
        let _second_file = second.file.try_clone().unwrap();
        second.finish().unwrap();
        let found = rings(session.path()).unwrap();
        assert_eq!(
            found.iter().map(|ring| (&*ring.name, ring.number)).collect::<Vec<_>>(),
            [("a.b/c", 0), ("a.b/c", 1)]
        );
        let party = path_of(&path, "w3");
        fs::write(&party, "").unwrap();
        assert!(!has_unused_rings(session.path()));
        settle_rings(session.path()).unwrap();
        assert!(path.exists() && party.exists());
        drop(keep);
        assert!(has_unused_rings(session.path()));
        settle_rings(session.path()).unwrap();
        assert!(!path.exists() && !party.exists());
        assert_eq!(rings(session.path()).unwrap().len(), 1);
    }
}
