use std::os::fd::{AsFd, AsRawFd};

use pyo3::prelude::*;
use pyo3::types::PyType;
use tensorbus::ReceiveError;

use crate::error;
use crate::message::Message;
use crate::outside::Closable;
use crate::wait::{timeout, wait};

/// The receiving side of a topic: a queue of at most the topic's depth. Made by ``Bus.subscriber``.
///
/// Iterating over it gives messages for ever, and waits for each. Messages that are held keep the subscriber registered.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Subscriber {
    inner: Closable<tensorbus::Subscriber>,
}

/// What has come to a subscriber so far.
#[pyclass(frozen, module = "tensorbus", get_all)]
pub(crate) struct SubscriberStats {
    /// Messages received.
    received: u64,
    /// Messages missed, as gaps in the publishers' numbers show.
    lost: u64,
    /// Messages skipped because they were not valid.
    rejected: u64,
    /// Why the last of them was not.
    last_rejection: Option<String>,
}

impl Subscriber {
    pub(crate) fn new(inner: tensorbus::Subscriber) -> Self {
        Self { inner: Closable::new(inner, "subscriber") }
    }
}

#[pymethods]
impl Subscriber {
    /// Wait for the next message, at most ``timeout`` seconds, or for ever.
    ///
    /// Other threads run meanwhile, and Ctrl-C ends it. Raises ``Timeout`` if none came.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Message> {
        if let Some(message) = self.try_recv(py)? {
            return Ok(message);
        }
        let bound = self::timeout(py, timeout)?;
        let received = wait(py, bound, |py, slice| {
            // Looked for each time: another thread may close it.
            let Some(subscriber) = self.inner.open() else { return Some(None) };
            match py.detach(|| subscriber.recv(slice)) {
                Err(ReceiveError::Timeout { .. }) => None,
                received => Some(Some(received)),
            }
        })?;
        match received {
            Some(Some(message)) => message.map(Message::new).map_err(|failure| error::receive(py, &failure)),
            Some(None) => Err(error::closed(py, "the subscriber was closed")),
            None => {
                let (topic, waited) = (self.topic(py)?, bound.unwrap_or_default());
                Err(error::receive(py, &ReceiveError::Timeout { topic, waited }))
            }
        }
    }

    /// Return the oldest message in the queue, or ``None``.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let received = self.inner.get(py)?.try_recv();
        received.map(|message| message.map(Message::new)).map_err(|failure| error::receive(py, &failure))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        if self.inner.is_closed() {
            return Ok(None);
        }
        match self.recv(py, None) {
            Err(_) if self.inner.is_closed() => Ok(None),
            received => received.map(Some),
        }
    }

    /// The descriptor that becomes readable with the next message after ``arm``, for an event loop.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.inner.get(py)?.as_fd().as_raw_fd())
    }

    /// Make the descriptor unreadable, and readable again with the next message.
    ///
    /// In this order no message is missed: ``arm``, then ``try_recv`` until it gives ``None``, then wait until the
    /// descriptor is readable, and again from the start.
    fn arm(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.get(py)?.arm().map_err(|failure| error::receive(py, &failure))
    }

    /// Name of the topic.
    #[getter]
    fn topic(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.topic().to_owned())
    }

    /// What has come so far.
    fn stats(&self, py: Python<'_>) -> PyResult<SubscriberStats> {
        let stats = self.inner.get(py)?.stats();
        Ok(SubscriberStats {
            received: stats.received,
            lost: stats.lost,
            rejected: stats.rejected,
            last_rejection: stats.last_rejection.map(|reason| reason.to_string()),
        })
    }

    /// Leave the topic; messages that are held stay valid.
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
        self.topic(py)
            .map_or_else(|_| "<Subscriber, closed>".to_owned(), |topic| format!("<Subscriber of topic {topic:?}>"))
    }
}

#[pymethods]
impl SubscriberStats {
    fn __repr__(&self) -> String {
        let Self { received, lost, rejected, .. } = self;
        format!("SubscriberStats(received={received}, lost={lost}, rejected={rejected})")
    }
}
