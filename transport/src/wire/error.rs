use crate::layout::{
    ALIGNMENT, DtypeError, LayoutError, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES, MAX_METADATA_ENTRIES,
    MAX_METADATA_KEY_BYTES,
};

/// A message that cannot be written in the wire format.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The encoded layout exceeds [`MAX_LAYOUT_BYTES`].
    #[error("the encoded layout has {len} bytes, more than {MAX_LAYOUT_BYTES}; send fewer tensors or shorter names")]
    LayoutTooLong {
        /// Bytes it takes.
        len: usize,
    },
    /// Layout and tensors together are larger than any memory.
    #[error("{data_len} bytes of tensors are more than can be addressed; send less in a message")]
    DataTooLong {
        /// Bytes of the tensors.
        data_len: usize,
    },
    /// The encoded metadata exceeds [`MAX_METADATA_BYTES`].
    #[error("the encoded metadata has {len} bytes, more than {MAX_METADATA_BYTES}; send large values as a tensor")]
    MetadataTooLong {
        /// Bytes it takes.
        len: usize,
    },
    /// More entries than [`MAX_METADATA_ENTRIES`].
    #[error("{entries} metadata entries are more than {MAX_METADATA_ENTRIES}")]
    TooManyEntries {
        /// Entries there are.
        entries: usize,
    },
    /// A key is empty or longer than [`MAX_METADATA_KEY_BYTES`].
    #[error("metadata key {key:?} must have 1 to {MAX_METADATA_KEY_BYTES} bytes")]
    KeyLength {
        /// The key.
        key: String,
    },
    /// A key stands twice.
    #[error("metadata key {key:?} stands twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The encoder itself failed.
    #[error("could not encode: {reason}")]
    Archive {
        /// What it said.
        reason: String,
    },
}

/// A message that a receiver rejects. Whatever bytes a peer sends, one of these or a valid message is the answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first four bytes are not the magic number.
    #[error("magic number {magic:#010x} is not that of a tensorbus message; something else publishes on this topic")]
    NotAMessage {
        /// What stood there.
        magic: u32,
    },
    /// Written in another version of the format.
    #[error(
        "message has wire version {version}, this program reads {}; run the same tensorbus on both sides",
        super::WIRE_VERSION
    )]
    OtherVersion {
        /// The sender's version.
        version: u16,
    },
    /// Bits are set that have no meaning in this version.
    #[error("message has unknown flags {flags:#06x} or reserved bits {reserved:#010x}")]
    UnknownFlags {
        /// The flags.
        flags: u16,
        /// The reserved field.
        reserved: u32,
    },
    /// The layout has no bytes or more than [`MAX_LAYOUT_BYTES`].
    #[error("layout of {len} bytes is outside 1 to {MAX_LAYOUT_BYTES}")]
    LayoutLength {
        /// Bytes it is said to have.
        len: usize,
    },
    /// The metadata has more than [`MAX_METADATA_BYTES`].
    #[error("metadata of {len} bytes is more than {MAX_METADATA_BYTES}")]
    MetadataLength {
        /// Bytes it is said to have.
        len: usize,
    },
    /// The data does not begin behind the layout at a multiple of [`ALIGNMENT`].
    #[error("data at byte {offset} is not at a multiple of {ALIGNMENT} behind the {layout_len} bytes of layout")]
    DataOffset {
        /// Where the data is said to begin.
        offset: usize,
        /// Bytes of the layout.
        layout_len: usize,
    },
    /// Parts of the message would lie outside its payload.
    #[error(
        "data of {data_len} bytes at {data_offset} and {metadata_len} bytes of metadata do not fit into a payload of {payload_len}"
    )]
    OutsidePayload {
        /// Where the data is said to begin.
        data_offset: usize,
        /// Bytes the data is said to have.
        data_len: u64,
        /// Bytes the metadata is said to have.
        metadata_len: usize,
        /// Bytes that are there.
        payload_len: usize,
    },
    /// The layout's archive is not valid.
    #[error("layout is not a valid archive: {reason}")]
    LayoutArchive {
        /// What the validator said.
        reason: String,
    },
    /// The metadata's archive is not valid, or breaks a limit.
    #[error("metadata is not valid: {reason}")]
    MetadataArchive {
        /// What the validator said.
        reason: String,
    },
    /// The layout does not hash to its stated fingerprint.
    #[error("layout has fingerprint {actual:#018x}, the message says {stated:#018x}")]
    Fingerprint {
        /// What the message says.
        stated: u64,
        /// What the layout's bytes give.
        actual: u64,
    },
    /// A size or offset that this machine cannot address.
    #[error("number {value} is larger than this machine can address")]
    NumberTooLarge {
        /// The number.
        value: u64,
    },
    /// No such element type.
    #[error(transparent)]
    Dtype(#[from] DtypeError),
    /// The tensors break a rule.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The tensors reach beyond the data.
    #[error("tensors end at byte {end} of data that has {data_len}")]
    TensorsOutsideData {
        /// End of the last tensor.
        end: usize,
        /// Bytes of data.
        data_len: usize,
    },
    /// The peer's slot is not where, or not as long as, it says.
    #[error("the peer states a payload of {stated} bytes, its slots have {slot_bytes}")]
    PayloadBeyondSlot {
        /// Bytes the peer states.
        stated: u64,
        /// Bytes a slot of its pool has.
        slot_bytes: usize,
    },
}
