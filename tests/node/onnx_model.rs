//! Writes ONNX models for tests: `x` of shape `[1, n]` times one matrix after the other is `y`. Numbers of the fields from
//! `onnx.proto` (<https://onnx.ai/onnx/api/classes.html>).
#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<Opset>,
    /// A field that no version has.
    #[prost(string, tag = "4000")]
    pub(crate) from_the_future: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opset {
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<Tensor>,
    #[prost(message, optional, boxed, tag = "6")]
    pub(crate) g: Option<Box<Graph>>,
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(crate) raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
    #[prost(string, tag = "12")]
    pub(crate) doc_string: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dim {
    #[prost(int64, tag = "1")]
    pub(crate) dim_value: i64,
}

pub(crate) const FLOAT: i32 = 1;

/// A weight of shape `[n, n]`, its numbers in `raw_data`.
pub(crate) fn weight(name: &str, n: usize, value: impl Fn(usize) -> f32) -> Tensor {
    let raw = (0..n * n).flat_map(|index| value(index).to_le_bytes()).collect();
    Tensor {
        dims: vec![n as i64, n as i64],
        data_type: FLOAT,
        name: name.to_owned(),
        raw_data: Some(raw),
        ..Tensor::default()
    }
}

/// `y` is `x` times all weights, each of shape `[n, n]`.
pub(crate) fn product(weights: Vec<Tensor>, n: usize) -> Model {
    let value = |name: &str| {
        let dim = [1, n as i64].map(|dim_value| Dim { dim_value }).to_vec();
        let tensor = TensorType { elem_type: FLOAT, shape: Some(Shape { dim }) };
        ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor: Some(tensor) }) }
    };
    let last = weights.len() - 1;
    let node = weights.iter().enumerate().map(|(index, weight)| {
        let from = if index == 0 { "x".to_owned() } else { format!("y{}", index - 1) };
        let to = if index == last { "y".to_owned() } else { format!("y{index}") };
        Node {
            input: vec![from, weight.name.clone()],
            output: vec![to],
            op_type: "MatMul".to_owned(),
            attribute: vec![],
        }
    });
    let graph = Graph {
        node: node.collect(),
        name: "product".to_owned(),
        initializer: weights,
        input: vec![value("x")],
        output: vec![value("y")],
    };
    Model {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![Opset { version: 17 }],
        from_the_future: "stays".to_owned(),
    }
}
