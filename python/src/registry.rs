use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use tensorbus::{KeepAlive, Policy, UnloadError};

use crate::bus::Bus;
use crate::error;
use crate::outside::{Closable, drop_outside};
use crate::request::{ModelHandle, Request, Wish};
use crate::wait::duration;

/// Longest wait for another one's load, in seconds: as in Rust.
const DEFAULT_TIMEOUT: f64 = tensorbus::DEFAULT_WAIT.as_secs() as f64;

/// The models of a process: one instance of each, whoever asks for it, in threads and in tasks.
///
/// A model is loaded by the first who asks for its key; who asks meanwhile waits for that load, and who asks later gets a
/// handle of the model that is there. When the last handle is released the model is idle, and is unloaded after ``ttl`` seconds
/// (30 by default; ``math.inf``: never), or earlier if a load needs its room in ``max_memory`` bytes. ``policy`` says which
/// goes then: ``"lru"`` (default), ``"lfu"``, ``"ttl"`` (none before its time) or ``"manual"`` (none by itself).
///
/// A registry belongs to the process that made it: make one after ``fork``.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct ModelRegistry {
    inner: Option<tensorbus::ModelRegistry>,
    /// For models that are given no time of their own; else the registry's.
    keep_alive: Option<KeepAlive>,
}

impl Drop for ModelRegistry {
    fn drop(&mut self) {
        // It ends the timer, which may be waiting for the interpreter to drop a model.
        drop_outside(self.inner.take());
    }
}

/// A model of a registry, as it was at one moment.
#[pyclass(frozen, module = "tensorbus", get_all)]
pub(crate) struct ModelInfo {
    /// Its key.
    key: String,
    /// ``"loading"``, ``"loaded"`` (to stay: pinned or kept for ever), ``"in use"``, ``"idle"`` or ``"failed"``.
    state: String,
    /// Bytes that it takes; while it is loading, those that are reserved for it.
    memory_bytes: u64,
    /// Where its memory is: ``"cpu"``, ``"cuda:0"``.
    device: String,
    /// Handles there are.
    handles: usize,
    /// Handles that were given out so far.
    uses: u64,
    /// Seconds that it stays after its last handle; ``math.inf``: for ever.
    keep_alive: f64,
    /// Whether it is kept whatever its time and the budget say.
    pinned: bool,
    /// When it was loaded, in seconds of ``time.time()``.
    loaded_at: Option<f64>,
    /// When its last handle was released; now, while there is one.
    last_used: Option<f64>,
    /// Why its last load failed.
    failure: Option<String>,
}

/// Figures of a registry since its beginning.
#[pyclass(frozen, module = "tensorbus", get_all)]
pub(crate) struct RegistryMetrics {
    /// Requests that were answered from memory.
    hits: u64,
    /// Requests that had to load.
    misses: u64,
    /// Requests that waited for another one's load.
    waits: u64,
    /// Loads that made a model.
    loads: u64,
    /// Loads whose loader raised.
    failures: u64,
    /// Loads that were cancelled on the way.
    cancelled: u64,
    /// Requests and loads that were refused because there is no room in the budget.
    over_budget: u64,
    /// Seconds that all loads took together.
    load_time: f64,
    /// Models that were unloaded because their time was over.
    expired: u64,
    /// Models that were unloaded to make room.
    evicted: u64,
    /// Models that were unloaded by ``unload`` or ``clear``.
    unloaded: u64,
    /// Models that are in memory.
    models: usize,
    /// Bytes that they take, those reserved for loads included.
    memory_bytes: u64,
    /// Handles of all models.
    handles: usize,
}

/// A registry that is announced in a session, until this is closed or dropped.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Announcing {
    inner: Closable<tensorbus::Announcing>,
}

#[pymethods]
impl Announcing {
    /// Tell the session no more.
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
}

#[pymethods]
impl ModelRegistry {
    #[new]
    #[pyo3(signature = (*, ttl=None, max_memory=None, policy="lru"))]
    fn new(py: Python<'_>, ttl: Option<f64>, max_memory: Option<u64>, policy: &str) -> PyResult<Self> {
        let mut builder = tensorbus::ModelRegistry::builder().policy(match policy {
            "lru" => Policy::Lru,
            "lfu" => Policy::Lfu,
            "ttl" => Policy::Ttl,
            "manual" => Policy::Manual,
            _ => {
                let text = format!("no policy {policy:?}; it is 'lru', 'lfu', 'ttl' or 'manual'");
                return Err(error::invalid(py, text));
            }
        });
        let ttl = keep_alive(py, "ttl", ttl)?;
        if let Some(KeepAlive::For(ttl)) = ttl {
            builder = builder.ttl(ttl);
        }
        if let Some(bytes) = max_memory {
            builder = builder.memory_budget(bytes);
        }
        let forever = ttl.filter(|ttl| *ttl == KeepAlive::Forever);
        Ok(Self { inner: Some(builder.build()), keep_alive: forever })
    }

    /// The registry that all of the process share, which ``tensorbus.get_or_load`` uses.
    #[staticmethod]
    fn default(py: Python<'_>) -> PyResult<Py<Self>> {
        static DEFAULT: OnceLock<Py<ModelRegistry>> = OnceLock::new();
        if let Some(registry) = DEFAULT.get() {
            return Ok(registry.clone_ref(py));
        }
        let registry = Py::new(py, Self { inner: Some(tensorbus::ModelRegistry::global().clone()), keep_alive: None })?;
        Ok(DEFAULT.get_or_init(|| registry).clone_ref(py))
    }

    /// The model of this key; ``loader()`` makes it if it is not there. Waits while another thread or task loads it.
    ///
    /// At most one loader runs, however many ask. What it raises reaches all who waited, with its traceback, and the key can be
    /// tried again at once. A thread that waits lets others run, at most ``timeout`` seconds long (``None``: as long as it
    /// takes), and Ctrl-C ends the wait; if it ends the loader, one of those who wait runs its own.
    ///
    /// ``memory_bytes`` is what the model will take, about: room is made for it before it is loaded. Afterwards the model is
    /// asked itself: a number ``memory_bytes`` or ``nbytes`` that it has, or what the parameters of a PyTorch module take.
    /// ``keep_alive`` is how many seconds it stays after its last handle, ``math.inf`` for ever; ``pinned`` keeps it whatever
    /// its time and the budget say.
    #[pyo3(signature = (key, loader, *, memory_bytes=None, keep_alive=None, pinned=false, timeout=Some(DEFAULT_TIMEOUT)),
        text_signature = "($self, key, loader, *, memory_bytes=None, keep_alive=None, pinned=False, timeout=600.0)")]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn get_or_load<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
        key: &str,
        loader: Bound<'py, PyAny>,
        memory_bytes: Option<u64>,
        keep_alive: Option<f64>,
        pinned: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // A hit takes no lock, and nothing of Python's.
        if let Some(handle) = slf.get().get(py, key)? {
            return Ok(Bound::new(py, handle)?.into_any());
        }
        let wish = wish(py, memory_bytes, keep_alive, pinned)?;
        py.import("tensorbus._models")?.call_method("load", (slf, key, loader, timeout), Some(&wish))
    }

    /// The same for asyncio. ``loader`` is an ``async`` function, which is awaited, or one that blocks, which runs in a thread.
    ///
    /// A task that waits takes no thread, and the event loop goes on; it may wait for a load of a thread, and the other way
    /// round. A task that is cancelled harms nobody: if it was the one that loads, one of those who wait runs its own loader.
    #[pyo3(signature = (key, loader, *, memory_bytes=None, keep_alive=None, pinned=false, timeout=Some(DEFAULT_TIMEOUT)),
        text_signature = "($self, key, loader, *, memory_bytes=None, keep_alive=None, pinned=False, timeout=600.0)")]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn get_or_load_async<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
        key: &str,
        loader: Bound<'py, PyAny>,
        memory_bytes: Option<u64>,
        keep_alive: Option<f64>,
        pinned: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let wish = wish(py, memory_bytes, keep_alive, pinned)?;
        py.import("tensorbus._models_asyncio")?.call_method("load_async", (slf, key, loader, timeout), Some(&wish))
    }

    #[pyo3(signature = (key, *, memory_bytes=None, keep_alive=None, pinned=false))]
    fn _request(
        &self,
        py: Python<'_>,
        key: String,
        memory_bytes: Option<u64>,
        keep_alive: Option<f64>,
        pinned: bool,
    ) -> PyResult<Request> {
        let keep_alive = self::keep_alive(py, "keep_alive", keep_alive)?.or(self.keep_alive);
        let wish = Wish { memory_bytes, keep_alive, pinned };
        Ok(Request::new(self.inner()?.clone(), key, wish))
    }

    /// The model of this key, if it is in memory. Never waits.
    fn get(&self, _py: Python<'_>, key: &str) -> PyResult<Option<ModelHandle>> {
        // Everything in here is of one type.
        let found = self.inner()?.get(key).ok().flatten();
        Ok(found.map(|handle| ModelHandle::new(key.to_owned(), handle)))
    }

    /// Unload a model now. Raises ``ModelInUse`` if somebody uses, loads or has pinned it, ``NoSuchModel`` if it is not there.
    fn unload(&self, py: Python<'_>, key: &str) -> PyResult<()> {
        let inner = self.inner()?;
        py.detach(|| inner.unload(key)).map_err(|failure| {
            let class = if matches!(failure, UnloadError::NotLoaded { .. }) { "NoSuchModel" } else { "ModelInUse" };
            error::named(py, class, failure.to_string())
        })
    }

    /// Unload all models that nobody uses or has pinned. Returns how many.
    fn clear(&self, py: Python<'_>) -> PyResult<usize> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.clear()))
    }

    /// Unload the idle models whose time is over, without waiting for the timer. Returns how many.
    fn evict_expired(&self, py: Python<'_>) -> PyResult<usize> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.evict_expired()))
    }

    /// Set how many seconds a model stays after its last handle: 0, more, or ``math.inf``. Returns whether there is such a model.
    fn keep_alive(&self, py: Python<'_>, key: &str, seconds: f64) -> PyResult<bool> {
        let (inner, time) = (self.inner()?, keep_alive(py, "keep_alive", Some(seconds))?);
        Ok(time.is_some_and(|time| py.detach(|| inner.keep_alive(key, time))))
    }

    /// Keep a model in memory until it is unpinned, whatever its time and the budget say. Returns whether there is such a model.
    fn pin(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.pin(key)))
    }

    /// End ``pin``. Returns whether there is such a model.
    fn unpin(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.unpin(key)))
    }

    /// The models that are there or being loaded, and those whose last load failed, by key.
    fn list_models(&self, py: Python<'_>) -> PyResult<Vec<ModelInfo>> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.list()).into_iter().map(ModelInfo::from).collect())
    }

    /// Figures since the registry's beginning.
    fn metrics(&self, py: Python<'_>) -> PyResult<RegistryMetrics> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.metrics()).into())
    }

    /// Tell the bus's session which models this registry has, until what is returned is closed or dropped: ``tensorbus models``
    /// shows them beside those of other programs, and may unload idle ones.
    fn announce(&self, py: Python<'_>, bus: &Bus) -> PyResult<Announcing> {
        let (inner, bus) = (self.inner()?, bus.open(py)?);
        let announcing = py.detach(|| inner.announce(&bus));
        let announcing = announcing.map_err(|failure| error::named(py, "Error", failure.to_string()))?;
        Ok(Announcing { inner: Closable::new(announcing, "announcement") })
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let models = self.metrics(py).map_or(0, |metrics| metrics.models);
        format!("<ModelRegistry with {models} models>")
    }
}

impl ModelRegistry {
    fn inner(&self) -> PyResult<&tensorbus::ModelRegistry> {
        self.inner.as_ref().ok_or_else(|| error::internal("a registry that was dropped"))
    }
}

#[pymethods]
impl ModelInfo {
    fn __repr__(&self) -> String {
        let Self { key, state, memory_bytes, handles, .. } = self;
        format!("ModelInfo(key={key:?}, state={state:?}, memory_bytes={memory_bytes}, handles={handles})")
    }
}

#[pymethods]
impl RegistryMetrics {
    fn __repr__(&self) -> String {
        let Self { hits, misses, loads, models, memory_bytes, .. } = self;
        format!(
            "RegistryMetrics(hits={hits}, misses={misses}, loads={loads}, models={models}, memory_bytes={memory_bytes})"
        )
    }
}

impl From<tensorbus::ModelInfo> for ModelInfo {
    fn from(model: tensorbus::ModelInfo) -> Self {
        Self {
            key: model.key,
            state: model.state.to_string(),
            memory_bytes: model.bytes,
            device: model.device.to_string(),
            handles: model.handles,
            uses: model.uses,
            keep_alive: match model.keep_alive {
                KeepAlive::For(time) => time.as_secs_f64(),
                KeepAlive::Forever => f64::INFINITY,
            },
            pinned: model.pinned,
            loaded_at: model.loaded_at.and_then(seconds),
            last_used: model.last_used.and_then(seconds),
            failure: model.failure,
        }
    }
}

impl From<tensorbus::RegistryMetrics> for RegistryMetrics {
    fn from(metrics: tensorbus::RegistryMetrics) -> Self {
        Self {
            hits: metrics.hits,
            misses: metrics.misses,
            waits: metrics.waits,
            loads: metrics.loads,
            failures: metrics.failures,
            cancelled: metrics.cancelled,
            over_budget: metrics.over_budget,
            load_time: metrics.load_time.as_secs_f64(),
            expired: metrics.expired,
            evicted: metrics.evicted,
            unloaded: metrics.unloaded,
            models: metrics.models,
            memory_bytes: metrics.bytes,
            handles: metrics.handles,
        }
    }
}

fn wish(
    py: Python<'_>,
    memory_bytes: Option<u64>,
    keep_alive: Option<f64>,
    pinned: bool,
) -> PyResult<Bound<'_, PyDict>> {
    let wish = PyDict::new(py);
    wish.set_item("memory_bytes", memory_bytes)?;
    wish.set_item("keep_alive", keep_alive)?;
    wish.set_item("pinned", pinned)?;
    Ok(wish)
}

fn keep_alive(py: Python<'_>, name: &str, seconds: Option<f64>) -> PyResult<Option<KeepAlive>> {
    Ok(match seconds {
        None => None,
        Some(f64::INFINITY) => Some(KeepAlive::Forever),
        Some(seconds) => Some(KeepAlive::For(duration(py, name, seconds)?)),
    })
}

fn seconds(time: SystemTime) -> Option<f64> {
    time.duration_since(UNIX_EPOCH).ok().as_ref().map(Duration::as_secs_f64)
}
