//! The one place that says how iceoryx2 keeps our objects: as files of one directory.
//!
//! iceoryx2's stock variant spreads a service over /dev/shm and a root path. This variant puts everything under the
//! root path, as iceoryx2's own example on service variants does it: `du` shows a session's use, `rm -r` removes it.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use iceoryx2::config::Config;
use iceoryx2::service::Service;
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::messaging_pattern::MessagingPattern;
use iceoryx2::service::service_name::ServiceName;
use iceoryx2::unique_id_generator::unique_system_id::UniqueSystemId;
use iceoryx2_bb_container::semantic_string::SemanticString;
use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;
use iceoryx2_bb_lock_free::mpmc::counting_bit_set::RelocatableCountingBitSet;
use iceoryx2_cal::event::trigger::State;
use iceoryx2_cal::event::trigger::unix_datagram_socket::GenericUnixDatagramSocketTrigger;
use iceoryx2_cal::shm_allocator::bump_allocator::BumpAllocator;
use iceoryx2_cal::shm_allocator::pool_allocator::PoolAllocator;
use iceoryx2_cal::{
    arc_sync_policy, bag, dynamic_storage, hash, monitoring, reactor, resizable_shared_memory, serialize,
    shared_memory, static_storage,
};

use super::connection::SharedConnection;
use super::shield::shield;
use crate::pool::POOL_SUFFIX;
use crate::wire::Preamble;

/// What every file of a session begins with.
pub(super) const PREFIX: &str = "tb_";
/// Publishers that may be gone while messages of theirs are still held by one subscriber; beyond it iceoryx2 panics.
/// Not more than will do: a subscriber of iceoryx2 walks over that many places when it looks for a message and finds none.
const HELD_AFTER_DEATH: usize = 512;

/// iceoryx2 with all of a session's objects as files in one directory.
///
/// Its ports and samples take no locks: `alone.rs` says who does.
#[derive(Debug, Clone)]
pub(crate) struct SessionService {}

impl Service for SessionService {
    type StaticStorage = static_storage::recommended::Ipc;
    type ConfigSerializer = serialize::recommended::Recommended;
    type PersistentDynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = dynamic_storage::file::Storage<T>;
    type Bag = bag::recommended::Recommended;
    type DynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = dynamic_storage::file::Storage<T>;
    type ServiceNameHasher = hash::recommended::Recommended;
    type SharedMemory = shared_memory::file::Memory<PoolAllocator>;
    type ResizableSharedMemory =
        resizable_shared_memory::dynamic::DynamicMemory<PoolAllocator, shared_memory::file::Memory<PoolAllocator>>;
    type Connection = SharedConnection;
    /// iceoryx2 wants a type; nothing makes an event service (`wake.rs`).
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

impl ServiceInternal<SessionService> for SessionService {}

/// iceoryx2's end of a publisher.
pub(super) type IoxPublisher = iceoryx2::port::publisher::Publisher<SessionService, [Block64], Header>;

/// Element of every payload. As a type of 64 bytes it aligns the payload without the padding that an alignment set on
/// bytes brings: that would make each byte take 64.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
#[repr(align(64))]
pub(crate) struct Block64([u8; 64]);

// SAFETY: plain bytes: no pointers, no drop, every bit pattern is a value, the same layout in every process.
unsafe impl ZeroCopySend for Block64 {
    unsafe fn type_name() -> &'static str {
        "tensorbus::Block64"
    }
}

/// The preamble as iceoryx2's user header: it lies between iceoryx2's header and the payload.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Header(pub(crate) Preamble);

// SAFETY: a transparent wrapper of plain fixed-width integers: no pointers, no drop, every bit pattern is a value.
unsafe impl ZeroCopySend for Header {
    unsafe fn type_name() -> &'static str {
        "tensorbus::Preamble"
    }
}

/// Settings of iceoryx2 for a session in `directory`. Files and environment of the user have no influence on it.
///
/// `None` if the path is longer than iceoryx2 can take.
pub(crate) fn config(directory: &Path) -> Option<Config> {
    let mut config = Config::default();
    let root = iceoryx2_bb_system_types::path::Path::new(directory.as_os_str().as_encoded_bytes()).ok()?;
    config.global.set_root_path(&root);
    config.global.prefix = file_name(PREFIX)?;
    config.global.service.data_segment_suffix = file_name(POOL_SUFFIX)?;
    config.defaults.publish_subscribe.subscriber_expired_connection_buffer = HELD_AFTER_DEATH;
    // `dead.rs` does it, and tells the deaths.
    config.global.node.cleanup_dead_nodes_on_creation = false;
    config.global.node.cleanup_dead_nodes_on_destruction = false;
    config.global.service.cleanup_dead_nodes_on_open = false;
    Some(config)
}

/// Whether anybody has the service, living or dead. What it is called says what it carries: a topic and a control service have no
/// name in common.
pub(super) fn exists(directory: &Path, service: &str) -> bool {
    let (Ok(service), Some(config)) = (ServiceName::new(service), config(directory)) else { return false };
    [MessagingPattern::PublishSubscribe, MessagingPattern::RequestResponse].into_iter().any(|pattern| {
        // What cannot be looked at may exist.
        !matches!(shield(|| SessionService::does_exist(&service, &config, pattern)), Ok(Ok(false)))
    })
}

/// The file that holds the pool of a publisher. iceoryx2 puts a hash of its types between prefix and number.
pub(crate) fn pool_file(directory: &Path, publisher: u128) -> io::Result<PathBuf> {
    let ending = format!("_{publisher}{POOL_SUFFIX}");
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes()) {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no file of the session ends in {ending}")))
}

fn file_name(name: &str) -> Option<iceoryx2_bb_system_types::file_name::FileName> {
    iceoryx2_bb_system_types::file_name::FileName::new(name.as_bytes()).ok()
}
