//! A registry as one would explain it: a list of models, looked through for every question.

use std::collections::BTreeMap;
use std::time::Duration;

use tensorbus_registry::cache::{KeepAlive, ModelId, OverBudget, Policy, Settings};

/// Models in use are looked at again after their time, but not before this.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Model {
    pub id: ModelId,
    pub key: &'static str,
    pub bytes: u64,
    pub keep_alive: KeepAlive,
    pub pinned: bool,
    pub loading: bool,
    pub handles: usize,
    pub uses: u64,
    pub idle_since: Duration,
}

#[derive(Clone, Debug)]
pub struct Naive {
    pub settings: Settings,
    pub now: Duration,
    pub models: Vec<Model>,
    pub sizes: BTreeMap<&'static str, u64>,
    pub failed: BTreeMap<&'static str, ()>,
    pub loads: u64,
    pub gone: u64,
}

/// What there is to say about room for a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Enough,
    /// This one goes first.
    Without(ModelId),
    Refused(OverBudget),
}

impl Model {
    pub fn is_idle(&self) -> bool {
        !self.loading && !self.pinned && self.handles == 0
    }

    fn end(&self) -> Option<Duration> {
        match self.keep_alive {
            KeepAlive::For(time) => Some(self.idle_since + time),
            KeepAlive::Forever => None,
        }
    }
}

impl Naive {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Duration::ZERO,
            models: Vec::new(),
            sizes: BTreeMap::new(),
            failed: BTreeMap::new(),
            loads: 0,
            gone: 0,
        }
    }

    pub fn find(&mut self, key: &str) -> Option<&mut Model> {
        self.models.iter_mut().find(|model| model.key == key)
    }

    pub fn by_id(&mut self, id: ModelId) -> &mut Model {
        self.models.iter_mut().find(|model| model.id == id).expect("a model that is there")
    }

    pub fn remove(&mut self, id: ModelId) -> Model {
        let index = self.models.iter().position(|model| model.id == id).expect("a model that is there");
        self.models.remove(index)
    }

    pub fn is_over(&self, model: &Model) -> bool {
        model.is_idle() && model.end().is_some_and(|end| end <= self.now)
    }

    /// Room for so many bytes beside all models but one.
    pub fn room(&self, needed: u64, but: Option<ModelId>) -> Room {
        let Some(budget) = self.settings.budget else { return Room::Enough };
        let others: Vec<&Model> = self.models.iter().filter(|model| Some(model.id) != but).collect();
        let bytes: u64 = others.iter().map(|model| model.bytes).sum();
        if bytes + needed <= budget {
            return Room::Enough;
        }
        let mut may_go: Vec<&Model> = others.into_iter().filter(|model| model.is_idle()).collect();
        if matches!(self.settings.policy, Policy::Ttl | Policy::Manual) {
            may_go.retain(|model| self.is_over(model));
        }
        let pinned = bytes - may_go.iter().map(|model| model.bytes).sum::<u64>();
        if pinned + needed > budget {
            return Room::Refused(OverBudget { needed, budget, pinned });
        }
        // From the last reason to the first: a sort keeps the order of equals.
        may_go.sort_by_key(|model| model.id);
        may_go.sort_by_key(|model| model.idle_since);
        if self.settings.policy == Policy::Lfu {
            may_go.sort_by_key(|model| model.uses);
        }
        may_go.sort_by_key(|model| !self.is_over(model));
        Room::Without(may_go[0].id)
    }

    /// The idle model whose time was over first.
    pub fn due(&self) -> Option<ModelId> {
        let mut over: Vec<&Model> = self.models.iter().filter(|model| self.is_over(model)).collect();
        over.sort_by_key(|model| (model.end(), model.id));
        over.first().map(|model| model.id)
    }

    pub fn next_look(&self) -> Option<Duration> {
        let mut looks = Vec::new();
        for model in self.models.iter().filter(|model| !model.loading && !model.pinned) {
            match model.keep_alive {
                KeepAlive::For(time) if model.handles == 0 => looks.push(model.idle_since + time),
                KeepAlive::For(time) => looks.push(self.now + time.max(LOOK)),
                KeepAlive::Forever => {}
            }
        }
        looks.into_iter().min()
    }
}
