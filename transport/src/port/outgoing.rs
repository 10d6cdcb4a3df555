//! The publisher's side of connections. iceoryx2 makes and closes them; what goes through them is sent and taken back here.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use iceoryx2_cal::shm_allocator::PointerOffset;
use iceoryx2_cal::zero_copy_connection::{
    ChannelId, ZeroCopyConnection, ZeroCopyPortDetails, ZeroCopySendError, ZeroCopySender,
};

use super::backlog::{Backlog, NotSent, Tally};
use super::connection::Stock;
use super::handshake::{self, SideCount};
use super::made::{self, take_made};
use super::naps::Naps;
use super::slots::Slots;

type StockSender = <Stock as ZeroCopyConnection>::Sender;

/// The only channel of a connection between publisher and subscriber.
const CHANNEL: ChannelId = ChannelId::new(0);

/// One connection. iceoryx2 has a share of it, and the port that sends through it another: all are made, used and dropped under
/// the lock of that port.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stock: StockSender,
    /// The subscriber has opened its side at some time: if it is not open now, it is gone.
    was_connected: Cell<bool>,
    /// A port of ours sends through it and takes slots back. iceoryx2, which knows nothing of them, must not.
    pub(super) is_ours: Cell<bool>,
    /// Tells it from other connections of that port.
    key: Cell<u64>,
    /// What the subscriber still had when iceoryx2 closed the connection.
    pub(super) left: RefCell<Vec<PointerOffset>>,
}

// SAFETY: a sending side may go from thread to thread, but not be used by two at a time; nor may the cells. All shares are
// made, used and dropped by one port, and so under one lock: `Alone` says whose.
unsafe impl Sync for Link {}

/// The connections of a publisher.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Arc<Link>>,
    next_key: u64,
    backlog: Backlog,
    /// Distance from slot to slot: what iceoryx2 calls the size of a sample.
    stride: usize,
}

impl Link {
    pub(super) fn new(stock: StockSender) -> Arc<Self> {
        let link = Arc::new(Self {
            stock,
            was_connected: Cell::new(false),
            is_ours: Cell::new(false),
            key: Cell::new(0),
            left: RefCell::default(),
        });
        made::add_link(&link);
        link
    }

    /// Puts a slot into the queue. Returns the one that fell out at the other end, if the topic lets it.
    #[inline]
    fn try_send(
        &self,
        slot: PointerOffset,
        stride: usize,
        channel: ChannelId,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        self.stock.try_send(slot, stride, channel).map_err(|error| match error {
            ZeroCopySendError::ReceiveBufferFull => self.why_full(channel),
            error => error,
        })
    }

    /// A queue may be full because nobody reads it any more.
    #[cold]
    fn why_full(&self, channel: ChannelId) -> ZeroCopySendError {
        if self.stock.is_connected() {
            self.was_connected.set(true);
        } else if self.was_connected.get() {
            return ZeroCopySendError::NoConnectedReceiverAndBufferIsFull;
        }
        match self.stock.is_channel_closed(channel) {
            true => ZeroCopySendError::ChannelIsClosed,
            false => ZeroCopySendError::ReceiveBufferFull,
        }
    }

    /// For iceoryx2. Its own connection gives a message up without asking anybody if the queue is full and the other side is not
    /// open yet, which it opens at its first look for messages. Here `wait` is asked in that case as in any other.
    pub(super) fn send_patiently(
        &self,
        slot: PointerOffset,
        stride: usize,
        channel: ChannelId,
        mut wait: impl FnMut(u64, Duration) -> Result<(), ZeroCopySendError>,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        let mut naps = None;
        for looks in 0.. {
            match self.try_send(slot, stride, channel) {
                Err(ZeroCopySendError::ReceiveBufferFull) => {}
                sent => return sent,
            }
            let naps = naps.get_or_insert_with(Naps::begin);
            wait(looks, naps.waited())?;
            naps.take(Duration::MAX);
        }
        Err(ZeroCopySendError::ReceiveBufferFull)
    }

    /// For us.
    #[inline]
    fn send(&self, slot: PointerOffset, stride: usize) -> Result<Option<PointerOffset>, NotSent> {
        self.try_send(slot, stride, CHANNEL).map_err(|error| match error {
            ZeroCopySendError::ReceiveBufferFull => NotSent::Full,
            ZeroCopySendError::ConnectionCorrupted => {
                tracing::error!("a subscriber has damaged its queue; it gets no message");
                NotSent::Gone
            }
            _ => NotSent::Gone,
        })
    }

    /// One more has the slot, if it gets into the queue.
    #[inline]
    fn deliver(&self, slot: usize, stride: usize, slots: &mut Slots) -> Result<(), NotSent> {
        let overflow = self.send(PointerOffset::new(slot * stride), stride)?;
        slots.share(slot);
        if let Some(oldest) = overflow {
            slots.give_back(oldest.offset() / stride);
        }
        Ok(())
    }

    #[inline]
    fn reclaim(&self, stride: usize, slots: &mut Slots) {
        loop {
            match self.stock.reclaim(CHANNEL) {
                Ok(None) => break,
                Ok(Some(offset)) if slots.give_back(offset.offset() / stride) => {}
                returned => {
                    tracing::error!(?returned, "a subscriber returned what it was not given");
                    break;
                }
            }
        }
    }

    fn has_opened(&self) -> bool {
        handshake::has_opened(&self.stock)
    }
}

impl Links {
    /// With those that were made together with the publisher.
    pub(super) fn new(links: Vec<Arc<Link>>, stride: usize) -> Self {
        let mut new = Self { links, next_key: 0, backlog: Backlog::default(), stride };
        new.number(0);
        new
    }

    /// Those from this one on are new.
    fn number(&mut self, from: usize) {
        for link in &self.links[from..] {
            link.is_ours.set(true);
            link.key.set(self.next_key);
            self.next_key += 1;
        }
    }

    /// After each call in which iceoryx2 may have made or closed connections. New ones get the history. Returns whether there
    /// are any.
    #[inline]
    pub(super) fn update(&mut self, slots: &mut Slots) -> bool {
        // A share that iceoryx2 dropped is a connection that it closed.
        if self.links.iter().any(|link| Arc::strong_count(link) == 1) {
            self.let_go(slots);
        }
        made::any() && self.take_over(slots)
    }

    #[cold]
    fn take_over(&mut self, slots: &mut Slots) -> bool {
        let known = self.links.len();
        self.links.extend(take_made().links);
        self.number(known);
        for link in &self.links[known..] {
            for slot in slots.last(link.stock.buffer_size()) {
                // A queue that is damaged from the beginning gets nothing.
                let _ = link.deliver(slot, self.stride, slots);
            }
        }
        self.links.len() > known
    }

    #[cold]
    fn let_go(&mut self, slots: &mut Slots) {
        let closed = self.links.extract_if(.., |link| Arc::strong_count(link) == 1);
        for offset in closed.flat_map(|link| link.left.take()) {
            slots.give_back(offset.offset() / self.stride);
        }
    }

    /// Puts a slot that the caller has into the queues of all subscribers.
    #[inline]
    pub(super) fn send(&self, slot: usize, slots: &mut Slots) -> Tally {
        let mut tally = Tally::default();
        for link in &self.links {
            match link.deliver(slot, self.stride, slots) {
                Ok(()) => tally.delivered += 1,
                Err(NotSent::Full) => tally.missed += 1,
                Err(NotSent::Gone) => {}
            }
        }
        tally
    }

    /// The same, but the message waits for room in the queues that are full, and behind those that do already. `None` if it does:
    /// then the caller tries again, and keeps the slot until it is told who got it.
    #[inline]
    pub(super) fn send_or_wait(&mut self, slot: usize, sequence: u64, slots: &mut Slots) -> Option<Tally> {
        let (mut delivered, mut full) = (0, Vec::new());
        for link in &self.links {
            let key = link.key.get();
            let is_behind = self.backlog.waits_for(key);
            match if is_behind { Err(NotSent::Full) } else { link.deliver(slot, self.stride, slots) } {
                Ok(()) => delivered += 1,
                Err(NotSent::Full) => full.push(key),
                Err(NotSent::Gone) => {}
            }
        }
        if full.is_empty() {
            return Some(Tally { delivered, missed: 0 });
        }
        self.backlog.add(sequence, slot, delivered, full);
        None
    }

    /// Tries again what waits for room. Returns whether anybody got something.
    pub(super) fn retry(&mut self, slots: &mut Slots) -> bool {
        let (links, stride) = (&self.links, self.stride);
        let mut any = false;
        self.backlog.retry(|key, slot| {
            let link = links.iter().find(|link| link.key.get() == key).ok_or(NotSent::Gone)?;
            link.reclaim(stride, slots);
            link.deliver(slot, stride, slots)?;
            any = true;
            Ok(())
        });
        any
    }

    /// What has become of a message that waited, if it does not wait any more or is not to: its slot, which goes back to the
    /// caller, and who got it.
    pub(super) fn finish(&mut self, sequence: u64, give_up: bool) -> Option<(usize, Tally)> {
        self.backlog.finish(sequence, give_up)
    }

    /// Takes back what subscribers do not need any more. Before each message: a connection has room for the return of what fits
    /// into a queue, of what a subscriber may hold, and of one more.
    #[inline]
    pub(super) fn reclaim(&self, slots: &mut Slots) {
        for link in &self.links {
            link.reclaim(self.stride, slots);
        }
    }

    pub(super) fn count(&self) -> SideCount {
        let open = self.links.iter().filter(|link| link.has_opened()).count();
        SideCount { open, closed: self.links.len() - open }
    }
}
