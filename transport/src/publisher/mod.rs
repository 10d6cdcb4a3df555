mod error;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::bus::BusInner;
use crate::element::Element;
use crate::layout::{DEFAULT_TENSOR_NAME, Dtype, LayoutError, MessageLayout, TensorLayout, TensorSpec};
use crate::loan::{Loan, MessageMut, TensorMut};
use crate::port::{LoanFailure, OpenTopic, SendFailure, Sender, Sending, TopicError, TopicSettings};
use crate::tensor_view::TensorView;
use crate::wire::EncodedLayout;

pub use self::error::{DrainError, LoanError, PublishError, WaitError};

/// Room in each slot for layout and metadata, beside the tensor data that the user asked for.
const HEADER_ROOM: usize = 4096;
/// Slots beyond those that queues and borrowers can keep: one that is being written, one on its way.
const SPARE_SLOTS: usize = 2;

/// The sending side of a topic. Cheap to clone; all clones are one publisher and share its slots.
///
/// A message is loaned, written in place in shared memory, and published; nothing is copied on the way. Publishing from
/// several threads is allowed: messages are numbered in the order in which they are sent, and each subscriber gets them in that
/// order. Under [`Overflow::Block`](crate::Overflow::Block) a thread that waits for room keeps others from nothing.
///
/// What `publish` counted as delivered stays readable when the publisher goes, its process included, for every subscriber
/// that has opened its side of the connection. A subscriber does so when it is made, if the publisher is there already,
/// else at its next look for messages. The last clone that is dropped waits for those that have not, at most
/// [`DRAIN_ON_DROP`](crate::DRAIN_ON_DROP); where there are none, as nearly always, it does not wait. A process that ends
/// without dropping its publishers calls [`Publisher::drain`].
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
}

/// Dropped in the order of its fields: port, services, bus.
#[derive(Debug)]
pub(crate) struct Inner {
    sender: OnceLock<Arc<Sender>>,
    topic: Arc<OpenTopic>,
    pool: PoolWishes,
    /// Held while the pool is made, so that only one is.
    creating: Mutex<()>,
    counters: Counters,
    bus: Arc<BusInner>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PoolWishes {
    pub(crate) slots: Option<usize>,
    pub(crate) slot_bytes: Option<usize>,
    pub(crate) max_slot_bytes: Option<usize>,
    pub(crate) prefault: bool,
}

impl Default for PoolWishes {
    fn default() -> Self {
        Self { slots: None, slot_bytes: None, max_slot_bytes: None, prefault: true }
    }
}

#[derive(Debug, Default)]
struct Counters {
    loans_refused: AtomicU64,
    copied_bytes: AtomicU64,
}

/// What has become of a publisher's messages so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Messages that were published, whoever got them.
    pub published: u64,
    /// Messages that nobody was there to get.
    pub unheard: u64,
    /// Subscribers that did not get a message because their queue was full: one for each of them and each message.
    ///
    /// Under [`Overflow::DropOldest`](crate::Overflow::DropOldest) it is the subscriber that knows: its `lost` counts.
    pub refused: u64,
    /// Calls of `publish` that failed.
    pub failed: u64,
    /// Loans that were refused.
    pub loans_refused: u64,
    /// Bytes of tensor data that `publish_copy` and `publish_copy_of` copied. Messages written in place add nothing.
    pub copied_bytes: u64,
}

impl Publisher {
    pub(crate) fn create(bus: Arc<BusInner>, topic: Arc<OpenTopic>, pool: PoolWishes) -> Result<Self, TopicError> {
        let inner = Inner {
            sender: OnceLock::new(),
            topic,
            creating: Mutex::new(()),
            counters: Counters::default(),
            bus,
            pool,
        };
        if let (Some(value), Some(max)) = (inner.pool.slot_bytes, inner.pool.max_slot_bytes)
            && value > max
        {
            return Err(TopicError::Setting { setting: "slot_bytes", value, min: 0, max });
        }
        if let Some(slot_bytes) = inner.pool.max_slot_bytes.or(inner.pool.slot_bytes) {
            inner.sender_for(slot_bytes)?;
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a slot for a message of one tensor, dense in row-major order, and named `tensor`.
    ///
    /// The bytes are those of some earlier message, or zero.
    ///
    /// # Errors
    /// [`LoanError`] if the tensor is not one a message can carry, does not fit into a slot, or no slot is free.
    pub fn loan(&self, dtype: Dtype, shape: &[usize]) -> Result<TensorMut, LoanError> {
        let layout = || MessageLayout::pack(&[TensorSpec::new(DEFAULT_TENSOR_NAME, dtype, shape)]);
        Ok(TensorMut::new(self.inner.loan(|last| last.is_single(dtype, shape), layout)?))
    }

    /// Takes a slot for a message of several named tensors.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tensorbus_transport::{Bus, Dtype, TensorSpec};
    /// # let bus = Bus::builder().session("doc-message").open()?;
    /// let publisher = bus.topic("batches").publisher()?;
    /// let mut message = publisher.loan_message(&[
    ///     TensorSpec::new("images", Dtype::F32, &[8, 28, 28]),
    ///     TensorSpec::new("labels", Dtype::U8, &[8]),
    /// ])?;
    /// let [mut images, mut labels] = message.tensors_mut()?;
    /// images.view_mut::<f32>()?.fill(0.5);
    /// labels.view_mut::<u8>()?.fill(3);
    /// message.metadata_mut().set("source", "front");
    /// message.publish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LoanError`] if the tensors are not ones a message can carry, do not fit into a slot, or no slot is free.
    pub fn loan_message(&self, tensors: &[TensorSpec]) -> Result<MessageMut, LoanError> {
        let layout = MessageLayout::pack(tensors)?;
        Ok(MessageMut::new(self.inner.loan(|last| *last == layout, || Ok(layout.clone()))?))
    }

    /// Copies values into a loan and publishes it: one copy, which writing in place avoids.
    ///
    /// Returns the number of subscribers that have the message in their queue.
    ///
    /// # Errors
    /// [`PublishError`] as for a loan and a publish, or if the values are not as many as the shape has elements.
    pub fn publish_copy<T: Element>(&self, values: &[T], shape: &[usize]) -> Result<usize, PublishError> {
        let mut tensor = self.loan(T::DTYPE, shape)?;
        let target = tensor.view_mut::<T>()?;
        if target.len() != values.len() {
            return Err(PublishError::WrongNumberOfValues { values: values.len(), elements: target.len() });
        }
        target.copy_from_slice(values);
        self.inner.counters.copied_bytes.fetch_add(size_of_val(values) as u64, Ordering::Relaxed);
        tensor.publish()
    }

    /// Copies a tensor into a loan as it lies and publishes it: its strides travel with it, and so does what lies between
    /// its elements. One copy.
    ///
    /// A tensor with gaps goes densely, in one copy too, by a [`loan`](Self::loan) and
    /// [`copy_from`](TensorMut::copy_from). Returns the number of subscribers that have the message in their queue.
    ///
    /// # Errors
    /// [`PublishError`] as for a loan and a publish.
    pub fn publish_copy_of(&self, tensor: &TensorView<'_>) -> Result<usize, PublishError> {
        let TensorLayout { name, dtype, shape, strides, .. } = tensor.layout();
        let mut message = self.loan_message(&[TensorSpec::new(name, *dtype, shape).strides(strides)])?;
        message.tensor_mut(name)?.copy_from(tensor)?;
        self.inner.counters.copied_bytes.fetch_add(tensor.bytes().len() as u64, Ordering::Relaxed);
        message.publish()
    }

    /// Gives the memory of free slots back that they got beyond what they had at first. Returns how many bytes it was.
    ///
    /// For publishers with [`max_slot_bytes`](crate::TopicBuilder::max_slot_bytes) or without `prefault`, after a time of large
    /// messages: a slot keeps what it once got, so that the next large message finds it. Slots that are loaned, queued, held
    /// by a subscriber or part of the history keep theirs. Other threads that loan wait meanwhile. For a publisher whose slots
    /// have all their memory from the beginning it does nothing and returns 0.
    ///
    /// # Errors
    /// [`LoanError`] if the port is damaged, belongs to the parent of this process, or the operating system refuses.
    pub fn release_unused(&self) -> Result<u64, LoanError> {
        let Some(sender) = self.inner.sender.get() else { return Ok(0) };
        sender.release_unused().map_err(|failure| self.inner.loan_error(failure, sender))
    }

    /// Waits until at least `subscribers` of them are ready: they have opened their side of the connection, and will get
    /// all that is published from now on, whatever becomes of this publisher. Returns how many are.
    ///
    /// A subscriber that was there before the publisher opens its side at its next look for messages, or at the next
    /// tick of its bus's [`ServiceThread`](crate::ServiceThread).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use tensorbus_transport::Bus;
    /// # let bus = Bus::builder().session("doc-ready").open()?;
    /// # let subscriber = bus.topic("numbers").subscriber()?;
    /// let publisher = bus.topic("numbers").slot_bytes(64).publisher()?;
    /// assert_eq!(publisher.wait_for_subscribers(1, Duration::from_secs(5))?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WaitError`] if they are not ready in time, or the publisher has no slots yet.
    pub fn wait_for_subscribers(&self, subscribers: usize, timeout: Duration) -> Result<usize, WaitError> {
        let topic = || self.topic().to_owned();
        let Some(sender) = self.inner.sender.get() else { return Err(WaitError::NoSlots { topic: topic() }) };
        match sender.wait_for_sides(timeout, |sides| sides.open >= subscribers) {
            Ok((sides, true)) => Ok(sides.open),
            Ok((sides, false)) => {
                Err(WaitError::TooFew { topic: topic(), wanted: subscribers, ready: sides.open, waited: timeout })
            }
            Err(SendFailure::Broken(reason)) => Err(WaitError::Broken { topic: topic(), reason }),
            Err(_) => Err(WaitError::Forked),
        }
    }

    /// Waits until nothing that was published can be lost by this publisher's end: each subscriber that it is connected
    /// to has opened its side. Takes no time where all have, or nobody is there.
    ///
    /// # Errors
    /// [`DrainError::Unopened`] if some have not within the timeout.
    pub fn drain(&self, timeout: Duration) -> Result<(), DrainError> {
        let topic = || self.topic().to_owned();
        let Some(sender) = self.inner.sender.get() else { return Ok(()) };
        match sender.wait_for_sides(timeout, |sides| sides.closed == 0) {
            Ok((_, true)) => Ok(()),
            Ok((sides, false)) => {
                Err(DrainError::Unopened { topic: topic(), subscribers: sides.closed, waited: timeout })
            }
            Err(SendFailure::Broken(reason)) => Err(DrainError::Broken { topic: topic(), reason }),
            Err(_) => Err(DrainError::Forked),
        }
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        self.inner.topic.name()
    }

    /// Settings of the topic.
    pub fn settings(&self) -> &TopicSettings {
        self.inner.topic.settings()
    }

    /// What has become of the messages so far.
    pub fn stats(&self) -> PublisherStats {
        let counters = &self.inner.counters;
        let sender = self.inner.sender.get();
        PublisherStats {
            published: sender.map_or(0, |sender| sender.published()),
            unheard: sender.map_or(0, |sender| sender.unheard()),
            refused: sender.map_or(0, |sender| sender.refused()),
            failed: sender.map_or(0, |sender| sender.failed()),
            loans_refused: counters.loans_refused.load(Ordering::Relaxed),
            copied_bytes: counters.copied_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// The port, made now if this is the first loan of a publisher without a size.
    fn sender_for(&self, data_bytes: usize) -> Result<&Arc<Sender>, TopicError> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender);
        }
        let _only_one = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = self.sender.get() {
            return Ok(sender);
        }
        let settings = self.topic.settings();
        let default_slots = settings.depth.max(settings.history) + settings.max_borrowed + SPARE_SLOTS;
        let slots = self.pool.slots.unwrap_or(default_slots);
        let slot_bytes = data_bytes.saturating_add(HEADER_ROOM);
        let ahead = match (self.pool.prefault, self.pool.slot_bytes, self.pool.max_slot_bytes) {
            (false, ..) | (true, None, Some(_)) => 0,
            (true, Some(initial), Some(max)) if initial < max => initial.saturating_add(HEADER_ROOM),
            (true, ..) => slot_bytes,
        };
        let sender = Sender::create(&self.bus.node, &self.topic, slots, slot_bytes, ahead, self.bus.clone())?;
        Ok(self.sender.get_or_init(|| sender))
    }

    /// A slot for a message of `layout`, which is only made if none of earlier messages is `as_before`.
    fn loan(
        &self,
        as_before: impl Fn(&MessageLayout) -> bool,
        layout: impl FnOnce() -> Result<MessageLayout, LayoutError>,
    ) -> Result<Loan, LoanError> {
        self.try_loan(as_before, layout).inspect_err(|_| {
            self.counters.loans_refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn try_loan(
        &self,
        as_before: impl Fn(&MessageLayout) -> bool,
        layout: impl FnOnce() -> Result<MessageLayout, LayoutError>,
    ) -> Result<Loan, LoanError> {
        if !self.bus.is_ours() {
            return Err(LoanError::Forked);
        }
        if let Some(sender) = self.sender.get() {
            let mut sending = sender.lock()?;
            let encoded = match sending.take_layout(as_before) {
                Some(known) => known,
                None => Box::new(EncodedLayout::new(layout()?)?),
            };
            return self.take_slot(sending, sender, encoded);
        }
        let encoded = Box::new(EncodedLayout::new(layout()?)?);
        let sender = self.sender_for(encoded.layout().data_len())?;
        self.take_slot(sender.lock()?, sender, encoded)
    }

    fn take_slot(
        &self,
        mut sending: Sending<'_>,
        sender: &Sender,
        encoded: Box<EncodedLayout>,
    ) -> Result<Loan, LoanError> {
        let (needed, slot_bytes) = (encoded.parts().data.end, sender.slot_bytes());
        if needed > slot_bytes {
            return Err(LoanError::TooLarge { topic: self.topic.name().to_owned(), needed, slot_bytes });
        }
        let mut slot = match sending.loan() {
            Ok(slot) => slot,
            Err(failure) => {
                sending.keep_layout(encoded);
                return Err(self.loan_error(failure, sender));
            }
        };
        // A slot that is given back takes the lock.
        drop(sending);
        slot.ensure(&self.bus.node, needed + HEADER_ROOM)?;
        // A slot that carried this layout before still has it: not to write it again keeps its cache lines in the readers'
        // caches, which is a good part of a hand-over.
        let layout = &mut slot.bytes_mut()?[encoded.parts().layout.clone()];
        if *layout != *encoded.bytes() {
            layout.copy_from_slice(encoded.bytes());
        }
        Ok(Loan::new(encoded, slot))
    }

    fn loan_error(&self, failure: LoanFailure, sender: &Sender) -> LoanError {
        let topic = self.topic.name().to_owned();
        match failure {
            LoanFailure::NoFreeSlot => LoanError::NoFreeSlot { topic, slots: sender.slots() },
            LoanFailure::Forked => LoanError::Forked,
            LoanFailure::Broken(reason) => LoanError::Broken { topic, reason },
        }
    }
}
