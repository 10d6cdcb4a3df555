//! The blobs of a session, as files of its directory. One is used as long as some process has it open or mapped, which the
//! kernel knows; what nobody uses goes with the next change of the session. Nothing has to be counted, so that no death can
//! leave it wrong. Changed in a turn only.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::os::is_used_elsewhere;

/// The directory of the blobs, in that of the session.
const DIRECTORY: &str = "blobs";
/// Ending of a blob's file that is being written.
const UNFINISHED: &str = ".new";
/// Between the parts of a file's name. No blob's name has it.
const SEPARATOR: char = '@';
/// What stands for the slash of a blob's name in the name of its file. No blob's name has it.
const SLASH: &str = ":";
/// Mode of a finished blob: nobody writes it any more.
const FINISHED_MODE: u32 = 0o400;

/// A finished blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BlobFile {
    pub(crate) name: String,
    /// Grows with each blob of this name: the one with the highest is what the name means.
    number: u64,
    /// Hexadecimal.
    pub(crate) digest: String,
    pub(crate) path: PathBuf,
}

/// All of the session.
pub(crate) struct BlobFiles {
    directory: PathBuf,
    finished: Vec<BlobFile>,
}

impl BlobFiles {
    /// In a turn.
    pub(crate) fn look(session: &Path) -> io::Result<Self> {
        let directory = session.join(DIRECTORY);
        let mut finished = Vec::new();
        for path in files(&directory)? {
            finished.extend(BlobFile::at(path));
        }
        finished.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        Ok(Self { directory, finished })
    }

    /// By name, older ones of a name first.
    pub(crate) fn finished(&self) -> &[BlobFile] {
        &self.finished
    }

    /// What the name means.
    pub(crate) fn newest(&self, name: &str) -> Option<&BlobFile> {
        self.finished.iter().rfind(|blob| blob.name == name)
    }

    /// The one with this content, made the one that the name means. In a turn.
    pub(crate) fn renew(&self, name: &str, digest: &str) -> io::Result<Option<BlobFile>> {
        let Some(found) = self.finished.iter().find(|blob| blob.name == name && blob.digest == digest) else {
            return Ok(None);
        };
        if self.newest(name) == Some(found) {
            return Ok(Some(found.clone()));
        }
        self.rename(&found.path, name, digest).map(Some)
    }

    /// Whether another process, or thread, is writing this blob. What a dead one has begun is removed. In a turn.
    pub(crate) fn is_being_written(&self, name: &str, digest: &str) -> io::Result<bool> {
        let path = self.unfinished(name, digest);
        if !path.exists() {
            return Ok(false);
        }
        let used = is_used(&path)?;
        if !used {
            fs::remove_file(&path)?;
        }
        Ok(used)
    }

    /// Begins to write a blob that nobody is writing: a file with room for `len` bytes, which are admitted. In a turn.
    pub(crate) fn begin(&self, name: &str, digest: &str, len: u64) -> io::Result<(File, PathBuf)> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.unfinished(name, digest);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        crate::os::reserve_ranges(&path, std::iter::once(0..len)).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        Ok((file, path))
    }

    fn unfinished(&self, name: &str, digest: &str) -> PathBuf {
        self.directory.join(format!("{}{SEPARATOR}{digest}{UNFINISHED}", name.replace('/', SLASH)))
    }

    /// Makes what was written at `path` a blob, the one that its name means. In a turn.
    pub(crate) fn finish(&self, path: &Path, name: &str, digest: &str) -> io::Result<BlobFile> {
        fs::set_permissions(path, fs::Permissions::from_mode(FINISHED_MODE))?;
        self.rename(path, name, digest)
    }

    fn rename(&self, from: &Path, name: &str, digest: &str) -> io::Result<BlobFile> {
        let number = self.newest(name).map_or(0, |newest| newest.number.saturating_add(1));
        let file = format!("{}{SEPARATOR}{number}{SEPARATOR}{digest}", name.replace('/', SLASH));
        let path = self.directory.join(file);
        fs::rename(from, &path)?;
        Ok(BlobFile { name: name.to_owned(), number, digest: digest.to_owned(), path })
    }
}

impl BlobFile {
    fn at(path: PathBuf) -> Option<Self> {
        let file = path.file_name()?.to_str()?;
        let mut parts = file.split(SEPARATOR);
        let (name, number, digest) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self { name: name.replace(SLASH, "/"), number: number.parse().ok()?, digest: digest.to_owned(), path })
    }
}

/// Whether there are blobs that nobody uses any more. Needs no turn: the answer may be wrong by the time it is given.
pub(crate) fn has_unused_blobs(session: &Path) -> bool {
    files(&session.join(DIRECTORY)).is_ok_and(|files| files.iter().any(|path| is_used(path).is_ok_and(|used| !used)))
}

/// Removes what nobody uses, and says how many bytes the others take, finished or not. In a turn: nobody is just about to use
/// one.
pub(super) fn settle_blobs(session: &Path) -> io::Result<u64> {
    for path in files(&session.join(DIRECTORY))? {
        if !counts(&path) {
            fs::remove_file(&path)?;
        }
    }
    bytes_of_blobs(session)
}

/// How many bytes those take that are used.
pub(super) fn bytes_of_blobs(session: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in files(&session.join(DIRECTORY))?.iter().filter(|path| counts(path)) {
        bytes += match fs::metadata(path) {
            Ok(found) => found.blocks() * 512,
            // Removed while an onlooker looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// A file system that cannot tell keeps them until the session ends.
pub(super) fn counts(path: &Path) -> bool {
    is_used(path)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot tell whether a blob is still used"))
        .unwrap_or(true)
}

pub(super) fn is_used(path: &Path) -> io::Result<bool> {
    is_used_elsewhere(&File::open(path)?)
}

pub(super) fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(session: &Path) -> Vec<String> {
        let files = files(&session.join(DIRECTORY)).unwrap().into_iter();
        let mut names: Vec<_> = files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Writes a blob and keeps it open.
    fn blob(session: &Path, name: &str, digest: &str) -> File {
        let files = BlobFiles::look(session).unwrap();
        let (file, path) = files.begin(name, digest, 10_000).unwrap();
        files.finish(&path, name, digest).unwrap();
        file
    }

    #[test]
    fn a_name_means_what_was_published_last() {
        let session = tempfile::tempdir().unwrap();
        let newest = |name| BlobFiles::look(session.path()).unwrap().newest(name).map(|blob| blob.digest.clone());
        assert_eq!(newest("a/b"), None);
        let _open =
            [blob(session.path(), "a/b", "1"), blob(session.path(), "a/b", "2"), blob(session.path(), "a", "3")];
        assert_eq!(newest("a/b").as_deref(), Some("2"));
        let renewed = BlobFiles::look(session.path()).unwrap().renew("a/b", "1").unwrap().unwrap();
        assert_eq!((newest("a/b").as_deref(), renewed.number), (Some("1"), 2));
        assert_eq!(BlobFiles::look(session.path()).unwrap().renew("a/b", "1").unwrap(), Some(renewed));
        assert_eq!(BlobFiles::look(session.path()).unwrap().renew("a/b", "3").unwrap(), None);
        assert_eq!(names(session.path()), ["a:b@1@2", "a:b@2@1", "a@0@3"]);
    }

    #[test]
    fn what_nobody_uses_goes() {
        let session = tempfile::tempdir().unwrap();
        assert!(!has_unused_blobs(session.path()));
        let open = [blob(session.path(), "a", "1"), blob(session.path(), "b", "2")];
        let files = BlobFiles::look(session.path()).unwrap();
        assert!(!files.is_being_written("c", "3").unwrap());
        let unfinished = files.begin("c", "3", 10_000).unwrap();
        assert!(files.is_being_written("c", "3").unwrap());
        assert!(settle_blobs(session.path()).unwrap() >= 30_000);
        assert_eq!(names(session.path()), ["a@0@1", "b@0@2", "c@3.new"]);
        drop((open, unfinished));
        assert!(has_unused_blobs(session.path()));
        assert!(!files.is_being_written("c", "3").unwrap(), "its writer is gone");
        let _again = files.begin("c", "3", 10_000).unwrap();
        assert!((10_000..20_000).contains(&settle_blobs(session.path()).unwrap()));
        assert_eq!(names(session.path()), ["c@3.new"]);
    }
}
