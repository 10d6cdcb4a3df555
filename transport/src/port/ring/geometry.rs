//! Where the parts of a ring's file lie: computed by whoever makes it, and by whoever opens it from what they have checked. Pure.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::error::{RingFormatError, RingSpecError};
use super::slot_layout::SlotLayout;
use crate::layout::{
    ALIGNMENT, Dtype, MAX_LAYOUT_BYTES, MessageLayout, TensorLayout, TensorSpec, row_major_strides, span_bytes,
};
use crate::ring::Head;
use crate::wire::{DecodeError, decode_layout, encode_layout};

/// Version of a ring's bytes; `RING.md` describes them.
pub const RING_VERSION: u32 = 1;
/// Most rows of a request ring.
pub const MAX_RING_ROWS: usize = 4096;
/// Clients that a request ring can have at a time.
pub const MAX_RING_CLIENTS: usize = 1024;
/// Workers that a request ring can have at a time.
pub const MAX_RING_WORKERS: usize = 64;

const MAGIC: [u8; 8] = *b"TBRING\0\0";
/// Flag: requests may be repeated after a worker's death.
const MAY_REPEAT: u32 = 1;
/// Flag: the data lies in files of the clients, and may be smaller than said.
const ISOLATED: u32 = 2;
/// Bytes of a row's text, with its length.
pub(super) const TEXT_BYTES: usize = 192;

pub(super) const CURSOR_AT: usize = size_of::<Header>();
pub(super) const COUNTS_AT: usize = 128;
pub(super) const READY_AT: usize = 192;
pub(super) const WANTING_AT: usize = READY_AT + MAX_RING_ROWS / 8;
pub(super) const WORKERS_AT: usize = WANTING_AT + MAX_RING_CLIENTS / 8;
pub(super) const PLACE_BYTES: usize = 64;
pub(super) const CLIENTS_AT: usize = WORKERS_AT + MAX_RING_WORKERS * PLACE_BYTES;
pub(super) const HEADS_AT: usize = CLIENTS_AT + MAX_RING_CLIENTS * PLACE_BYTES;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    flags: u32,
    rows: u32,
    credits: u32,
    inputs_layout: u32,
    outputs_layout: u32,
    file_len: u64,
    zero: [u8; 24],
}

/// What a request ring is made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RingSpec {
    /// Name, dtype and the shape of a row.
    pub(crate) inputs: Vec<(String, Dtype, Vec<usize>)>,
    pub(crate) outputs: Vec<(String, Dtype, Vec<usize>)>,
    pub(crate) rows: usize,
    pub(crate) credits: usize,
    pub(crate) may_repeat: bool,
    pub(crate) isolated: bool,
}

/// One side of a ring: its inputs or its outputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Side {
    layout: MessageLayout,
    encoded: Vec<u8>,
    /// As one row has them.
    rows: Vec<TensorLayout>,
    /// Place of its first tensor among all: outputs are counted on behind the inputs.
    first: usize,
    /// Of the encoded layout and of the data, in the file.
    encoded_at: usize,
    data_at: usize,
}

impl Side {
    /// The tensors as a row has them: their shapes without the dimension of rows.
    pub(crate) fn tensors(&self) -> &[TensorLayout] {
        &self.rows
    }

    /// Place of a tensor among all of the ring.
    pub(super) fn number(&self, tensor: usize) -> usize {
        self.first + tensor
    }

    /// The tensors as several rows have them.
    pub(crate) fn of_rows(&self, rows: usize) -> Vec<TensorLayout> {
        self.rows.iter().map(|tensor| of_rows(tensor, rows)).collect()
    }

    /// Where the data of some rows of a tensor begins in the file. `row` may be the one behind the last.
    pub(super) fn offset(&self, tensor: usize, row: usize) -> usize {
        self.data_at + self.layout.tensors()[tensor].offset + row * self.rows[tensor].len
    }
}

/// A ring as it lies in its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    rows: usize,
    credits: usize,
    flags: u32,
    inputs: Side,
    outputs: Side,
    slot: SlotLayout,
    file_len: usize,
}

impl Geometry {
    pub(crate) fn new(spec: &RingSpec) -> Result<Self, RingSpecError> {
        check_counts(spec.rows, spec.credits)?;
        let inputs = packed(&spec.inputs, spec.rows, "inputs")?;
        let outputs = packed(&spec.outputs, spec.rows, "outputs")?;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(spec.may_repeat, MAY_REPEAT) | flag(spec.isolated, ISOLATED);
        Self::place(spec.rows, spec.credits, flags, inputs, outputs)
    }

    fn place(
        rows: usize,
        credits: usize,
        flags: u32,
        inputs: (MessageLayout, Vec<u8>),
        outputs: (MessageLayout, Vec<u8>),
    ) -> Result<Self, RingSpecError> {
        let mut end = Self::texts_at(rows) + rows * TEXT_BYTES;
        let mut part = |len: usize| {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            end = start.checked_add(len)?;
            Some(start)
        };
        let mut parts = || {
            let layouts = (part(inputs.1.len())?, part(outputs.1.len())?);
            let len = |layout: &MessageLayout| if flags & ISOLATED != 0 { 0 } else { layout.data_len() };
            Some((layouts, (part(len(&inputs.0))?, part(len(&outputs.0))?)))
        };
        let size = || RingSpecError::Size { rows };
        let (layouts, data) = parts().ok_or_else(size)?;
        let file_len = end.checked_next_multiple_of(ALIGNMENT).filter(|&len| isize::try_from(len).is_ok());
        let inputs = side(inputs, rows, 0, (layouts.0, data.0))?;
        let outputs = side(outputs, rows, inputs.rows.len(), (layouts.1, data.1))?;
        let slots =
            SlotLayout::new(&inputs.rows, &outputs.rows).filter(|slot| slot.bytes.checked_mul(credits).is_some());
        let (slot, file_len) = (slots.ok_or_else(size)?, file_len.ok_or_else(size)?);
        Ok(Self { rows, credits, flags, inputs, outputs, slot, file_len })
    }

    /// Reads a ring's file of this length, whose bytes `read` copies out.
    pub(crate) fn read<E>(
        file_len: u64,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<Result<Self, RingFormatError>, E> {
        if file_len < HEADS_AT as u64 {
            return Ok(Err(RingFormatError::TooShort { len: file_len }));
        }
        let mut header = Header::new_zeroed();
        read(header.as_mut_bytes(), 0)?;
        let (rows, credits) = (header.rows as usize, header.credits as usize);
        let checked = header.check().and_then(|()| Ok(check_counts(rows, credits)?));
        if let Err(error) = checked {
            return Ok(Err(error));
        }
        // Before so many bytes are taken for them.
        for (side, len) in [("inputs", header.inputs_layout as usize), ("outputs", header.outputs_layout as usize)] {
            if !(1..=MAX_LAYOUT_BYTES).contains(&len) {
                return Ok(Err(RingFormatError::Description { side, reason: DecodeError::LayoutLength { len } }));
            }
        }
        let inputs_at = (Self::texts_at(rows) + rows * TEXT_BYTES).next_multiple_of(ALIGNMENT) as u64;
        let outputs_at = (inputs_at + u64::from(header.inputs_layout)).next_multiple_of(ALIGNMENT as u64);
        if outputs_at + u64::from(header.outputs_layout) > file_len {
            return Ok(Err(RingFormatError::TooShort { len: file_len }));
        }
        let mut encoded = [vec![0; header.inputs_layout as usize], vec![0; header.outputs_layout as usize]];
        read(&mut encoded[0], inputs_at)?;
        read(&mut encoded[1], outputs_at)?;
        Ok(Self::of(&header, encoded, file_len))
    }

    fn of(header: &Header, encoded: [Vec<u8>; 2], file_len: u64) -> Result<Self, RingFormatError> {
        let (rows, credits) = (header.rows as usize, header.credits as usize);
        let [inputs, outputs] = encoded;
        let decode = |encoded: Vec<u8>, side| {
            let decoded = decode_layout(&encoded).map_err(|reason| RingFormatError::Description { side, reason })?;
            let is_rows = |tensor: &&TensorLayout| tensor.shape.first() == Some(&rows) && tensor.is_row_major();
            match decoded.tensors().iter().find(|tensor| !is_rows(tensor)) {
                Some(tensor) => Err(RingFormatError::NotRows { name: tensor.name.clone(), rows }),
                None => Ok((decoded, encoded)),
            }
        };
        let (inputs, outputs) = (decode(inputs, "inputs")?, decode(outputs, "outputs")?);
        let geometry = Self::place(rows, credits, header.flags, inputs, outputs)?;
        let (stated, needed) = (header.file_len, geometry.file_len as u64);
        if stated != needed || file_len != needed {
            return Err(RingFormatError::Length { found: file_len, stated, needed });
        }
        Ok(geometry)
    }

    /// What does not change in the file, and where it stands.
    pub(crate) fn parts(&self) -> [(usize, Vec<u8>); 3] {
        let header = Header {
            magic: MAGIC,
            version: RING_VERSION,
            flags: self.flags,
            rows: self.rows as u32,
            credits: self.credits as u32,
            inputs_layout: self.inputs.encoded.len() as u32,
            outputs_layout: self.outputs.encoded.len() as u32,
            file_len: self.file_len as u64,
            zero: [0; 24],
        };
        [
            (0, header.as_bytes().to_vec()),
            (self.inputs.encoded_at, self.inputs.encoded.clone()),
            (self.outputs.encoded_at, self.outputs.encoded.clone()),
        ]
    }

    pub(super) fn texts_at(rows: usize) -> usize {
        HEADS_AT + rows * size_of::<Head>()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn credits(&self) -> usize {
        self.credits
    }

    pub(crate) fn may_repeat(&self) -> bool {
        self.flags & MAY_REPEAT != 0
    }

    /// Whether the data lies in files of the clients.
    #[inline]
    pub(crate) fn is_isolated(&self) -> bool {
        self.flags & ISOLATED != 0
    }

    /// How a slot of a client's file is laid out, if the ring is isolated.
    pub(crate) fn slot(&self) -> &SlotLayout {
        &self.slot
    }

    pub(crate) fn inputs(&self) -> &Side {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &Side {
        &self.outputs
    }

    /// Bytes of a client's file, if the ring is isolated.
    pub(super) fn slots_bytes(&self) -> usize {
        self.slot.bytes * self.credits
    }

    pub(crate) fn file_len(&self) -> usize {
        self.file_len
    }
}

impl Header {
    fn check(&self) -> Result<(), RingFormatError> {
        if self.magic != MAGIC {
            return Err(RingFormatError::Magic { found: self.magic });
        }
        if self.version != RING_VERSION {
            return Err(RingFormatError::Version { found: self.version });
        }
        if self.flags & !(MAY_REPEAT | ISOLATED) != 0 {
            return Err(RingFormatError::Flags { found: self.flags });
        }
        Ok(())
    }
}

fn check_counts(rows: usize, credits: usize) -> Result<(), RingSpecError> {
    if !(1..=MAX_RING_ROWS).contains(&rows) {
        return Err(RingSpecError::Rows { rows });
    }
    if !(1..=rows).contains(&credits) {
        return Err(RingSpecError::Credits { credits, rows });
    }
    Ok(())
}

fn packed(
    tensors: &[(String, Dtype, Vec<usize>)],
    rows: usize,
    side: &'static str,
) -> Result<(MessageLayout, Vec<u8>), RingSpecError> {
    let spec = |(name, dtype, shape): &(String, Dtype, Vec<usize>)| {
        TensorSpec::new(name, *dtype, &[&[rows], &shape[..]].concat())
    };
    let specs: Vec<_> = tensors.iter().map(spec).collect();
    let layout = MessageLayout::pack(&specs).map_err(|reason| RingSpecError::Tensors { side, reason })?;
    let encoded = encode_layout(&layout).map_err(|reason| RingSpecError::Description { side, reason })?;
    Ok((layout, encoded.to_vec()))
}

fn side(
    (layout, encoded): (MessageLayout, Vec<u8>),
    rows: usize,
    first: usize,
    (encoded_at, data_at): (usize, usize),
) -> Result<Side, RingSpecError> {
    let row = |tensor: &TensorLayout| {
        let (shape, strides) = (tensor.shape[1..].to_vec(), tensor.strides[1..].to_vec());
        let len =
            span_bytes(tensor.dtype, &shape, &strides).ok().filter(|len| len.checked_mul(rows) == Some(tensor.len));
        let len = len.ok_or_else(|| RingSpecError::PartOfAByte { name: tensor.name.clone() })?;
        Ok(TensorLayout { name: tensor.name.clone(), dtype: tensor.dtype, shape, strides, offset: 0, len })
    };
    let rows = layout.tensors().iter().map(row).collect::<Result<_, _>>()?;
    Ok(Side { layout, encoded, rows, first, encoded_at, data_at })
}

/// A tensor of one row, for several.
pub(crate) fn of_rows(row: &TensorLayout, rows: usize) -> TensorLayout {
    let shape = [&[rows], &row.shape[..]].concat();
    // All rows of the ring have strides; fewer do too.
    let strides = row_major_strides(&shape).unwrap_or_default();
    TensorLayout { name: row.name.clone(), dtype: row.dtype, shape, strides, offset: 0, len: rows * row.len }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RingSpec {
        RingSpec {
            inputs: vec![("image".into(), Dtype::F32, vec![1, 28, 28]), ("mask".into(), Dtype::U8, vec![7])],
            outputs: vec![("scores".into(), Dtype::F32, vec![10])],
            rows: 6,
            credits: 3,
            may_repeat: true,
            isolated: false,
        }
    }

    fn file(geometry: &Geometry) -> Vec<u8> {
        let mut file = vec![0; geometry.file_len()];
        for (at, bytes) in geometry.parts() {
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        file
    }

    fn read(file: &[u8]) -> Result<Geometry, RingFormatError> {
        let copy = |into: &mut [u8], at: u64| {
            into.copy_from_slice(&file[at as usize..][..into.len()]);
            Ok::<_, std::convert::Infallible>(())
        };
        Geometry::read(file.len() as u64, copy).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_ring_is_read_as_it_was_made() {
        let geometry = Geometry::new(&spec()).unwrap();
        assert_eq!(read(&file(&geometry)), Ok(geometry.clone()));
        let inputs = geometry.inputs();
        assert_eq!(inputs.tensors()[0].shape, [1, 28, 28]);
        assert_eq!(inputs.offset(0, 2) - inputs.offset(0, 0), 2 * 28 * 28 * 4);
        assert!(inputs.offset(0, 6) <= inputs.offset(1, 0) && inputs.offset(1, 6) <= geometry.outputs().offset(0, 0));
        assert!(geometry.outputs().offset(0, 6) <= geometry.file_len());
        for at in [inputs.offset(0, 0), inputs.offset(1, 0), geometry.outputs().offset(0, 0)] {
            assert_eq!(at % ALIGNMENT, 0);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_no_ring() {
        let whole = file(&Geometry::new(&spec()).unwrap());
        let broken = |at: usize, byte: u8| {
            let mut file = whole.clone();
            file[at] = byte;
            read(&file).unwrap_err()
        };
        assert!(matches!(broken(0, 0), RingFormatError::Magic { .. }));
        assert!(matches!(broken(8, 9), RingFormatError::Version { found: 9 }));
        assert!(matches!(broken(12, 5), RingFormatError::Flags { found: 5 }));
        assert!(matches!(broken(12, 3), RingFormatError::Length { .. }), "isolated, and with data");
        assert!(matches!(broken(16, 0), RingFormatError::Spec(RingSpecError::Rows { rows: 0 })));
        assert!(matches!(broken(16, 5), RingFormatError::Description { .. } | RingFormatError::NotRows { .. }));
        assert!(matches!(broken(20, 7), RingFormatError::Spec(RingSpecError::Credits { credits: 7, rows: 6 })));
        assert!(matches!(broken(24, 0), RingFormatError::Description { side: "inputs", .. }));
        let too_long = |error: &RingFormatError, of| matches!(error, RingFormatError::Description { side, reason: DecodeError::LayoutLength { .. } } if *side == of);
        assert!(too_long(&broken(27, 0xff), "inputs") && too_long(&broken(31, 0xff), "outputs"));
        assert!(matches!(broken(32, 1), RingFormatError::Length { .. }));
        assert!(matches!(read(&whole[..whole.len() - 64]), Err(RingFormatError::Length { .. })));
        assert!(matches!(read(&whole[..100]), Err(RingFormatError::TooShort { len: 100 })));
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let refused = |change: &dyn Fn(&mut RingSpec)| {
            let mut spec = spec();
            change(&mut spec);
            Geometry::new(&spec).unwrap_err()
        };
        assert!(matches!(refused(&|spec| spec.rows = 4097), RingSpecError::Rows { rows: 4097 }));
        assert!(matches!(refused(&|spec| spec.credits = 0), RingSpecError::Credits { .. }));
        assert!(matches!(refused(&|spec| spec.outputs.clear()), RingSpecError::Tensors { side: "outputs", .. }));
        let odd = |spec: &mut RingSpec| spec.inputs[0] = ("x".into(), Dtype::I4, vec![3]);
        assert!(matches!(refused(&odd), RingSpecError::PartOfAByte { .. }));
        let huge = |spec: &mut RingSpec| {
            spec.inputs[0] = ("x".into(), Dtype::U8, vec![isize::MAX as usize / 6]);
            spec.outputs[0] = ("y".into(), Dtype::U8, vec![isize::MAX as usize / 6]);
        };
        assert!(matches!(refused(&huge), RingSpecError::Size { .. }));
    }
}
