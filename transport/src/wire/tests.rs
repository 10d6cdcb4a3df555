use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::layout::{Dtype, LayoutError, MessageLayout, TensorLayout, TensorSpec};

/// A message as a publisher writes it: preamble and payload.
fn message(layout: &MessageLayout, metadata: &Metadata) -> (Preamble, Vec<u8>) {
    let encoded = encode_layout(layout).unwrap();
    let parts = Parts::place(encoded.len(), layout.data_len()).unwrap();
    let mut payload = vec![0; parts.metadata.start];
    payload[parts.layout.clone()].copy_from_slice(&encoded);
    let encoded_metadata = if metadata.is_empty() { Default::default() } else { encode_metadata(metadata).unwrap() };
    payload.extend_from_slice(&encoded_metadata);
    let preamble = Preamble {
        magic: MAGIC,
        version: WIRE_VERSION,
        layout_len: encoded.len() as u32,
        data_offset: parts.data.start as u32,
        data_len: layout.data_len() as u64,
        metadata_len: encoded_metadata.len() as u32,
        sequence: 7,
        publish_time_ns: 8,
        source_time_ns: 9,
        layout_fingerprint: fingerprint_of(&encoded),
        ..Preamble::default()
    };
    (preamble, payload)
}

fn sample() -> (Preamble, Vec<u8>) {
    let layout = MessageLayout::pack(&[
        TensorSpec::new("batch", Dtype::F32, &[2, 1, 8, 8]),
        TensorSpec::new("labels", Dtype::U8, &[2]),
    ])
    .unwrap();
    let mut metadata = Metadata::new();
    metadata.set("camera", "left").set("frame", 17).set("gain", 0.5).set("on", true).set("raw", vec![1u8, 2]);
    message(&layout, &metadata)
}

fn decode(preamble: &Preamble, payload: &[u8]) -> Result<Decoded, DecodeError> {
    Decoder::default().decode(preamble, payload)
}

#[test]
fn each_lie_in_the_preamble_is_named() {
    let (good, payload) = sample();
    assert!(decode(&good, &payload).is_ok());
    let lie = |change: fn(&mut Preamble)| {
        let mut preamble = good;
        change(&mut preamble);
        decode(&preamble, &payload).unwrap_err()
    };
    assert!(matches!(lie(|p| p.magic ^= 1), DecodeError::NotAMessage { .. }));
    assert!(matches!(lie(|p| p.version = 2), DecodeError::OtherVersion { version: 2 }));
    assert!(matches!(lie(|p| p.flags = 1), DecodeError::UnknownFlags { .. }));
    assert!(matches!(lie(|p| p.reserved = 1), DecodeError::UnknownFlags { .. }));
    assert!(matches!(lie(|p| p.layout_len = 0), DecodeError::LayoutLength { len: 0 }));
    assert!(matches!(lie(|p| p.layout_len = u32::MAX), DecodeError::LayoutLength { .. }));
    assert!(matches!(lie(|p| p.metadata_len = u32::MAX), DecodeError::MetadataLength { .. }));
    assert!(matches!(lie(|p| p.metadata_len += 1), DecodeError::OutsidePayload { .. }));
    assert!(matches!(lie(|p| p.data_offset = 0), DecodeError::DataOffset { .. }));
    assert!(matches!(lie(|p| p.data_offset += 1), DecodeError::DataOffset { .. }));
    assert!(matches!(lie(|p| p.data_offset = u32::MAX - 63), DecodeError::OutsidePayload { .. }));
    assert!(matches!(lie(|p| p.data_len = u64::MAX), DecodeError::OutsidePayload { .. }));
    assert!(matches!(lie(|p| p.data_len = 1 << 40), DecodeError::OutsidePayload { .. }));
    assert!(matches!(
        lie(|p| {
            p.data_len = 64;
            p.metadata_len = 0;
        }),
        DecodeError::TensorsOutsideData { .. }
    ));
    assert!(matches!(lie(|p| p.layout_fingerprint ^= 1), DecodeError::Fingerprint { .. }));
    assert!(matches!(lie(|p| p.layout_len -= 1), DecodeError::Fingerprint { .. }));
}

#[test]
fn a_layout_that_lies_is_rejected_behind_a_true_fingerprint() {
    let tensor = |offset, len, shape: &[usize]| TensorLayout {
        name: format!("t{offset}"),
        dtype: Dtype::U8,
        shape: shape.to_vec(),
        strides: crate::layout::row_major_strides(shape).unwrap_or_else(|| vec![0; shape.len()]),
        offset,
        len,
    };
    let rejected = |tensors: Vec<TensorLayout>| {
        let encoded = archive::encode_unchecked(&tensors);
        decode_layout(&encoded).unwrap_err()
    };
    assert!(matches!(
        rejected(vec![tensor(0, 65, &[65]), tensor(64, 1, &[1])]),
        DecodeError::Layout(LayoutError::Overlaps { .. })
    ));
    assert!(matches!(rejected(vec![tensor(0, 4, &[5])]), DecodeError::Layout(LayoutError::WrongLength { .. })));
    assert!(matches!(rejected(vec![tensor(1, 1, &[1])]), DecodeError::Layout(LayoutError::Misaligned { .. })));
    assert!(matches!(
        rejected(vec![tensor(0, 16, &[1 << 33, 1 << 33])]),
        DecodeError::Layout(LayoutError::SizeOverflows { .. })
    ));
    assert!(matches!(rejected(vec![]), DecodeError::Layout(LayoutError::NoTensors)));
    assert!(matches!(
        rejected((0..65).map(|i| tensor(i * 64, 1, &[1])).collect()),
        DecodeError::Layout(LayoutError::TooManyTensors { tensors: 65 })
    ));
}

#[test]
fn layouts_are_remembered_and_forgotten_in_order_of_use() {
    let mut decoder = Decoder::default();
    let layouts: Vec<_> =
        (1..=10).map(|n| MessageLayout::pack(&[TensorSpec::new("t", Dtype::U8, &[n])]).unwrap()).collect();
    for _ in 0..3 {
        for layout in &layouts {
            let (preamble, payload) = message(layout, &Metadata::new());
            let first = decoder.decode(&preamble, &payload).unwrap().layout;
            let again = decoder.decode(&preamble, &payload).unwrap().layout;
            assert_eq!(*first, *layout);
            assert!(std::sync::Arc::ptr_eq(&first, &again), "the second time costs a compare only");
        }
    }
}

#[test]
fn a_remembered_layout_is_not_used_for_other_bytes_with_its_fingerprint() {
    let (preamble, payload) = sample();
    let mut decoder = Decoder::default();
    decoder.decode(&preamble, &payload).unwrap();
    let mut changed = payload;
    changed[preamble.layout_len as usize - 1] ^= 1;
    assert!(matches!(decoder.decode(&preamble, &changed), Err(DecodeError::Fingerprint { .. })));
}

/// The format is a promise: bytes that an earlier build wrote are read by this one, and written the same.
#[test]
fn golden_message_is_read_and_written_as_ever() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/message-v1.bin");
    let (preamble, payload) = sample();
    let bytes = [preamble.as_bytes(), &payload].concat();
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &bytes).unwrap();
    }
    let golden = std::fs::read(path).expect("golden file");
    assert!(bytes == golden, "the encoder writes other bytes than wire version {WIRE_VERSION} has");
    let (head, tail) = golden.split_at(64);
    let read = Preamble::read_from_bytes(head).unwrap();
    let decoded = decode(&read, tail).unwrap();
    assert_eq!((read.sequence, read.publish_time_ns, read.source_time_ns), (7, 8, 9));
    assert_eq!(decoded.layout.position("labels"), Some(1));
    assert_eq!(decoded.layout.tensors()[0].shape, [2, 1, 8, 8]);
    assert_eq!(decoded.metadata.get("gain").and_then(Value::as_float), Some(0.5));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e9f64..1e9).prop_map(Value::Float),
        ".{0,20}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}

proptest! {
    #[test]
    fn layouts_and_metadata_round_trip(
        tensors in prop::collection::vec((0..Dtype::ALL.len(), prop::collection::vec(0usize..9, 0..6)), 1..12),
        entries in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..12),
    ) {
        let specs: Vec<_> = tensors
            .iter()
            .enumerate()
            .map(|(i, (dtype, shape))| TensorSpec::new(&format!("t{i}"), Dtype::ALL[*dtype], shape))
            .collect();
        let layout = MessageLayout::pack(&specs).unwrap();
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.set(key, value);
        }
        let (preamble, payload) = message(&layout, &metadata);
        let decoded = decode(&preamble, &payload).unwrap();
        prop_assert_eq!(&*decoded.layout, &layout);
        prop_assert_eq!(decoded.metadata, metadata);
        prop_assert_eq!(decoded.data.len(), layout.data_len());
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 64..600)) {
        let (head, payload) = bytes.split_at(64);
        let _ = decode(&Preamble::read_from_bytes(head).unwrap(), payload);
        let _ = decode_layout(payload);
        let _ = decode_metadata(payload);
    }

    #[test]
    fn a_message_with_flipped_bytes_stays_in_bounds(flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let (preamble, payload) = sample();
        let mut bytes = [preamble.as_bytes(), &payload].concat();
        for (place, bits) in flips {
            let place = usize::from(place) % bytes.len();
            bytes[place] ^= bits;
        }
        let (head, payload) = bytes.split_at(64);
        let mut changed = Preamble::read_from_bytes(head).unwrap();
        let encoded_end = (changed.layout_len as usize).min(payload.len());
        changed.layout_fingerprint = fingerprint_of(&payload[..encoded_end]);
        if let Ok(decoded) = decode(&changed, payload) {
            prop_assert!(decoded.data.end <= payload.len());
            for tensor in decoded.layout.tensors() {
                prop_assert!(tensor.offset + tensor.len <= decoded.data.len());
            }
        }
    }
}
