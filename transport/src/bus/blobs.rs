use std::any::Any;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Bus, BusInner};
use crate::map::Region;
use crate::os::{Deadline, Mapping};
use crate::pool::{BlobFile, BlobFiles, MemoryFacts, PoolError, admit};
use crate::port::{Part, Turn, TurnError};

/// Most characters of a blob's name.
pub const MAX_BLOB_NAME: usize = 128;

/// Longest wait for another process that is writing the same blob.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(2);

/// Bytes that lie in a session once and can be read by all its processes, under a name and the digest of their content.
///
/// Written once, mapped read-only, and there as long as any process uses them: the one that wrote them may be killed. The
/// memory is given back when the last process has dropped its last [`region`](Blob::region), or was killed. Counts against the
/// session's quota.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use tensorbus_transport::Bus;
/// # let bus = Bus::builder().session("doc-blobs").open()?;
/// let digest = [7; 32]; // of the content, by a function of your choice
/// let blob = bus.publish_blob("table", digest, 5, |file| file.write_all(b"bytes"))?;
/// // In any process of the session:
/// assert_eq!(bus.attach_blob("table")?.region().bytes(), b"bytes");
/// drop(blob);
/// assert!(bus.attach_blob("table").is_err(), "nobody uses it any more");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Blob {
    name: String,
    digest: [u8; 32],
    region: Region,
}

/// What can be seen of a blob without using it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlobInfo {
    /// Its name. Several with one name are in use at a time if its content was changed.
    pub name: String,
    /// Digest of its content.
    pub digest: [u8; 32],
    /// Its bytes.
    pub bytes: u64,
}

/// Why there is no blob.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The name is not one a blob can have.
    #[error(
        "name {name:?} must have 1 to {MAX_BLOB_NAME} characters out of a-z A-Z 0-9 _ - . /, and not begin or end with /"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Nothing of this name is in use.
    #[error(
        "nothing is published under the name {name:?}, there are {present:?}; it is there as long as some process uses it"
    )]
    NotThere {
        /// The name.
        name: String,
        /// Names that there are.
        present: Vec<String>,
    },
    /// A blob has at least one byte.
    #[error("{name:?} would have no bytes")]
    Empty {
        /// The name.
        name: String,
    },
    /// Not as many bytes were written as were announced.
    #[error("{written} bytes were written of {name:?}, {announced} were announced")]
    Length {
        /// The name.
        name: String,
        /// Bytes that were announced.
        announced: u64,
        /// Bytes that were written.
        written: u64,
    },
    /// Another process takes too long to write the same.
    #[error("another process is writing the same {name:?} since {waited:?}; is it stopped?")]
    Busy {
        /// The name.
        name: String,
        /// How long this one waited.
        waited: Duration,
    },
    /// There is no room.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The file system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
    /// The session cannot be changed.
    #[error("the session cannot be changed: {reason}")]
    Session {
        /// Why.
        reason: String,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
}

impl From<TurnError> for BlobError {
    fn from(error: TurnError) -> Self {
        Self::Session { reason: error.to_string() }
    }
}

impl Bus {
    /// Puts `len` bytes, which `write` writes, into the session under a name and the digest of their content. From then on
    /// the name means this content, for those who attach.
    ///
    /// If the session has this content under this name already, nothing is written and that is used: processes that publish
    /// the same at the same time get one copy. Whoever is killed while it writes leaves nothing.
    ///
    /// # Errors
    /// [`BlobError`]. Nothing is left then.
    pub fn publish_blob(
        &self,
        name: &str,
        digest: [u8; 32],
        len: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Blob, BlobError> {
        self.check(name)?;
        if len == 0 {
            return Err(BlobError::Empty { name: name.to_owned() });
        }
        let text = hexadecimal(&digest);
        let deadline = Deadline::after(LONGEST_WAIT);
        let mut draft = loop {
            let turn = Turn::take(self.directory())?;
            let files = self.look()?;
            let io = |reason| BlobError::Io { path: self.directory().to_owned(), reason };
            if let Some(found) = files.renew(name, &text).map_err(io)? {
                return self.use_blob(&found, digest);
            }
            if !files.is_being_written(name, &text).map_err(io)? {
                self.admit(len)?;
                let (file, path) = files.begin(name, &text, len).map_err(io)?;
                break Draft { file, path };
            }
            drop(turn);
            if deadline.left().is_none() {
                return Err(BlobError::Busy { name: name.to_owned(), waited: LONGEST_WAIT });
            }
            std::thread::sleep(NAP);
        };
        // Without the turn: it may take long, and concerns nobody else.
        let io = |reason| BlobError::Io { path: draft.path.clone(), reason };
        write(&mut draft.file).map_err(io)?;
        let written = draft.file.metadata().map_err(io)?.len();
        if written != len {
            return Err(BlobError::Length { name: name.to_owned(), announced: len, written });
        }
        let _turn = Turn::take(self.directory())?;
        let finished = self.look()?.finish(&draft.path, name, &text).map_err(io)?;
        self.use_blob(&finished, digest)
    }

    /// The blob that was published last under this name.
    ///
    /// # Errors
    /// [`BlobError`]; [`BlobError::NotThere`] if no process uses one of this name.
    pub fn attach_blob(&self, name: &str) -> Result<Blob, BlobError> {
        self.check(name)?;
        let _turn = Turn::take(self.directory())?;
        let files = self.look()?;
        let found = files.newest(name).and_then(|found| Some((found, from_hexadecimal(&found.digest)?)));
        let Some((found, digest)) = found else {
            let mut present: Vec<_> = files.finished().iter().map(|blob| blob.name.clone()).collect();
            present.dedup();
            return Err(BlobError::NotThere { name: name.to_owned(), present });
        };
        self.use_blob(found, digest)
    }

    /// The blobs of the session, by name; of each name the one published last comes last.
    ///
    /// # Errors
    /// [`BlobError`] if the session cannot be looked at.
    pub fn blobs(&self) -> Result<Vec<BlobInfo>, BlobError> {
        if !self.inner.is_ours() {
            return Err(BlobError::Forked);
        }
        let _turn = Turn::take(self.directory())?;
        let mut all = Vec::new();
        for BlobFile { name, digest, path, .. } in self.look()?.finished() {
            let Some(digest) = from_hexadecimal(digest) else { continue };
            let bytes = fs::metadata(path).map_err(|reason| BlobError::Io { path: path.clone(), reason })?.len();
            all.push(BlobInfo { name: name.clone(), digest, bytes });
        }
        Ok(all)
    }

    fn check(&self, name: &str) -> Result<(), BlobError> {
        if !is_legal_name(name, MAX_BLOB_NAME) {
            return Err(BlobError::Name { name: name.chars().take(2 * MAX_BLOB_NAME).collect() });
        }
        if self.inner.is_ours() { Ok(()) } else { Err(BlobError::Forked) }
    }

    fn look(&self) -> Result<BlobFiles, BlobError> {
        let path = self.directory();
        BlobFiles::look(path).map_err(|reason| BlobError::Io { path: path.to_owned(), reason })
    }

    /// In a turn.
    fn admit(&self, needed: u64) -> Result<(), BlobError> {
        let facts = MemoryFacts::gather(self.directory()).map_err(|reason| PoolError::Prepare { needed, reason })?;
        admit(needed, &facts)?;
        Ok(self.inner.node.admit_to_quota(needed)?)
    }

    /// In a turn, or else it might just be removed.
    fn use_blob(&self, found: &BlobFile, digest: [u8; 32]) -> Result<Blob, BlobError> {
        let region = map(&found.path, self.directory(), self.inner.clone());
        let region = region.map_err(|reason| BlobError::Io { path: found.path.clone(), reason })?;
        Ok(Blob { name: found.name.clone(), digest, region })
    }
}

impl Blob {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Digest of its content, as its publisher said.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Its bytes, mapped read-only. Each share keeps the blob, and the bus.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = hexadecimal(&self.digest);
        f.debug_struct("Blob").field("name", &self.name).field("digest", &digest).field("region", &self.region).finish()
    }
}

/// What is being written. If it was not finished, its file goes.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it is finished, it is not there under this name any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// What a blob's region keeps, dropped in this order: the mapping goes in a turn, at whose end what nobody uses is removed.
struct Kept {
    _mapping: Part<Mapping>,
    _bus: Arc<BusInner>,
}

fn map(path: &Path, session: &Path, bus: Arc<BusInner>) -> io::Result<Region> {
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mapping = Mapping::read_only(&file, len)?;
    let start = mapping.start();
    let keeper: Arc<dyn Any + Send + Sync> = Arc::new(Kept { _mapping: Part::new(mapping, session), _bus: bus });
    // SAFETY: `len` bytes are mapped to read until the keeper is dropped. The file was finished before it got its name:
    // nobody writes it any more.
    Ok(unsafe { Region::new(start, len, keeper) })
}

/// Whether blobs, or rings, can have such a name.
pub(crate) fn is_legal_name(name: &str, longest: usize) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    (1..=longest).contains(&name.len()) && name.chars().all(legal) && !name.starts_with('/') && !name.ends_with('/')
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
