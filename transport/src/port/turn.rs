//! One process at a time changes what a session is made of.
//!
//! iceoryx2 makes and removes nodes, services and ports in several steps. Whoever is killed between two of them leaves
//! half a thing, which stops all others: they cannot tell it from one that is just being made. So each such change is
//! made in a turn: under a file lock, which the kernel gives back at death. Who takes a turn and finds that the one before
//! did not end knows that everything half-made is of the dead, and removes it.
//!
//! Messages need no turn: only joining, opening, and leaving do.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::repair;
use crate::os::{Deadline, Forked, Owned, keep_from_children};
use crate::pool::settle_session;

/// The file that is locked. It holds the process id of the one whose turn it is, zero between turns.
const TURN_FILE: &str = ".turn";
/// Longest wait for a turn. One takes less than a millisecond; making room for a large pool may take seconds.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Longest pause between two tries.
const LONGEST_NAP: Duration = Duration::from_millis(1);

thread_local! {
    /// Sessions in which this thread has the turn: a change may be part of another one.
    static MINE: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

/// Why there is no turn.
#[derive(Debug)]
pub(crate) enum TurnError {
    /// Another process takes too long.
    Busy {
        pid: u32,
        waited: Duration,
    },
    Io(io::Error),
}

impl std::fmt::Display for TurnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy { pid, waited } => {
                write!(f, "process {pid} is in the middle of changing the session for {waited:?}; is it stopped?")
            }
            Self::Io(error) => write!(f, "{TURN_FILE}: {error}"),
        }
    }
}

/// The right to change what the session is made of, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` within a turn that this thread has already.
    locked: Option<(File, PathBuf)>,
}

impl Turn {
    /// Waits for the turn, and repairs what was left by one who died in theirs.
    pub(crate) fn take(directory: &Path) -> Result<Self, TurnError> {
        Self::take_within(directory, LONGEST_WAIT)
    }

    /// The same with another longest wait.
    pub(crate) fn take_within(directory: &Path, longest_wait: Duration) -> Result<Self, TurnError> {
        if Self::is_mine(directory) {
            return Ok(Self { locked: None });
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(TURN_FILE))
            .map_err(TurnError::Io)?;
        lock(&file, longest_wait)?;
        let before = read_pid(&file);
        file.write_all_at(&std::process::id().to_ne_bytes(), 0).map_err(TurnError::Io)?;
        MINE.with_borrow_mut(|mine| mine.push(directory.to_owned()));
        let turn = Self { locked: Some((file, directory.to_owned())) };
        if before != 0 {
            tracing::warn!(
                pid = before,
                "a process died while it changed the session; what it left half-made is removed"
            );
            repair::remove_half_made(directory);
            // Before any clean-up: a pool that the dead one made may be mapped already.
            settle_session(directory);
        }
        Ok(turn)
    }

    /// Whether this thread has the turn.
    pub(super) fn is_mine(directory: &Path) -> bool {
        MINE.with_borrow(|mine| mine.iter().any(|path| path == directory))
    }
}

/// Waits until nobody changes the session or looks whether it is in use, and keeps it so until the file is dropped. Unlike a
/// turn it repairs nothing: what lies there may be the remains of a session. `None` if nobody ever had a turn, or it takes too long.
pub(crate) fn hold_still(directory: &Path) -> Option<File> {
    if Turn::is_mine(directory) {
        return None;
    }
    let file = File::open(directory.join(TURN_FILE)).ok()?;
    lock(&file, LONGEST_WAIT).ok()?;
    Some(file)
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((file, directory)) = &self.locked {
            settle_session(directory);
            keep_from_children(directory);
            MINE.with_borrow_mut(|mine| mine.retain(|path| path != directory));
            // If it cannot be written, the next one repairs once more, which does no harm.
            let _ = file.write_all_at(&0_u32.to_ne_bytes(), 0);
            // Unlocked rather than only closed: a child that was forked in the meantime shares the open file.
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

/// Whether nobody is in a turn, and nobody died in one.
pub(super) fn is_between_turns(directory: &Path) -> bool {
    File::open(directory.join(TURN_FILE)).map_or(true, |file| read_pid(&file) == 0)
}

fn lock(file: &File, longest_wait: Duration) -> Result<(), TurnError> {
    let deadline = Deadline::after(longest_wait);
    let mut nap = Duration::from_micros(10);
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(TurnError::Io(errno.into())),
        }
        if deadline.left().is_none() {
            return Err(TurnError::Busy { pid: read_pid(file), waited: longest_wait });
        }
        std::thread::sleep(nap);
        nap = (2 * nap).min(LONGEST_NAP);
    }
}

fn read_pid(file: &File) -> u32 {
    let mut pid = [0; 4];
    match file.read_exact_at(&mut pid, 0) {
        Ok(()) => u32::from_ne_bytes(pid),
        Err(_) => 0,
    }
}

/// A part of the session that is removed in a turn, by the process that made it.
#[derive(Debug)]
pub(crate) struct Part<T> {
    value: ManuallyDrop<Owned<T>>,
    directory: PathBuf,
}

impl<T> Part<T> {
    pub(crate) fn new(value: T, directory: &Path) -> Self {
        Self { value: ManuallyDrop::new(Owned::new(value)), directory: directory.to_owned() }
    }

    #[inline]
    pub(crate) fn get(&self) -> Result<&T, Forked> {
        self.value.get()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        if self.value.get().is_err() {
            return;
        }
        // Without the turn it goes all the same: the worst is that others meet it half removed for a moment.
        let _turn = Turn::take(&self.directory)
            .inspect_err(|error| tracing::warn!(%error, "leaving the session without the turn"));
        // SAFETY: dropped here only, and never used after.
        unsafe { ManuallyDrop::drop(&mut self.value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn turns_do_not_overlap_between_threads() {
        let directory = tempfile::tempdir().unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = Turn::take(directory.path()).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        let _within = Turn::take(directory.path()).unwrap();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
        assert_eq!(read_pid(&File::open(directory.path().join(TURN_FILE)).unwrap()), 0);
    }

    #[test]
    fn who_waits_too_long_for_a_turn_is_told_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let _turn = Turn::take(directory.path()).unwrap();
        let bound = Duration::from_millis(5);
        let other = std::thread::scope(|scope| {
            scope.spawn(|| Turn::take_within(directory.path(), bound).unwrap_err().to_string()).join().unwrap()
        });
        assert!(other.contains(&format!("process {} is in the middle", std::process::id())), "{other}");
    }

    #[test]
    fn who_dies_in_a_turn_is_noticed_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("nodes/17")).unwrap();
        drop(Turn::take(directory.path()).unwrap());
        assert!(directory.path().join("nodes/17").exists(), "nobody died, so nothing is half-made");
        std::fs::write(directory.path().join(TURN_FILE), 4_000_000_u32.to_ne_bytes()).unwrap();
        drop(Turn::take(directory.path()).unwrap());
        assert!(!directory.path().join("nodes/17").exists());
    }
}
