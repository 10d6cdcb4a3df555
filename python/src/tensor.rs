use std::ffi::c_int;

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use pyo3::{IntoPyObjectExt, ffi};
use tensorbus::TensorLayout;

use crate::capsule::{CPU, Request};
use crate::dtype::{self, Dtype};
use crate::frameworks;
use crate::message::Message;
use crate::readable::Readable;

/// One tensor of a received message, read where it lies in shared memory.
///
/// It has DLPack, the buffer protocol and NumPy's protocols: ``np.asarray(tensor)``, ``np.from_dlpack(tensor)``,
/// ``memoryview(tensor)``, none of which copies. Memory and arrays are read-only.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Tensor {
    inner: tensorbus::Tensor,
}

impl Tensor {
    pub(crate) fn new(inner: tensorbus::Tensor) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &tensorbus::Tensor {
        &self.inner
    }

    fn readable(&self) -> Readable {
        Readable::Received(self.inner.clone())
    }
}

/// `image: uint8 (480, 640, 3)`
pub(crate) fn describe(layout: &TensorLayout) -> String {
    let sizes: Vec<_> = layout.shape.iter().map(ToString::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    format!("{}: {} ({}{comma})", layout.name, dtype::name(layout.dtype), sizes.join(", "))
}

#[pymethods]
impl Tensor {
    /// Name, unique in its message.
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
        pyo3::types::PyTuple::new(py, self.inner.shape())?.into_bound_py_any(py)
    }

    /// Step of each dimension, in elements.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        pyo3::types::PyTuple::new(py, self.inner.strides())?.into_bound_py_any(py)
    }

    /// Number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.inner.shape().len()
    }

    /// Bytes that the tensor spans, from the first element to the end of the last one.
    #[getter]
    fn nbytes(&self) -> usize {
        self.inner.layout().len
    }

    /// The message it belongs to.
    #[getter]
    fn message(&self) -> Message {
        Message::new(self.inner.message())
    }

    /// Number of the message, counted by its publisher from 0.
    #[getter]
    fn sequence(&self) -> u64 {
        self.inner.message().sequence()
    }

    /// When the message was published, in nanoseconds of ``time.monotonic_ns()``.
    #[getter]
    fn publish_time_ns(&self) -> u64 {
        self.inner.message().publish_time_ns()
    }

    /// When the content came to be, in nanoseconds since the epoch, if the publisher said so.
    #[getter]
    fn source_time_ns(&self) -> Option<u64> {
        self.inner.message().source_time_ns()
    }

    /// What the publisher added to the message, as a new dict.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        crate::metadata::to_dict(py, self.inner.message().metadata())
    }

    /// The bytes that the tensor spans, as a read-only ``memoryview``, whatever its dtype.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.readable().raw(py)
    }

    /// The tensor as a NumPy array.
    ///
    /// By default nothing is copied, and the array is read-only; but elements of less than a byte, which NumPy cannot read
    /// where they lie, are unpacked into a byte each. With ``copy=False`` that is an error, with ``copy=True`` the array is a
    /// copy that can be written. bfloat16, 8-bit floats and packed elements need ``ml_dtypes``.
    #[pyo3(signature = (*, copy=None))]
    fn numpy<'py>(&self, py: Python<'py>, copy: Option<bool>) -> PyResult<Bound<'py, PyAny>> {
        self.readable().numpy(py, copy)
    }

    /// The tensor as one of PyTorch.
    ///
    /// Without a copy by default. PyTorch knows no read-only tensors: a write to it ends the process, which
    /// ``ReadOnlyWarning`` says. ``copy=True`` gives one that can be written.
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
        format!("<Tensor {}>", describe(self.inner.layout()))
    }
}
