use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use iceoryx2::port::backpressure_strategy::BackpressureStrategy;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::{Publisher, PublisherCreateError};
use iceoryx2::port::{BackpressureAction, LoanError, SendError};
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::sample_mut::SampleMut;

use super::node::Node;
use super::service::{Block64, Header, SessionService, pool_file};
use super::shield::{Panicked, shield};
use super::topic::{OpenTopic, Overflow, TopicError};
use super::turn::{Part, Turn};
use crate::os::{Forked, Owned, populate_write, reserve};
use crate::pool::{MemoryFacts, PoolError, admit};
use crate::wire::Preamble;

/// The sending side of a topic: a pool of slots, and the notifier that wakes receivers.
#[derive(Debug)]
pub(crate) struct Sender {
    ports: Part<Ports>,
    slots: usize,
    blocks: usize,
    /// Receivers that did not get a message because their queue was full.
    refused: Arc<AtomicU64>,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Ports {
    publisher: Publisher<SessionService, [Block64], Header>,
    notifier: Notifier<SessionService>,
}

/// A slot of the pool that nobody else sees yet.
pub(crate) struct Slot {
    sample: Owned<SampleMut<SessionService, [Block64], Header>>,
    /// The slot's bytes. Kept, because the sample takes two locks to say where they are.
    bytes: NonNull<[u8]>,
}

// SAFETY: the sample is `Send`; the bytes are its own, in memory that stays mapped as long as it lives, whatever thread
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
    Undelivered,
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
    /// Makes the port and its pool of `slots` slots with at least `slot_bytes` bytes each.
    ///
    /// With `prefault`, the pool is admitted, reserved and populated, or there is an error and nothing is left behind.
    pub(crate) fn create(
        node: &Node,
        topic: &OpenTopic,
        slots: usize,
        slot_bytes: usize,
        prefault: bool,
    ) -> Result<Self, TopicError> {
        let size = PoolError::Size { slots, slot_bytes };
        let blocks = slot_bytes.div_ceil(size_of::<Block64>());
        let whole = blocks.checked_mul(size_of::<Block64>()).and_then(|bytes| bytes.checked_mul(slots));
        let needed = match whole {
            Some(bytes) if bytes > 0 && bytes < isize::MAX as usize / 2 => bytes as u64,
            _ => return Err(size.into()),
        };
        if prefault {
            let facts =
                MemoryFacts::gather(node.directory()).map_err(|reason| PoolError::Prepare { needed, reason })?;
            admit(needed, &facts)?;
        }
        let refused = Arc::new(AtomicU64::new(0));
        let turn = Turn::take(node.directory()).map_err(|error| topic.failed(error))?;
        let publisher = create_publisher(topic, slots, blocks, refused.clone())?;
        let notifier = shield(|| topic.services.get().map(|services| services.event.notifier_builder().create()))
            .map_err(|panicked| topic.failed(panicked.0))??
            .map_err(|error| topic.failed(format!("notifier: {error:?}")))?;
        let sender = Self {
            ports: Part::new(Ports { publisher, notifier }, node.directory()),
            slots,
            blocks,
            refused,
            broken: AtomicBool::new(false),
        };
        if prefault {
            sender.reserve(node)?;
        }
        drop(turn);
        if prefault {
            sender.populate()?;
        }
        // Subscribers that sleep wake up and open their side of the connection.
        let _ = shield(|| sender.ports.get().map(|ports| ports.notifier.notify()));
        Ok(sender)
    }

    /// Makes the file system promise the whole pool, or gives an error.
    fn reserve(&self, node: &Node) -> Result<(), TopicError> {
        let id = self.ports.get()?.publisher.id().value();
        let prepare = |reason| self.not_prepared(reason);
        let file = pool_file(node.directory(), id).map_err(prepare)?;
        let needed = std::fs::metadata(&file).map_err(prepare)?.len();
        admit(needed, &MemoryFacts::gather(node.directory()).map_err(prepare)?)?;
        Ok(reserve(&file).map_err(prepare)?)
    }

    /// Puts pages behind every slot, so that its first use is as fast as any other.
    fn populate(&self) -> Result<(), TopicError> {
        let prepare = |reason| self.not_prepared(reason);
        // Every slot at once, so that each is a different one; all go back when the list is dropped.
        let mut all = Vec::with_capacity(self.slots);
        for _ in 0..self.slots {
            let mut slot = self.loan().map_err(|failure| prepare(std::io::Error::other(format!("{failure:?}"))))?;
            populate_write(slot.bytes_mut()?).map_err(prepare)?;
            all.push(slot);
        }
        Ok(())
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

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a slot out of the pool.
    #[inline]
    pub(crate) fn loan(&self) -> Result<Slot, LoanFailure> {
        let publisher = &self.ports.get()?.publisher;
        self.check().map_err(LoanFailure::Broken)?;
        let sample = match shield(|| publisher.loan_slice_uninit(self.blocks)) {
            Ok(Ok(sample)) => sample,
            Ok(Err(LoanError::OutOfMemory | LoanError::ExceedsMaxLoans)) => return Err(LoanFailure::NoFreeSlot),
            Ok(Err(error)) => return Err(LoanFailure::Broken(format!("{error:?}"))),
            Err(panicked) => return Err(LoanFailure::Broken(self.give_up(panicked))),
        };
        // SAFETY: a slot is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every
        // bit pattern is a `Block64`.
        let mut sample = unsafe { sample.assume_init() };
        let bytes = NonNull::from_mut(bytemuck::cast_slice_mut(sample.payload_mut()));
        Ok(Slot { sample: Owned::new(sample), bytes })
    }

    /// Hands the slot to every subscriber. Returns how many have it in their queue now.
    #[inline]
    pub(crate) fn send(&self, slot: Slot, preamble: &Preamble) -> Result<usize, SendFailure> {
        let notifier = &self.ports.get()?.notifier;
        self.check().map_err(SendFailure::Broken)?;
        let mut sample = slot.sample.into_inner()?;
        sample.user_header_mut().0 = *preamble;
        let sent = match shield(|| sample.send()) {
            Ok(Ok(receivers)) => Ok(receivers),
            Ok(Err(SendError::UnableToDeliver)) => Err(SendFailure::Undelivered),
            Ok(Err(error)) => Err(SendFailure::Broken(format!("{error:?}"))),
            Err(panicked) => Err(SendFailure::Broken(self.give_up(panicked))),
        };
        if sent != Ok(0) {
            // A listener that cannot be notified is gone or has its wake-up pending already.
            let _ = shield(|| notifier.notify()).map_err(|panicked| self.give_up(panicked));
        }
        sent
    }

    fn check(&self) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) { Err("the port broke at an earlier call".to_owned()) } else { Ok(()) }
    }

    #[cold]
    fn give_up(&self, panicked: Panicked) -> String {
        self.broken.store(true, Ordering::Relaxed);
        panicked.0
    }
}

impl Slot {
    /// The slot's bytes. What an earlier message left there may still be in them.
    #[inline]
    pub(crate) fn bytes(&self) -> Result<&[u8], Forked> {
        self.sample.get()?;
        // SAFETY: the bytes are those of the sample, which lives as long as `self`; they are initialised, and only
        // reached through `self`, which is borrowed.
        Ok(unsafe { self.bytes.as_ref() })
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], Forked> {
        self.sample.get()?;
        // SAFETY: as for `bytes`, and `self` is borrowed exclusively.
        Ok(unsafe { self.bytes.as_mut() })
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
