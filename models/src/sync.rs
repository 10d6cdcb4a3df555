//! What the code under test takes for its `crate::sync`.

#[path = "../../registry/src/sync.rs"]
mod of_registry;
#[path = "../../transport/src/sync.rs"]
mod of_transport;

pub(crate) use of_registry::{
    Arc, AtomicBool, Condvar, Event, Mutex, MutexGuard, Ordering, Published, Weak, fence, lock,
};
pub(crate) use of_transport::{AtomicU32, AtomicU64, crash_point, peek};
