//! Raw iceoryx2, to measure tensorbus against: the same service variant, payload, header and settings, nothing around.
//!
//! tensorbus keeps its variant private, so that no user depends on iceoryx2 by accident; hence the type aliases again.

use std::cell::Cell;
use std::fmt::Debug;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use iceoryx2::config::Config;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{
    AllocationStrategy, BackpressureStrategy, FileName, SemanticString, ServiceName, SignalHandlingMode, ZeroCopySend,
};
use iceoryx2::service::Service;
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::port_factory::{event, publish_subscribe};
use iceoryx2::unique_id_generator::unique_system_id::UniqueSystemId;
use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_lock_free::mpmc::counting_bit_set::RelocatableCountingBitSet;
use iceoryx2_cal::event::trigger::State;
use iceoryx2_cal::event::trigger::unix_datagram_socket::GenericUnixDatagramSocketTrigger;
use iceoryx2_cal::shm_allocator::bump_allocator::BumpAllocator;
use iceoryx2_cal::shm_allocator::pool_allocator::PoolAllocator;
use iceoryx2_cal::{
    arc_sync_policy, bag, dynamic_storage, hash, monitoring, reactor, resizable_shared_memory, serialize,
    shared_memory, static_storage, zero_copy_connection,
};
use tensorbus::TopicSettings;

/// Longest sleep before the queue is looked at again, as in tensorbus.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The variant of `transport/src/port/service.rs`.
#[derive(Debug, Clone)]
pub struct FileService {}

impl Service for FileService {
    type StaticStorage = static_storage::recommended::Ipc;
    type ConfigSerializer = serialize::recommended::Recommended;
    type PersistentDynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = dynamic_storage::file::Storage<T>;
    type Bag = bag::recommended::Recommended;
    type DynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = dynamic_storage::file::Storage<T>;
    type ServiceNameHasher = hash::recommended::Recommended;
    type SharedMemory = shared_memory::file::Memory<PoolAllocator>;
    type ResizableSharedMemory =
        resizable_shared_memory::dynamic::DynamicMemory<PoolAllocator, shared_memory::file::Memory<PoolAllocator>>;
    type Connection = zero_copy_connection::file::Connection;
    type Event = GenericUnixDatagramSocketTrigger<
        RelocatableCountingBitSet,
        dynamic_storage::file::Storage<State<RelocatableCountingBitSet, ()>>,
    >;
    type Monitoring = monitoring::recommended::Ipc;
    type Reactor = reactor::recommended::Ipc;
    type ArcThreadSafetyPolicy<T: Send + Debug + Abandonable> = arc_sync_policy::single_threaded::SingleThreaded<T>;
    type BlackboardMgmt<T: Send + Sync + Debug + ZeroCopySend + 'static> = dynamic_storage::file::Storage<T>;
    type BlackboardPayload = shared_memory::file::Memory<BumpAllocator>;
    type UniqueId = UniqueSystemId;
}

impl ServiceInternal<FileService> for FileService {}

/// Element of the payload: 64 bytes that lie on a multiple of 64.
#[derive(Clone, Copy, Debug, ZeroCopySend)]
#[repr(C)]
#[repr(align(64))]
pub struct Block64(pub [u64; 8]);

/// User header of 64 bytes, as large as tensorbus's preamble.
#[derive(Clone, Copy, Debug, Default, ZeroCopySend)]
#[repr(C)]
pub struct Header(pub [u64; 8]);

/// One node in a directory of its own.
#[derive(Debug)]
pub struct RawNode {
    node: Node<FileService>,
}

/// One direction's publish-subscribe and event service.
#[derive(Debug)]
pub struct RawTopic {
    pub_sub: publish_subscribe::PortFactory<FileService, [Block64], Header>,
    event: event::PortFactory<FileService>,
}

/// The sending side.
#[derive(Debug)]
pub struct RawPublisher {
    publisher: Publisher<FileService, [Block64], Header>,
    notifier: Notifier<FileService>,
    blocks: usize,
    next_sequence: Cell<u64>,
}

/// The receiving side.
#[derive(Debug)]
pub struct RawSubscriber {
    subscriber: Subscriber<FileService, [Block64], Header>,
    listener: Listener<FileService>,
}

impl RawNode {
    /// Joins the node's directory, which all processes of a run share.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn join(directory: &Path) -> Result<Self> {
        let root = iceoryx2::prelude::Path::new(directory.as_os_str().as_encoded_bytes())
            .map_err(|error| anyhow!("{directory:?}: {error:?}"))?;
        let mut config = Config::default();
        config.global.set_root_path(&root);
        config.global.prefix = FileName::new(b"raw_").map_err(|error| anyhow!("{error:?}"))?;
        let node = NodeBuilder::new()
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<FileService>()
            .map_err(|error| anyhow!("node: {error:?}"))?;
        Ok(Self { node })
    }

    pub(crate) fn node(&self) -> &Node<FileService> {
        &self.node
    }

    /// Opens or makes a topic with the settings of one of tensorbus.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn topic(&self, name: &str, settings: &TopicSettings) -> Result<RawTopic> {
        let name = ServiceName::new(name).map_err(|error| anyhow!("{name:?}: {error:?}"))?;
        let nodes = settings.max_publishers + settings.max_subscribers;
        let pub_sub = self
            .node
            .service_builder(&name)
            .publish_subscribe::<[Block64]>()
            .user_header::<Header>()
            .enable_safe_overflow(true)
            .subscriber_max_buffer_size(settings.depth)
            .history_size(settings.history)
            .subscriber_max_borrowed_samples(settings.max_borrowed)
            .max_publishers(settings.max_publishers)
            .max_subscribers(settings.max_subscribers)
            .max_nodes(nodes)
            .open_or_create()
            .map_err(|error| anyhow!("topic: {error:?}"))?;
        let event = self
            .node
            .service_builder(&name)
            .event()
            .max_notifiers(settings.max_publishers)
            .max_listeners(settings.max_subscribers)
            .max_nodes(nodes)
            .event_id_max_value(1)
            .open_or_create()
            .map_err(|error| anyhow!("event: {error:?}"))?;
        Ok(RawTopic { pub_sub, event })
    }
}

impl RawTopic {
    /// Adds a publisher with a static pool.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn publisher(&self, slots: usize, slot_bytes: usize) -> Result<RawPublisher> {
        let blocks = slot_bytes.div_ceil(size_of::<Block64>());
        let publisher = self
            .pub_sub
            .publisher_builder()
            .initial_max_slice_len(blocks)
            .allocation_strategy(AllocationStrategy::Static)
            .max_loaned_samples(slots)
            .override_sample_preallocation(move |_| slots)
            .backpressure_strategy(BackpressureStrategy::DiscardData)
            .create()
            .map_err(|error| anyhow!("publisher: {error:?}"))?;
        let notifier = self.event.notifier_builder().create().map_err(|error| anyhow!("notifier: {error:?}"))?;
        Ok(RawPublisher { publisher, notifier, blocks, next_sequence: Cell::new(0) })
    }

    /// Adds a subscriber.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn subscriber(&self) -> Result<RawSubscriber> {
        let listener = self.event.listener_builder().create().map_err(|error| anyhow!("listener: {error:?}"))?;
        let subscriber =
            self.pub_sub.subscriber_builder().create().map_err(|error| anyhow!("subscriber: {error:?}"))?;
        Ok(RawSubscriber { subscriber, listener })
    }
}

impl RawPublisher {
    /// Loans a slot, writes the first word and the header, and sends it. Wakes nobody.
    ///
    /// # Errors
    /// Those of iceoryx2.
    #[inline]
    pub fn send(&self, word: impl FnOnce() -> u64) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(self.blocks).map_err(|error| anyhow!("loan: {error:?}"))?;
        // SAFETY: a slot is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every
        // bit pattern is a `Block64`.
        let mut sample = unsafe { sample.assume_init() };
        sample.payload_mut().first_mut().context("a message has a block")?.0[0] = word();
        let sequence = self.next_sequence.get();
        self.next_sequence.set(sequence + 1);
        *sample.user_header_mut() = Header([1, 2, 3, 4, sequence, 6, 7, 8]);
        sample.send().map_err(|error| anyhow!("send: {error:?}"))?;
        Ok(())
    }

    /// Wakes the receiver if it sleeps.
    ///
    /// # Errors
    /// Those of iceoryx2.
    #[inline]
    pub fn notify(&self) -> Result<()> {
        self.notifier.notify().map_err(|error| anyhow!("notify: {error:?}"))?;
        Ok(())
    }
}

impl RawSubscriber {
    /// Takes the oldest message, copies its header, looks at its first word, and gives the slot back.
    ///
    /// # Errors
    /// Those of iceoryx2.
    #[inline]
    pub fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>> {
        let Some(sample) = self.subscriber.receive().map_err(|error| anyhow!("receive: {error:?}"))? else {
            return Ok(None);
        };
        black_box(*sample.user_header());
        let word = sample.payload().first().context("a message has a block")?.0[0];
        Ok(Some(look(word)))
    }

    /// Sleeps until there is a message, and takes it as [`RawSubscriber::take`] does.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn wait<T>(&self, look: impl Fn(u64) -> T) -> Result<T> {
        loop {
            if let Some(seen) = self.take(&look)? {
                return Ok(seen);
            }
            self.listener.timed_wait(|_| {}, LONGEST_SLEEP).map_err(|error| anyhow!("wait: {error:?}"))?;
        }
    }
}
