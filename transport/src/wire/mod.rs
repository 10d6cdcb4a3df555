//! The bytes of a message: preamble, layout, metadata. Pure: bytes in, a checked message or an error out.

mod archive;
mod control;
mod decoder;
mod encoded;
mod error;
mod metadata;
mod preamble;

pub use archive::{decode_layout, decode_metadata, encode_layout, encode_metadata};
pub use control::{CONTROL_MAGIC, CONTROL_VERSION, ControlDecodeError, ControlHeader, ControlKind, MAX_CONTROL_BYTES};
pub use decoder::{Decoded, Decoder, REMEMBERED_LAYOUTS, fingerprint_of};
pub use encoded::EncodedLayout;
pub use error::{DecodeError, EncodeError};
pub use metadata::{Metadata, Value};
pub use preamble::{MAGIC, Parts, Preamble, WIRE_VERSION};

#[cfg(test)]
mod tests;
