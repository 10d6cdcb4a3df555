use std::path::PathBuf;

use safetensors::SafeTensorError;
use tensorbus_transport::{BlobError, ContiguousError, Dtype, MapFileError, RegionError};

use super::Digest;
use super::layout::{MAX_TENSOR_NAME_BYTES, PADDING};

/// Why bytes are no weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsFormatError {
    /// The header is broken, or tensors overlap, leave gaps, or do not end where the bytes do (a truncated file).
    #[error("not a whole safetensors file: {0}; write it again, or download it again")]
    Safetensors(#[from] SafeTensorError),
    /// A dtype that no tensor here has.
    #[error("tensor {name:?} has dtype {dtype}, which is not supported")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype, as the file says.
        dtype: String,
    },
    /// A name is empty or longer than [`MAX_TENSOR_NAME_BYTES`].
    #[error("tensor name {name:?} must have 1 to {MAX_TENSOR_NAME_BYTES} bytes")]
    NameLength {
        /// The beginning of the name.
        name: String,
    },
    /// A tensor does not lie where it could be used, or has a shape that none can have.
    #[error("{0}; copy the tensors into a new file with a current version of safetensors")]
    Region(#[from] RegionError),
}

/// Why weights are not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenWeightsError {
    /// The file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapFileError),
    /// Its content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: WeightsFormatError,
    },
}

/// Why weights are not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishWeightsError {
    /// There is nothing to publish.
    #[error("weights have at least one tensor; {name:?} would have none")]
    NoTensors {
        /// Name of the weights.
        name: String,
    },
    /// A tensor's name is empty, or longer than [`MAX_TENSOR_NAME_BYTES`], or begins like what fills the gaps.
    #[error(
        "tensor name {name:?} must have 1 to {MAX_TENSOR_NAME_BYTES} bytes and not begin with {PADDING:?}, nor be __metadata__"
    )]
    TensorName {
        /// The beginning of the name.
        name: String,
    },
    /// Two tensors have the same name.
    #[error("two tensors are called {name:?}; give each its own name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A dtype that safetensors does not have.
    #[error("tensor {name:?} has dtype {dtype}, which weights cannot have; view it as integers of the same width")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// Elements narrower than a byte that do not fill the last one.
    #[error("the {elements} {dtype} elements of tensor {name:?} do not fill whole bytes; add some")]
    PartOfByte {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
        /// Number of elements.
        elements: usize,
    },
    /// The description of all tensors is longer than safetensors allows.
    #[error(
        "the names and shapes of all tensors take {bytes} bytes, {max} are allowed; publish them under several names"
    )]
    HeaderTooLong {
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// All tensors together are larger than memory can be.
    #[error("all tensors together are larger than memory can be")]
    SizeOverflows,
    /// A tensor that is not dense in row-major order cannot be made so.
    #[error(transparent)]
    Contiguous(#[from] ContiguousError),
    /// The session refuses: the name, room, quota.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What was published cannot be read: another program has put something else there.
    #[error("what lies in the session under {name:?} is not what was published: {reason}")]
    Format {
        /// Name of the weights.
        name: String,
        /// What is wrong.
        reason: WeightsFormatError,
    },
}

/// Why weights are not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachWeightsError {
    /// The session has none of this name, or refuses.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What it has are no weights.
    #[error("what lies in the session under {name:?} are no weights: {reason}")]
    Format {
        /// The name.
        name: String,
        /// What is wrong.
        reason: WeightsFormatError,
    },
}

/// The bytes of weights are not those that they were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the weights had digest {expected} and have {found}: their file was changed in place; open it again")]
pub struct WeightsChanged {
    /// The digest that they had.
    pub expected: Digest,
    /// The digest that they have.
    pub found: Digest,
}
