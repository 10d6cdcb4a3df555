use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tensorbus_transport::Region;

use super::entry::{DATA_FILE, ImportedModel};
use super::error::{ImportError, OnnxError};
use super::split::Split;
use crate::weights::Digest;

/// Environment variable that names the directory of imported models.
pub const CACHE_VARIABLE: &str = "TENSORBUS_MODEL_CACHE";

/// Beginning of what a digest is taken of: it changes when models are split in another way.
const FORMAT: &[u8] = b"tensorbus onnx 1";
/// Held shared by whoever imports: if nobody does, what is half-made was left by a dead one.
const LOCK_FILE: &str = ".lock";
/// How directories are called that are not finished yet.
const UNFINISHED: &str = ".new-";
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const NAP: Duration = Duration::from_millis(2);

/// Imported ONNX models, by the digest of their content: a changed model is another one.
///
/// A model that has its weights inside cannot be shared: each process reads them into memory of its own. Imported, it is a
/// graph, and beside it a file with the weights at aligned places, which runtimes map: `rten` with `load_mmap`, ONNX Runtime on
/// its own. Weights and constants of 1 KiB and more move, also those of nested graphs, but no strings and no sparse ones. Nothing
/// else of the model changes, and what is not known here is copied as it is.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tensorbus_registry::ModelCache;
///
/// let model = ModelCache::open()?.import("model.onnx")?;
/// println!("load {}: {} bytes of weights beside it", model.graph.display(), model.data_bytes);
/// # Ok(())
/// # }
/// ```
///
/// Models stay there until they are deleted; any directory in the cache may be, at any time. Processes that have mapped its
/// files keep them.
#[derive(Clone, Debug)]
pub struct ModelCache {
    directory: PathBuf,
}

impl ModelCache {
    /// The cache of this user: the directory that `TENSORBUS_MODEL_CACHE` names, else `tensorbus/models` in the directory for
    /// caches (`XDG_CACHE_HOME`, by default `~/.cache`).
    ///
    /// # Errors
    /// [`ImportError::NoCacheDirectory`] if none of them is known.
    pub fn open() -> Result<Self, ImportError> {
        directory(|name| std::env::var_os(name)).map(Self::at).ok_or(ImportError::NoCacheDirectory)
    }

    /// A cache in this directory, which is made when it is needed.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Splits the model, unless that was done before. Models whose weights lie in other files can be imported as well.
    ///
    /// All of the model is read each time, for its digest. It can be imported by several processes at once: there is one
    /// result. Whoever is killed meanwhile leaves something half-made that the next one removes, and that nobody takes for a
    /// model. An entry that is damaged is made anew.
    ///
    /// # Errors
    /// [`ImportError`]. Nothing is left in the cache then.
    pub fn import(&self, model: impl AsRef<Path>) -> Result<ImportedModel, ImportError> {
        let path = model.as_ref();
        let source = Bytes::from_owner(Mapped(Region::of_file(path)?));
        self.import_source(source, path, DataFiles::beside(path))
    }

    /// The same of a model that is in memory: downloaded, made, or a part of the program. It has to have its weights inside.
    ///
    /// # Errors
    /// As for [`import`](Self::import), and [`OnnxError::NoDirectory`] if it names other files.
    pub fn import_bytes(&self, model: impl AsRef<[u8]> + Send + 'static) -> Result<ImportedModel, ImportError> {
        self.import_source(Bytes::from_owner(model), Path::new("model in memory"), DataFiles::nowhere())
    }

    fn import_source(
        &self,
        source: Bytes,
        path: &Path,
        mut data_files: DataFiles,
    ) -> Result<ImportedModel, ImportError> {
        let split = Split::new(source.clone(), DATA_FILE, &mut |tensor, location| data_files.get(tensor, location))
            .map_err(|reason| ImportError::Model { path: path.to_owned(), reason })?;
        let entry = self.directory.join(digest(&source, &data_files).to_string());
        if let Ok(found) = ImportedModel::read(&entry, true) {
            return Ok(found);
        }
        let _lock = self.lock()?;
        let unfinished = Unfinished::make(&self.directory)?;
        ImportedModel::write(&unfinished.0, &split)?;
        self.place(&unfinished.0, &entry)?;
        ImportedModel::read(&entry, false)
    }

    /// Gives what is finished its name, in one step.
    fn place(&self, finished: &Path, entry: &Path) -> Result<(), ImportError> {
        let io = |reason| ImportError::Io { path: entry.to_owned(), reason };
        loop {
            match fs::rename(finished, entry) {
                Ok(()) => break,
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(io(error)),
            }
            // Another process was quicker, or a damaged one lies there.
            if ImportedModel::read(entry, true).is_ok() {
                return Ok(());
            }
            let aside = Unfinished::make(&self.directory)?;
            match fs::rename(entry, &aside.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        }
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(io)
    }

    /// Says that somebody imports, after what dead importers left is removed.
    fn lock(&self) -> Result<File, ImportError> {
        let io = |reason| ImportError::Io { path: self.directory.clone(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(io)?;
        let path = self.directory.join(LOCK_FILE);
        let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
        if lock.try_lock().is_ok() {
            for entry in fs::read_dir(&self.directory).map_err(io)?.flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                    fs::remove_dir_all(entry.path()).map_err(io)?;
                }
            }
            lock.unlock().map_err(io)?;
        }
        let start = Instant::now();
        loop {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(io(error)),
                Err(TryLockError::WouldBlock) if start.elapsed() < LONGEST_WAIT => std::thread::sleep(NAP),
                Err(TryLockError::WouldBlock) => return Err(ImportError::Busy { directory: self.directory.clone() }),
            }
        }
    }
}

/// The user's cache, by the environment.
fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path has to be ignored (XDG Base Directory Specification 0.8).
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = || absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    absolute(CACHE_VARIABLE).or_else(|| Some(caches()?.join("tensorbus/models")))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// What a model is: its bytes, and those of the data files that it names.
fn digest(source: &Bytes, data_files: &DataFiles) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    let mut names: Vec<_> = data_files.open.keys().collect();
    names.sort();
    for bytes in std::iter::once(source).chain(names.into_iter().map(|name| &data_files.open[name])) {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    Digest::from(hasher.finalize())
}

/// The files that a model names, mapped when it first does.
struct DataFiles {
    /// `None`: the model itself is no file.
    directory: Option<PathBuf>,
    open: HashMap<String, Bytes>,
}

impl DataFiles {
    fn beside(model: &Path) -> Self {
        Self { directory: Some(model.parent().unwrap_or(Path::new("")).to_owned()), open: HashMap::new() }
    }

    fn nowhere() -> Self {
        Self { directory: None, open: HashMap::new() }
    }

    fn get(&mut self, tensor: &str, location: &str) -> Result<Bytes, OnnxError> {
        if let Some(bytes) = self.open.get(location) {
            return Ok(bytes.clone());
        }
        let Some(directory) = &self.directory else {
            return Err(OnnxError::NoDirectory { tensor: tensor.to_owned(), location: location.to_owned() });
        };
        let region = Region::of_file(&directory.join(location))
            .map_err(|reason| OnnxError::DataFile { tensor: tensor.to_owned(), reason })?;
        let bytes = Bytes::from_owner(Mapped(region));
        self.open.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

struct Mapped(Region);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A directory that goes, unless it got another name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn make(cache: &Path) -> Result<Self, ImportError> {
        let pid = std::process::id();
        for number in 0_u64.. {
            let path = cache.join(format!("{UNFINISHED}{pid}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(reason) => return Err(ImportError::Io { path, reason }),
            }
        }
        unreachable!("there are more numbers than directories")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_the_environment_says() {
        let of = |set: &[(&str, &str)]| {
            let directory =
                directory(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()));
            directory.map(|path| path.to_str().map(str::to_owned).unwrap())
        };
        let (own, xdg, home) = ((CACHE_VARIABLE, "/own"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/me"));
        assert_eq!(of(&[own, xdg, home]).as_deref(), Some("/own"));
        assert_eq!(of(&[xdg, home]).as_deref(), Some("/xdg/tensorbus/models"));
        assert_eq!(of(&[home]).as_deref(), Some("/home/me/.cache/tensorbus/models"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "relative"), home]).as_deref(), Some("/home/me/.cache/tensorbus/models"));
        assert_eq!(of(&[("HOME", "")]), None);
    }
}
