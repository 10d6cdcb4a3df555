//! What `publish` and `copy_from` take: tensors of other libraries.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use tensorbus::dlpack::ForeignTensor;
use tensorbus::layout::{copy_elements, span_bytes};
use tensorbus::{Dtype, TensorLayout, TensorSpec, TensorView};

use crate::capsule;
use crate::dtype;
use crate::error;
use crate::frameworks;
use crate::held_buffer::HeldBuffer;
use crate::mapped_tensor::MappedTensor;
use crate::metadata::type_name;
use crate::readable::Readable;
use crate::tensor::Tensor;

/// Copies of at least so many bytes let other Python threads run.
const LARGE: usize = 256 << 10;

/// A tensor to be copied from, and what keeps it.
pub(crate) struct Source {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In elements, none negative.
    strides: Vec<isize>,
    memory: Memory,
}

enum Memory {
    Readable(Readable),
    Foreign(ForeignTensor),
    /// The buffer, and how many of its bytes the layout spans.
    Buffer(HeldBuffer, usize),
    Packed(Vec<u8>),
}

impl Source {
    /// Whatever `object` offers: it is a received tensor, or has NumPy's protocols, DLPack, or a buffer.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(tensor) = object.cast::<Tensor>() {
            return Ok(Self::readable(Readable::Received(tensor.get().inner().clone())));
        }
        if let Ok(tensor) = object.cast::<MappedTensor>() {
            return Ok(Self::readable(Readable::Mapped(tensor.get().inner().clone())));
        }
        let kind = object.get_type();
        if kind.hasattr(intern!(py, "__array_interface__"))? {
            return Self::of_array(&frameworks::as_array(object)?);
        }
        if kind.hasattr(intern!(py, "__dlpack__"))? {
            let foreign = capsule::import(object)?;
            return Ok(Self::new(foreign.layout().clone(), Memory::Foreign(foreign)));
        }
        // SAFETY: an object, and the interpreter holds.
        if unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0 {
            return Self::of_buffer(object, None);
        }
        if kind.hasattr(intern!(py, "__array__"))? {
            return Self::of_array(&frameworks::as_array(object)?);
        }
        Err(error::unsupported(
            py,
            format!(
                "{} is no tensor: neither DLPack, nor a buffer, nor an array; make it one (`np.asarray`)",
                type_name(object)
            ),
        ))
    }

    fn readable(tensor: Readable) -> Self {
        Self::new(tensor.layout().clone(), Memory::Readable(tensor))
    }

    fn new(layout: TensorLayout, memory: Memory) -> Self {
        let TensorLayout { dtype, shape, strides, .. } = layout;
        Self { dtype, shape, strides, memory }
    }

    /// An array of NumPy, with elements of NumPy's own or of `ml_dtypes`.
    fn of_array(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = array.py();
        let dtype = dtype::parse(&array.getattr(intern!(py, "dtype"))?)?;
        if dtype::format(dtype).is_some() {
            return Self::of_buffer(array, Some(dtype));
        }
        let bits = if dtype.bits() == 16 { "uint16" } else { "uint8" };
        let bits = array.call_method1(intern!(py, "view"), (bits,))?;
        if dtype.element_bytes().is_some() {
            return Self::of_buffer(&bits, Some(dtype));
        }
        // In row-major order, whatever its strides.
        let bytes = bits.call_method0(intern!(py, "tobytes"))?;
        let shape: Vec<usize> = array.getattr(intern!(py, "shape"))?.extract()?;
        let strides = tensorbus::layout::row_major_strides(&shape)
            .ok_or_else(|| error::invalid(py, "the array's sizes are more than can be counted"))?;
        Ok(Self { dtype, shape, strides, memory: Memory::Packed(pack(dtype, bytes.extract()?)) })
    }

    /// `dtype` is given where the buffer has bit patterns of elements that it has no format for.
    fn of_buffer(object: &Bound<'_, PyAny>, dtype: Option<Dtype>) -> PyResult<Self> {
        let py = object.py();
        let buffer = HeldBuffer::of(object)?;
        let item = buffer.item_size();
        let dtype = match dtype {
            Some(dtype) => dtype,
            None => dtype::of_format(py, buffer.format(), item)?,
        };
        let step = |&bytes: &isize| {
            let bytes = usize::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(item))?;
            Some((bytes / item) as isize)
        };
        let Some(strides) = buffer.strides.iter().map(step).collect::<Option<Vec<_>>>() else {
            // It goes backwards, or elements do not lie a whole number of elements apart: NumPy puts them in order first.
            return Self::of_buffer(&frameworks::as_contiguous_array(&frameworks::as_array(object)?)?, Some(dtype));
        };
        let shape = buffer.shape.clone();
        let span = span_bytes(dtype, &shape, &strides).map_err(|failure| error::layout(py, &failure))?;
        Ok(Self { dtype, shape, strides, memory: Memory::Buffer(buffer, span) })
    }

    /// The tensor of a message that it becomes: in the same order, if it is dense in some, else in row-major order.
    pub(crate) fn spec(&self, name: &str) -> TensorSpec {
        let spec = TensorSpec::new(name, self.dtype, &self.shape);
        if self.is_dense() { spec.strides(&self.strides) } else { spec }
    }

    fn is_dense(&self) -> bool {
        let mut axes: Vec<_> = self.strides.iter().zip(&self.shape).filter(|(_, size)| **size != 1).collect();
        axes.sort_unstable();
        let mut expected = 1;
        axes.into_iter().all(|(&stride, &size)| {
            let fits = stride == expected;
            expected = expected.saturating_mul(isize::try_from(size).unwrap_or(isize::MAX));
            fits
        })
    }

    pub(crate) fn check_fits(&self, py: Python<'_>, target: &TensorLayout) -> PyResult<()> {
        if self.dtype == target.dtype && self.shape == target.shape {
            return Ok(());
        }
        let (from, to) = (dtype::name(self.dtype), dtype::name(target.dtype));
        let text = format!(
            "{from} elements of shape {:?} cannot be copied into {to} elements of shape {:?}",
            self.shape, target.shape
        );
        Err(error::invalid(py, text))
    }

    /// Copies the elements into a tensor of the same dtype and shape, whatever its strides.
    pub(crate) fn copy_into(&self, py: Python<'_>, target: &TensorLayout, bytes: &mut [u8]) -> PyResult<()> {
        let source = self.bytes();
        let mut copy = || {
            if self.strides == target.strides {
                bytes.copy_from_slice(source);
            } else {
                copy_elements(self.dtype, &self.shape, (source, &self.strides), (bytes, &target.strides));
            }
        };
        if target.len >= LARGE {
            py.detach(copy)
        } else {
            copy()
        }
        Ok(())
    }

    /// The tensor as what takes one to read.
    pub(crate) fn view(&self, py: Python<'_>) -> PyResult<TensorView<'_>> {
        TensorView::from_bytes(self.dtype, self.bytes(), &self.shape, &self.strides)
            .map_err(|failure| error::layout(py, &failure))
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Readable(tensor) => tensor.bytes(),
            Memory::Foreign(tensor) => tensor.as_view().bytes(),
            Memory::Packed(packed) => packed,
            Memory::Buffer(_, 0) => &[],
            Memory::Buffer(buffer, span) => {
                // SAFETY: shape, strides and item size are the buffer's, and all that they reach is readable for as long as
                // the buffer is held, by the rules of the protocol; `span` is what they reach, and no stride is negative.
                // Whoever writes at the same time decides what the copy holds, nothing more.
                unsafe { std::slice::from_raw_parts(buffer.data().cast::<u8>(), *span) }
            }
        }
    }
}

/// Elements of one byte each, packed without padding, the first in the lowest bits: as DLPack has them.
fn pack(dtype: Dtype, elements: &[u8]) -> Vec<u8> {
    let bits = usize::from(dtype.bits());
    let mut packed = vec![0u8; (elements.len() * bits).div_ceil(8)];
    for (index, &element) in elements.iter().enumerate() {
        let (byte, shift) = (index * bits / 8, index * bits % 8);
        // An element of up to 7 bits lies in one byte or in two.
        let pattern = u16::from(element & ((1 << bits) - 1)) << shift;
        packed[byte] |= pattern as u8;
        if pattern > 0xff {
            packed[byte + 1] |= (pattern >> 8) as u8;
        }
    }
    packed
}
