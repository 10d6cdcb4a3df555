//! ONNX models that are imported: processes that load them share their weights (SC-001), and whoever is killed while it
//! imports leaves nothing that is taken for a model.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tensorbus::ModelCache;

use crate::onnx_model::{product, weight};
use crate::support::{Node, Random, Session};
use crate::weights::pss_kib;

/// Eight weights of 4 MiB.
const N: usize = 1024;
const WEIGHTS: usize = 8;
const BYTES: usize = WEIGHTS * N * N * 4;

/// Each weight keeps a vector of ones as it is: its rows have one number that is not zero.
fn write_model(path: &Path, weights: usize, shift: usize) {
    let weights = (0..weights).map(|index| {
        let value = |at: usize| if (at / N + index + shift) % N == at % N { 1.0 } else { 0.0 };
        weight(&format!("w{index}"), N, value)
    });
    std::fs::write(path, product(weights.collect(), N).encode_to_vec()).unwrap();
}

#[test]
fn processes_that_load_an_imported_model_share_its_weights() {
    let session = Session::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.onnx");
    write_model(&path, WEIGHTS, 0);
    let imported = ModelCache::at(directory.path().join("cache")).import(&path).unwrap();
    assert_eq!((imported.weights, imported.data_bytes as usize), (WEIGHTS, BYTES));
    let run = |graph: &Path| -> Vec<Node> {
        let n = N.to_string();
        let nodes: Vec<_> = (0..4).map(|_| session.node("onnx-run", &[graph.to_str().unwrap(), &n])).collect();
        nodes.iter().for_each(|node| node.expect(&N.to_string()));
        nodes
    };
    let shared = run(&imported.graph);
    let mapped: usize = shared.iter().map(|node| pss_kib(node.pid(), imported.data.as_ref().unwrap())).sum();
    let copies = (mapped << 10) as f64 / BYTES as f64;
    println!("imported: {copies:.3} copies");
    assert!((0.97..=1.03).contains(&copies), "{copies}");
    let whole = |nodes: &[Node]| nodes.iter().map(|node| pss_kib(node.pid(), Path::new(""))).sum::<usize>() << 10;
    let together = whole(&shared);
    drop(shared);
    // As it was, each process has a copy.
    let alone = run(&path);
    let private = whole(&alone);
    println!("whole processes: {} MiB imported, {} MiB before", together >> 20, private >> 20);
    assert!(private - together >= 5 * BYTES / 2, "{private} and {together}");
}

#[test]
fn kills_at_random_points_of_importing_leave_nothing_half_made() {
    let mut random = Random::seeded();
    let session = Session::new();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (one, other, cache) = (at("one.onnx"), at("other.onnx"), at("cache"));
    write_model(Path::new(&one), 2, 0);
    write_model(Path::new(&other), 2, 1);
    let bus = session.bus();
    let nap = bus.topic("waited").subscriber().unwrap();
    for _ in 0..15 {
        let mut nodes = [&one, &other].map(|model| session.node("onnx-import-for-ever", &[&cache, model]));
        nodes.iter().for_each(|node| node.expect("ready"));
        nodes.iter_mut().for_each(|node| node.tell("go"));
        for node in &mut nodes {
            assert!(nap.recv(Duration::from_micros(random.below(100_000))).is_err());
            let status = node.kill();
            assert!(status.code().is_none(), "ended by itself, {status}");
        }
        for model in [&one, &other] {
            ModelCache::at(&cache).import(model).unwrap().verify().unwrap();
        }
    }
    // The last import has tidied up.
    std::fs::remove_dir_all(ModelCache::at(&cache).import(&one).unwrap().graph.parent().unwrap()).unwrap();
    ModelCache::at(&cache).import(&one).unwrap();
    let left: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "two models and a lock: {left:?}");
}

/// A real model gives the same answers with its weights mapped.
#[test]
fn an_imported_model_answers_as_before() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.onnx");
    let directory = tempfile::tempdir().unwrap();
    let imported = ModelCache::at(directory.path()).import(&path).unwrap();
    assert!(imported.weights > 0);
    let before = rten::Model::load_file(path).unwrap();
    // SAFETY: the files are in a directory of this test, and nobody changes them.
    let after = unsafe { rten::Model::load_mmap(&imported.graph) }.unwrap();
    let images: Vec<f32> = (0..5 * 64).map(|index| (index * 37 % 101) as f32 / 101.0).collect();
    let answer = |model: &rten::Model| {
        let input = rten::ValueView::from_shape([5, 1, 8, 8], &images[..]).unwrap();
        model.run_one(input.into(), None).unwrap().into_shape_vec::<f32, 2>().unwrap()
    };
    let (shape, logits) = answer(&before);
    assert_eq!(shape, [5, 10]);
    assert_eq!(answer(&after), (shape, logits));
}
