//! Named tensors that lie once on a machine: a safetensors file that is mapped, or weights in the session's memory, which are
//! laid out as such a file.

mod digest;
mod dtype;
mod error;
mod layout;
mod read;
mod shared;

pub use digest::Digest;
pub use error::{AttachWeightsError, OpenWeightsError, PublishWeightsError, WeightsChanged, WeightsFormatError};
pub use layout::MAX_TENSOR_NAME_BYTES;
pub use read::read_weights;
pub use shared::SharedWeights;
