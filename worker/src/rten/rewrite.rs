//! Nodes that say in another way what rten would compute wrongly. They are for rten, which takes the attributes of any version.

use super::check::Ruling;
use crate::onnx::proto::{Attribute, Node};

/// ONNX's numbers of types, as in the attribute `to` of `Cast`.
const FLOAT: i64 = 1;
pub(super) const BOOL: i64 = 9;

/// `AttributeProto.AttributeType`.
const INT: i32 = 2;
const INTS: i32 = 7;
const AN_F32: i32 = 1;

/// Softmax or LogSoftmax before opset 13: of the rows of a matrix, into which the dimensions before `axis` and those from it on
/// are merged. rten computes it along one dimension.
pub(super) fn softmax_of_matrix(node: &Node) -> Ruling {
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").and_then(|axis| axis.i).unwrap_or(1);
    if axis == -1 {
        // The last dimension alone: that is the same.
        return Ruling::Keep;
    }
    let [x, y] = ends(node);
    let [matrix, result, shape] = ["matrix", "result", "shape"].map(|part| within(node, part));
    Ruling::Rewrite(vec![
        new("Flatten", &[x], &matrix, vec![int("axis", axis)]),
        new(&node.op_type, &[&matrix], &result, vec![int("axis", -1)]),
        new("Shape", &[x], &shape, vec![]),
        new("Reshape", &[&result, &shape], y, vec![int("allowzero", 1)]),
    ])
}

/// The place of the largest or smallest, and of several that of the first one, which is what `TopK` gives. rten's own gives the
/// last one; that can be asked for, too.
pub(super) fn arg_extreme(node: &Node) -> Vec<Node> {
    const LAST: &str = "select_last_index";
    let number = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).and_then(|a| a.i);
    if number(LAST).unwrap_or(0) != 0 {
        let mut last = node.clone();
        last.attribute.retain(|attribute| attribute.name != LAST);
        return vec![last];
    }
    let [x, y] = ends(node);
    let [one, value, place] = ["one", "value", "place"].map(|part| within(node, part));
    let axis = number("axis").unwrap_or(0);
    let keeps = number("keepdims").unwrap_or(1) != 0;
    let largest = i64::from(node.op_type == "ArgMax");
    let mut top = new("TopK", &[x, &one], &value, vec![int("axis", axis), int("largest", largest)]);
    top.output.push(if keeps { y.to_owned() } else { place.clone() });
    let one = Node { attribute: vec![ints("value_ints", vec![1])], ..new("Constant", &[], &one, vec![]) };
    let squeeze = (!keeps).then(|| new("Squeeze", &[&place], y, vec![ints("axes", vec![axis])]));
    [one, top].into_iter().chain(squeeze).collect()
}

/// What is divided by its length; rten leaves what has none as it is, in place of no number.
pub(super) fn normalization(node: &Node) -> Ruling {
    let number = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).and_then(|a| a.i);
    let length_operator = match number("p").unwrap_or(2) {
        1 => "ReduceL1",
        2 => "ReduceL2",
        _ => return Ruling::Keep,
    };
    let [x, y] = ends(node);
    let length = within(node, "length");
    let axes = ints("axes", vec![number("axis").unwrap_or(-1)]);
    Ruling::Rewrite(vec![new(length_operator, &[x], &length, vec![axes]), new("Div", &[x, &length], y, vec![])])
}

/// 0 for 0, for which rten gives 1.
pub(super) fn sign(node: &Node) -> Vec<Node> {
    let [x, y] = ends(node);
    let [zero, is_zero, sign] = ["zero", "is-zero", "sign"].map(|part| within(node, part));
    vec![
        new("Sub", &[x, x], &zero, vec![]),
        new("Equal", &[x, &zero], &is_zero, vec![]),
        new("Sign", &[x], &sign, vec![]),
        new("Where", &[&is_zero, &zero, &sign], y, vec![]),
    ]
}

/// Whether a number is not 0. rten has no truth values, and would make whole numbers of them: false of 0.5, 5 of 5.
pub(super) fn truth(node: &Node) -> Vec<Node> {
    let [x, y] = ends(node);
    let [number, zero, is_zero] = ["number", "zero", "is-zero"].map(|part| within(node, part));
    let value =
        Attribute { name: "value_float".to_owned(), f: Some(0.0), r#type: Some(AN_F32), ..Attribute::default() };
    vec![
        new("Cast", &[x], &number, vec![int("to", FLOAT)]),
        new("Constant", &[], &zero, vec![value]),
        new("Equal", &[&number, &zero], &is_zero, vec![]),
        new("Not", &[&is_zero], y, vec![]),
    ]
}

/// As a matrix of one column: with leading dimensions, rten leaves that dimension in the result.
pub(super) fn times_vector(node: &Node) -> Vec<Node> {
    let [a, y] = ends(node);
    let [column, product] = ["column", "product"].map(|part| within(node, part));
    vec![
        new("Unsqueeze", &[&node.input[1]], &column, vec![ints("axes", vec![-1])]),
        new("MatMul", &[a, &column], &product, vec![]),
        new("Squeeze", &[&product], y, vec![ints("axes", vec![-1])]),
    ]
}

/// With the strides that a pool has if it does not say any.
pub(super) fn with_strides(node: &Node) -> Ruling {
    let kernel = node.attribute.iter().find(|attribute| attribute.name == "kernel_shape");
    let Some(kernel) = kernel else { return Ruling::Keep };
    let mut node = node.clone();
    node.attribute.push(ints("strides", vec![1; kernel.ints.len()]));
    Ruling::Rewrite(vec![node])
}

/// With the dimension to which the scales belong if the node does not say: the second one. rten takes the last.
pub(super) fn with_axis(node: &Node) -> Vec<Node> {
    let mut node = node.clone();
    node.attribute.push(int("axis", 1));
    vec![node]
}

/// The first input and the first output. An operator that is here has both; without, the backend refuses the graph.
fn ends(node: &Node) -> [&str; 2] {
    [&node.input, &node.output].map(|names| names.first().map_or("", String::as_str))
}

/// A name for a value within the node: that of its output, which no other node has, and the part.
fn within(node: &Node, part: &str) -> String {
    let [_, y] = ends(node);
    format!("tensorbus:{y}/{part}")
}

fn new(operator: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        op_type: operator.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(format!("{output}/{operator}")),
        attribute,
        ..Node::default()
    }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: Some(value), r#type: Some(INT), ..Attribute::default() }
}

fn ints(name: &str, values: Vec<i64>) -> Attribute {
    Attribute { name: name.to_owned(), ints: values, r#type: Some(INTS), ..Attribute::default() }
}
