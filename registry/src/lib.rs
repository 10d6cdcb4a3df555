//! Models of a process, and weights of a machine: one instance of a model, whoever asks for it, and one copy of its weights.
//!
//! A [`ModelRegistry`] loads a model once, however many ask for it at the same time, and counts who uses it. Idle models are
//! unloaded after their time, or when another one needs their room in a memory budget. [`ModelRegistry`] shows how it is used.
//!
//! [`ModelRegistry::announce`] tells the other processes of a session, and a [`Directory`] shows the models of all of them.
//!
//! [`SharedWeights`] are tensors that the processes of a session share, and a [`ModelCache`] makes ONNX models ready for that.
#![forbid(unsafe_code)]

mod builder;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod directory;
mod entry;
mod error;
mod info;
mod model;
mod onnx;
mod recorded;
mod registry;
mod shell;
mod sync;
mod timer;
mod weights;

pub use builder::{DEFAULT_TTL, GlobalExists, RegistryBuilder};
pub use cache::{KeepAlive, OverBudget, Policy};
pub use directory::wire::DirectoryDecodeError;
pub use directory::{
    AnnounceError, Announcing, DIRECTORY_SERVICE, Directory, DirectoryCallError, DirectoryClient, DirectoryError,
    DirectoryService, Listing, MODELS_TOPIC, ProcessModels, RemoteUnloadError, STALE_AFTER, unload_remotely,
};
pub use entry::{DEFAULT_WAIT, EntryBuilder};
pub use error::{BoxError, KeyError, LoadError, MAX_KEY_BYTES, UnloadError, WrongType};
pub use info::{ModelInfo, ModelState, RegistryMetrics};
pub use model::{Device, Measured, Model};
#[doc(hidden)]
pub use onnx::split_model;
pub use onnx::{CACHE_VARIABLE, ImportError, ImportedModel, ModelCache, OnnxError};
pub use registry::ModelRegistry;
pub use shell::ModelHandle;
#[doc(hidden)]
pub use weights::read_weights;
pub use weights::{
    AttachWeightsError, Digest, MAX_TENSOR_NAME_BYTES, OpenWeightsError, PublishWeightsError, SharedWeights,
    WeightsChanged, WeightsFormatError,
};
