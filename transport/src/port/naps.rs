use std::time::{Duration, Instant};

/// For so long the thread only lets others run.
const EAGER: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(1);

/// Pauses between looks at what tells nobody when it changes, such as a queue that gets room.
#[derive(Debug)]
pub(super) struct Naps {
    since: Instant,
    next: Duration,
}

impl Naps {
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), next: EAGER }
    }

    /// Time since the beginning.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Pauses, but no longer than this.
    pub(super) fn take(&mut self, at_most: Duration) {
        if self.waited() < EAGER {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.next.min(at_most));
            self.next = (2 * self.next).min(LONGEST);
        }
    }
}
