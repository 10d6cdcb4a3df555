use std::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::element::Element;
use crate::layout::{ALIGNMENT, Dtype, TensorLayout, copy_elements, element_count, row_major_strides};
use crate::tensor_view::TensorView;
use crate::view::{self, ViewError};

/// A tensor in memory of this process, dense in row-major order, aligned to 64 bytes: a copy, made by `to_contiguous`.
#[derive(Clone)]
pub struct ContiguousTensor {
    layout: TensorLayout,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// Why there is no dense copy of a tensor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContiguousError {
    /// More bytes than an address space has.
    #[error("a dense {dtype} tensor of shape {shape:?} has more bytes than can be addressed; copy a part of it")]
    SizeOverflows {
        /// The dtype.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
    },
    /// More bytes than the process gets.
    #[error("no memory for {bytes} bytes of a dense copy; copy a part of the tensor")]
    OutOfMemory {
        /// Bytes of the copy.
        bytes: usize,
    },
}

impl ContiguousTensor {
    pub(crate) fn copy_of(source: &TensorView<'_>) -> Result<Self, ContiguousError> {
        let TensorLayout { name, dtype, shape, strides, .. } = source.layout();
        let too_big = || ContiguousError::SizeOverflows { dtype: *dtype, shape: shape.clone() };
        let len = element_count(shape).and_then(|elements| dtype.bytes_for(elements)).ok_or_else(too_big)?;
        let dense = row_major_strides(shape).ok_or_else(too_big)?;
        let mut lines =
            Line::new_vec_zeroed(len.div_ceil(ALIGNMENT)).map_err(|_| ContiguousError::OutOfMemory { bytes: len })?;
        copy_elements(*dtype, shape, (source.bytes(), strides), (&mut lines.as_mut_bytes()[..len], &dense));
        let layout =
            TensorLayout { name: name.clone(), dtype: *dtype, shape: shape.clone(), strides: dense, offset: 0, len };
        Ok(Self { layout, lines })
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Size of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// What the tensor is.
    pub fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// Its bytes, aligned to 64.
    pub fn bytes(&self) -> &[u8] {
        &self.lines.as_bytes()[..self.layout.len]
    }

    /// Its bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.lines.as_mut_bytes()[..self.layout.len]
    }

    /// The elements.
    ///
    /// # Errors
    /// [`ViewError::Dtype`] if they are of another type.
    pub fn view<T: Element>(&self) -> Result<&[T], ViewError> {
        view::slice(&self.layout, self.bytes())
    }

    /// The elements, to write.
    ///
    /// # Errors
    /// [`ViewError::Dtype`] if they are of another type.
    pub fn view_mut<T: Element>(&mut self) -> Result<&mut [T], ViewError> {
        view::slice_mut(&self.layout, &mut self.lines.as_mut_bytes()[..self.layout.len])
    }

    /// The tensor as what the calls take that copy, and for arrays, truth values and packed elements.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView::of(&self.layout, self.bytes())
    }
}

impl fmt::Debug for ContiguousTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_an_error() {
        let one = [1u8];
        let repeated = TensorView::new(&one, &[1 << 40, 1 << 20], &[0, 0]).unwrap();
        assert_eq!(repeated.to_contiguous().unwrap_err(), ContiguousError::OutOfMemory { bytes: 1 << 60 });
        let wide = [1u64];
        let repeated = TensorView::new(&wide, &[1 << 40, 1 << 22], &[0, 0]).unwrap();
        assert!(matches!(repeated.to_contiguous(), Err(ContiguousError::SizeOverflows { .. })));
    }

    #[test]
    fn a_copy_is_aligned_and_can_be_written() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let mut copy = TensorView::new(&values[1..], &[3, 4], &[1, 5]).unwrap().to_contiguous().unwrap();
        assert_eq!(copy.bytes().as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(copy.view::<f64>().unwrap()[..5], [1.0, 6.0, 11.0, 16.0, 2.0]);
        copy.view_mut::<f64>().unwrap()[0] = -1.0;
        assert_eq!(copy.as_view().view::<f64>().unwrap()[0], -1.0);
        assert!(matches!(copy.view::<f32>(), Err(ViewError::Dtype { .. })));
        let empty = TensorView::new(&values, &[3, 0], &[1, 1]).unwrap().to_contiguous().unwrap();
        assert!(empty.view::<f64>().unwrap().is_empty());
        let scalar = TensorView::new(&values[7..], &[], &[]).unwrap().to_contiguous().unwrap();
        assert_eq!(scalar.view::<f64>().unwrap(), [7.0]);
    }
}
