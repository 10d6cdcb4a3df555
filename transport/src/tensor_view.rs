use std::borrow::Cow;

use crate::contiguous::{ContiguousError, ContiguousTensor};
use crate::element::Element;
use crate::layout::{DEFAULT_TENSOR_NAME, Dtype, LayoutError, TensorLayout, Unpack, span_bytes};
use crate::view::{self, ViewError};

/// A tensor that somebody else keeps, to read: a received one, a foreign one, or a slice with a shape and strides.
///
/// It is what the calls take that copy: [`Publisher::publish_copy_of`](crate::Publisher::publish_copy_of) and
/// [`TensorMut::copy_from`](crate::TensorMut::copy_from). An array of `ndarray`, with strides of any sign, is copied by
/// `array_view_mut` of the loan and `assign`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tensorbus_transport::TensorView;
///
/// let image: Vec<u8> = (0..12).collect();
/// // Every second column of three rows with four.
/// let columns = TensorView::new(&image, &[3, 2], &[4, 2])?;
/// assert_eq!(columns.to_contiguous()?.view::<u8>()?, [0, 2, 4, 6, 8, 10]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    layout: Cow<'a, TensorLayout>,
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Values of a Rust type, of which the first is that of index 0 in every dimension.
    ///
    /// Strides are in elements; 0 repeats elements. Values behind the last one that the strides reach are left out.
    ///
    /// # Errors
    /// [`LayoutError`] if a message cannot carry such a tensor, or the strides reach beyond the values.
    pub fn new<T: Element>(values: &'a [T], shape: &[usize], strides: &[isize]) -> Result<Self, LayoutError> {
        Self::from_bytes(T::DTYPE, bytemuck::cast_slice(values), shape, strides)
    }

    /// As [`TensorView::new`], of any dtype. Elements narrower than a byte are packed and must be in row-major order.
    ///
    /// # Errors
    /// As [`TensorView::new`].
    pub fn from_bytes(dtype: Dtype, bytes: &'a [u8], shape: &[usize], strides: &[isize]) -> Result<Self, LayoutError> {
        let (name, stated) = (DEFAULT_TENSOR_NAME.to_owned(), bytes.len());
        let len = span_bytes(dtype, shape, strides)?;
        let Some(bytes) = bytes.get(..len) else {
            return Err(LayoutError::WrongLength { name, stated, needed: len });
        };
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Ok(Self { layout: Cow::Owned(TensorLayout { name, dtype, shape, strides, offset: 0, len }), bytes })
    }

    /// As [`TensorView::new`], of truth values.
    ///
    /// # Errors
    /// As [`TensorView::new`].
    pub fn of_bools(values: &'a [bool], shape: &[usize], strides: &[isize]) -> Result<Self, LayoutError> {
        Self::from_bytes(Dtype::BOOL, bytemuck::cast_slice(values), shape, strides)
    }

    /// `bytes` are as many as the layout, which is a checked one, says.
    pub(crate) fn of(layout: &'a TensorLayout, bytes: &'a [u8]) -> Self {
        Self { layout: Cow::Borrowed(layout), bytes }
    }

    /// What the tensor is.
    pub fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// Its bytes, from the first element to the end of the last one.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements in row-major order, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, not dense in row-major order, or not aligned.
    pub fn view<T: Element>(&self) -> Result<&'a [T], ViewError> {
        view::slice(&self.layout, self.bytes)
    }

    /// Truth values in row-major order, where they lie. Each byte is looked at: it must be 0 or 1.
    ///
    /// # Errors
    /// [`ViewError`] if the dtype is not [`Dtype::BOOL`], a byte is neither 0 nor 1, or they are not dense in row-major
    /// order.
    pub fn view_bool(&self) -> Result<&'a [bool], ViewError> {
        view::bools(&self.layout, self.bytes)
    }

    /// Elements narrower than a byte, one by one in row-major order.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tensorbus_transport::{Dtype, TensorView};
    ///
    /// let weights = TensorView::from_bytes(Dtype::I4, &[0xf1, 0x08], &[3], &[1])?;
    /// assert_eq!(weights.unpack()?.collect::<Vec<_>>(), [0x1, 0xf, 0x8]);
    /// assert_eq!(weights.unpack()?.values().collect::<Vec<_>>(), [1.0, -1.0, -8.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ViewError::NotPacked`] if elements are whole bytes or have several lanes.
    pub fn unpack(&self) -> Result<Unpack<'a>, ViewError> {
        let layout = self.layout();
        let not_packed = || ViewError::NotPacked { name: layout.name.clone(), dtype: layout.dtype };
        Unpack::new(layout.dtype, layout.elements(), self.bytes).ok_or_else(not_packed)
    }

    /// The elements as an array with the tensor's shape and strides, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, or not aligned.
    #[cfg(feature = "ndarray")]
    pub fn array_view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'a, T>, ViewError> {
        view::array(&self.layout, self.bytes)
    }

    /// Copies the elements into memory of this process, densely in row-major order.
    ///
    /// # Errors
    /// [`ContiguousError`] if there is no memory for all elements: strides of 0 can stand for very many.
    pub fn to_contiguous(&self) -> Result<ContiguousTensor, ContiguousError> {
        ContiguousTensor::copy_of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_values_come_and_go() {
        let flags = [true, false, true, true];
        let view = TensorView::of_bools(&flags, &[2, 2], &[1, 2]).unwrap();
        let dense = view.to_contiguous().unwrap();
        assert_eq!(dense.as_view().view_bool().unwrap(), [true, true, false, true]);
        assert!(matches!(view.view_bool(), Err(ViewError::NotRowMajor { .. })));
        assert!(TensorView::of_bools(&[], &[0], &[1]).unwrap().view_bool().unwrap().is_empty());
    }

    #[cfg(feature = "num-complex")]
    #[test]
    fn complex_numbers_are_elements() {
        use half::f16;
        use num_complex::Complex;

        fn comes_back<T: Element + PartialEq + std::fmt::Debug>(values: [T; 2], dtype: Dtype) {
            let view = TensorView::new(&values, &[2], &[1]).unwrap();
            assert_eq!((view.layout().dtype, view.view::<T>().unwrap()), (dtype, &values[..]));
        }
        comes_back([Complex::new(f16::ONE, f16::ZERO); 2], Dtype::C32);
        comes_back([Complex::new(1f32, -2.0), Complex::new(0.5, 0.0)], Dtype::C64);
        comes_back([Complex::new(1f64, -2.0), Complex::new(0.5, 0.0)], Dtype::C128);
    }

    /// The value 1 of each type, by the bits that its format gives it: the names mean the same there and here.
    #[cfg(feature = "microfloat")]
    #[test]
    fn eight_bit_floats_are_elements() {
        use microfloat::{f8e3m4, f8e4m3, f8e4m3b11fnuz, f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz, f8e8m0fnu};

        fn is_one<T: Element + PartialEq + std::fmt::Debug>(one: T, bits: u8, dtype: &str) {
            let values = [one; 2];
            let view = TensorView::new(&values, &[2], &[1]).unwrap();
            assert_eq!((view.layout().dtype.to_string().as_str(), view.bytes()), (dtype, &[bits; 2][..]));
            assert_eq!(view.view::<T>().unwrap(), values);
        }
        // Bits of the biased exponent, shifted past the mantissa.
        is_one(f8e3m4::ONE, 3 << 4, "f8_e3m4");
        is_one(f8e4m3::ONE, 7 << 3, "f8_e4m3");
        is_one(f8e4m3b11fnuz::ONE, 11 << 3, "f8_e4m3b11fnuz");
        is_one(f8e4m3fn::ONE, 7 << 3, "f8_e4m3fn");
        is_one(f8e4m3fnuz::ONE, 8 << 3, "f8_e4m3fnuz");
        is_one(f8e5m2::ONE, 15 << 2, "f8_e5m2");
        is_one(f8e5m2fnuz::ONE, 16 << 2, "f8_e5m2fnuz");
        is_one(f8e8m0fnu::ONE, 127, "f8_e8m0fnu");
    }
}
