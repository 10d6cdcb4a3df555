//! What threads do with the cache: hand out, load, wait, close. No clock but `clock`, no thread of its own, no I/O.
//!
//! A hit reads the published shelf and takes no lock. All else decides under one lock, under which nothing of a user runs:
//! loaders run before it is taken, models are dropped after it is released.

mod alarm;
mod clock;
mod flight;
mod loading;
mod slot;

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

pub(crate) use alarm::Alarm;
pub(crate) use clock::Clock;
pub(crate) use flight::{Flight, Landed};
pub(crate) use loading::Loading;
pub use slot::ModelHandle;
use slot::{Owner, Slot};

use crate::cache::{Answer, Cache, Counts, Entry, Failure, KeepAlive, ModelId, Refusal, Settings, Why, Wish};
use crate::error::{LoadError, UnloadError, WrongType, check_key};
use crate::model::{Device, Model};
use crate::sync::{Mutex, Published, Weak, lock};

pub(crate) struct Shell {
    shelf: Published<Shelf>,
    state: Mutex<State>,
    alarm: Arc<Alarm>,
    clock: Clock,
}

/// The models in memory, where hits find them.
type Shelf = HashMap<Arc<str>, OnShelf>;

#[derive(Clone)]
struct OnShelf {
    /// A `Weak<Slot<M>>`: what is found here may be gone.
    slot: Arc<dyn Any + Send + Sync>,
    type_name: &'static str,
}

struct State {
    cache: Cache,
    owned: HashMap<ModelId, Owned>,
    flights: HashMap<ModelId, Arc<Flight>>,
    failed_drops: u64,
}

struct Owned {
    owner: Box<dyn Owner>,
    device: Device,
}

/// What a request begins with.
pub(crate) enum Begin<M: Model> {
    Have(ModelHandle<M>),
    Wait(Arc<Flight>),
    Load(Loading),
}

/// What can be seen of a registry.
pub(crate) struct Seen {
    pub(crate) now: Duration,
    pub(crate) counts: Counts,
    pub(crate) failed_drops: u64,
    pub(crate) models: Vec<(Entry, Device)>,
    pub(crate) failures: Vec<(Arc<str>, Failure)>,
}

/// Models to be dropped once no lock is held.
#[must_use]
#[derive(Default)]
struct Corpses(Vec<Box<dyn Any + Send>>);

impl Shell {
    pub(crate) fn new(settings: Settings) -> Self {
        let clock = Clock::start();
        let state =
            State { cache: Cache::new(settings), owned: HashMap::new(), flights: HashMap::new(), failed_drops: 0 };
        Self {
            shelf: Published::new(Shelf::new()),
            state: Mutex::new(state),
            alarm: Arc::new(Alarm::new(clock)),
            clock,
        }
    }

    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// The model, if it is in memory. Takes no lock.
    #[inline]
    pub(crate) fn get<M: Model>(&self, key: &str) -> Result<Option<ModelHandle<M>>, WrongType> {
        self.shelf.read(|shelf| {
            let Some(found) = shelf.get(key) else { return Ok(None) };
            match found.slot.downcast_ref::<Weak<Slot<M>>>() {
                Some(slot) => Ok(slot.upgrade().map(ModelHandle::hit)),
                None => Err(wrong_type::<M>(key, found.type_name)),
            }
        })
    }

    /// Finds the model, or who loads it, or makes that the caller's duty. `blocking`: the thread that the loader will block.
    pub(crate) fn begin<M: Model>(
        self: &Arc<Self>,
        key: &str,
        wish: Wish,
        blocking: Option<ThreadId>,
    ) -> Result<Begin<M>, LoadError> {
        check_key(key)?;
        let mut corpses = Corpses::default();
        let mut state = lock(&self.state);
        let begun = loop {
            state.observe();
            let now = self.clock.now();
            match state.cache.request(key, wish, now) {
                // Nobody can close it meanwhile.
                Answer::Present(_) => match self.get(key) {
                    Ok(Some(handle)) => break Ok(Begin::Have(handle)),
                    Ok(None) => continue,
                    Err(wrong_type) => break Err(wrong_type.into()),
                },
                Answer::Wait(id) => break state.join::<M>(key, id, blocking).map(Begin::Wait),
                Answer::Load(id) => {
                    state.flights.insert(id, Arc::new(Flight::new::<M>(blocking)));
                    break Ok(Begin::Load(Loading::new(self.clone(), key, id)));
                }
                Answer::Evict(id, why) => corpses.take(state.close(&self.shelf, id, why)),
                Answer::Refused(source) => break Err(LoadError::OverBudget { key: key.to_owned(), source }),
            }
        };
        drop(state);
        // Room is made before the load.
        corpses.bury(self);
        begun
    }

    /// Unloads the idle models whose time is over. Returns when to look again.
    pub(crate) fn sweep(&self) -> (usize, Option<Duration>) {
        let mut corpses = Corpses::default();
        let mut state = lock(&self.state);
        let next = loop {
            state.observe();
            let now = self.clock.now();
            match state.cache.due(now) {
                Some(id) => corpses.take(state.close(&self.shelf, id, Why::Expired)),
                None => break state.cache.next_look(now),
            }
        };
        drop(state);
        (corpses.bury(self), next)
    }

    /// Unloads a model that nobody uses.
    pub(crate) fn unload(&self, key: &str) -> Result<(), UnloadError> {
        let mut state = lock(&self.state);
        let closed = loop {
            state.observe();
            match state.cache.unload(key) {
                Ok(id) => match state.close(&self.shelf, id, Why::Asked) {
                    Some(closed) => break closed,
                    None => continue,
                },
                Err(refusal) => return Err(unload_error(key, refusal)),
            }
        };
        drop(state);
        let mut corpses = Corpses::default();
        corpses.take(Some(closed));
        corpses.bury(self);
        Ok(())
    }

    /// Unloads all models that nobody uses or has pinned. Returns how many.
    pub(crate) fn clear(&self) -> usize {
        let mut corpses = Corpses::default();
        let mut state = lock(&self.state);
        loop {
            state.observe();
            let Some(id) = state.cache.any_idle() else { break };
            corpses.take(state.close(&self.shelf, id, Why::Asked));
        }
        drop(state);
        corpses.bury(self)
    }

    /// Whether there is such a model, or a load of it.
    pub(crate) fn set_keep_alive(&self, key: &str, keep_alive: KeepAlive) -> bool {
        let mut state = lock(&self.state);
        let Some(id) = state.cache.set_keep_alive(key, keep_alive) else { return false };
        let prompt = state.cache.is_prompt(id);
        if let Some(owned) = state.owned.get(&id) {
            owned.owner.set_prompt(prompt);
        }
        true
    }

    /// Whether there is such a model, or a load of it.
    pub(crate) fn set_pinned(&self, key: &str, pinned: bool) -> bool {
        lock(&self.state).cache.set_pinned(key, pinned).is_some()
    }

    /// When [`sweep`](Self::sweep) has something to do, if nothing else happens.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        let mut state = lock(&self.state);
        state.observe();
        state.cache.next_look(self.clock.now())
    }

    pub(crate) fn settings(&self) -> Settings {
        *lock(&self.state).cache.settings()
    }

    pub(crate) fn seen(&self) -> Seen {
        let mut state = lock(&self.state);
        state.observe();
        let device = |id| state.owned.get(&id).map_or(Device::CPU, |owned| owned.device.clone());
        Seen {
            now: self.clock.now(),
            counts: state.cache.counts(),
            failed_drops: state.failed_drops,
            models: state.cache.models().map(|(id, entry)| (entry.clone(), device(id))).collect(),
            failures: state.cache.failures().map(|(key, failure)| (key.clone(), failure.clone())).collect(),
        }
    }
}

#[cfg(not(tensorbus_loom))]
impl Drop for Shell {
    fn drop(&mut self) {
        let owned = std::mem::take(&mut lock(&self.state).owned);
        let mut corpses = Corpses::default();
        for (_, owned) in owned {
            // What somebody still uses goes with its last handle.
            corpses.take(owned.owner.close().ok().map(|closed| closed.model));
        }
        corpses.bury(self);
    }
}

impl State {
    /// Tells the cache how each model is used.
    fn observe(&mut self) {
        for (&id, owned) in &self.owned {
            self.cache.observe(id, owned.owner.usage());
        }
    }

    fn join<M: Model>(&mut self, key: &str, id: ModelId, blocking: Option<ThreadId>) -> Result<Arc<Flight>, LoadError> {
        let flight = &self.flights[&id];
        if !flight.is_for::<M>() {
            return Err(wrong_type::<M>(key, flight.type_name).into());
        }
        if blocking.is_some() && flight.loader == blocking {
            return Err(LoadError::Recursive { key: key.to_owned() });
        }
        let flight = flight.clone();
        self.cache.waits();
        Ok(flight)
    }

    /// Takes a model out, unless somebody took it into use in the meantime.
    fn close(&mut self, shelf: &Published<Shelf>, id: ModelId, why: Why) -> Option<Box<dyn Any + Send>> {
        let Owned { owner, device } = self.owned.remove(&id)?;
        match owner.close() {
            Ok(closed) => {
                let key = self.cache.models().find(|(model, _)| *model == id).map(|(_, entry)| entry.key.clone());
                if let Some(key) = key {
                    change(shelf, |shelf| shelf.remove(&key));
                }
                self.cache.closed(id, why, closed.hits);
                Some(closed.model)
            }
            Err(owner) => {
                self.owned.insert(id, Owned { owner, device });
                None
            }
        }
    }
}

impl Corpses {
    fn take(&mut self, model: Option<Box<dyn Any + Send>>) {
        self.0.extend(model);
    }

    /// Drops the models. One that panics is counted, and no reason to leave the others.
    fn bury(self, shell: &Shell) -> usize {
        let count = self.0.len();
        for model in self.0 {
            if catch_unwind(AssertUnwindSafe(|| drop(model))).is_err() {
                tracing::error!("a model panicked when it was unloaded; its memory may not have been freed");
                lock(&shell.state).failed_drops += 1;
            }
        }
        count
    }
}

/// Publishes a changed copy: readers of the old one are left alone.
fn change<R>(shelf: &Published<Shelf>, change: impl FnOnce(&mut Shelf) -> R) {
    let mut changed = shelf.read(Shelf::clone);
    change(&mut changed);
    shelf.replace(changed);
}

fn wrong_type<M>(key: &str, loaded: &'static str) -> WrongType {
    WrongType { key: key.to_owned(), requested: std::any::type_name::<M>(), loaded }
}

fn unload_error(key: &str, refusal: Refusal) -> UnloadError {
    let key = key.to_owned();
    match refusal {
        Refusal::NotLoaded => UnloadError::NotLoaded { key },
        Refusal::Loading => UnloadError::Loading { key },
        Refusal::InUse(handles) => UnloadError::InUse { key, handles },
        Refusal::Pinned => UnloadError::Pinned { key },
    }
}
