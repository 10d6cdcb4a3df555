//! What rten has not, or would compute wrongly, is refused when a model is loaded, and named.

use tensorbus_worker::{RtenLoadError, SignatureError};

use crate::onnx::{Attribute, Graph, Node, Onnx, floats, graph, int, node, numbers, text};

fn refused(model: &Onnx) -> RtenLoadError {
    let refused = model.load().unwrap_err();
    assert!(!refused.to_string().is_empty());
    refused
}

#[test]
fn an_operator_that_is_not_there_is_named_with_its_node() {
    let mut model = Onnx::one(13, "Hardmax", vec![int("axis", 1)]);
    model.nodes[0].name = Some("last".to_owned());
    let text = "operator Hardmax of ai.onnx (opset 13), used by node last, is not there in rten; use another backend, or \
                export the model without it";
    assert_eq!(refused(&model).to_string(), text);
    // Without a name it is known by what it makes; and one in a branch is found, too.
    let branch = |operator: &str| Graph {
        node: vec![Node { domain: Some("com.example".to_owned()), ..node(operator, &["x"], "inner", vec![]) }],
        name: Some("branch".to_owned()),
        ..Graph::default()
    };
    let branches = vec![graph("then_branch", branch("Own")), graph("else_branch", branch("Own"))];
    let model = Onnx { nodes: vec![node("If", &["x"], "y", branches)], ..Onnx::one(13, "If", vec![]) };
    let RtenLoadError::NoOperator { operator, domain, opset, node } = refused(&model) else { panic!("another error") };
    assert_eq!((&operator[..], &domain[..], opset, &node[..]), ("Own", "com.example", 0, "inner"));
}

/// Each form that is refused, and a word of the reason.
#[test]
fn forms_that_would_be_wrong_are_refused() {
    let of = |opset, operator: &str, attributes: Vec<Attribute>| Onnx::one(opset, operator, attributes);
    let two = |operator: &str, constants: Vec<crate::onnx::Tensor>, attributes: Vec<Attribute>| {
        let names: Vec<String> = constants.iter().filter_map(|constant| constant.name.clone()).collect();
        let inputs: Vec<&str> = std::iter::once("x").chain(names.iter().map(String::as_str)).collect();
        Onnx { nodes: vec![node(operator, &inputs, "y", attributes)], constants, ..Onnx::one(13, operator, vec![]) }
    };
    let scales = |scale: f32| vec![floats("roi", &[0], &[]), floats("scales", &[2], &[1.0, scale])];
    let corners = || vec![text("coordinate_transformation_mode", "align_corners")];
    let outputs = |mut model: Onnx, count: usize| {
        model.nodes[0].output.extend((1..count).map(|index| format!("more{index}")));
        model
    };
    let cases = [
        (of(26, "Relu", vec![]), "opset"),
        (of(5, "Relu", vec![]), "opset"),
        (of(13, "MaxPool", vec![text("auto_pad", "SAME_LOWER")]), "SAME_LOWER"),
        (outputs(of(13, "MaxPool", vec![int("strides", 1)]), 2), "Indices"),
        (outputs(of(17, "LayerNormalization", vec![]), 2), "Mean"),
        (of(14, "GRU", vec![]), "linear_before_reset"),
        (Onnx { nodes: vec![node("LSTM", &["x", "w", "r", "", "l"], "y", vec![])], ..of(14, "LSTM", vec![]) }, "lens"),
        (of(11, "NonMaxSuppression", vec![]), "max_output_boxes_per_class"),
        (of(6, "PRelu", vec![]), "slope"),
        (of(13, "Resize", vec![text("mode", "cubic")]), "cubic"),
        (two("Resize", scales(1.5), corners()), "align_corners"),
        (two("CastLike", vec![], vec![]), "type"),
        (two("SequenceInsert", vec![floats("a", &[1], &[0.0]), numbers("at", &[-1])], vec![]), "position"),
        (of(18, "ReduceMean", vec![int("noop_with_empty_axes", 1)]), "noop"),
        (two("MatMulInteger", vec![floats("w", &[3], &[0.0; 3])], vec![]), "vector"),
    ];
    for (model, word) in cases {
        let error = refused(&model);
        let RtenLoadError::Refused { reason, .. } = &error else { panic!("{word}: {error}") };
        assert!(reason.contains(word), "{error}");
    }
    assert!(two("Resize", scales(2.0), corners()).load().is_ok(), "whole numbers are right");
}

#[test]
fn what_is_no_model_for_rten_is_an_error() {
    // It has no such attribute.
    let error = refused(&Onnx::one(13, "Relu", vec![int("nonsense", 1)]));
    assert!(matches!(&error, RtenLoadError::Backend { reason, .. } if reason.contains("nonsense")), "{error}");
    // A value that nobody makes.
    let error =
        refused(&Onnx { nodes: vec![node("Add", &["x", "none"], "y", vec![])], ..Onnx::one(13, "Add", vec![]) });
    assert!(matches!(&error, RtenLoadError::Backend { reason, .. } if reason.contains("none")), "{error}");
    let fixed = Onnx { x: vec![3, -1], ..Onnx::one(13, "Relu", vec![]) };
    let error = fixed.load_as(|builder| builder.batched()).unwrap_err();
    assert!(matches!(error, RtenLoadError::Signature(SignatureError::NotBatchable { .. })), "{error}");
}
