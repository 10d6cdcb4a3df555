//! What a registry keeps for Python: any object, and the exception that a loader raised.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use tensorbus::{Device, Measured, Model};

use crate::metadata::type_name;

/// A Python object in a registry.
pub(crate) struct PythonModel {
    /// Taken at the drop alone.
    object: Option<Measured<Py<PyAny>>>,
}

impl PythonModel {
    pub(crate) fn new(object: Py<PyAny>, bytes: u64, device: Device) -> Self {
        Self { object: Some(Measured::new(object, bytes).on(device)) }
    }

    /// The object. There is one until the drop.
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.object.as_ref().map(|object| object.bind(py).clone())
    }
}

impl Model for PythonModel {
    fn memory_bytes(&self) -> u64 {
        self.object.as_ref().map_or(0, Model::memory_bytes)
    }

    fn device(&self) -> Device {
        self.object.as_ref().map_or(Device::CPU, Model::device)
    }
}

impl Drop for PythonModel {
    fn drop(&mut self) {
        // On whatever thread unloads it, the registry's timer among them: else the object would stay until some other call
        // comes by. When the interpreter ends it stays for ever.
        let object = self.object.take();
        match Visit::begin() {
            Some(_visit) => drop(Python::try_attach(move |_| drop(object))),
            None => std::mem::forget(object),
        }
    }
}

/// A thread of ours that goes to the interpreter. One that did so while the interpreter ends would be ended in the midst of it.
struct Visit;

struct Visits {
    under_way: usize,
    is_closed: bool,
}

/// Longest wait for a destructor when the interpreter ends.
const LONGEST_VISIT: Duration = Duration::from_secs(5);

static VISITS: Mutex<Visits> = Mutex::new(Visits { under_way: 0, is_closed: false });
static VISIT_ENDED: Condvar = Condvar::new();

fn visits() -> MutexGuard<'static, Visits> {
    VISITS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Visit {
    fn begin() -> Option<Self> {
        let mut visits = visits();
        if visits.is_closed {
            return None;
        }
        visits.under_way += 1;
        Some(Self)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        visits().under_way -= 1;
        VISIT_ENDED.notify_all();
    }
}

/// Called when the interpreter begins to end: lets those finish that are unloading models, and nobody begin.
#[pyfunction]
#[pyo3(name = "_close_models")]
pub(crate) fn close_models(py: Python<'_>) {
    py.detach(|| {
        let mut visits = visits();
        visits.is_closed = true;
        let under_way = |visits: &mut Visits| visits.under_way > 0;
        drop(VISIT_ENDED.wait_timeout_while(visits, LONGEST_VISIT, under_way));
    });
}

/// What a loader raised. All who waited get the same exception.
pub(crate) struct Raised {
    exception: Py<PyBaseException>,
    /// As of the time when it was raised.
    traceback: Option<Py<PyAny>>,
    text: String,
}

impl Raised {
    pub(crate) fn new(py: Python<'_>, error: &PyErr) -> Self {
        let exception = error.value(py);
        let said = exception.str().map(|text| text.to_string()).unwrap_or_default();
        let text = format!("{}: {said}", type_name(exception.as_any()));
        let traceback = error.traceback(py).map(|traceback| traceback.into_any().unbind());
        Self { exception: exception.clone().unbind(), traceback, text }
    }

    /// The exception, with the traceback that it had.
    pub(crate) fn again(&self, py: Python<'_>) -> PyErr {
        let exception = self.exception.bind(py).as_any();
        let traceback = self.traceback.as_ref().map(|traceback| traceback.bind(py));
        match exception.call_method1("with_traceback", (traceback,)) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Raised {}
