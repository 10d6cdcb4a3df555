//! The subscriber's side of connections. iceoryx2 opens and closes them, and maps the pools; what comes through them is
//! received and given back here: a subscriber of iceoryx2 walks over all places for connections that it could have, twice, whenever
//! it looks for a message.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use iceoryx2::prelude::PayloadHeader;
use iceoryx2::sample::Sample;
use iceoryx2::service::header::publish_subscribe::Header as IoxHeader;
use iceoryx2_cal::shm_allocator::PointerOffset;
use iceoryx2_cal::zero_copy_connection::{
    ChannelId, ZeroCopyConnection, ZeroCopyPortDetails, ZeroCopyReceiveError, ZeroCopyReceiver, ZeroCopyReleaseError,
};

use super::connection::Stock;
use super::handshake;
use super::made::{self, take_made};
use super::service::{Block64, Header, SessionService};
use crate::os::prefetch;
use crate::wire::Preamble;

type StockReceiver = <Stock as ZeroCopyConnection>::Receiver;

/// The only channel of a connection between publisher and subscriber.
const CHANNEL: ChannelId = ChannelId::new(0);

/// One connection. iceoryx2 has a share of it, and the port that receives through it another.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) stock: StockReceiver,
    /// What iceoryx2 received last.
    last: Cell<Option<PointerOffset>>,
    /// What iceoryx2 gives back next stays received: it is ours.
    keeps: Cell<bool>,
}

// SAFETY: a receiving side may go from thread to thread, but not be used by two at a time: it counts what it has borrowed
// without atomics. All shares are made, used and dropped by one port, and so under one lock: `Alone` says whose.
unsafe impl Sync for Queue {}

/// Where the pool of a connection lies in this process: as the first message through it shows, which iceoryx2 receives.
#[derive(Clone, Copy, Debug)]
struct Pool {
    /// What has offset 0: iceoryx2's header of the first slot.
    start: NonNull<u8>,
    /// From a slot's beginning.
    preamble: usize,
    payload: usize,
}

// SAFETY: the pointer is to a pool that stays mapped as long as its connection is open, in whatever thread.
unsafe impl Send for Pool {}

#[derive(Debug)]
struct Connection {
    /// Tells it from others that had its place in the list.
    key: u64,
    queue: Arc<Queue>,
    pool: Option<Pool>,
    /// Where the data of the last message began in its payload: that of the next one most probably does too.
    data_offset: usize,
}

/// The connections of a subscriber. Only used under the lock of its port, as the subscriber itself.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    connections: Vec<Connection>,
    next_key: u64,
}

/// A slot that is borrowed from a publisher. It has to be given back.
#[derive(Debug)]
#[must_use]
pub(super) struct Borrowed {
    key: u64,
    offset: PointerOffset,
}

/// What a borrowed slot holds, as its publisher says.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) borrowed: Borrowed,
    /// Copied out of shared memory.
    pub(super) preamble: Preamble,
    pub(super) publisher: u128,
    pub(super) payload: *const u8,
    pub(super) payload_len: usize,
}

/// What a look into the queues found.
#[derive(Debug)]
pub(super) enum Look {
    Message(Content),
    Nothing,
    /// Something in a queue whose pool is not known yet: iceoryx2 has to receive it.
    Unknown,
    /// Messages only of publishers of whom as many are held as may be.
    TooManyHeld,
}

impl Queue {
    pub(super) fn new(stock: StockReceiver) -> Arc<Self> {
        let queue = Arc::new(Self { stock, last: Cell::new(None), keeps: Cell::new(false) });
        made::add_queue(&queue);
        queue
    }

    /// For iceoryx2.
    pub(super) fn receive(&self, channel: ChannelId) -> Result<Option<PointerOffset>, ZeroCopyReceiveError> {
        let received = self.stock.receive(channel)?;
        self.last.set(received);
        Ok(received)
    }

    /// For iceoryx2.
    pub(super) fn release(&self, slot: PointerOffset, channel: ChannelId) -> Result<(), ZeroCopyReleaseError> {
        if self.keeps.replace(false) { Ok(()) } else { self.stock.release(slot, channel) }
    }
}

impl Incoming {
    /// After each call in which iceoryx2 may have opened or closed connections. Returns whether there are new ones.
    #[inline]
    pub(super) fn update(&mut self) -> bool {
        let any_closed = self.connections.iter().any(|connection| Arc::strong_count(&connection.queue) == 1);
        (any_closed || made::any()) && self.take_over()
    }

    #[cold]
    fn take_over(&mut self) -> bool {
        // A share that iceoryx2 dropped is a connection that it closed: nothing of it is borrowed.
        self.connections.retain(|connection| Arc::strong_count(&connection.queue) > 1);
        let known = self.connections.len();
        for queue in take_made().queues {
            handshake::say_open(&queue.stock);
            self.connections.push(Connection { key: self.next_key, queue, pool: None, data_offset: 0 });
            self.next_key += 1;
        }
        self.connections.len() > known
    }

    /// Takes the oldest message of the first queue that has one.
    #[inline]
    pub(super) fn look(&mut self) -> Look {
        let mut held = false;
        for connection in &mut self.connections {
            let queue = &connection.queue.stock;
            if !queue.has_data(CHANNEL) {
                continue;
            }
            let Some(pool) = connection.pool else { return Look::Unknown };
            match queue.receive(CHANNEL) {
                Ok(Some(offset)) => {
                    let content = pool.content(Borrowed { key: connection.key, offset }, connection.data_offset);
                    connection.data_offset = content.preamble.data_offset as usize;
                    return Look::Message(content);
                }
                Ok(None) => {}
                Err(ZeroCopyReceiveError::ReceiveWouldExceedMaxBorrowValue) => held = true,
            }
        }
        if held { Look::TooManyHeld } else { Look::Nothing }
    }

    /// Whether a publisher is gone of which there still is a connection.
    pub(super) fn any_departed(&self) -> bool {
        self.connections.iter().any(|connection| !connection.queue.stock.is_connected())
    }

    /// Takes over what iceoryx2 has just received.
    pub(super) fn adopt(&mut self, sample: Sample<SessionService, [Block64], Header>) -> Option<Content> {
        let received = |connection: &&mut Connection| connection.queue.last.get().is_some();
        let connection = self.connections.iter_mut().find(received)?;
        let offset = connection.queue.last.take()?;
        let slot = NonNull::from_ref(sample.header()).cast::<u8>();
        let distance = |part: *const u8| part.addr() - slot.addr().get();
        let (preamble, payload) =
            (distance(std::ptr::from_ref(sample.user_header()).cast()), distance(sample.payload().as_ptr().cast()));
        // SAFETY: the slot lies so far from the start of its pool, which is mapped as a whole.
        let start = unsafe { slot.sub(offset.offset()) };
        let pool = *connection.pool.insert(Pool { start, preamble, payload });
        connection.queue.keeps.set(true);
        drop(sample);
        Some(pool.content(Borrowed { key: connection.key, offset }, 0))
    }

    /// Gives a slot back to its publisher.
    #[inline]
    pub(super) fn give_back(&self, borrowed: Borrowed) {
        let Some(connection) = self.connections.iter().find(|connection| connection.key == borrowed.key) else {
            return;
        };
        if let Err(error) = connection.queue.stock.release(borrowed.offset, CHANNEL) {
            tracing::error!(?error, "a slot cannot be given back; its publisher has damaged the connection");
        }
    }
}

impl Pool {
    #[inline]
    fn content(self, borrowed: Borrowed, data_offset: usize) -> Content {
        // SAFETY: iceoryx2 mapped the whole pool, from its start on. That the offset lies in it is up to the publisher, a peer of
        // the same user that `docs/safety.md` trusts so far.
        let slot = unsafe { self.start.add(borrowed.offset.offset()) };
        prefetch(slot.as_ptr().wrapping_add(self.preamble));
        prefetch(slot.as_ptr().wrapping_add(self.payload).wrapping_add(data_offset));
        // SAFETY: a slot begins with iceoryx2's header, of which every bit pattern is a value, aligned as the slot is.
        let header = unsafe { slot.cast::<IoxHeader>().as_ref() };
        // The peer writes this number: it counts for nothing until `payload` is told how long a slot really is.
        let stated = usize::try_from(header.number_of_elements()).unwrap_or(usize::MAX);
        let publisher = header.publisher_id().value();
        // SAFETY: the distance of the preamble from the slot's beginning, in the same slot.
        let preamble = unsafe { slot.add(self.preamble) };
        // SAFETY: mapped and aligned, as before. Volatile, because the writer still maps the bytes: they are read once, into
        // private memory, and every bit pattern is a `Preamble`.
        let preamble = unsafe { preamble.cast::<Preamble>().read_volatile() };
        // SAFETY: the distance of the payload from the slot's beginning, in the same slot.
        let payload = unsafe { slot.add(self.payload) };
        let payload_len = stated.saturating_mul(size_of::<Block64>());
        Content { borrowed, preamble, publisher, payload: payload.as_ptr(), payload_len }
    }
}
