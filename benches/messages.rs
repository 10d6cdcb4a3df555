//! Messages as a publisher writes them, for what is measured without a bus.

use tensorbus::layout::MessageLayout;
use tensorbus::wire::{MAGIC, Parts, Preamble, encode_layout, fingerprint_of};
use tensorbus::{Dtype, EncodeError, LayoutError, TensorSpec, WIRE_VERSION};

/// Two tensors, named and shaped like a batch of small images and its labels.
///
/// # Errors
/// None: they are tensors that a message can carry.
pub fn layout() -> Result<MessageLayout, LayoutError> {
    MessageLayout::pack(&[
        TensorSpec::new("images", Dtype::F32, &[8, 1, 28, 28]),
        TensorSpec::new("labels", Dtype::U8, &[8]),
    ])
}

/// A message of that layout, without metadata: preamble and payload.
///
/// # Errors
/// None: the layout can be encoded.
pub fn message(layout: &MessageLayout) -> Result<(Preamble, Vec<u8>), EncodeError> {
    let encoded = encode_layout(layout)?;
    let parts = Parts::place(encoded.len(), layout.data_len()).unwrap_or_else(|| unreachable!("a few kilobytes"));
    let mut payload = vec![0; parts.data.end];
    payload[parts.layout].copy_from_slice(&encoded);
    let preamble = Preamble {
        magic: MAGIC,
        version: WIRE_VERSION,
        layout_len: encoded.len() as u32,
        data_offset: parts.data.start as u32,
        data_len: layout.data_len() as u64,
        sequence: 1,
        publish_time_ns: 1,
        layout_fingerprint: fingerprint_of(&encoded),
        ..Preamble::default()
    };
    Ok((preamble, payload))
}
