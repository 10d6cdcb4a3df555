//! Tensors to and from other libraries of this process, without a copy, by the structures of DLPack.
//!
//! Nothing here needs an interpreter: a tensor goes out as a pointer with a deleter that any thread may call, and comes
//! in as one. Layout and rules are those of `dlpack.h` 1.1 (<https://dmlc.github.io/dlpack/latest/c_api.html>).

mod abi;
mod export;
mod import;

pub use abi::{
    DLDataType, DLDevice, DLManagedTensor, DLManagedTensorVersioned, DLPACK_FLAG_IS_COPIED, DLPACK_FLAG_READ_ONLY,
    DLPACK_FLAG_SUBBYTE_PADDED, DLPACK_VERSION, DLPackVersion, DLTensor, KDLCPU,
};
pub use export::{export_writable, export_writable_legacy};
pub use import::{DlpackError, ForeignTensor};

#[cfg(test)]
mod tests;
