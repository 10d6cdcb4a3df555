//! Replays the seeds of the fuzz targets, and every one-bit change to them, through the targets' checks: no fuzzer needed.
//!
//! A seed called `bad-*` must be rejected, any other accepted. `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here;
//! a file that the fuzzer found may be put beside them.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library where the fuzz targets use it")]
mod checks;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tensorbus_transport::layout::{Dtype, MAX_RANK, MAX_TENSORS, MessageLayout, TensorSpec};
use tensorbus_transport::wire::{
    MAGIC, Metadata, Parts, Preamble, WIRE_VERSION, encode_layout, encode_metadata, fingerprint_of,
};
use zerocopy::IntoBytes;

type Seeds = BTreeMap<String, Vec<u8>>;

#[test]
fn decode_message_keeps_its_promises() {
    let mut seeds: Seeds = layouts().map(|(name, layout)| (name.into(), message(&layout, &Metadata::new()))).collect();
    let two_tensors = MessageLayout::pack(&[
        TensorSpec::new("batch", Dtype::F32, &[2, 3]),
        TensorSpec::new("labels", Dtype::U8, &[2]),
    ]);
    let good = message(&two_tensors.unwrap(), &metadata());
    seeds.insert("metadata".into(), good.clone());
    seeds.insert("bad-empty".into(), Vec::new());
    seeds.insert("bad-truncated".into(), good[..good.len() - 1].to_vec());
    // Bytes of the preamble: magic number, version, flags, length of layout, of data and of metadata, fingerprint.
    for (name, byte) in [("magic", 0), ("version", 4), ("flags", 6), ("layout-length", 10), ("data-length", 22)] {
        seeds.insert(format!("bad-{name}"), flipped(&good, byte));
    }
    seeds.insert("bad-metadata-length".into(), flipped(&good, 26));
    seeds.insert("bad-fingerprint".into(), flipped(&good, 56));
    seeds.insert("bad-layout".into(), flipped(&good, 64));
    replay("decode_message", seeds, checks::decode_message);
}

#[test]
fn decode_layout_keeps_its_promises() {
    let mut seeds: Seeds =
        layouts().map(|(name, layout)| (name.into(), encode_layout(&layout).unwrap().to_vec())).collect();
    let names = (0..MAX_TENSORS).map(|number| number.to_string());
    let scalars: Vec<_> = names.map(|name| TensorSpec::new(&name, Dtype::U8, &[])).collect();
    let most_tensors = MessageLayout::pack(&scalars).unwrap();
    seeds.insert("most-tensors".into(), encode_layout(&most_tensors).unwrap().to_vec());
    let good = &seeds["two-tensors"];
    let (truncated, flipped) = (good[..good.len() - 1].to_vec(), flipped(good, good.len() - 1));
    seeds.insert("bad-empty".into(), Vec::new());
    seeds.insert("bad-truncated".into(), truncated);
    seeds.insert("bad-root".into(), flipped);
    replay("decode_layout", seeds, checks::decode_layout);
}

#[test]
fn decode_metadata_keeps_its_promises() {
    let encoded = |metadata: &Metadata| encode_metadata(metadata).unwrap().to_vec();
    let good = encoded(&metadata());
    let mut seeds = Seeds::from([
        ("none".into(), encoded(&Metadata::new())),
        ("all-types".into(), good.clone()),
        ("bad-empty".into(), Vec::new()),
        ("bad-truncated".into(), good[..good.len() - 1].to_vec()),
        ("bad-root".into(), flipped(&good, good.len() - 1)),
    ]);
    for (key, value) in metadata().iter() {
        seeds.insert(key.into(), encoded(Metadata::new().set(key, value.clone())));
    }
    replay("decode_metadata", seeds, checks::decode_metadata);
}

/// Layouts of every kind, by name.
fn layouts() -> impl Iterator<Item = (&'static str, MessageLayout)> {
    let f32x4 = Dtype::F32.with_lanes(4).unwrap();
    let new = TensorSpec::new;
    [
        ("one-tensor", vec![new("tensor", Dtype::F32, &[2, 3])]),
        ("two-tensors", vec![new("batch", Dtype::F32, &[2, 1, 4, 4]), new("labels", Dtype::U8, &[2])]),
        ("scalar", vec![new("loss", Dtype::F64, &[])]),
        ("zero-size", vec![new("none", Dtype::U8, &[0, 3]), new("empty", Dtype::I64, &[2, 0])]),
        ("strided", vec![new("crop", Dtype::U8, &[2, 3]).strides(&[8, 1])]),
        ("repeated", vec![new("bias", Dtype::F16, &[4, 3]).strides(&[0, 1])]),
        ("column-major", vec![new("matrix", Dtype::C64, &[3, 2]).column_major()]),
        ("sub-byte", vec![new("weights", Dtype::I4, &[3, 3]), new("mask", Dtype::U1, &[9])]),
        ("lanes", vec![new("points", f32x4, &[5])]),
        ("most-dimensions", vec![new("deep", Dtype::BF16, &[1; MAX_RANK])]),
    ]
    .into_iter()
    .map(|(name, specs)| (name, MessageLayout::pack(&specs).unwrap()))
}

/// A value of every type, and those that are easily lost.
fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("bool", true).set("int", i64::MIN).set("float", 0.5).set("nan", f64::NAN).set("minus-zero", -0.0);
    metadata.set("text", "left").set("long-text", "längste Schärfe über alles").set("no-text", "");
    metadata.set("bytes", vec![0u8, 255, 7]).set("no-bytes", Vec::new());
    metadata
}

/// A message as a publisher writes it: preamble and payload.
fn message(layout: &MessageLayout, metadata: &Metadata) -> Vec<u8> {
    let layout_bytes = encode_layout(layout).unwrap();
    let metadata_bytes = if metadata.is_empty() { Vec::new() } else { encode_metadata(metadata).unwrap().to_vec() };
    let parts = Parts::place(layout_bytes.len(), layout.data_len()).unwrap();
    let preamble = Preamble {
        magic: MAGIC,
        version: WIRE_VERSION,
        layout_len: layout_bytes.len() as u32,
        data_offset: parts.data.start as u32,
        data_len: layout.data_len() as u64,
        metadata_len: metadata_bytes.len() as u32,
        layout_fingerprint: fingerprint_of(&layout_bytes),
        ..Preamble::default()
    };
    let mut payload = vec![0; parts.metadata.start];
    payload[parts.layout].copy_from_slice(&layout_bytes);
    [preamble.as_bytes(), &payload, &metadata_bytes].concat()
}

fn flipped(bytes: &[u8], byte: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[byte] ^= 0x80;
    bytes
}

fn replay(target: &str, made_here: Seeds, check: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &made_here {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Seeds = files
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    for (name, bytes) in &made_here {
        assert!(seeds.get(name) == Some(bytes), "seed {target}/{name} is not what this build writes");
    }
    for (name, bytes) in &seeds {
        assert_eq!(check(bytes), !name.starts_with("bad-"), "whether seed {target}/{name} is accepted");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            check(&changed);
        }
    }
}
