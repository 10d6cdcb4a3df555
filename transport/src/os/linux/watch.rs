use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

/// Tells when a file is written to (inotify).
#[derive(Debug)]
pub(crate) struct FileWatch(OwnedFd);

impl FileWatch {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY)?;
        Ok(Self(watch))
    }

    /// Forgets what was written so far: what is written from now on ends the next wait.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let mut events = [0_u8; 1024];
        loop {
            match rustix::io::read(&self.0, &mut events) {
                Ok(0) | Err(Errno::WOULDBLOCK) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sleeps until the file was written to since [`FileWatch::clear`], or the time is over.
    pub(crate) fn wait(&self, bound: Duration) -> io::Result<()> {
        let seconds = bound.as_secs().try_into().unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: bound.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
