use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use tensorbus::{ControlRequest, ControlServer, RequestError};

use crate::error;
use crate::outside::{Closable, drop_outside};
use crate::wait::{timeout, wait};

/// The one server of a control service. Made by ``Service.server``; threads may share it.
///
/// Iterating over it gives requests for ever. It stays registered until it and the last request are gone.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Server {
    inner: Closable<ControlServer>,
}

/// A request that a client waits for the reply to. Dropped without a reply, it ends the call with ``NoReply``.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Request {
    /// `None` once it is replied to or dropped.
    asked: Mutex<Option<ControlRequest>>,
    #[pyo3(get)]
    /// What the client asks.
    data: Py<PyBytes>,
}

impl Server {
    pub(crate) fn new(inner: ControlServer) -> Self {
        Self { inner: Closable::new(inner, "server") }
    }
}

#[pymethods]
impl Server {
    /// Wait for the next request, at most ``timeout`` seconds, or for ever.
    ///
    /// Other threads run meanwhile, and Ctrl-C ends it. Raises ``Timeout`` if none came. Of each client one request is given
    /// out at a time. Requests that break a rule, or whose client waits no more, are skipped.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Request> {
        let bound = self::timeout(py, timeout)?;
        let received = wait(py, bound, |py, slice| {
            // Looked for each time: another thread may close it.
            let Some(server) = self.inner.open() else { return Some(None) };
            match py.detach(|| server.recv(slice)) {
                Err(RequestError::Timeout { .. }) => None,
                received => Some(Some(received)),
            }
        })?;
        match received {
            Some(Some(asked)) => asked.map(|asked| Request::new(py, asked)).map_err(|why| error::request(py, &why)),
            Some(None) => Err(error::closed(py, "the server was closed")),
            None => {
                let (service, waited) = (self.name(py)?, bound.unwrap_or_default());
                Err(error::request(py, &RequestError::Timeout { service, waited }))
            }
        }
    }

    /// Return the next request, or ``None``.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        let server = self.inner.get(py)?;
        let asked = py.detach(|| server.try_recv()).map_err(|failure| error::request(py, &failure))?;
        Ok(asked.map(|asked| Request::new(py, asked)))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        if self.inner.is_closed() {
            return Ok(None);
        }
        match self.recv(py, None) {
            Err(_) if self.inner.is_closed() => Ok(None),
            received => received.map(Some),
        }
    }

    /// The descriptor that becomes readable with the next request after ``arm``, for an event loop.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let server = self.inner.get(py)?;
        server.as_fd().map(|descriptor| descriptor.as_raw_fd()).map_err(|failure| error::request(py, &failure))
    }

    /// Make the descriptor unreadable, and readable again with the next request: ``arm``, then ``try_recv`` until it gives
    /// ``None``, then wait, and again from the start.
    ///
    /// A client's request does not make it readable while an earlier one of that client is held.
    fn arm(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.get(py)?.arm().map_err(|failure| error::request(py, &failure))
    }

    /// Name of the service.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.name().to_owned())
    }

    /// Requests that were skipped because they broke a rule.
    #[getter]
    fn rejected(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.inner.get(py)?.rejected())
    }

    /// Leave the service, once its requests are gone too.
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

    fn __repr__(&self, py: Python<'_>) -> String {
        self.name(py).map_or_else(|_| "<Server, closed>".to_owned(), |name| format!("<Server of service {name:?}>"))
    }
}

impl Request {
    fn new(py: Python<'_>, asked: ControlRequest) -> Self {
        let data = PyBytes::new(py, asked.bytes()).unbind();
        Self { asked: Mutex::new(Some(asked)), data }
    }

    fn take(&self) -> Option<ControlRequest> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Request {
    /// Send the reply. That it returns means that the client was waiting and has it in its queue.
    ///
    /// Raises ``ClientGone`` if the client is dead or waits no more, and ``TooLarge`` beyond 65,536 bytes.
    fn reply(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let asked = self.take().ok_or_else(|| error::closed(py, "the request was replied to or dropped already"))?;
        py.detach(|| asked.reply(data)).map_err(|failure| error::reply(py, &failure))
    }

    /// End the client's call without a reply.
    fn drop(&self) {
        if let Some(asked) = self.take() {
            drop_outside(asked);
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Request of {} bytes>", self.data.bind(py).as_bytes().len())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        Self::drop(self);
    }
}
