use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Policy, Settings};
use crate::registry::ModelRegistry;
use crate::shell::Shell;

/// How long an idle model stays in memory, if nothing else is said.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Settings of a [`ModelRegistry`].
///
/// ```
/// # use std::time::Duration;
/// use tensorbus_registry::{ModelRegistry, Policy};
///
/// let registry = ModelRegistry::builder()
///     .ttl(Duration::from_secs(300))
///     .memory_budget(8 << 30)
///     .policy(Policy::Lfu)
///     .build();
/// assert_eq!(registry.memory_budget(), Some(8 << 30));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RegistryBuilder {
    settings: Settings,
}

/// The process has its registry already: somebody used [`ModelRegistry::global`] or built it before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the global registry exists already; build it before anybody uses it")]
pub struct GlobalExists;

impl Default for RegistryBuilder {
    fn default() -> Self {
        Self { settings: Settings { ttl: DEFAULT_TTL, budget: None, policy: Policy::default() } }
    }
}

impl RegistryBuilder {
    /// How long a model stays after its last handle was dropped, unless it is given a time of its own. Default:
    /// [`DEFAULT_TTL`], 30 seconds.
    ///
    /// It is unloaded at most a second later. With zero a model goes with its last handle: plain reference counting.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// Bytes that all models together may take, by what they say of themselves. Default: no limit.
    ///
    /// The room is made before a load: its size is reserved, for which idle models are given up by the
    /// [policy](Self::policy). The size is the one that was declared ([`EntryBuilder::bytes`](crate::EntryBuilder::bytes)), or the
    /// one that the model had last time; without either nothing is reserved, and the room is made after the load.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.settings.budget = Some(bytes);
        self
    }

    /// Which idle models are given up for others. Default: [`Policy::Lru`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Makes the registry.
    pub fn build(self) -> ModelRegistry {
        ModelRegistry::of(Arc::new(Shell::new(self.settings)))
    }

    /// Makes the registry that [`ModelRegistry::global`] gives to all of the process.
    ///
    /// # Errors
    /// [`GlobalExists`] if there is one.
    pub fn build_global(self) -> Result<&'static ModelRegistry, GlobalExists> {
        ModelRegistry::set_global(self.build()).map_err(|_| GlobalExists)
    }
}
