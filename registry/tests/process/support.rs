//! Models that tell of their life, and a watchdog.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tensorbus_registry::Model;

/// A hung test ends here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Of so many bytes; says when it is dropped.
pub(crate) struct Noted {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) dropped: mpsc::Sender<&'static str>,
}

impl Model for Noted {
    fn memory_bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let _ = self.dropped.send(self.name);
    }
}

/// Makes models, and counts them.
pub(crate) struct Maker {
    pub(crate) made: AtomicUsize,
    dropped: mpsc::Sender<&'static str>,
}

impl Maker {
    pub(crate) fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (dropped, told) = mpsc::channel();
        (Self { made: AtomicUsize::new(0), dropped }, told)
    }

    pub(crate) fn make(&self, name: &'static str, bytes: u64) -> Result<Noted, std::io::Error> {
        self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Noted { name, bytes, dropped: self.dropped.clone() })
    }

    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

/// Waits until it holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
