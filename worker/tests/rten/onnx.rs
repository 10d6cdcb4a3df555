//! Writes small ONNX models.

#[path = "../../src/onnx/proto.rs"]
#[allow(dead_code, reason = "these models have no more than they need")]
mod proto;

use std::path::PathBuf;

use prost::Message;
use tempfile::TempDir;
use tensorbus_registry::ModelCache;
use tensorbus_worker::{RtenBuilder, RtenLoadError, RtenModel};

pub(crate) use proto::{Attribute, Graph, Node, Tensor};
use proto::{Dimension, Model, Opset, Shape, TensorType, Type, ValueInfo};

pub(crate) const F32: i32 = 1;
pub(crate) const I64: i32 = 7;
pub(crate) const BOOL: i32 = 9;
pub(crate) const F64: i32 = 11;

/// A model from `x` to `y`.
pub(crate) struct Onnx {
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: Vec<Tensor>,
    /// Type of `x` and of `y`.
    pub(crate) types: [i32; 2],
    /// Their shapes: a size below zero for any. `None` for `y`: nothing is said.
    pub(crate) x: Vec<i64>,
    pub(crate) y: Option<Vec<i64>>,
}

impl Onnx {
    /// One node, of f32, with any matrix.
    pub(crate) fn one(opset: i64, operator: &str, attributes: Vec<Attribute>) -> Self {
        Self {
            opset,
            nodes: vec![node(operator, &["x"], "y", attributes)],
            constants: vec![],
            types: [F32, F32],
            x: vec![-1, -1],
            y: None,
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let value = |name: &str, elem_type, shape: Option<&[i64]>| {
            let dimension = |&size: &i64| Dimension { dim_value: (size >= 0).then_some(size), ..Dimension::default() };
            let shape = shape.map(|shape| Shape { dim: shape.iter().map(dimension).collect() });
            let tensor = Some(TensorType { elem_type, shape });
            ValueInfo {
                name: name.to_owned(),
                r#type: Some(Type { tensor, ..Type::default() }),
                ..ValueInfo::default()
            }
        };
        let graph = Graph {
            node: self.nodes.clone(),
            name: Some("test".to_owned()),
            initializer: self.constants.clone(),
            input: vec![value("x", self.types[0], Some(&self.x))],
            output: vec![value("y", self.types[1], self.y.as_deref())],
            ..Graph::default()
        };
        let opset_import = vec![Opset { domain: None, version: Some(self.opset) }];
        Model { ir_version: Some(8), graph: Some(graph), opset_import, ..Model::default() }.encode_to_vec()
    }

    pub(crate) fn load(&self) -> Result<RtenModel, RtenLoadError> {
        self.load_as(|builder| builder)
    }

    pub(crate) fn load_as(&self, how: impl FnOnce(RtenBuilder) -> RtenBuilder) -> Result<RtenModel, RtenLoadError> {
        let (directory, path) = self.write();
        let cache = ModelCache::at(directory.path().join("cache"));
        how(RtenModel::builder().threads(1).cache(cache)).load(path)
    }

    pub(crate) fn write(&self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        std::fs::write(&path, self.encoded()).unwrap();
        (directory, path)
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        op_type: operator.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Node::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: Some(value), r#type: Some(2), ..Attribute::default() }
}

pub(crate) fn text(name: &str, value: &str) -> Attribute {
    let s = Some(value.to_owned().into_bytes().into());
    Attribute { name: name.to_owned(), s, r#type: Some(3), ..Attribute::default() }
}

pub(crate) fn graph(name: &str, graph: Graph) -> Attribute {
    Attribute { name: name.to_owned(), g: Some(Box::new(graph)), r#type: Some(5), ..Attribute::default() }
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (name, raw_data) = (Some(name.to_owned()), Some(raw.into()));
    Tensor { dims: dims.to_vec(), data_type: Some(F32), name, raw_data, ..Tensor::default() }
}

pub(crate) fn numbers(name: &str, values: &[i64]) -> Tensor {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (name, raw_data) = (Some(name.to_owned()), Some(raw.into()));
    Tensor { dims: vec![values.len() as i64], data_type: Some(I64), name, raw_data, ..Tensor::default() }
}
