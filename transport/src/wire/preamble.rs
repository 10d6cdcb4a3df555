use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DecodeError;
use crate::layout::{ALIGNMENT, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES};

#[cfg(target_endian = "big")]
compile_error!("tensorbus messages are little-endian and are used in place");

/// `TBUS`, read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"TBUS");

/// Version of the message format. A reader refuses every other one.
pub const WIRE_VERSION: u16 = 1;

/// The fixed start of every message: where its parts lie and when it was sent. `WIRE.md` has the byte offsets.
///
/// Every bit pattern is a value of this type; only [`Preamble::check`] makes its numbers trustworthy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Preamble {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`WIRE_VERSION`].
    pub version: u16,
    /// No flag is defined yet: 0.
    pub flags: u16,
    /// Bytes of the encoded layout, which begins at payload byte 0.
    pub layout_len: u32,
    /// Payload byte at which the data begins: a multiple of 64.
    pub data_offset: u32,
    /// Bytes of data.
    pub data_len: u64,
    /// Bytes of the encoded metadata, which begins at the first multiple of 64 after the data; 0 for none.
    pub metadata_len: u32,
    /// 0.
    pub reserved: u32,
    /// Counts the publisher's messages, from 0.
    pub sequence: u64,
    /// When the message was published: nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`).
    pub publish_time_ns: u64,
    /// When the content came to be, in nanoseconds since the Unix epoch as its source says; 0 if it does not.
    pub source_time_ns: u64,
    /// XXH3 (64 bit, seed 0) of the encoded layout.
    pub layout_fingerprint: u64,
}

const _: () = assert!(size_of::<Preamble>() == 64);

/// Where the parts of a message lie in its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The encoded layout.
    pub layout: Range<usize>,
    /// The tensors.
    pub data: Range<usize>,
    /// The encoded metadata; empty if there is none.
    pub metadata: Range<usize>,
}

impl Parts {
    /// Where things go for a layout of `layout_len` bytes and `data_len` bytes of tensors; `None` if it overflows.
    pub fn place(layout_len: usize, data_len: usize) -> Option<Self> {
        let data_start = layout_len.checked_next_multiple_of(ALIGNMENT)?;
        let data_end = data_start.checked_add(data_len)?;
        let metadata = data_end.checked_next_multiple_of(ALIGNMENT)?;
        Some(Self { layout: 0..layout_len, data: data_start..data_end, metadata: metadata..metadata })
    }
}

impl Preamble {
    /// Checks every number against the limits and against the `payload_len` bytes that are really there.
    ///
    /// # Errors
    /// [`DecodeError`] names the first rule that is broken.
    pub fn check(&self, payload_len: usize) -> Result<Parts, DecodeError> {
        if self.magic != MAGIC {
            return Err(DecodeError::NotAMessage { magic: self.magic });
        }
        if self.version != WIRE_VERSION {
            return Err(DecodeError::OtherVersion { version: self.version });
        }
        if self.flags != 0 || self.reserved != 0 {
            return Err(DecodeError::UnknownFlags { flags: self.flags, reserved: self.reserved });
        }
        let layout_len = usize_of(self.layout_len.into());
        if layout_len == 0 || layout_len > MAX_LAYOUT_BYTES {
            return Err(DecodeError::LayoutLength { len: layout_len });
        }
        let metadata_len = usize_of(self.metadata_len.into());
        if metadata_len > MAX_METADATA_BYTES {
            return Err(DecodeError::MetadataLength { len: metadata_len });
        }
        let data_offset = usize_of(self.data_offset.into());
        if !data_offset.is_multiple_of(ALIGNMENT) || data_offset < layout_len {
            return Err(DecodeError::DataOffset { offset: data_offset, layout_len });
        }
        let outside =
            || DecodeError::OutsidePayload { data_offset, data_len: self.data_len, metadata_len, payload_len };
        let data_len = usize::try_from(self.data_len).map_err(|_| outside())?;
        let data_end = data_offset.checked_add(data_len).ok_or_else(outside)?;
        let (metadata, end) = if metadata_len == 0 {
            (data_end..data_end, data_end)
        } else {
            let start = data_end.checked_next_multiple_of(ALIGNMENT).ok_or_else(outside)?;
            let end = start.checked_add(metadata_len).ok_or_else(outside)?;
            (start..end, end)
        };
        if end > payload_len {
            return Err(outside());
        }
        Ok(Parts { layout: 0..layout_len, data: data_offset..data_end, metadata })
    }
}

/// Lossless where this crate compiles: addresses have at least 32 bits.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
