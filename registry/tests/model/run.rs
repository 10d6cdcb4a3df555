//! A run of steps, made of any bytes: each is done to the cache and to its model, and what they say is compared.

use std::time::Duration;

use tensorbus_registry::cache::{
    Answer, Cache, KeepAlive, Landing, ModelId, Phase, Policy, Refusal, Settings, Usage, Why, Wish,
};

use crate::model::{Model, Naive, Room};

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Clone, Debug)]
pub struct Run {
    settings: Settings,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    key: &'static str,
    /// Sizes, times, and whether somebody interferes.
    value: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Request,
    RequestOfSize,
    RequestPinned,
    RequestWithTime,
    Take,
    Drop,
    Land,
    Fail,
    Abandon,
    Unload,
    Pin,
    Unpin,
    KeepAlive,
    Clear,
    Sweep,
    Wait,
}

const STEPS: [What; 16] = [
    What::Request,
    What::RequestOfSize,
    What::RequestPinned,
    What::RequestWithTime,
    What::Take,
    What::Drop,
    What::Land,
    What::Fail,
    What::Abandon,
    What::Unload,
    What::Pin,
    What::Unpin,
    What::KeepAlive,
    What::Clear,
    What::Sweep,
    What::Wait,
];

impl Run {
    /// Settings in the first three bytes (policy, budget, time to live), then three bytes a step: what, key, value.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
        let policy = [Policy::Lru, Policy::Lfu, Policy::Ttl, Policy::Manual][at(0) as usize % 4];
        let budget = (at(1) > 0).then_some(u64::from(at(1)));
        let settings = Settings { policy, budget, ttl: time(at(2)) };
        let steps = bytes.get(3..).unwrap_or_default().chunks_exact(3).map(|step| Step {
            what: STEPS[step[0] as usize % STEPS.len()],
            key: KEYS[step[1] as usize % KEYS.len()],
            value: step[2],
        });
        Self { settings, steps: steps.collect() }
    }

    /// # Panics
    /// If the cache does anything else than its model says.
    pub fn check(&self) {
        let mut world = World { cache: Cache::new(self.settings), naive: Naive::new(self.settings) };
        for step in &self.steps {
            world.step(*step);
            world.compare();
        }
    }
}

/// The cache and its model. The model knows the handles: what the cache is told of them.
struct World {
    cache: Cache,
    naive: Naive,
}

fn time(value: u8) -> Duration {
    Duration::from_millis(u64::from(value) * 40)
}

impl World {
    fn step(&mut self, step: Step) {
        let Step { key, value, .. } = step;
        self.naive.now += Duration::from_millis(1);
        let interfere = value % 4 == 3;
        match step.what {
            What::Request => self.request(key, Wish::default(), interfere),
            What::RequestOfSize => {
                self.request(key, Wish { bytes: Some(u64::from(value)), ..Wish::default() }, interfere)
            }
            What::RequestPinned => self.request(key, Wish { pinned: true, ..Wish::default() }, interfere),
            What::RequestWithTime => {
                let keep_alive = if value == 0 { KeepAlive::Forever } else { KeepAlive::For(time(value)) };
                self.request(key, Wish { keep_alive: Some(keep_alive), ..Wish::default() }, interfere)
            }
            What::Take => {
                if let Some(model) = self.naive.find(key)
                    && !model.loading
                {
                    model.handles += 1;
                    model.uses += 1;
                }
            }
            What::Drop => {
                let now = self.naive.now;
                if let Some(model) = self.naive.find(key)
                    && model.handles > 0
                {
                    model.handles -= 1;
                    model.idle_since = now;
                }
            }
            What::Land => self.land(key, u64::from(value), interfere),
            What::Fail => self.end(key, true),
            What::Abandon => self.end(key, false),
            What::Unload => self.unload(key, interfere),
            What::Pin | What::Unpin => {
                let pinned = matches!(step.what, What::Pin);
                let known = self.naive.find(key).map(|model| {
                    model.pinned = pinned;
                    model.id
                });
                assert_eq!(self.cache.set_pinned(key, pinned), known);
            }
            What::KeepAlive => {
                let keep_alive = if value == 0 { KeepAlive::Forever } else { KeepAlive::For(time(value)) };
                let known = self.naive.find(key).map(|model| {
                    model.keep_alive = keep_alive;
                    model.id
                });
                assert_eq!(self.cache.set_keep_alive(key, keep_alive), known);
                let prompt = matches!(keep_alive, KeepAlive::For(time) if time < Duration::from_secs(1));
                assert!(known.is_none_or(|id| self.cache.is_prompt(id) == prompt));
            }
            What::Clear => self.clear(),
            What::Sweep => self.sweep(interfere),
            What::Wait => self.naive.now += time(value),
        }
    }

    fn request(&mut self, key: &'static str, wish: Wish, interfere: bool) {
        let mut interfere = interfere;
        loop {
            self.observe();
            let answer = self.cache.request(key, wish, self.naive.now);
            if let Some(model) = self.naive.find(key) {
                let expected = if model.loading { Answer::Wait(model.id) } else { Answer::Present(model.id) };
                assert_eq!(answer, expected);
                if !model.loading {
                    model.uses += 1;
                    model.handles += 1;
                }
                return;
            }
            let needed = wish.bytes.or(self.naive.sizes.get(key).copied()).unwrap_or(0);
            match (self.naive.room(needed, None), answer) {
                (Room::Enough, Answer::Load(id)) => {
                    assert!(self.naive.models.iter().all(|model| model.id != id), "an id is not used twice");
                    let manual = self.naive.settings.policy == Policy::Manual;
                    let ttl = if manual { KeepAlive::Forever } else { KeepAlive::For(self.naive.settings.ttl) };
                    self.naive.models.push(Model {
                        id,
                        key,
                        bytes: needed,
                        keep_alive: wish.keep_alive.unwrap_or(ttl),
                        pinned: wish.pinned,
                        loading: true,
                        handles: 0,
                        uses: 0,
                        idle_since: self.naive.now,
                    });
                    return;
                }
                (Room::Without(expected), Answer::Evict(id, why)) => {
                    assert_eq!(id, expected);
                    self.close(id, why, &mut interfere);
                }
                (Room::Refused(expected), Answer::Refused(refused)) => {
                    assert_eq!(refused, expected);
                    return;
                }
                (expected, answer) => panic!("{answer:?} where {expected:?} was right"),
            }
        }
    }

    fn land(&mut self, key: &'static str, bytes: u64, interfere: bool) {
        let Some(id) = self.loading(key) else { return };
        let mut interfere = interfere;
        loop {
            self.observe();
            match (self.naive.room(bytes, Some(id)), self.cache.loaded(id, bytes, self.naive.now)) {
                (Room::Enough, Landing::Kept) => {
                    let now = self.naive.now;
                    let model = self.naive.by_id(id);
                    // Who loaded it has the first handle.
                    (model.bytes, model.loading, model.handles, model.uses) = (bytes, false, 1, 1);
                    model.idle_since = now;
                    self.naive.loads += 1;
                    self.naive.failed.remove(key);
                    return;
                }
                (Room::Without(expected), Landing::Evict(victim, why)) => {
                    assert_eq!(victim, expected);
                    self.close(victim, why, &mut interfere);
                }
                (Room::Refused(expected), Landing::Refused(refused)) => {
                    assert_eq!(refused, expected);
                    self.naive.remove(id);
                    self.naive.sizes.insert(key, bytes);
                    return;
                }
                (expected, landing) => panic!("{landing:?} where {expected:?} was right"),
            }
        }
    }

    fn end(&mut self, key: &'static str, failed: bool) {
        let Some(id) = self.loading(key) else { return };
        self.naive.remove(id);
        if failed {
            self.cache.failed(id, "reason".to_owned(), self.naive.now);
            self.naive.failed.insert(key, ());
        } else {
            self.cache.abandoned(id);
        }
    }

    fn unload(&mut self, key: &'static str, interfere: bool) {
        let mut interfere = interfere;
        loop {
            self.observe();
            let answer = self.cache.unload(key);
            let Some(model) = self.naive.find(key) else {
                self.naive.failed.remove(key);
                assert_eq!(answer, Err(Refusal::NotLoaded));
                return;
            };
            let expected = match model {
                Model { loading: true, .. } => Err(Refusal::Loading),
                Model { handles: handles @ 1.., .. } => Err(Refusal::InUse(*handles)),
                Model { pinned: true, .. } => Err(Refusal::Pinned),
                Model { id, .. } => Ok(*id),
            };
            assert_eq!(answer, expected);
            match expected {
                Ok(id) if self.close(id, Why::Asked, &mut interfere) => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn clear(&mut self) {
        loop {
            self.observe();
            let idle = self.naive.models.iter().filter(|model| model.is_idle()).count();
            let Some(id) = self.cache.any_idle() else {
                assert_eq!(idle, 0);
                return;
            };
            assert!(self.naive.by_id(id).is_idle());
            self.close(id, Why::Asked, &mut false);
        }
    }

    fn sweep(&mut self, interfere: bool) {
        let mut interfere = interfere;
        loop {
            self.observe();
            let due = self.cache.due(self.naive.now);
            assert_eq!(due, self.naive.due());
            let Some(id) = due else { return };
            self.close(id, Why::Expired, &mut interfere);
        }
    }

    /// What the shell does. If somebody interferes, the model is taken into use just now, once.
    fn close(&mut self, id: ModelId, why: Why, interfere: &mut bool) -> bool {
        let model = self.naive.by_id(id);
        assert!(model.is_idle(), "a model that is not idle is not to be closed");
        if std::mem::take(interfere) {
            model.handles = 1;
            model.uses += 1;
            return false;
        }
        let over = {
            let model = model.clone();
            self.naive.is_over(&model)
        };
        assert!(why == Why::Asked || over == (why == Why::Expired));
        let model = self.naive.remove(id);
        self.naive.sizes.insert(model.key, model.bytes);
        self.naive.gone += 1;
        self.cache.closed(id, why, model.uses);
        true
    }

    fn loading(&mut self, key: &str) -> Option<ModelId> {
        self.naive.find(key).filter(|model| model.loading).map(|model| model.id)
    }

    fn observe(&mut self) {
        for model in self.naive.models.iter().filter(|model| !model.loading) {
            let Model { id, handles, uses, idle_since, .. } = *model;
            self.cache.observe(id, Usage { handles, hits: uses, awaited: 0, idle_since });
        }
    }

    fn compare(&mut self) {
        self.observe();
        let mut expected: Vec<_> = self
            .naive
            .models
            .iter()
            .map(|model| {
                (model.id, model.key, model.bytes, model.keep_alive, model.pinned, model.loading, model.handles)
            })
            .collect();
        expected.sort_by_key(|model| model.0);
        let actual: Vec<_> = self
            .cache
            .models()
            .map(|(id, entry)| {
                let key = KEYS.into_iter().find(|key| **key == *entry.key).expect("a key that was asked for");
                let (loading, handles) = match entry.phase {
                    Phase::Loading { .. } => (true, 0),
                    Phase::Resident { usage, .. } => (false, usage.handles),
                };
                (id, key, entry.bytes, entry.keep_alive, entry.pinned, loading, handles)
            })
            .collect();
        assert_eq!(actual, expected);
        let used: u64 = self.naive.models.iter().map(|model| model.bytes).sum();
        assert_eq!(self.cache.used(), used);
        assert!(self.naive.settings.budget.is_none_or(|budget| used <= budget), "the budget is exceeded");
        assert_eq!(self.cache.next_look(self.naive.now), self.naive.next_look());
        let failed: Vec<&str> = self.cache.failures().map(|(key, _)| &**key).collect();
        assert_eq!(failed, self.naive.failed.keys().copied().collect::<Vec<_>>());
        let counts = self.cache.counts();
        assert_eq!(counts.loads, self.naive.loads);
        assert_eq!(counts.expired + counts.evicted + counts.unloaded, self.naive.gone);
    }
}
