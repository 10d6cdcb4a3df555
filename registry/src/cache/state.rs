use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Failure, ModelId, Phase, Usage};
use super::settings::{KeepAlive, Policy, Settings};
use super::verdict::{Answer, Counts, Landing, OverBudget, Refusal, Why, Wish};

/// Failed keys that are remembered, for those who look; a failed key can be tried again at once.
const MAX_FAILED: usize = 64;
/// Keys whose size is remembered after they were unloaded, so that the next load reserves it.
const MAX_SIZES: usize = 1024;
/// The longest time after which a model in use is looked at again, if that is more than its time to live.
const LOOK: Duration = Duration::from_secs(1);

/// All times count from the registry's beginning.
#[derive(Debug)]
pub struct Cache {
    settings: Settings,
    models: BTreeMap<ModelId, Entry>,
    keys: HashMap<Arc<str>, ModelId>,
    failed: BTreeMap<Arc<str>, Failure>,
    sizes: BTreeMap<Arc<str>, u64>,
    counts: Counts,
    next: u64,
}

impl Cache {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            models: BTreeMap::new(),
            keys: HashMap::new(),
            failed: BTreeMap::new(),
            sizes: BTreeMap::new(),
            counts: Counts::default(),
            next: 0,
        }
    }

    /// Somebody wants a model.
    pub fn request(&mut self, key: &str, wish: Wish, now: Duration) -> Answer {
        if let Some(&id) = self.keys.get(key) {
            return match self.models[&id].phase {
                Phase::Resident { .. } => Answer::Present(id),
                Phase::Loading { .. } => Answer::Wait(id),
            };
        }
        let needed = wish.bytes.or_else(|| self.sizes.get(key).copied()).unwrap_or(0);
        match self.room_for(needed, None, now) {
            Ok(None) => {}
            Ok(Some((id, why))) => return Answer::Evict(id, why),
            Err(refused) => {
                self.counts.over_budget += 1;
                return Answer::Refused(refused);
            }
        }
        let (id, key) = (ModelId(self.next), Arc::<str>::from(key));
        self.next += 1;
        let keep_alive = wish.keep_alive.unwrap_or(self.settings.keep_alive());
        let phase = Phase::Loading { since: now };
        self.models.insert(id, Entry { key: key.clone(), bytes: needed, keep_alive, pinned: wish.pinned, phase });
        self.keys.insert(key, id);
        self.counts.misses += 1;
        Answer::Load(id)
    }

    /// Somebody waits for another one's load.
    pub fn waits(&mut self) {
        self.counts.waits += 1;
    }

    /// A load has made a model of this size.
    pub fn loaded(&mut self, id: ModelId, bytes: u64, now: Duration) -> Landing {
        let Some(&Entry { phase: Phase::Loading { since }, .. }) = self.models.get(&id) else {
            debug_assert!(false, "{id:?} is not loading");
            return Landing::Kept;
        };
        match self.room_for(bytes, Some(id), now) {
            Ok(Some((id, why))) => return Landing::Evict(id, why),
            Err(refused) => {
                let key = self.forget(id);
                self.remember_size(key, bytes);
                self.counts.over_budget += 1;
                return Landing::Refused(refused);
            }
            Ok(None) => {}
        }
        if let Some(entry) = self.models.get_mut(&id) {
            entry.bytes = bytes;
            entry.phase =
                Phase::Resident { loaded_at: now, usage: Usage { handles: 0, hits: 0, awaited: 0, idle_since: now } };
            self.failed.remove(&entry.key);
        }
        self.counts.loads += 1;
        self.counts.load_time += now.saturating_sub(since);
        Landing::Kept
    }

    /// A load has failed.
    pub fn failed(&mut self, id: ModelId, reason: String, now: Duration) {
        let key = self.forget(id);
        self.counts.failures += 1;
        if self.failed.len() >= MAX_FAILED && !self.failed.contains_key(&key) {
            let oldest = self.failed.iter().min_by_key(|(_, failure)| failure.at).map(|(key, _)| key.clone());
            oldest.map(|key| self.failed.remove(&key));
        }
        self.failed.insert(key, Failure { reason, at: now });
    }

    /// Who loaded it has gone before it was done.
    pub fn abandoned(&mut self, id: ModelId) {
        self.forget(id);
        self.counts.abandoned += 1;
    }

    /// What the shell has seen of a model.
    pub fn observe(&mut self, id: ModelId, seen: Usage) {
        if let Some(Entry { phase: Phase::Resident { usage, .. }, .. }) = self.models.get_mut(&id) {
            *usage = seen;
        }
    }

    /// A model is to be unloaded: it is this one, if nobody uses it.
    pub fn unload(&mut self, key: &str) -> Result<ModelId, Refusal> {
        let Some(&id) = self.keys.get(key) else {
            self.failed.remove(key);
            return Err(Refusal::NotLoaded);
        };
        let entry = &self.models[&id];
        match entry.phase {
            Phase::Loading { .. } => Err(Refusal::Loading),
            Phase::Resident { usage, .. } if usage.handles > 0 => Err(Refusal::InUse(usage.handles)),
            Phase::Resident { .. } if entry.pinned => Err(Refusal::Pinned),
            Phase::Resident { .. } => Ok(id),
        }
    }

    /// An idle model whose time is over, the one that was due first.
    pub fn due(&self, now: Duration) -> Option<ModelId> {
        let due = self.idle().filter_map(|(id, entry, usage)| Some((entry.keep_alive.end(usage.idle_since)?, id)));
        due.filter(|&(end, _)| end <= now).min().map(|(_, id)| id)
    }

    /// An idle model that is not pinned.
    pub fn any_idle(&self) -> Option<ModelId> {
        self.idle().map(|(id, ..)| id).next()
    }

    /// When [`due`](Self::due) is to be asked again, if nothing else happens: who is in use now cannot be due before.
    pub fn next_look(&self, now: Duration) -> Option<Duration> {
        let looks = self.models.values().filter_map(|entry| match entry.phase {
            Phase::Resident { usage, .. } if !entry.pinned && usage.handles == 0 => {
                entry.keep_alive.end(usage.idle_since)
            }
            Phase::Resident { .. } if !entry.pinned => entry.keep_alive.end(now).map(|end| end.max(now + LOOK)),
            _ => None,
        });
        looks.min()
    }

    /// Whether whoever drops the last handle is to say so, since the next look would come late.
    pub fn is_prompt(&self, id: ModelId) -> bool {
        self.models.get(&id).is_some_and(|entry| matches!(entry.keep_alive, KeepAlive::For(time) if time < LOOK))
    }

    /// The shell has closed a model that it was told to close: nobody has it, and nobody can get it.
    pub fn closed(&mut self, id: ModelId, why: Why, hits: u64) {
        let Some(bytes) = self.models.get(&id).map(|entry| entry.bytes) else { return };
        let key = self.forget(id);
        self.remember_size(key, bytes);
        self.counts.past_hits += hits;
        match why {
            Why::Expired => self.counts.expired += 1,
            Why::Room => self.counts.evicted += 1,
            Why::Asked => self.counts.unloaded += 1,
        }
    }

    /// Sets how long a model stays. Returns it, if it is there or being loaded.
    pub fn set_keep_alive(&mut self, key: &str, keep_alive: KeepAlive) -> Option<ModelId> {
        let id = *self.keys.get(key)?;
        self.models.get_mut(&id)?.keep_alive = keep_alive;
        Some(id)
    }

    /// Pins or unpins a model. Returns it, if it is there or being loaded.
    pub fn set_pinned(&mut self, key: &str, pinned: bool) -> Option<ModelId> {
        let id = *self.keys.get(key)?;
        self.models.get_mut(&id)?.pinned = pinned;
        Some(id)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of all models, those reserved for loads included.
    pub fn used(&self) -> u64 {
        sum(self.models.values())
    }

    /// Models that are there or being loaded.
    pub fn models(&self) -> impl Iterator<Item = (ModelId, &Entry)> {
        self.models.iter().map(|(&id, entry)| (id, entry))
    }

    /// Keys that failed and were not loaded since.
    pub fn failures(&self) -> impl Iterator<Item = (&Arc<str>, &Failure)> {
        self.failed.iter()
    }

    /// Whether `needed` bytes have room beside all models but this one. `Some`: once that one is closed.
    fn room_for(&self, needed: u64, but: Option<ModelId>, now: Duration) -> Result<Option<(ModelId, Why)>, OverBudget> {
        let Some(budget) = self.settings.budget else { return Ok(None) };
        let others = || self.models.iter().filter(|&(&id, _)| Some(id) != but);
        if sum(others().map(|(_, entry)| entry)).saturating_add(needed) <= budget {
            return Ok(None);
        }
        let pinned = sum(others().map(|(_, entry)| entry).filter(|entry| !self.may_go(entry, now)));
        let refused = OverBudget { needed, budget, pinned };
        if pinned.saturating_add(needed) > budget {
            return Err(refused);
        }
        let candidates = self.idle().filter(|(_, entry, _)| self.may_go(entry, now));
        let ranked = candidates.map(|(id, entry, usage)| {
            let expired = is_expired(entry, usage, now);
            let uses = if self.settings.policy == Policy::Lfu { usage.uses() } else { 0 };
            ((!expired, uses, usage.idle_since, id), if expired { Why::Expired } else { Why::Room })
        });
        let first = ranked.min_by_key(|&(rank, _)| rank);
        first.map(|((.., id), why)| Some((id, why))).ok_or(refused)
    }

    /// Whether a model may be given up for another one.
    fn may_go(&self, entry: &Entry, now: Duration) -> bool {
        let Some(usage) = entry.idle() else { return false };
        matches!(self.settings.policy, Policy::Lru | Policy::Lfu) || is_expired(entry, usage, now)
    }

    /// Models that nobody uses or has pinned.
    fn idle(&self) -> impl Iterator<Item = (ModelId, &Entry, Usage)> {
        self.models.iter().filter_map(|(&id, entry)| Some((id, entry, entry.idle()?)))
    }

    /// Takes a model out, with what it took of the budget.
    fn forget(&mut self, id: ModelId) -> Arc<str> {
        let Some(entry) = self.models.remove(&id) else {
            debug_assert!(false, "{id:?} is not known");
            return Arc::from("");
        };
        self.keys.remove(&entry.key);
        entry.key
    }

    fn remember_size(&mut self, key: Arc<str>, bytes: u64) {
        if self.sizes.len() >= MAX_SIZES && !self.sizes.contains_key(&key) {
            self.sizes.pop_first();
        }
        self.sizes.insert(key, bytes);
    }
}

fn sum<'a>(models: impl Iterator<Item = &'a Entry>) -> u64 {
    models.fold(0, |sum, entry| sum.saturating_add(entry.bytes))
}

fn is_expired(entry: &Entry, usage: Usage, now: Duration) -> bool {
    entry.keep_alive.end(usage.idle_since).is_some_and(|end| end <= now)
}
