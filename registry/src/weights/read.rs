//! From the bytes of a safetensors file to tensors, every rule checked. The crate `safetensors` reads the header and checks
//! that tensors cover the data without overlap or gap; what it does not know (alignment, our dtypes and limits) is checked here.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use tensorbus_transport::layout::{row_major_strides, span_bytes};
use tensorbus_transport::{LayoutError, MappedTensor, Region, RegionError, TensorLayout};

use super::dtype::from_stored;
use super::error::WeightsFormatError;
use super::layout::{LENGTH_BYTES, MAX_TENSOR_NAME_BYTES, PADDING};

/// Tensors by name, and what the file says about itself by key.
type Contents<T> = (BTreeMap<String, T>, HashMap<String, String>);

/// What lies in the bytes of a safetensors file. Looks at the header only: the data of tensors is not read.
pub fn read_weights(bytes: &[u8]) -> Result<Contents<TensorLayout>, WeightsFormatError> {
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
    Ok((tensors, found.metadata().clone().unwrap_or_default()))
}

/// The tensors of a region.
pub(super) fn tensors_of(region: &Region) -> Result<Contents<MappedTensor>, WeightsFormatError> {
    let (tensors, metadata) = read_weights(region.bytes())?;
    let tensors = tensors.into_iter().map(|(name, layout)| Ok((name, MappedTensor::new(region, layout)?)));
    Ok((tensors.collect::<Result<_, RegionError>>()?, metadata))
}
