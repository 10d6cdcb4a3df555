use rkyv::util::AlignedVec;

use super::{EncodeError, Parts, encode_layout, fingerprint_of};
use crate::layout::MessageLayout;

/// A layout as it is written into each message that has it: encoded once, copied often.
#[derive(Debug)]
pub struct EncodedLayout {
    layout: MessageLayout,
    bytes: AlignedVec,
    fingerprint: u64,
    parts: Parts,
}

impl EncodedLayout {
    /// Encodes the layout.
    ///
    /// # Errors
    /// [`EncodeError`] if it is larger than a message can carry.
    pub fn new(layout: MessageLayout) -> Result<Self, EncodeError> {
        let bytes = encode_layout(&layout)?;
        let parts = Parts::place(bytes.len(), layout.data_len())
            .ok_or(EncodeError::DataTooLong { data_len: layout.data_len() })?;
        Ok(Self { fingerprint: fingerprint_of(&bytes), layout, bytes, parts })
    }

    /// The layout.
    pub fn layout(&self) -> &MessageLayout {
        &self.layout
    }

    /// Its encoding.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fingerprint of the encoding.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Where the parts of such a message lie, without metadata.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}
