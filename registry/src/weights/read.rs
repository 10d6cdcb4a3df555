//! From the bytes of a safetensors file to tensors, every rule checked. The crate `safetensors` reads the header and checks
//! that tensors cover the data without overlap or gap; what it does not know (alignment, our dtypes and limits) is checked here.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use tensorbus_transport::layout::{row_major_strides, span_bytes};
use tensorbus_transport::{LayoutError, MappedTensor, Region, RegionError, TensorLayout};

use super::dtype::from_stored;
use super::error::WeightsFormatError;
use super::layout::{LENGTH_BYTES, MAX_TENSOR_NAME_BYTES, PADDING};

/// What lies in the bytes of a safetensors file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) tensors: BTreeMap<String, TensorLayout>,
    pub(super) metadata: HashMap<String, String>,
}

/// Looks at the header only: the data of tensors is not read.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, WeightsFormatError> {
    let (header, found) = SafeTensors::read_metadata(bytes)?;
    let data = LENGTH_BYTES + header;
    let mut tensors = BTreeMap::new();
    for (name, info) in found.tensors() {
        if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES {
            return Err(WeightsFormatError::NameLength { name: name.chars().take(64).collect() });
        }
        if name.starts_with(PADDING) {
            continue;
        }
        let Some(dtype) = from_stored(info.dtype) else {
            return Err(WeightsFormatError::Dtype { name, dtype: info.dtype.to_string() });
        };
        let shape = info.shape.clone();
        let too_big = || RegionError::from(LayoutError::SizeOverflows { dtype, shape: shape.clone() });
        let strides = row_major_strides(&shape).ok_or_else(too_big)?;
        let len = span_bytes(dtype, &shape, &strides).map_err(RegionError::from)?;
        // Within the bytes, as the crate checked.
        let offset = data + info.data_offsets.0;
        tensors.insert(name.clone(), TensorLayout { name, dtype, shape, strides, offset, len });
    }
    Ok(Contents { tensors, metadata: found.metadata().clone().unwrap_or_default() })
}

/// The tensors of a region.
pub(super) fn tensors_of(
    region: &Region,
) -> Result<(BTreeMap<String, MappedTensor>, HashMap<String, String>), WeightsFormatError> {
    let Contents { tensors, metadata } = read(region.bytes())?;
    let tensors = tensors.into_iter().map(|(name, layout)| Ok((name, MappedTensor::new(region, layout)?)));
    Ok((tensors.collect::<Result<_, RegionError>>()?, metadata))
}

/// For the fuzzer: whether the bytes are weights. Panics if what was accepted breaks a promise.
pub fn check_weights_bytes(bytes: &[u8]) -> bool {
    let Ok(contents) = read(bytes) else { return false };
    let mut ranges: Vec<_> = contents.tensors.values().map(|tensor| (tensor.offset, tensor.len)).collect();
    ranges.retain(|&(_, len)| len > 0);
    ranges.sort_unstable();
    let mut end = LENGTH_BYTES;
    for (offset, len) in ranges {
        assert!(offset >= end, "tensors overlap");
        end = offset + len;
    }
    assert!(end <= bytes.len(), "a tensor ends behind the bytes");
    for (name, tensor) in &contents.tensors {
        assert_eq!(*name, tensor.name);
        assert!(tensor.is_row_major());
        assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.len));
    }
    true
}
