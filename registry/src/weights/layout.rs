//! How weights are laid out that are published: as a safetensors file, in which each tensor begins at a multiple of 64 bytes.
//!
//! The format (<https://github.com/huggingface/safetensors>, "Format") has no gaps between tensors. Where one is needed there is a
//! tensor of bytes, whose name begins with [`PADDING`] and which nobody is shown.

use std::collections::BTreeMap;
use std::io::{self, Write};

use safetensors::Dtype as Stored;
use safetensors::tensor::{Metadata, TensorInfo};
use tensorbus_transport::layout::ALIGNMENT;
use tensorbus_transport::{ContiguousTensor, TensorView};

use super::dtype::to_stored;
use super::error::PublishWeightsError;

/// Most bytes of the name of one of the tensors (UTF-8).
pub const MAX_TENSOR_NAME_BYTES: usize = 1024;
/// How the names of tensors begin that fill gaps.
pub(super) const PADDING: &str = "__tensorbus_gap_";
/// The header's own name for something else than a tensor.
const METADATA: &str = "__metadata__";
/// Bytes of the number at the beginning, which says how long the header is.
pub(super) const LENGTH_BYTES: usize = 8;
/// What the crate `safetensors` reads.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Weights ready to be written.
pub(super) struct Packed<'a> {
    header: Vec<u8>,
    tensors: Vec<Dense<'a>>,
    len: usize,
}

enum Dense<'a> {
    InPlace(TensorView<'a>),
    Copy(ContiguousTensor),
}

impl Dense<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(view) => view.bytes(),
            Self::Copy(copy) => copy.bytes(),
        }
    }
}

impl<'a> Packed<'a> {
    /// Sorted by name, so that the same tensors in another order are the same weights.
    pub(super) fn new<N: Into<String>>(
        weights: &str,
        tensors: impl IntoIterator<Item = (N, TensorView<'a>)>,
    ) -> Result<Self, PublishWeightsError> {
        let mut by_name = BTreeMap::new();
        for (name, tensor) in tensors {
            let name = name.into();
            let is_ours = name.starts_with(PADDING) || name == METADATA;
            if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES || is_ours {
                return Err(PublishWeightsError::TensorName { name: name.chars().take(64).collect() });
            }
            if by_name.contains_key(&name) {
                return Err(PublishWeightsError::DuplicateName { name });
            }
            by_name.insert(name, tensor);
        }
        if by_name.is_empty() {
            return Err(PublishWeightsError::NoTensors { name: weights.to_owned() });
        }
        let mut infos = Vec::new();
        let mut dense = Vec::new();
        let mut end = 0_usize;
        for (name, tensor) in by_name {
            let (dtype, elements) = (tensor.layout().dtype, tensor.layout().elements());
            let Some(stored) = to_stored(dtype) else { return Err(PublishWeightsError::Dtype { name, dtype }) };
            if elements.checked_mul(dtype.element_bits()).is_none_or(|bits| !bits.is_multiple_of(8)) {
                return Err(PublishWeightsError::PartOfByte { name, dtype, elements });
            }
            let shape = tensor.layout().shape.clone();
            let tensor = if tensor.layout().is_row_major() {
                Dense::InPlace(tensor)
            } else {
                Dense::Copy(tensor.to_contiguous()?)
            };
            let start = end.checked_next_multiple_of(ALIGNMENT).ok_or(PublishWeightsError::SizeOverflows)?;
            if start > end {
                let gap = TensorInfo { dtype: Stored::U8, shape: vec![start - end], data_offsets: (end, start) };
                infos.push((format!("{PADDING}{}", infos.len()), gap));
            }
            end = start.checked_add(tensor.bytes().len()).ok_or(PublishWeightsError::SizeOverflows)?;
            infos.push((name, TensorInfo { dtype: stored, shape, data_offsets: (start, end) }));
            dense.push(tensor);
        }
        let header = header(infos)?;
        let len = header.len().checked_add(end).ok_or(PublishWeightsError::SizeOverflows)?;
        Ok(Self { header, tensors: dense, len })
    }

    /// Bytes of it all.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes it all; the same bytes each time.
    pub(super) fn write(&self, to: &mut (impl Write + ?Sized)) -> io::Result<()> {
        to.write_all(&self.header)?;
        let mut end = 0_usize;
        for tensor in &self.tensors {
            let gap = end.next_multiple_of(ALIGNMENT) - end;
            to.write_all(&[0; ALIGNMENT][..gap])?;
            to.write_all(tensor.bytes())?;
            end += gap + tensor.bytes().len();
        }
        Ok(())
    }
}

/// The length and the header, filled with spaces up to where the first tensor begins.
fn header(infos: Vec<(String, TensorInfo)>) -> Result<Vec<u8>, PublishWeightsError> {
    let described = Metadata::new(None, infos).and_then(|metadata| Ok(serde_json::to_vec(&metadata)?));
    // Offsets, shapes and dtypes fit each other; only sizes that overflow are left.
    let mut json = described.map_err(|_| PublishWeightsError::SizeOverflows)?;
    let len = (LENGTH_BYTES + json.len()).next_multiple_of(ALIGNMENT) - LENGTH_BYTES;
    if len > MAX_HEADER_BYTES {
        return Err(PublishWeightsError::HeaderTooLong { bytes: len, max: MAX_HEADER_BYTES });
    }
    json.resize(len, b' ');
    let mut header = (len as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tensorbus_transport::Dtype;

    use super::super::read::read_weights;
    use super::*;

    fn packed(tensors: &[(String, TensorView<'_>)]) -> Vec<u8> {
        let packed = Packed::new("w", tensors.iter().cloned()).unwrap();
        let mut bytes = Vec::new();
        packed.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), packed.len());
        bytes
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_again(shapes in prop::collection::vec(prop::collection::vec(0_usize..6, 0..4), 1..9)) {
            let values: Vec<f32> = (0..1000_u16).map(f32::from).collect();
            let views = shapes.iter().enumerate().map(|(index, shape)| {
                let strides: Vec<isize> = tensorbus_transport::layout::row_major_strides(shape).unwrap();
                (format!("layer.{index}"), TensorView::new(&values[index..], shape, &strides).unwrap())
            });
            let mut views: Vec<_> = views.collect();
            let bytes = packed(&views);
            let (tensors, _) = read_weights(&bytes).unwrap();
            prop_assert_eq!(tensors.len(), views.len());
            for (name, view) in &views {
                let found = &tensors[name];
                prop_assert_eq!(&found.shape, &view.layout().shape);
                prop_assert_eq!(found.offset % ALIGNMENT, 0);
                prop_assert_eq!(&bytes[found.offset..found.offset + found.len], view.bytes());
            }
            views.reverse();
            prop_assert_eq!(packed(&views), bytes, "the order says nothing");
        }
    }

    #[test]
    fn other_orders_are_copied_into_row_major() {
        let values = [1_u16, 2, 3, 4, 5, 6];
        let columns = TensorView::new(&values, &[2, 3], &[1, 2]).unwrap();
        let bytes = packed(&[("w".to_owned(), columns)]);
        let found = &read_weights(&bytes).unwrap().0["w"];
        assert!(found.is_row_major());
        assert_eq!(bytes[found.offset..found.offset + found.len], [1, 0, 3, 0, 5, 0, 2, 0, 4, 0, 6, 0]);
    }

    #[test]
    fn each_broken_rule_is_named() {
        let byte = TensorView::new(&[1_u8], &[1], &[1]).unwrap();
        let refused = |tensors: &[(&str, TensorView<'_>)]| match Packed::new("w", tensors.iter().cloned()) {
            Ok(_) => panic!("packed"),
            Err(error) => error,
        };
        assert!(matches!(refused(&[]), PublishWeightsError::NoTensors { .. }));
        for name in ["", "__metadata__", "__tensorbus_gap_0", &"x".repeat(1025)] {
            assert!(matches!(refused(&[(name, byte.clone())]), PublishWeightsError::TensorName { .. }), "{name}");
        }
        let twice = [("a", byte.clone()), ("a", byte)];
        assert!(matches!(refused(&twice), PublishWeightsError::DuplicateName { .. }));
        let packed = |dtype, bytes, elements| TensorView::from_bytes(dtype, bytes, &[elements], &[1]).unwrap();
        let nibbles = packed(Dtype::I4, &[0, 0], 4);
        assert!(matches!(refused(&[("a", nibbles)]), PublishWeightsError::Dtype { dtype: Dtype::I4, .. }));
        let odd = packed(Dtype::F4_E2M1FN, &[0, 0], 3);
        assert!(matches!(refused(&[("a", odd)]), PublishWeightsError::PartOfByte { elements: 3, .. }));
    }
}
