use std::fmt;

use half::{bf16, f16};
use serde::{Serialize, Serializer};
use tensorbus::{Dtype, DtypeCode};

use crate::output::short;

/// Bytes of an element written in hexadecimal at most.
const HEX_BYTES: usize = 16;

/// One element of a tensor.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Int(i128),
    UInt(u128),
    F32(f32),
    F64(f64),
    /// Of a type that is not decoded here: its bytes as they lie in memory.
    Raw(Vec<u8>),
}

impl Value {
    /// Reads an element out of exactly its bytes.
    pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> Self {
        Self::scalar(dtype, bytes).unwrap_or_else(|| Self::Raw(bytes.to_owned()))
    }

    fn scalar(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        macro_rules! read {
            ($type:ty) => {
                <$type>::from_ne_bytes(bytes.try_into().ok()?)
            };
        }
        if dtype.lanes() != 1 {
            return None;
        }
        Some(match (dtype.code(), dtype.bits()) {
            (DtypeCode::Bool, 8) => Self::Bool(read!(u8) != 0),
            (DtypeCode::Int, 8) => Self::Int(read!(i8).into()),
            (DtypeCode::Int, 16) => Self::Int(read!(i16).into()),
            (DtypeCode::Int, 32) => Self::Int(read!(i32).into()),
            (DtypeCode::Int, 64) => Self::Int(read!(i64).into()),
            (DtypeCode::Int, 128) => Self::Int(read!(i128)),
            (DtypeCode::UInt, 8) => Self::UInt(read!(u8).into()),
            (DtypeCode::UInt, 16) => Self::UInt(read!(u16).into()),
            (DtypeCode::UInt, 32) => Self::UInt(read!(u32).into()),
            (DtypeCode::UInt, 64) => Self::UInt(read!(u64).into()),
            (DtypeCode::UInt, 128) => Self::UInt(read!(u128)),
            (DtypeCode::Float, 16) => Self::F32(read!(f16).to_f32()),
            (DtypeCode::Bfloat, 16) => Self::F32(read!(bf16).to_f32()),
            (DtypeCode::Float, 32) => Self::F32(read!(f32)),
            (DtypeCode::Float, 64) => Self::F64(read!(f64)),
            _ => return None,
        })
    }

    /// The value as a number, if it is one; a truth value counts as 0 or 1.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Int(value) => Some(*value as f64),
            Self::UInt(value) => Some(*value as f64),
            Self::F32(value) => Some(f64::from(*value)),
            Self::F64(value) => Some(*value),
            Self::Raw(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::UInt(value) => value.fmt(f),
            Self::F32(value) => f.write_str(&short(f64::from(*value))),
            Self::F64(value) => f.write_str(&short(*value)),
            Self::Raw(bytes) => {
                f.write_str("0x")?;
                bytes.iter().take(HEX_BYTES).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(if bytes.len() > HEX_BYTES { "…" } else { "" })
            }
        }
    }
}

impl Serialize for Value {
    /// Numbers as numbers, but for those that JSON readers cannot hold; these and raw bytes as text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.collect_str(self),
            },
            Self::UInt(value) => match u64::try_from(*value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.collect_str(self),
            },
            Self::Raw(_) => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_dtype_is_decoded() {
        let cases: [(Dtype, &[u8], &str); 12] = [
            (Dtype::BOOL, &[1], "true"),
            (Dtype::I8, &(-3i8).to_ne_bytes(), "-3"),
            (Dtype::I64, &i64::MIN.to_ne_bytes(), "-9223372036854775808"),
            (Dtype::U16, &65535u16.to_ne_bytes(), "65535"),
            (Dtype::U128, &u128::MAX.to_ne_bytes(), "340282366920938463463374607431768211455"),
            (Dtype::F16, &f16::from_f32(0.5).to_ne_bytes(), "0.5"),
            (Dtype::BF16, &bf16::from_f32(-1.25).to_ne_bytes(), "-1.25"),
            (Dtype::F32, &0.1f32.to_ne_bytes(), "0.1"),
            (Dtype::F64, &f64::NAN.to_ne_bytes(), "nan"),
            (Dtype::C64, &[1, 2, 3, 4, 5, 6, 7, 0xff], "0x01020304050607ff"),
            (Dtype::F8_E5M2, &[0x3c], "0x3c"),
            (Dtype::U8.with_lanes(20).unwrap(), &[7; 20], "0x07070707070707070707070707070707…"),
        ];
        for (dtype, bytes, expected) in cases {
            assert_eq!(Value::decode(dtype, bytes).to_string(), expected, "{dtype}");
        }
    }

    #[test]
    fn json_has_numbers_where_it_can() {
        let values = [
            Value::Bool(true),
            Value::Int(-5),
            Value::UInt(u128::from(u64::MAX)),
            Value::UInt(u128::MAX),
            Value::F32(0.1),
            Value::F64(f64::INFINITY),
            Value::Raw(vec![0xab]),
        ];
        assert_eq!(
            serde_json::to_string(&values).unwrap(),
            "[true,-5,18446744073709551615,\"340282366920938463463374607431768211455\",0.1,null,\"0xab\"]"
        );
    }
}
