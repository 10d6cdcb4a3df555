use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::client::RowFailure;
use super::geometry::Geometry;
use super::open::{RingFailure, enter_or_make};
use super::party::{Party, Role};
use super::segment::Segment;
use super::wait::{Spin, sleep_until};
use crate::os::{Deadline, Forked};
use crate::port::node::Node;
use crate::port::turn::{Part, Turn};
use crate::port::wake::Socket;
use crate::ring::{Finished, Outcome};

/// A worker of a request ring. One thread at a time waits for requests; rows may be finished by any.
#[derive(Debug)]
pub(crate) struct RingWorkerPort {
    worker: Part<Worker>,
    /// What the ring lives in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug)]
struct Worker {
    party: Party,
    socket: Socket,
    spin: Spin,
}

impl RingWorkerPort {
    pub(crate) fn create(
        node: &Node,
        name: &str,
        geometry: Geometry,
        spin: Duration,
        home: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, RingFailure> {
        let _turn = Turn::take(node.directory())?;
        let socket = Socket::new(node.directory())?;
        let party = enter_or_make(node, name, geometry)?;
        Ok(Self { worker: Part::new(Worker { party, socket, spin: Spin::new(spin) }, node.directory()), _home: home })
    }

    pub(crate) fn segment(&self) -> Result<&Segment, Forked> {
        Ok(&self.worker.get()?.party.segment)
    }

    /// Process ids of the clients.
    pub(crate) fn clients(&self) -> Result<Vec<u32>, Forked> {
        Ok(self.worker.get()?.party.pids(Role::Client))
    }

    /// Requests that wait for a worker.
    pub(crate) fn waiting(&self) -> Result<usize, Forked> {
        Ok(self.segment()?.rows().ready.count())
    }

    /// Neighbouring rows that are ready, at most `max`, from `from` on if there are some behind it. Waits at most until the deadline.
    #[inline]
    pub(crate) fn take(
        &self,
        from: usize,
        max: usize,
        deadline: &Deadline,
    ) -> Result<Option<Range<usize>>, RowFailure> {
        let Worker { party, socket, spin } = self.worker.get()?;
        let look = || party.segment.rows().take(from, max, party.index);
        if let found @ Some(_) = spin.look(look) {
            return Ok(found);
        }
        let sleeper = &party.place().sleeper;
        Ok(sleep_until(party, sleeper, socket, deadline, look, || None).map_err(|errno: Errno| errno)?)
    }

    /// The request in the row has ended; its outputs, or the text, are written.
    #[inline]
    pub(crate) fn finish(&self, row: usize, outcome: Outcome) {
        let Ok(Worker { party, .. }) = self.worker.get() else { return };
        match party.segment.rows().finish(row, party.index, outcome) {
            Finished::Answered => party.wake_client_of(row),
            Finished::Ready => party.wake_a_worker(),
            Finished::Freed => party.wake_who_wants_a_row(),
            Finished::NotYours => {}
        }
    }

    /// The same with a text.
    pub(crate) fn fail(&self, row: usize, reason: u8, text: &str) {
        if let Ok(worker) = self.worker.get() {
            worker.party.segment.set_text(row, text);
            self.finish(row, Outcome::Failed(reason));
        }
    }
}
