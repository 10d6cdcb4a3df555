//! The fields of a protocol buffer one after another, each with its bytes as they are: whatever is not looked at is copied
//! and not lost, be it of a version that is not known here.
//!
//! The encoding: <https://protobuf.dev/programming-guides/encoding/>.

use bytes::Bytes;

use super::error::OnnxError;

/// Wire types.
const VARINT: usize = 0;
const FIXED_64: usize = 1;
const LENGTH_DELIMITED: usize = 2;
const FIXED_32: usize = 5;
/// Most bytes of a variable-length number.
const MAX_VARINT: usize = 10;

/// One field of a message.
pub(super) struct Field {
    pub(super) number: usize,
    /// Key and value, as they are.
    pub(super) whole: Bytes,
    /// What a length-delimited field holds: a message, a string, bytes.
    pub(super) content: Option<Bytes>,
}

/// The fields of `message`, which stands at `place`.
pub(super) fn fields(message: Bytes, place: &'static str) -> impl Iterator<Item = Result<Field, OnnxError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest, place);
        if field.is_err() {
            rest.clear();
        }
        Some(field)
    })
}

fn next(rest: &mut Bytes, place: &'static str) -> Result<Field, OnnxError> {
    let broken = |reason: &str| OnnxError::Protobuf { place, reason: reason.to_owned() };
    let start = rest.clone();
    let key = number(rest, place)?;
    let (field, wire_type) = (key >> 3, key & 7);
    if field == 0 {
        return Err(broken("a field with number 0"));
    }
    let len = match wire_type {
        VARINT => {
            1 + rest
                .iter()
                .take(MAX_VARINT)
                .position(|byte| byte & 0x80 == 0)
                .ok_or_else(|| broken("a number without end"))?
        }
        FIXED_64 => 8,
        FIXED_32 => 4,
        LENGTH_DELIMITED => number(rest, place)?,
        other => return Err(broken(&format!("a field of wire type {other}"))),
    };
    if len > rest.len() {
        return Err(broken(&format!("field {field} has {len} bytes, {} are left", rest.len())));
    }
    let value = rest.split_to(len);
    let whole = start.slice(..start.len() - rest.len());
    Ok(Field { number: field, whole, content: (wire_type == LENGTH_DELIMITED).then_some(value) })
}

/// A variable-length number; `prost` gives lengths, and keys are encoded in the same way.
fn number(rest: &mut Bytes, place: &'static str) -> Result<usize, OnnxError> {
    prost::decode_length_delimiter(&mut *rest).map_err(|error| OnnxError::Protobuf { place, reason: error.to_string() })
}

/// Writes a length-delimited field.
pub(super) fn put(to: &mut Vec<u8>, field: usize, content: &[u8]) {
    put_number(to, field << 3 | LENGTH_DELIMITED);
    put_number(to, content.len());
    to.extend_from_slice(content);
}

/// Writes a field that holds a number.
pub(super) fn put_varint(to: &mut Vec<u8>, field: usize, value: usize) {
    put_number(to, field << 3 | VARINT);
    put_number(to, value);
}

fn put_number(to: &mut Vec<u8>, number: usize) {
    // A vector grows: there is always room.
    let _ = prost::encode_length_delimiter(number, to);
}
