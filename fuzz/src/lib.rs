//! What must hold for any bytes that a decoder is given. The fuzz targets run these checks on bytes of the fuzzer's
//! making, `transport/tests/fuzz_seeds.rs` on the seeds, without a fuzzer.
//!
//! Each check panics if a promise is broken, and says whether the bytes were accepted.

use std::mem::discriminant;

use tensorbus_transport::layout::{ALIGNMENT, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES, MessageLayout};
use tensorbus_transport::wire::{
    self, Decoded, Decoder, Metadata, Preamble, Value, encode_layout, encode_metadata, fingerprint_of,
};
use zerocopy::FromBytes;

/// A preamble of 64 bytes and the payload behind it.
pub fn decode_message(bytes: &[u8]) -> bool {
    let Ok((preamble, payload)) = Preamble::read_from_prefix(bytes) else { return false };
    let mut decoder = Decoder::default();
    let accepted = check_message(&mut decoder, &preamble, payload);
    let layout_len = payload.len().min(preamble.layout_len as usize);
    // A change to the layout breaks its fingerprint, and that would end most runs here. Somebody who lies hashes the lie.
    let forged = Preamble { layout_fingerprint: fingerprint_of(&payload[..layout_len]), ..preamble };
    if check_message(&mut decoder, &forged, payload) {
        // Other bytes under the fingerprint of a layout that is remembered.
        let mut changed = payload.to_vec();
        changed[layout_len - 1] ^= 1;
        check_message(&mut decoder, &forged, &changed);
    }
    accepted
}

/// An encoded layout, whose fingerprint was right.
pub fn decode_layout(bytes: &[u8]) -> bool {
    let Ok(layout) = wire::decode_layout(bytes) else { return false };
    check_tensors(&layout, layout.data_len());
    // Written again it may be padded in another way, but it does not grow to twice its length.
    if bytes.len() <= MAX_LAYOUT_BYTES / 2 {
        let again = encode_layout(&layout).expect("a layout that was decoded can be encoded");
        assert_eq!(wire::decode_layout(&again).as_ref(), Ok(&layout));
    }
    true
}

/// Encoded metadata.
pub fn decode_metadata(bytes: &[u8]) -> bool {
    let Ok(metadata) = wire::decode_metadata(bytes) else { return false };
    if bytes.len() <= MAX_METADATA_BYTES / 2 {
        let again = encode_metadata(&metadata).expect("metadata that was decoded can be encoded");
        let again = wire::decode_metadata(&again).expect("metadata that was encoded can be decoded");
        assert!(is_same_metadata(&metadata, &again), "{metadata:?} came back as {again:?}");
    }
    true
}

fn check_message(decoder: &mut Decoder, preamble: &Preamble, payload: &[u8]) -> bool {
    let first = decoder.decode(preamble, payload);
    let again = decoder.decode(preamble, payload);
    let fresh = Decoder::default().decode(preamble, payload);
    match (first, again, fresh) {
        (Ok(first), Ok(again), Ok(fresh)) => {
            assert!(is_same_message(&first, &again), "{first:?}, and from the remembered layout {again:?}");
            assert!(is_same_message(&first, &fresh), "{first:?}, and from another decoder {fresh:?}");
            assert!(first.data.start.is_multiple_of(ALIGNMENT), "data begins at byte {}", first.data.start);
            assert!(first.data.end <= payload.len(), "data ends at {} of {}", first.data.end, payload.len());
            check_tensors(&first.layout, first.data.len());
            true
        }
        (Err(first), Err(again), Err(fresh)) => {
            // The text of an error may name addresses; the rule that was broken must be the same.
            assert_eq!(discriminant(&first), discriminant(&again), "{first}, and then {again}");
            assert_eq!(discriminant(&first), discriminant(&fresh), "{first}, and from another decoder {fresh}");
            false
        }
        (first, again, fresh) => panic!("three answers for one message: {first:?}, {again:?}, {fresh:?}"),
    }
}

/// Every tensor is aligned, within the data and behind the one before it, and its last element within the tensor.
fn check_tensors(layout: &MessageLayout, data_len: usize) {
    let mut previous_end = 0;
    for tensor in layout.tensors() {
        assert!(tensor.offset.is_multiple_of(ALIGNMENT), "misaligned: {tensor:?}");
        assert!(tensor.offset >= previous_end, "begins before byte {previous_end}: {tensor:?}");
        previous_end = tensor.offset + tensor.len;
        assert_eq!(tensor.shape.len(), tensor.strides.len(), "{tensor:?}");
        if !tensor.shape.contains(&0) {
            let steps = tensor.shape.iter().zip(&tensor.strides);
            let last: u128 = steps.map(|(&size, &stride)| (size as u128 - 1) * to_u128(stride)).sum();
            let end = ((last + 1) * tensor.dtype.element_bits() as u128).div_ceil(8);
            assert!(end <= tensor.len as u128, "last element ends at byte {end}: {tensor:?}");
        }
    }
    assert!(previous_end <= data_len, "tensors end at byte {previous_end} of {data_len}");
}

fn to_u128(stride: isize) -> u128 {
    u128::try_from(stride).expect("strides are never negative")
}

fn is_same_message(a: &Decoded, b: &Decoded) -> bool {
    a.layout == b.layout && a.data == b.data && is_same_metadata(&a.metadata, &b.metadata)
}

/// Equal, with floating-point numbers compared bit by bit: NaN is a value that can be sent.
fn is_same_metadata(a: &Metadata, b: &Metadata) -> bool {
    let is_same_value = |a: &Value, b: &Value| match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && is_same_value(a.1, b.1))
}
