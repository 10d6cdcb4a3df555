//! Everything that has a length has a limit. A sender is refused beyond it, and a receiver rejects what claims more.

/// Alignment of every tensor's first byte and of the data region, in bytes: a cache line.
pub const ALIGNMENT: usize = 64;

/// Most dimensions that a tensor can have.
pub const MAX_RANK: usize = 32;

/// Most tensors that a message can carry.
pub const MAX_TENSORS: usize = 64;

/// Most bytes of a tensor's name (UTF-8).
pub const MAX_NAME_BYTES: usize = 64;

/// Most bytes that the encoded layout of a message can take.
pub const MAX_LAYOUT_BYTES: usize = 64 * 1024;

/// Most metadata entries that a message can carry.
pub const MAX_METADATA_ENTRIES: usize = 256;

/// Most bytes of a metadata key (UTF-8).
pub const MAX_METADATA_KEY_BYTES: usize = 128;

/// Most bytes that the encoded metadata of a message can take.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;
