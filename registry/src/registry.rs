use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::builder::RegistryBuilder;
use crate::cache::KeepAlive;
use crate::entry::EntryBuilder;
use crate::error::{BoxError, LoadError, UnloadError, WrongType};
use crate::info::{ModelInfo, RegistryMetrics};
use crate::model::Model;
use crate::recorded::Recorded;
use crate::shell::{ModelHandle, Shell};
use crate::timer::Timer;

/// The models of a process: one instance of each, whoever asks for it.
///
/// A model is loaded by the first who asks for its key; who asks meanwhile waits for that load, at no cost; who asks later gets a
/// handle of the model that is there, in well under a microsecond and without a lock. When the last handle is dropped the model
/// is idle, and is unloaded after its time to live, or earlier if a load needs its room in the memory budget.
///
/// Cheap to clone; all clones are one registry. It works with any threads and any async runtime.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tensorbus_registry::{Measured, ModelRegistry};
///
/// let registry = ModelRegistry::new();
/// let load = || std::io::Result::Ok(Measured::new(vec![0.5_f32; 1000], 4000));
/// let first = registry.get_or_load_blocking("embedding/1", load)?;
/// let second = registry.get_or_load_blocking("embedding/1", load)?;
/// assert!(std::ptr::eq(&*first, &*second), "one instance, loaded once");
/// assert_eq!(registry.metrics().loads, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Threads
/// The first model that can expire starts one thread, `tensorbus-ttl`, which unloads all of them in time. It ends with the
/// last clone of the registry. A registry of a forked child has none: make registries after `fork()`.
#[derive(Clone)]
pub struct ModelRegistry {
    inner: Arc<Inner>,
}

/// Dropped in the order of its fields: the timer ends, then the models go.
struct Inner {
    timer: OnceLock<Option<Timer>>,
    shell: Arc<Shell>,
    recorded: Recorded,
}

static GLOBAL: OnceLock<ModelRegistry> = OnceLock::new();

impl ModelRegistry {
    /// A registry with the default settings: an idle model is kept for [`DEFAULT_TTL`](crate::DEFAULT_TTL), and there is no
    /// memory budget.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A registry with settings of its own.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The registry that all of the process share. It is made at the first call, with the default settings, unless
    /// [`RegistryBuilder::build_global`] made it before.
    pub fn global() -> &'static Self {
        GLOBAL.get_or_init(Self::new)
    }

    pub(crate) fn set_global(registry: Self) -> Result<&'static Self, Self> {
        let mut registry = Some(registry);
        let global = GLOBAL.get_or_init(|| registry.take().unwrap_or_default());
        registry.map_or(Ok(global), Err)
    }

    pub(crate) fn of(shell: Arc<Shell>) -> Self {
        Self { inner: Arc::new(Inner { timer: OnceLock::new(), shell, recorded: Recorded::default() }) }
    }

    /// The model of this key; loads it if it is not there. Waits while another one loads it.
    ///
    /// The loader is called at most once, by this call, and only if nobody else loads the model. Its future runs as part of this
    /// one. If this future is dropped on the way, one of those who wait calls its own loader; a waiter that is dropped harms
    /// nobody. What it takes beyond the loader is some microseconds.
    ///
    /// A loader that computes for long or reads files blocks the async runtime: call
    /// [`get_or_load_blocking`](Self::get_or_load_blocking) on a thread for that (`tokio::task::spawn_blocking`), or have the
    /// loader do so.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tensorbus_registry::{Measured, ModelRegistry};
    ///
    /// let registry = ModelRegistry::new();
    /// let load = || async { std::io::Result::Ok(Measured::new("weights", 7)) };
    /// let (a, b) = tokio::join!(registry.get_or_load("m", load), registry.get_or_load("m", load));
    /// assert!(std::ptr::eq(&*a?, &*b?));
    /// assert_eq!(registry.metrics().loads, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LoadError`]: the loader's error or panic, which all who waited get too; no room in the budget; a key that is not legal;
    /// a model of another type.
    pub async fn get_or_load<M, L, F, E>(&self, key: &str, loader: L) -> Result<ModelHandle<M>, LoadError>
    where
        M: Model,
        L: FnOnce() -> F,
        F: Future<Output = Result<M, E>>,
        E: Into<BoxError>,
    {
        self.entry(key).get_or_load(loader).await
    }

    /// The same for threads: waits, and calls the loader, on this one. Waits for another one's load at most
    /// [`DEFAULT_WAIT`](crate::DEFAULT_WAIT), ten minutes; [`entry`](Self::entry) sets another bound.
    ///
    /// # Errors
    /// As for [`get_or_load`](Self::get_or_load), and [`LoadError::Recursive`] if a loader asks for the model that it loads,
    /// [`LoadError::Timeout`] if another one's load takes too long.
    pub fn get_or_load_blocking<M, L, E>(&self, key: &str, loader: L) -> Result<ModelHandle<M>, LoadError>
    where
        M: Model,
        L: FnOnce() -> Result<M, E>,
        E: Into<BoxError>,
    {
        self.entry(key).get_or_load_blocking(loader)
    }

    /// A model with what is to be known of it before it is loaded: its size, how long it stays, whether it is pinned.
    pub fn entry<'a>(&'a self, key: &'a str) -> EntryBuilder<'a> {
        EntryBuilder::new(self, key)
    }

    /// The model of this key, if it is in memory. Never waits.
    ///
    /// # Errors
    /// [`WrongType`] if the model is of another type.
    #[inline]
    pub fn get<M: Model>(&self, key: &str) -> Result<Option<ModelHandle<M>>, WrongType> {
        self.inner.shell.get(key)
    }

    /// Unloads a model now. It is dropped on this thread.
    ///
    /// # Errors
    /// [`UnloadError`] if it is in use, pinned, being loaded, or not there.
    pub fn unload(&self, key: &str) -> Result<(), UnloadError> {
        self.inner.shell.unload(key)
    }

    /// Unloads all models that nobody uses or has pinned, on this thread. Returns how many.
    pub fn clear(&self) -> usize {
        self.inner.shell.clear()
    }

    /// Unloads the idle models whose time is over, on this thread, without waiting for the timer. Returns how many.
    pub fn evict_expired(&self) -> usize {
        self.inner.shell.sweep().0
    }

    /// Sets how long a model stays after its last handle: a [`Duration`], zero included, or [`KeepAlive::Forever`]. Returns
    /// whether there is such a model.
    pub fn keep_alive(&self, key: &str, keep_alive: impl Into<KeepAlive>) -> bool {
        let known = self.inner.shell.set_keep_alive(key, keep_alive.into());
        self.schedule();
        known
    }

    /// Keeps a model in memory, whatever its time and the budget say, until it is [unpinned](Self::unpin). Returns whether
    /// there is such a model.
    pub fn pin(&self, key: &str) -> bool {
        self.inner.shell.set_pinned(key, true)
    }

    /// Ends [`pin`](Self::pin). Returns whether there is such a model.
    pub fn unpin(&self, key: &str) -> bool {
        let known = self.inner.shell.set_pinned(key, false);
        self.schedule();
        known
    }

    /// The models that are there or being loaded, and those whose last load failed, by key.
    pub fn list(&self) -> Vec<ModelInfo> {
        ModelInfo::list(&self.inner.shell.seen())
    }

    /// Figures of the registry since its beginning.
    pub fn metrics(&self) -> RegistryMetrics {
        RegistryMetrics::of(&self.inner.shell.seen())
    }

    /// Bytes that all models together may take.
    pub fn memory_budget(&self) -> Option<u64> {
        self.inner.shell.settings().budget
    }

    /// Time after which an idle model is unloaded that was given no time of its own.
    pub fn ttl(&self) -> Duration {
        self.inner.shell.settings().ttl
    }

    pub(crate) fn shell(&self) -> &Arc<Shell> {
        &self.inner.shell
    }

    pub(crate) fn recorded(&self) -> &Recorded {
        &self.inner.recorded
    }

    /// Has the timer look in time, once there is something to look for.
    pub(crate) fn schedule(&self) {
        let Some(at) = self.inner.shell.next_look() else { return };
        let timer = self.inner.timer.get_or_init(|| {
            let started = Timer::start(&self.inner.shell);
            let report =
                |error| tracing::error!(%error, "no thread for the timer: idle models stay until evict_expired");
            started.map_err(report).ok()
        });
        if timer.is_some() {
            self.inner.shell.alarm().ring_at(at);
        }
    }
}

impl Default for ModelRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ModelRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRegistry").field("models", &self.list().len()).finish_non_exhaustive()
    }
}
