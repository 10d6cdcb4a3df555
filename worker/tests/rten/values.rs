//! Types, shapes and weights.

use tensorbus_registry::ModelCache;
use tensorbus_transport::{Dtype, TensorView};
use tensorbus_worker::{InferError, Model, Output, RtenLoadError, RtenModel, run};

use crate::onnx::{Attribute, BOOL, F32, F64, I64, Onnx, floats, int, node, numbers};

fn identity(dtype: i32) -> Onnx {
    Onnx { types: [dtype, dtype], x: vec![-1, 3], ..Onnx::one(17, "Identity", vec![]) }
}

#[test]
fn what_rten_has_not_is_converted_and_counted() {
    let model = identity(I64).load().unwrap();
    let numbers = [1_i64, -2, i64::from(i32::MAX)];
    let x = TensorView::new(&numbers, &[1, 3], &[3, 1]).unwrap();
    let outcome = run(&model, vec![x], vec![Output::in_memory()]).unwrap();
    assert_eq!(outcome.outputs[0].tensor().unwrap().view::<i64>().unwrap(), numbers);
    assert_eq!(outcome.copied_bytes, 2 * 24);
    let wide = [1_i64, 1 << 40, 3];
    let x = TensorView::new(&wide, &[1, 3], &[3, 1]).unwrap();
    let refused = run(&model, vec![x], vec![Output::in_memory()]).unwrap_err();
    assert!(
        matches!(&refused, InferError::InputValue { index: 1, value, .. } if value == "1099511627776"),
        "{refused}"
    );

    let model = identity(BOOL).load().unwrap();
    let flags = [true, false, true];
    let x = TensorView::of_bools(&flags, &[1, 3], &[3, 1]).unwrap();
    let outcome = run(&model, vec![x], vec![Output::in_memory()]).unwrap();
    assert_eq!(outcome.outputs[0].tensor().unwrap().view_bool().unwrap(), flags);
    assert_eq!(outcome.copied_bytes, 2 * 3);
    let two = TensorView::from_bytes(Dtype::BOOL, &[1, 2, 0], &[1, 3], &[3, 1]).unwrap();
    let refused = run(&model, vec![two], vec![Output::in_memory()]).unwrap_err();
    assert!(refused.to_string().contains("neither 0 nor 1"), "{refused}");
}

#[test]
fn types_that_would_lose_something_are_refused() {
    let refused = identity(F64).load().unwrap_err();
    assert!(matches!(&refused, RtenLoadError::Dtype { what: "input", found, .. } if found == "f64"), "{refused}");
    let text = identity(8).load().unwrap_err();
    assert!(matches!(&text, RtenLoadError::Dtype { found, .. } if found == "string"), "{text}");
    // Wide numbers are cut off where they say how far a slice goes, and nowhere else.
    let model = Onnx {
        nodes: vec![node("Slice", &["x", "from", "to", "axis"], "y", vec![])],
        constants: vec![numbers("from", &[1]), numbers("to", &[i64::MAX]), numbers("axis", &[0])],
        ..Onnx::one(13, "Slice", vec![])
    };
    let model = model.load().unwrap();
    let x = TensorView::new(&[1_f32, 2.0, 3.0], &[3, 1], &[1, 1]).unwrap();
    let outcome = run(&model, vec![x], vec![Output::in_memory()]).unwrap();
    assert_eq!(outcome.outputs[0].tensor().unwrap().view::<f32>().unwrap(), [2.0, 3.0]);
    let wide = Onnx {
        nodes: vec![node("Add", &["x", "wide"], "y", vec![])],
        constants: vec![numbers("wide", &[1 << 33])],
        types: [I64, I64],
        ..Onnx::one(13, "Add", vec![])
    };
    let refused = wide.load().unwrap_err();
    assert!(matches!(&refused, RtenLoadError::WideConstant { constant } if constant == "wide"), "{refused}");
    let filled = Attribute { name: "value".to_owned(), t: Some(numbers("", &[1 << 33])), ..Attribute::default() };
    let nodes = vec![node("ConstantOfShape", &["x"], "y", vec![filled])];
    let refused = Onnx { nodes, types: [I64, I64], x: vec![-1], ..Onnx::one(13, "Add", vec![]) }.load().unwrap_err();
    assert!(matches!(&refused, RtenLoadError::WideConstant { constant } if constant == "y"), "{refused}");
    // One that is so long that it lies beside the graph.
    let long = Onnx { constants: vec![numbers("wide", &[1 << 33; 200])], ..wide };
    let refused = long.load().unwrap_err();
    assert!(matches!(&refused, RtenLoadError::WideConstant { .. }), "{refused}");
}

#[test]
fn inputs_of_another_kind_are_told_so() {
    let model = identity(F32).load().unwrap();
    let of = |x| run(&model, vec![x], vec![Output::in_memory()]).unwrap_err();
    let whole = TensorView::new(&[1_i32, 2, 3], &[1, 3], &[3, 1]).unwrap();
    assert!(matches!(of(whole), InferError::InputDtype { found: Dtype::I32, expected: Dtype::F32, .. }));
    let values = [0_f32; 12];
    assert!(matches!(of(TensorView::new(&values, &[3, 4], &[4, 1]).unwrap()), InferError::InputShape { .. }));
    assert!(matches!(of(TensorView::new(&values, &[4, 3], &[1, 4]).unwrap()), InferError::InputOrder { .. }));
    assert!(matches!(run(&model, vec![], vec![]), Err(InferError::Count { what: "input", found: 0, expected: 1, .. })));
}

/// A graph that is written in another way maps its weights as any other: from the cache, which processes share (SC-001).
#[test]
fn a_rewritten_graph_has_its_weights_mapped() {
    const N: usize = 64;
    let weights: Vec<f32> = (0..N * N).map(|index| if index / N == index % N { 2.0 } else { 0.0 }).collect();
    let model = Onnx {
        nodes: vec![node("MatMul", &["x", "w"], "z", vec![]), node("Sign", &["z"], "y", vec![])],
        constants: vec![floats("w", &[N as i64, N as i64], &weights)],
        x: vec![-1, N as i64],
        ..Onnx::one(13, "Sign", vec![])
    };
    let (directory, path) = model.write();
    let cache = directory.path().join("cache");
    let model = RtenModel::builder().threads(1).cache(ModelCache::at(&cache)).load(path).unwrap();
    assert_eq!(model.weight_bytes(), (N * N * 4) as u64);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = |line: &&str| line.contains(cache.to_str().unwrap()) && line.ends_with("model.onnx.data");
    assert_eq!(maps.lines().filter(mapped).count(), 1, "{maps}");
    let x: Vec<f32> = (0..N).map(|index| index as f32 - 1.0).collect();
    let outcome =
        run(&model, vec![TensorView::new(&x, &[1, N], &[N as isize, 1]).unwrap()], vec![Output::in_memory()]).unwrap();
    let y = outcome.outputs[0].tensor().unwrap();
    assert_eq!(y.view::<f32>().unwrap()[..4], [-1.0, 0.0, 1.0, 1.0]);
    drop(outcome);
    drop(model);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert_eq!(maps.lines().filter(mapped).count(), 0, "unloaded");
}

#[test]
fn free_dimensions_and_room() {
    let model = Onnx { x: vec![-1, -1], ..Onnx::one(13, "Flatten", vec![int("axis", 0)]) }.load().unwrap();
    assert!(model.signature().outputs()[0].dims.is_none());
    let x = [1_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let view = TensorView::new(&x, &[2, 3], &[3, 1]).unwrap();
    let mut room = [0_f32; 8];
    let outcome = run(&model, vec![view.clone()], vec![Output::in_place(bytemuck::cast_slice_mut(&mut room))]).unwrap();
    let y = outcome.outputs[0].tensor().unwrap();
    assert_eq!((&y.layout().shape[..], y.view::<f32>().unwrap()), (&[1, 6][..], &x[..]));
    drop(outcome);
    assert_eq!(room, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
    let mut small = [0_u8; 20];
    let refused = run(&model, vec![view], vec![Output::in_place(&mut small)]).unwrap_err();
    assert!(matches!(refused, InferError::NoRoom { needed: 24, room: 20, .. }), "{refused}");
}
