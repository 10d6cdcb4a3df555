use std::fmt;
use std::sync::Arc;

use super::Region;
use crate::contiguous::{ContiguousError, ContiguousTensor};
use crate::element::Element;
use crate::layout::{Dtype, LayoutError, TensorLayout, span_bytes};
use crate::tensor_view::TensorView;
use crate::view::{self, ViewError};

/// One tensor in a [`Region`], which it keeps: to read where it lies. Cheap to clone.
///
/// A received tensor is a [`Tensor`](crate::Tensor), which keeps a slot of its publisher; this one keeps a mapping, for
/// weights. What takes a [`TensorView`] takes both (`as_view`).
#[derive(Clone)]
pub struct MappedTensor {
    region: Region,
    layout: Arc<TensorLayout>,
}

/// Why there is no tensor at a place of a region.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Shape and strides are ones that no tensor can have.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The tensor is not within the region.
    #[error("tensor {name:?} with {len} bytes at byte {offset} does not lie within the {region} bytes there are")]
    OutOfRegion {
        /// The tensor.
        name: String,
        /// Where it is said to begin.
        offset: usize,
        /// Bytes that it has.
        len: usize,
        /// Bytes of the region.
        region: usize,
    },
    /// The tensor does not begin where elements of its type may.
    #[error("tensor {name:?} begins at byte {offset}, but {dtype} elements have to begin at a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Where it begins.
        offset: usize,
        /// Type of the elements.
        dtype: Dtype,
        /// What its address has to be a multiple of.
        alignment: usize,
    },
}

impl MappedTensor {
    /// The tensor that lies in `region` as `layout` says, its offset being one into the region.
    ///
    /// # Errors
    /// [`RegionError`] names the rule that is broken.
    pub fn new(region: &Region, layout: TensorLayout) -> Result<Self, RegionError> {
        let TensorLayout { name, dtype, shape, strides, offset, len } = &layout;
        let needed = span_bytes(*dtype, shape, strides)?;
        if *len != needed {
            return Err(LayoutError::WrongLength { name: name.clone(), stated: *len, needed }.into());
        }
        let end = offset.checked_add(*len);
        let Some(bytes) = end.and_then(|end| region.bytes().get(*offset..end)) else {
            let (name, offset, len, region) = (name.clone(), *offset, *len, region.bytes().len());
            return Err(RegionError::OutOfRegion { name, offset, len, region });
        };
        let alignment = dtype.alignment();
        if *len > 0 && !bytes.as_ptr().addr().is_multiple_of(alignment) {
            return Err(RegionError::Misaligned { name: name.clone(), offset: *offset, dtype: *dtype, alignment });
        }
        Ok(Self { region: region.clone(), layout: Arc::new(layout) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Size of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Step of each dimension, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.layout.strides
    }

    /// What it is, and where it lies in its region.
    pub fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// Its bytes, from the first element to the end of the last one.
    pub fn bytes(&self) -> &[u8] {
        // Within the region, as `new` checked.
        &self.region.bytes()[self.layout.offset..self.layout.offset + self.layout.len]
    }

    /// The tensor as what the calls take that copy, and for truth values and packed elements.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView::of(&self.layout, self.bytes())
    }

    /// The elements in row-major order, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, or not dense in row-major order.
    pub fn view<T: Element>(&self) -> Result<&[T], ViewError> {
        view::slice(&self.layout, self.bytes())
    }

    /// The elements as an array with the tensor's shape and strides, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type.
    #[cfg(feature = "ndarray")]
    pub fn array_view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'_, T>, ViewError> {
        view::array(&self.layout, self.bytes())
    }

    /// Copies the elements into memory of this process, densely in row-major order.
    ///
    /// # Errors
    /// [`ContiguousError`] if there is no memory for them.
    pub fn to_contiguous(&self) -> Result<ContiguousTensor, ContiguousError> {
        self.as_view().to_contiguous()
    }
}

impl fmt::Debug for MappedTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::*;

    fn region() -> Region {
        let memory: Arc<[u64]> = (0..16).collect();
        let start = NonNull::from(&memory[..]).cast();
        // SAFETY: 128 initialised bytes that nobody writes, kept by the `Arc`.
        unsafe { Region::new(start, 128, Arc::new(memory)) }
    }

    fn layout(dtype: Dtype, shape: &[usize], strides: &[isize], offset: usize, len: usize) -> TensorLayout {
        TensorLayout { name: "w".to_owned(), dtype, shape: shape.to_vec(), strides: strides.to_vec(), offset, len }
    }

    #[test]
    fn a_tensor_outlives_all_but_its_memory() {
        let region = region();
        let tensor = MappedTensor::new(&region, layout(Dtype::U64, &[2, 3], &[1, 2], 16, 48)).unwrap();
        drop(region);
        assert_eq!(tensor.to_contiguous().unwrap().view::<u64>().unwrap(), [2, 4, 6, 3, 5, 7]);
        assert!(matches!(tensor.view::<u64>(), Err(ViewError::NotRowMajor { .. })));
        assert!(matches!(tensor.view::<f64>(), Err(ViewError::Dtype { .. })));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn arrays_have_the_tensors_strides() {
        let tensor = MappedTensor::new(&region(), layout(Dtype::U64, &[2, 3], &[1, 2], 16, 48)).unwrap();
        let array = tensor.array_view::<u64>().unwrap();
        assert_eq!((array[[0, 0]], array[[1, 0]], array[[0, 2]]), (2, 3, 6));
        assert_eq!(array.as_ptr().cast(), tensor.bytes().as_ptr());
    }

    #[test]
    fn each_broken_rule_is_named() {
        let region = region();
        let refused = |layout| MappedTensor::new(&region, layout).unwrap_err();
        let row = |dtype, count: usize, offset, len| layout(dtype, &[count], &[1], offset, len);
        assert!(matches!(refused(row(Dtype::U64, 16, 8, 128)), RegionError::OutOfRegion { region: 128, .. }));
        assert!(matches!(refused(row(Dtype::U8, 1, usize::MAX, 1)), RegionError::OutOfRegion { .. }));
        assert!(matches!(refused(row(Dtype::U64, 1, 4, 8)), RegionError::Misaligned { alignment: 8, .. }));
        assert!(matches!(refused(row(Dtype::C64, 1, 2, 8)), RegionError::Misaligned { alignment: 4, .. }));
        let wrong = LayoutError::WrongLength { name: "w".into(), stated: 7, needed: 8 };
        assert_eq!(refused(row(Dtype::U64, 1, 0, 7)), RegionError::Layout(wrong));
        assert!(MappedTensor::new(&region, row(Dtype::BOOL, 3, 125, 3)).is_ok());
        assert!(MappedTensor::new(&region, row(Dtype::F32, 0, 127, 0)).is_ok(), "an empty tensor lies anywhere");
    }
}
