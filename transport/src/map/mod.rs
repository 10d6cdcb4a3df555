//! Memory that somebody else keeps, as tensors to read: mapped files, and regions of other libraries.

mod region;
mod tensor;

pub use region::{MapFileError, Region};
pub use tensor::{MappedTensor, RegionError};
