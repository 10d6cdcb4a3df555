use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyType};
use tensorbus::TensorLayout;

use crate::error;
use crate::loan::Loan;
use crate::tensor::describe;
use crate::tensor_mut::TensorMut;

/// A message of several tensors to be written in place, and published: a mapping of names to tensors.
///
/// Made by ``Publisher.loan_message``. A context manager like a ``TensorMut``.
#[pyclass(frozen, mapping, module = "tensorbus", weakref)]
pub(crate) struct MessageMut {
    loan: Arc<Loan>,
    layouts: Vec<TensorLayout>,
}

impl MessageMut {
    pub(crate) fn new(py: Python<'_>, loan: Arc<Loan>) -> PyResult<Self> {
        let layouts = loan.shared(py)?.layouts().cloned().collect();
        Ok(Self { loan, layouts })
    }

    fn tensor(&self, index: usize) -> TensorMut {
        TensorMut::of(self.loan.clone(), index, self.layouts[index].clone())
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
