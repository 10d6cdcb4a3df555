//! What rten would compute wrongly, and can be said in another way: the answers are those of the standard. `ci/onnx-conformance` has
//! many more cases; these need nothing from elsewhere.

use tensorbus_transport::{Element, TensorView};
use tensorbus_worker::{Output, run};

use crate::onnx::{Attribute, BOOL, F32, I64, Onnx, floats, int, node};

/// What the model gives for a matrix, with its shape.
fn answer<T: Element>(model: &Onnx, x: &[f32], shape: &[usize]) -> (Vec<usize>, Vec<T>) {
    let model = model.load().unwrap();
    let strides = tensorbus_transport::layout::row_major_strides(shape).unwrap();
    let x = TensorView::new(x, shape, &strides).unwrap();
    let outcome = run(&model, vec![x], vec![Output::in_memory()]).unwrap();
    let y = outcome.outputs[0].tensor().unwrap();
    (y.layout().shape.clone(), y.view::<T>().unwrap().to_vec())
}

fn floats_of(model: &Onnx, x: &[f32], shape: &[usize]) -> Vec<f32> {
    answer(model, x, shape).1
}

fn is_close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
}

fn softmax(numbers: &[f32]) -> Vec<f32> {
    let sum: f32 = numbers.iter().map(|number| number.exp()).sum();
    numbers.iter().map(|number| number.exp() / sum).collect()
}

/// Before opset 13 the dimensions from `axis` on are one, and the default is 1; rten computes along the last one whatever the
/// opset.
#[test]
fn softmax_is_that_of_its_opset() {
    let x: Vec<f32> = (0..24).map(|index| (index * 7 % 11) as f32 / 4.0).collect();
    let model = |opset, attributes: Vec<Attribute>| Onnx { x: vec![-1; 3], ..Onnx::one(opset, "Softmax", attributes) };
    let by = |count: usize| x.chunks(count).flat_map(softmax).collect::<Vec<f32>>();
    let of = |opset, attributes| floats_of(&model(opset, attributes), &x, &[2, 3, 4]);
    assert!(is_close(&of(11, vec![]), &by(12)), "two rows of 12");
    assert!(is_close(&of(12, vec![int("axis", 0)]), &by(24)));
    assert!(is_close(&of(7, vec![int("axis", 2)]), &by(4)));
    assert!(is_close(&of(11, vec![int("axis", -1)]), &by(4)));
    assert!(is_close(&of(11, vec![int("axis", -2)]), &by(12)));
    assert!(is_close(&of(13, vec![]), &by(4)), "from 13 on it is the last dimension");
    let log = Onnx { x: vec![-1; 3], ..Onnx::one(9, "LogSoftmax", vec![]) };
    let logarithms: Vec<f32> = by(12).iter().map(|number| number.ln()).collect();
    assert!(is_close(&floats_of(&log, &x, &[2, 3, 4]), &logarithms));
}

#[test]
fn truth_values_are_true_for_all_but_zero() {
    let model = Onnx {
        nodes: vec![
            node("Cast", &["x"], "flags", vec![int("to", i64::from(BOOL))]),
            node("Cast", &["flags"], "y", vec![int("to", i64::from(F32))]),
        ],
        ..Onnx::one(13, "Cast", vec![])
    };
    let x = [0.0, -0.0, 0.5, -3.0, f32::NAN, f32::INFINITY];
    assert_eq!(floats_of(&model, &x, &[1, 6]), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn of_equal_extremes_the_first_one_is_taken() {
    let of = |operator: &str, attributes: Vec<Attribute>| {
        let model = Onnx { types: [F32, I64], ..Onnx::one(13, operator, attributes) };
        answer::<i64>(&model, &[2.0, 7.0, 7.0, 0.0, 1.0, 0.0], &[2, 3])
    };
    assert_eq!(of("ArgMax", vec![int("axis", 1)]), (vec![2, 1], vec![1, 1]));
    assert_eq!(of("ArgMin", vec![int("axis", -1), int("keepdims", 0)]), (vec![2], vec![0, 0]));
    assert_eq!(of("ArgMin", vec![int("axis", 1), int("select_last_index", 1)]), (vec![2, 1], vec![0, 2]));
    assert_eq!(of("ArgMax", vec![]), (vec![1, 3], vec![0, 0, 0]));
}

#[test]
fn signs_lengths_strides_and_vectors() {
    let sign = Onnx::one(13, "Sign", vec![]);
    assert_eq!(floats_of(&sign, &[-2.0, 0.0, -0.0, 3.0, f32::INFINITY], &[1, 5]), [-1.0, 0.0, 0.0, 1.0, 1.0]);
    let length = Onnx::one(13, "LpNormalization", vec![]);
    let normalised = floats_of(&length, &[3.0, 4.0, 0.0, 0.0], &[2, 2]);
    assert!(is_close(&normalised[..2], &[0.6, 0.8]) && normalised[2..].iter().all(|number| number.is_nan()));

    let kernel = Attribute { name: "kernel_shape".into(), ints: vec![2, 2], r#type: Some(7), ..Attribute::default() };
    let pool = Onnx { x: vec![1, 1, -1, -1], ..Onnx::one(13, "MaxPool", vec![kernel]) };
    let x: Vec<f32> = (0..9).map(|index| index as f32).collect();
    assert_eq!(answer::<f32>(&pool, &x, &[1, 1, 3, 3]), (vec![1, 1, 2, 2], vec![4.0, 5.0, 7.0, 8.0]));

    let product = Onnx {
        nodes: vec![node("MatMul", &["x", "v"], "y", vec![])],
        constants: vec![floats("v", &[2], &[1.0, 10.0])],
        x: vec![-1; 4],
        ..Onnx::one(13, "MatMul", vec![])
    };
    let x: Vec<f32> = (0..8).map(|index| index as f32).collect();
    assert_eq!(answer::<f32>(&product, &x, &[1, 2, 2, 2]), (vec![1, 2, 2], vec![10.0, 32.0, 54.0, 76.0]));
}
