//! The only place that names atomics for lock-free code: the models in `models/` put loom's in their place.

#[cfg(tensorbus_loom)]
pub(crate) use crate::mortal::{AtomicU64, crash_point};
#[cfg(tensorbus_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(tensorbus_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// What a compare-and-exchange starts from; decides nothing by itself.
#[inline]
pub(crate) fn peek(word: &AtomicU64) -> u64 {
    // loom does not explore what comes after a plain load in full (its issues 166 and 392).
    #[cfg(tensorbus_loom)]
    return word.fetch_or(0, Ordering::Relaxed);
    #[cfg(not(tensorbus_loom))]
    word.load(Ordering::Relaxed)
}

/// After each change of shared memory: here a process may die. Nothing outside of the models.
#[cfg(not(tensorbus_loom))]
#[inline(always)]
pub(crate) fn crash_point() {}
