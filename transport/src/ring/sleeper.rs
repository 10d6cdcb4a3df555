use super::{Bell, bell::Ring};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Somebody who may sleep, and where they hear: a bell, and the number of a socket, which may be another one for each sleep.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Sleeper {
    bell: Bell,
    unused: AtomicU32,
    socket: AtomicU64,
}

impl Sleeper {
    /// As [`Bell::lie_down`], to be woken at this socket.
    pub(crate) fn lie_down(&self, socket: u64) {
        self.socket.store(socket, Ordering::Relaxed);
        // Whoever sees the sleep sees the socket.
        fence(Ordering::Release);
        self.bell.lie_down();
    }

    /// As [`Bell::get_up`].
    pub(crate) fn get_up(&self) {
        self.bell.get_up();
    }

    /// After a change that the sleeper waits for, and a [`Bell::order`]: has `send` send a datagram to its socket if it sleeps.
    /// Returns whether it did.
    #[inline]
    pub(crate) fn wake(&self, send: impl FnOnce(u64)) -> bool {
        let Some(ring) = self.bell.sleeper() else { return false };
        self.ring(ring, send);
        true
    }

    #[cold]
    fn ring(&self, ring: Ring, send: impl FnOnce(u64)) {
        fence(Ordering::Acquire);
        send(self.socket.load(Ordering::Relaxed));
        self.bell.rung(ring);
    }
}
