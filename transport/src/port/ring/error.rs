use super::geometry::{MAX_RING_ROWS, RING_VERSION};
use crate::layout::LayoutError;
use crate::wire::{DecodeError, EncodeError};

/// A ring that cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingSpecError {
    /// Rows out of range.
    #[error("{rows} rows are none, or more than a ring can have ({MAX_RING_ROWS}); set `rows`")]
    Rows {
        /// Rows asked for.
        rows: usize,
    },
    /// Credits out of range.
    #[error("{credits} credits are none, or more than the {rows} rows; set `credits`")]
    Credits {
        /// Rows that a client may have at a time.
        credits: usize,
        /// Rows of the ring.
        rows: usize,
    },
    /// No inputs, no outputs, or a tensor that cannot be.
    #[error("the {side} cannot be those of a ring: {reason}")]
    Tensors {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// Why.
        reason: LayoutError,
    },
    /// Elements narrower than a byte that do not fill the last byte of a row.
    #[error("a row of {name:?} does not end with a whole byte; pad its shape")]
    PartOfAByte {
        /// The tensor.
        name: String,
    },
    /// The encoded description of the tensors is too long.
    #[error("the {side} cannot be described: {reason}")]
    Description {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// Why.
        reason: EncodeError,
    },
    /// The ring would be larger than memory can be.
    #[error("a ring of {rows} rows is larger than memory can be; use fewer rows")]
    Size {
        /// Rows asked for.
        rows: usize,
    },
}

/// A file that is not a ring of this version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingFormatError {
    /// Too short to be a ring.
    #[error("{len} bytes are too few for a ring")]
    TooShort {
        /// Bytes that there are.
        len: u64,
    },
    /// Not a ring at all.
    #[error("it begins with {found:02x?}, not with the mark of a ring")]
    Magic {
        /// First bytes.
        found: [u8; 8],
    },
    /// Another version of tensorbus.
    #[error("it has ring version {found}, this tensorbus has {RING_VERSION}; run the same version on both sides")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Flags that this version does not know.
    #[error("flags {found:#x} are not known to ring version {RING_VERSION}")]
    Flags {
        /// Its flags.
        found: u32,
    },
    /// Rows, credits or tensors that no ring can have.
    #[error(transparent)]
    Spec(#[from] RingSpecError),
    /// The description of its tensors is damaged.
    #[error("the description of its {side} is damaged: {reason}")]
    Description {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// What is wrong.
        reason: DecodeError,
    },
    /// The first dimension of a tensor is not that of the rows.
    #[error("its tensor {name:?} does not have a row for each of the {rows} rows, or not in row-major order")]
    NotRows {
        /// The tensor.
        name: String,
        /// Rows of the ring.
        rows: usize,
    },
    /// The file has another length than its parts need.
    #[error("it has {found} bytes and says {stated}, its parts need {needed}")]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes that its header says.
        stated: u64,
        /// Bytes that its parts need.
        needed: u64,
    },
}
