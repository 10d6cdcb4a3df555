use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;
use tensorbus::Backend;

use crate::deaths::Deaths;
use crate::error;
use crate::options::Shared;
use crate::outside::Closable;
use crate::publisher::Publisher;
use crate::service::Service;
use crate::subscriber::Subscriber;
use crate::wait::duration;

/// This process's place in a session, in which topics are opened.
///
/// A session is one isolated bus on one machine: programs of one user that name the same session see each other's topics.
/// Default: the environment variable ``TENSORBUS_SESSION``, else ``default``. Publishers, subscribers and received tensors
/// keep the bus open, in whatever order they go. It does not survive ``fork``: a child opens a bus of its own.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Bus {
    inner: Closable<tensorbus::Bus>,
}

/// What can be seen of a topic without taking part in it.
#[pyclass(frozen, module = "tensorbus", get_all)]
pub(crate) struct TopicInfo {
    /// The topic's name.
    name: String,
    /// Publishers that have slots.
    publishers: usize,
    /// Subscribers.
    subscribers: usize,
    /// Bytes of all slots.
    pool_bytes: u64,
    /// Messages that wait for a subscriber at most.
    depth: usize,
    /// Messages that a late joiner gets.
    history: usize,
    /// Messages of one publisher that a subscriber may hold at a time.
    max_borrowed: usize,
    /// What happens when a queue is full.
    overflow: String,
}

impl Bus {
    /// The bus, unless it is closed.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<tensorbus::Bus> {
        Ok(tensorbus::Bus::clone(&*self.inner.get(py)?))
    }
}

#[pymethods]
impl TopicInfo {
    fn __repr__(&self) -> String {
        format!(
            "TopicInfo(name={:?}, publishers={}, subscribers={}, pool_bytes={})",
            self.name, self.publishers, self.subscribers, self.pool_bytes
        )
    }
}

#[pymethods]
impl Bus {
    /// Join a session.
    ///
    /// ``backend`` is ``"shm"``, ``"file"`` or ``"local"``; by default what the machine can do. ``directory`` is where the
    /// session's directory is made. ``quota_bytes`` bounds what all publishers of the session take together.
    /// ``service_interval`` in seconds starts a background thread that removes what killed processes leave, and brings
    /// late joiners their history.
    #[new]
    #[pyo3(signature = (session=None, *, backend=None, directory=None, quota_bytes=None, service_interval=None))]
    fn new(
        py: Python<'_>,
        session: Option<&str>,
        backend: Option<&str>,
        directory: Option<PathBuf>,
        quota_bytes: Option<u64>,
        service_interval: Option<f64>,
    ) -> PyResult<Self> {
        let mut builder = tensorbus::Bus::builder();
        if let Some(session) = session {
            builder = builder.session(session);
        }
        if let Some(backend) = backend {
            let no_backend = || error::invalid(py, format!("no backend {backend:?}; it is 'shm', 'file' or 'local'"));
            let all = [Backend::Shm, Backend::File, Backend::Local];
            let found = all.into_iter().find(|candidate| candidate.to_string() == backend);
            builder = builder.backend(found.ok_or_else(no_backend)?);
        }
        if let Some(directory) = directory {
            builder = builder.directory(directory);
        }
        if let Some(bytes) = quota_bytes {
            builder = builder.quota_bytes(bytes);
        }
        if let Some(seconds) = service_interval {
            builder = builder.service_thread(duration(py, "service_interval", seconds)?);
        }
        let bus = py.detach(|| builder.open()).map_err(|failure| error::session(py, &failure))?;
        Ok(Self { inner: Closable::new(bus, "bus") })
    }

    /// Open a topic and add a publisher to it.
    ///
    /// ``slot_bytes`` is the size of the largest message; without it, that of the first one. ``max_slot_bytes`` lets slots
    /// grow up to it. ``prefault=False`` gives slots their memory when they are first used. The other settings are those of
    /// the topic: whoever opens it first fixes them, and what is left open is taken as it is. ``overflow`` says what happens
    /// when a subscriber's queue is full: ``"drop-oldest"`` (default), ``"drop-newest"``, ``"error"``, or ``"block"`` for at
    /// most ``block_timeout`` seconds.
    #[pyo3(signature = (topic, *, slots=None, slot_bytes=None, max_slot_bytes=None, prefault=true, depth=None, history=None,
        max_borrowed=None, overflow=None, block_timeout=None, max_publishers=None, max_subscribers=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn publisher(
        &self,
        py: Python<'_>,
        topic: &str,
        slots: Option<usize>,
        slot_bytes: Option<usize>,
        max_slot_bytes: Option<usize>,
        prefault: bool,
        depth: Option<usize>,
        history: Option<usize>,
        max_borrowed: Option<usize>,
        overflow: Option<&str>,
        block_timeout: Option<f64>,
        max_publishers: Option<usize>,
        max_subscribers: Option<usize>,
    ) -> PyResult<Publisher> {
        let shared = Shared { depth, history, max_borrowed, overflow, block_timeout, max_publishers, max_subscribers };
        let mut builder = shared.apply(py, self.inner.get(py)?.topic(topic))?.prefault(prefault);
        if let Some(slots) = slots {
            builder = builder.slots(slots);
        }
        if let Some(bytes) = slot_bytes {
            builder = builder.slot_bytes(bytes);
        }
        if let Some(bytes) = max_slot_bytes {
            builder = builder.max_slot_bytes(bytes);
        }
        let opened = py.detach(|| builder.publisher()).map_err(|failure| error::topic(py, &failure))?;
        Ok(Publisher::new(opened, max_slot_bytes.is_some() || !prefault))
    }

    /// Open a topic and add a subscriber to it, which gets what is published from now on.
    ///
    /// ``spin`` is how long, in seconds, ``recv`` looks for a message before it sleeps. The other settings are those of the
    /// topic, as for a publisher.
    #[pyo3(signature = (topic, *, spin=None, depth=None, history=None, max_borrowed=None, overflow=None, block_timeout=None,
        max_publishers=None, max_subscribers=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn subscriber(
        &self,
        py: Python<'_>,
        topic: &str,
        spin: Option<f64>,
        depth: Option<usize>,
        history: Option<usize>,
        max_borrowed: Option<usize>,
        overflow: Option<&str>,
        block_timeout: Option<f64>,
        max_publishers: Option<usize>,
        max_subscribers: Option<usize>,
    ) -> PyResult<Subscriber> {
        let shared = Shared { depth, history, max_borrowed, overflow, block_timeout, max_publishers, max_subscribers };
        let mut builder = shared.apply(py, self.inner.get(py)?.topic(topic))?;
        if let Some(spin) = spin {
            builder = builder.spin(duration(py, "spin", spin)?);
        }
        let opened = py.detach(|| builder.subscriber()).map_err(|failure| error::topic(py, &failure))?;
        Ok(Subscriber::new(opened))
    }

    /// Open a topic and add a subscriber for asyncio to it. Settings as for ``subscriber``.
    #[pyo3(signature = (topic, *, depth=None, history=None, max_borrowed=None, overflow=None, block_timeout=None,
        max_publishers=None, max_subscribers=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn async_subscriber<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        depth: Option<usize>,
        history: Option<usize>,
        max_borrowed: Option<usize>,
        overflow: Option<&str>,
        block_timeout: Option<f64>,
        max_publishers: Option<usize>,
        max_subscribers: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Shared { depth, history, max_borrowed, overflow, block_timeout, max_publishers, max_subscribers };
        let builder = shared.apply(py, self.inner.get(py)?.topic(topic))?.spin(Duration::ZERO);
        let opened = py.detach(|| builder.subscriber()).map_err(|failure| error::topic(py, &failure))?;
        py.import("tensorbus._asyncio")?.getattr("AsyncSubscriber")?.call1((Subscriber::new(opened),))
    }

    /// Name of the session.
    #[getter]
    fn session(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.session().to_owned())
    }

    /// The directory that holds everything of the session.
    #[getter]
    fn directory(&self, py: Python<'_>) -> PyResult<PathBuf> {
        Ok(self.inner.get(py)?.directory().to_owned())
    }

    /// The backend: ``"shm"``, ``"file"`` or ``"local"``.
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.backend().backend.to_string())
    }

    /// The topics of the session, by name.
    fn topics(&self, py: Python<'_>) -> PyResult<Vec<TopicInfo>> {
        let bus = self.inner.get(py)?;
        let topics = py.detach(|| bus.topics()).map_err(|failure| error::topic(py, &failure))?;
        let info = |topic: tensorbus::TopicInfo| TopicInfo {
            publishers: topic.publishers(),
            pool_bytes: topic.pool_bytes(),
            subscribers: topic.subscribers,
            depth: topic.settings.depth,
            history: topic.settings.history,
            max_borrowed: topic.settings.max_borrowed,
            overflow: topic.settings.overflow.to_string(),
            name: topic.name,
        };
        Ok(topics.into_iter().map(info).collect())
    }

    /// A control service: small requests to the one server of this name, and replies.
    fn service(&self, py: Python<'_>, name: &str) -> PyResult<Service> {
        Ok(Service::new(self.inner.get(py)?.service(name), name))
    }

    /// Follow the deaths of members of the session from now on.
    fn deaths(&self, py: Python<'_>) -> PyResult<Deaths> {
        let bus = self.inner.get(py)?;
        py.detach(|| bus.deaths()).map(Deaths::new).map_err(|failure| error::session(py, &failure))
    }

    /// As ``deaths``, for asyncio.
    fn async_deaths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("tensorbus._asyncio")?.getattr("AsyncDeaths")?.call1((self.deaths(py)?,))
    }

    /// Process ids of the session's living members, this one included, and of dead ones not yet cleaned up.
    fn members(&self, py: Python<'_>) -> PyResult<(Vec<u32>, Vec<u32>)> {
        let bus = self.inner.get(py)?;
        py.detach(|| bus.members()).map_err(|failure| error::session(py, &failure))
    }

    /// Bytes that all publishers of the session may take together, and take. ``None`` without a quota.
    fn quota(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        let bus = self.inner.get(py)?;
        let quota = py.detach(|| bus.quota()).map_err(|failure| error::session(py, &failure))?;
        Ok(quota.map(|quota| (quota.bytes, quota.used)))
    }

    /// Remove what killed processes left in the session. Returns the number of processes.
    ///
    /// Happens by itself whenever a process joins, opens a topic, or leaves.
    fn remove_dead(&self, py: Python<'_>) -> PyResult<usize> {
        let bus = self.inner.get(py)?;
        Ok(py.detach(|| bus.remove_dead()).map_err(|failure| error::session(py, &failure))?.removed)
    }

    /// Leave the session, once its publishers, subscribers and messages are gone too.
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
        self.session(py).map_or_else(|_| "<Bus, closed>".to_owned(), |session| format!("<Bus of session {session:?}>"))
    }
}
