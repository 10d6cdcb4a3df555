//! What a tensor is, without where it lies: dtype, shape, strides and the arithmetic over them. Pure.

mod copy;
mod dtype;
mod limits;
mod message;
mod packed;
mod strides;

pub use copy::{copy_elements, elements_are_apart};
pub use dtype::{Dtype, DtypeCode, DtypeError};
pub use limits::{
    ALIGNMENT, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_METADATA_KEY_BYTES, MAX_NAME_BYTES,
    MAX_RANK, MAX_TENSORS,
};
pub use message::{DEFAULT_TENSOR_NAME, LayoutError, MessageLayout, TensorLayout, TensorSpec};
pub use packed::Unpack;
pub use strides::{column_major_strides, element_count, is_column_major, is_row_major, row_major_strides, span_bytes};
