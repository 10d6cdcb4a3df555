//! The test cases of the ONNX standard, run by rten. `ci/onnx-conformance` gets them: they are not part of this project.
#![cfg(feature = "rten")]
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../../src/compare.rs"]
mod compare;
#[path = "../../src/rten/operators.rs"]
#[allow(dead_code, reason = "the opsets are no matter here")]
mod operators;
#[path = "../../src/onnx/proto.rs"]
#[allow(dead_code, reason = "what is looked at in a graph is no matter here")]
mod proto;
mod tensor;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tensorbus_registry::ModelCache;
use tensorbus_worker::{InferError, Model, Output, RtenLoadError, RtenModel, run};

use crate::compare::difference;
use crate::tensor::Tensor;

/// Folders with cases: one operator each in its newest form, and small graphs of older versions.
const SUITES: [&str; 5] = ["node", "more", "simple", "pytorch-converted", "pytorch-operator"];
const TOLERANCE: f64 = 1e-3;
/// Cases that passed once. The list may only grow.
const PASSED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/rten.txt");

/// Cases with another answer than the standard's, which is let through all the same. `docs/workers.md` says why.
const KNOWN_TO_DIFFER: [&str; 2] = ["node/test_dynamicquantizelinear", "node/test_dynamicquantizelinear_expanded"];

/// What became of a case, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Passed,
    /// The model is refused, with a reason.
    Refused(String),
    /// Inputs, outputs or weights are no tensors of a type that the backend has.
    Dtype(String),
    /// It is loaded, and then there is an error in place of an answer.
    Failed(String),
    /// It is one of those that are let through with another answer.
    Differs(String),
    Wrong(String),
}

#[test]
#[ignore = "the cases are not part of the project: ci/onnx-conformance"]
fn what_passed_once_passes_and_nothing_is_wrong() {
    let cases = PathBuf::from(std::env::var_os("TENSORBUS_ONNX_CASES").expect("the directory with the cases"));
    let mut verdicts = BTreeMap::new();
    for suite in SUITES {
        for case in fs::read_dir(cases.join(suite)).unwrap() {
            let case = case.unwrap();
            let name = format!("{suite}/{}", case.file_name().to_str().unwrap());
            let verdict = match verdict(&case.path()) {
                Verdict::Wrong(difference) if KNOWN_TO_DIFFER.contains(&&name[..]) => Verdict::Differs(difference),
                other => other,
            };
            verdicts.insert(name, verdict);
        }
    }
    let count = |is: fn(&Verdict) -> bool| verdicts.values().filter(|verdict| is(verdict)).count();
    for (name, verdict) in verdicts.iter().filter(|(_, verdict)| **verdict != Verdict::Passed) {
        println!("{name}: {verdict:?}");
    }
    println!(
        "{} cases: {} passed, {} refused, {} of other types, {} failed with an error, {} differ, {} wrong",
        verdicts.len(),
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Refused(_))),
        count(|verdict| matches!(verdict, Verdict::Dtype(_))),
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
        count(|verdict| matches!(verdict, Verdict::Differs(_))),
        count(|verdict| matches!(verdict, Verdict::Wrong(_))),
    );
    let passed: BTreeSet<&str> =
        verdicts.iter().filter(|(_, verdict)| **verdict == Verdict::Passed).map(|(name, _)| &name[..]).collect();
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        let lines: String = passed.iter().map(|name| format!("{name}\n")).collect();
        fs::write(PASSED, lines).unwrap();
    }
    let proved: BTreeSet<String> = passed.iter().flat_map(|case| operators_of(&cases.join(case))).collect();
    let unproved: Vec<_> = operators::OPERATORS.iter().filter(|operator| !proved.contains(**operator)).collect();
    assert!(unproved.is_empty(), "let through, and no case that passes has one: {unproved:?}");
    let list = fs::read_to_string(PASSED).unwrap();
    let listed: BTreeSet<&str> = list.lines().collect();
    let lost: Vec<_> = listed.difference(&passed).collect();
    let new: Vec<_> = passed.difference(&listed).collect();
    let wrong: Vec<_> = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Wrong(_))).collect();
    assert!(lost.is_empty(), "passed once and no more: {lost:?}");
    assert!(wrong.is_empty(), "silently wrong; refuse them or write them in another way: {wrong:#?}");
    assert!(new.is_empty(), "pass now, and are to be in the list (TENSORBUS_WRITE_GOLDEN=1 writes it): {new:?}");
}

fn operators_of(case: &Path) -> Vec<String> {
    fn of(graph: &proto::Graph) -> Vec<String> {
        let within = |node: &proto::Node| -> Vec<String> {
            node.attribute.iter().filter_map(|attribute| attribute.g.as_deref()).flat_map(of).collect()
        };
        graph.node.iter().flat_map(|node| [vec![node.op_type.clone()], within(node)].concat()).collect()
    }
    let model = proto::Model::decode(&fs::read(case.join("model.onnx")).unwrap()[..]).unwrap();
    model.graph.as_ref().map(of).unwrap_or_default()
}

/// Runs a case as it is, and if that passes once more with all inputs but the first one as constants, as weights are.
fn verdict(case: &Path) -> Verdict {
    let path = case.join("model.onnx");
    let sets: Vec<PathBuf> =
        fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    let as_it_is = verdict_of(&path, &sets, usize::MAX);
    if as_it_is != Verdict::Passed {
        return as_it_is;
    }
    for set in &sets {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        if fs::write(&path, with_constants(case, set)).is_ok()
            && let Verdict::Wrong(difference) = verdict_of(&path, std::slice::from_ref(set), 1)
        {
            return Verdict::Wrong(format!("with constants: {difference}"));
        }
    }
    Verdict::Passed
}

/// The model of the case, in which the inputs of the set are weights from the second one on.
fn with_constants(case: &Path, set: &Path) -> Vec<u8> {
    let mut model = proto::Model::decode(&fs::read(case.join("model.onnx")).unwrap()[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let has_value = |name: &str| graph.initializer.iter().any(|tensor| tensor.name.as_deref() == Some(name));
    graph.input.retain(|input| !has_value(&input.name));
    let names: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    for (index, name) in names.into_iter().enumerate().skip(1) {
        let bytes = fs::read(set.join(format!("input_{index}.pb"))).unwrap();
        let tensor = proto::Tensor::decode(&bytes[..]).unwrap();
        graph.initializer.push(proto::Tensor { name: Some(name), ..tensor });
    }
    graph.input.truncate(1);
    model.encode_to_vec()
}

fn verdict_of(path: &Path, sets: &[PathBuf], most_inputs: usize) -> Verdict {
    let directory = tempfile::tempdir().unwrap();
    let cache = ModelCache::at(directory.path());
    let model = match RtenModel::builder().threads(1).cache(cache).load(path) {
        Ok(model) => model,
        Err(error @ RtenLoadError::Dtype { .. }) => return Verdict::Dtype(error.to_string()),
        Err(error) => return Verdict::Refused(error.to_string()),
    };
    for set in sets {
        let tensors = |what: &str, number: usize| -> Vec<Tensor> {
            (0..number).map(|index| Tensor::read(&set.join(format!("{what}_{index}.pb")))).collect()
        };
        let inputs = tensors("input", model.signature().inputs().len().min(most_inputs));
        let expected = tensors("output", model.signature().outputs().len());
        let outputs = expected.iter().map(|_| Output::in_memory()).collect();
        let outcome = match run(&model, inputs.iter().map(Tensor::view).collect(), outputs) {
            Ok(outcome) => outcome,
            // Where the shape had been free nobody would have noticed.
            Err(error @ (InferError::OutputShape { .. } | InferError::OutputDtype { .. })) => {
                return Verdict::Wrong(error.to_string());
            }
            Err(error) => return Verdict::Failed(error.to_string()),
        };
        for (expected, output) in expected.iter().zip(&outcome.outputs) {
            if let Some(difference) = difference(&expected.view(), &output.tensor().unwrap(), TOLERANCE) {
                return Verdict::Wrong(difference.to_string());
            }
        }
    }
    Verdict::Passed
}
