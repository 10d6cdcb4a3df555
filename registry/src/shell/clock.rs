use std::time::{Duration, Instant};

/// The time of a registry: since its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    beginning: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { beginning: Instant::now() }
    }

    #[inline]
    pub(crate) fn now(&self) -> Duration {
        self.beginning.elapsed()
    }

    /// How far away a time is.
    pub(crate) fn until(&self, time: Duration) -> Duration {
        time.saturating_sub(self.now())
    }
}
