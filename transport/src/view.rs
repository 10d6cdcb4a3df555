//! From the bytes of a tensor to typed slices and arrays, checked.

use crate::element::Element;
use crate::layout::{Dtype, TensorLayout, copy_elements, elements_are_apart};

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
    /// Elements that repeat (stride 0) or overlap can be read, but not written one by one.
    #[error(
        "tensor {name:?} has strides {strides:?}, by which several elements share memory; it cannot be written element by element"
    )]
    SharedElements {
        /// The tensor.
        name: String,
        /// Its strides, in elements.
        strides: Vec<isize>,
    },
    /// The memory does not begin where values of the type may; only tensors from elsewhere can lie so.
    #[error("the {dtype} elements of tensor {name:?} are not aligned; copy it (`to_contiguous`)")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Type of its elements.
        dtype: Dtype,
    },
    /// A truth value is neither 0 nor 1.
    #[error("byte {index} of the truth values of tensor {name:?} is {byte}, neither 0 nor 1; view them as bytes")]
    NotBool {
        /// The tensor.
        name: String,
        /// The first byte that is wrong.
        index: usize,
        /// What it is.
        byte: u8,
    },
    /// The elements are whole bytes, or vectors of packed ones.
    #[error(
        "the elements of tensor {name:?} are {dtype}, not packed ones of less than a byte; view them as what they are"
    )]
    NotPacked {
        /// The tensor.
        name: String,
        /// Type of its elements.
        dtype: Dtype,
    },
    /// The tensor to copy from has another dtype or shape.
    #[error("a {from} tensor of shape {from_shape:?} cannot be copied into a {to} tensor of shape {to_shape:?}")]
    CopyMismatch {
        /// Dtype of the source.
        from: Dtype,
        /// Shape of the source.
        from_shape: Vec<usize>,
        /// Dtype of the target.
        to: Dtype,
        /// Shape of the target.
        to_shape: Vec<usize>,
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

fn misaligned(layout: &TensorLayout) -> ViewError {
    ViewError::Misaligned { name: layout.name.clone(), dtype: layout.dtype }
}

/// Bytes as values. `bytes` have the length of whole values, so only their address can be wrong.
fn cast<'a, T: Element>(layout: &TensorLayout, bytes: &'a [u8]) -> Result<&'a [T], ViewError> {
    if bytes.is_empty() {
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes).map_err(|_| misaligned(layout))
}

fn cast_mut<'a, T: Element>(layout: &TensorLayout, bytes: &'a mut [u8]) -> Result<&'a mut [T], ViewError> {
    if bytes.is_empty() {
        return Ok(&mut []);
    }
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| misaligned(layout))
}

/// Copies the elements of one tensor into another of the same dtype and shape, whatever the strides of both.
pub(crate) fn copy(
    from: &TensorLayout,
    from_bytes: &[u8],
    to: &TensorLayout,
    to_bytes: &mut [u8],
) -> Result<(), ViewError> {
    if from.dtype != to.dtype || from.shape != to.shape {
        let (from, from_shape, to, to_shape) = (from.dtype, from.shape.clone(), to.dtype, to.shape.clone());
        return Err(ViewError::CopyMismatch { from, from_shape, to, to_shape });
    }
    if from.strides == to.strides {
        to_bytes.copy_from_slice(from_bytes);
        return Ok(());
    }
    if !elements_are_apart(&to.shape, &to.strides) {
        return Err(ViewError::SharedElements { name: to.name.clone(), strides: to.strides.clone() });
    }
    copy_elements(to.dtype, &to.shape, (from_bytes, &from.strides), (to_bytes, &to.strides));
    Ok(())
}

/// Truth values as a slice in C order, after a look at each.
pub(crate) fn bools<'a>(layout: &TensorLayout, bytes: &'a [u8]) -> Result<&'a [bool], ViewError> {
    if layout.dtype != Dtype::BOOL {
        return Err(ViewError::Dtype { name: layout.name.clone(), actual: layout.dtype, asked: Dtype::BOOL });
    }
    check_row_major(layout)?;
    bytemuck::checked::try_cast_slice(bytes).map_err(|_| {
        let (index, byte) = bytes.iter().copied().enumerate().find(|&(_, byte)| byte > 1).unwrap_or_default();
        ViewError::NotBool { name: layout.name.clone(), index, byte }
    })
}

/// The elements as a slice in C order. `bytes` are those of the tensor, of the layout's length.
pub(crate) fn slice<'a, T: Element>(layout: &TensorLayout, bytes: &'a [u8]) -> Result<&'a [T], ViewError> {
    check_element::<T>(layout)?;
    check_row_major(layout)?;
    cast(layout, bytes)
}

/// As [`slice`], to write.
pub(crate) fn slice_mut<'a, T: Element>(layout: &TensorLayout, bytes: &'a mut [u8]) -> Result<&'a mut [T], ViewError> {
    check_element::<T>(layout)?;
    check_row_major(layout)?;
    cast_mut(layout, bytes)
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
        ArrayViewD::from_shape(shape, cast(layout, bytes)?).map_err(|_| shared(layout))
    }

    /// As [`array`], to write. Refused where several elements share memory.
    pub(crate) fn array_mut<'a, T: Element>(
        layout: &TensorLayout,
        bytes: &'a mut [u8],
    ) -> Result<ArrayViewMutD<'a, T>, ViewError> {
        check_element::<T>(layout)?;
        let shape = IxDyn(&layout.shape).strides(IxDyn(&strides(layout)));
        ArrayViewMutD::from_shape(shape, cast_mut(layout, bytes)?).map_err(|_| shared(layout))
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
