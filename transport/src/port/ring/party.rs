use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::segment::{Place, Segment};
use crate::os::{Mapping, is_used_elsewhere, keep_from_forks, monotonic_ns};
use crate::pool::path_of;
use crate::port::turn::Turn;
use crate::port::wake::Ringer;
use crate::ring::Bell;
use crate::sync::Ordering;

/// Pause between two looks for the dead, whoever looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for the turn in which the dead are buried. Who does not get it looks again a little later.
const PATIENCE: Duration = Duration::from_millis(20);

/// Which table a party is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Client,
    Worker,
}

/// What a client and a worker have in common: the ring, a place in it, and a file that says as long as it is mapped that they live.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) segment: Segment,
    pub(super) index: u16,
    role: Role,
    _mark: Mapping,
    mark_path: PathBuf,
    directory: PathBuf,
    ringer: Arc<Ringer>,
}

impl Role {
    fn places(self, segment: &Segment) -> &[Place] {
        let (places, count) = match self {
            Self::Client => (segment.clients(), &segment.counts().clients),
            Self::Worker => (segment.workers(), &segment.counts().workers),
        };
        // The number lies in shared memory: it counts for no more than there is.
        &places[..(count.load(Ordering::Acquire) as usize).min(places.len())]
    }

    /// The file that says that a party lives.
    fn mark(self, ring: &Path, index: usize) -> PathBuf {
        path_of(ring, &format!("{}{index}", if self == Self::Client { 'c' } else { 'w' }))
    }
}

impl Party {
    /// In a turn. `None` if all places are taken by the living.
    pub(super) fn enter(
        segment: Segment,
        role: Role,
        directory: &Path,
        ringer: &Arc<Ringer>,
    ) -> io::Result<Option<Self>> {
        bury_the_dead(&segment, directory, ringer);
        let (places, count) = match role {
            Role::Client => (segment.clients(), &segment.counts().clients),
            Role::Worker => (segment.workers(), &segment.counts().workers),
        };
        let Some(index) = places.iter().position(|place| place.taken.load(Ordering::Relaxed) == 0) else {
            return Ok(None);
        };
        let mark_path = role.mark(segment.path(), index);
        let mark = new_mark(&mark_path)?;
        let place = &places[index];
        place.sleeper.get_up();
        place.pid.store(std::process::id(), Ordering::Relaxed);
        // Whoever sees the next one in the place sees that no row is the last one's any more.
        place.tenants.fetch_add(1, Ordering::Release);
        // First: a place that is taken and not counted would be looked at by nobody, were this process killed in between.
        count.fetch_max(index as u32 + 1, Ordering::Release);
        place.taken.store(1, Ordering::Release);
        Ok(Some(Self {
            index: index as u16,
            role,
            _mark: mark,
            mark_path,
            directory: directory.to_owned(),
            ringer: ringer.clone(),
            segment,
        }))
    }

    /// Its own place.
    pub(super) fn place(&self) -> &Place {
        let places = match self.role {
            Role::Client => self.segment.clients(),
            Role::Worker => self.segment.workers(),
        };
        &places[usize::from(self.index)]
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn has_workers(&self) -> bool {
        // Whoever sees a place free sees what was done to the rows before.
        Role::Worker.places(&self.segment).iter().any(|place| place.taken.load(Ordering::Acquire) != 0)
    }

    /// Process ids of the living.
    pub(super) fn pids(&self, role: Role) -> Vec<u32> {
        let taken = role.places(&self.segment).iter().filter(|place| place.taken.load(Ordering::Relaxed) != 0);
        taken.map(|place| place.pid.load(Ordering::Relaxed)).collect()
    }

    /// After a request was submitted: one worker that sleeps is woken.
    #[inline]
    pub(super) fn wake_a_worker(&self) {
        Bell::order();
        let workers = Role::Worker.places(&self.segment);
        workers.iter().any(|place| place.sleeper.wake(|socket| self.ringer.ring(&self.directory, socket)));
    }

    /// After a request was answered: its client, if it sleeps.
    #[inline]
    pub(super) fn wake_client_of(&self, row: usize) {
        Bell::order();
        let sleeper = &self.segment.rows().heads[row].sleeper;
        sleeper.wake(|socket| self.ringer.ring(&self.directory, socket));
    }

    /// After a row was made free: one client that waits for one. In an isolated ring all of them, since only one of them may have a
    /// slot for it.
    #[inline]
    pub(super) fn wake_who_wants_a_row(&self) {
        Bell::order();
        wake_wanting(&self.segment, &self.directory, &self.ringer, !self.segment.geometry().is_isolated());
    }

    /// Buries the dead, unless somebody has looked just now, or nobody gets a turn.
    pub(super) fn look_for_dead(&self) {
        let looked = &self.segment.counts().looked;
        let (before, now) = (looked.load(Ordering::Relaxed), monotonic_ns());
        let is_due = now.wrapping_sub(before) >= LOOK_EVERY.as_nanos() as u64;
        if is_due && looked.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            match Turn::take_within(&self.directory, PATIENCE) {
                Ok(_turn) => bury_the_dead(&self.segment, &self.directory, &self.ringer),
                Err(error) => tracing::debug!(%error, "could not look for dead clients and workers of a ring"),
            }
        }
    }
}

impl Drop for Party {
    /// In a turn. Nothing is left, whatever its user has leaked. If others kept the turn for too long it goes without: then one of them
    /// may be giving the place away, and the file that is there is the next one's. If it is still ours, the next one replaces it.
    fn drop(&mut self) {
        let mark = Turn::is_mine(&self.directory).then_some(&*self.mark_path);
        leave(&self.segment, self.role, usize::from(self.index), mark);
        wake_all(&self.segment, &self.directory, &self.ringer);
    }
}

/// In a turn. A step that is begun and not finished is done again by the next one, from the beginning.
fn leave(segment: &Segment, role: Role, index: usize, mark: Option<&Path>) {
    let place = match role {
        Role::Client => {
            segment.rows().bury_client(index as u16);
            segment.wanting().clear(index);
            &segment.clients()[index]
        }
        Role::Worker => {
            let repeated = segment.rows().bury_worker(index as u16, segment.geometry().may_repeat());
            segment.counts().repeated.fetch_add(repeated as u64, Ordering::Relaxed);
            &segment.workers()[index]
        }
    };
    place.sleeper.get_up();
    place.taken.store(0, Ordering::Release);
    if let Some(mark) = mark {
        if role == Role::Client {
            let _ = std::fs::remove_file(slots_path(segment.path(), index));
        }
        let _ = std::fs::remove_file(mark);
    }
}

/// The file that a client's data lies in, if the ring is isolated.
pub(super) fn slots_path(ring: &Path, client: usize) -> PathBuf {
    path_of(ring, &format!("d{client}"))
}

/// In a turn. Workers first: what a dead worker ran for a dead client is then withdrawn, and not run again.
fn bury_the_dead(segment: &Segment, directory: &Path, ringer: &Ringer) {
    let mut buried = 0;
    for role in [Role::Worker, Role::Client] {
        for (index, place) in role.places(segment).iter().enumerate() {
            let mark = role.mark(segment.path(), index);
            if place.taken.load(Ordering::Acquire) != 0 && is_dead(&mark) {
                leave(segment, role, index, Some(&mark));
                buried += 1;
            }
        }
    }
    if buried > 0 {
        tracing::debug!(buried, ring = %segment.path().display(), "removed dead clients and workers of a ring");
        wake_all(segment, directory, ringer);
    }
}

/// Whether nobody has the file mapped any more. Whatever else may be is no proof.
fn is_dead(mark: &Path) -> bool {
    File::open(mark).and_then(|file| is_used_elsewhere(&file)).is_ok_and(|used| !used)
}

fn wake_all(segment: &Segment, directory: &Path, ringer: &Ringer) {
    Bell::order();
    for head in segment.rows().heads {
        head.sleeper.wake(|socket| ringer.ring(directory, socket));
    }
    for worker in Role::Worker.places(segment) {
        worker.sleeper.wake(|socket| ringer.ring(directory, socket));
    }
    wake_wanting(segment, directory, ringer, false);
}

/// Clients that wait for a row: the first one that sleeps, or all.
#[inline]
fn wake_wanting(segment: &Segment, directory: &Path, ringer: &Ringer, only_one: bool) {
    let (wanting, clients) = (segment.wanting(), segment.clients());
    let mut next = 0;
    while let Some(client) = wanting.first(next).filter(|&client| client >= next) {
        if clients[client].sleeper.wake(|socket| ringer.ring(directory, socket)) && only_one {
            return;
        }
        next = client + 1;
        if next == clients.len() {
            return;
        }
    }
}

/// A file that nobody else has, mapped and closed. A forked child does not have it.
fn new_mark(path: &Path) -> io::Result<Mapping> {
    let _ = std::fs::remove_file(path);
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(1)?;
    let mapping = Mapping::read_only(&file, 1)?;
    keep_from_forks(&mapping)?;
    Ok(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Dtype;
    use crate::port::ring::geometry::{Geometry, RingSpec};

    fn ring(directory: &Path) -> PathBuf {
        let spec = RingSpec {
            inputs: vec![("x".into(), Dtype::U8, vec![1])],
            outputs: vec![("y".into(), Dtype::U8, vec![1])],
            rows: 2,
            credits: 2,
            may_repeat: false,
            isolated: false,
        };
        let path = directory.join("ring@0");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        Segment::create(&file, &path, Geometry::new(&spec).unwrap()).unwrap();
        path
    }

    fn enter(ring: &Path) -> Party {
        let file = File::options().read(true).write(true).open(ring).unwrap();
        let segment = Segment::map(&file, ring, Segment::look(&file).unwrap()).unwrap();
        let ringer = Arc::new(Ringer::new().unwrap());
        Party::enter(segment, Role::Client, ring.parent().unwrap(), &ringer).unwrap().unwrap()
    }

    #[test]
    fn who_leaves_without_the_turn_leaves_the_file_of_the_next_one_alone() {
        let directory = tempfile::tempdir().unwrap();
        let ring = ring(directory.path());
        let leaves = enter(&ring);
        let mark = leaves.mark_path.clone();
        // As one would who does not get the turn.
        drop(leaves);
        assert!(mark.exists(), "by now it may be another one's");
        let _turn = Turn::take(directory.path()).unwrap();
        let next = enter(&ring);
        assert_eq!((&next.mark_path, next.index), (&mark, 0), "the place is free all the same");
        drop(next);
        assert!(!mark.exists());
    }

    #[test]
    fn free_places_are_given_away_from_the_front_and_all_that_were_taken_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let ring = ring(directory.path());
        let _turn = Turn::take(directory.path()).unwrap();
        let (first, second) = (enter(&ring), enter(&ring));
        assert_eq!((first.index, second.index), (0, 1));
        assert_eq!(first.pids(Role::Client), [std::process::id(); 2]);
        drop(first);
        assert_eq!(enter(&ring).index, 0);
        assert_eq!(second.segment.counts().clients.load(Ordering::Relaxed), 2);
    }
}
