use std::collections::HashMap;

use prost::Message;

use super::error::RtenLoadError;
use crate::onnx::proto::{Entry, Graph, Node, Tensor};

/// What a graph says of its values: those that are constants, and types and shapes that are declared.
pub(super) struct Known<'a> {
    constants: HashMap<String, Tensor>,
    /// The file with the weights.
    data: &'a [u8],
    /// ONNX's number of the type, and the number of dimensions.
    declared: HashMap<String, (i32, Option<usize>)>,
}

/// ONNX's number of the type i64.
const I64: i32 = 7;

impl<'a> Known<'a> {
    /// What is known of a graph, whose weights lie in `data` if they are not in itself.
    pub(super) fn of(graph: &Graph, data: &'a [u8]) -> Self {
        let named = |tensor: &Tensor| Some((tensor.name.clone()?, tensor.clone()));
        let made = |node: &Node| {
            let is_value = |name: &str| name == "value";
            let value = node.attribute.iter().find(|attribute| is_value(&attribute.name))?.t.clone()?;
            (node.op_type == "Constant").then(|| node.output.first().map(|output| (output.clone(), value))).flatten()
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
        let Some(tensor) = self.constants.get(name).filter(|tensor| tensor.data_type == Some(1)) else { return false };
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
        let bounds_a_slice = |name: &str| {
            let bounds = |node: &Node| {
                node.input.iter().enumerate().all(|(index, input)| input != name || index == 1 || index == 2)
            };
            let mut users = graph.node.iter().filter(|node| node.input.iter().any(|input| input == name)).peekable();
            users.peek().is_some() && users.all(|node| node.op_type == "Slice" && bounds(node))
        };
        let is_wide = |(name, tensor): &(&String, &Tensor)| {
            tensor.data_type == Some(I64) && self.has_wide(tensor) && !bounds_a_slice(name)
        };
        let (name, _) = self.constants.iter().find(is_wide)?;
        Some(RtenLoadError::WideConstant { constant: name.clone() })
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
