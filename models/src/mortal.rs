//! Processes that die: threads that end at a crash point, and the atomics whose changes are followed by one.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::sync::atomic::Ordering;
use loom::thread::ThreadId;

thread_local! {
    /// Threads of the model that die, and after how many crash points: loom runs them all on the test's thread.
    static MORTALS: RefCell<Vec<(ThreadId, usize)>> = const { RefCell::new(Vec::new()) };
    static UNORDERED: Cell<bool> = const { Cell::new(false) };
}

struct Died;

/// Runs what a process does that dies after so many crash points. `None` if it died.
pub(crate) fn mortal<R>(crash_points: usize, run: impl FnOnce() -> R) -> Option<R> {
    let me = loom::thread::current().id();
    MORTALS.with_borrow_mut(|mortals| mortals.push((me, crash_points)));
    let result = catch_unwind(AssertUnwindSafe(run));
    MORTALS.with_borrow_mut(|mortals| mortals.retain(|(id, _)| *id != me));
    match result {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Died>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// Forgets who was mortal in a run of the model that a failed assertion ended.
pub(crate) fn nobody_is_mortal() {
    MORTALS.with_borrow_mut(Vec::clear);
}

pub(crate) fn crash_point() {
    let me = loom::thread::current().id();
    let dies = MORTALS.with_borrow_mut(|mortals| {
        let Some((_, left)) = mortals.iter_mut().find(|(id, _)| *id == me) else { return false };
        *left -= 1;
        *left == 0
    });
    if dies {
        resume_unwind(Box::new(Died));
    }
}

/// Plants a bug in all models of this test: the words order nothing.
pub(crate) fn order_nothing() {
    UNORDERED.set(true);
}

/// loom's, whose orderings can be taken away.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

fn weakened(ordering: Ordering) -> Ordering {
    if UNORDERED.get() { Ordering::Relaxed } else { ordering }
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(weakened(ordering))
    }

    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, weakened(ordering));
    }

    pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_add(value, weakened(ordering))
    }

    pub(crate) fn fetch_max(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_max(value, weakened(ordering))
    }

    pub(crate) fn fetch_or(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_or(value, weakened(ordering))
    }

    pub(crate) fn fetch_and(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_and(value, weakened(ordering))
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(from, to, weakened(success), weakened(failure))
    }
}
