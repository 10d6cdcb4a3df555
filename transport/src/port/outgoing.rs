//! The publisher's side of connections. iceoryx2 makes and closes them; what goes through them is sent and taken back here.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceoryx2_cal::shm_allocator::PointerOffset;
use iceoryx2_cal::zero_copy_connection::{
    ChannelId, ZeroCopyConnection, ZeroCopyPortDetails, ZeroCopySendError, ZeroCopySender,
};

use super::connection::Stock;
use super::handshake::{self, SideCount};
use super::made::{self, take_made};
use super::slots::Slots;

type StockSender = <Stock as ZeroCopyConnection>::Sender;

/// The only channel of a connection between publisher and subscriber.
const CHANNEL: ChannelId = ChannelId::new(0);
/// A full queue is looked at again and again for so long before the publisher sleeps in between.
const EAGER: Duration = Duration::from_micros(50);
/// Longest sleep between two looks.
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// One connection. iceoryx2 has a share of it, and the port that sends through it another: all are made, used and dropped under
/// the lock of that port.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stock: StockSender,
    /// The subscriber has opened its side at some time: if it is not open now, it is gone.
    was_connected: Cell<bool>,
    /// A port of ours sends through it and takes slots back. iceoryx2, which knows nothing of them, must not.
    pub(super) is_ours: Cell<bool>,
    /// What the subscriber still had when iceoryx2 closed the connection.
    pub(super) left: RefCell<Vec<PointerOffset>>,
}

// SAFETY: a sending side may go from thread to thread, but not be used by two at a time; nor may the cells. All shares are
// made, used and dropped by one port, and so under one lock: `Alone` says whose.
unsafe impl Sync for Link {}

/// Why a queue did not get a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NotSent {
    /// The queue is full.
    Full,
    /// The subscriber is gone, or its connection is damaged: nobody is there to miss it.
    Gone,
}

/// What becomes of a message for a subscriber whose queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WhenFull {
    GiveUp,
    WaitFor(Duration),
}

/// Who got a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Subscribers that have it in their queue.
    pub(super) delivered: usize,
    /// Subscribers that have not, because their queue was full.
    pub(super) missed: usize,
}

/// The connections of a publisher.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Arc<Link>>,
    /// Distance from slot to slot: what iceoryx2 calls the size of a sample.
    stride: usize,
}

impl Link {
    pub(super) fn new(stock: StockSender) -> Arc<Self> {
        let link = Arc::new(Self {
            stock,
            was_connected: Cell::new(false),
            is_ours: Cell::new(false),
            left: RefCell::default(),
        });
        made::add_link(&link);
        link
    }

    /// iceoryx2's own connection gives a message up without asking anybody if the queue is full and the subscriber has not
    /// opened its side yet, which it does at its first look for messages: a publisher that should wait for it would lose messages
    /// that it was told are delivered. Here `wait` is asked in that case as in any other.
    pub(super) fn send_patiently(
        &self,
        slot: PointerOffset,
        stride: usize,
        channel: ChannelId,
        mut wait: impl FnMut(u64, Duration) -> Result<(), ZeroCopySendError>,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        let mut since = None;
        let mut nap = EAGER;
        for looks in 0.. {
            match self.stock.try_send(slot, stride, channel) {
                Err(ZeroCopySendError::ReceiveBufferFull) => {}
                sent => return sent,
            }
            if self.stock.is_connected() {
                self.was_connected.set(true);
            } else if self.was_connected.get() {
                return Err(ZeroCopySendError::NoConnectedReceiverAndBufferIsFull);
            }
            if self.stock.is_channel_closed(channel) {
                return Err(ZeroCopySendError::ChannelIsClosed);
            }
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            wait(looks, waited)?;
            if waited < EAGER {
                std::thread::yield_now();
            } else {
                // Nothing tells a publisher that a queue has room again.
                std::thread::sleep(nap);
                nap = (2 * nap).min(LONGEST_NAP);
            }
        }
        Err(ZeroCopySendError::ReceiveBufferFull)
    }

    /// Puts a slot into the queue. Returns the one that fell out at the other end, if the topic lets it.
    #[inline]
    fn send(&self, slot: PointerOffset, stride: usize, when_full: WhenFull) -> Result<Option<PointerOffset>, NotSent> {
        let sent = self.send_patiently(slot, stride, CHANNEL, |_, waited| match when_full {
            WhenFull::WaitFor(bound) if waited < bound => Ok(()),
            _ => Err(ZeroCopySendError::ReceiveBufferFull),
        });
        sent.map_err(|error| match error {
            ZeroCopySendError::ReceiveBufferFull => NotSent::Full,
            ZeroCopySendError::ConnectionCorrupted => {
                tracing::error!("a subscriber has damaged its queue; it gets no message");
                NotSent::Gone
            }
            _ => NotSent::Gone,
        })
    }

    fn has_opened(&self) -> bool {
        handshake::has_opened(&self.stock)
    }
}

impl Links {
    /// With those that were made together with the publisher.
    pub(super) fn new(links: Vec<Arc<Link>>, stride: usize) -> Self {
        links.iter().for_each(|link| link.is_ours.set(true));
        Self { links, stride }
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
        for link in &self.links[known..] {
            link.is_ours.set(true);
            for slot in slots.last(link.stock.buffer_size()) {
                // A queue that is damaged from the beginning gets nothing.
                let _ = self.deliver(link, slot, WhenFull::GiveUp, slots);
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

    fn deliver(&self, link: &Link, slot: usize, when_full: WhenFull, slots: &mut Slots) -> Result<(), NotSent> {
        let overflow = link.send(PointerOffset::new(slot * self.stride), self.stride, when_full)?;
        slots.share(slot);
        if let Some(oldest) = overflow {
            slots.give_back(oldest.offset() / self.stride);
        }
        Ok(())
    }

    /// Puts a slot that the caller has into the queues of all subscribers.
    #[inline]
    pub(super) fn send(&self, slot: usize, when_full: WhenFull, slots: &mut Slots) -> Tally {
        let mut tally = Tally::default();
        for link in &self.links {
            match self.deliver(link, slot, when_full, slots) {
                Ok(()) => tally.delivered += 1,
                Err(NotSent::Full) => tally.missed += 1,
                Err(NotSent::Gone) => {}
            }
        }
        tally
    }

    /// Takes back what subscribers do not need any more. Before each message: a connection has room for the return of what fits
    /// into a queue, of what a subscriber may hold, and of one more.
    #[inline]
    pub(super) fn reclaim(&self, slots: &mut Slots) {
        for link in &self.links {
            loop {
                match link.stock.reclaim(CHANNEL) {
                    Ok(None) => break,
                    Ok(Some(offset)) if slots.give_back(offset.offset() / self.stride) => {}
                    returned => {
                        tracing::error!(?returned, "a subscriber returned what it was not given");
                        break;
                    }
                }
            }
        }
    }

    pub(super) fn count(&self) -> SideCount {
        let open = self.links.iter().filter(|link| link.has_opened()).count();
        SideCount { open, closed: self.links.len() - open }
    }
}
