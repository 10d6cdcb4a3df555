use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::open::{RingFailure, enter};
use super::party::{Party, Role};
use super::segment::Segment;
use super::wait::{Spin, sleep_until};
use crate::os::{Deadline, Forked};
use crate::port::node::Node;
use crate::port::turn::{Part, Turn};
use crate::port::wake::Socket;
use crate::ring::Outcome;

/// A client of a request ring. Threads may share it.
#[derive(Debug)]
pub(crate) struct RingClientPort {
    client: Part<Client>,
    /// What the ring lives in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug)]
struct Client {
    party: Party,
    /// Rows that this client has.
    held: AtomicUsize,
    /// One thread at a time waits for a free row: a client has one place to hear of it.
    waits_for_a_row: Gate,
    spin: Spin,
    /// Those that nobody waits at.
    sockets: Mutex<Vec<Socket>>,
}

/// Why there is no row.
#[derive(Debug)]
pub(crate) enum RowFailure {
    NoCredits { credits: usize },
    Full { rows: usize },
    Forked,
    Io(io::Error),
}

/// What came of waiting for an answer.
#[derive(Debug)]
pub(crate) enum Waited {
    Ended(Outcome),
    NoWorker,
    Timeout,
}

impl From<Forked> for RowFailure {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl From<Errno> for RowFailure {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl RingClientPort {
    pub(crate) fn create(
        node: &Node,
        name: &str,
        spin: Duration,
        home: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, RingFailure> {
        let _turn = Turn::take(node.directory())?;
        let party = enter(node, name, Role::Client)?;
        let client = Client {
            party,
            held: AtomicUsize::new(0),
            waits_for_a_row: Gate::default(),
            spin: Spin::new(spin),
            sockets: Mutex::default(),
        };
        Ok(Self { client: Part::new(client, node.directory()), _home: home })
    }

    pub(crate) fn segment(&self) -> Result<&Segment, Forked> {
        Ok(&self.client.get()?.party.segment)
    }

    /// Process ids of the workers.
    pub(crate) fn workers(&self) -> Result<Vec<u32>, Forked> {
        Ok(self.client.get()?.party.pids(Role::Worker))
    }

    /// Requests that were run again, since the ring was made.
    pub(crate) fn repeated(&self) -> Result<u64, Forked> {
        Ok(self.client.get()?.party.segment.counts().repeated.load(Ordering::Relaxed))
    }

    /// A row to write inputs into; waits for one at most until the deadline.
    #[inline]
    pub(crate) fn loan(&self, deadline: &Deadline) -> Result<usize, RowFailure> {
        let client = self.client.get()?;
        let credits = client.party.segment.geometry().credits();
        if client.held.fetch_add(1, Ordering::Relaxed) >= credits {
            client.held.fetch_sub(1, Ordering::Relaxed);
            return Err(RowFailure::NoCredits { credits });
        }
        let row = match client.party.segment.rows().loan(client.party.index) {
            Some(row) => Ok(row),
            None => client.wait_for_a_row(deadline),
        };
        if row.is_err() {
            client.held.fetch_sub(1, Ordering::Relaxed);
        }
        row
    }

    /// Gives the row to the workers.
    #[inline]
    pub(crate) fn submit(&self, row: usize) -> Result<(), Forked> {
        let party = &self.client.get()?.party;
        party.segment.rows().submit(row, party.index);
        party.wake_a_worker();
        Ok(())
    }

    /// How the request in the row ended, if it did.
    #[inline]
    pub(crate) fn answer(&self, row: usize) -> Result<Option<Outcome>, Forked> {
        let party = &self.client.get()?.party;
        Ok(party.segment.rows().answer(row, party.index))
    }

    /// Waits until the request in the row has ended.
    #[inline]
    pub(crate) fn wait(&self, row: usize, deadline: &Deadline) -> Result<Waited, RowFailure> {
        let client = self.client.get()?;
        let party = &client.party;
        let look = || party.segment.rows().answer(row, party.index).map(Waited::Ended);
        if let Some(ended) = client.spin.look(look) {
            return Ok(ended);
        }
        let sleeper = &party.segment.rows().heads[row].sleeper;
        let give_up = || (!party.has_workers()).then_some(Waited::NoWorker);
        let waited = client.with_socket(|socket| sleep_until(party, sleeper, socket, deadline, look, give_up))?;
        Ok(waited.unwrap_or(Waited::Timeout))
    }

    /// Why the request in the row failed, as its worker says.
    pub(crate) fn text(&self, row: usize) -> Result<String, Forked> {
        Ok(self.client.get()?.party.segment.read_text(row))
    }

    /// The row is not needed any more, whatever it was used for.
    #[inline]
    pub(crate) fn let_go(&self, row: usize) {
        let Ok(client) = self.client.get() else { return };
        if client.party.segment.rows().let_go(row, client.party.index) {
            client.party.wake_who_wants_a_row();
        }
        client.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    #[cold]
    fn wait_for_a_row(&self, deadline: &Deadline) -> Result<usize, RowFailure> {
        let segment = &self.party.segment;
        let full = || RowFailure::Full { rows: segment.geometry().rows() };
        let look = || segment.rows().loan(self.party.index);
        if deadline.left().is_none() {
            return Err(full());
        }
        if let Some(row) = self.spin.look(look) {
            return Ok(row);
        }
        let _alone = self.waits_for_a_row.enter(deadline).ok_or_else(full)?;
        let index = usize::from(self.party.index);
        segment.wanting().set(index);
        let sleeper = &self.party.place().sleeper;
        let found = self.with_socket(|socket| sleep_until(&self.party, sleeper, socket, deadline, look, || None));
        segment.wanting().clear(index);
        found?.ok_or_else(full)
    }

    fn with_socket<T>(&self, wait: impl FnOnce(&Socket) -> Result<T, Errno>) -> Result<T, RowFailure> {
        let idle = || self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let socket = match kept {
            Some(socket) => socket,
            None => Socket::new(self.party.directory()).map_err(RowFailure::Io)?,
        };
        let waited = wait(&socket);
        idle().push(socket);
        Ok(waited?)
    }
}

/// Lets one thread in at a time; the others wait no longer than their deadline.
#[derive(Debug, Default)]
struct Gate {
    is_taken: Mutex<bool>,
    left: Condvar,
}

struct Inside<'a>(&'a Gate);

impl Gate {
    fn enter(&self, deadline: &Deadline) -> Option<Inside<'_>> {
        let mut is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            let left = deadline.left()?;
            is_taken = self.left.wait_timeout(is_taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_taken = true;
        Some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.left.notify_one();
    }
}
