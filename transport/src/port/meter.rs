//! What each publisher has sent, for whoever looks at a topic without taking part in it.
//!
//! ```text
//! meter    0   publisher  u128  its id, low half first; 0 if nobody has the place
//!          16  messages   u64   messages sent
//!          24  bytes      u64   bytes of their tensors
//! ```
//!
//! Meters lie behind the bells of a topic, 64 bytes each, as many as it can have publishers. A place whose publisher is gone is
//! taken again. A publisher changes its own, under the lock of its port; who looks reads whole numbers, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::wake::Board;

#[derive(Debug, Default)]
#[repr(C)]
#[repr(align(64))]
pub(super) struct MeterPlace {
    publisher: [AtomicU64; 2],
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// A publisher's meter.
#[derive(Debug)]
pub(super) struct Meter {
    board: Arc<Board>,
    place: usize,
}

/// What a meter shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl MeterPlace {
    fn publisher(&self) -> u128 {
        let [low, high] = [0, 1].map(|half| u128::from(self.publisher[half].load(Ordering::Relaxed)));
        high << 64 | low
    }

    fn take(&self, publisher: u128) {
        self.messages.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.publisher[0].store(publisher as u64, Ordering::Relaxed);
        self.publisher[1].store((publisher >> 64) as u64, Ordering::Relaxed);
    }
}

impl Meter {
    /// In a turn. A place that none of the `living` publishers has; `None` if there is none, which cannot be.
    pub(super) fn new(board: &Arc<Board>, publisher: u128, living: &[u128]) -> Option<Self> {
        let place = (0..board.meters()).find(|&index| !living.contains(&board.meter(index).publisher()))?;
        board.meter(place).take(publisher);
        Some(Self { board: board.clone(), place })
    }

    /// Counts a message. Under the lock of the port: nobody else changes it.
    #[inline]
    pub(super) fn count(&self, bytes: u64) {
        let place = self.board.meter(self.place);
        place.messages.store(place.messages.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        place.bytes.store(place.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }
}

/// In a turn. What a publisher has sent.
pub(super) fn sent(board: &Board, publisher: u128) -> Sent {
    let mut places = (0..board.meters()).map(|index| board.meter(index));
    let found = places.find(|place| place.publisher() == publisher);
    found.map_or_else(Sent::default, |place| Sent {
        messages: place.messages.load(Ordering::Relaxed),
        bytes: place.bytes.load(Ordering::Relaxed),
    })
}
