use std::ops::Range;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::{DecodeError, Metadata, Preamble, decode_layout, decode_metadata};
use crate::layout::MessageLayout;

/// Layouts that a decoder remembers. A publisher that alternates between more shapes than this is validated each time.
pub const REMEMBERED_LAYOUTS: usize = 8;

/// Reads the messages of one publisher, and remembers the layouts that it has validated.
///
/// A pure function of the bytes it is given. The bytes may change while it reads: nothing in them is used before it was
/// copied out and checked, except the tensors' data, which it does not touch.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Most recently used first.
    layouts: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    fingerprint: u64,
    encoded: Box<[u8]>,
    layout: Arc<MessageLayout>,
}

/// A message that has passed every check.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// Its tensors.
    pub layout: Arc<MessageLayout>,
    /// Where in the payload their data lies.
    pub data: Range<usize>,
    /// Its metadata.
    pub metadata: Metadata,
}

impl Decoder {
    /// Decodes the message that `preamble`, already copied to private memory, says is in `payload`.
    ///
    /// # Errors
    /// [`DecodeError`] for every message that the format does not allow.
    pub fn decode(&mut self, preamble: &Preamble, payload: &[u8]) -> Result<Decoded, DecodeError> {
        let parts = preamble.check(payload.len())?;
        let layout = self.layout(preamble.layout_fingerprint, &payload[parts.layout])?;
        if layout.data_len() > parts.data.len() {
            return Err(DecodeError::TensorsOutsideData { end: layout.data_len(), data_len: parts.data.len() });
        }
        let metadata =
            if parts.metadata.is_empty() { Metadata::new() } else { decode_metadata(&payload[parts.metadata])? };
        Ok(Decoded { layout, data: parts.data, metadata })
    }

    fn layout(&mut self, fingerprint: u64, encoded: &[u8]) -> Result<Arc<MessageLayout>, DecodeError> {
        let known =
            self.layouts.iter().position(|known| known.fingerprint == fingerprint && *known.encoded == *encoded);
        if let Some(index) = known {
            if index != 0 {
                self.layouts[..=index].rotate_right(1);
            }
            return Ok(self.layouts[0].layout.clone());
        }
        let private: Box<[u8]> = encoded.into();
        let actual = fingerprint_of(&private);
        if actual != fingerprint {
            return Err(DecodeError::Fingerprint { stated: fingerprint, actual });
        }
        let layout = Arc::new(decode_layout(&private)?);
        self.layouts.truncate(REMEMBERED_LAYOUTS - 1);
        self.layouts.insert(0, Known { fingerprint, encoded: private, layout: layout.clone() });
        Ok(layout)
    }
}

/// Fingerprint of an encoded layout: XXH3, 64 bit, seed 0.
pub fn fingerprint_of(encoded: &[u8]) -> u64 {
    XxHash3_64::oneshot(encoded)
}
