use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple, PyType};
use tensorbus::TensorLayout;
use tensorbus::dlpack::{export_writable, export_writable_legacy};

use crate::buffer::{self, As, Memory, Owner};
use crate::capsule::{self, CPU, Request};
use crate::dtype::{self, Dtype};
use crate::error;
use crate::frameworks;
use crate::loan::{Loan, let_go};
use crate::source::Source;
use crate::tensor::describe;

/// A tensor to be written in place, and published. Made by ``Publisher.loan``, or one of a ``MessageMut``.
///
/// ``with publisher.loan(shape, dtype) as tensor:`` publishes at the end of the block, and discards if the block raises.
/// Arrays made of it write into shared memory. Once it is published they do not any more: what is still there keeps the
/// slot to itself, and the message is sent with a copy, which ``CopyWarning`` says. Write through ``tensor.numpy()``
/// without keeping the array, or ``del`` it, and nothing is copied.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct TensorMut {
    loan: Arc<Loan>,
    index: usize,
    layout: TensorLayout,
}

impl TensorMut {
    pub(crate) fn new(py: Python<'_>, loan: Arc<Loan>) -> PyResult<Self> {
        let layout = loan.shared(py)?.layout(0).clone();
        Ok(Self::of(loan, 0, layout))
    }

    pub(crate) fn of(loan: Arc<Loan>, index: usize, layout: TensorLayout) -> Self {
        Self { loan, index, layout }
    }

    fn memory(&self, py: Python<'_>, seen: As) -> PyResult<Memory> {
        let shared = self.loan.shared(py)?;
        let data = shared.data(self.index).as_ptr();
        Memory::new(Owner::Loaned(Some(shared)), &self.layout, data, seen)
    }
}

#[pymethods]
impl TensorMut {
    /// Name, unique in its message.
    #[getter]
    fn name(&self) -> &str {
        &self.layout.name
    }

    /// Type of the elements.
    #[getter]
    fn dtype(&self) -> Dtype {
        Dtype(self.layout.dtype)
    }

    /// Size of each dimension; ``()`` for a scalar.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.layout.shape)
    }

    /// Step of each dimension, in elements.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.layout.strides)
    }

    /// Number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.layout.shape.len()
    }

    /// Bytes of the tensor.
    #[getter]
    fn nbytes(&self) -> usize {
        self.layout.len
    }

    /// What goes with the message: a dict of str to bool, int, float, str or bytes, to be filled.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.loan.metadata(py)
    }

    /// When the content came to be, in nanoseconds since the epoch; 0 for not known.
    #[getter]
    fn source_time_ns(&self) -> u64 {
        self.loan.source_time_ns.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_source_time_ns(&self, nanoseconds: u64) {
        self.loan.source_time_ns.store(nanoseconds, Ordering::Relaxed);
    }

    /// The tensor's bytes, as a ``memoryview`` to write, whatever its dtype.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        frameworks::memoryview(py, self.memory(py, As::Bytes)?)
    }

    /// The tensor as a NumPy array, to write into shared memory.
    ///
    /// Elements of less than a byte cannot be written so: ``copy_from`` packs them.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let dtype = self.layout.dtype;
        if dtype.element_bytes().is_none() {
            let text = format!(
                "{} elements are packed; write them with `copy_from`, or as bytes in `raw`",
                dtype::name(dtype)
            );
            return Err(error::unsupported(py, text));
        }
        let seen = if dtype::format(dtype).is_some() { As::Elements } else { As::Bits };
        let numpy_dtype = (seen == As::Bits).then(|| dtype::numpy(py, dtype)).transpose()?;
        frameworks::numpy(py, self.memory(py, seen)?, numpy_dtype, false)
    }

    /// Where NumPy gets no buffer: it has none for these elements, or the loan has ended, and this says so.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        frameworks::converted(self.numpy(py)?, dtype, copy)
    }

    /// The tensor as one of PyTorch, to write into shared memory.
    fn torch<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        frameworks::torch(slf.into_any())
    }

    /// Copy an array of the same dtype and shape into the tensor, whatever its strides.
    fn copy_from(&self, py: Python<'_>, tensor: &Bound<'_, PyAny>) -> PyResult<()> {
        let source = Source::of(tensor)?;
        source.check_fits(py, &self.layout)?;
        let shared = self.loan.shared(py)?;
        let data = shared.data(self.index);
        // SAFETY: the tensor has so many bytes there, which `shared` keeps. No other reference to them exists in Rust: each
        // is made for one copy, and other libraries that write at the same time only mix what is written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), self.layout.len) };
        let copied = source.copy_into(py, &self.layout, bytes);
        let_go(shared);
        copied
    }

    /// Send the message to every subscriber. Returns how many have it in their queue now.
    fn publish(&self, py: Python<'_>) -> PyResult<usize> {
        self.loan.publish(py)
    }

    /// Give the slot back; nobody sees what was written.
    fn discard(&self) {
        self.loan.discard();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, _error, _trace, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyType>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.loan.leave(py, kind.is_some())
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
        let request = Request::new(stream, max_version, dl_device, copy)?;
        if request.copy {
            return Err(error::buffer("a loan is there to be written; copy what was received"));
        }
        let shared = self.loan.shared(py)?;
        let data = shared.data(self.index);
        if request.is_versioned {
            // SAFETY: the share of the slot keeps the tensor's bytes there, mapped to be written.
            capsule::versioned(py, unsafe { export_writable(shared, &self.layout, data) })
        } else {
            // SAFETY: as above.
            capsule::legacy(py, unsafe { export_writable_legacy(shared, &self.layout, data) })
        }
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        CPU
    }

    /// # Safety
    /// Called by the interpreter with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = slf.get().memory(slf.py(), As::Elements);
        // SAFETY: by the contract.
        unsafe { buffer::fill(slf.py(), memory, view, flags) }
    }

    fn __repr__(&self) -> String {
        format!("<TensorMut {}>", describe(&self.layout))
    }
}
