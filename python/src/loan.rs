//! Slots that are written in place and published.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyDict, PyList, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, ffi};
use tensorbus::dlpack::{export_writable, export_writable_legacy};
use tensorbus::{TensorLayout, TensorSpec, ViewError};

use crate::buffer::{self, As, Memory, Owner};
use crate::capsule::{self, CPU, Request};
use crate::dtype::{self, Dtype};
use crate::error;
use crate::frameworks;
use crate::metadata;
use crate::outside::Outside;
use crate::publisher::Port;
use crate::source::Source;
use crate::tensor::describe;

const COPIED: &CStr =
    c"the loan is copied to be published, for an array made of it is still there: write through `numpy()` \
    without keeping the array, or `del` it before the block ends";

/// A loan and what is made known of it in Python: the tensors, and arrays on their memory.
///
/// A published message must not change. So each array, buffer and capsule has a share of the slot, and it is only sent
/// where nobody else has one. Else its content goes into a fresh slot, and this one stays theirs until they are gone.
pub(crate) struct Loan {
    port: Arc<Port>,
    /// `None` once it is published or discarded.
    shared: Mutex<Option<Arc<Shared>>>,
    metadata: PyOnceLock<Py<PyDict>>,
    source_time_ns: AtomicU64,
}

/// A slot, and where its tensors lie.
pub(crate) struct Shared {
    message: tensorbus::MessageMut,
    tensors: Vec<(TensorLayout, NonNull<u8>)>,
}

// SAFETY: the pointers are to the slot's memory, which stays mapped as long as `message`, whatever thread has it.
unsafe impl Send for Shared {}
// SAFETY: `message` is only moved out or dropped, never used through a shared reference. What writes the memory are other
// libraries, and `Loan::copy`, which reads it when the user says that it is written.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(mut message: tensorbus::MessageMut) -> Result<Self, ViewError> {
        let tensors = message
            .layout()
            .to_vec()
            .into_iter()
            .map(|layout| {
                let data = NonNull::from(message.tensor_mut(&layout.name)?.bytes_mut()).cast();
                Ok((layout, data))
            })
            .collect::<Result<_, ViewError>>()?;
        Ok(Self { message, tensors })
    }

    fn layout(&self, index: usize) -> &TensorLayout {
        &self.tensors[index].0
    }

    fn data(&self, index: usize) -> NonNull<u8> {
        self.tensors[index].1
    }
}

/// Drops a share of a slot. The last one gives the slot back, for which it may have to wait: other Python threads run.
pub(crate) fn let_go(share: Arc<Shared>) {
    if let Some(last) = Arc::into_inner(share) {
        drop(Outside::new(last));
    }
}

impl Loan {
    pub(crate) fn new(py: Python<'_>, port: Arc<Port>, message: tensorbus::MessageMut) -> PyResult<Self> {
        let shared = Shared::new(message).map_err(|failure| error::view(py, &failure))?;
        let shared = Mutex::new(Some(Arc::new(shared)));
        Ok(Self { port, shared, metadata: PyOnceLock::new(), source_time_ns: AtomicU64::new(0) })
    }

    fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| ended(py))
    }

    fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.metadata.get_or_init(py, || PyDict::new(py).unbind()).bind(py).clone()
    }

    fn publish(&self, py: Python<'_>) -> PyResult<usize> {
        let metadata = self.metadata.get(py).map(|entries| metadata::from_dict(entries.bind(py))).transpose()?;
        let shared = self.take().ok_or_else(|| ended(py))?;
        let mut message = match Arc::try_unwrap(shared) {
            Ok(shared) => shared.message,
            Err(shared) => {
                let copied = self.copy(py, &shared);
                let_go(shared);
                copied?
            }
        };
        if let Some(metadata) = metadata {
            *message.metadata_mut() = metadata;
        }
        message.set_source_time_ns(self.source_time_ns.load(Ordering::Relaxed));
        self.port.run(py, |_| message.publish()).map_err(|failure| error::publish(py, &failure))
    }

    /// The content in a slot that nobody else knows of.
    fn copy(&self, py: Python<'_>, shared: &Shared) -> PyResult<tensorbus::MessageMut> {
        PyErr::warn(py, &error::class_of(py, "CopyWarning")?, COPIED, 1)?;
        let spec = |(layout, _): &(TensorLayout, _)| {
            TensorSpec::new(&layout.name, layout.dtype, &layout.shape).strides(&layout.strides)
        };
        let mut message = self.port.loan(py, &shared.tensors.iter().map(spec).collect::<Vec<_>>())?;
        for (layout, data) in &shared.tensors {
            // SAFETY: the tensor has so many bytes there, which `shared` keeps. Whoever still writes to them while the user
            // says that the message is complete decides what the copy holds, nothing more.
            let content = unsafe { std::slice::from_raw_parts(data.as_ptr(), layout.len) };
            let mut tensor = message.tensor_mut(&layout.name).map_err(|failure| error::view(py, &failure))?;
            let target = tensor.bytes_mut();
            py.detach(|| target.copy_from_slice(content));
            self.port.count_copied(layout.len);
        }
        Ok(message)
    }

    fn discard(&self) {
        if let Some(share) = self.take() {
            let_go(share);
        }
    }

    fn take(&self) -> Option<Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The end of a `with` block.
    fn leave(&self, py: Python<'_>, raised: bool) -> PyResult<()> {
        if raised {
            self.discard();
        } else if self.shared.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.publish(py)?;
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.discard();
    }
}

fn ended(py: Python<'_>) -> PyErr {
    error::closed(py, "the loan was published or discarded; take a new one")
}

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

/// A message of several tensors to be written in place, and published: a mapping of names to tensors.
///
/// Made by ``Publisher.loan_message``. A context manager like a ``TensorMut``.
#[pyclass(frozen, mapping, module = "tensorbus", weakref)]
pub(crate) struct MessageMut {
    loan: Arc<Loan>,
    layouts: Vec<TensorLayout>,
}

impl TensorMut {
    pub(crate) fn new(py: Python<'_>, loan: Arc<Loan>) -> PyResult<Self> {
        let layout = loan.shared(py)?.layout(0).clone();
        Ok(Self { loan, index: 0, layout })
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

impl MessageMut {
    pub(crate) fn new(py: Python<'_>, loan: Arc<Loan>) -> PyResult<Self> {
        let layouts = loan.shared(py)?.tensors.iter().map(|(layout, _)| layout.clone()).collect();
        Ok(Self { loan, layouts })
    }

    fn tensor(&self, index: usize) -> TensorMut {
        TensorMut { loan: self.loan.clone(), index, layout: self.layouts[index].clone() }
    }
}

#[pymethods]
impl MessageMut {
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

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<TensorMut> {
        let index = self.layouts.iter().position(|layout| layout.name == name);
        index.map(|index| self.tensor(index)).ok_or_else(|| {
            let present = self.keys();
            error::named(py, "NoSuchTensor", format!("the message has no tensor {name:?}, it has {present:?}"))
        })
    }

    fn __len__(&self) -> usize {
        self.layouts.len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<&str>().is_ok_and(|name| self.layouts.iter().any(|layout| layout.name == name))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyList::new(py, self.keys())?.try_iter()?.into_bound_py_any(py)
    }

    /// Names of the tensors.
    fn keys(&self) -> Vec<String> {
        self.layouts.iter().map(|layout| layout.name.clone()).collect()
    }

    /// The tensors.
    fn values(&self) -> Vec<TensorMut> {
        (0..self.layouts.len()).map(|index| self.tensor(index)).collect()
    }

    /// Names and tensors.
    fn items(&self) -> Vec<(String, TensorMut)> {
        self.keys().into_iter().zip(self.values()).collect()
    }

    /// The tensor of this name, or ``default``.
    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.layouts.iter().position(|layout| layout.name == name) {
            Some(index) => Ok(Some(self.tensor(index).into_bound_py_any(py)?)),
            None => Ok(default),
        }
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

    fn __repr__(&self) -> String {
        format!("<MessageMut with {}>", self.layouts.iter().map(describe).collect::<Vec<_>>().join(", "))
    }
}
