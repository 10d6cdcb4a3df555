use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::{Duration, Instant};

use crate::cache::{KeepAlive, Wish};
use crate::error::{BoxError, LoadError};
use crate::model::{Device, Model};
use crate::registry::ModelRegistry;
use crate::shell::{Begin, Landed, Loading, ModelHandle};

/// Longest wait of a thread for another one's load, if nothing else is said.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(600);

/// A model about to be asked for, with what holds if it has to be loaded. Made by [`ModelRegistry::entry`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tensorbus_registry::{KeepAlive, Measured, ModelRegistry};
///
/// let registry = ModelRegistry::builder().memory_budget(1 << 20).build();
/// let model = registry
///     .entry("detector/2")
///     .bytes(4096) // room is made before it is loaded
///     .keep_alive(KeepAlive::Forever)
///     .get_or_load_blocking(|| std::io::Result::Ok(Measured::new([1_u8; 4096], 4096)))?;
/// assert_eq!(model.len(), 4096);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct EntryBuilder<'a> {
    registry: &'a ModelRegistry,
    key: &'a str,
    wish: Wish,
    longest_wait: Duration,
}

impl<'a> EntryBuilder<'a> {
    pub(crate) fn new(registry: &'a ModelRegistry, key: &'a str) -> Self {
        Self { registry, key, wish: Wish::default(), longest_wait: DEFAULT_WAIT }
    }

    /// Bytes that the model will take, about: so much is reserved for its load. Default: what it took last time, else none.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.wish.bytes = Some(bytes);
        self
    }

    /// How long the model stays after its last handle: a [`Duration`], zero included, or
    /// [`KeepAlive::Forever`]. Default: the registry's time to live.
    ///
    /// Holds for the load; [`ModelRegistry::keep_alive`] changes it later.
    pub fn keep_alive(mut self, keep_alive: impl Into<KeepAlive>) -> Self {
        self.wish.keep_alive = Some(keep_alive.into());
        self
    }

    /// Loads the model pinned: see [`ModelRegistry::pin`].
    pub fn pinned(mut self) -> Self {
        self.wish.pinned = true;
        self
    }

    /// Longest wait of [`get_or_load_blocking`](Self::get_or_load_blocking) for another one's load. Default: [`DEFAULT_WAIT`], ten
    /// minutes; [`Duration::MAX`] waits as long as that takes. What the loader of this call takes has no bound.
    ///
    /// A task that waits is given a bound by its runtime: it may be dropped at any time.
    pub fn wait_at_most(mut self, time: Duration) -> Self {
        self.longest_wait = time;
        self
    }

    /// As [`ModelRegistry::get_or_load`].
    ///
    /// # Errors
    /// The same.
    pub async fn get_or_load<M, L, F, E>(self, loader: L) -> Result<ModelHandle<M>, LoadError>
    where
        M: Model,
        L: FnOnce() -> F,
        F: Future<Output = Result<M, E>>,
        E: Into<BoxError>,
    {
        loop {
            let loading = match self.begin(None)? {
                Begin::Have(handle) => return Ok(handle),
                Begin::Wait(flight) => match flight.landed().await {
                    Landed::Loaded(handle) => return Ok(handle),
                    Landed::Failed(error) => return Err(error),
                    Landed::Abandoned => continue,
                },
                Begin::Load(loading) => loading,
            };
            let begun = Instant::now();
            let made = match catch_unwind(AssertUnwindSafe(loader)) {
                Ok(future) => {
                    let mut future = pin!(future);
                    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                        Ok(polled) => polled.map(Ok),
                        Err(panic) => std::task::Poll::Ready(Err(panic)),
                    })
                    .await
                }
                Err(panic) => Err(panic),
            };
            return self.finish(loading, made, begun);
        }
    }

    /// As [`ModelRegistry::get_or_load_blocking`].
    ///
    /// # Errors
    /// The same, and [`LoadError::Timeout`] after [`wait_at_most`](Self::wait_at_most).
    pub fn get_or_load_blocking<M, L, E>(self, loader: L) -> Result<ModelHandle<M>, LoadError>
    where
        M: Model,
        L: FnOnce() -> Result<M, E>,
        E: Into<BoxError>,
    {
        // None: further away than time can be told.
        let deadline = Instant::now().checked_add(self.longest_wait);
        loop {
            let loading = match self.begin(Some(std::thread::current().id()))? {
                Begin::Have(handle) => return Ok(handle),
                Begin::Wait(flight) => match deadline.map_or_else(|| Some(flight.wait()), |at| flight.wait_until(at)) {
                    Some(Landed::Loaded(handle)) => return Ok(handle),
                    Some(Landed::Failed(error)) => return Err(error),
                    Some(Landed::Abandoned) => continue,
                    None => {
                        return Err(LoadError::Timeout { key: self.key.to_owned(), waited: self.longest_wait });
                    }
                },
                Begin::Load(loading) => loading,
            };
            let begun = Instant::now();
            let made = catch_unwind(AssertUnwindSafe(loader));
            return self.finish(loading, made, begun);
        }
    }

    #[inline]
    fn begin<M: Model>(&self, blocking: Option<std::thread::ThreadId>) -> Result<Begin<M>, LoadError> {
        match self.registry.get(self.key)? {
            Some(handle) => Ok(Begin::Have(handle)),
            None => self.registry.shell().begin(self.key, self.wish, blocking),
        }
    }

    fn finish<M, E>(
        &self,
        loading: Loading,
        made: std::thread::Result<Result<M, E>>,
        begun: Instant,
    ) -> Result<ModelHandle<M>, LoadError>
    where
        M: Model,
        E: Into<BoxError>,
    {
        let key = || self.key.to_owned();
        let measure = |model: M| {
            // What a model says of itself is code of its own.
            let measured = catch_unwind(AssertUnwindSafe(|| (model.memory_bytes(), model.device())));
            measured.map(|(bytes, device)| (model, bytes, device))
        };
        let made: Result<(M, u64, Device), LoadError> = match made {
            Ok(Ok(model)) => {
                measure(model).map_err(|panic| LoadError::Panicked { key: key(), message: message_of(&*panic) })
            }
            Ok(Err(error)) => Err(LoadError::Failed { key: key(), reason: error.into().into() }),
            Err(panic) => Err(LoadError::Panicked { key: key(), message: message_of(&*panic) }),
        };
        match made {
            Ok((model, bytes, device)) => {
                let landed = loading.land(model, bytes, device);
                crate::recorded::load(begun.elapsed(), landed.is_ok());
                self.registry.schedule();
                landed
            }
            Err(error) => {
                crate::recorded::load(begun.elapsed(), false);
                Err(loading.fail(error))
            }
        }
    }
}

/// What a panic said.
fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
