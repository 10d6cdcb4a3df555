//! What is asked of the cache, and what it says.

use std::time::Duration;

use super::entry::ModelId;
use super::settings::KeepAlive;

/// What a request wants if the model has to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    pub bytes: Option<u64>,
    pub keep_alive: Option<KeepAlive>,
    pub pinned: bool,
}

/// What to do for a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Present(ModelId),
    /// Somebody loads it.
    Wait(ModelId),
    /// Its room is reserved.
    Load(ModelId),
    /// First close this one; then ask again.
    Evict(ModelId, Why),
    Refused(OverBudget),
}

/// What to do with a model that has been loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Landing {
    Kept,
    /// It is larger than what was reserved: first close this one; then ask again.
    Evict(ModelId, Why),
    /// It has no room. Forgotten, and to be dropped.
    Refused(OverBudget),
}

/// Why a model is unloaded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    Expired,
    Room,
    Asked,
}

/// Why a model is not unloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotLoaded,
    Loading,
    InUse(usize),
    Pinned,
}

/// A model that has no room in the budget, even if all idle ones are given up that the policy allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the model needs {needed} bytes, the budget is {budget}, and {pinned} of them are in use, pinned or kept by policy; drop handles, unload or unpin models, or raise the budget"
)]
pub struct OverBudget {
    /// Bytes that the model needs.
    pub needed: u64,
    /// Bytes that all models together may take.
    pub budget: u64,
    /// Bytes of models that cannot be given up now: in use, pinned, loading, or kept by the policy.
    pub pinned: u64,
}

/// What has happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Requests that found neither the model nor a load under way.
    pub misses: u64,
    /// Requests that waited for another one's load.
    pub waits: u64,
    pub loads: u64,
    pub failures: u64,
    /// Loads that were given up by who had begun them.
    pub abandoned: u64,
    pub over_budget: u64,
    pub expired: u64,
    pub evicted: u64,
    pub unloaded: u64,
    /// Time that finished loads took.
    pub load_time: Duration,
    /// Hits of models that are gone.
    pub past_hits: u64,
}
