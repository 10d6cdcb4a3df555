use std::io;
use std::path::PathBuf;

use tensorbus_transport::MapFileError;

/// Why bytes are no ONNX model, or one that cannot be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The bytes are no protocol buffer, or end in the middle of one.
    #[error("not a whole protocol buffer at {place}: {reason}; export or download the model again")]
    Protobuf {
        /// The message that was read.
        place: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A protocol buffer, but not that of a model.
    #[error("no ONNX model: {missing} is missing")]
    NotAModel {
        /// What every model has.
        missing: &'static str,
    },
    /// A model that was given as bytes names another file, of which nobody knows where it is.
    #[error("weight {tensor:?} lies in another file, {location:?}; import the model's file instead of its bytes")]
    NoDirectory {
        /// The tensor.
        tensor: String,
        /// The file.
        location: String,
    },
    /// A size in a shape is negative, or all together are larger than memory can be.
    #[error("weight {tensor:?} has the shape {shape:?}, which no tensor has")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape.
        shape: Vec<i64>,
    },
    /// A weight that cannot lie in another file, or of a type that is not known here, does.
    #[error(
        "weight {tensor:?} of data type {data_type} lies in another file, which is not possible; export the model again"
    )]
    DataType {
        /// The tensor.
        tensor: String,
        /// Its type, by its number in `TensorProto.DataType`.
        data_type: i32,
    },
    /// The data of a weight is longer or shorter than its shape says.
    #[error("weight {tensor:?} has {found} bytes of data, its shape and type need {needed}")]
    DataLength {
        /// The tensor.
        tensor: String,
        /// Bytes that there are.
        found: u64,
        /// Bytes that shape and type need.
        needed: u64,
    },
    /// The weights lie in a file that is not named as the specification wants it.
    #[error(
        "weight {tensor:?} lies in {location:?}; data files have to lie beside the model or below its directory, without .. in their path"
    )]
    Location {
        /// The tensor.
        tensor: String,
        /// Where the model says that the data lies.
        location: String,
    },
    /// What the model says about a place in a file is not a number.
    #[error("weight {tensor:?} has {key} {value:?}, which is no number of bytes")]
    Place {
        /// The tensor.
        tensor: String,
        /// `offset` or `length`.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// The data file ends before the weight does.
    #[error("weight {tensor:?} lies at byte {offset} of {location:?} and has {len} bytes, the file has {file}")]
    DataFileShort {
        /// The tensor.
        tensor: String,
        /// The file, as the model says.
        location: String,
        /// Where the weight begins.
        offset: u64,
        /// Bytes that it has.
        len: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// The data file cannot be mapped.
    #[error("weight {tensor:?} lies in another file: {reason}")]
    DataFile {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: MapFileError,
    },
}

/// Why a model is not imported. Nothing is left of it in the cache then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// There is no place for the cache.
    #[error("there is neither XDG_CACHE_HOME nor HOME with an absolute path; name a directory for imported models")]
    NoCacheDirectory,
    /// The model cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapFileError),
    /// It is no model, or one that cannot be split.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The model.
        path: PathBuf,
        /// What is wrong with it.
        reason: OnnxError,
    },
    /// Another process takes too long to tidy up the cache.
    #[error("the cache {} is being tidied up by another process for too long; is it stopped?", directory.display())]
    Busy {
        /// The cache.
        directory: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
    /// What lies in the cache is not what was put there.
    #[error("{} is not what was imported: {reason}; import the model again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
