use std::time::Duration;

use crate::sync::{Condvar, Mutex, lock};

use super::clock::Clock;

/// When the registry's timer is to look for idle models whose time is over.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    set: Mutex<Set>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Set {
    at: Option<Duration>,
    stopped: bool,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, set: Mutex::new(Set::default()), changed: Condvar::new() }
    }

    /// Sets the alarm, unless it is set for an earlier time.
    pub(crate) fn ring_at(&self, time: Duration) {
        let mut set = lock(&self.set);
        if set.at.is_none_or(|at| at > time) {
            set.at = Some(time);
            self.changed.notify_all();
        }
    }

    pub(crate) fn ring_now(&self) {
        self.ring_at(Duration::ZERO);
    }

    /// Ends all waiting.
    pub(crate) fn stop(&self) {
        lock(&self.set).stopped = true;
        self.changed.notify_all();
    }

    /// Waits until the alarm rings, and unsets it. False if it was stopped.
    #[cfg(not(tensorbus_loom))]
    pub(crate) fn wait(&self) -> bool {
        let mut set = lock(&self.set);
        loop {
            if set.stopped {
                return false;
            }
            let left = set.at.map(|at| self.clock.until(at));
            set = match left {
                Some(Duration::ZERO) => {
                    set.at = None;
                    return true;
                }
                Some(left) => match self.changed.wait_timeout(set, left) {
                    Ok((set, _)) => set,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => self.changed.wait(set).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }

    /// Whether the alarm has rung; unsets it.
    #[cfg(tensorbus_loom)]
    pub(crate) fn has_rung(&self) -> bool {
        lock(&self.set).at.take_if(|at| self.clock.until(*at).is_zero()).is_some()
    }
}
