use std::any::Any;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use iceoryx2::port::backpressure_strategy::BackpressureStrategy;
use iceoryx2::port::publisher::{Publisher, PublisherCreateError};
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::port::{BackpressureAction, LoanError, SendError};
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::sample_mut::SampleMut;

use super::alone::Alone;
use super::connection::Tally;
use super::growing::{self, Growing};
use super::handshake::Sides;
use super::node::Node;
use super::service::{Block64, Header, SessionService, pool_file};
use super::shield::{Panicked, shield};
use super::tended::Tended;
use super::topic::{OpenTopic, Overflow, TopicError};
use super::turn::{Part, Turn};
use super::wake::{Board, Ringer};
use crate::os::{Forked, populate_write, reserve};
use crate::pool::{MemoryFacts, PoolError, admit};
use crate::wire::{EncodedLayout, Preamble};

/// How long a publisher that is dropped waits for subscribers that have messages of it in their queue, and have not looked
/// into it yet.
pub const DRAIN_ON_DROP: Duration = Duration::from_secs(1);

/// The sending side of a topic: a pool of slots, and the bells of its receivers.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The other share is in `tended`.
    pub(super) ports: Arc<Part<Mutex<Ports>>>,
    pub(super) tended: Arc<Tended>,
    tended_key: u64,
    topic: String,
    slots: usize,
    blocks: usize,
    /// How the slots grow, unless all of them have all their memory from the beginning.
    growing: OnceLock<Growing>,
    counters: Counters,
    broken: Arc<AtomicBool>,
    /// What the ports live in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

/// Only changed under the lock of the ports, where no atomic addition is needed; read by anyone.
#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    unheard: AtomicU64,
    failed: AtomicU64,
    /// Receivers that did not get a message because their queue was full.
    refused: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) struct Ports {
    pub(super) publisher: Alone<Publisher<SessionService, [Block64], Header>>,
    pub(super) board: Arc<Board>,
    pub(super) ringer: Arc<Ringer>,
    pub(super) sides: Alone<Sides>,
    /// Number of the next message: under the same lock as sending, so that numbers arrive in order.
    next_sequence: u64,
    /// The layout of the last loan: most publishers send the same one again and again.
    last_layout: Option<Arc<EncodedLayout>>,
}

/// A sender while no other thread uses it.
pub(crate) struct Sending<'a> {
    ports: MutexGuard<'a, Ports>,
    sender: &'a Arc<Sender>,
}

/// A slot of the pool that nobody else sees yet.
pub(crate) struct Slot {
    /// `None` once it is sent.
    sample: Option<Alone<SampleMut<SessionService, [Block64], Header>>>,
    /// The slot's bytes: the sample may only be asked under the lock.
    bytes: NonNull<[u8]>,
    /// How many of them have memory.
    committed: usize,
    sender: Arc<Sender>,
}

// SAFETY: the sample is `Alone`; the bytes are its own, in memory that stays mapped as long as it lives, whatever thread
// has it.
unsafe impl Send for Slot {}

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

impl Sender {
    /// Makes the port and its pool of `slots` slots with at least `slot_bytes` bytes each. `home` is what `node` and `topic`
    /// live in: it is dropped after them.
    ///
    /// The first `ahead` bytes of each slot are admitted, reserved and populated now, or there is an error and nothing is left
    /// behind; the others when a message needs them.
    pub(crate) fn create(
        node: &Node,
        topic: &OpenTopic,
        slots: usize,
        slot_bytes: usize,
        ahead: usize,
        home: Arc<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>, TopicError> {
        let size = PoolError::Size { slots, slot_bytes };
        let blocks = slot_bytes.div_ceil(size_of::<Block64>());
        let whole = blocks.checked_mul(size_of::<Block64>()).and_then(|bytes| bytes.checked_mul(slots));
        let needed = match whole {
            Some(bytes) if bytes > 0 && bytes < isize::MAX as usize / 2 => bytes as u64,
            _ => return Err(size.into()),
        };
        let grows = ahead < slot_bytes;
        let needed = if grows { growing::bytes_at_first(slots, ahead) } else { needed };
        let facts = MemoryFacts::gather(node.directory()).map_err(|reason| PoolError::Prepare { needed, reason })?;
        admit(needed, &facts)?;
        let counters = Counters::default();
        let turn = Turn::take(node.directory()).map_err(|error| topic.failed(error))?;
        node.admit_to_quota(needed)?;
        let publisher = create_publisher(topic, slots, blocks, counters.refused.clone())?;
        let mut sides = Sides::default();
        sides.update();
        // SAFETY: used under the mutex that it goes into here.
        let publisher = unsafe { Alone::new(publisher) };
        // SAFETY: as for the publisher, whose connections they are.
        let sides = unsafe { Alone::new(sides) };
        let (board, ringer) = (topic.services.get()?.board.clone(), node.ringer().clone());
        let ports = Ports { publisher, board, ringer, sides, next_sequence: 0, last_layout: None };
        let (ports, broken) = (Arc::new(Part::new(Mutex::new(ports), node.directory())), Arc::default());
        let look = (Arc::clone(&ports), Arc::clone(&broken));
        let tended_key = node.tended().add(move || tend(&look.0, &look.1));
        let sender = Arc::new(Self {
            ports,
            tended: node.tended().clone(),
            tended_key,
            topic: topic.name().to_owned(),
            slots,
            blocks,
            growing: OnceLock::new(),
            counters,
            broken,
            _home: home,
        });
        if grows {
            sender.reserve_ahead(node, ahead)?;
        } else {
            sender.reserve(node)?;
        }
        drop(turn);
        sender.populate()?;
        // Subscribers that sleep wake up and open their side of the connection.
        sender.lock()?.ring();
        Ok(sender)
    }

    /// Makes the file system promise the whole pool, or gives an error.
    fn reserve(self: &Arc<Self>, node: &Node) -> Result<(), TopicError> {
        let id = self.lock()?.ports.publisher.id().value();
        let prepare = |reason| self.not_prepared(reason);
        let file = pool_file(node.directory(), id).map_err(prepare)?;
        let found = std::fs::metadata(&file).map_err(prepare)?;
        let needed = found.len();
        admit(needed, &MemoryFacts::gather(node.directory()).map_err(prepare)?)?;
        node.admit_to_quota(needed.saturating_sub(found.blocks() * 512))?;
        Ok(reserve(&file).map_err(prepare)?)
    }

    /// As `reserve`, for what comes before the slots and for the first `ahead` bytes of each.
    fn reserve_ahead(self: &Arc<Self>, node: &Node, ahead: usize) -> Result<(), TopicError> {
        let prepare = |reason| self.not_prepared(reason);
        let id = self.lock()?.ports.publisher.id().value();
        let file = pool_file(node.directory(), id).map_err(prepare)?;
        growing::reserve_before_slots(&file, self.slots).map_err(prepare)?;
        let first = self.loan_to_prepare()?;
        let growing = Growing::new(file, first.address(), self.slot_bytes(), self.slots, ahead).map_err(prepare)?;
        // Made here only, once.
        let _ = self.growing.set(growing);
        Ok(())
    }

    fn loan_to_prepare(self: &Arc<Self>) -> Result<Slot, TopicError> {
        let loaned = self.lock()?.loan();
        Ok(loaned.map_err(|failure| self.not_prepared(std::io::Error::other(format!("{failure:?}"))))?)
    }

    /// Puts pages behind what every slot has memory for, so that its first use is as fast as any other.
    fn populate(self: &Arc<Self>) -> Result<(), TopicError> {
        let prepare = |reason| self.not_prepared(reason);
        // Every slot at once, so that each is a different one; all go back when the list is dropped.
        let mut all = Vec::with_capacity(self.slots);
        for _ in 0..self.slots {
            let mut slot = self.loan_to_prepare()?;
            populate_write(slot.bytes_mut()?).map_err(prepare)?;
            all.push(slot);
        }
        Ok(())
    }

    /// Gives back the memory that free slots got when they grew. Returns how many bytes it was.
    pub(crate) fn release_unused(self: &Arc<Self>) -> Result<u64, LoanFailure> {
        let Some(growing) = self.growing.get() else { return Ok(0) };
        // Under one lock: no other thread finds that no slot is free.
        let mut sending = self.lock()?;
        let mut free = Vec::new();
        let all = loop {
            match sending.loan() {
                Ok(slot) => free.push(slot),
                Err(LoanFailure::NoFreeSlot) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        let released = growing.release(free.iter().map(Slot::address));
        // The last one first, so that the slots come in the same order again.
        for mut slot in free.into_iter().rev() {
            // Its own drop would wait for the lock.
            drop(slot.sample.take());
        }
        drop(sending);
        all?;
        released.map_err(|error| LoanFailure::Broken(format!("memory could not be given back: {error}")))
    }

    fn not_prepared(&self, reason: std::io::Error) -> PoolError {
        PoolError::Prepare { needed: (self.slots * self.slot_bytes()) as u64, reason }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of a slot: what was asked for, rounded up to whole blocks.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.blocks * size_of::<Block64>()
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn published(&self) -> u64 {
        self.counters.published.load(Ordering::Relaxed)
    }

    pub(crate) fn unheard(&self) -> u64 {
        self.counters.unheard.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.counters.failed.load(Ordering::Relaxed)
    }

    /// A message that could not be sent for a reason of its own.
    pub(crate) fn count_failure(self: &Arc<Self>) {
        if let Ok(_alone) = self.lock() {
            increment(&self.counters.failed);
        }
    }

    pub(crate) fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Waits until no other thread uses the sender.
    #[inline]
    pub(crate) fn lock(self: &Arc<Self>) -> Result<Sending<'_>, Forked> {
        Ok(Sending { ports: self.ports.get()?.lock().unwrap_or_else(PoisonError::into_inner), sender: self })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) { Err("the port broke at an earlier call".to_owned()) } else { Ok(()) }
    }

    #[cold]
    pub(super) fn give_up(&self, panicked: Panicked) -> String {
        self.broken.store(true, Ordering::Relaxed);
        panicked.0
    }
}

impl Sending<'_> {
    /// The layout of the last loan.
    pub(crate) fn last_layout(&mut self) -> &mut Option<Arc<EncodedLayout>> {
        &mut self.ports.last_layout
    }

    /// Wakes the receivers that sleep.
    fn ring(&self) {
        self.ports.board.ring(&self.ports.ringer);
    }

    /// Takes a slot out of the pool.
    #[inline]
    pub(crate) fn loan(&mut self) -> Result<Slot, LoanFailure> {
        let Self { ports, sender } = self;
        sender.check().map_err(LoanFailure::Broken)?;
        let mut loaned = shield(|| ports.publisher.loan_slice_uninit(sender.blocks));
        if matches!(loaned, Ok(Err(LoanError::OutOfMemory))) {
            // What dead subscribers held comes back with their connections, which else only a message lets go.
            look_at_connections(ports, &sender.broken);
            sender.check().map_err(LoanFailure::Broken)?;
            loaned = shield(|| ports.publisher.loan_slice_uninit(sender.blocks));
        }
        let sample = match loaned {
            Ok(Ok(sample)) => sample,
            Ok(Err(LoanError::OutOfMemory | LoanError::ExceedsMaxLoans)) => return Err(LoanFailure::NoFreeSlot),
            Ok(Err(error)) => return Err(LoanFailure::Broken(format!("{error:?}"))),
            Err(panicked) => return Err(LoanFailure::Broken(sender.give_up(panicked))),
        };
        // SAFETY: a slot is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every
        // bit pattern is a `Block64`.
        let mut sample = unsafe { sample.assume_init() };
        let bytes = NonNull::from_mut(bytemuck::cast_slice_mut(sample.payload_mut()));
        // SAFETY: the sample is used in `send`, in `release_unused` and in the drop of the slot only, all under the lock of its sender.
        let sample = unsafe { Alone::new(sample) };
        let committed = match sender.growing.get() {
            None => bytes.len(),
            Some(growing) => match growing.committed(bytes.addr().get()) {
                Some(committed) => committed,
                None => return Err(LoanFailure::Broken("a slot does not lie where slots lie".to_owned())),
            },
        };
        Ok(Slot { sample: Some(sample), bytes, committed, sender: Arc::clone(sender) })
    }
}

impl Slot {
    fn address(&self) -> usize {
        self.bytes.addr().get()
    }

    /// Sees to it that at least the first `wanted` bytes can be used, or as many as the slot has.
    #[inline]
    pub(crate) fn ensure(&mut self, node: &Node, wanted: usize) -> Result<(), PoolError> {
        if wanted.min(self.bytes.len()) <= self.committed {
            Ok(())
        } else {
            self.grow(node, wanted.min(self.bytes.len()))
        }
    }

    #[cold]
    fn grow(&mut self, node: &Node, wanted: usize) -> Result<(), PoolError> {
        let Some(growing) = self.sender.growing.get() else { return Ok(()) };
        let committed = self.committed;
        let mut bytes = self.bytes;
        growing.grow(node, self.address(), wanted, || {
            // SAFETY: the bytes are those of the sample, which lives as long as `self`, which is borrowed exclusively.
            let bytes = unsafe { bytes.as_mut() };
            populate_write(&mut bytes[committed..wanted])
        })?;
        self.committed = wanted;
        Ok(())
    }

    /// The slot's bytes that have memory. What an earlier message left there may still be in them.
    #[inline]
    pub(crate) fn bytes(&self) -> Result<&[u8], Forked> {
        self.sender.ports.get()?;
        // SAFETY: the bytes are those of the sample, which lives as long as `self`; they are initialised, and only
        // reached through `self`, which is borrowed.
        let bytes = unsafe { self.bytes.as_ref() };
        Ok(&bytes[..self.committed])
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], Forked> {
        self.sender.ports.get()?;
        // SAFETY: as for `bytes`, and `self` is borrowed exclusively.
        let bytes = unsafe { self.bytes.as_mut() };
        Ok(&mut bytes[..self.committed])
    }
}

impl Slot {
    pub(crate) fn sender(&self) -> &Arc<Sender> {
        &self.sender
    }

    /// Gives the message its number and hands the slot to every subscriber. Returns how many have it in their queue now.
    ///
    /// Once: afterwards the slot is not ours any more.
    #[inline]
    pub(crate) fn send(&mut self, preamble: impl FnOnce(u64) -> Preamble) -> Result<usize, SendFailure> {
        let Self { sample, sender, .. } = self;
        let Sending { mut ports, .. } = sender.lock()?;
        sender.check().map_err(SendFailure::Broken)?;
        let Some(mut sample) = sample.take().map(Alone::into_inner) else { return Err(SendFailure::Forked) };
        sample.user_header_mut().0 = preamble(ports.next_sequence);
        ports.next_sequence += 1;
        Tally::reset();
        let sent = match shield(|| sample.send()) {
            Ok(Ok(receivers)) => Ok(receivers),
            Ok(Err(SendError::UnableToDeliver)) => {
                let Tally { delivered, missed, .. } = Tally::of_last_message();
                Err(SendFailure::Undelivered { delivered, missed })
            }
            Ok(Err(error)) => Err(SendFailure::Broken(format!("{error:?}"))),
            Err(panicked) => Err(SendFailure::Broken(sender.give_up(panicked))),
        };
        ports.sides.update();
        if sent != Ok(0) {
            ports.board.ring(&ports.ringer);
        }
        let counters = &sender.counters;
        increment(if sent.is_ok() { &counters.published } else { &counters.failed });
        if sent == Ok(0) {
            increment(&counters.unheard);
        }
        sent
    }
}

/// Gives late joiners their history, unless somebody uses the port: that one does it.
fn tend(ports: &Part<Mutex<Ports>>, broken: &AtomicBool) {
    let Ok(ports) = ports.get() else { return };
    let Ok(mut ports) = ports.try_lock() else { return };
    if !broken.load(Ordering::Relaxed) {
        look_at_connections(&mut ports, broken);
    }
}

/// Lets go of connections to subscribers that are gone, and brings those that are new their history.
#[cold]
fn look_at_connections(ports: &mut Ports, broken: &AtomicBool) {
    let updated = shield(|| ports.publisher.update_connections());
    if updated.is_err() {
        broken.store(true, Ordering::Relaxed);
    }
    if ports.sides.update() {
        ports.board.ring(&ports.ringer);
    }
}

impl Drop for Sender {
    /// Nothing that was delivered is lost: waits for subscribers that have not opened their side.
    fn drop(&mut self) {
        if self.ports.get().is_err() {
            return;
        }
        if self.published() > self.unheard() || self.failed() > 0 {
            let waited = self.wait_for_sides(DRAIN_ON_DROP, |sides| sides.closed == 0);
            if let Ok((sides, false)) = waited {
                tracing::warn!(topic = self.topic, subscribers = sides.closed, "they may lose the last messages");
            }
        }
        self.tended.remove(self.tended_key);
    }
}

/// Under the lock of the ports: nobody else adds meanwhile.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Drop for Slot {
    /// Gives the slot back if it was not sent.
    fn drop(&mut self) {
        let Some(sample) = self.sample.take() else { return };
        match self.sender.lock() {
            Ok(_alone) => drop(sample),
            // It is the parent's.
            Err(Forked) => std::mem::forget(sample),
        }
    }
}

fn create_publisher(
    topic: &OpenTopic,
    slots: usize,
    blocks: usize,
    refused: Arc<AtomicU64>,
) -> Result<Publisher<SessionService, [Block64], Header>, TopicError> {
    let overflow = topic.settings().overflow;
    let on_full = move |info: &iceoryx2::port::BackpressureInfo| {
        let action = match overflow {
            Overflow::DropOldest | Overflow::DropNewest => BackpressureAction::DiscardData,
            Overflow::Block(bound) if info.elapsed_time < bound => return BackpressureAction::Retry,
            Overflow::Block(_) | Overflow::Error => BackpressureAction::DiscardDataAndFail,
        };
        refused.fetch_add(1, Ordering::Relaxed);
        action
    };
    let created = shield(|| {
        topic.services.get().map(|services| {
            services
                .pub_sub
                .publisher_builder()
                .initial_max_slice_len(blocks)
                .allocation_strategy(AllocationStrategy::Static)
                .max_loaned_samples(slots)
                .override_sample_preallocation(move |_| slots)
                .backpressure_strategy(match overflow {
                    Overflow::Block(_) => BackpressureStrategy::RetryUntilDelivered,
                    _ => BackpressureStrategy::DiscardData,
                })
                .set_backpressure_handler(on_full)
                .create()
        })
    })
    .map_err(|panicked| topic.failed(panicked.0))??;
    created.map_err(|error| match error {
        PublisherCreateError::ExceedsMaxSupportedPublishers => {
            TopicError::TooManyPublishers { topic: topic.name().to_owned(), limit: topic.settings().max_publishers }
        }
        error => topic.failed(format!("publisher: {error:?}")),
    })
}
