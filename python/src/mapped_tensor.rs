use std::ffi::c_int;

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, ffi};

use crate::capsule::{CPU, Request};
use crate::dtype::Dtype;
use crate::frameworks;
use crate::readable::Readable;
use crate::tensor::describe;

/// One tensor of shared weights, read where it lies: in a mapped file, or in the session's shared memory.
///
/// It has DLPack, the buffer protocol and NumPy's protocols: ``np.asarray(tensor)``, ``np.from_dlpack(tensor)``,
/// ``memoryview(tensor)``, none of which copies. Memory and arrays are read-only, and keep the weights by themselves.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct MappedTensor {
    inner: tensorbus::MappedTensor,
}

impl MappedTensor {
    pub(crate) fn new(inner: tensorbus::MappedTensor) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &tensorbus::MappedTensor {
        &self.inner
    }

    fn readable(&self) -> Readable {
        Readable::Mapped(self.inner.clone())
    }
}

#[pymethods]
impl MappedTensor {
    /// Name, unique among the weights.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// Type of the elements.
    #[getter]
    fn dtype(&self) -> Dtype {
        Dtype(self.inner.dtype())
    }

    /// Size of each dimension; ``()`` for a scalar.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyTuple::new(py, self.inner.shape())?.into_bound_py_any(py)
    }

    /// Step of each dimension, in elements.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyTuple::new(py, self.inner.strides())?.into_bound_py_any(py)
    }

    /// Number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.inner.shape().len()
    }

    /// Bytes of all elements.
    #[getter]
    fn nbytes(&self) -> usize {
        self.inner.layout().len
    }

    /// The bytes of all elements, as a read-only ``memoryview``, whatever the dtype.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.readable().raw(py)
    }

    /// The tensor as a NumPy array. As ``Tensor.numpy``.
    #[pyo3(signature = (*, copy=None))]
    fn numpy<'py>(&self, py: Python<'py>, copy: Option<bool>) -> PyResult<Bound<'py, PyAny>> {
        self.readable().numpy(py, copy)
    }

    /// The tensor as one of PyTorch. As ``Tensor.torch``.
    #[pyo3(signature = (*, copy=false))]
    fn torch<'py>(&self, py: Python<'py>, copy: bool) -> PyResult<Bound<'py, PyAny>> {
        self.readable().torch(py, copy)
    }

    /// The tensor as an array of JAX, without a copy where JAX takes it so.
    fn jax<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.readable().jax(py)
    }

    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        self.readable().dlpack(py, &Request::new(stream, max_version, dl_device, copy)?)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        CPU
    }

    /// # Safety
    /// Called by the interpreter with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: by the contract.
        unsafe { slf.get().readable().fill(slf.py(), view, flags) }
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        frameworks::converted(self.numpy(py, copy)?, dtype, copy)
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.readable().array_interface(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.readable().first_size(py)
    }

    fn __repr__(&self) -> String {
        format!("<MappedTensor {}>", describe(self.inner.layout()))
    }
}
