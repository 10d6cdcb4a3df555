//! What must hold for any bytes. Each check panics if a promise is broken, and says whether the bytes were accepted.

use bytes::Bytes;
use tensorbus_registry::{OnnxError, read_weights, split_model};

/// Bytes of the length at the beginning of a safetensors file.
const LENGTH: usize = 8;

/// A safetensors file: tensors that are accepted lie apart from one another, within the bytes, and are as long as they say.
pub(crate) fn decode_weights(bytes: &[u8]) -> bool {
    let Ok((tensors, _)) = read_weights(bytes) else { return false };
    let mut ranges: Vec<_> = tensors.values().map(|tensor| (tensor.offset, tensor.len)).collect();
    ranges.retain(|&(_, len)| len > 0);
    ranges.sort_unstable();
    let mut end = LENGTH;
    for (offset, len) in ranges {
        assert!(offset >= end, "tensors overlap");
        end = offset + len;
    }
    assert!(end <= bytes.len(), "a tensor ends behind the bytes");
    for (name, tensor) in &tensors {
        assert_eq!(*name, tensor.name);
        assert!(tensor.is_row_major());
        assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.len));
    }
    true
}

/// An ONNX model: one that was split and is split again stays as it is.
pub(crate) fn decode_model(bytes: &[u8]) -> bool {
    let mut no_files = |tensor: &str, location: &str| {
        Err(OnnxError::Location { tensor: tensor.to_owned(), location: location.to_owned() })
    };
    let Ok((graph, data)) = split_model(bytes, "w.data", &mut no_files) else { return false };
    // Each weight has at most a page in front of it, and moved out of the bytes, where a number takes a byte at least.
    assert!(data.len() <= bytes.len() * (8 + 4096 / 128));
    let file = Bytes::from(data.clone());
    let again = split_model(&graph, "w.data", &mut |_, _| Ok(file.clone()));
    assert!(again.expect("what was split is a model") == (graph, data));
    true
}
