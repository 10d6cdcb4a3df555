//! Looks at every node of a graph: an operator that is not there, or that rten would compute wrongly, is refused, and what can
//! be said in another way is written so. What is refused and why: `docs/workers.md`.

use super::error::RtenLoadError;
use super::known::Known;
use super::operators::{OPERATORS, OPSETS};
use super::rewrite;
use crate::onnx::proto::{Graph, Model, Node};
use crate::onnx::{opset, standard};

/// What is to become of a node.
pub(super) enum Ruling {
    Keep,
    Rewrite(Vec<Node>),
    Refuse(&'static str),
}

/// Checks a model, whose weights lie in `data`, and says whether it has been changed.
pub(super) fn check(model: &mut Model, data: &[u8]) -> Result<bool, RtenLoadError> {
    let opsets = model.opset_import.clone();
    let version = opset(model, "").unwrap_or(0);
    let of_domain = move |domain: &str| match standard(Some(domain)) {
        "ai.onnx" => version,
        other => {
            opsets.iter().find(|opset| opset.domain.as_deref() == Some(other)).and_then(|o| o.version).unwrap_or(0)
        }
    };
    model.graph.as_mut().map_or(Ok(false), |graph| check_graph(graph, data, &of_domain))
}

fn check_graph(graph: &mut Graph, data: &[u8], opset: &dyn Fn(&str) -> i64) -> Result<bool, RtenLoadError> {
    let mut changed = false;
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for inner in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            changed |= check_graph(inner, data, opset)?;
        }
    }
    let known = Known::of(graph, data);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let version = opset(node.domain.as_deref().unwrap_or_default());
        match rule(node, version, &known) {
            None => return Err(no_operator(node, version)),
            Some(Ruling::Refuse(reason)) => return Err(refused(node, version, reason)),
            Some(Ruling::Keep) => nodes.push(node.clone()),
            Some(Ruling::Rewrite(in_place)) => {
                changed = true;
                nodes.extend(in_place);
            }
        }
    }
    if let Some(reason) = known.wide_constant(graph) {
        return Err(reason);
    }
    graph.node = nodes;
    Ok(changed)
}

/// What becomes of a node; `None` if its operator is not there.
fn rule(node: &Node, opset: i64, known: &Known<'_>) -> Option<Ruling> {
    use Ruling::{Keep, Refuse};
    let op = node.op_type.as_str();
    if op == "NonMaxSuppression" {
        return Some(Refuse(
            "max_output_boxes_per_class would count boxes of all classes, and flipped boxes would be taken as they are",
        ));
    }
    if standard(node.domain.as_deref()) != "ai.onnx" || OPERATORS.binary_search(&op).is_err() {
        return None;
    }
    if !OPSETS.contains(&opset) {
        return Some(Refuse("only operators of opset 6 to 25 have been checked; convert the model to one of those"));
    }
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let text = |name: &str| attribute(name).and_then(|attribute| attribute.s.as_deref());
    let number = |name: &str| attribute(name).and_then(|attribute| attribute.i);
    let has_output = |index: usize| node.output.get(index).is_some_and(|output| !output.is_empty());
    let has_input = |index: usize| node.input.get(index).is_some_and(|input| !input.is_empty());
    if text("auto_pad") == Some(b"SAME_LOWER") {
        return Some(Refuse("auto_pad SAME_LOWER would be computed as SAME_UPPER"));
    }
    Some(match op {
        "ArgMax" | "ArgMin" => Ruling::Rewrite(rewrite::arg_extreme(node)),
        "Attention" if has_output(3) => Refuse("its output qk_matmul_output is not there"),
        "AveragePool" | "MaxPool" if attribute("strides").is_none() => rewrite::with_strides(node),
        "MaxPool" if has_output(1) => Refuse("its output Indices is not there"),
        "Cast" if number("to") == Some(rewrite::BOOL) => Ruling::Rewrite(rewrite::truth(node)),
        "CastLike" => match node.input.get(1).and_then(|like| known.data_type(like)) {
            None => {
                Refuse("the type that it casts to is not declared, and if it is bool numbers would stay what they are")
            }
            Some(dtype) if i64::from(dtype) == rewrite::BOOL => Ruling::Rewrite(rewrite::truth(node)),
            Some(_) => Keep,
        },
        "Dropout" if has_input(2) && !known.is_false(&node.input[2]) => {
            Refuse("in training mode it draws random numbers, and whether it is in that is not a constant false")
        }
        "GRU" if number("linear_before_reset").unwrap_or(0) == 0 => {
            Refuse("it is there with linear_before_reset 1 only")
        }
        "GRU" | "LSTM" if has_input(4) => Refuse("its input sequence_lens would not be looked at"),
        "LayerNormalization" if has_output(1) => Refuse("its outputs Mean and InvStdDev are not there"),
        "LogSoftmax" | "Softmax" if opset < 13 => rewrite::softmax_of_matrix(node),
        "LpNormalization" => rewrite::normalization(node),
        "MatMul" | "MatMulInteger" => match node.input.get(1).and_then(|input| known.rank(input)) {
            Some(1) if op == "MatMul" => Ruling::Rewrite(rewrite::times_vector(node)),
            Some(1) => Refuse("a matrix with leading dimensions times a vector would get a dimension too much"),
            _ => Keep,
        },
        "PRelu" if opset < 7 => {
            Refuse("before opset 7 a slope belongs to channels, and would be taken for the last dimension")
        }
        "Pad" if has_input(3) => Refuse("its input axes is not there"),
        "QuantizeLinear" if attribute("axis").is_none() && has_input(1) && known.rank(&node.input[1]) != Some(0) => {
            Ruling::Rewrite(rewrite::with_axis(node))
        }
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMean" | "ReduceSumSquare"
            if number("noop_with_empty_axes").unwrap_or(0) != 0 =>
        {
            Refuse("with noop_with_empty_axes it would do too much or too little")
        }
        "Resize" => match (text("mode"), text("coordinate_transformation_mode")) {
            (Some(b"cubic"), _) => Refuse("mode cubic would be computed as linear"),
            (_, Some(b"align_corners")) if has_input(2) && !known.are_whole(&node.input[2]) => Refuse(
                "align_corners with scales that are not whole numbers would take sizes for the scales; give sizes",
            ),
            _ => Keep,
        },
        "SequenceInsert" if has_input(2) && !known.is_not_negative(&node.input[2]) => Refuse(
            "its position is no constant from 0 on, and one that counts from the back would be taken for the next one",
        ),
        "Sign" => Ruling::Rewrite(rewrite::sign(node)),
        _ => Keep,
    })
}

fn describe(node: &Node) -> (String, String, String) {
    let output = || node.output.first().cloned().unwrap_or_default();
    let name = node.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(output);
    (node.op_type.clone(), standard(node.domain.as_deref()).to_owned(), name)
}

fn no_operator(node: &Node, opset: i64) -> RtenLoadError {
    let (operator, domain, node) = describe(node);
    RtenLoadError::NoOperator { operator, domain, opset, node }
}

fn refused(node: &Node, opset: i64, reason: &'static str) -> RtenLoadError {
    let (operator, domain, node) = describe(node);
    RtenLoadError::Refused { operator, domain, opset, node, reason }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::interface;
    use crate::onnx::proto::{Attribute, Opset, Tensor};

    /// A graph with every operator that has a rule, in a branch of itself too.
    fn graph(depth: usize) -> Graph {
        let attribute = |name: &str, i: i64| Attribute { name: name.to_owned(), i: Some(i), ..Attribute::default() };
        let node = |op: &str| {
            let text = Attribute { name: "mode".to_owned(), s: Some("linear".into()), ..Attribute::default() };
            let attribute = vec![attribute("to", 9), attribute("axis", 1), attribute("linear_before_reset", 1), text];
            let inputs = ["x", "c"].map(str::to_owned).to_vec();
            Node { op_type: op.to_owned(), input: inputs, output: vec![format!("y{op}")], attribute, ..Node::default() }
        };
        let operators =
            ["ArgMax", "Cast", "CastLike", "GRU", "LpNormalization", "MatMul", "MaxPool", "Resize", "Sign", "Softmax"];
        let mut nodes: Vec<Node> = operators.into_iter().map(node).collect();
        if depth > 0 {
            let branch =
                Attribute { name: "body".to_owned(), g: Some(Box::new(graph(depth - 1))), ..Attribute::default() };
            nodes.push(Node { op_type: "Loop".to_owned(), attribute: vec![branch], ..Node::default() });
        }
        let data = |number: i64| (number.to_le_bytes().to_vec()).into();
        let constant = |name: &str, number| Tensor {
            name: Some(name.to_owned()),
            data_type: Some(7),
            raw_data: Some(data(number)),
            dims: vec![1],
            ..Tensor::default()
        };
        Graph { node: nodes, initializer: vec![constant("c", 5)], ..Graph::default() }
    }

    /// Bytes as a model; whether it was let through.
    fn look(bytes: &[u8]) -> bool {
        let Ok(mut model) = Model::decode(bytes) else { return false };
        let _ = model.graph.as_ref().map(interface);
        if check(&mut model, &[]).is_err() {
            return false;
        }
        assert!(Model::decode(&model.encode_to_vec()[..]).is_ok(), "what is written can be read");
        true
    }

    #[test]
    fn any_bytes_are_a_model_or_an_error() {
        let opset_import = vec![Opset { domain: None, version: Some(11) }];
        let model = Model { ir_version: Some(8), graph: Some(graph(1)), opset_import, ..Model::default() };
        let bytes = model.encode_to_vec();
        assert!(look(&bytes), "as it is it is let through");
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            look(&changed);
        }
        for len in 0..bytes.len() {
            look(&bytes[..len]);
        }
    }
}
