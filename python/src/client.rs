use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use tensorbus::ControlClient;

use crate::error;
use crate::outside::Closable;
use crate::wait::duration;

/// A client of a control service. Made by ``Service.client``; it makes one call at a time, and threads that share it take turns.
///
/// It stays usable when the server goes and another one comes.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Client {
    inner: Closable<Mutex<ControlClient>>,
    name: String,
}

impl Client {
    pub(crate) fn new(inner: Mutex<ControlClient>) -> Self {
        let name = inner.lock().unwrap_or_else(PoisonError::into_inner).name().to_owned();
        Self { inner: Closable::new(inner, "client"), name }
    }
}

#[pymethods]
impl Client {
    /// Send a request and wait for the reply, at most ``timeout`` seconds.
    ///
    /// Other threads run meanwhile, and Ctrl-C ends it. Raises ``NoServer``, ``ServerGone`` (within about 50 ms if it is killed),
    /// ``NoReply``, ``QueueFull`` or ``Timeout``. After ``Timeout`` and ``ServerGone`` the server may have done what it was asked
    /// for: repeat only what may be done twice. ``go_on`` is asked before each sleep, of which none is longer than 50 ms: when it
    /// says false, the call ends with ``Abandoned``.
    #[pyo3(signature = (data, timeout, *, go_on=None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        timeout: f64,
        go_on: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bound = duration(py, "timeout", timeout)?;
        let client = self.inner.get(py)?;
        let mut raised = Ok(());
        let reply = py.detach(|| {
            let ask = || {
                let asked = Python::attach(|py| {
                    py.check_signals()?;
                    go_on.as_ref().map_or(Ok(true), |go_on| go_on.bind(py).call0()?.is_truthy())
                });
                asked.unwrap_or_else(|error| {
                    raised = Err(error);
                    false
                })
            };
            client.lock().unwrap_or_else(PoisonError::into_inner).call_while(data, bound, ask)
        });
        raised?;
        reply.map(|reply| PyBytes::new(py, &reply)).map_err(|failure| error::call(py, &failure))
    }

    /// Name of the service.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Leave the service, once a call that is under way has ended.
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
        format!("<Client of service {:?}>", self.name)
    }
}
