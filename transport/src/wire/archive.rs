//! The rkyv archives in a message: encoded by the sender, copied out and validated by the receiver.
//!
//! The format is fixed by the rkyv features that the workspace pins: little-endian, aligned, 32-bit relative pointers.

use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::{DecodeError, EncodeError, Metadata, Value};
use crate::layout::{Dtype, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES, MAX_RANK, MAX_TENSORS, MessageLayout, TensorLayout};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct WireLayout {
    tensors: Vec<WireTensor>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct WireTensor {
    name: String,
    dtype_code: u8,
    dtype_bits: u8,
    dtype_lanes: u16,
    shape: Vec<u64>,
    strides: Vec<i64>,
    offset: u64,
    len: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct WireMetadata {
    entries: Vec<(String, Value)>,
}

/// Encodes a layout.
///
/// # Errors
/// [`EncodeError::LayoutTooLong`] if it takes more than [`MAX_LAYOUT_BYTES`].
pub fn encode_layout(layout: &MessageLayout) -> Result<AlignedVec, EncodeError> {
    let tensors = layout.tensors().iter().map(WireTensor::from).collect();
    let bytes = rkyv::to_bytes::<rancor::Error>(&WireLayout { tensors })
        .map_err(|error| EncodeError::Archive { reason: error.to_string() })?;
    if bytes.len() > MAX_LAYOUT_BYTES {
        return Err(EncodeError::LayoutTooLong { len: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a layout from any bytes: copied first, then validated, then checked rule by rule.
///
/// # Errors
/// [`DecodeError`] for everything that [`encode_layout`] would not have written.
pub fn decode_layout(bytes: &[u8]) -> Result<MessageLayout, DecodeError> {
    let private = copy_aligned(bytes);
    let archived = rkyv::access::<ArchivedWireLayout, rancor::Error>(&private)
        .map_err(|error| DecodeError::LayoutArchive { reason: error.to_string() })?;
    if archived.tensors.len() > MAX_TENSORS {
        return Err(crate::layout::LayoutError::TooManyTensors { tensors: archived.tensors.len() }.into());
    }
    let tensors = archived.tensors.iter().map(tensor_layout).collect::<Result<_, _>>()?;
    Ok(MessageLayout::check(tensors)?)
}

/// Encodes metadata.
///
/// # Errors
/// [`EncodeError`] if there are too many entries, a key is too long, or all together take more than [`MAX_METADATA_BYTES`].
pub fn encode_metadata(metadata: &Metadata) -> Result<AlignedVec, EncodeError> {
    metadata.check_limits()?;
    let entries = metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let bytes = rkyv::to_bytes::<rancor::Error>(&WireMetadata { entries })
        .map_err(|error| EncodeError::Archive { reason: error.to_string() })?;
    if bytes.len() > MAX_METADATA_BYTES {
        return Err(EncodeError::MetadataTooLong { len: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes metadata from any bytes: copied first, then validated, then checked rule by rule.
///
/// # Errors
/// [`DecodeError`] for everything that [`encode_metadata`] would not have written.
pub fn decode_metadata(bytes: &[u8]) -> Result<Metadata, DecodeError> {
    let private = copy_aligned(bytes);
    let invalid = |error: rancor::Error| DecodeError::MetadataArchive { reason: error.to_string() };
    let archived = rkyv::access::<ArchivedWireMetadata, rancor::Error>(&private).map_err(invalid)?;
    let decoded: WireMetadata = rkyv::deserialize(archived).map_err(invalid)?;
    Metadata::check(decoded.entries).map_err(|error| DecodeError::MetadataArchive { reason: error.to_string() })
}

/// Writes tensors as they are, however wrong.
#[cfg(test)]
pub(super) fn encode_unchecked(tensors: &[TensorLayout]) -> AlignedVec {
    let tensors = tensors.iter().map(WireTensor::from).collect();
    rkyv::to_bytes::<rancor::Error>(&WireLayout { tensors }).unwrap()
}

fn copy_aligned(bytes: &[u8]) -> AlignedVec {
    let mut private = AlignedVec::with_capacity(bytes.len());
    private.extend_from_slice(bytes);
    private
}

impl From<&TensorLayout> for WireTensor {
    fn from(tensor: &TensorLayout) -> Self {
        Self {
            name: tensor.name.clone(),
            dtype_code: tensor.dtype.code() as u8,
            dtype_bits: tensor.dtype.bits(),
            dtype_lanes: tensor.dtype.lanes(),
            shape: tensor.shape.iter().map(|&dimension| dimension as u64).collect(),
            strides: tensor.strides.iter().map(|&stride| stride as i64).collect(),
            offset: tensor.offset as u64,
            len: tensor.len as u64,
        }
    }
}

fn tensor_layout(tensor: &ArchivedWireTensor) -> Result<TensorLayout, DecodeError> {
    if tensor.shape.len() > MAX_RANK {
        return Err(crate::layout::LayoutError::TooManyDimensions { rank: tensor.shape.len() }.into());
    }
    let number = |value: u64| usize::try_from(value).map_err(|_| DecodeError::NumberTooLarge { value });
    Ok(TensorLayout {
        name: tensor.name.as_str().to_owned(),
        dtype: Dtype::from_dlpack(tensor.dtype_code, tensor.dtype_bits, tensor.dtype_lanes.to_native())?,
        shape: tensor.shape.iter().map(|value| number(value.to_native())).collect::<Result<_, _>>()?,
        strides: tensor
            .strides
            .iter()
            .map(|value| {
                isize::try_from(value.to_native()).map_err(|_| DecodeError::NumberTooLarge { value: u64::MAX })
            })
            .collect::<Result<_, _>>()?,
        offset: number(tensor.offset.to_native())?,
        len: number(tensor.len.to_native())?,
    })
}
