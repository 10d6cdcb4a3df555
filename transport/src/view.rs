//! From the bytes of a tensor to typed slices and arrays, checked.

use crate::element::Element;
use crate::layout::{Dtype, TensorLayout};

/// Why a tensor cannot be viewed as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The elements are of another type.
    #[error("tensor {name:?} has {actual} elements, not {asked}; view it as what it is")]
    Dtype {
        /// The tensor.
        name: String,
        /// Type of its elements.
        actual: Dtype,
        /// Type asked for.
        asked: Dtype,
    },
    /// The Rust type has not the size that its dtype says.
    #[error("the Rust type for {dtype} has {size} bytes; its implementation of `Element` names the wrong dtype")]
    ElementSize {
        /// The dtype it claims.
        dtype: Dtype,
        /// Its size in bytes.
        size: usize,
    },
    /// The elements do not lie densely in C order, so they are not one slice.
    #[error(
        "tensor {name:?} of shape {shape:?} has strides {strides:?} and is not dense in row-major order; view it with its strides (`array_view`)"
    )]
    NotRowMajor {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its strides, in elements.
        strides: Vec<isize>,
    },
    /// Elements that repeat (stride 0) or overlap can be read, but not written through a view.
    #[error(
        "tensor {name:?} has strides {strides:?}, by which several elements share memory; it cannot be viewed for writing"
    )]
    SharedElements {
        /// The tensor.
        name: String,
        /// Its strides, in elements.
        strides: Vec<isize>,
    },
    /// The message has no tensor of this name.
    #[error("the message has no tensor {name:?}, it has {present:?}")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
        /// Names there are.
        present: Vec<String>,
    },
    /// The loan belongs to the process that this one was forked from.
    #[error("this process was forked from the one that loaned the tensor")]
    Forked,
}

impl From<crate::os::Forked> for ViewError {
    fn from(_: crate::os::Forked) -> Self {
        Self::Forked
    }
}

fn check_element<T: Element>(layout: &TensorLayout) -> Result<(), ViewError> {
    if T::DTYPE.element_bytes() != Some(size_of::<T>()) {
        return Err(ViewError::ElementSize { dtype: T::DTYPE, size: size_of::<T>() });
    }
    if layout.dtype != T::DTYPE {
        return Err(ViewError::Dtype { name: layout.name.clone(), actual: layout.dtype, asked: T::DTYPE });
    }
    Ok(())
}

fn check_row_major(layout: &TensorLayout) -> Result<(), ViewError> {
    if layout.is_row_major() {
        return Ok(());
    }
    Err(ViewError::NotRowMajor {
        name: layout.name.clone(),
        shape: layout.shape.clone(),
        strides: layout.strides.clone(),
    })
}

/// The elements as a slice in C order. `bytes` are those of the tensor: aligned to 64 and of the layout's length.
pub(crate) fn slice<'a, T: Element>(layout: &TensorLayout, bytes: &'a [u8]) -> Result<&'a [T], ViewError> {
    check_element::<T>(layout)?;
    check_row_major(layout)?;
    Ok(bytemuck::cast_slice(bytes))
}

/// As [`slice`], to write.
pub(crate) fn slice_mut<'a, T: Element>(layout: &TensorLayout, bytes: &'a mut [u8]) -> Result<&'a mut [T], ViewError> {
    check_element::<T>(layout)?;
    check_row_major(layout)?;
    Ok(bytemuck::cast_slice_mut(bytes))
}

#[cfg(feature = "ndarray")]
mod arrays {
    use super::*;
    use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn, ShapeBuilder};

    /// The elements as an array with the tensor's shape and strides.
    pub(crate) fn array<'a, T: Element>(
        layout: &TensorLayout,
        bytes: &'a [u8],
    ) -> Result<ArrayViewD<'a, T>, ViewError> {
        check_element::<T>(layout)?;
        let shape = IxDyn(&layout.shape).strides(IxDyn(&strides(layout)));
        ArrayViewD::from_shape(shape, bytemuck::cast_slice(bytes)).map_err(|_| shared(layout))
    }

    /// As [`array`], to write. Refused where several elements share memory.
    pub(crate) fn array_mut<'a, T: Element>(
        layout: &TensorLayout,
        bytes: &'a mut [u8],
    ) -> Result<ArrayViewMutD<'a, T>, ViewError> {
        check_element::<T>(layout)?;
        let shape = IxDyn(&layout.shape).strides(IxDyn(&strides(layout)));
        ArrayViewMutD::from_shape(shape, bytemuck::cast_slice_mut(bytes)).map_err(|_| shared(layout))
    }

    /// Layouts are checked: no stride is negative.
    fn strides(layout: &TensorLayout) -> Vec<usize> {
        layout.strides.iter().map(|stride| stride.unsigned_abs()).collect()
    }

    fn shared(layout: &TensorLayout) -> ViewError {
        ViewError::SharedElements { name: layout.name.clone(), strides: layout.strides.clone() }
    }
}

#[cfg(feature = "ndarray")]
pub(crate) use arrays::{array, array_mut};
