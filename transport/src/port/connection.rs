//! iceoryx2's connection between one publisher and one subscriber, opened up: iceoryx2 makes it, finds its other end and closes
//! it; the ports of a topic send and receive through it themselves (`outgoing.rs`, `incoming.rs`). For control services iceoryx2
//! does all of it, only with more patience when a queue is full.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use iceoryx2_bb_concurrency::atomic::AtomicU64;
use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_system_types::file_name::FileName;
use iceoryx2_bb_system_types::path::Path;
use iceoryx2_cal::named_concept::{
    NamedConcept, NamedConceptBuilder, NamedConceptDoesExistError, NamedConceptListError, NamedConceptMgmt,
    NamedConceptPathHintRemoveError, NamedConceptRemoveError,
};
use iceoryx2_cal::shm_allocator::PointerOffset;
pub(super) use iceoryx2_cal::zero_copy_connection::file::Connection as Stock;
use iceoryx2_cal::zero_copy_connection::{
    BackpressureToReceiverAction, BackpressureToReceiverFn, ChannelId, ChannelState, ZeroCopyConnection,
    ZeroCopyConnectionBuilder, ZeroCopyCreationError, ZeroCopyPortDetails, ZeroCopyPortRemoveError,
    ZeroCopyReceiveError, ZeroCopyReceiver, ZeroCopyReclaimError, ZeroCopyReleaseError, ZeroCopySendError,
    ZeroCopySender,
};

use super::incoming::Queue;
use super::made::forget_made;
use super::outgoing::Link;

type StockBuilder = <Stock as ZeroCopyConnection>::Builder;

#[derive(Debug)]
pub(crate) struct SharedConnection;

/// iceoryx2's share of the publisher's side.
#[derive(Debug)]
pub(crate) struct SharedSender(Arc<Link>);

/// iceoryx2's share of the subscriber's side.
#[derive(Debug)]
pub(crate) struct SharedReceiver(Arc<Queue>);

pub(crate) struct SharedBuilder(StockBuilder);

/// Makes a call for a port that lets iceoryx2 send and receive: nobody has a share in the connections that it opens.
pub(super) fn left_to_iceoryx<T>(call: impl FnOnce() -> T) -> T {
    let result = call();
    forget_made();
    result
}

impl ZeroCopySender for SharedSender {
    fn try_send(
        &self,
        ptr: PointerOffset,
        sample_size: usize,
        channel_id: ChannelId,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        self.0.stock.try_send(ptr, sample_size, channel_id)
    }

    fn blocking_send<F: BackpressureToReceiverFn>(
        &self,
        ptr: PointerOffset,
        sample_size: usize,
        channel_id: ChannelId,
        backpressure_to_receiver_handler: F,
        backpressure_action_for_strategy: BackpressureToReceiverAction,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        self.0.send_patiently(ptr, sample_size, channel_id, |looks, waited| {
            let action = match backpressure_to_receiver_handler(looks, waited) {
                BackpressureToReceiverAction::FollowBackpressureyStrategy => backpressure_action_for_strategy,
                action => action,
            };
            match action {
                BackpressureToReceiverAction::Retry => Ok(()),
                BackpressureToReceiverAction::DiscardPointerOffsetAndFail => Err(ZeroCopySendError::UnableToDeliver),
                _ => Err(ZeroCopySendError::ReceiveBufferFull),
            }
        })
    }

    fn reclaim(&self, channel_id: ChannelId) -> Result<Option<PointerOffset>, ZeroCopyReclaimError> {
        if self.0.is_ours.get() { Ok(None) } else { self.0.stock.reclaim(channel_id) }
    }

    unsafe fn acquire_used_offsets<F: FnMut(PointerOffset)>(&self, callback: F) {
        if self.0.is_ours.get() {
            let mut left = self.0.left.borrow_mut();
            // SAFETY: the caller promises what the stock connection asks for.
            unsafe { self.0.stock.acquire_used_offsets(|offset| left.push(offset)) };
        } else {
            // SAFETY: as above.
            unsafe { self.0.stock.acquire_used_offsets(callback) };
        }
    }
}

impl ZeroCopyPortDetails for SharedSender {
    fn number_of_channels(&self) -> usize {
        self.0.stock.number_of_channels()
    }

    fn buffer_size(&self) -> usize {
        self.0.stock.buffer_size()
    }

    fn has_enabled_safe_overflow(&self) -> bool {
        self.0.stock.has_enabled_safe_overflow()
    }

    fn max_borrowed_chunks(&self) -> usize {
        self.0.stock.max_borrowed_chunks()
    }

    fn max_supported_shared_memory_segments(&self) -> u8 {
        self.0.stock.max_supported_shared_memory_segments()
    }

    fn is_connected(&self) -> bool {
        self.0.stock.is_connected()
    }

    fn __internal_get_channel_state(&self, channel_id: ChannelId) -> &AtomicU64 {
        self.0.stock.__internal_get_channel_state(channel_id)
    }
}

impl NamedConcept for SharedSender {
    fn name(&self) -> &FileName {
        self.0.stock.name()
    }
}

impl Abandonable for SharedSender {
    unsafe fn abandon_in_place(mut this: NonNull<Self>) {
        // SAFETY: the caller hands over a value that nobody else uses.
        let this = unsafe { this.as_mut() };
        match Arc::get_mut(&mut this.0) {
            // SAFETY: the only share: nobody else uses what it holds.
            Some(link) => unsafe { Abandonable::abandon_in_place(NonNull::from_mut(&mut link.stock)) },
            // SAFETY: the caller does not drop this share again.
            None => unsafe { std::ptr::drop_in_place(&raw mut this.0) },
        }
    }
}

impl ZeroCopyReceiver for SharedReceiver {
    #[inline]
    fn has_data(&self, channel_id: ChannelId) -> bool {
        self.0.stock.has_data(channel_id)
    }

    fn receive(&self, channel_id: ChannelId) -> Result<Option<PointerOffset>, ZeroCopyReceiveError> {
        self.0.receive(channel_id)
    }

    fn release(&self, ptr: PointerOffset, channel_id: ChannelId) -> Result<(), ZeroCopyReleaseError> {
        self.0.release(ptr, channel_id)
    }

    fn borrow_count(&self, channel_id: ChannelId) -> usize {
        self.0.stock.borrow_count(channel_id)
    }
}

impl ZeroCopyPortDetails for SharedReceiver {
    fn number_of_channels(&self) -> usize {
        self.0.stock.number_of_channels()
    }

    fn buffer_size(&self) -> usize {
        self.0.stock.buffer_size()
    }

    fn has_enabled_safe_overflow(&self) -> bool {
        self.0.stock.has_enabled_safe_overflow()
    }

    fn max_borrowed_chunks(&self) -> usize {
        self.0.stock.max_borrowed_chunks()
    }

    fn max_supported_shared_memory_segments(&self) -> u8 {
        self.0.stock.max_supported_shared_memory_segments()
    }

    fn is_connected(&self) -> bool {
        self.0.stock.is_connected()
    }

    fn __internal_get_channel_state(&self, channel_id: ChannelId) -> &AtomicU64 {
        self.0.stock.__internal_get_channel_state(channel_id)
    }
}

impl NamedConcept for SharedReceiver {
    fn name(&self) -> &FileName {
        self.0.stock.name()
    }
}

impl Abandonable for SharedReceiver {
    unsafe fn abandon_in_place(mut this: NonNull<Self>) {
        // SAFETY: the caller hands over a value that nobody else uses.
        let this = unsafe { this.as_mut() };
        match Arc::get_mut(&mut this.0) {
            // SAFETY: the only share: nobody else uses what it holds.
            Some(queue) => unsafe { Abandonable::abandon_in_place(NonNull::from_mut(&mut queue.stock)) },
            // SAFETY: the caller does not drop this share again.
            None => unsafe { std::ptr::drop_in_place(&raw mut this.0) },
        }
    }
}

impl ZeroCopyConnection for SharedConnection {
    type Sender = SharedSender;
    type Receiver = SharedReceiver;
    type Builder = SharedBuilder;

    unsafe fn remove_sender(name: &FileName, config: &Self::Configuration) -> Result<(), ZeroCopyPortRemoveError> {
        // SAFETY: the caller promises what the stock connection asks for.
        unsafe { Stock::remove_sender(name, config) }
    }

    unsafe fn remove_receiver(name: &FileName, config: &Self::Configuration) -> Result<(), ZeroCopyPortRemoveError> {
        // SAFETY: the caller promises what the stock connection asks for.
        unsafe { Stock::remove_receiver(name, config) }
    }

    fn does_support_safe_overflow() -> bool {
        Stock::does_support_safe_overflow()
    }

    fn has_configurable_buffer_size() -> bool {
        Stock::has_configurable_buffer_size()
    }

    fn default_suffix() -> FileName {
        <Stock as ZeroCopyConnection>::default_suffix()
    }
}

impl NamedConceptMgmt for SharedConnection {
    type Configuration = <Stock as NamedConceptMgmt>::Configuration;

    unsafe fn remove_cfg(name: &FileName, cfg: &Self::Configuration) -> Result<bool, NamedConceptRemoveError> {
        // SAFETY: the caller promises what the stock connection asks for.
        unsafe { Stock::remove_cfg(name, cfg) }
    }

    fn does_exist_cfg(name: &FileName, cfg: &Self::Configuration) -> Result<bool, NamedConceptDoesExistError> {
        Stock::does_exist_cfg(name, cfg)
    }

    fn list_cfg(cfg: &Self::Configuration) -> Result<Vec<FileName>, NamedConceptListError> {
        Stock::list_cfg(cfg)
    }

    fn remove_path_hint(value: &Path) -> Result<(), NamedConceptPathHintRemoveError> {
        Stock::remove_path_hint(value)
    }
}

impl NamedConceptBuilder<SharedConnection> for SharedBuilder {
    fn new(name: &FileName) -> Self {
        Self(StockBuilder::new(name))
    }

    fn config(self, config: &<SharedConnection as NamedConceptMgmt>::Configuration) -> Self {
        Self(self.0.config(config))
    }
}

impl ZeroCopyConnectionBuilder<SharedConnection> for SharedBuilder {
    fn buffer_size(self, value: usize) -> Self {
        Self(self.0.buffer_size(value))
    }

    fn enable_safe_overflow(self, value: bool) -> Self {
        Self(self.0.enable_safe_overflow(value))
    }

    fn receiver_max_borrowed_chunks_per_channel(self, value: usize) -> Self {
        Self(self.0.receiver_max_borrowed_chunks_per_channel(value))
    }

    fn max_supported_shared_memory_segments(self, value: u8) -> Self {
        Self(self.0.max_supported_shared_memory_segments(value))
    }

    fn number_of_chunks_per_segment(self, value: usize) -> Self {
        Self(self.0.number_of_chunks_per_segment(value))
    }

    fn number_of_channels(self, value: usize) -> Self {
        Self(self.0.number_of_channels(value))
    }

    fn initial_channel_state(self, value: ChannelState) -> Self {
        Self(self.0.initial_channel_state(value))
    }

    fn timeout(self, value: Duration) -> Self {
        Self(self.0.timeout(value))
    }

    fn create_sender(self) -> Result<SharedSender, ZeroCopyCreationError> {
        Ok(SharedSender(Link::new(self.0.create_sender()?)))
    }

    fn create_receiver(self) -> Result<SharedReceiver, ZeroCopyCreationError> {
        Ok(SharedReceiver(Queue::new(self.0.create_receiver()?)))
    }
}
