//! Tensors that are there to be read, and how they leave for other libraries: received ones, and weights.

use std::ffi::c_int;

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use pyo3::{IntoPyObjectExt, ffi};
use tensorbus::{ContiguousTensor, MappedTensor, TensorLayout, TensorView};

use crate::buffer::{self, As, Memory, Owner};
use crate::capsule::{self, Export, Request};
use crate::dtype;
use crate::error;
use crate::frameworks;

/// A tensor that nobody writes, with what keeps its memory. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Readable {
    Received(tensorbus::Tensor),
    Mapped(MappedTensor),
}

impl Readable {
    pub(crate) fn layout(&self) -> &TensorLayout {
        match self {
            Self::Received(tensor) => tensor.layout(),
            Self::Mapped(tensor) => tensor.layout(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Received(tensor) => tensor.bytes(),
            Self::Mapped(tensor) => tensor.bytes(),
        }
    }

    pub(crate) fn as_view(&self) -> TensorView<'_> {
        match self {
            Self::Received(tensor) => tensor.as_view(),
            Self::Mapped(tensor) => tensor.as_view(),
        }
    }

    pub(crate) fn memory(&self, seen: As) -> PyResult<Memory> {
        let data = self.bytes().as_ptr().cast_mut();
        Memory::new(Owner::Readable(self.clone()), self.layout(), data, seen)
    }

    pub(crate) fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        frameworks::memoryview(py, self.memory(As::Bytes)?)
    }

    pub(crate) fn numpy<'py>(&self, py: Python<'py>, copy: Option<bool>) -> PyResult<Bound<'py, PyAny>> {
        let dtype = self.layout().dtype;
        if dtype.element_bytes().is_none() {
            if copy == Some(false) {
                let text = format!(
                    "{} elements are packed, and NumPy needs a copy; `raw` has them as they lie",
                    dtype::name(dtype)
                );
                return Err(error::unsupported(py, text));
            }
            return frameworks::unpacked(py, &self.as_view());
        }
        let seen = if dtype::format(dtype).is_some() { As::Elements } else { As::Bits };
        let numpy_dtype = (seen == As::Bits).then(|| dtype::numpy(py, dtype)).transpose()?;
        frameworks::numpy(py, self.memory(seen)?, numpy_dtype, copy == Some(true))
    }

    pub(crate) fn torch<'py>(&self, py: Python<'py>, copy: bool) -> PyResult<Bound<'py, PyAny>> {
        if copy {
            return frameworks::torch(capsule::legacy(py, self.copied(py)?.into_dlpack_legacy())?.into_any());
        }
        warn_of_writes(py)?;
        self.torch_unwarned(py)
    }

    pub(crate) fn torch_unwarned<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        frameworks::torch(self.legacy(py)?.into_any())
    }

    pub(crate) fn jax<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // JAX asks for the old structure; its arrays are never written.
        frameworks::jax(Export(self.clone()).into_bound_py_any(py)?)
    }

    pub(crate) fn dlpack<'py>(&self, py: Python<'py>, request: &Request) -> PyResult<Bound<'py, PyCapsule>> {
        match request {
            Request { copy: true, is_versioned: true } => capsule::versioned(py, self.copied(py)?.into_dlpack()),
            Request { copy: true, is_versioned: false } => capsule::legacy(py, self.copied(py)?.into_dlpack_legacy()),
            Request { copy: false, is_versioned: true } => match self {
                Self::Received(tensor) => capsule::versioned(py, tensor.to_dlpack()),
                Self::Mapped(tensor) => capsule::versioned(py, tensor.to_dlpack()),
            },
            Request { copy: false, is_versioned: false } => Err(error::buffer(
                "the tensor is read-only, which DLPack before 1.0 cannot say; use `numpy()`, `torch()` or `jax()`, ask \
                 with `max_version`, or for a copy",
            )),
        }
    }

    /// In the structure from before DLPack 1.0, which does not say that the memory is read-only.
    pub(crate) fn legacy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        match self {
            Self::Received(tensor) => capsule::legacy(py, tensor.to_dlpack_legacy()),
            Self::Mapped(tensor) => capsule::legacy(py, tensor.to_dlpack_legacy()),
        }
    }

    pub(crate) fn array_interface<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        frameworks::array_interface(py, self.layout(), self.bytes().as_ptr())
    }

    /// # Safety
    /// As for `__getbuffer__`: `view` is null or a structure to be filled.
    pub(crate) unsafe fn fill(&self, py: Python<'_>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: by the contract.
        unsafe { buffer::fill(py, self.memory(As::Elements), view, flags) }
    }

    pub(crate) fn first_size(&self, py: Python<'_>) -> PyResult<usize> {
        let first = self.layout().shape.first().copied();
        first.ok_or_else(|| error::unsupported(py, "a scalar has no length"))
    }

    fn copied(&self, py: Python<'_>) -> PyResult<ContiguousTensor> {
        py.detach(|| self.as_view().to_contiguous()).map_err(|failure| error::contiguous(py, &failure))
    }
}

/// Says that PyTorch cannot be kept from writing.
pub(crate) fn warn_of_writes(py: Python<'_>) -> PyResult<()> {
    let text =
        c"PyTorch knows no read-only tensors: a write to this one ends the process; `torch(copy=True)` can be written";
    PyErr::warn(py, &error::class_of(py, "ReadOnlyWarning")?, text, 1)
}
