//! Models are split without a loss, whatever form their weights have, and bad ones are told why they are refused.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../../tests/node/onnx_model.rs"]
mod onnx_model;

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tempfile::TempDir;
use tensorbus_registry::{ImportError, ImportedModel, ModelCache, OnnxError};

use onnx_model::{Attribute, Entry, FLOAT, Model, Node, Tensor, product, weight};

struct Place {
    directory: TempDir,
    cache: ModelCache,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = ModelCache::at(directory.path().join("cache"));
        Self { directory, cache }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self, model: &Model) -> Result<ImportedModel, ImportError> {
        self.cache.import(self.write("model.onnx", &model.encode_to_vec()))
    }

    /// Why the model is refused; nothing may be left of it.
    fn refused(&self, model: &Model) -> OnnxError {
        let refused = self.import(model).unwrap_err();
        assert!(!refused.to_string().is_empty());
        assert_eq!(fs::read_dir(self.cache.directory()).map_or(0, Iterator::count), 0);
        match refused {
            ImportError::Model { reason, .. } => reason,
            other => panic!("{other}"),
        }
    }
}

/// Entries of the cache, hidden ones included, but for the lock.
fn entries(cache: &Path) -> usize {
    fs::read_dir(cache).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != ".lock").count()
}

fn read_graph(imported: &ImportedModel) -> Model {
    Model::decode(&fs::read(&imported.graph).unwrap()[..]).unwrap()
}

/// The weight's bytes, found by what the graph says of their place.
fn bytes_of(imported: &ImportedModel, tensor: &Tensor) -> Vec<u8> {
    assert_eq!((tensor.data_location, tensor.raw_data.is_none()), (1, true), "{}", tensor.name);
    let value = |key| tensor.external_data.iter().find(|entry| entry.key == key).unwrap().value.clone();
    assert_eq!(value("location"), "model.onnx.data");
    let (offset, len) = (value("offset").parse::<usize>().unwrap(), value("length").parse::<usize>().unwrap());
    assert_eq!(offset % if len < 65536 { 64 } else { 4096 }, 0);
    fs::read(imported.data.as_ref().unwrap()).unwrap()[offset..offset + len].to_vec()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn elsewhere(tensor: &mut Tensor, entries: &[(&str, &str)]) {
    tensor.raw_data = None;
    tensor.data_location = 1;
    let entry = |&(key, value): &(&str, &str)| Entry { key: key.to_owned(), value: value.to_owned() };
    tensor.external_data = entries.iter().map(entry).collect();
}

#[test]
fn weights_move_and_all_else_stays() {
    let place = Place::new();
    let mut large = weight("large", 200, |index| index as f32);
    large.doc_string = "kept".to_owned();
    let small = weight("small", 4, |index| index as f32);
    let mut typed = weight("typed", 20, |_| 0.0);
    (typed.raw_data, typed.float_data) = (None, (0..400_u16).map(f32::from).collect());
    let mut bytes = weight("bytes", 40, |_| 0.0);
    (bytes.raw_data, bytes.data_type, bytes.int32_data) = (None, 3, (0..1600).map(|i| i % 256 - 128).collect());
    let mut long = weight("long", 20, |_| 0.0);
    (long.raw_data, long.data_type, long.int64_data) = (None, 7, (0..400).map(|i| -i).collect());
    let mut model = product(vec![large, small, typed, bytes, long], 200);
    let constant = Attribute { name: "value".into(), t: Some(weight("", 16, |i| i as f32)), r#type: 4, g: None };
    let inner = product(vec![weight("nested", 32, |index| index as f32 / 2.0)], 32).graph.map(Box::new);
    let branch = Attribute { name: "then_branch".into(), t: None, g: inner, r#type: 5 };
    for attribute in [constant, branch] {
        let node = Node { input: vec![], output: vec![], op_type: "Any".into(), attribute: vec![attribute] };
        model.graph.as_mut().unwrap().node.push(node);
    }
    let imported = place.import(&model).unwrap();
    imported.verify().unwrap();
    assert_eq!((imported.weights, imported.was_cached), (6, false));
    let mut split = read_graph(&imported);
    let graph = split.graph.as_mut().unwrap();
    let weights = &mut graph.initializer;
    assert_eq!(floats(&bytes_of(&imported, &weights[0])), (0..40_000).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(weights[1], model.graph.as_ref().unwrap().initializer[1], "a small one stays");
    assert_eq!(floats(&bytes_of(&imported, &weights[2])), (0..400_u16).map(f32::from).collect::<Vec<_>>());
    let numbers: Vec<_> = bytes_of(&imported, &weights[3]).iter().map(|&byte| i32::from(byte as i8)).collect();
    assert_eq!(numbers, model.graph.as_ref().unwrap().initializer[3].int32_data);
    let numbers = bytes_of(&imported, &weights[4]);
    assert_eq!(numbers.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).sum::<i64>(), -399 * 200);
    let (constant, nested) = (&mut graph.node[5].attribute[0], 6);
    assert_eq!(floats(&bytes_of(&imported, constant.t.as_ref().unwrap()))[255], 255.0);
    *constant = model.graph.as_ref().unwrap().node[5].attribute[0].clone();
    let inner = &mut graph.node[nested].attribute[0].g.as_mut().unwrap().initializer[0];
    assert_eq!(floats(&bytes_of(&imported, inner))[1023], 511.5);
    *inner = weight("nested", 32, |index| index as f32 / 2.0);
    // With the weights put back it is the model that it was: nothing else has changed, not even what nobody knows.
    graph.initializer = model.graph.as_ref().unwrap().initializer.clone();
    assert_eq!(split, model);
}

#[test]
fn an_imported_model_is_found_again_and_a_damaged_one_made_anew() {
    let place = Place::new();
    let model = product(vec![weight("w", 64, |index| index as f32)], 64);
    let first = place.import(&model).unwrap();
    let again = place.import(&model).unwrap();
    assert_eq!((&again.graph, again.was_cached), (&first.graph, true));
    let data = first.data.clone().unwrap();
    for (path, bytes) in
        [(&data, &b"short"[..]), (&first.graph, b"damaged"), (&first.graph.with_file_name("manifest.json"), b"{")]
    {
        fs::write(path, bytes).unwrap();
        let repaired = place.import(&model).unwrap();
        assert!(!repaired.was_cached, "{}", path.display());
        repaired.verify().unwrap();
    }
    // Of the same length: only who reads it all can tell.
    let mut bytes = fs::read(&data).unwrap();
    bytes[100] ^= 1;
    fs::write(&data, bytes).unwrap();
    let found = place.import(&model).unwrap();
    assert!(matches!(found.verify(), Err(ImportError::Damaged { path, .. }) if path == data));
    let other = place.import(&product(vec![weight("w", 64, |index| index as f32 + 1.0)], 64)).unwrap();
    assert_ne!(other.graph, first.graph, "a changed model is another one");
    assert_eq!(entries(place.cache.directory()), 2);
}

#[test]
fn what_a_killed_importer_left_is_removed() {
    let place = Place::new();
    let left = place.cache.directory().join(".new-1-0");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("model.onnx"), "half").unwrap();
    place.import(&product(vec![weight("w", 64, |_| 1.0)], 64)).unwrap();
    assert!(!left.exists());
}

#[test]
fn weights_of_other_files_are_taken_along() {
    let place = Place::new();
    let bytes: Vec<u8> = weight("w", 64, |index| index as f32).raw_data.unwrap();
    let mut whole = weight("whole", 64, |_| 0.0);
    elsewhere(&mut whole, &[("location", "sub/weights.bin"), ("offset", "3"), ("length", "16384")]);
    let mut rest = weight("rest", 2, |_| 0.0);
    elsewhere(&mut rest, &[("location", "sub/weights.bin")]);
    let mut none = weight("none", 0, |_| 0.0);
    elsewhere(&mut none, &[("location", "sub/weights.bin"), ("length", "0")]);
    place.write("sub/weights.bin", &[&[0, 0, 0], &bytes[..]].concat());
    let model = product(vec![whole, rest, none], 64);
    let imported = place.import(&model).unwrap();
    let graph = read_graph(&imported).graph.unwrap();
    assert_eq!(bytes_of(&imported, &graph.initializer[0]), bytes);
    assert_eq!(bytes_of(&imported, &graph.initializer[1]), [&[0, 0, 0], &bytes[..13]].concat());
    assert_eq!((graph.initializer[2].data_location, graph.initializer[2].external_data.len()), (0, 0));
    // The digest is that of the weights too.
    place.write("sub/weights.bin", &[&[1, 0, 0], &bytes[..]].concat());
    assert_ne!(place.import(&model).unwrap().graph, imported.graph);
}

/// Every change of a model that breaks it, and the rule that it breaks.
#[test]
fn each_broken_rule_is_named() {
    let place = Place::new();
    place.write("short.bin", &[0; 100]);
    let good = || product(vec![weight("w", 32, |_| 1.0)], 32);
    let broken = |change: &dyn Fn(&mut Tensor)| {
        let mut model = good();
        change(&mut model.graph.as_mut().unwrap().initializer[0]);
        place.refused(&model)
    };
    let at = |entries: &[(&str, &str)]| broken(&|tensor| elsewhere(tensor, entries));
    assert!(matches!(broken(&|w| w.dims[0] = 31), OnnxError::DataLength { found: 4096, needed: 3968, .. }));
    assert!(
        matches!(broken(&|w| w.data_type = 11), OnnxError::DataLength { needed: 8192, .. }),
        "a lie about its type"
    );
    assert!(matches!(broken(&|w| w.dims[0] = -1), OnnxError::Shape { .. }));
    assert!(matches!(broken(&|w| w.dims = vec![i64::MAX; 3]), OnnxError::Shape { .. }));
    for location in ["", "/etc/passwd", "../x", "a/../../x"] {
        assert!(matches!(at(&[("location", location)]), OnnxError::Location { .. }), "{location}");
    }
    assert!(matches!(at(&[("location", "none.bin")]), OnnxError::DataFile { .. }));
    assert!(matches!(at(&[("location", "short.bin")]), OnnxError::DataFileShort { file: 100, len: 4096, .. }));
    let far = u64::MAX.to_string();
    assert!(matches!(at(&[("location", "short.bin"), ("offset", &far)]), OnnxError::DataFileShort { .. }));
    assert!(matches!(at(&[("location", "short.bin"), ("offset", "-1")]), OnnxError::Place { key: "offset", .. }));
    assert!(matches!(at(&[("location", "short.bin"), ("length", "7")]), OnnxError::DataLength { .. }));
    let text = broken(&|w| {
        elsewhere(w, &[("location", "short.bin")]);
        w.data_type = 8;
    });
    assert!(matches!(text, OnnxError::DataType { data_type: 8, .. }));
    assert!(matches!(place.refused(&Model { graph: None, ..good() }), OnnxError::NotAModel { .. }));
    assert!(matches!(place.refused(&Model { ir_version: 0, ..good() }), OnnxError::NotAModel { .. }));
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let place = Place::new();
    let whole = product(vec![weight("w", 32, |_| 1.0)], 32).encode_to_vec();
    let texts: [&[u8]; 4] = [b"PK\x03\x04 not a model", b"\x00", &[0xff; 64], b"\x0b\x0c"];
    let truncated = (1..whole.len()).step_by(97).map(|len| &whole[..len]);
    for bytes in texts.into_iter().chain(truncated) {
        let refused = place.cache.import(place.write("model.onnx", bytes)).unwrap_err();
        let is_told = matches!(
            refused,
            ImportError::Model { reason: OnnxError::Protobuf { .. } | OnnxError::NotAModel { .. }, .. }
        );
        assert!(is_told, "{refused}");
    }
    let empty = place.cache.import(place.write("empty.onnx", b"")).unwrap_err();
    assert!(matches!(empty, ImportError::Map(_)), "{empty}");
    assert!(matches!(place.cache.import(place.directory.path()), Err(ImportError::Map(_))));
    assert_eq!(FLOAT, 1);
}

/// Graphs in attributes of nodes in graphs, without end.
#[test]
fn depth_is_bounded() {
    let mut graph = onnx_model::Graph::default().encode_to_vec();
    for _ in 0..2000 {
        // A node with an attribute that holds the graph, in a graph.
        for key in [0x32_u8, 0x2a, 0x0a] {
            let mut outer = vec![key];
            prost::encode_length_delimiter(graph.len(), &mut outer).unwrap();
            outer.append(&mut graph);
            graph = outer;
        }
    }
    let mut model = vec![0x08, 0x08, 0x3a];
    prost::encode_length_delimiter(graph.len(), &mut model).unwrap();
    model.append(&mut graph);
    let place = Place::new();
    let refused = place.cache.import(place.write("model.onnx", &model)).unwrap_err();
    assert!(refused.to_string().contains("deep"), "{refused}");
}

/// The real model of the examples: small, and its weights are what they were.
#[test]
fn a_real_model_is_imported() {
    let place = Place::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.onnx");
    let model = Model::decode(&fs::read(&path).unwrap()[..]).unwrap();
    let imported = place.cache.import(&path).unwrap();
    imported.verify().unwrap();
    let split = read_graph(&imported);
    let mut moved = 0;
    for (before, after) in model.graph.unwrap().initializer.iter().zip(&split.graph.unwrap().initializer) {
        assert_eq!((&before.name, &before.dims), (&after.name, &after.dims));
        if after.data_location == 1 {
            moved += 1;
            let bytes = bytes_of(&imported, after);
            assert!(before.raw_data.as_ref().is_none_or(|raw| *raw == bytes));
        }
    }
    assert_eq!(moved, imported.weights);
    println!("{moved} weights, {} bytes", imported.data_bytes);
}
