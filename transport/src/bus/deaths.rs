use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::handle::BusInner;
use super::session::SessionError;
use crate::os::Deadline;
use crate::port::DeathFollower;

/// A member of the session that ended without leaving it: killed, crashed, or exited in the middle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Death {
    /// Its process id. Another process may have it by now.
    pub pid: u32,
}

/// The deaths of members of the session, from the moment it was made with [`Bus::deaths`](crate::Bus::deaths).
///
/// A death is told by whoever removes what the dead process left: a [`ServiceThread`](crate::ServiceThread) of any
/// member, [`Bus::remove_dead`](crate::Bus::remove_dead), or a process that joins, opens a topic, or leaves. It is told
/// once, to everyone who follows, the one that removed it included. How soon depends on them alone: with a service
/// thread somewhere in the session, within its interval.
///
/// A process that is stopped (SIGSTOP) or hangs is alive.
#[derive(Debug)]
pub struct Deaths {
    follower: DeathFollower,
    bus: Arc<BusInner>,
}

impl Deaths {
    pub(super) fn follow(bus: Arc<BusInner>) -> Result<Self, SessionError> {
        let follower = DeathFollower::new(bus.directory()).map_err(|reason| io_error(&bus, reason))?;
        Ok(Self { follower, bus })
    }

    /// The next death, if one was told.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn try_recv(&mut self) -> Result<Option<Death>, SessionError> {
        if !self.bus.is_ours() {
            return Err(SessionError::Forked);
        }
        let pid = self.follower.try_next().map_err(|reason| io_error(&self.bus, reason))?;
        Ok(pid.map(|pid| Death { pid }))
    }

    /// Waits for the next death, at most as long as `timeout`; `None` if nobody died.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Death>, SessionError> {
        let deadline = Deadline::after(timeout);
        loop {
            self.follower.ready_to_wait().map_err(|reason| io_error(&self.bus, reason))?;
            if let Some(death) = self.try_recv()? {
                return Ok(Some(death));
            }
            let Some(left) = deadline.left() else { return Ok(None) };
            self.follower.wait(left).map_err(|reason| io_error(&self.bus, reason))?;
        }
    }

    /// Makes the descriptor unreadable, and readable again when deaths are told: for an event loop of one's own.
    ///
    /// In this order no death is missed: `arm`, then [`Deaths::try_recv`] until it gives `None`, then wait until the descriptor
    /// ([`AsFd`]) is readable, and again from the start.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    #[cfg(target_os = "linux")]
    pub fn arm(&self) -> Result<(), SessionError> {
        self.follower.ready_to_wait().map_err(|reason| io_error(&self.bus, reason))
    }

    /// Deaths that were not seen because hundreds were told between two calls: the session keeps the last 256 members.
    pub fn missed(&self) -> u64 {
        self.follower.missed()
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Deaths {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.follower.as_fd()
    }
}

fn io_error(bus: &BusInner, reason: io::Error) -> SessionError {
    SessionError::Io { path: bus.directory().to_owned(), reason }
}
