//! iceoryx2's connection between one publisher and one subscriber, with more patience when its queue is full.
//!
//! The stock connection gives a message up without asking anybody if the queue is full and the subscriber has not opened
//! its side yet, which it does at its first look for messages: a publisher that should wait for it would lose messages
//! that it was told are delivered. Here the publisher's policy is asked in that case as in any other. Everything else
//! is handed on.
//!
//! And a faster look into the queues: a subscriber of iceoryx2 walks over all places for connections that it could have
//! whenever it looks for a message. Those it has are handed to the port here, which looks at nothing else while they are
//! empty.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceoryx2_bb_concurrency::atomic::AtomicU64;
use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_system_types::file_name::FileName;
use iceoryx2_bb_system_types::path::Path;
use iceoryx2_cal::named_concept::{
    NamedConcept, NamedConceptBuilder, NamedConceptDoesExistError, NamedConceptListError, NamedConceptMgmt,
    NamedConceptPathHintRemoveError, NamedConceptRemoveError,
};
use iceoryx2_cal::shm_allocator::PointerOffset;
use iceoryx2_cal::zero_copy_connection::file::Connection as Stock;
use iceoryx2_cal::zero_copy_connection::{
    BackpressureToReceiverAction, BackpressureToReceiverFn, ChannelId, ChannelState, ZeroCopyConnection,
    ZeroCopyConnectionBuilder, ZeroCopyCreationError, ZeroCopyPortDetails, ZeroCopyPortRemoveError,
    ZeroCopyReceiveError, ZeroCopyReceiver, ZeroCopyReclaimError, ZeroCopyReleaseError, ZeroCopySendError,
    ZeroCopySender,
};

use super::handshake;

pub(super) type StockSender = <Stock as ZeroCopyConnection>::Sender;
type StockReceiver = <Stock as ZeroCopyConnection>::Receiver;
type StockBuilder = <Stock as ZeroCopyConnection>::Builder;

/// A full queue is looked at again and again for so long before the publisher sleeps in between.
const EAGER: Duration = Duration::from_micros(50);
/// Longest sleep between two looks.
const LONGEST_NAP: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct PatientConnection;

#[derive(Debug)]
pub(crate) struct PatientSender {
    /// The only share; `handshake.rs` looks at it while it lives.
    stock: Arc<StockSender>,
    /// The subscriber has opened its side at some time: if it is not open now, it is gone.
    was_connected: Cell<bool>,
}

/// The subscriber's side of a connection. iceoryx2 has one share of it, which it receives with; the port has another, which
/// only looks whether something is in the queue.
#[derive(Debug)]
pub(crate) struct SharedReceiver(Arc<Queue>);

#[derive(Debug)]
struct Queue(StockReceiver);

// SAFETY: a receiving side may go from thread to thread, but not be used by two at a time: it counts what it has borrowed
// without atomics. All shares are made, used and dropped by one port, and so under one lock: `Alone` says whose.
unsafe impl Sync for Queue {}

pub(crate) struct PatientBuilder(StockBuilder);

/// Who got the last message that this thread sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Its slot: a publisher sends older messages to late joiners in the same call, before the one that counts.
    slot: u64,
    /// Subscribers that have it in their queue.
    pub(super) delivered: usize,
    /// Subscribers that have not, because their queue was full.
    pub(super) missed: usize,
}

impl Tally {
    /// Of the last message that this thread sent to anybody at all.
    pub(super) fn of_last_message() -> Self {
        LAST_MESSAGE.get()
    }

    fn count(slot: PointerOffset, sent: &Result<Option<PointerOffset>, ZeroCopySendError>) {
        let slot = slot.as_value();
        let last = LAST_MESSAGE.get();
        let mut tally = if last.slot == slot { last } else { Self { slot, ..Self::default() } };
        match sent {
            Ok(_) => tally.delivered += 1,
            Err(ZeroCopySendError::UnableToDeliver | ZeroCopySendError::ReceiveBufferFull) => tally.missed += 1,
            // It is gone, or its connection is damaged: nobody is there to miss it.
            Err(_) => {}
        }
        LAST_MESSAGE.set(tally);
    }

    /// Before each message: its slot may be that of the one before.
    pub(super) fn reset() {
        LAST_MESSAGE.set(Self { slot: u64::MAX, ..Self::default() });
    }
}

thread_local! {
    static LAST_MESSAGE: Cell<Tally> = const { Cell::new(Tally { slot: u64::MAX, delivered: 0, missed: 0 }) };
    /// Receiving sides that iceoryx2 has made in this thread since they were taken.
    static MADE: RefCell<Vec<SharedReceiver>> = const { RefCell::new(Vec::new()) };
}

/// The queues of a subscriber's connections. Only used under the lock of its port, as the subscriber itself.
#[derive(Debug, Default)]
pub(super) struct Queues(Vec<SharedReceiver>);

impl Queues {
    /// Whether a message waits in one of the connections that were open at the last [`Queues::update`].
    #[inline]
    pub(super) fn have_data(&self) -> bool {
        self.0.iter().any(|queue| queue.0.0.has_data(ChannelId::new(0)))
    }

    /// After each call that may have opened or closed connections.
    #[inline]
    pub(super) fn update(&mut self) {
        // A share that iceoryx2 dropped is a connection that it closed.
        self.0.retain(|queue| Arc::strong_count(&queue.0) > 1);
        MADE.with_borrow_mut(|made| {
            made.retain(|queue| Arc::strong_count(&queue.0) > 1);
            made.iter().for_each(|queue| handshake::say_open(&queue.0.0));
            self.0.append(made);
        });
    }
}

/// Makes a call for a port that lets iceoryx2 do all the looking: the shares in connections that the call opens are dropped.
pub(super) fn without_looking<T>(call: impl FnOnce() -> T) -> T {
    let others = MADE.with_borrow(Vec::len);
    let result = call();
    // Dropped outside of the borrow: the last share closes the connection.
    drop(MADE.with_borrow_mut(|made| made.split_off(others.min(made.len()))));
    result
}

impl ZeroCopySender for PatientSender {
    fn try_send(
        &self,
        ptr: PointerOffset,
        sample_size: usize,
        channel_id: ChannelId,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        self.stock.try_send(ptr, sample_size, channel_id)
    }

    fn blocking_send<F: BackpressureToReceiverFn>(
        &self,
        ptr: PointerOffset,
        sample_size: usize,
        channel_id: ChannelId,
        backpressure_to_receiver_handler: F,
        backpressure_action_for_strategy: BackpressureToReceiverAction,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        let sent = self.send_patiently(
            ptr,
            sample_size,
            channel_id,
            backpressure_to_receiver_handler,
            backpressure_action_for_strategy,
        );
        Tally::count(ptr, &sent);
        sent
    }

    fn reclaim(&self, channel_id: ChannelId) -> Result<Option<PointerOffset>, ZeroCopyReclaimError> {
        self.stock.reclaim(channel_id)
    }

    unsafe fn acquire_used_offsets<F: FnMut(PointerOffset)>(&self, callback: F) {
        // SAFETY: the caller promises what the stock connection asks for.
        unsafe { self.stock.acquire_used_offsets(callback) }
    }
}

impl PatientSender {
    #[inline]
    fn send_patiently<F: BackpressureToReceiverFn>(
        &self,
        ptr: PointerOffset,
        sample_size: usize,
        channel_id: ChannelId,
        backpressure_to_receiver_handler: F,
        backpressure_action_for_strategy: BackpressureToReceiverAction,
    ) -> Result<Option<PointerOffset>, ZeroCopySendError> {
        let mut since = None;
        let mut nap = EAGER;
        for retries in 0.. {
            match self.stock.try_send(ptr, sample_size, channel_id) {
                Err(ZeroCopySendError::ReceiveBufferFull) => {}
                sent => return sent,
            }
            if self.stock.is_connected() {
                self.was_connected.set(true);
            } else if self.was_connected.get() {
                return Err(ZeroCopySendError::NoConnectedReceiverAndBufferIsFull);
            }
            if self.stock.is_channel_closed(channel_id) {
                return Err(ZeroCopySendError::ChannelIsClosed);
            }
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            let action = match backpressure_to_receiver_handler(retries, waited) {
                BackpressureToReceiverAction::FollowBackpressureyStrategy => backpressure_action_for_strategy,
                action => action,
            };
            match action {
                BackpressureToReceiverAction::Retry if waited < EAGER => std::thread::yield_now(),
                BackpressureToReceiverAction::Retry => {
                    // Nothing tells a publisher that a queue has room again.
                    std::thread::sleep(nap);
                    nap = (2 * nap).min(LONGEST_NAP);
                }
                BackpressureToReceiverAction::DiscardPointerOffsetAndFail => {
                    return Err(ZeroCopySendError::UnableToDeliver);
                }
                _ => return Err(ZeroCopySendError::ReceiveBufferFull),
            }
        }
        Err(ZeroCopySendError::UnableToDeliver)
    }
}

impl ZeroCopyPortDetails for PatientSender {
    fn number_of_channels(&self) -> usize {
        self.stock.number_of_channels()
    }

    fn buffer_size(&self) -> usize {
        self.stock.buffer_size()
    }

    fn has_enabled_safe_overflow(&self) -> bool {
        self.stock.has_enabled_safe_overflow()
    }

    fn max_borrowed_chunks(&self) -> usize {
        self.stock.max_borrowed_chunks()
    }

    fn max_supported_shared_memory_segments(&self) -> u8 {
        self.stock.max_supported_shared_memory_segments()
    }

    fn is_connected(&self) -> bool {
        self.stock.is_connected()
    }

    fn __internal_get_channel_state(&self, channel_id: ChannelId) -> &AtomicU64 {
        self.stock.__internal_get_channel_state(channel_id)
    }
}

impl NamedConcept for PatientSender {
    fn name(&self) -> &FileName {
        self.stock.name()
    }
}

impl Abandonable for PatientSender {
    unsafe fn abandon_in_place(mut this: NonNull<Self>) {
        // SAFETY: the caller hands over a value that nobody else uses.
        let this = unsafe { this.as_mut() };
        let Some(stock) = NonNull::new(Arc::as_ptr(&this.stock).cast_mut()) else { return };
        // SAFETY: as for the whole, so for its only part that has something to abandon: the pointer is to a live value, of which
        // this is the only share, and whoever else knows it looks at it under the lock that the caller holds.
        unsafe { StockSender::abandon_in_place(stock) };
    }
}

impl ZeroCopyReceiver for SharedReceiver {
    #[inline]
    fn has_data(&self, channel_id: ChannelId) -> bool {
        self.0.0.has_data(channel_id)
    }

    fn receive(&self, channel_id: ChannelId) -> Result<Option<PointerOffset>, ZeroCopyReceiveError> {
        self.0.0.receive(channel_id)
    }

    fn release(&self, ptr: PointerOffset, channel_id: ChannelId) -> Result<(), ZeroCopyReleaseError> {
        self.0.0.release(ptr, channel_id)
    }

    fn borrow_count(&self, channel_id: ChannelId) -> usize {
        self.0.0.borrow_count(channel_id)
    }
}

impl ZeroCopyPortDetails for SharedReceiver {
    fn number_of_channels(&self) -> usize {
        self.0.0.number_of_channels()
    }

    fn buffer_size(&self) -> usize {
        self.0.0.buffer_size()
    }

    fn has_enabled_safe_overflow(&self) -> bool {
        self.0.0.has_enabled_safe_overflow()
    }

    fn max_borrowed_chunks(&self) -> usize {
        self.0.0.max_borrowed_chunks()
    }

    fn max_supported_shared_memory_segments(&self) -> u8 {
        self.0.0.max_supported_shared_memory_segments()
    }

    fn is_connected(&self) -> bool {
        self.0.0.is_connected()
    }

    fn __internal_get_channel_state(&self, channel_id: ChannelId) -> &AtomicU64 {
        self.0.0.__internal_get_channel_state(channel_id)
    }
}

impl NamedConcept for SharedReceiver {
    fn name(&self) -> &FileName {
        self.0.0.name()
    }
}

impl Abandonable for SharedReceiver {
    unsafe fn abandon_in_place(mut this: NonNull<Self>) {
        // SAFETY: the caller hands over a value that nobody else uses.
        let this = unsafe { this.as_mut() };
        match Arc::get_mut(&mut this.0) {
            // SAFETY: the only share: nobody else uses what it holds.
            Some(queue) => unsafe { StockReceiver::abandon_in_place(NonNull::from_mut(&mut queue.0)) },
            // SAFETY: the caller does not drop this share again.
            None => unsafe { std::ptr::drop_in_place(&raw mut this.0) },
        }
    }
}

impl ZeroCopyConnection for PatientConnection {
    type Sender = PatientSender;
    type Receiver = SharedReceiver;
    type Builder = PatientBuilder;

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

impl NamedConceptMgmt for PatientConnection {
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

impl NamedConceptBuilder<PatientConnection> for PatientBuilder {
    fn new(name: &FileName) -> Self {
        Self(StockBuilder::new(name))
    }

    fn config(self, config: &<PatientConnection as NamedConceptMgmt>::Configuration) -> Self {
        Self(self.0.config(config))
    }
}

impl ZeroCopyConnectionBuilder<PatientConnection> for PatientBuilder {
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

    fn create_sender(self) -> Result<PatientSender, ZeroCopyCreationError> {
        let stock = Arc::new(self.0.create_sender()?);
        handshake::note(&stock);
        Ok(PatientSender { stock, was_connected: Cell::new(false) })
    }

    fn create_receiver(self) -> Result<SharedReceiver, ZeroCopyCreationError> {
        let made = Arc::new(Queue(self.0.create_receiver()?));
        MADE.with_borrow_mut(|list| list.push(SharedReceiver(made.clone())));
        Ok(SharedReceiver(made))
    }
}
