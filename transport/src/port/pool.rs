//! All slots of a publisher's pool, loaned from iceoryx2 once and for all: it makes the pool, registers it and removes it;
//! which slot carries which message is up to `Slots`.

use std::ptr::NonNull;

use iceoryx2::sample_mut::SampleMut;

use super::alone::Alone;
use super::service::{Block64, Header, IoxPublisher, SessionService};
use crate::os::populate_write;
use crate::wire::Preamble;

type Loaned = SampleMut<SessionService, [Block64], Header>;

/// The slots in the order in which they lie. Used under the lock of their port.
#[derive(Debug)]
pub(super) struct Pool {
    /// Only dropped, before the publisher is.
    _loaned: Vec<Alone<Loaned>>,
    slots: Vec<Place>,
    stride: usize,
}

/// Where a slot lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// iceoryx2's header.
    start: NonNull<u8>,
    preamble: NonNull<Preamble>,
    pub(super) bytes: NonNull<[u8]>,
}

// SAFETY: the pointers are to the pool, which stays mapped as long as the publisher that made it, in whatever thread.
unsafe impl Send for Place {}

impl Pool {
    /// Loans the other slots, after the first one that was loaned already.
    pub(super) fn new(publisher: &IoxPublisher, first: Loaned, slots: usize) -> Result<Self, String> {
        let blocks = first.payload().len();
        let mut loaned = vec![first];
        while loaned.len() < slots {
            loaned.push(loan(publisher, blocks)?);
        }
        loaned.sort_unstable_by_key(|sample| std::ptr::from_ref(sample.header()).addr());
        let places: Vec<_> = loaned.iter_mut().map(Place::of).collect();
        let mut strides = places.windows(2).map(|pair| pair[1].start.addr().get() - pair[0].start.addr().get());
        // A pool of one slot has a stride that nobody notices.
        let stride = strides.next().unwrap_or(places[0].end() - places[0].start.addr().get());
        if strides.any(|other| other != stride) {
            return Err("slots do not lie at equal distances".to_owned());
        }
        // SAFETY: only dropped, in the drop of the ports, under the lock of their sender.
        let loaned = loaned.into_iter().map(|sample| unsafe { Alone::new(sample) }).collect();
        Ok(Self { _loaned: loaned, slots: places, stride })
    }

    /// Distance from slot to slot.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    #[inline]
    pub(super) fn place(&self, slot: usize) -> Place {
        self.slots[slot]
    }

    /// Puts pages behind the first bytes of a slot, which is nobody's yet.
    pub(super) fn populate(&mut self, slot: usize, bytes: usize) -> std::io::Result<()> {
        // SAFETY: mapped as long as the pool; `self` is borrowed exclusively, and the caller knows that nobody has the slot.
        let whole = unsafe { self.slots[slot].bytes.as_mut() };
        populate_write(&mut whole[..bytes])
    }

    /// What a message begins with. The caller has the slot on loan.
    #[inline]
    pub(super) fn write_preamble(&mut self, slot: usize, preamble: Preamble) {
        // SAFETY: mapped as long as the pool, aligned; nobody else writes a slot that is on loan, and readers copy what they read.
        unsafe { self.slots[slot].preamble.write(preamble) };
    }
}

impl Place {
    fn of(sample: &mut Loaned) -> Self {
        Self {
            start: NonNull::from_ref(sample.header()).cast(),
            preamble: NonNull::from_mut(&mut sample.user_header_mut().0),
            bytes: NonNull::from_mut(bytemuck::cast_slice_mut(sample.payload_mut())),
        }
    }

    fn end(&self) -> usize {
        self.bytes.addr().get() + self.bytes.len()
    }

    pub(super) fn address(&self) -> usize {
        self.bytes.addr().get()
    }
}

/// Loans one slot from iceoryx2.
pub(super) fn loan(publisher: &IoxPublisher, blocks: usize) -> Result<Loaned, String> {
    let sample = publisher.loan_slice_uninit(blocks).map_err(|error| format!("a slot of the pool: {error:?}"))?;
    // SAFETY: a slot is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every bit pattern
    // is a `Block64`.
    Ok(unsafe { sample.assume_init() })
}
