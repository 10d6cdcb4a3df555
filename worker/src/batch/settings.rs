use std::time::Duration;

/// How a [`Batcher`](super::Batcher) makes batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Most rows of a batch, 1 or more. Default: 8.
    pub max_batch_size: usize,
    /// How long a row waits for others at most, when a worker is free. Default: 0, so that a free worker takes what is there.
    pub max_delay: Duration,
    /// Sizes at which a batch is run without a wait, the largest that there are rows for. Default: none but the maximum.
    pub preferred: Vec<usize>,
    /// Places for rows that wait. Default: 1024.
    pub max_waiting: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_batch_size: 8, max_delay: Duration::ZERO, preferred: Vec::new(), max_waiting: 1024 }
    }
}

impl Settings {
    pub(super) fn most(&self) -> usize {
        self.max_batch_size.max(1)
    }

    /// How many of `waiting` rows are to be run now; `None` if they are to wait for others.
    pub(super) fn size(&self, waiting: usize, one_is_due: bool) -> Option<usize> {
        if waiting >= self.most() {
            return Some(self.most());
        }
        let preferred = self.preferred.iter().copied().filter(|&size| size > 0 && size <= waiting).max();
        preferred.or((one_is_due && waiting > 0).then_some(waiting))
    }
}
