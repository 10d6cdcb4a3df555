//! The deaths of a session's members, as a file of the session: whoever removes what a dead process left writes it down
//! here first, in a turn, and everyone can follow.
//!
//! | bytes | what |
//! |---|---|
//! | 0-7 | number of records ever written |
//! | 8-31 | zero |
//! | 32- | places for [`KEPT`] records of 32 bytes; record `n` is at place `n % KEPT` |
//!
//! | bytes of a record | what |
//! |---|---|
//! | 0-15 | the dead node's id |
//! | 16-19 | its process id |
//! | 20 | 1 if this record tells the death, 0 if another one of the same process does |
//! | 21-31 | zero |
//!
//! All numbers are little-endian. A record is complete before it is counted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::FileWatch;

const FILE: &str = ".deaths";
const RECORD: u64 = 32;
/// Records that are kept. A follower that is further behind misses some, and can tell how many.
const KEPT: u64 = 256;

#[derive(Debug)]
pub(super) struct DeathLog(File);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) node: u128,
    pub(super) pid: u32,
    pub(super) tells: bool,
}

/// Reads the deaths from one moment on.
#[derive(Debug)]
pub(crate) struct DeathFollower {
    log: DeathLog,
    watch: FileWatch,
    next: u64,
    missed: u64,
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl DeathLog {
    /// In a turn. The file has its full size from the beginning: nobody's death is lost because the memory is full.
    pub(super) fn open_or_create(directory: &Path) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path(directory))?;
        if file.metadata()?.len() < RECORD * (KEPT + 1) {
            file.write_all_at(&[0; (RECORD * (KEPT + 1)) as usize], 0)?;
        }
        Ok(Self(file))
    }

    fn count(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read(&self, number: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD as usize];
        self.0.read_exact_at(&mut bytes, place(number))?;
        Ok(Record::decode(bytes))
    }

    /// All records that are kept. In a turn.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let count = self.count()?;
        (count.saturating_sub(KEPT)..count).map(|number| self.read(number)).collect()
    }

    /// In a turn.
    pub(super) fn append(&self, records: &[Record]) -> io::Result<()> {
        let mut count = self.count()?;
        for record in records {
            self.0.write_all_at(&record.encode(), place(count))?;
            count = count.wrapping_add(1);
            self.0.write_all_at(&count.to_le_bytes(), 0)?;
        }
        Ok(())
    }
}

fn place(number: u64) -> u64 {
    RECORD * (1 + number % KEPT)
}

impl Record {
    fn encode(self) -> [u8; RECORD as usize] {
        let mut bytes = [0; RECORD as usize];
        bytes[..16].copy_from_slice(&self.node.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.pid.to_le_bytes());
        bytes[20] = self.tells.into();
        bytes
    }

    fn decode(bytes: [u8; RECORD as usize]) -> Self {
        let (mut node, mut pid) = ([0; 16], [0; 4]);
        node.copy_from_slice(&bytes[..16]);
        pid.copy_from_slice(&bytes[16..20]);
        Self { node: u128::from_le_bytes(node), pid: u32::from_le_bytes(pid), tells: bytes[20] == 1 }
    }
}

impl DeathFollower {
    /// Deaths that are written down from now on.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let watch = FileWatch::new(&path(directory))?;
        let log = DeathLog(File::open(path(directory))?);
        let next = log.count()?;
        Ok(Self { log, watch, next, missed: 0 })
    }

    /// Process id of the next one that died.
    pub(crate) fn try_next(&mut self) -> io::Result<Option<u32>> {
        loop {
            if self.next >= self.log.count()? {
                return Ok(None);
            }
            let record = self.log.read(self.next)?;
            // Counted after reading: a record whose place was taken since is not the one that was asked for.
            let oldest = self.log.count()?.saturating_sub(KEPT - 1);
            if self.next < oldest {
                self.missed += oldest - self.next;
                self.next = oldest;
                continue;
            }
            self.next += 1;
            if record.tells {
                return Ok(Some(record.pid));
            }
        }
    }

    /// Records that were overwritten before they were read.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Before the look that a wait follows.
    pub(crate) fn ready_to_wait(&self) -> io::Result<()> {
        self.watch.clear()
    }

    /// Readable once something was written since `ready_to_wait`.
    #[cfg(target_os = "linux")]
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.watch.as_fd()
    }

    pub(crate) fn wait(&self, bound: Duration) -> io::Result<()> {
        self.watch.wait(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, tells: bool) -> Record {
        Record { node: u128::from(number) << 70 | 5, pid: number as u32, tells }
    }

    #[test]
    fn a_follower_reads_what_is_written_from_now_on() {
        let directory = tempfile::tempdir().unwrap();
        let log = DeathLog::open_or_create(directory.path()).unwrap();
        log.append(&[record(1, true)]).unwrap();
        let mut follower = DeathFollower::new(directory.path()).unwrap();
        assert_eq!(follower.try_next().unwrap(), None);
        log.append(&[record(2, true), record(3, false), record(4, true)]).unwrap();
        follower.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(follower.try_next().unwrap(), Some(2));
        assert_eq!(follower.try_next().unwrap(), Some(4));
        assert_eq!(follower.try_next().unwrap(), None);
        let again = DeathLog::open_or_create(directory.path()).unwrap();
        assert_eq!(again.records().unwrap().last(), Some(&record(4, true)));
    }

    #[test]
    fn who_is_too_far_behind_knows_what_it_missed() {
        let directory = tempfile::tempdir().unwrap();
        let log = DeathLog::open_or_create(directory.path()).unwrap();
        let mut follower = DeathFollower::new(directory.path()).unwrap();
        let records: Vec<_> = (0..KEPT + 10).map(|number| record(number, true)).collect();
        log.append(&records).unwrap();
        let seen: Vec<_> = std::iter::from_fn(|| follower.try_next().unwrap()).collect();
        assert_eq!(follower.missed() + seen.len() as u64, KEPT + 10);
        assert_eq!(seen.last(), Some(&(KEPT as u32 + 9)));
        assert!(seen.is_sorted());
        assert_eq!(log.records().unwrap().len() as u64, KEPT);
    }
}
