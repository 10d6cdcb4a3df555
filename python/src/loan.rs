//! Slots that are written in place and published.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use tensorbus::{TensorLayout, TensorSpec, ViewError};

use crate::error;
use crate::metadata;
use crate::outside::drop_outside;
use crate::publisher::Port;

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
    pub(crate) source_time_ns: AtomicU64,
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

    pub(crate) fn layouts(&self) -> impl Iterator<Item = &TensorLayout> {
        self.tensors.iter().map(|(layout, _)| layout)
    }

    pub(crate) fn layout(&self, index: usize) -> &TensorLayout {
        &self.tensors[index].0
    }

    pub(crate) fn data(&self, index: usize) -> NonNull<u8> {
        self.tensors[index].1
    }
}

/// Drops a share of a slot. The last one gives the slot back, for which it may have to wait: other Python threads run.
pub(crate) fn let_go(share: Arc<Shared>) {
    if let Some(last) = Arc::into_inner(share) {
        drop_outside(last);
    }
}

impl Loan {
    pub(crate) fn new(py: Python<'_>, port: Arc<Port>, message: tensorbus::MessageMut) -> PyResult<Self> {
        let shared = Shared::new(message).map_err(|failure| error::view(py, &failure))?;
        let shared = Mutex::new(Some(Arc::new(shared)));
        Ok(Self { port, shared, metadata: PyOnceLock::new(), source_time_ns: AtomicU64::new(0) })
    }

    pub(crate) fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| ended(py))
    }

    pub(crate) fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.metadata.get_or_init(py, || PyDict::new(py).unbind()).bind(py).clone()
    }

    pub(crate) fn publish(&self, py: Python<'_>) -> PyResult<usize> {
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

    pub(crate) fn discard(&self) {
        if let Some(share) = self.take() {
            let_go(share);
        }
    }

    fn take(&self) -> Option<Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The end of a `with` block.
    pub(crate) fn leave(&self, py: Python<'_>, raised: bool) -> PyResult<()> {
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
