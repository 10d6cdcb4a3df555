use std::sync::atomic::{AtomicU64, Ordering};

/// Changed by one thread at a time, which holds the lock of its port, and so without atomic additions; read by anyone.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, number: u64) {
        self.0.store(self.get() + number, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
