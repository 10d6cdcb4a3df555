//! The only place that names what threads share of a model: the models in `models/` put loom's, or stand-ins over loom, in
//! their place. `Arc` and `Weak` are here as the count that decides who has a model; `std::sync::Arc` elsewhere only keeps memory.

#[cfg(not(tensorbus_loom))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

    pub(crate) use event_listener::Event;

    /// A value that is read far more often than it is replaced: reading takes no lock and touches no shared counter.
    pub(crate) struct Published<T>(arc_swap::ArcSwap<T>);

    impl<T> Published<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(arc_swap::ArcSwap::from_pointee(value))
        }

        #[inline]
        pub(crate) fn read<R>(&self, reader: impl FnOnce(&T) -> R) -> R {
            reader(&self.0.load())
        }

        pub(crate) fn replace(&self, value: T) {
            self.0.store(Arc::new(value));
        }
    }
}

#[cfg(tensorbus_loom)]
pub(crate) use crate::stand_in::{
    Arc, AtomicBool, AtomicU64, Condvar, Event, Mutex, MutexGuard, Ordering, Published, Weak, fence,
};
#[cfg(not(tensorbus_loom))]
pub(crate) use real::{
    Arc, AtomicBool, AtomicU64, Condvar, Event, Mutex, MutexGuard, Ordering, Published, Weak, fence,
};

/// What a panic left behind a lock is as good as before: nothing of a user runs under one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
