use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::contiguous::{ContiguousError, ContiguousTensor};
use crate::element::Element;
use crate::layout::{Dtype, MessageLayout, TensorLayout};
use crate::os::monotonic_ns;
use crate::port::Received;
use crate::subscriber::Heard;
use crate::tensor_view::TensorView;
use crate::view::{self, ViewError};
use crate::wire::Metadata;

/// A received message: one or several named tensors, read where they lie in shared memory.
///
/// Cheap to clone. Its slot is given back when the last clone, and the last [`Tensor`] of it, is dropped; until then its
/// bytes stay, whatever becomes of subscriber, bus, and the publisher's process.
#[derive(Clone)]
pub struct Message {
    first: Tensor,
}

/// One tensor of a [`Message`], which it keeps.
#[derive(Clone)]
pub struct Tensor {
    inner: Arc<Inner>,
    index: usize,
}

pub(crate) struct Inner {
    received: Received<Heard>,
    slot_bytes: usize,
    data: Range<usize>,
    layout: Arc<MessageLayout>,
    metadata: Metadata,
    lost: u64,
}

impl Message {
    /// `data` and `layout` come from a decoder that was given exactly `received`'s payload.
    pub(crate) fn new(received: Received<Heard>, slot_bytes: usize, decoded: crate::wire::Decoded, lost: u64) -> Self {
        let inner = Inner {
            received,
            slot_bytes,
            data: decoded.data,
            layout: decoded.layout,
            metadata: decoded.metadata,
            lost,
        };
        Self { first: Tensor { inner: Arc::new(inner), index: 0 } }
    }

    /// The first tensor; every message has one.
    ///
    /// It lives as long as the message is borrowed; a clone of it keeps the message by itself.
    pub fn first(&self) -> &Tensor {
        &self.first
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`ViewError::NoSuchTensor`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ViewError> {
        match self.first.inner.layout.position(name) {
            Some(index) => Ok(self.number(index)),
            None => Err(ViewError::NoSuchTensor {
                name: name.to_owned(),
                present: self.first.inner.layout.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            }),
        }
    }

    /// All tensors, in the publisher's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor> + '_ {
        (0..self.first.inner.layout.tensors().len()).map(|index| self.number(index))
    }

    /// Metadata that the publisher added.
    pub fn metadata(&self) -> &Metadata {
        &self.first.inner.metadata
    }

    /// Number of the message, counted by its publisher from 0.
    pub fn sequence(&self) -> u64 {
        self.first.inner.received.preamble.sequence
    }

    /// Messages of this publisher that this subscriber missed since the one it received before; 0 for the first.
    pub fn lost(&self) -> u64 {
        self.first.inner.lost
    }

    /// Identifies the publisher: unique on this machine while it lives.
    pub fn publisher(&self) -> u128 {
        self.first.inner.received.publisher
    }

    /// When it was published, in nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`).
    pub fn publish_time_ns(&self) -> u64 {
        self.first.inner.received.preamble.publish_time_ns
    }

    /// When the content came to be, in nanoseconds since the Unix epoch, if the publisher said so.
    pub fn source_time_ns(&self) -> Option<u64> {
        Some(self.first.inner.received.preamble.source_time_ns).filter(|&time| time != 0)
    }

    /// Time since it was published; zero if its time lies in the future.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(self.publish_time_ns()))
    }

    fn number(&self, index: usize) -> Tensor {
        Tensor { inner: self.first.inner.clone(), index }
    }
}

impl Tensor {
    /// The message it belongs to.
    pub fn message(&self) -> Message {
        Message { first: Self { inner: self.inner.clone(), index: 0 } }
    }

    fn data(&self) -> &[u8] {
        // The range was checked against this payload when the message came; both are as they were.
        self.inner
            .received
            .payload(self.inner.slot_bytes)
            .and_then(|payload| payload.get(self.inner.data.clone()))
            .unwrap_or_default()
    }

    /// Name, unique in its message.
    pub fn name(&self) -> &str {
        &self.layout().name
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.layout().dtype
    }

    /// Size of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.layout().shape
    }

    /// Step of each dimension, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.layout().strides
    }

    /// What it is and where it lies.
    pub fn layout(&self) -> &TensorLayout {
        &self.inner.layout.tensors()[self.index]
    }

    /// Its bytes in shared memory, from the first element to the end of the last one; aligned to 64.
    pub fn bytes(&self) -> &[u8] {
        let layout = self.layout();
        self.data().get(layout.offset..layout.offset + layout.len).unwrap_or_default()
    }

    /// The elements in row-major order, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, or not dense in row-major order.
    pub fn view<T: Element>(&self) -> Result<&[T], ViewError> {
        view::slice(self.layout(), self.bytes())
    }

    /// The elements as an array with the tensor's shape and strides, where they lie.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type.
    #[cfg(feature = "ndarray")]
    pub fn array_view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'_, T>, ViewError> {
        view::array(self.layout(), self.bytes())
    }

    /// Truth values in row-major order, where they lie. Each byte is looked at: it must be 0 or 1.
    ///
    /// # Errors
    /// As [`TensorView::view_bool`].
    pub fn view_bool(&self) -> Result<&[bool], ViewError> {
        view::bools(self.layout(), self.bytes())
    }

    /// Copies the elements into memory of this process, densely in row-major order: for a consumer that takes no strides,
    /// or to let the slot go.
    ///
    /// # Errors
    /// [`ContiguousError`] if there is no memory for all elements: strides of 0 can stand for very many.
    pub fn to_contiguous(&self) -> Result<ContiguousTensor, ContiguousError> {
        self.as_view().to_contiguous()
    }

    /// The tensor as what the calls take that copy, and for packed elements.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView::of(self.layout(), self.bytes())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("sequence", &self.sequence())
            .field("tensors", &self.first.inner.layout.tensors())
            .field("metadata", self.metadata())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout().fmt(f)
    }
}
