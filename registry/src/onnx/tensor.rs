//! A weight of a model: what it is, and its data as bytes that can be used in place.

use bytes::Bytes;
use prost::Message;

use super::error::OnnxError;

/// `TensorProto`, as far as it is read; numbers of the fields from `onnx.proto` (<https://onnx.ai/onnx/api/classes.html>).
/// Written it never is: the fields that stay are copied as they are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(message, optional, tag = "3")]
    segment: Option<Segment>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// Numbers of the fields that hold data, or say where it lies. They go when the data moves.
pub(super) const DATA_FIELDS: [usize; 9] = [4, 5, 6, 7, 9, 10, 11, EXTERNAL_DATA, DATA_LOCATION];
pub(super) const EXTERNAL_DATA: usize = 13;
pub(super) const DATA_LOCATION: usize = 14;
/// `DataLocation::EXTERNAL`.
pub(super) const EXTERNAL: usize = 1;

#[derive(Clone, PartialEq, Message)]
struct Segment {
    #[prost(int64, tag = "1")]
    begin: i64,
    #[prost(int64, tag = "2")]
    end: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// Where a weight lies that is in another file.
pub(super) struct Place {
    pub(super) location: String,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What a weight's data is.
pub(super) enum Data {
    /// In the model.
    Here(Bytes),
    Elsewhere(Place),
    /// Strings, types that are not known here, a part of a tensor: left as it is.
    Other,
}

impl TensorProto {
    pub(super) fn read(message: Bytes) -> Result<Self, OnnxError> {
        Self::decode(message).map_err(|error| OnnxError::Protobuf { place: "a weight", reason: error.to_string() })
    }

    pub(super) fn data(&self) -> Result<Data, OnnxError> {
        let is_elsewhere = self.data_location == EXTERNAL as i32;
        let Some(bits) = self.element_bits().filter(|_| self.segment.is_none()) else {
            let (tensor, data_type) = (self.name.clone(), self.data_type);
            return if is_elsewhere { Err(OnnxError::DataType { tensor, data_type }) } else { Ok(Data::Other) };
        };
        let needed = self.bytes(bits)?;
        if is_elsewhere {
            return self.place(needed).map(Data::Elsewhere);
        }
        let Some(data) = self.raw_data.clone().or_else(|| self.typed_data()) else { return Ok(Data::Other) };
        self.check_len(data.len() as u64, needed)?;
        Ok(Data::Here(data))
    }

    /// Bits of an element; `TensorProto.DataType` says which type has which number.
    fn element_bits(&self) -> Option<u64> {
        Some(match self.data_type {
            25 | 26 => 2,
            21..=23 => 4,
            2 | 3 | 9 | 17..=20 | 24 => 8,
            4 | 5 | 10 | 16 => 16,
            1 | 6 | 12 => 32,
            7 | 11 | 13 | 14 => 64,
            15 => 128,
            _ => return None,
        })
    }

    fn bytes(&self, bits: u64) -> Result<u64, OnnxError> {
        let elements = self.dims.iter().try_fold(1_u64, |all, &size| all.checked_mul(u64::try_from(size).ok()?));
        let all_bits = elements.and_then(|elements| elements.checked_mul(bits));
        let too_large = || OnnxError::Shape { tensor: self.name.clone(), shape: self.dims.clone() };
        Ok(all_bits.ok_or_else(too_large)?.div_ceil(8))
    }

    fn check_len(&self, found: u64, needed: u64) -> Result<(), OnnxError> {
        if found == needed {
            return Ok(());
        }
        Err(OnnxError::DataLength { tensor: self.name.clone(), found, needed })
    }

    /// The numbers of a typed field as bytes, in the order that `raw_data` has: little-endian. `None` if there is no such
    /// field, or it packs several numbers into one.
    fn typed_data(&self) -> Option<Bytes> {
        fn bytes<T: Copy, const N: usize>(numbers: &[T], of: impl Fn(T) -> [u8; N]) -> Option<Bytes> {
            (!numbers.is_empty()).then(|| numbers.iter().flat_map(|&number| of(number)).collect::<Vec<_>>().into())
        }
        match self.data_type {
            1 | 14 => bytes(&self.float_data, f32::to_le_bytes),
            6 => bytes(&self.int32_data, i32::to_le_bytes),
            4 | 5 | 10 | 16 => bytes(&self.int32_data, |number| (number as i16).to_le_bytes()),
            2 | 3 | 9 | 17..=20 | 24 => bytes(&self.int32_data, |number| (number as i8).to_le_bytes()),
            7 => bytes(&self.int64_data, i64::to_le_bytes),
            11 | 15 => bytes(&self.double_data, f64::to_le_bytes),
            12 => bytes(&self.uint64_data, |number| (number as u32).to_le_bytes()),
            13 => bytes(&self.uint64_data, u64::to_le_bytes),
            _ => None,
        }
    }

    fn place(&self, needed: u64) -> Result<Place, OnnxError> {
        let value = |key: &str| self.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let number = |key: &'static str| {
            let read = |value: &String| {
                let wrong = || OnnxError::Place { tensor: self.name.clone(), key, value: value.clone() };
                value.parse::<u64>().map_err(|_| wrong())
            };
            value(key).map(read).transpose()
        };
        let location = value("location").cloned().unwrap_or_default();
        let (offset, len) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(needed));
        self.check_len(len, needed)?;
        Ok(Place { location, offset, len })
    }
}
