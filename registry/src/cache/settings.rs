use std::time::Duration;

/// Which idle models a [`ModelRegistry`](crate::ModelRegistry) gives up when a load needs room in its budget.
///
/// A model in use or pinned is never given up. Expired ones go first under every policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The one that was last used longest ago.
    #[default]
    Lru,
    /// The one that was used least often; of several, the one that was last used longest ago.
    Lfu,
    /// None before its time is over.
    Ttl,
    /// None: only `unload` and `clear` do, and the time that a model was given for itself.
    Manual,
}

/// How long an idle model stays in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeepAlive {
    /// So long after its last handle was dropped. Zero: it goes with its last handle.
    For(Duration),
    /// Until it is unloaded, or a load needs its room.
    Forever,
}

impl From<Duration> for KeepAlive {
    fn from(time: Duration) -> Self {
        Self::For(time)
    }
}

impl KeepAlive {
    /// When a model ends that has been idle since then.
    pub fn end(self, idle_since: Duration) -> Option<Duration> {
        match self {
            Self::For(time) => Some(idle_since.saturating_add(time)),
            Self::Forever => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub ttl: Duration,
    pub budget: Option<u64>,
    pub policy: Policy,
}

impl Settings {
    /// How long a model stays that was given no time of its own.
    pub fn keep_alive(&self) -> KeepAlive {
        match self.policy {
            Policy::Manual => KeepAlive::Forever,
            _ => KeepAlive::For(self.ttl),
        }
    }
}
