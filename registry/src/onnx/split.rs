//! Splits a model into its graph and its weights. Pure but for the data files that the model names, which the caller opens.

use std::io::{self, Write};
use std::path::{Component, Path};

use bytes::Bytes;
use prost::Message;

use super::error::OnnxError;
use super::fields::{fields, put, put_varint};
use super::tensor::{DATA_FIELDS, DATA_LOCATION, Data, EXTERNAL, EXTERNAL_DATA, Entry, Place, TensorProto};

/// `ModelProto.ir_version` and `.graph`.
const IR_VERSION: usize = 1;
const GRAPH: usize = 7;

/// The messages of a model in which weights can lie, at whatever depth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    /// A weight, or the value of a constant: moves if it is large.
    Tensor,
    SparseTensor,
    /// What runtimes want in the model: moves only if it lies in another file already.
    PartOfSparseTensor,
}

impl Kind {
    /// What the field of this number holds; numbers from `onnx.proto`. `None` if no weight can be in there.
    fn of_field(self, number: usize) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, GRAPH) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) | (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) => Self::Attribute,
            (Self::SparseTensor, 1 | 2) => Self::PartOfSparseTensor,
            (Self::Attribute, 6 | 11) => Self::Graph,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "the model",
            Self::Graph => "a graph",
            Self::Node => "a node",
            Self::Attribute => "an attribute",
            Self::Function => "a function",
            Self::Tensor | Self::PartOfSparseTensor => "a tensor",
            Self::SparseTensor => "a sparse tensor",
        }
    }
}

/// Most messages within one another: graphs within attributes of nodes within graphs.
const MOST_NESTED: usize = 100;
/// Weights smaller than this stay in the graph: sharing them saves nothing, and some tools want shapes and axes there.
const SMALLEST_MOVED: u64 = 1024;
/// Each weight begins at a multiple of this, so that any type can be used in place.
const ALIGNMENT: u64 = 64;
/// A weight of at least `LARGE` bytes begins at a page, so that a runtime can map it alone.
const LARGE: u64 = 64 * 1024;
const PAGE: u64 = 4096;

/// A model whose weights lie in a file of their own.
#[derive(Debug)]
pub(super) struct Split {
    /// The graph, as a model that says where its weights lie.
    pub(super) graph: Vec<u8>,
    weights: Vec<Weight>,
    /// Bytes of the file with the weights.
    pub(super) data_len: u64,
}

#[derive(Debug)]
struct Weight {
    offset: u64,
    bytes: Bytes,
}

/// Gives the content of the file that a model names, as the first argument's data.
pub(super) type DataFiles<'a> = dyn FnMut(&str, &str) -> Result<Bytes, OnnxError> + 'a;

impl Split {
    /// Splits `model`, whose weights are going to lie in the file `location` beside it.
    pub(super) fn new(model: Bytes, location: &str, data_files: &mut DataFiles<'_>) -> Result<Self, OnnxError> {
        let (mut has_version, mut has_graph) = (false, false);
        for field in fields(model.clone(), Kind::Model.name()) {
            let field = field?;
            has_version |= field.number == IR_VERSION;
            has_graph |= field.number == GRAPH && field.content.is_some();
        }
        if !has_version || !has_graph {
            let missing = if has_graph { "the version (ir_version)" } else { "the graph" };
            return Err(OnnxError::NotAModel { missing });
        }
        let mut split = Self { graph: Vec::new(), weights: Vec::new(), data_len: 0 };
        let graph = split.without_weights(Kind::Model, &model, location, data_files, 0)?;
        split.graph = graph.unwrap_or_else(|| model.to_vec());
        Ok(split)
    }

    /// Number of weights that moved.
    pub(super) fn moved(&self) -> usize {
        self.weights.len()
    }

    /// Writes the file with the weights.
    pub(super) fn write_data(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut end = 0;
        for weight in &self.weights {
            // Less than a page.
            let gap = (weight.offset - end) as usize;
            to.write_all(&[0; PAGE as usize][..gap])?;
            to.write_all(&weight.bytes)?;
            end = weight.offset + weight.bytes.len() as u64;
        }
        Ok(())
    }

    /// The message without the weights that move; `None` if it stays as it is.
    fn without_weights(
        &mut self,
        kind: Kind,
        message: &Bytes,
        location: &str,
        data_files: &mut DataFiles<'_>,
        depth: usize,
    ) -> Result<Option<Vec<u8>>, OnnxError> {
        if matches!(kind, Kind::Tensor | Kind::PartOfSparseTensor) {
            return self.moved_tensor(kind, message, location, data_files);
        }
        if depth > MOST_NESTED {
            return Err(OnnxError::Protobuf { place: kind.name(), reason: format!("more than {MOST_NESTED} deep") });
        }
        let (mut out, mut changed) = (Vec::new(), false);
        for field in fields(message.clone(), kind.name()) {
            let field = field?;
            let inner = kind.of_field(field.number).zip(field.content.as_ref());
            let new = inner.map(|(kind, inner)| self.without_weights(kind, inner, location, data_files, depth + 1));
            match new.transpose()?.flatten() {
                Some(new) => {
                    changed = true;
                    put(&mut out, field.number, &new);
                }
                None => out.extend_from_slice(&field.whole),
            }
        }
        Ok(changed.then_some(out))
    }

    /// What is to stand in the model in place of the tensor, if its data moves.
    fn moved_tensor(
        &mut self,
        kind: Kind,
        message: &Bytes,
        location: &str,
        data_files: &mut DataFiles<'_>,
    ) -> Result<Option<Vec<u8>>, OnnxError> {
        let tensor = TensorProto::read(message.clone())?;
        let data = match tensor.data()? {
            Data::Here(data) if data.len() as u64 >= SMALLEST_MOVED && kind == Kind::Tensor => data,
            Data::Here(_) | Data::Other => return Ok(None),
            Data::Elsewhere(place) => data_at(&place, &tensor.name, data_files)?,
        };
        let mut out = Vec::new();
        for field in fields(message.clone(), kind.name()) {
            let field = field?;
            if !DATA_FIELDS.contains(&field.number) {
                out.extend_from_slice(&field.whole);
            }
        }
        if data.is_empty() {
            // It needs no file.
            return Ok(Some(out));
        }
        let len = data.len() as u64;
        let alignment = if len >= LARGE { PAGE } else { ALIGNMENT };
        let too_long = || OnnxError::Protobuf { place: "a weight", reason: "all are larger than memory".to_owned() };
        let offset = self.data_len.checked_next_multiple_of(alignment).ok_or_else(too_long)?;
        self.data_len = offset.checked_add(len).ok_or_else(too_long)?;
        self.weights.push(Weight { offset, bytes: data });
        let entries = [("location", location.to_owned()), ("offset", offset.to_string()), ("length", len.to_string())];
        for (key, value) in entries {
            put(&mut out, EXTERNAL_DATA, &Entry { key: key.to_owned(), value }.encode_to_vec());
        }
        put_varint(&mut out, DATA_LOCATION, EXTERNAL);
        Ok(Some(out))
    }
}

fn data_at(place: &Place, tensor: &str, data_files: &mut DataFiles<'_>) -> Result<Bytes, OnnxError> {
    let Place { location, offset, len } = place;
    let is_below =
        Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !is_below {
        return Err(OnnxError::Location { tensor: tensor.to_owned(), location: location.clone() });
    }
    if *len == 0 {
        return Ok(Bytes::new());
    }
    let file = data_files(tensor, location)?;
    let range =
        offset.checked_add(*len).filter(|&end| end <= file.len() as u64).map(|end| *offset as usize..end as usize);
    let short = || OnnxError::DataFileShort {
        tensor: tensor.to_owned(),
        location: location.clone(),
        offset: *offset,
        len: *len,
        file: file.len() as u64,
    };
    Ok(file.slice(range.ok_or_else(short)?))
}

/// Splits a model in memory: the graph, and the content of the file `location` with the weights. For tests.
pub fn split_model(
    model: &[u8],
    location: &str,
    data_files: &mut dyn FnMut(&str, &str) -> Result<Bytes, OnnxError>,
) -> Result<(Vec<u8>, Vec<u8>), OnnxError> {
    let split = Split::new(Bytes::copy_from_slice(model), location, data_files)?;
    let mut data = Vec::new();
    // A vector takes everything.
    let _ = split.write_data(&mut data);
    Ok((split.graph, data))
}
