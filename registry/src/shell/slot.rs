use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::cache::Usage;
use crate::model::Model;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, Weak, fence};

use super::alarm::Alarm;
use super::clock::Clock;

/// A model in memory, with what its users write beside it.
///
/// Who may reach a model is decided by one count, that of `Arc`:
///
/// - the registry owns one share, each handle another one, so that `handles = shares - 1`;
/// - a hit makes a share of a `Weak`: it succeeds as long as the registry has not closed the model;
/// - the registry closes a model by `Arc::try_unwrap`: it succeeds only if its own share is the last one, and from then on no
///   `Weak` becomes a share.
///
/// So a model in use is never unloaded, a model that is unloaded is never handed out, and neither takes a lock.
pub(crate) struct Slot<M> {
    /// Boxed, so that closing moves a pointer, and a `Weak` that is left keeps no memory of the model.
    model: Box<M>,
    /// Handles that were given out without waiting.
    hits: AtomicU64,
    /// Handles that were given to the one that loaded it, and to those who waited for the load.
    awaited: AtomicU64,
    /// In nanoseconds of the registry's clock.
    idle_since: AtomicU64,
    /// Whether the timer is to be told when the last handle is dropped.
    prompt: AtomicBool,
    clock: Clock,
    alarm: std::sync::Arc<Alarm>,
}

/// A share of a model in a registry: the model stays in memory for as long as somebody has one.
///
/// Dereferences to the model. Cheap to clone. When the last handle of a model is dropped the model is idle, and is unloaded
/// by the registry's timer after its time; dropping a handle never unloads anything itself, and takes no lock. Handles outlive
/// their registry.
pub struct ModelHandle<M: Model> {
    // Dropped in this order: after the share is given back, it is seen whether it was the last.
    slot: Arc<Slot<M>>,
    last: Last<M>,
}

struct Last<M>(Option<(Weak<Slot<M>>, std::sync::Arc<Alarm>)>);

/// The registry's share of a model of any type.
pub(crate) trait Owner: Send {
    fn usage(&self) -> Usage;
    fn set_prompt(&self, prompt: bool);
    /// Takes the model away, if nobody has a handle.
    fn close(self: Box<Self>) -> Result<Closed, Box<dyn Owner>>;
}

/// A model that nobody has any more, and nobody can get.
pub(crate) struct Closed {
    pub(crate) hits: u64,
    pub(crate) model: Box<dyn Any + Send>,
}

impl<M: Model> Slot<M> {
    pub(crate) fn new(model: M, prompt: bool, clock: Clock, alarm: std::sync::Arc<Alarm>) -> Arc<Self> {
        Arc::new(Self {
            model: Box::new(model),
            hits: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            idle_since: AtomicU64::new(nanos(clock.now())),
            prompt: AtomicBool::new(prompt),
            clock,
            alarm,
        })
    }
}

impl<M: Model> ModelHandle<M> {
    /// For who has found the model in memory.
    #[inline]
    pub(crate) fn hit(slot: Arc<Slot<M>>) -> Self {
        slot.hits.fetch_add(1, Ordering::Relaxed);
        Self { slot, last: Last(None) }
    }

    /// For who has loaded it, or waited for it.
    pub(crate) fn awaited(slot: Arc<Slot<M>>) -> Self {
        slot.awaited.fetch_add(1, Ordering::Relaxed);
        Self { slot, last: Last(None) }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot<M>> {
        &self.slot
    }
}

impl<M: Model> Clone for ModelHandle<M> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), last: Last(None) }
    }
}

impl<M: Model> Deref for ModelHandle<M> {
    type Target = M;

    #[inline]
    fn deref(&self) -> &M {
        &self.slot.model
    }
}

impl<M: Model> fmt::Debug for ModelHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelHandle<{}>", std::any::type_name::<M>())
    }
}

impl<M: Model> Drop for ModelHandle<M> {
    #[inline]
    fn drop(&mut self) {
        // Comes to whoever counts this handle as dropped together with that.
        self.slot.idle_since.fetch_max(nanos(self.slot.clock.now()), Ordering::Relaxed);
        if self.slot.prompt.load(Ordering::Relaxed) {
            self.last.0 = Some((Arc::downgrade(&self.slot), self.slot.alarm.clone()));
        }
    }
}

impl<M> Drop for Last<M> {
    #[inline]
    fn drop(&mut self) {
        // Of several that drop theirs at once, the one whose share was the last sees it.
        if let Some((slot, alarm)) = &self.0
            && slot.strong_count() == 1
        {
            alarm.ring_now();
        }
    }
}

impl<M: Model> Owner for Arc<Slot<M>> {
    fn usage(&self) -> Usage {
        let handles = Arc::strong_count(self) - 1;
        // What was written before a share was given back is read after the count without it.
        fence(Ordering::Acquire);
        Usage {
            handles,
            hits: self.hits.load(Ordering::Relaxed),
            awaited: self.awaited.load(Ordering::Relaxed),
            idle_since: Duration::from_nanos(self.idle_since.load(Ordering::Relaxed)),
        }
    }

    fn set_prompt(&self, prompt: bool) {
        self.prompt.store(prompt, Ordering::Relaxed);
    }

    fn close(self: Box<Self>) -> Result<Closed, Box<dyn Owner>> {
        match Arc::try_unwrap(*self) {
            Ok(slot) => Ok(Closed { hits: slot.hits.load(Ordering::Relaxed), model: slot.model }),
            Err(shared) => Err(Box::new(shared)),
        }
    }
}

/// Wraps after 584 years.
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
