//! FR-004: what a model may rely on, and what whoever asks it may: everything is checked that goes in and comes out.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::sync::atomic::{AtomicBool, Ordering};

use tensorbus_registry::BoxError;
use tensorbus_transport::{Dtype, TensorView};
use tensorbus_worker::{
    Call, FunctionModel, Golden, GoldenError, InferError, Model, Output, Signature, TensorInfo, probe, run,
};

/// Rows of two numbers to their sums, and how many there are.
fn signature() -> Signature {
    let inputs = vec![TensorInfo::new("x", Dtype::F32, &[-1, 2]), TensorInfo::new("scale", Dtype::F32, &[-1])];
    Signature::new(inputs, vec![TensorInfo::new("sum", Dtype::F32, &[-1])]).unwrap().batched().unwrap()
}

fn sums(call: &mut Call<'_>) -> Result<(), BoxError> {
    let (x, scale) = (call.input(0).view::<f32>()?, call.input(1).view::<f32>()?);
    let rows = call.rows();
    let sums = call.output::<f32>(0, &[rows])?;
    for (sum, (row, scale)) in sums.iter_mut().zip(x.chunks_exact(2).zip(scale)) {
        *sum = row.iter().sum::<f32>() * scale;
    }
    Ok(())
}

const X: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const SCALE: [f32; 3] = [1.0, 10.0, 100.0];

fn inputs<'a>() -> Vec<TensorView<'a>> {
    vec![TensorView::new(&X, &[3, 2], &[2, 1]).unwrap(), TensorView::new(&SCALE, &[3], &[1]).unwrap()]
}

#[test]
fn a_function_is_a_model_that_writes_in_place() {
    let model = FunctionModel::new(signature(), sums);
    assert!(!model.is_idempotent());
    let mut room = [0_f32; 4];
    let outcome = run(&model, inputs(), vec![Output::in_place(bytemuck::cast_slice_mut(&mut room))]).unwrap();
    assert_eq!(outcome.copied_bytes, 0);
    assert_eq!(outcome.outputs[0].tensor().unwrap().view::<f32>().unwrap(), [3.0, 70.0, 1100.0]);
    drop(outcome);
    assert_eq!(room, [3.0, 70.0, 1100.0, 0.0]);
    let model = FunctionModel::new(signature(), sums).idempotent();
    assert!(model.is_idempotent());
    assert_eq!(probe(&model, &[vec![5, 2], vec![5]]).unwrap(), [[5]]);
    // A batch without a row is one.
    assert_eq!(probe(&model, &[vec![0, 2], vec![0]]).unwrap(), [[0]]);
}

#[test]
fn inputs_are_checked_before_the_model_sees_them() {
    let called = std::sync::Arc::new(AtomicBool::new(false));
    let seen = called.clone();
    let model = FunctionModel::new(signature(), move |_| {
        seen.store(true, Ordering::Relaxed);
        Ok(())
    });
    let refused = |inputs: Vec<TensorView<'_>>| run(&model, inputs, vec![Output::in_memory()]).map(|_| ()).unwrap_err();
    let [x, scale] = <[TensorView<'_>; 2]>::try_from(inputs()).unwrap();
    assert!(matches!(refused(vec![x.clone()]), InferError::Count { found: 1, expected: 2, .. }));
    let whole = TensorView::new(&[1_i32, 2, 3], &[3], &[1]).unwrap();
    assert!(matches!(refused(vec![x.clone(), whole]), InferError::InputDtype { found: Dtype::I32, .. }));
    let flat = TensorView::new(&X, &[6], &[1]).unwrap();
    assert!(matches!(refused(vec![flat, scale.clone()]), InferError::InputShape { .. }));
    let turned = TensorView::new(&X, &[3, 2], &[1, 3]).unwrap();
    assert!(matches!(refused(vec![turned, scale]), InferError::InputOrder { .. }));
    let short = TensorView::new(&SCALE, &[2], &[1]).unwrap();
    assert!(matches!(refused(vec![x, short]), InferError::InputRows { found: 2, expected: 3, .. }));
    assert!(!called.load(Ordering::Relaxed));
    assert!(matches!(run(&model, inputs(), vec![]), Err(InferError::Count { what: "output", .. })));
}

#[test]
fn outputs_are_checked_before_anybody_else_sees_them() {
    type Body = fn(&mut Call<'_>) -> Result<(), BoxError>;
    let of = |body: Body, room: &mut [u8]| {
        let model = FunctionModel::new(signature(), body);
        run(&model, inputs(), vec![Output::in_place(room)]).map(|_| ()).unwrap_err()
    };
    let mut room = vec![0; 64];
    assert!(matches!(of(|_| Ok(()), &mut room), InferError::NotWritten { output } if output == "sum"));
    let wrong_rows: Body = |call| call.output::<f32>(0, &[2]).map(|_| ()).map_err(Into::into);
    assert!(matches!(of(wrong_rows, &mut room), InferError::OutputShape { found, .. } if found == [2]));
    let wrong_type: Body = |call| call.output::<f64>(0, &[3]).map(|_| ()).map_err(Into::into);
    assert!(matches!(of(wrong_type, &mut room), InferError::OutputDtype { found: Dtype::F64, .. }));
    assert!(matches!(of(sums, &mut room[..11]), InferError::NoRoom { needed: 12, room: 11, .. }));
    let mut aligned = [0_u32; 8];
    let shifted = &mut bytemuck::cast_slice_mut(&mut aligned)[1..];
    assert!(matches!(of(sums, shifted), InferError::Misaligned { .. }));
    assert!(
        matches!(of(|_| Err("no luck".into()), &mut room), InferError::Failed(reason) if reason.to_string() == "no luck")
    );
    assert!(matches!(of(|_| panic!("oh {}", "no"), &mut room), InferError::Panicked { message } if message == "oh no"));
    let no_such_input: Body = |call| call.input(7).view::<f32>().map(|_| ()).map_err(Into::into);
    assert!(matches!(of(no_such_input, &mut room), InferError::Panicked { .. }));
}

/// A safetensors file of f32, by name, shape and values.
fn golden(tensors: &[(&str, &[usize], &[f32])]) -> (tempfile::TempDir, Golden) {
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}},"#, data.len());
        header.push_str(&entry);
    }
    let mut header = format!("{{{}}}", header.trim_end_matches(','));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("golden.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
    let golden = Golden::open(&path).unwrap();
    (directory, golden)
}

#[test]
fn a_model_that_computes_something_else_is_found() {
    let model = FunctionModel::new(signature(), sums);
    let given: [(&str, &[usize], &[f32]); 2] = [("input.x", &[3, 2], &X), ("input.scale", &[3], &SCALE)];
    let check = |tensors: &[(&str, &[usize], &[f32])]| golden(tensors).1.check(&model, 1e-3);
    let with = |expected: [f32; 3]| check(&[given[0], given[1], ("output.sum", &[3], &expected)]);
    with([3.0, 70.05, 1100.0]).unwrap();
    let wrong = with([3.0, 71.0, 1100.0]).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        r#"output "sum" is wrong: element 1 is 70 in place of 71; the model is not to be used"#
    );
    assert!(matches!(check(&[given[0]]), Err(GoldenError::NoInput { expected, .. }) if expected == "input.scale"));
    assert!(matches!(check(&given), Err(GoldenError::NothingToCompare)));
    let strange = check(&[given[0], given[1], ("output.other", &[1], &[0.0])]);
    assert!(matches!(strange, Err(GoldenError::Unknown { name, .. }) if name == "output.other"));
    let rows = check(&[given[0], ("input.scale", &[2], &[1.0, 1.0]), ("output.sum", &[1], &[0.0])]);
    assert!(matches!(rows, Err(GoldenError::Infer(InferError::InputRows { .. }))));
}
