use std::sync::Arc;
use std::time::Duration;

use super::settings::KeepAlive;

/// A load, and the model that it made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModelId(pub(super) u64);

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    /// Reserved while it is loading, then what it takes.
    pub bytes: u64,
    pub keep_alive: KeepAlive,
    pub pinned: bool,
    pub phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Loading { since: Duration },
    Resident { loaded_at: Duration, usage: Usage },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub reason: String,
    pub at: Duration,
}

/// How a model is used, as the shell has seen it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    pub handles: usize,
    /// Handles that were given out without waiting.
    pub hits: u64,
    /// Handles that somebody waited for.
    pub awaited: u64,
    /// When the last handle was dropped; when it was loaded, before that.
    pub idle_since: Duration,
}

impl Usage {
    /// Handles that were given out so far.
    pub fn uses(&self) -> u64 {
        self.hits + self.awaited
    }
}

impl Entry {
    /// How it was used, if nobody uses it now or has pinned it.
    pub(super) fn idle(&self) -> Option<Usage> {
        match self.phase {
            Phase::Resident { usage, .. } if usage.handles == 0 && !self.pinned => Some(usage),
            _ => None,
        }
    }
}
