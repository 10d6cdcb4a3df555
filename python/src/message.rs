use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error;
use crate::metadata;
use crate::tensor::Tensor;

/// A received message: a mapping of names to tensors, which are read where they lie in shared memory.
///
/// Its slot goes back when the message, its tensors and all arrays made of them are gone; until then its bytes stay,
/// whatever becomes of the subscriber, the bus, and the publisher's process.
#[pyclass(frozen, mapping, module = "tensorbus", weakref)]
pub(crate) struct Message {
    inner: tensorbus::Message,
}

impl Message {
    pub(crate) fn new(inner: tensorbus::Message) -> Self {
        Self { inner }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.inner.tensors().map(|tensor| tensor.name().to_owned())
    }
}

#[pymethods]
impl Message {
    /// The first tensor; every message has one.
    #[getter]
    fn first(&self) -> Tensor {
        Tensor::new(self.inner.first().clone())
    }

    /// Number of the message, counted by its publisher from 0.
    #[getter]
    fn sequence(&self) -> u64 {
        self.inner.sequence()
    }

    /// Messages of this publisher that this subscriber missed since the one before.
    #[getter]
    fn lost(&self) -> u64 {
        self.inner.lost()
    }

    /// Identifies the publisher: unique on this machine while it lives.
    #[getter]
    fn publisher(&self) -> u128 {
        self.inner.publisher()
    }

    /// When it was published, in nanoseconds of ``time.monotonic_ns()``.
    #[getter]
    fn publish_time_ns(&self) -> u64 {
        self.inner.publish_time_ns()
    }

    /// When the content came to be, in nanoseconds since the epoch, if the publisher said so.
    #[getter]
    fn source_time_ns(&self) -> Option<u64> {
        self.inner.source_time_ns()
    }

    /// What the publisher added, as a new dict.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metadata::to_dict(py, self.inner.metadata())
    }

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<Tensor> {
        self.inner.tensor(name).map(Tensor::new).map_err(|failure| error::view(py, &failure))
    }

    fn __len__(&self) -> usize {
        self.inner.tensors().len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<&str>().is_ok_and(|name| self.names().any(|present| present == name))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.names().collect::<Vec<_>>())?.try_iter()?.into_any())
    }

    /// Names of the tensors, in the publisher's order.
    fn keys(&self) -> Vec<String> {
        self.names().collect()
    }

    /// The tensors, in the publisher's order.
    fn values(&self) -> Vec<Tensor> {
        self.inner.tensors().map(Tensor::new).collect()
    }

    /// Names and tensors, in the publisher's order.
    fn items(&self) -> Vec<(String, Tensor)> {
        self.names().zip(self.values()).collect()
    }

    /// The tensor of this name, or ``default``.
    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.inner.tensor(name) {
            Ok(tensor) => Ok(Some(Bound::new(py, Tensor::new(tensor))?.into_any())),
            Err(_) => Ok(default),
        }
    }

    fn __repr__(&self) -> String {
        let tensors: Vec<_> = self.inner.tensors().map(|tensor| crate::tensor::describe(tensor.layout())).collect();
        format!("<Message {} with {}>", self.inner.sequence(), tensors.join(", "))
    }
}
