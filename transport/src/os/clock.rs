use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock: the same clock in every process since the machine started.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The kernel gives a non-negative time whose nanoseconds fit 64 bits for 584 years.
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// A deadline on the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    start: std::time::Instant,
    bound: std::time::Duration,
}

impl Deadline {
    pub(crate) fn after(bound: std::time::Duration) -> Self {
        Self { start: std::time::Instant::now(), bound }
    }

    /// Time left, `None` once the bound has passed.
    pub(crate) fn left(&self) -> Option<std::time::Duration> {
        self.bound.checked_sub(self.start.elapsed())
    }
}
