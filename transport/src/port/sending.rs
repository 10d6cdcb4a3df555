use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use iceoryx2::port::update_connections::UpdateConnections;

use super::alone::Alone;
use super::backlog::Tally;
use super::meter::Meter;
use super::naps::Naps;
use super::outgoing::Links;
use super::pool::Pool;
use super::sender::Sender;
use super::service::IoxPublisher;
use super::shield::shield;
use super::slot::Slot;
use super::slots::Slots;
use super::topic::Overflow;
use super::unopened::Unopened;
use super::wake::{Board, Ringer};
use crate::layout::MessageLayout;
use crate::os::{Forked, monotonic_ns};
use crate::wire::{EncodedLayout, Preamble};

/// Layouts that are kept for later messages.
const LAYOUTS: usize = 8;

/// Dropped in the order of its fields: the slots before the port that they come from.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) pool: Pool,
    pub(super) slots: Slots,
    pub(super) links: Links,
    pub(super) publisher: Alone<IoxPublisher>,
    pub(super) unopened: Unopened,
    pub(super) board: Arc<Board>,
    pub(super) ringer: Arc<Ringer>,
    pub(super) meter: Option<Meter>,
    /// Slots were taken back since the last message was sent.
    pub(super) has_reclaimed: bool,
    /// Number of the next message: under the same lock as sending, so that numbers arrive in order.
    pub(super) next_sequence: u64,
    /// Layouts of earlier messages, the latest last: most publishers send the same one again and again. A loan takes its layout
    /// out, and gives it back when it ends.
    #[expect(clippy::vec_box, reason = "moved from loan to list and back as they are")]
    pub(super) layouts: Vec<Box<EncodedLayout>>,
}

/// A sender while no other thread uses it.
pub(crate) struct Sending<'a> {
    pub(super) ports: MutexGuard<'a, Ports>,
    pub(super) sender: &'a Arc<Sender>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoanFailure {
    NoFreeSlot,
    Forked,
    Broken(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendFailure {
    Undelivered { delivered: usize, missed: usize },
    Forked,
    Broken(String),
}

impl From<Forked> for LoanFailure {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl From<Forked> for SendFailure {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl Sending<'_> {
    /// The layout of an earlier message, if one of them is what is asked for.
    #[inline]
    pub(crate) fn take_layout(&mut self, is_it: impl Fn(&MessageLayout) -> bool) -> Option<Box<EncodedLayout>> {
        let index = self.ports.layouts.iter().rposition(|known| is_it(known.layout()))?;
        Some(self.ports.layouts.swap_remove(index))
    }

    /// Keeps a layout for later messages.
    #[inline]
    pub(crate) fn keep_layout(&mut self, layout: Box<EncodedLayout>) {
        if self.ports.layouts.len() == LAYOUTS {
            self.ports.layouts.remove(0);
        }
        self.ports.layouts.push(layout);
    }

    /// Wakes the receivers that sleep.
    pub(super) fn ring(&self) {
        self.ports.board.ring(&self.ports.ringer);
    }

    /// Takes a slot out of the pool.
    #[inline]
    pub(crate) fn loan(&mut self) -> Result<Slot, LoanFailure> {
        let Self { ports, sender } = self;
        sender.check().map_err(LoanFailure::Broken)?;
        let number = match shield(|| ports.take_slot()) {
            Ok(Some(number)) => number,
            Ok(None) => return Err(LoanFailure::NoFreeSlot),
            Err(panicked) => return Err(LoanFailure::Broken(sender.give_up(panicked))),
        };
        let place = ports.pool.place(number);
        let Some(committed) = sender.committed(place) else {
            ports.slots.give_back(number);
            return Err(LoanFailure::Broken("a slot does not lie where slots lie".to_owned()));
        };
        Ok(Slot::new(number, place, committed, Arc::clone(sender)))
    }

    /// Gives a slot back that was not sent.
    pub(super) fn give_back(&mut self, slot: usize) {
        self.ports.slots.give_back(slot);
    }

    /// Sends a slot that is on loan, which ends the loan, and keeps its layout. Returns how many subscribers have it in their
    /// queue now.
    ///
    /// Under the policy `Block` it may wait. Other threads use the sender meanwhile: messages that they publish get higher
    /// numbers, and wait behind this one for each queue that this one waits for.
    #[inline]
    pub(super) fn send(
        mut self,
        slot: usize,
        mut preamble: Preamble,
        layout: Box<EncodedLayout>,
    ) -> Result<usize, SendFailure> {
        self.keep_layout(layout);
        let Self { ports, sender } = &mut self;
        if let Err(reason) = sender.check() {
            ports.slots.give_back(slot);
            return Err(SendFailure::Broken(reason));
        }
        let sequence = ports.next_sequence;
        preamble.sequence = sequence;
        ports.next_sequence += 1;
        if let Some(meter) = &ports.meter {
            meter.count(preamble.data_len);
        }
        preamble.publish_time_ns = monotonic_ns();
        ports.pool.write_preamble(slot, preamble);
        let may_wait = matches!(sender.overflow(), Overflow::Block(_));
        match shield(|| ports.deliver(slot, sequence, may_wait)) {
            Ok(Some(tally)) => sender.account(tally),
            Ok(None) => self.wait(sequence),
            Err(panicked) => Err(SendFailure::Broken(sender.give_up(panicked))),
        }
    }

    /// Without the lock, until there was room for a message in all queues, or the policy's time is over.
    #[cold]
    fn wait(self, sequence: u64) -> Result<usize, SendFailure> {
        let Self { ports, sender } = self;
        drop(ports);
        let bound = match sender.overflow() {
            Overflow::Block(bound) => bound,
            _ => Duration::ZERO,
        };
        let mut naps = Naps::begin();
        loop {
            let left = bound.checked_sub(naps.waited());
            let mut sending = sender.lock()?;
            sender.check().map_err(SendFailure::Broken)?;
            match shield(|| sending.ports.try_again(sequence, left.is_none())) {
                Ok(Some(tally)) => return sender.account(tally),
                Ok(None) => drop(sending),
                Err(panicked) => return Err(SendFailure::Broken(sender.give_up(panicked))),
            }
            naps.take(left.unwrap_or_default());
        }
    }
}

impl Ports {
    /// Lets go of connections to subscribers that are gone, and brings those that are new their history.
    #[inline]
    pub(super) fn look_at_connections(&mut self) {
        if self.unopened.are_any() {
            self.unopened.try_again();
        }
        let _ = self.publisher.update_connections();
        if self.links.update(&mut self.slots) {
            self.board.ring(&self.ringer);
        }
    }

    /// A free slot, after those that came back were taken back.
    #[inline]
    pub(super) fn take_slot(&mut self) -> Option<usize> {
        self.links.reclaim(&mut self.slots);
        self.has_reclaimed = true;
        self.slots.take().or_else(|| {
            // What dead subscribers held comes back with their connections, which else only a message lets go.
            self.look_at_connections();
            self.slots.take()
        })
    }

    /// `None` if the message waits for room.
    #[inline]
    fn deliver(&mut self, slot: usize, sequence: u64, may_wait: bool) -> Option<Tally> {
        self.look_at_connections();
        if !std::mem::take(&mut self.has_reclaimed) {
            self.links.reclaim(&mut self.slots);
        }
        let tally = match may_wait {
            true => self.links.send_or_wait(slot, sequence, &mut self.slots),
            false => Some(self.links.send(slot, &mut self.slots)),
        };
        self.board.ring(&self.ringer);
        self.slots.remember(slot);
        if tally.is_some() {
            self.slots.give_back(slot);
        }
        tally
    }

    /// For messages that wait. `None` if this one still does.
    fn try_again(&mut self, sequence: u64, give_up: bool) -> Option<Tally> {
        self.look_at_connections();
        if self.links.retry(&mut self.slots) {
            self.has_reclaimed = false;
            self.board.ring(&self.ringer);
        }
        let (slot, tally) = self.links.finish(sequence, give_up)?;
        self.slots.give_back(slot);
        Some(tally)
    }
}
