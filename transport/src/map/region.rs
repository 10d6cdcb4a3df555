use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::os::Mapping;

/// Bytes that stay where they are for as long as a share of this is kept. Cheap to clone; each clone is a share.
#[derive(Clone)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    _keeper: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the bytes are memory of the process, not of a thread, and are only read.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Why a file is not mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapFileError {
    /// A directory, a device, a pipe.
    #[error("{} is no regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file without a byte.
    #[error("{} is empty", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
}

impl Region {
    /// Maps a whole file to read. Processes that map the same file share its pages in the page cache.
    ///
    /// The pages are those of the file: **whoever changes the file in place changes the bytes, and whoever makes it shorter
    /// ends this process with SIGBUS** when it reads beyond the new end. To replace a file under its readers, write another
    /// one and rename it: they keep the old one. Where that is not in your hands, use a copy in the session
    /// ([`Bus::publish_blob`](crate::Bus::publish_blob)).
    ///
    /// # Errors
    /// [`MapFileError`].
    pub fn of_file(path: &Path) -> Result<Self, MapFileError> {
        let io = |reason| MapFileError::Io { path: path.to_owned(), reason };
        // A pipe without a writer would make this wait for ever.
        let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(non_blocking).open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?;
        if !found.is_file() {
            return Err(MapFileError::NotAFile { path: path.to_owned() });
        }
        let len = usize::try_from(found.len()).map_err(|_| io(io::ErrorKind::FileTooLarge.into()))?;
        if len == 0 {
            return Err(MapFileError::Empty { path: path.to_owned() });
        }
        let mapping = Mapping::read_only(&file, len).map_err(io)?;
        let start = mapping.start();
        // SAFETY: `len` bytes are mapped to read until the mapping is dropped, which nobody but the region has.
        Ok(unsafe { Self::new(start, len, Arc::new(mapping)) })
    }

    /// Memory of somebody else, for instance of another library of this process.
    ///
    /// # Safety
    /// From `start` on, `len` bytes are initialised and readable, and nobody writes them or takes them away, until `keeper` is
    /// dropped. `len` is at most `isize::MAX`.
    pub unsafe fn new(start: NonNull<u8>, len: usize, keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self { start, len, _keeper: keeper }
    }

    /// The bytes. Those of a mapped file begin at a page.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the contract of `new`; the keeper is not dropped before `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_mapped_as_long_as_somebody_shares_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 5000]).unwrap();
        let region = Region::of_file(&path).unwrap();
        let share = region.clone();
        drop(region);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(share.bytes(), [7; 5000]);
        let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains(path.to_str().unwrap());
        assert!(mapped());
        drop(share);
        assert!(!mapped());
    }

    #[test]
    fn what_is_no_file_with_bytes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(Region::of_file(directory.path()), Err(MapFileError::NotAFile { .. })));
        assert!(matches!(Region::of_file(&path("pipe")), Err(MapFileError::NotAFile { .. })));
        assert!(matches!(Region::of_file(Path::new("/dev/zero")), Err(MapFileError::NotAFile { .. })));
        assert!(matches!(Region::of_file(&path("empty")), Err(MapFileError::Empty { .. })));
        assert!(matches!(Region::of_file(&path("none")), Err(MapFileError::Io { .. })));
    }
}
