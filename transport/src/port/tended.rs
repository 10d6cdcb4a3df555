use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Look = Box<dyn Fn() + Send>;

/// The ports of one member, to be looked after while nobody uses them: publishers give late joiners their history,
/// subscribers open their side of new connections.
///
/// A look never waits for a port that is in use: whoever uses it looks after it. And it never owns one: what is
/// in the list has a share of iceoryx2's port only, and is taken off before the `Sender` or `Receiver` goes. So no port,
/// and no bus, is ever taken down by the thread that looks after it.
#[derive(Default)]
pub(crate) struct Tended {
    looks: Mutex<Vec<(u64, Look)>>,
    next: AtomicU64,
}

impl Tended {
    fn looks(&self) -> MutexGuard<'_, Vec<(u64, Look)>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the key to take it off again.
    pub(super) fn add(&self, look: impl Fn() + Send + 'static) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.looks().push((key, Box::new(look)));
        key
    }

    /// Afterwards nobody is looking, or will.
    pub(super) fn remove(&self, key: u64) {
        let removed = {
            let mut looks = self.looks();
            looks.iter().position(|(other, _)| *other == key).map(|index| looks.swap_remove(index))
        };
        drop(removed);
    }

    /// Looks after every port that nobody uses just now.
    pub(crate) fn tend(&self) {
        for (_, look) in self.looks().iter() {
            look();
        }
    }
}

impl fmt::Debug for Tended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tended").finish_non_exhaustive()
    }
}
