use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tensorbus_transport::Region;

use super::error::ImportError;
use super::split::Split;
use crate::weights::Digest;

/// Names of the files of an imported model. Runtimes want the name of the data file to end so.
const GRAPH_FILE: &str = "model.onnx";
pub(super) const DATA_FILE: &str = "model.onnx.data";
/// What lies beside them, and how it was when it was written.
const MANIFEST: &str = "manifest.json";

/// A model in the cache: the graph and, beside it, the file with its weights.
///
/// Whoever loads the graph with a runtime that maps external data shares the weights with every other process that does so.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ImportedModel {
    /// The graph: an ONNX model that names its data file. This is what a runtime loads.
    pub graph: PathBuf,
    /// The weights. `None` if the model has none of a kilobyte or more.
    pub data: Option<PathBuf>,
    /// Bytes of the weights' file.
    pub data_bytes: u64,
    /// Number of weights in it.
    pub weights: usize,
    /// Whether it was in the cache already.
    pub was_cached: bool,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    graph: Facts,
    data: Option<Facts>,
    weights: usize,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    bytes: u64,
    blake3: String,
}

impl ImportedModel {
    /// Writes the files into an empty directory, and makes sure that they are on the disk.
    pub(super) fn write(directory: &Path, split: &Split) -> Result<(), ImportError> {
        let graph = write(&directory.join(GRAPH_FILE), |to| to.write_all(&split.graph))?;
        let has_data = split.data_len > 0;
        let data = has_data.then(|| write(&directory.join(DATA_FILE), |to| split.write_data(to))).transpose()?;
        let manifest = Manifest { graph, data, weights: split.moved() };
        write(&directory.join(MANIFEST), |to| Ok(serde_json::to_writer(to, &manifest)?))?;
        // The names of the files, too.
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|reason| ImportError::Io { path: directory.to_owned(), reason })
    }

    /// The model that lies in `directory`. Lengths are checked, and the graph's digest; that of the weights by
    /// [`verify`](Self::verify) only, which reads them all.
    pub(super) fn read(directory: &Path, was_cached: bool) -> Result<Self, ImportError> {
        let manifest = Self::manifest(directory)?;
        let (graph, data) = (directory.join(GRAPH_FILE), directory.join(DATA_FILE));
        manifest.graph.check(&graph, true)?;
        if let Some(facts) = &manifest.data {
            facts.check(&data, false)?;
        }
        Ok(Self {
            graph,
            data_bytes: manifest.data.as_ref().map_or(0, |facts| facts.bytes),
            data: manifest.data.map(|_| data),
            weights: manifest.weights,
            was_cached,
        })
    }

    /// Reads all bytes of the model and compares them with what was imported.
    ///
    /// # Errors
    /// [`ImportError::Damaged`] if they are others.
    pub fn verify(&self) -> Result<(), ImportError> {
        let manifest = Self::manifest(self.graph.parent().unwrap_or(&self.graph))?;
        manifest.graph.check(&self.graph, true)?;
        match (&manifest.data, &self.data) {
            (Some(facts), Some(path)) => facts.check(path, true),
            _ => Ok(()),
        }
    }

    fn manifest(directory: &Path) -> Result<Manifest, ImportError> {
        let path = directory.join(MANIFEST);
        let text = fs::read(&path).map_err(|reason| ImportError::Io { path: path.clone(), reason })?;
        serde_json::from_slice(&text).map_err(|error| ImportError::Damaged { path, reason: error.to_string() })
    }
}

impl Facts {
    fn check(&self, path: &Path, all: bool) -> Result<(), ImportError> {
        let damaged = |reason| Err(ImportError::Damaged { path: path.to_owned(), reason });
        let region = Region::of_file(path)?;
        let bytes = region.bytes();
        if bytes.len() as u64 != self.bytes {
            return damaged(format!("it has {} bytes instead of {}", bytes.len(), self.bytes));
        }
        if all && Digest::of(bytes).to_string() != self.blake3 {
            return damaged("its bytes have changed".to_owned());
        }
        Ok(())
    }
}

/// Writes a file, onto the disk, and says what was written.
fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<Facts, ImportError> {
    let io = |reason| ImportError::Io { path: path.to_owned(), reason };
    let file = File::options().write(true).create_new(true).open(path).map_err(io)?;
    let mut to = Hashing { file: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
    content(&mut to).map_err(io)?;
    to.flush().map_err(io)?;
    to.file.get_ref().sync_all().map_err(io)?;
    Ok(Facts { bytes: to.bytes, blake3: Digest::from(to.hasher.finalize()).to_string() })
}

struct Hashing {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
