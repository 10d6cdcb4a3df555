use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::wire::{AnnouncedModel, Announcement};
use crate::cache::KeepAlive;
use crate::info::{ModelInfo, ModelState};
use crate::model::Device;

/// A registry that was not heard for so long is stale: its process hangs, or is stopped. It announces itself every second.
pub const STALE_AFTER: Duration = Duration::from_secs(3);

/// What is known of the registries of a session: a function of the announcements that were heard, and of time. Pure.
///
/// Any announcement may come twice, late, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Known {
    registries: BTreeMap<u64, Registry>,
}

#[derive(Clone, Debug)]
struct Registry {
    latest: Announcement,
    heard_at: Duration,
}

/// The models of one registry of a process, as it said last.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ProcessModels {
    /// Process id.
    pub pid: u32,
    /// Name of the program.
    pub program: String,
    /// Which registry it is; a process may have several, and a new one has another number.
    pub incarnation: u64,
    /// Counts what this registry announced.
    pub revision: u64,
    /// Since when it was not heard; a living registry is heard every second.
    pub silent_for: Duration,
    /// It was not heard for [`STALE_AFTER`]: what it said may not hold any more.
    pub is_stale: bool,
    /// Bytes that its models may take.
    pub memory_budget: Option<u64>,
    /// Its models, by key.
    pub models: Vec<ModelInfo>,
    /// Models that it has beyond those.
    pub omitted: u32,
}

impl Known {
    /// A registry was heard. Returns whether that says anything new.
    pub fn heard(&mut self, announcement: Announcement, now: Duration) -> bool {
        let Announcement { pid, process, incarnation, revision, farewell, .. } = announcement;
        // Another process has this id now, so the one that had it is gone.
        let before = self.registries.len();
        self.registries.retain(|_, registry| registry.latest.pid != pid || registry.latest.process == process);
        let mut changed = self.registries.len() < before;
        if farewell {
            return self.registries.remove(&incarnation).is_some() || changed;
        }
        match self.registries.get_mut(&incarnation) {
            Some(registry) if registry.latest.revision >= revision => {}
            Some(registry) => {
                changed |= registry.latest.models != announcement.models;
                *registry = Registry { latest: announcement, heard_at: now };
            }
            None => {
                changed = true;
                self.registries.insert(incarnation, Registry { latest: announcement, heard_at: now });
            }
        }
        changed
    }

    /// Only these processes live. Returns whether anybody was removed.
    pub fn living(&mut self, pids: &[u32]) -> bool {
        let before = self.registries.len();
        self.registries.retain(|_, registry| pids.contains(&registry.latest.pid));
        self.registries.len() < before
    }

    /// Number of registries.
    pub fn len(&self) -> usize {
        self.registries.len()
    }

    /// Whether nobody was heard.
    pub fn is_empty(&self) -> bool {
        self.registries.is_empty()
    }

    /// What each registry said last, by incarnation, and since when it was not heard.
    pub(super) fn heard_from(
        &self,
        incarnation: u64,
        now: Duration,
    ) -> impl Iterator<Item = (&Announcement, Duration)> {
        let registries = self.registries.range(incarnation..).map(|(_, registry)| registry);
        registries.map(move |registry| (&registry.latest, now.saturating_sub(registry.heard_at)))
    }

    /// All registries, by process id.
    pub fn processes(&self, now: Duration) -> Vec<ProcessModels> {
        let mut processes: Vec<_> = self.registries.values().map(|registry| registry.seen(now)).collect();
        processes.sort_by_key(|process| (process.pid, process.incarnation));
        processes
    }
}

impl Registry {
    fn seen(&self, now: Duration) -> ProcessModels {
        ProcessModels::of(&self.latest, now.saturating_sub(self.heard_at))
    }
}

impl ProcessModels {
    pub(super) fn of(announcement: &Announcement, silent_for: Duration) -> Self {
        let &Announcement { pid, incarnation, revision, ref program, budget, omitted, ref models, .. } = announcement;
        Self {
            pid,
            program: program.clone(),
            incarnation,
            revision,
            silent_for,
            is_stale: silent_for >= STALE_AFTER,
            memory_budget: (budget > 0).then_some(budget),
            models: models.iter().map(ModelInfo::from).collect(),
            omitted,
        }
    }
}

impl From<&AnnouncedModel> for ModelInfo {
    fn from(model: &AnnouncedModel) -> Self {
        let time = |ms: u64| (ms > 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))).flatten();
        Self {
            key: model.key.clone(),
            state: match model.state {
                0 => ModelState::Loading,
                1 => ModelState::Loaded,
                2 => ModelState::InUse,
                3 => ModelState::Idle,
                _ => ModelState::Failed,
            },
            bytes: model.bytes,
            device: Device::new(model.device.clone()),
            handles: usize::try_from(model.handles).unwrap_or(usize::MAX),
            uses: model.uses,
            keep_alive: match model.keep_alive_ms {
                u64::MAX => KeepAlive::Forever,
                ms => KeepAlive::For(Duration::from_millis(ms)),
            },
            pinned: model.pinned,
            loaded_at: time(model.loaded_at_ms),
            last_used: time(model.last_used_ms),
            failure: (!model.failure.is_empty()).then(|| model.failure.clone()),
        }
    }
}

impl From<&ModelInfo> for AnnouncedModel {
    fn from(model: &ModelInfo) -> Self {
        use super::wire::{MAX_DEVICE_BYTES, MAX_REASON_BYTES, cut};
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1);
        let since = |time: Option<SystemTime>| {
            time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, ms)
        };
        Self {
            key: model.key.clone(),
            state: match model.state {
                ModelState::Loading => 0,
                ModelState::Loaded => 1,
                ModelState::InUse => 2,
                ModelState::Idle => 3,
                ModelState::Failed => 4,
            },
            pinned: model.pinned,
            device: cut(model.device.as_str(), MAX_DEVICE_BYTES),
            bytes: model.bytes,
            handles: model.handles as u64,
            uses: model.uses,
            keep_alive_ms: match model.keep_alive {
                KeepAlive::For(time) => ms(time),
                KeepAlive::Forever => u64::MAX,
            },
            loaded_at_ms: since(model.loaded_at),
            last_used_ms: since(model.last_used),
            failure: cut(model.failure.as_deref().unwrap_or_default(), MAX_REASON_BYTES),
        }
    }
}
