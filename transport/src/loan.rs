use std::ops::Range;

use crate::element::Element;
use crate::layout::{Dtype, TensorLayout};
use crate::port::{SendFailure, Slot};
use crate::publisher::PublishError;
use crate::tensor_view::TensorView;
use crate::view::{self, ViewError};
use crate::wire::{EncodedLayout, MAGIC, Metadata, Preamble, WIRE_VERSION, encode_metadata};

/// A slot taken out of a publisher's pool, with the layout of the message that it will be.
pub(crate) struct Loan {
    slot: Slot,
    encoded: Box<EncodedLayout>,
    metadata: Metadata,
    source_time_ns: u64,
}

/// A message of one tensor, to be written in place and published. Made by [`Publisher::loan`](crate::Publisher::loan).
///
/// Dropped without being published, it gives its slot back, and nobody has seen it.
pub struct TensorMut {
    loan: Loan,
}

/// A message of several tensors, to be written in place and published. Made by
/// [`Publisher::loan_message`](crate::Publisher::loan_message).
///
/// Dropped without being published, it gives its slot back, and nobody has seen it.
pub struct MessageMut {
    loan: Loan,
}

/// One tensor of a [`MessageMut`].
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    layout: &'a TensorLayout,
    bytes: &'a mut [u8],
}

impl Loan {
    pub(crate) fn new(encoded: Box<EncodedLayout>, slot: Slot) -> Self {
        Self { slot, encoded, metadata: Metadata::new(), source_time_ns: 0 }
    }

    /// Writes what stands around the tensors and sends the slot.
    fn publish(mut self) -> Result<usize, PublishError> {
        let metadata_len = if self.metadata.is_empty() {
            0
        } else {
            self.write_metadata().inspect_err(|_| self.slot.sender().count_failure())?
        };
        let Self { mut slot, encoded, source_time_ns, .. } = self;
        let preamble = Preamble {
            magic: MAGIC,
            version: WIRE_VERSION,
            // Bounded by MAX_LAYOUT_BYTES, checked when it was encoded; so is the offset behind it.
            layout_len: encoded.bytes().len() as u32,
            data_offset: encoded.parts().data.start as u32,
            data_len: encoded.layout().data_len() as u64,
            metadata_len: metadata_len as u32,
            source_time_ns,
            layout_fingerprint: encoded.fingerprint(),
            ..Preamble::default()
        };
        slot.send(preamble, encoded).map_err(|failure| {
            let topic = slot.sender().topic().to_owned();
            match failure {
                SendFailure::Undelivered { delivered, missed } => {
                    PublishError::Undelivered { topic, delivered, missed }
                }
                SendFailure::Forked => PublishError::Forked,
                SendFailure::Broken(reason) => PublishError::Broken { topic, reason },
            }
        })
    }

    fn write_metadata(&mut self) -> Result<usize, PublishError> {
        let encoded = encode_metadata(&self.metadata)?;
        let bytes = self.slot.bytes_mut().map_err(|_| PublishError::Forked)?;
        let room = bytes.get_mut(self.encoded.parts().metadata.start..).unwrap_or_default();
        let too_large = PublishError::MetadataTooLarge { needed: encoded.len(), left: room.len() };
        room.get_mut(..encoded.len()).ok_or(too_large)?.copy_from_slice(&encoded);
        Ok(encoded.len())
    }

    fn first(&self) -> &TensorLayout {
        &self.encoded.layout().tensors()[0]
    }

    fn first_range(&self) -> Range<usize> {
        let start = self.encoded.parts().data.start + self.first().offset;
        start..start + self.first().len
    }
}

impl TensorMut {
    pub(crate) fn new(loan: Loan) -> Self {
        Self { loan }
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.loan.first().dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.loan.first().shape
    }

    /// The elements, to read.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type.
    pub fn view<T: Element>(&self) -> Result<&[T], ViewError> {
        view::slice(self.loan.first(), &self.loan.slot.bytes()?[self.loan.first_range()])
    }

    /// The elements, to write.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type.
    pub fn view_mut<T: Element>(&mut self) -> Result<&mut [T], ViewError> {
        let range = self.loan.first_range();
        view::slice_mut(&self.loan.encoded.layout().tensors()[0], &mut self.loan.slot.bytes_mut()?[range])
    }

    /// The tensor's bytes, to write.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], ViewError> {
        let range = self.loan.first_range();
        Ok(&mut self.loan.slot.bytes_mut()?[range])
    }

    /// Copies the elements of a tensor with the same dtype and shape, whatever its strides.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tensorbus_transport::{Bus, Dtype, TensorView};
    /// # let bus = Bus::builder().session("doc-copy-from").open()?;
    /// # let publisher = bus.topic("images").publisher()?;
    /// let transposed = [1u8, 3, 5, 2, 4, 6];
    /// let mut tensor = publisher.loan(Dtype::U8, &[3, 2])?;
    /// tensor.copy_from(&TensorView::new(&transposed, &[3, 2], &[1, 3])?)?;
    /// assert_eq!(tensor.view::<u8>()?, [1, 2, 3, 4, 5, 6]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ViewError::CopyMismatch`] if dtype or shape differ; [`ViewError::Forked`] in a forked child.
    pub fn copy_from(&mut self, source: &TensorView<'_>) -> Result<(), ViewError> {
        let range = self.loan.first_range();
        let bytes = &mut self.loan.slot.bytes_mut()?[range];
        view::copy(source.layout(), source.bytes(), &self.loan.encoded.layout().tensors()[0], bytes)
    }

    /// The elements as an array, to write.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type.
    #[cfg(feature = "ndarray")]
    pub fn array_view_mut<T: Element>(&mut self) -> Result<ndarray::ArrayViewMutD<'_, T>, ViewError> {
        let range = self.loan.first_range();
        view::array_mut(&self.loan.encoded.layout().tensors()[0], &mut self.loan.slot.bytes_mut()?[range])
    }

    /// Metadata that goes with the message. At most what is left of 4 KiB beside the layout, unless slots have room.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.loan.metadata
    }

    /// Says when the content came to be: nanoseconds since the Unix epoch. Default: 0, not known.
    pub fn set_source_time_ns(&mut self, nanoseconds: u64) {
        self.loan.source_time_ns = nanoseconds;
    }

    /// Sends the message to every subscriber. Returns how many have it in their queue now.
    ///
    /// "In the queue" is not "received": a subscriber may still lose it to newer ones, or die.
    ///
    /// # Errors
    /// [`PublishError`] if the metadata cannot be carried, or a subscriber did not get the message and the topic's
    /// policy is to fail then.
    pub fn publish(self) -> Result<usize, PublishError> {
        self.loan.publish()
    }
}

impl MessageMut {
    pub(crate) fn new(loan: Loan) -> Self {
        Self { loan }
    }

    /// What the tensors are, in the order in which they were asked for.
    pub fn layout(&self) -> &[TensorLayout] {
        self.loan.encoded.layout().tensors()
    }

    /// The tensor of this name, to write.
    ///
    /// # Errors
    /// [`ViewError::NoSuchTensor`] if there is none.
    pub fn tensor_mut(&mut self, name: &str) -> Result<TensorViewMut<'_>, ViewError> {
        let tensors = self.loan.encoded.layout().tensors();
        let Some(layout) = tensors.iter().find(|tensor| tensor.name == name) else {
            let present = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            return Err(ViewError::NoSuchTensor { name: name.to_owned(), present });
        };
        let start = self.loan.encoded.parts().data.start + layout.offset;
        let bytes = &mut self.loan.slot.bytes_mut()?[start..start + layout.len];
        Ok(TensorViewMut { layout, bytes })
    }

    /// The first `N` tensors, to write at the same time.
    ///
    /// # Errors
    /// [`ViewError::NoSuchTensor`] if there are fewer.
    pub fn tensors_mut<const N: usize>(&mut self) -> Result<[TensorViewMut<'_>; N], ViewError> {
        let tensors = self.loan.encoded.layout().tensors();
        let mut rest = &mut self.loan.slot.bytes_mut()?[self.loan.encoded.parts().data.clone()];
        let mut taken = 0;
        let mut views = Vec::with_capacity(N);
        for layout in tensors.iter().take(N) {
            // Tensors lie in order and apart, so each is split off what is left.
            let (_, from_here) = rest.split_at_mut(layout.offset - taken);
            let (bytes, behind) = from_here.split_at_mut(layout.len);
            taken = layout.offset + layout.len;
            rest = behind;
            views.push(TensorViewMut { layout, bytes });
        }
        views.try_into().map_err(|_| ViewError::NoSuchTensor {
            name: format!("number {N}"),
            present: tensors.iter().map(|tensor| tensor.name.clone()).collect(),
        })
    }

    /// Metadata that goes with the message. At most what is left of 4 KiB beside the layout, unless slots have room.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.loan.metadata
    }

    /// Says when the content came to be: nanoseconds since the Unix epoch. Default: 0, not known.
    pub fn set_source_time_ns(&mut self, nanoseconds: u64) {
        self.loan.source_time_ns = nanoseconds;
    }

    /// Sends the message to every subscriber. Returns how many have it in their queue now.
    ///
    /// # Errors
    /// As [`TensorMut::publish`].
    pub fn publish(self) -> Result<usize, PublishError> {
        self.loan.publish()
    }
}

impl<'a> TensorViewMut<'a> {
    /// `bytes` are as many as the layout, which is a checked one, says.
    pub(crate) fn of(layout: &'a TensorLayout, bytes: &'a mut [u8]) -> Self {
        Self { layout, bytes }
    }

    /// What the tensor is.
    pub fn layout(&self) -> &TensorLayout {
        self.layout
    }

    /// The elements, to write.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, or not dense in row-major order.
    pub fn view_mut<T: Element>(&mut self) -> Result<&mut [T], ViewError> {
        view::slice_mut(self.layout, self.bytes)
    }

    /// The tensor's bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Copies the elements of a tensor with the same dtype and shape, whatever the strides of both.
    ///
    /// # Errors
    /// [`ViewError::CopyMismatch`] if dtype or shape differ; [`ViewError::SharedElements`] if the strides differ and by
    /// those of this tensor several elements may share memory.
    pub fn copy_from(&mut self, source: &TensorView<'_>) -> Result<(), ViewError> {
        view::copy(source.layout(), source.bytes(), self.layout, self.bytes)
    }

    /// The elements as an array with the tensor's strides, to write.
    ///
    /// # Errors
    /// [`ViewError`] if they are of another type, or several share memory.
    #[cfg(feature = "ndarray")]
    pub fn array_view_mut<T: Element>(&mut self) -> Result<ndarray::ArrayViewMutD<'_, T>, ViewError> {
        view::array_mut(self.layout, self.bytes)
    }
}
