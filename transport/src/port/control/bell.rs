//! How one side of a control service sleeps until the other has something for it. Nothing else here knows how.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::FileDescriptorBased;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::service::SessionService;
use super::super::shield::shield;

/// No sleep is longer than this before the queue is looked at again, whatever wake-ups say; and so long a dead peer may go
/// unnoticed.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What can be waited for while another thread uses the listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct WakeUp(RawFd);

impl WakeUp {
    /// # Safety
    /// The listener lives as long as anyone waits.
    pub(super) unsafe fn of(listener: &Listener<SessionService>) -> Self {
        // SAFETY: only read to wait for it; the listener keeps owning the descriptor.
        Self(unsafe { listener.file_descriptor().native_handle() })
    }

    /// Sleeps until a wake-up is pending or the time is over. Returns whether one is pending.
    pub(super) fn wait(self, bound: Duration) -> Result<bool, String> {
        let bound = bound.min(LONGEST_SLEEP);
        let timeout = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
        // SAFETY: `of` was promised that the listener, which owns the descriptor, lives.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.0) };
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(format!("poll: {error}")),
        }
    }

    /// Takes all pending wake-ups away, so that what comes from now on makes a new one.
    pub(super) fn drain(self, listener: &Listener<SessionService>) -> Result<(), String> {
        // One call takes a datagram or two out of a socket that may hold more: ask until it is empty.
        loop {
            match shield(|| listener.try_wait(|_| {})) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(format!("listener: {error:?}")),
                Err(panicked) => return Err(panicked.0),
            }
            if !self.wait(Duration::ZERO)? {
                return Ok(());
            }
        }
    }
}

/// Wakes everyone at the other end. Whoever cannot be woken is gone, or has its wake-up pending already.
pub(super) fn ring(notifier: &Notifier<SessionService>) {
    let _ = shield(|| notifier.notify());
}
