//! Real models give what ONNX Runtime gives. `ci/models` gets the models and says what that is: they are not part of this project.
#![cfg(feature = "rten")]
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use tensorbus_registry::{ModelCache, SharedWeights};
use tensorbus_transport::TensorView;
use tensorbus_worker::{Golden, Model, Output, RtenModel, run};

const TOLERANCE: f64 = 1e-3;
/// Samples of a second, of which the model hears so many at a time and so many of those before again.
const RATE: usize = 16_000;
const PART: usize = 512;
const CONTEXT: usize = 64;

fn directory(which: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("TENSORBUS_MODELS").expect("the directory with the models")).join(which)
}

fn load(directory: &Path) -> RtenModel {
    let cache = ModelCache::at(directory.join("cache"));
    let model = RtenModel::builder().threads(1).cache(cache).load(directory.join("model.onnx")).unwrap();
    println!("{}: {}, {} bytes of weights mapped", directory.display(), model.signature(), model.weight_bytes());
    model
}

/// Files with inputs and what should come out.
fn golden(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "safetensors")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn check(directory: &Path) -> RtenModel {
    let model = load(directory);
    for file in golden(directory) {
        Golden::open(&file)
            .unwrap()
            .check(&model, TOLERANCE)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    model
}

/// Silero's voice activity detector, on two sentences with silence and noise around them.
#[test]
#[ignore = "the model is not part of the project: ci/models voice"]
fn voice() {
    let directory = directory("voice");
    let model = load(&directory);
    let file = SharedWeights::open(directory.join("voice.safetensors")).unwrap();
    let floats = |name| file.tensor(name).unwrap().view::<f32>().unwrap();
    let (samples, expected) = (floats("samples"), floats("likely"));
    let is_speech = file.tensor("speech").unwrap().view::<u8>().unwrap();
    let mut state = vec![0_f32; 2 * 128];
    let mut heard = [0_f32; CONTEXT + PART];
    let mut likely = Vec::new();
    for part in samples.chunks_exact(PART) {
        heard.copy_within(PART.., 0);
        heard[CONTEXT..].copy_from_slice(part);
        let inputs = vec![
            TensorView::new(&heard, &[1, CONTEXT + PART], &[(CONTEXT + PART) as isize, 1]).unwrap(),
            TensorView::new(&state, &[2, 1, 128], &[128, 128, 1]).unwrap(),
            TensorView::new(&[RATE as i64], &[], &[]).unwrap(),
        ];
        let outcome = run(&model, inputs, vec![Output::in_memory(), Output::in_memory()]).unwrap();
        likely.push(outcome.outputs[0].tensor().unwrap().view::<f32>().unwrap()[0]);
        let after = outcome.outputs[1].tensor().unwrap().view::<f32>().unwrap().to_vec();
        drop(outcome);
        state = after;
    }
    assert_eq!(likely.len(), expected.len());
    for (index, (found, expected)) in likely.iter().zip(expected).enumerate() {
        assert!(f64::from((found - expected).abs()) <= TOLERANCE, "part {index}: {found} in place of {expected}");
    }
    // What is speech, and what is silence or noise and was for the third of a second before.
    let all = |part: usize, before: usize, kind: u8| {
        is_speech[(part * PART).saturating_sub(before)..(part + 1) * PART].iter().all(|&is| is == kind)
    };
    let parts = |before, kind| (0..likely.len()).filter(move |&part| all(part, before, kind)).map(|part| likely[part]);
    let (heard, speech) = (parts(0, 1).filter(|&likely| likely > 0.5).count(), parts(0, 1).count());
    let silence = parts(RATE / 3, 0).count();
    println!("speech in {heard} of {speech} parts with speech, in none of {silence} without");
    assert!(speech > 50 && heard * 10 > speech * 7, "speech is found in {heard} of {speech} parts with speech");
    assert!(silence > 50 && parts(RATE / 3, 0).all(|likely| likely < 0.5), "speech in silence or noise");
}

/// Finds the text on a page, and reads it line by line.
#[test]
#[ignore = "the models are not part of the project: ci/models page"]
fn page() {
    let directory = directory("page");
    check(&directory.join("detect"));
    check(&directory.join("turn"));
    let reader = check(&directory.join("read"));
    let characters = fs::read_to_string(directory.join("read/characters.txt")).unwrap();
    let characters: Vec<&str> = characters.lines().collect();
    let mut text = String::new();
    for file in golden(&directory.join("read")) {
        let file = SharedWeights::open(file).unwrap();
        let line = file.tensor("input.x").unwrap();
        let outcome = run(&reader, vec![line.as_view()], vec![Output::in_memory()]).unwrap();
        let likely = outcome.outputs[0].tensor().unwrap();
        let classes = *likely.layout().shape.last().unwrap();
        let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let mut before = 0;
        for row in likely.view::<f32>().unwrap().chunks_exact(classes) {
            let class = best(row);
            if class != 0 && class != before {
                // After the characters there is the space.
                text.push_str(characters.get(class - 1).unwrap_or(&" "));
            }
            before = class;
        }
        text.push('\n');
    }
    println!("{text}");
    for words in ["Region-based", "determine", "markers of the coins", "pixels that we can", "object or background"] {
        assert!(text.contains(words), "{words:?} is not in what was read: {text}");
    }
}

/// Embeddings by a quantised transformer.
#[test]
#[ignore = "the model is not part of the project: ci/models sentences"]
fn sentences() {
    check(&directory("sentences"));
}
