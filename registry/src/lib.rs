//! Models and their weights: one copy of a model in a process, one copy of its weights on a machine.
//!
//! [`SharedWeights`] has an example.
#![forbid(unsafe_code)]

mod onnx;
mod weights;

#[doc(hidden)]
pub use onnx::split_model;
pub use onnx::{CACHE_VARIABLE, ImportError, ImportedModel, ModelCache, OnnxError};
#[doc(hidden)]
pub use weights::read_weights;
pub use weights::{
    AttachWeightsError, Digest, MAX_TENSOR_NAME_BYTES, OpenWeightsError, PublishWeightsError, SharedWeights,
    WeightsChanged, WeightsFormatError,
};
