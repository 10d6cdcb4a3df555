use std::any::Any;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use iceoryx2::port::publisher::PublisherCreateError;
use iceoryx2::prelude::AllocationStrategy;

use super::alone::Alone;
use super::backlog::Tally;
use super::counter::Counter;
use super::growing::{self, Growing};
use super::made::take_made;
use super::node::Node;
use super::outgoing::{Link, Links};
use super::pool::{Place, Pool, loan};
use super::sending::{LoanFailure, Ports, SendFailure, Sending};
use super::service::{Block64, IoxPublisher, pool_file};
use super::shield::{Panicked, shield};
use super::slots::{Order, Slots};
use super::tended::Tended;
use super::topic::{OpenTopic, Overflow, TopicError};
use super::turn::{Part, Turn};
use super::unopened::Unopened;
use crate::os::{Forked, reserve};
use crate::pool::{MemoryFacts, PoolError, admit};

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
    overflow: Overflow,
    slots: usize,
    blocks: usize,
    /// How the slots grow, unless all of them have all their memory from the beginning.
    growing: OnceLock<Growing>,
    counters: Counters,
    broken: Arc<AtomicBool>,
    /// What the ports live in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug, Default)]
struct Counters {
    published: Counter,
    unheard: Counter,
    failed: Counter,
    /// Receivers that did not get a message because their queue was full.
    refused: Counter,
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
        let turn = Turn::take(node.directory()).map_err(|error| topic.failed(error))?;
        node.admit_to_quota(needed)?;
        let unopened = Unopened::new(node.directory(), &topic.services.get()?.pub_sub);
        let (publisher, links) = create_publisher(topic, slots, blocks, &unopened)?;
        let meter = topic.meter(publisher.id().value())?;
        let prepare = |reason| PoolError::Prepare { needed, reason };
        let file = pool_file(node.directory(), publisher.id().value()).map_err(prepare)?;
        let growing = OnceLock::new();
        if grows {
            growing::reserve_before_slots(&file, slots).map_err(prepare)?;
        } else {
            reserve_all(&file, node)?;
        }
        let damaged = |reason| topic.failed(reason);
        let first = shield(|| loan(&publisher, blocks)).map_err(|panicked| damaged(panicked.0))?.map_err(damaged)?;
        if grows {
            let address = first.payload().as_ptr().addr();
            let made = Growing::new(file, address, blocks * size_of::<Block64>(), slots, ahead).map_err(prepare)?;
            let _ = growing.set(made);
        }
        let pool = shield(|| Pool::new(&publisher, first, slots)).map_err(|panicked| damaged(panicked.0))?;
        let pool = pool.map_err(damaged)?;
        let links = Links::new(links, pool.stride());
        let order = if grows { Order::LastReturned } else { Order::LongestFree };
        let accounts = Slots::new(slots, order, topic.settings().history);
        // SAFETY: used under the mutex that it goes into here.
        let publisher = unsafe { Alone::new(publisher) };
        let (board, ringer) = (topic.services.get()?.board.clone(), node.ringer().clone());
        let ports = Ports {
            pool,
            slots: accounts,
            links,
            publisher,
            unopened,
            board,
            ringer,
            meter,
            has_reclaimed: false,
            next_sequence: 0,
            layouts: Vec::new(),
        };
        let (ports, broken) = (Arc::new(Part::new(Mutex::new(ports), node.directory())), Arc::default());
        let look = (Arc::clone(&ports), Arc::clone(&broken));
        let tended_key = node.tended().add(move || tend(&look.0, &look.1));
        let sender = Arc::new(Self {
            ports,
            tended: node.tended().clone(),
            tended_key,
            topic: topic.name().to_owned(),
            overflow: topic.settings().overflow,
            slots,
            blocks,
            growing,
            counters: Counters::default(),
            broken,
            _home: home,
        });
        drop(turn);
        sender.populate()?;
        // Subscribers that sleep wake up and open their side of the connection.
        sender.lock()?.ring();
        Ok(sender)
    }

    /// Puts pages behind what every slot has memory for, so that its first use is as fast as any other.
    fn populate(self: &Arc<Self>) -> Result<(), TopicError> {
        let Sending { mut ports, .. } = self.lock()?;
        for slot in 0..self.slots {
            let committed = self.committed(ports.pool.place(slot)).unwrap_or(0);
            ports.pool.populate(slot, committed).map_err(|reason| self.not_prepared(reason))?;
        }
        Ok(())
    }

    /// How many bytes of a slot have memory. `None` if there is no slot.
    #[inline]
    pub(super) fn committed(&self, place: Place) -> Option<usize> {
        match self.growing.get() {
            None => Some(place.bytes.len()),
            Some(growing) => growing.committed(place.address()),
        }
    }

    /// Gives back the memory that free slots got when they grew. Returns how many bytes it was.
    pub(crate) fn release_unused(self: &Arc<Self>) -> Result<u64, LoanFailure> {
        let Some(growing) = self.growing.get() else { return Ok(0) };
        // Under one lock: no other thread finds that no slot is free.
        let Sending { mut ports, .. } = self.lock()?;
        self.check().map_err(LoanFailure::Broken)?;
        let mut free = Vec::new();
        while let Some(slot) = ports.take_slot() {
            free.push(slot);
        }
        let released = growing.release(free.iter().map(|&slot| ports.pool.place(slot).address()));
        // The last one first, so that the slots come in the same order again.
        for slot in free.into_iter().rev() {
            ports.slots.give_back(slot);
        }
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
        self.counters.published.get()
    }

    pub(crate) fn unheard(&self) -> u64 {
        self.counters.unheard.get()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.counters.failed.get()
    }

    /// A message that could not be sent for a reason of its own.
    pub(crate) fn count_failure(self: &Arc<Self>) {
        if let Ok(_alone) = self.lock() {
            self.counters.failed.add(1);
        }
    }

    pub(crate) fn refused(&self) -> u64 {
        self.counters.refused.get()
    }

    #[inline]
    pub(super) fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Counts a message that does not wait any more. Under the lock of the ports.
    #[inline]
    pub(super) fn account(&self, Tally { delivered, missed }: Tally) -> Result<usize, SendFailure> {
        if missed > 0 {
            self.counters.refused.add(missed as u64);
            if matches!(self.overflow, Overflow::Block(_) | Overflow::Error) {
                self.counters.failed.add(1);
                return Err(SendFailure::Undelivered { delivered, missed });
            }
        }
        self.counters.published.add(1);
        if delivered == 0 {
            self.counters.unheard.add(1);
        }
        Ok(delivered)
    }

    /// Waits until no other thread uses the sender.
    #[inline]
    pub(crate) fn lock(self: &Arc<Self>) -> Result<Sending<'_>, Forked> {
        Ok(Sending { ports: self.ports.get()?.lock().unwrap_or_else(PoisonError::into_inner), sender: self })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) { Err("the port broke at an earlier call".to_owned()) } else { Ok(()) }
    }

    /// Whether this process made it, or its parent did.
    #[inline]
    pub(super) fn check_ours(&self) -> Result<(), Forked> {
        self.ports.get().map(drop)
    }

    pub(super) fn growing(&self) -> Option<&Growing> {
        self.growing.get()
    }

    #[cold]
    pub(super) fn give_up(&self, panicked: Panicked) -> String {
        self.broken.store(true, Ordering::Relaxed);
        panicked.0
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
    let updated = shield(|| ports.look_at_connections());
    if updated.is_err() {
        broken.store(true, Ordering::Relaxed);
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

/// In a turn. Makes the file system promise the whole pool, or gives an error.
fn reserve_all(file: &Path, node: &Node) -> Result<(), TopicError> {
    let found = std::fs::metadata(file);
    let needed = found.as_ref().map_or(0, std::fs::Metadata::len);
    let prepare = |reason| PoolError::Prepare { needed, reason };
    let found = found.map_err(prepare)?;
    admit(needed, &MemoryFacts::gather(node.directory()).map_err(prepare)?)?;
    node.admit_to_quota(needed.saturating_sub(found.blocks() * 512))?;
    Ok(reserve(file).map_err(prepare)?)
}

/// With the connections to subscribers that are there already.
fn create_publisher(
    topic: &OpenTopic,
    slots: usize,
    blocks: usize,
    unopened: &Unopened,
) -> Result<(IoxPublisher, Vec<Arc<Link>>), TopicError> {
    let created = shield(|| {
        topic.services.get().map(|services| {
            services
                .pub_sub
                .publisher_builder()
                .initial_max_slice_len(blocks)
                .allocation_strategy(AllocationStrategy::Static)
                .max_loaned_samples(slots)
                .override_sample_preallocation(move |_| slots)
                .set_degradation_handler(unopened.note())
                .create()
        })
    });
    // Before another port of this thread takes them for its own, and whatever came of it.
    let links = take_made().links;
    match created.map_err(|panicked| topic.failed(panicked.0))?? {
        Ok(publisher) => Ok((publisher, links)),
        Err(PublisherCreateError::ExceedsMaxSupportedPublishers) => Err(TopicError::TooManyPublishers {
            topic: topic.name().to_owned(),
            limit: topic.settings().max_publishers,
        }),
        Err(error) => Err(topic.failed(format!("publisher: {error:?}"))),
    }
}
