use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::client::RowFailure;
use super::geometry::Geometry;
use super::open::{RingFailure, enter_or_make};
use super::party::{Party, Role};
use super::segment::Segment;
use super::slots::{Gathered, Slots, Tensors, with_shape};
use super::wait::{Spin, sleep_until};
use crate::layout::TensorLayout;
use crate::os::Forked;
use crate::port::node::Node;
use crate::port::turn::{Part, Turn};
use crate::port::wake::Socket;
use crate::ring::{Finished, Outcome, State};

/// Reason: the worker says why, in a text.
pub(crate) const SAID: u8 = 2;

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
    /// Data of clients of an isolated ring, by their places, and whose it is.
    mapped: Mutex<HashMap<u16, (u32, Arc<Slots>)>>,
    copied_bytes: AtomicU64,
}

/// Where the data of a row lies in an isolated ring.
#[derive(Debug)]
pub(crate) struct Source {
    slots: Arc<Slots>,
    slot: usize,
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
        let worker =
            Worker { party, socket, spin: Spin::new(spin), mapped: Mutex::default(), copied_bytes: AtomicU64::new(0) };
        Ok(Self { worker: Part::new(worker, node.directory()), _home: home })
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

    /// Neighbouring rows that are ready, at most `max`, from `from` on if there are some behind it. Waits at most as long as `timeout`.
    #[inline]
    pub(crate) fn take(&self, from: usize, max: usize, timeout: Duration) -> Result<Option<Range<usize>>, RowFailure> {
        let Worker { party, socket, spin, .. } = self.worker.get()?;
        let look = || party.segment.rows().take(from, max, party.index);
        if let found @ Some(_) = spin.look(timeout, look) {
            return Ok(found);
        }
        let sleeper = &party.place().sleeper;
        Ok(sleep_until(party, sleeper, socket, timeout, look, || None).map_err(|errno: Errno| errno)?)
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

    /// Bytes that were copied, which an isolated ring does.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.worker.get().map_or(0, |worker| worker.copied_bytes.load(Ordering::Relaxed))
    }

    /// Copies requests of an isolated ring to where they are one batch: those at the front of `rows` that have the same shapes. What is behind them
    /// is given back. `None` if none is left.
    pub(crate) fn gather(&self, rows: Range<usize>) -> Option<(Range<usize>, Gathered, Vec<Source>)> {
        let worker = self.worker.get().ok()?;
        let mut taken = rows.start..rows.start;
        let (mut shapes, mut sources) = (Vec::new(), Vec::new());
        for row in rows.clone() {
            match worker.source(row) {
                Ok((source, found)) if sources.is_empty() || found == shapes => {
                    sources.push(source);
                    shapes = found;
                    taken.end = row + 1;
                }
                Ok(_) => break,
                Err(reason) => {
                    self.fail(row, SAID, &reason);
                    // Only neighbours are a batch.
                    if sources.is_empty() {
                        taken = row + 1..row + 1;
                    } else {
                        (row + 1..rows.end).for_each(|row| self.finish(row, Outcome::Again));
                        return Some((taken.clone(), worker.gather(&taken, shapes, &sources), sources));
                    }
                }
            }
        }
        (taken.end..rows.end).for_each(|row| self.finish(row, Outcome::Again));
        (!sources.is_empty()).then(|| (taken.clone(), worker.gather(&taken, shapes, &sources), sources))
    }

    /// Copies the outputs of a row to its client.
    pub(crate) fn scatter(&self, at: usize, source: &Source, gathered: &Gathered) {
        let Ok(worker) = self.worker.get() else { return };
        let geometry = worker.party.segment.geometry();
        for (output, tensor) in gathered.outputs.iter().enumerate() {
            let number = geometry.outputs().number(output);
            source.slots.set_shape(geometry, source.slot, number, &tensor.row.shape);
            let (from, to) = (tensor.bytes(at..at + 1), source.slots.data(geometry, source.slot, number));
            // SAFETY: both are of that length at least: no tensor is larger than its room. By the row's word only this worker uses the
            // client's slot now, also if the request was abandoned.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(NonNull::from(from).cast(), from.len()) };
            worker.copied_bytes.fetch_add(from.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Worker {
    /// Where the data of a row lies that this worker runs, and what shapes its inputs have.
    fn source(&self, row: usize) -> Result<(Source, Vec<TensorLayout>), String> {
        let segment = &self.party.segment;
        let geometry = segment.geometry();
        let client = segment.rows().state(row).and_then(State::client).ok_or("nobody waits for it any more")?;
        let slots = self.slots_of(client).map_err(|error| format!("the client's data cannot be opened: {error}"))?;
        let slot = segment.rows().heads[row].slot.load(Ordering::Relaxed) as usize;
        if slot >= geometry.credits() {
            return Err(format!("the client has no slot {slot}"));
        }
        // Read after it was seen who has the place: if the row is still that client's, nobody else had the place meanwhile, whose data it
        // would be otherwise.
        if segment.rows().state(row).and_then(State::client) != Some(client) {
            return Err("its client is gone".to_owned());
        }
        let shape =
            |(input, most)| with_shape(most, &slots.shape(geometry, slot, input)).map_err(|error| error.to_string());
        let shapes = geometry.inputs().tensors().iter().enumerate().map(shape).collect::<Result<_, _>>()?;
        Ok((Source { slots, slot }, shapes))
    }

    fn slots_of(&self, client: u16) -> io::Result<Arc<Slots>> {
        let segment = &self.party.segment;
        let tenant =
            |client: u16| segment.clients().get(usize::from(client)).map(|place| place.tenants.load(Ordering::Acquire));
        let now = tenant(client).ok_or(io::ErrorKind::NotFound)?;
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((whose, slots)) = mapped.get(&client)
            && *whose == now
        {
            return Ok(slots.clone());
        }
        // Whoever is gone, or has gone and come back, has let go of what is mapped.
        mapped.retain(|&client, (whose, _)| tenant(client) == Some(*whose));
        let slots = Arc::new(Slots::open(segment.path(), usize::from(client), segment.geometry())?);
        mapped.insert(client, (now, slots.clone()));
        Ok(slots)
    }

    fn gather(&self, rows: &Range<usize>, shapes: Vec<TensorLayout>, sources: &[Source]) -> Gathered {
        let geometry = self.party.segment.geometry();
        let outputs = geometry.outputs().tensors().iter().map(|most| Tensors::new(most.clone(), rows.len())).collect();
        let mut inputs: Vec<_> = shapes.into_iter().map(|shape| Tensors::new(shape, rows.len())).collect();
        for (input, tensor) in inputs.iter_mut().enumerate() {
            for (at, source) in sources.iter().enumerate() {
                let to = tensor.bytes_mut(at..at + 1);
                let (from, len) = (source.slots.data(geometry, source.slot, input), to.len());
                // SAFETY: both are of that length at least: a shape that was checked needs no more than the room. By the row's word the
                // client does not write now.
                unsafe { NonNull::from(to).cast::<u8>().copy_from_nonoverlapping(from.cast(), len) };
                self.copied_bytes.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
        Gathered { inputs, outputs }
    }
}
