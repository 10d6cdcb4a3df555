//! What loom lacks of what the registry uses, made of what loom has: `Arc` with `Weak`, with the orderings that std's have;
//! an event; a published value. Each can be made to do one thing wrong.

use std::cell::Cell;
use std::ops::Deref;

use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

/// What is wrong in a planted twin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    None,
    /// A model is closed after a look at its count, in two steps.
    LooksThenCloses,
    /// Who reads the count without a share that was given back need not see what was written before.
    NoFence,
    /// Who waits for an event listens after it has looked whether it happened.
    ListensLate,
}

thread_local! {
    static PLANTED: Cell<Bug> = const { Cell::new(Bug::None) };
}

/// Plants a bug in all models of this test: loom runs their threads on the test's.
pub(crate) fn plant(bug: Bug) {
    PLANTED.set(bug);
}

fn has(bug: Bug) -> bool {
    PLANTED.get() == bug
}

pub(crate) fn fence(ordering: Ordering) {
    if !has(Bug::NoFence) {
        loom::sync::atomic::fence(ordering);
    }
}

/// std's `Arc`: the count is loom's, the memory std's.
pub(crate) struct Arc<T> {
    // Taken in the same step as the count: loom changes threads only at an operation of its own.
    value: Option<std::sync::Arc<T>>,
    count: std::sync::Arc<AtomicUsize>,
}

pub(crate) struct Weak<T> {
    value: std::sync::Weak<T>,
    count: std::sync::Arc<AtomicUsize>,
}

impl<T> Arc<T> {
    pub(crate) fn new(value: T) -> Self {
        let count = AtomicUsize::new(1);
        Self { value: Some(std::sync::Arc::new(value)), count: std::sync::Arc::new(count) }
    }

    pub(crate) fn downgrade(this: &Self) -> Weak<T> {
        Weak { value: std::sync::Arc::downgrade(this.value.as_ref().unwrap()), count: this.count.clone() }
    }

    pub(crate) fn strong_count(this: &Self) -> usize {
        this.count.load(Ordering::Relaxed)
    }

    pub(crate) fn try_unwrap(mut this: Self) -> Result<T, Self> {
        if has(Bug::LooksThenCloses) {
            if this.count.load(Ordering::Relaxed) != 1 {
                return Err(this);
            }
            this.count.store(0, Ordering::Relaxed);
        } else if this.count.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(this);
        }
        let value = this.value.take().unwrap();
        loom::sync::atomic::fence(Ordering::Acquire);
        Ok(std::sync::Arc::try_unwrap(value).ok().expect("somebody has a share of what was closed"))
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.count.fetch_add(1, Ordering::Relaxed);
        Self { value: self.value.clone(), count: self.count.clone() }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().unwrap()
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.value.is_none() {
            return;
        }
        let before = self.count.fetch_sub(1, Ordering::Release);
        let value = self.value.take();
        if before == 1 {
            loom::sync::atomic::fence(Ordering::Acquire);
        }
        drop(value);
    }
}

impl<T> Weak<T> {
    pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
        // Seeded by an exchange: after a plain load loom leaves interleavings out.
        let mut strong = self.count.fetch_or(0, Ordering::Relaxed);
        loop {
            if strong == 0 {
                return None;
            }
            match self.count.compare_exchange_weak(strong, strong + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => strong = now,
            }
        }
        let value = self.value.upgrade().expect("a share is made of what was closed");
        Some(Arc { value: Some(value), count: self.count.clone() })
    }

    pub(crate) fn strong_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// A value that is replaced as a whole.
pub(crate) struct Published<T>(Mutex<std::sync::Arc<T>>);

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(std::sync::Arc::new(value)))
    }

    pub(crate) fn read<R>(&self, reader: impl FnOnce(&T) -> R) -> R {
        let value = self.0.lock().unwrap().clone();
        reader(&value)
    }

    pub(crate) fn replace(&self, value: T) {
        *self.0.lock().unwrap() = std::sync::Arc::new(value);
    }
}

/// event_listener's `Event`.
pub(crate) struct Event {
    times: Mutex<usize>,
    happened: Condvar,
}

pub(crate) struct Listener<'a> {
    event: &'a Event,
    since: Option<usize>,
}

impl Event {
    pub(crate) fn new() -> Self {
        Self { times: Mutex::new(0), happened: Condvar::new() }
    }

    pub(crate) fn listen(&self) -> Listener<'_> {
        let since = (!has(Bug::ListensLate)).then(|| *self.times.lock().unwrap());
        Listener { event: self, since }
    }

    pub(crate) fn notify(&self, _all: usize) {
        *self.times.lock().unwrap() += 1;
        self.happened.notify_all();
    }
}

impl Listener<'_> {
    pub(crate) fn wait(self) {
        let mut times = self.event.times.lock().unwrap();
        // Each event happens once: who listens after that would sleep for ever, a deadlock that loom ends by aborting.
        assert!(self.since.is_some() || *times == 0, "slept through the event");
        let since = self.since.unwrap_or(*times);
        while *times == since {
            times = self.event.happened.wait(times).unwrap();
        }
    }
}
