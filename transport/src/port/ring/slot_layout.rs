//! Slots of a client's file in an isolated ring. Pure.

use std::ops::Range;

use crate::layout::{ALIGNMENT, TensorLayout};

/// How a slot is laid out: the sizes of all dimensions of all inputs and outputs as they are this time, u32 each; then the data of each, with
/// room for what the ring says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlotLayout {
    /// Dimensions of each tensor, in the slot. Inputs first.
    shapes: Vec<Range<usize>>,
    /// Data of each tensor, in the slot.
    data: Vec<Range<usize>>,
    /// Of a slot.
    pub(super) bytes: usize,
}

impl SlotLayout {
    /// `None` if it would be larger than memory can be.
    pub(super) fn new(inputs: &[TensorLayout], outputs: &[TensorLayout]) -> Option<Self> {
        let tensors = || inputs.iter().chain(outputs);
        let mut end = 0;
        let mut shapes = Vec::new();
        for tensor in tensors() {
            let start = end;
            end += tensor.shape.len() * size_of::<u32>();
            shapes.push(start..end);
        }
        let mut data = Vec::new();
        for tensor in tensors() {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            end = start.checked_add(tensor.len)?;
            data.push(start..end);
        }
        let bytes = end.checked_next_multiple_of(ALIGNMENT).filter(|&bytes| isize::try_from(bytes).is_ok())?;
        Some(Self { shapes, data, bytes })
    }

    /// Where the dimensions of a tensor stand; outputs are counted on behind the inputs.
    pub(super) fn shape(&self, tensor: usize) -> Range<usize> {
        self.shapes[tensor].clone()
    }

    /// Where the data of a tensor lies.
    pub(super) fn data(&self, tensor: usize) -> Range<usize> {
        self.data[tensor].clone()
    }
}
