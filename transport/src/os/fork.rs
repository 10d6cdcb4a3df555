//! A forked child shares the parent's ports by accident: dropping its copies would tear the parent's down.

use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often this process image was forked since the first port was made; asking costs one load (`getpid` is a syscall).
static GENERATION: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();

/// The value belongs to the process that this one was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forked;

extern "C" fn in_forked_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

fn generation() -> u64 {
    INSTALL.call_once(|| {
        // SAFETY: the handler is a static function that only touches an atomic, which is allowed after fork.
        let result = unsafe { libc::pthread_atfork(None, None, Some(in_forked_child)) };
        assert_eq!(result, 0, "pthread_atfork has no memory for its handler");
    });
    GENERATION.load(Ordering::Relaxed)
}

/// A value that only the process that made it may use or drop. In a forked child it is leaked instead.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    value: ManuallyDrop<T>,
    generation: u64,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), generation: generation() }
    }

    pub(crate) fn get(&self) -> Result<&T, Forked> {
        if self.is_ours() { Ok(&self.value) } else { Err(Forked) }
    }

    fn is_ours(&self) -> bool {
        self.generation == GENERATION.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: the value is dropped here only, and never used after.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
