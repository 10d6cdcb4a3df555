use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error;
use crate::outside::Closable;
use crate::wait::{timeout, wait};

/// The deaths of members of the session: processes that ended without leaving it. Made by ``Bus.deaths``.
///
/// Told are those from its making on, by whoever removes what the dead process left: a bus with a ``service_interval``, the daemon,
/// ``Bus.remove_dead``, or a process that joins, opens a topic or leaves. Iterating over it gives process ids for ever.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Deaths {
    inner: Closable<Mutex<tensorbus::Deaths>>,
}

impl Deaths {
    pub(crate) fn new(inner: tensorbus::Deaths) -> Self {
        Self { inner: Closable::new(Mutex::new(inner), "follower of deaths") }
    }
}

#[pymethods]
impl Deaths {
    /// Wait for the next death, at most ``timeout`` seconds, or for ever. Returns the process id.
    ///
    /// Other threads run meanwhile, and Ctrl-C ends it. Raises ``Timeout`` if nobody died.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<u32> {
        let bound = self::timeout(py, timeout)?;
        let told = wait(py, bound, |py, slice| {
            // Looked for each time: another thread may close it.
            let Some(deaths) = self.inner.open() else { return Some(None) };
            let told = py.detach(|| deaths.lock().unwrap_or_else(PoisonError::into_inner).recv(slice));
            told.transpose().map(Some)
        })?;
        match told {
            Some(Some(death)) => death.map(|death| death.pid).map_err(|failure| error::session(py, &failure)),
            Some(None) => Err(error::closed(py, "the follower of deaths was closed")),
            None => Err(error::named(py, "Timeout", format!("nobody died within {:?}", bound.unwrap_or_default()))),
        }
    }

    /// Return the process id of the next one that died, or ``None``.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        let deaths = self.inner.get(py)?;
        let told = py.detach(|| deaths.lock().unwrap_or_else(PoisonError::into_inner).try_recv());
        Ok(told.map_err(|failure| error::session(py, &failure))?.map(|death| death.pid))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        if self.inner.is_closed() {
            return Ok(None);
        }
        match self.recv(py, None) {
            Err(_) if self.inner.is_closed() => Ok(None),
            told => told.map(Some),
        }
    }

    /// The descriptor that becomes readable when deaths are told after ``arm``, for an event loop.
    #[cfg(target_os = "linux")]
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        use std::os::fd::{AsFd, AsRawFd};

        let deaths = self.inner.get(py)?;
        py.detach(|| Ok(deaths.lock().unwrap_or_else(PoisonError::into_inner).as_fd().as_raw_fd()))
    }

    /// Make the descriptor unreadable, and readable again when deaths are told: ``arm``, then ``try_recv`` until it gives
    /// ``None``, then wait, and again from the start.
    #[cfg(target_os = "linux")]
    fn arm(&self, py: Python<'_>) -> PyResult<()> {
        let deaths = self.inner.get(py)?;
        let armed = py.detach(|| deaths.lock().unwrap_or_else(PoisonError::into_inner).arm());
        armed.map_err(|failure| error::session(py, &failure))
    }

    /// Deaths that were not seen because hundreds were told between two calls.
    #[getter]
    fn missed(&self, py: Python<'_>) -> PyResult<u64> {
        let deaths = self.inner.get(py)?;
        Ok(py.detach(|| deaths.lock().unwrap_or_else(PoisonError::into_inner).missed()))
    }

    /// Follow no more.
    fn close(&self) {
        self.inner.close();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_kind, _error, _trace, /))]
    fn __exit__(
        &self,
        _kind: Option<Bound<'_, PyType>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) {
        self.close();
    }

    fn __repr__(&self) -> String {
        if self.inner.is_closed() { "<Deaths, closed>".to_owned() } else { "<Deaths>".to_owned() }
    }
}
