use std::any::{Any, TypeId};
use std::thread::ThreadId;

use crate::error::LoadError;
use crate::model::Model;
use crate::sync::{Event, Mutex, lock};

use super::slot::ModelHandle;

/// A load under way, and those who wait for it.
pub(crate) struct Flight {
    model: TypeId,
    pub(crate) type_name: &'static str,
    /// The thread that a blocking loader runs on.
    pub(crate) loader: Option<ThreadId>,
    outcome: Mutex<Option<Outcome>>,
    done: Event,
}

/// Kept until the last who waits has seen it: a model that was waited for is not unloaded before it is handed out.
enum Outcome {
    /// A [`ModelHandle`].
    Loaded(Box<dyn Any + Send + Sync>),
    Failed(LoadError),
    Abandoned,
}

/// What waiting for a load came to.
pub(crate) enum Landed<M: Model> {
    Loaded(ModelHandle<M>),
    Failed(LoadError),
    /// Who loaded has gone: whoever asks first now is the next.
    Abandoned,
}

impl Flight {
    pub(crate) fn new<M: Model>(loader: Option<ThreadId>) -> Self {
        Self {
            model: TypeId::of::<M>(),
            type_name: std::any::type_name::<M>(),
            loader,
            outcome: Mutex::new(None),
            done: Event::new(),
        }
    }

    pub(crate) fn is_for<M: Model>(&self) -> bool {
        self.model == TypeId::of::<M>()
    }

    pub(crate) fn loaded<M: Model>(&self, handle: ModelHandle<M>) {
        self.end(Outcome::Loaded(Box::new(handle)));
    }

    pub(crate) fn failed(&self, error: LoadError) {
        self.end(Outcome::Failed(error));
    }

    pub(crate) fn abandoned(&self) {
        self.end(Outcome::Abandoned);
    }

    fn end(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.done.notify(usize::MAX);
    }

    #[cfg(not(tensorbus_loom))]
    pub(crate) async fn landed<M: Model>(&self) -> Landed<M> {
        loop {
            let listener = self.done.listen();
            if let Some(landed) = self.outcome() {
                return landed;
            }
            listener.await;
        }
    }

    /// `None` if it has not ended by then.
    #[cfg(not(tensorbus_loom))]
    pub(crate) fn wait_until<M: Model>(&self, deadline: std::time::Instant) -> Option<Landed<M>> {
        use event_listener::Listener as _;
        loop {
            let listener = self.done.listen();
            if let Some(landed) = self.outcome() {
                return Some(landed);
            }
            if listener.wait_deadline(deadline).is_none() {
                return self.outcome();
            }
        }
    }

    pub(crate) fn wait<M: Model>(&self) -> Landed<M> {
        #[cfg(not(tensorbus_loom))]
        use event_listener::Listener as _;
        loop {
            // What ends from here on wakes; what ended before is seen.
            let listener = self.done.listen();
            if let Some(landed) = self.outcome() {
                return landed;
            }
            listener.wait();
        }
    }

    fn outcome<M: Model>(&self) -> Option<Landed<M>> {
        match lock(&self.outcome).as_ref()? {
            Outcome::Loaded(handle) => {
                // Of this type: who asks for another one does not wait.
                let handle = handle.downcast_ref::<ModelHandle<M>>()?;
                Some(Landed::Loaded(ModelHandle::awaited(handle.slot().clone())))
            }
            Outcome::Failed(error) => Some(Landed::Failed(error.clone())),
            Outcome::Abandoned => Some(Landed::Abandoned),
        }
    }
}
