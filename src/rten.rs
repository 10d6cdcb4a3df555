//! ONNX models that `rten` runs, with weights that processes share.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tensorbus::prelude::*;
//!
//! // In each process that uses the model: loaded once there, and its weights are on the machine once.
//! let model = ModelRegistry::global().get_or_load_blocking("resnet50/1", || tensorbus::rten::load("resnet50.onnx"))?;
//! println!("{} parameters", model.total_params());
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use ::rten::{Model, ModelOptions};
use tensorbus_registry::{ImportError, ImportedModel, Measured, ModelCache};

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtenLoadError {
    /// It is no ONNX model, or cannot be put into the cache.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// rten does not know an operator, or something else of the model.
    #[error("rten does not load {}: {reason}", path.display())]
    Rten {
        /// The graph in the cache.
        path: PathBuf,
        /// What it said.
        reason: ::rten::LoadError,
    },
    /// The graph is not in the cache any more.
    #[error("{}: {reason}; import the model again", path.display())]
    Io {
        /// The graph in the cache.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// Loads an ONNX model with its weights mapped. It is put into the cache of the user ([`ModelCache::open`]) when it is first used.
///
/// Its size is that of the graph and the weights.
///
/// # Errors
/// [`RtenLoadError`].
pub fn load(model: impl AsRef<Path>) -> Result<Measured<Model>, RtenLoadError> {
    load_imported(&ModelCache::open()?.import(model)?)
}

/// Loads a model that is in a cache, with its weights mapped.
///
/// # Errors
/// [`RtenLoadError`].
pub fn load_imported(imported: &ImportedModel) -> Result<Measured<Model>, RtenLoadError> {
    let path = || imported.graph.clone();
    let graph = std::fs::metadata(&imported.graph).map_err(|reason| RtenLoadError::Io { path: path(), reason })?;
    let options = ModelOptions::with_all_ops();
    let model = match imported.data {
        Some(_) => map(&options, &imported.graph),
        None => options.load_file(&imported.graph),
    };
    let model = model.map_err(|reason| RtenLoadError::Rten { path: path(), reason })?;
    Ok(Measured::new(model, graph.len() + imported.data_bytes))
}

#[allow(unsafe_code, reason = "mapping files that nobody changes: one call")]
fn map(options: &ModelOptions, graph: &Path) -> Result<Model, ::rten::LoadError> {
    // SAFETY: rten wants that nobody changes the files while they are mapped. Those of a model cache are written under another
    // name, get theirs when they are whole, and are never opened to write afterwards; whoever removes or replaces an entry
    // takes away a name, and the mapping keeps the file. The user of the cache alone can enter its directory.
    unsafe { options.load_mmap(graph) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FR-008: the weights are read where they lie in the cache.
    #[test]
    fn a_model_is_imported_when_it_is_first_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ModelCache::at(directory.path());
        let bytes = include_bytes!("../examples/digits/digits.onnx");
        let imported = cache.import_bytes(bytes).expect("a model");
        assert!(!imported.was_cached && imported.data.is_some());
        let again = cache.import_bytes(bytes.to_vec()).expect("a model");
        assert!(again.was_cached);
        let model = load_imported(&again).expect("a graph");
        assert!(model.total_params() > 5000);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        assert!(maps.contains(again.data.expect("weights").to_str().expect("a path")));
        std::fs::remove_dir_all(directory.path()).expect("removed");
        assert!(matches!(load_imported(&imported), Err(RtenLoadError::Io { .. })));
        assert_eq!(model.input_ids().len(), 1, "a mapping keeps its file");
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ModelCache::at(directory.path());
        assert!(cache.import_bytes(&b"no model"[..]).is_err());
        assert!(matches!(load(directory.path().join("none.onnx")), Err(RtenLoadError::Import(_))));
    }
}
