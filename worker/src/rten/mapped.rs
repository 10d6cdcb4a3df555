use std::path::Path;

use rten::{LoadError, Model, ModelOptions};

/// Loads a graph whose weights lie in a file beside it, which is mapped: processes that load the same share its pages.
///
/// The file has to be one of a [`ModelCache`](tensorbus_registry::ModelCache).
pub(super) fn load(options: &ModelOptions, graph: &Path) -> Result<Model, LoadError> {
    // SAFETY: rten wants that nobody changes the files while they are mapped. Those of a model cache are written under another
    // name, get theirs when they are whole, and are never opened to write afterwards; whoever removes or replaces an entry
    // takes away a name, and the mapping keeps the file. Their directory can be entered by its user alone. That user can still
    // write into a file there by hand, as into the memory of this process: `docs/workers.md` says not to.
    unsafe { options.load_mmap(graph) }
}
