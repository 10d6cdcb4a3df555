//! The only place that names atomics for lock-free code: the models in `models/` put loom's in their place.

#[cfg(tensorbus_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(tensorbus_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};
