//! ONNX models in a layout that processes can share: a graph, and beside it a file with the weights, aligned, to be mapped.

mod cache;
mod entry;
mod error;
mod fields;
mod split;
mod tensor;

pub use cache::{CACHE_VARIABLE, ModelCache};
pub use entry::ImportedModel;
pub use error::{ImportError, OnnxError};
pub use split::split_model;
