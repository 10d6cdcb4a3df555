use std::collections::HashMap;

use prost::Message;

use super::error::RtenLoadError;
use crate::onnx::proto::{Attribute, Entry, Graph, Node, Tensor};

/// What a graph says of its values: those that are constants, and types and shapes that are declared.
pub(super) struct Known<'a> {
    constants: HashMap<String, Tensor>,
    /// The file with the weights.
    data: &'a [u8],
    /// ONNX's number of the type, and the number of dimensions.
    declared: HashMap<String, (i32, Option<usize>)>,
}

/// ONNX's numbers of types.
const F32: i32 = 1;
const I64: i32 = 7;

impl<'a> Known<'a> {
    /// What is known of a graph, whose weights lie in `data` if they are not in itself.
    pub(super) fn of(graph: &Graph, data: &'a [u8]) -> Self {
        let named = |tensor: &Tensor| Some((tensor.name.clone()?, tensor.clone()));
        let made = |node: &Node| {
            let constant = (node.op_type == "Constant").then(|| node.attribute.iter().find_map(constant)).flatten();
            node.output.first().cloned().zip(constant)
        };
        let constants = graph.initializer.iter().filter_map(named).chain(graph.node.iter().filter_map(made));
        let declared = graph.input.iter().chain(&graph.output).chain(&graph.value_info).filter_map(|info| {
            let tensor = info.r#type.as_ref()?.tensor.as_ref()?;
            Some((info.name.clone(), (tensor.elem_type, tensor.shape.as_ref().map(|shape| shape.dim.len()))))
        });
        Self { constants: constants.collect(), data, declared: declared.collect() }
    }

    /// ONNX's number of the value's type.
    pub(super) fn data_type(&self, name: &str) -> Option<i32> {
        let constant = self.constants.get(name).and_then(|tensor| tensor.data_type);
        constant.or_else(|| self.declared.get(name).map(|declared| declared.0))
    }

    /// Number of the value's dimensions.
    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        let constant = self.constants.get(name).map(|tensor| tensor.dims.len());
        constant.or_else(|| self.declared.get(name).and_then(|declared| declared.1))
    }

    /// Whether the value is a constant of f32, and all of it whole numbers.
    pub(super) fn are_whole(&self, name: &str) -> bool {
        let Some(tensor) = self.constants.get(name).filter(|tensor| tensor.data_type == Some(F32)) else {
            return false;
        };
        let raw = tensor.raw_data.as_deref().unwrap_or_default().as_chunks::<4>().0;
        let mut numbers = raw.iter().map(|&bytes| f32::from_le_bytes(bytes)).chain(tensor.float_data.iter().copied());
        numbers.all(|number| number.fract() == 0.0)
    }

    /// Whether the value is a constant, and false.
    pub(super) fn is_false(&self, name: &str) -> bool {
        self.constants.get(name).is_some_and(|tensor| {
            let raw = tensor.raw_data.as_deref().unwrap_or_default();
            let is_there = !raw.is_empty() || !tensor.int32_data.is_empty();
            is_there && raw.iter().all(|&byte| byte == 0) && tensor.int32_data.iter().all(|&number| number == 0)
        })
    }

    /// Whether the value is a constant of i64 or i32, and none of it below 0.
    pub(super) fn is_not_negative(&self, name: &str) -> bool {
        self.constants.get(name).is_some_and(|tensor| {
            let raw = tensor.raw_data.as_deref().unwrap_or_default();
            let bytes = if tensor.data_type == Some(I64) { 8 } else { 4 };
            let is_negative = |number: &[u8]| number.last().is_some_and(|&highest| highest >= 0x80);
            !raw.chunks(bytes).any(is_negative)
                && tensor.int64_data.iter().all(|&number| number >= 0)
                && tensor.int32_data.iter().all(|&number| number >= 0)
        })
    }

    /// An error if a constant has numbers that rten would cut to 32 bits. Where a slice begins and ends may be: it is cut to
    /// the dimension anyway, and "to the end" is said so.
    pub(super) fn wide_constant(&self, graph: &Graph) -> Option<RtenLoadError> {
        let is_wide = |tensor: &Tensor| tensor.data_type == Some(I64) && self.has_wide(tensor);
        let named = self.constants.iter().find(|(name, tensor)| is_wide(tensor) && !bounds_slices_only(graph, name));
        let filled = || {
            let has = |node: &&Node| {
                let tensors = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
                node.op_type != "Constant" && tensors.into_iter().any(is_wide)
            };
            graph.node.iter().find(has).and_then(|node| node.output.first())
        };
        let constant = named.map(|(name, _)| name).or_else(filled)?.clone();
        Some(RtenLoadError::WideConstant { constant })
    }

    fn has_wide(&self, tensor: &Tensor) -> bool {
        let raw = tensor.raw_data.as_deref().or_else(|| self.elsewhere(tensor)).unwrap_or_default().as_chunks::<8>().0;
        let mut numbers = raw.iter().map(|&bytes| i64::from_le_bytes(bytes)).chain(tensor.int64_data.iter().copied());
        numbers.any(|number| i32::try_from(number).is_err())
    }

    /// The bytes of a weight that lies in the file.
    fn elsewhere(&self, tensor: &Tensor) -> Option<&'a [u8]> {
        let entries: Vec<Entry> =
            tensor.external_data.iter().filter_map(|entry| Entry::decode(entry.clone()).ok()).collect();
        let number = |key: &str| entries.iter().find(|entry| entry.key == key)?.value.parse::<usize>().ok();
        let (offset, len) = (number("offset")?, number("length")?);
        self.data.get(offset..offset.checked_add(len)?)
    }
}

/// What an attribute of `Constant` says.
fn constant(attribute: &Attribute) -> Option<Tensor> {
    let scalar = |data_type| Tensor { data_type: Some(data_type), ..Tensor::default() };
    let list = |data_type, len: usize| Tensor { dims: vec![i64::try_from(len).unwrap_or(0)], ..scalar(data_type) };
    match attribute.name.as_str() {
        "value" => attribute.t.clone(),
        "value_int" => Some(Tensor { int64_data: vec![attribute.i?], ..scalar(I64) }),
        "value_ints" => Some(Tensor { int64_data: attribute.ints.clone(), ..list(I64, attribute.ints.len()) }),
        "value_float" => Some(Tensor { float_data: vec![attribute.f?], ..scalar(F32) }),
        "value_floats" => Some(Tensor { float_data: attribute.floats.clone(), ..list(F32, attribute.floats.len()) }),
        _ => None,
    }
}

/// Whether a value says where slices begin and end, and nothing else.
fn bounds_slices_only(graph: &Graph, name: &str) -> bool {
    let is_elsewhere = |node: &Node| {
        let inputs = node.input.iter().enumerate();
        let bounds = |index: usize| node.op_type == "Slice" && (index == 1 || index == 2);
        let inner =
            node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
        inputs.clone().any(|(index, input)| input == name && !bounds(index))
            || inner.into_iter().any(|graph| uses(graph, name))
    };
    let is_output = graph.output.iter().any(|output| output.name == name);
    !is_output && !graph.node.iter().any(is_elsewhere)
}

/// Whether a graph, or one within it, uses a value.
fn uses(graph: &Graph, name: &str) -> bool {
    graph.output.iter().any(|output| output.name == name)
        || graph.node.iter().any(|node| {
            let attributes = node.attribute.iter();
            let mut inner =
                attributes.flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
            node.input.iter().any(|input| input == name) || inner.any(|graph| uses(graph, name))
        })
}
