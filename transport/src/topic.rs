use std::sync::Arc;
use std::time::Duration;

use crate::bus::BusInner;
use crate::port::{OpenTopic, Overflow, TopicError, Wishes};
use crate::publisher::{PoolWishes, Publisher};
use crate::subscriber::Subscriber;

/// A topic about to be opened: its name and settings. Made by [`Bus::topic`](crate::Bus::topic).
///
/// Whoever opens a topic first fixes its depth, history, overflow policy and limits. Whoever opens it later and asks
/// for something else gets [`TopicError::Mismatch`]; what is left open is taken as it is. Slots and spinning are each
/// port's own.
#[derive(Clone, Debug)]
#[must_use]
pub struct TopicBuilder {
    bus: Arc<BusInner>,
    name: String,
    wishes: Wishes,
    pool: PoolWishes,
    spin: Duration,
}

/// How long [`Subscriber::recv`] looks for a message before it sleeps, if nothing else is said.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(20);

impl TopicBuilder {
    pub(crate) fn new(bus: Arc<BusInner>, name: &str) -> Self {
        Self { bus, name: name.to_owned(), wishes: Wishes::default(), pool: PoolWishes::default(), spin: DEFAULT_SPIN }
    }

    /// Messages that wait for a subscriber at most. Default: 4, or the history if that is more.
    pub fn depth(mut self, messages: usize) -> Self {
        self.wishes.depth = Some(messages);
        self
    }

    /// Messages that a subscriber gets that comes late, at most the depth. Default: 0.
    ///
    /// They are delivered by the publisher: within a tick where its bus has a [`ServiceThread`](crate::ServiceThread),
    /// else with the next message that it publishes. A publisher that is gone delivers none.
    pub fn history(mut self, messages: usize) -> Self {
        self.wishes.history = Some(messages);
        self
    }

    /// Messages of one publisher that a subscriber may hold at a time; clones of a tensor count once. Default: 4.
    pub fn max_borrowed(mut self, messages: usize) -> Self {
        self.wishes.max_borrowed = Some(messages);
        self
    }

    /// What a publisher does when a subscriber's queue is full. Default: [`Overflow::DropOldest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.wishes.overflow = Some(overflow);
        self
    }

    /// Publishers that the topic can have at a time. Default: 8.
    pub fn max_publishers(mut self, publishers: usize) -> Self {
        self.wishes.max_publishers = Some(publishers);
        self
    }

    /// Subscribers that the topic can have at a time. Default: 16.
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.wishes.max_subscribers = Some(subscribers);
        self
    }

    /// Slots of a publisher: messages that can be loaned, queued or held at the same time.
    ///
    /// Default: the greater of depth and history, plus max_borrowed, plus 2. That is enough for any number of
    /// subscribers that keep up with each other; subscribers that hold different messages need more.
    pub fn slots(mut self, slots: usize) -> Self {
        self.pool.slots = Some(slots);
        self
    }

    /// Bytes of tensor data that a message of this publisher can carry. Default: those of the first message.
    ///
    /// With a size, the pool is made together with the publisher; without, at its first loan.
    pub fn slot_bytes(mut self, bytes: usize) -> Self {
        self.pool.slot_bytes = Some(bytes);
        self
    }

    /// Bytes of tensor data that a message of this publisher can carry at most, when messages differ much in size.
    /// Default: `slot_bytes`.
    ///
    /// Each slot gets so many bytes of address space, and memory only as far as its largest message so far needed. With
    /// [`slot_bytes`](TopicBuilder::slot_bytes), each has that much from the beginning; without, none. The pool is made
    /// together with the publisher, and never moves: messages of all sizes keep their order, and the history stays.
    ///
    /// A loan whose slot has to grow takes some tenths of a millisecond and the time to fill its pages. If file system, machine,
    /// container or quota have no room, it fails with [`LoanError::Pool`](crate::LoanError::Pool), and smaller messages still
    /// go through. [`Publisher::release_unused`] gives memory back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tensorbus_transport::{Bus, Dtype};
    /// # let bus = Bus::builder().session("doc-growing").open()?;
    /// let publisher = bus.topic("images").max_slot_bytes(256 << 20).publisher()?;
    /// publisher.loan(Dtype::U8, &[64, 64, 3])?.publish()?;
    /// publisher.loan(Dtype::U8, &[2160, 3840, 3])?.publish()?;
    /// assert!(publisher.release_unused()? >= 2160 * 3840 * 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_slot_bytes(mut self, bytes: usize) -> Self {
        self.pool.max_slot_bytes = Some(bytes);
        self
    }

    /// Whether a publisher's slots get their memory when they are made. Default: yes.
    ///
    /// Without it, a slot gets memory when a message first needs it: slots that are never used cost almost nothing, the first
    /// use of each is several times slower, and what a machine that is full refuses is that loan.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.pool.prefault = prefault;
        self
    }

    /// How long [`Subscriber::recv`] looks for a message without sleeping. Default: [`DEFAULT_SPIN`].
    ///
    /// Waking a sleeping thread costs far more than a message does: a receiver that spins for about the time between
    /// two messages gets them sooner, at the price of a busy core. Zero sleeps at once.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Opens the topic and adds a publisher to it.
    ///
    /// # Errors
    /// [`TopicError`] if the topic cannot be opened or has other settings, if it has all the publishers it allows, or
    /// if there is no memory for the slots.
    pub fn publisher(self) -> Result<Publisher, TopicError> {
        let topic = OpenTopic::open_or_create(&self.bus.node, &self.name, &self.wishes)?;
        Publisher::create(self.bus, topic, self.pool)
    }

    /// Opens the topic and adds a subscriber to it, which gets what is published from now on.
    ///
    /// # Errors
    /// [`TopicError`] if the topic cannot be opened or has other settings, or has all the subscribers it allows.
    pub fn subscriber(self) -> Result<Subscriber, TopicError> {
        let topic = OpenTopic::open_or_create(&self.bus.node, &self.name, &self.wishes)?;
        Subscriber::create(&self.bus, topic, self.spin)
    }
}
