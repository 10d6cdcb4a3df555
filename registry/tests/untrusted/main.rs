//! Replays the seeds of the fuzz targets `decode_weights` and `decode_model`, and every one-bit change to them, through the
//! targets' checks: no fuzzer needed.
//!
//! A seed called `bad-*` must be rejected, any other accepted. `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here;
//! a file that the fuzzer found may be put beside them.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod checks;
#[path = "../../../tests/node/onnx_model.rs"]
mod onnx_model;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use onnx_model::{Attribute, Entry, Model, Node, Tensor, product, weight};
use prost::Message;

type Seeds = BTreeMap<String, Vec<u8>>;

#[test]
fn decode_weights_keeps_its_promises() {
    let one = |dtype: &str, shape: &str, end: usize| {
        file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#), end)
    };
    let two = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;
    let gap = two.replace("[8,11]", "[9,12]");
    let overlap = two.replace("[8,11]", "[7,10]");
    let good = file(two, 11);
    let mut seeds: Seeds = ["BOOL", "F8_E4M3", "F16", "BF16", "F32", "F64", "C64"]
        .into_iter()
        .zip([1, 1, 2, 2, 4, 8, 8])
        .map(|(dtype, bytes)| (dtype.to_lowercase(), one(dtype, "[1,3]", 3 * bytes)))
        .collect();
    seeds.insert("packed".into(), one("F4", "[6]", 3));
    seeds.insert("scalar".into(), one("I64", "[]", 8));
    seeds.insert("no-elements".into(), one("F32", "[0,7]", 0));
    seeds.insert("no-tensors".into(), file("{}", 0));
    seeds.insert("two-tensors".into(), good.clone());
    seeds.insert("bad-empty".into(), Vec::new());
    seeds.insert("bad-truncated".into(), good[..good.len() - 1].to_vec());
    seeds.insert("bad-longer".into(), [&good[..], &[0]].concat());
    seeds.insert("bad-gap".into(), file(&gap, 12));
    seeds.insert("bad-overlap".into(), file(&overlap, 10));
    seeds.insert("bad-dtype".into(), one("F64", "[1]", 4));
    seeds.insert("bad-overflow".into(), one("F32", "[4294967296,4294967296]", 8));
    seeds.insert("bad-header-length".into(), [&u64::MAX.to_le_bytes()[..], &good[8..]].concat());
    replay("decode_weights", seeds, checks::decode_weights);
}

#[test]
fn decode_model_keeps_its_promises() {
    let seed = |weights: Vec<Tensor>| product(weights, 2).encode_to_vec();
    let large = |index: usize| index as f32;
    let mut typed = weight("typed", 16, large);
    (typed.raw_data, typed.float_data) = (None, vec![0.5; 256]);
    let mut nested = product(vec![weight("w", 2, large)], 2);
    let inner = product(vec![weight("inner", 16, large)], 16).graph.map(Box::new);
    let attribute = vec![
        Attribute { name: "value".into(), t: Some(weight("constant", 2, large)), r#type: 4, g: None },
        Attribute { name: "then_branch".into(), t: None, g: inner, r#type: 5 },
    ];
    let node = Node { input: vec![], output: vec![], op_type: "If".into(), attribute };
    nested.graph.as_mut().unwrap().node.push(node);
    let mut elsewhere = weight("elsewhere", 16, large);
    (elsewhere.raw_data, elsewhere.data_location) = (None, 1);
    elsewhere.external_data = vec![Entry { key: "location".into(), value: "w.data".into() }];
    let mut long = weight("long", 2, large);
    long.dims[0] = 3;
    let good = seed(vec![weight("small", 2, large)]);
    let seeds = Seeds::from([
        ("small".into(), good.clone()),
        ("large".into(), seed(vec![weight("large", 16, large), weight("small", 2, large)])),
        ("typed".into(), seed(vec![typed])),
        ("nested".into(), nested.encode_to_vec()),
        ("bad-empty".into(), Vec::new()),
        ("bad-truncated".into(), good[..good.len() - 1].to_vec()),
        ("bad-no-graph".into(), Model { graph: None, ..product(vec![weight("w", 2, large)], 2) }.encode_to_vec()),
        ("bad-elsewhere".into(), seed(vec![elsewhere])),
        ("bad-length".into(), seed(vec![long])),
    ]);
    replay("decode_model", seeds, checks::decode_model);
}

/// The length of the header, the header, and `data` bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![1; data]].concat()
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
