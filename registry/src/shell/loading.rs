use std::sync::Arc;

use super::slot::{ModelHandle, Slot};
use super::{Corpses, OnShelf, Owned, Shell, change};
use crate::cache::{Landing, ModelId};
use crate::error::LoadError;
use crate::model::{Device, Model};
use crate::sync::{self, lock};

/// The duty to load a model. Dropped before it is done, it leaves the load to who asks next.
pub(crate) struct Loading {
    shell: Arc<Shell>,
    key: String,
    id: ModelId,
    done: bool,
}

impl Loading {
    pub(super) fn new(shell: Arc<Shell>, key: &str, id: ModelId) -> Self {
        Self { shell, key: key.to_owned(), id, done: false }
    }

    /// The load has made a model.
    pub(crate) fn land<M: Model>(mut self, model: M, bytes: u64, device: Device) -> Result<ModelHandle<M>, LoadError> {
        self.done = true;
        let shell = self.shell.clone();
        let mut corpses = Corpses::default();
        let mut state = lock(&shell.state);
        let landed = loop {
            state.observe();
            match state.cache.loaded(self.id, bytes, shell.clock.now()) {
                Landing::Kept => break Ok(()),
                Landing::Evict(id, why) => corpses.take(state.close(&shell.shelf, id, why)),
                Landing::Refused(source) => break Err(LoadError::OverBudget { key: self.key.clone(), source }),
            }
        };
        let flight = state.flights.remove(&self.id);
        let landed = match landed {
            Ok(()) => {
                let prompt = state.cache.is_prompt(self.id);
                let slot = Slot::new(model, prompt, shell.clock, shell.alarm.clone());
                let handle = ModelHandle::awaited(slot.clone());
                let weak = Arc::new(sync::Arc::downgrade(&slot));
                let on_shelf = OnShelf { slot: weak, type_name: std::any::type_name::<M>() };
                change(&shell.shelf, |shelf| shelf.insert(self.key.as_str().into(), on_shelf));
                state.owned.insert(self.id, Owned { owner: Box::new(slot), device });
                Ok(handle)
            }
            Err(error) => {
                corpses.take(Some(Box::new(model)));
                Err(error)
            }
        };
        drop(state);
        if let Some(flight) = flight {
            match &landed {
                Ok(handle) => flight.loaded(handle.clone()),
                Err(error) => flight.failed(error.clone()),
            }
        }
        corpses.bury(&shell);
        landed
    }

    /// The load has failed: everybody who waits gets the error.
    pub(crate) fn fail(mut self, error: LoadError) -> LoadError {
        // The user's code, which may do anything, so not under the lock.
        let reason = error.to_string();
        self.done = true;
        let mut state = lock(&self.shell.state);
        state.cache.failed(self.id, reason, self.shell.clock.now());
        let flight = state.flights.remove(&self.id);
        drop(state);
        if let Some(flight) = flight {
            flight.failed(error.clone());
        }
        error
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = lock(&self.shell.state);
        state.cache.abandoned(self.id);
        let flight = state.flights.remove(&self.id);
        drop(state);
        if let Some(flight) = flight {
            flight.abandoned();
        }
    }
}
