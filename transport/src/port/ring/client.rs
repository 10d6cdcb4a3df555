use std::any::Any;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::geometry::Side;
use super::open::{RingFailure, admit_ring, enter};
use super::party::{Party, Role};
use super::segment::Segment;
use super::slots::Slots;
use super::wait::{Spin, sleep_until};
use crate::os::{Deadline, Forked};
use crate::pool::PoolError;
use crate::port::node::Node;
use crate::port::turn::{Part, Turn};
use crate::port::wake::Socket;
use crate::ring::{Outcome, State};

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
    /// Its data, if the ring is isolated.
    own: Option<Own>,
}

/// The slots of a client of an isolated ring.
#[derive(Debug)]
struct Own {
    slots: Slots,
    free: Mutex<Vec<Place>>,
}

/// A slot that is free, at the latest when the row that it was used for is not abandoned any more: until then a worker may write into it.
#[derive(Debug)]
struct Place {
    slot: usize,
    abandoned: Option<usize>,
}

/// A row that the client has, and where its data lies in the client's own file, if the ring is isolated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) row: usize,
    slot: usize,
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
        let geometry = party.segment.geometry();
        let own = if geometry.is_isolated() { Some(Own::new(node, &party)?) } else { None };
        let client = Client {
            party,
            held: AtomicUsize::new(0),
            waits_for_a_row: Gate::default(),
            spin: Spin::new(spin),
            sockets: Mutex::default(),
            own,
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

    /// A row to write inputs into; waits for one at most as long as `timeout`.
    #[inline]
    pub(crate) fn loan(&self, timeout: Duration) -> Result<Held, RowFailure> {
        let client = self.client.get()?;
        let credits = client.party.segment.geometry().credits();
        if client.held.fetch_add(1, Ordering::Relaxed) >= credits {
            client.held.fetch_sub(1, Ordering::Relaxed);
            return Err(RowFailure::NoCredits { credits });
        }
        let held = match client.try_loan() {
            Some(held) => Ok(held),
            None => client.wait_for_a_row(timeout),
        };
        if held.is_err() {
            client.held.fetch_sub(1, Ordering::Relaxed);
        }
        held
    }

    /// The data of a tensor in a row that the client has.
    #[inline]
    pub(crate) fn data(&self, held: Held, side: &Side, tensor: usize) -> Result<NonNull<[u8]>, Forked> {
        let client = self.client.get()?;
        let segment = &client.party.segment;
        Ok(match &client.own {
            None => segment.data(side, tensor, held.row..held.row + 1),
            Some(own) => own.slots.data(segment.geometry(), held.slot, side.number(tensor)),
        })
    }

    /// In an isolated ring: says what shape an input has this time, which fits.
    pub(crate) fn set_shape(&self, held: Held, input: usize, shape: &[usize]) {
        if let Ok(Client { own: Some(own), party, .. }) = self.client.get() {
            own.slots.set_shape(party.segment.geometry(), held.slot, input, shape);
        }
    }

    /// In an isolated ring: the shape that an output has this time, as its worker says.
    pub(crate) fn output_shape(&self, held: Held, output: usize) -> Option<Vec<usize>> {
        let client = self.client.get().ok()?;
        let geometry = client.party.segment.geometry();
        let own = client.own.as_ref()?;
        Some(own.slots.shape(geometry, held.slot, geometry.outputs().number(output)))
    }

    /// Gives the row to the workers.
    #[inline]
    pub(crate) fn submit(&self, held: Held) -> Result<(), Forked> {
        let party = &self.client.get()?.party;
        party.segment.rows().submit(held.row, party.index);
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
    pub(crate) fn wait(&self, row: usize, timeout: Duration) -> Result<Waited, RowFailure> {
        let client = self.client.get()?;
        let party = &client.party;
        let look = || party.segment.rows().answer(row, party.index).map(Waited::Ended);
        if let Some(ended) = client.spin.look(timeout, look) {
            return Ok(ended);
        }
        let sleeper = &party.segment.rows().heads[row].sleeper;
        let give_up = || (!party.has_workers()).then_some(Waited::NoWorker);
        let waited = client.with_socket(|socket| sleep_until(party, sleeper, socket, timeout, look, give_up))?;
        Ok(waited.unwrap_or(Waited::Timeout))
    }

    /// Why the request in the row failed, as its worker says.
    pub(crate) fn text(&self, row: usize) -> Result<String, Forked> {
        Ok(self.client.get()?.party.segment.read_text(row))
    }

    /// The row is not needed any more, whatever it was used for.
    #[inline]
    pub(crate) fn let_go(&self, Held { row, slot }: Held) {
        let Ok(client) = self.client.get() else { return };
        let freed = client.party.segment.rows().let_go(row, client.party.index);
        if freed {
            client.party.wake_who_wants_a_row();
        }
        if let Some(own) = &client.own {
            own.free().push(Place { slot, abandoned: (!freed).then_some(row) });
        }
        client.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Own {
    /// In a turn.
    fn new(node: &Node, party: &Party) -> Result<Self, RingFailure> {
        let geometry = party.segment.geometry();
        let needed = geometry.slots_bytes() as u64;
        admit_ring(node, needed)?;
        let slots = Slots::create(party.segment.path(), usize::from(party.index), geometry);
        let slots = slots.map_err(|reason| RingFailure::Pool(PoolError::Prepare { needed, reason }))?;
        let free = (0..geometry.credits()).rev().map(|slot| Place { slot, abandoned: None }).collect();
        Ok(Self { slots, free: Mutex::new(free) })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Place>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// In an isolated ring a row needs a slot. There may be none for a while although the client has credits: workers still have some whose
    /// requests were withdrawn.
    #[inline]
    fn try_loan(&self) -> Option<Held> {
        let rows = self.party.segment.rows();
        let Some(own) = &self.own else {
            return rows.loan(self.party.index).map(|row| Held { row, slot: 0 });
        };
        let is_usable =
            |place: &Place| place.abandoned.is_none_or(|row| !matches!(rows.state(row), Some(State::Abandoned { .. })));
        let mut free = own.free();
        let at = free.iter().rposition(is_usable)?;
        let row = rows.loan(self.party.index)?;
        let slot = free.swap_remove(at).slot;
        rows.heads[row].slot.store(slot as u32, Ordering::Relaxed);
        Some(Held { row, slot })
    }

    #[cold]
    fn wait_for_a_row(&self, timeout: Duration) -> Result<Held, RowFailure> {
        let segment = &self.party.segment;
        let full = || RowFailure::Full { rows: segment.geometry().rows() };
        let look = || self.try_loan();
        if timeout.is_zero() {
            return Err(full());
        }
        let deadline = Deadline::after(timeout);
        if let Some(held) = self.spin.look(timeout, look) {
            return Ok(held);
        }
        let _alone = self.waits_for_a_row.enter(&deadline).ok_or_else(full)?;
        let left = deadline.left().ok_or_else(full)?;
        let index = usize::from(self.party.index);
        segment.wanting().set(index);
        let sleeper = &self.party.place().sleeper;
        let found = self.with_socket(|socket| sleep_until(&self.party, sleeper, socket, left, look, || None));
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
