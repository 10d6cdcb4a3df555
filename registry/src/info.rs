use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cache::{Entry, KeepAlive, Phase};
use crate::model::Device;
use crate::shell::Seen;

/// What a model is at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ModelState {
    /// Somebody loads it.
    Loading,
    /// In memory to stay (pinned, or kept for ever), and nobody uses it now.
    Loaded,
    /// Somebody has a handle.
    InUse,
    /// In memory until its time is over, and nobody uses it now.
    Idle,
    /// Its last load failed. It can be tried again at once.
    Failed,
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::InUse => "in use",
            Self::Idle => "idle",
            Self::Failed => "failed",
        })
    }
}

/// A model of a registry, as it was at one moment.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its key.
    pub key: String,
    /// What it is at.
    pub state: ModelState,
    /// Bytes that it takes on its device; while it is loading, those that are reserved for it.
    pub bytes: u64,
    /// Where its memory is.
    pub device: Device,
    /// Handles there are.
    pub handles: usize,
    /// Handles that were given out so far.
    pub uses: u64,
    /// How long it stays after its last handle.
    pub keep_alive: KeepAlive,
    /// Whether it is kept whatever its time and the budget say.
    pub pinned: bool,
    /// When it was loaded.
    pub loaded_at: Option<SystemTime>,
    /// When its last handle was dropped; now, while there is one.
    pub last_used: Option<SystemTime>,
    /// Why its last load failed.
    pub failure: Option<String>,
}

/// Figures of a registry since its beginning.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct RegistryMetrics {
    /// Requests that were answered from memory.
    pub hits: u64,
    /// Requests that had to load.
    pub misses: u64,
    /// Requests that waited for another one's load.
    pub waits: u64,
    /// Loads that made a model.
    pub loads: u64,
    /// Loads whose loader failed or panicked.
    pub failures: u64,
    /// Loads that were cancelled on the way.
    pub cancelled: u64,
    /// Requests and loads that were refused because there is no room in the budget.
    pub over_budget: u64,
    /// Time that all loads took together.
    pub load_time: Duration,
    /// Models that were unloaded because their time was over.
    pub expired: u64,
    /// Models that were unloaded to make room.
    pub evicted: u64,
    /// Models that were unloaded by `unload` or `clear`.
    pub unloaded: u64,
    /// Models whose destructor panicked.
    pub failed_drops: u64,
    /// Models that are in memory.
    pub models: usize,
    /// Bytes that they take, those reserved for loads included.
    pub bytes: u64,
    /// Handles of all models.
    pub handles: usize,
}

impl ModelInfo {
    pub(crate) fn list(seen: &Seen) -> Vec<Self> {
        let wall = |time: Duration| SystemTime::now().checked_sub(seen.now.saturating_sub(time));
        let mut models = BTreeMap::new();
        for (key, failure) in &seen.failures {
            let info = Self {
                key: key.to_string(),
                state: ModelState::Failed,
                bytes: 0,
                device: Device::CPU,
                handles: 0,
                uses: 0,
                keep_alive: KeepAlive::For(Duration::ZERO),
                pinned: false,
                loaded_at: None,
                last_used: wall(failure.at),
                failure: Some(failure.reason.clone()),
            };
            models.insert(info.key.clone(), info);
        }
        for (entry, device) in &seen.models {
            let Entry { key, bytes, keep_alive, pinned, phase } = entry;
            let (handles, uses, times) = match phase {
                Phase::Loading { .. } => (0, 0, None),
                Phase::Resident { loaded_at, usage } => {
                    let last_used = if usage.handles > 0 { seen.now } else { usage.idle_since };
                    (usage.handles, usage.uses(), Some((*loaded_at, last_used)))
                }
            };
            let state = match phase {
                Phase::Loading { .. } => ModelState::Loading,
                Phase::Resident { .. } if handles > 0 => ModelState::InUse,
                Phase::Resident { .. } if *pinned || *keep_alive == KeepAlive::Forever => ModelState::Loaded,
                Phase::Resident { .. } => ModelState::Idle,
            };
            let info = Self {
                key: key.to_string(),
                state,
                bytes: *bytes,
                device: device.clone(),
                handles,
                uses,
                keep_alive: *keep_alive,
                pinned: *pinned,
                loaded_at: times.and_then(|(loaded_at, _)| wall(loaded_at)),
                last_used: times.and_then(|(_, last_used)| wall(last_used)),
                failure: None,
            };
            models.insert(info.key.clone(), info);
        }
        models.into_values().collect()
    }
}

impl RegistryMetrics {
    pub(crate) fn of(seen: &Seen) -> Self {
        let mut metrics = Self {
            hits: seen.counts.past_hits,
            misses: seen.counts.misses,
            waits: seen.counts.waits,
            loads: seen.counts.loads,
            failures: seen.counts.failures,
            cancelled: seen.counts.abandoned,
            over_budget: seen.counts.over_budget,
            load_time: seen.counts.load_time,
            expired: seen.counts.expired,
            evicted: seen.counts.evicted,
            unloaded: seen.counts.unloaded,
            failed_drops: seen.failed_drops,
            ..Self::default()
        };
        for (entry, _) in &seen.models {
            metrics.bytes = metrics.bytes.saturating_add(entry.bytes);
            if let Phase::Resident { usage, .. } = entry.phase {
                metrics.models += 1;
                metrics.handles += usage.handles;
                metrics.hits += usage.hits;
            }
        }
        metrics
    }
}
