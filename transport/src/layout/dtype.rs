use std::fmt;
use std::str::FromStr;

/// What one element of a tensor is: DLPack's type code, its width in bits, and the number of lanes.
///
/// Codes and packing follow DLPack 1.1 (`DLDataTypeCode` in `dlpack.h`): elements narrower than a byte are packed
/// without padding, the first element in the lowest bits. Opaque handles are the one DLPack code that has no place
/// here: they are addresses and mean nothing in another process.
///
/// ```
/// use tensorbus_transport::Dtype;
///
/// assert_eq!(Dtype::F32.bits(), 32);
/// assert_eq!("bf16".parse(), Ok(Dtype::BF16));
/// assert_eq!(Dtype::I4.bytes_for(3), Some(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dtype {
    code: DtypeCode,
    bits: u8,
    lanes: u16,
}

/// DLPack's type codes (`DLDataTypeCode`), without the opaque handle.
#[allow(missing_docs)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum DtypeCode {
    Int = 0,
    UInt = 1,
    Float = 2,
    Bfloat = 4,
    Complex = 5,
    Bool = 6,
    Float8E3M4 = 7,
    Float8E4M3 = 8,
    Float8E4M3B11Fnuz = 9,
    Float8E4M3Fn = 10,
    Float8E4M3Fnuz = 11,
    Float8E5M2 = 12,
    Float8E5M2Fnuz = 13,
    Float8E8M0Fnu = 14,
    Float6E2M3Fn = 15,
    Float6E3M2Fn = 16,
    Float4E2M1Fn = 17,
}

impl DtypeCode {
    /// The code for DLPack's number, if it is one that can travel.
    pub fn from_dlpack(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Int,
            1 => Self::UInt,
            2 => Self::Float,
            4 => Self::Bfloat,
            5 => Self::Complex,
            6 => Self::Bool,
            7 => Self::Float8E3M4,
            8 => Self::Float8E4M3,
            9 => Self::Float8E4M3B11Fnuz,
            10 => Self::Float8E4M3Fn,
            11 => Self::Float8E4M3Fnuz,
            12 => Self::Float8E5M2,
            13 => Self::Float8E5M2Fnuz,
            14 => Self::Float8E8M0Fnu,
            15 => Self::Float6E2M3Fn,
            16 => Self::Float6E3M2Fn,
            17 => Self::Float4E2M1Fn,
            _ => return None,
        })
    }

    /// Element widths in bits that exist for this code.
    fn widths(self) -> &'static [u8] {
        match self {
            Self::Int | Self::UInt => &[1, 2, 4, 8, 16, 32, 64, 128],
            Self::Float => &[16, 32, 64, 128],
            Self::Bfloat => &[16],
            Self::Complex => &[32, 64, 128],
            Self::Bool => &[8],
            Self::Float6E2M3Fn | Self::Float6E3M2Fn => &[6],
            Self::Float4E2M1Fn => &[4],
            _ => &[8],
        }
    }

    /// Name without the width, or with it where the name holds it.
    fn stem(self) -> &'static str {
        match self {
            Self::Int => "i",
            Self::UInt => "u",
            Self::Float => "f",
            Self::Bfloat => "bf",
            Self::Complex => "c",
            Self::Bool => "bool",
            Self::Float8E3M4 => "f8_e3m4",
            Self::Float8E4M3 => "f8_e4m3",
            Self::Float8E4M3B11Fnuz => "f8_e4m3b11fnuz",
            Self::Float8E4M3Fn => "f8_e4m3fn",
            Self::Float8E4M3Fnuz => "f8_e4m3fnuz",
            Self::Float8E5M2 => "f8_e5m2",
            Self::Float8E5M2Fnuz => "f8_e5m2fnuz",
            Self::Float8E8M0Fnu => "f8_e8m0fnu",
            Self::Float6E2M3Fn => "f6_e2m3fn",
            Self::Float6E3M2Fn => "f6_e3m2fn",
            Self::Float4E2M1Fn => "f4_e2m1fn",
        }
    }

    fn width_follows_stem(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Float | Self::Bfloat | Self::Complex)
    }
}

/// Three numbers that are no element type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DtypeError {
    /// The code is unknown, or that of an opaque handle.
    #[error("type code {code} is not one that tensors can have; DLPack's codes 0 to 17 without 3 (opaque handle) are")]
    UnknownCode {
        /// DLPack's number for the code.
        code: u8,
    },
    /// The code exists, but not in this width.
    #[error("{code:?} has no width of {bits} bits; it has {:?}", code.widths())]
    NoSuchWidth {
        /// The element's code.
        code: DtypeCode,
        /// The width asked for.
        bits: u8,
    },
    /// An element has at least one lane.
    #[error("a dtype has at least one lane")]
    NoLanes,
    /// The text names no dtype.
    #[error("unknown dtype; names are like u8, f32, bf16, bool, c64, i4, f8_e4m3fn, with lanes as in f32x4")]
    UnknownName,
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $bits:literal;)*) => {
        impl Dtype {
            $($(#[$doc])* pub const $name: Dtype = Dtype { code: DtypeCode::$code, bits: $bits, lanes: 1 };)*

            /// Every dtype that has a name of its own here, with one lane.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$name),*];
        }
    };
}

named! {
    /// Truth value, one byte, 0 or 1.
    BOOL = Bool, 8;
    /// Signed integer of 1 bit, packed.
    I1 = Int, 1;
    /// Signed integer of 2 bits, packed.
    I2 = Int, 2;
    /// Signed integer of 4 bits, packed.
    I4 = Int, 4;
    /// Signed integer of 8 bits.
    I8 = Int, 8;
    /// Signed integer of 16 bits.
    I16 = Int, 16;
    /// Signed integer of 32 bits.
    I32 = Int, 32;
    /// Signed integer of 64 bits.
    I64 = Int, 64;
    /// Signed integer of 128 bits.
    I128 = Int, 128;
    /// Unsigned integer of 1 bit, packed.
    U1 = UInt, 1;
    /// Unsigned integer of 2 bits, packed.
    U2 = UInt, 2;
    /// Unsigned integer of 4 bits, packed.
    U4 = UInt, 4;
    /// Unsigned integer of 8 bits.
    U8 = UInt, 8;
    /// Unsigned integer of 16 bits.
    U16 = UInt, 16;
    /// Unsigned integer of 32 bits.
    U32 = UInt, 32;
    /// Unsigned integer of 64 bits.
    U64 = UInt, 64;
    /// Unsigned integer of 128 bits.
    U128 = UInt, 128;
    /// IEEE 754 half precision.
    F16 = Float, 16;
    /// IEEE 754 single precision.
    F32 = Float, 32;
    /// IEEE 754 double precision.
    F64 = Float, 64;
    /// IEEE 754 quadruple precision.
    F128 = Float, 128;
    /// Brain float: the upper half of an `f32`.
    BF16 = Bfloat, 16;
    /// Complex number of two `f16`.
    C32 = Complex, 32;
    /// Complex number of two `f32`.
    C64 = Complex, 64;
    /// Complex number of two `f64`.
    C128 = Complex, 128;
    /// 8-bit float, 3 exponent and 4 mantissa bits.
    F8_E3M4 = Float8E3M4, 8;
    /// 8-bit float, 4 exponent and 3 mantissa bits.
    F8_E4M3 = Float8E4M3, 8;
    /// 8-bit float e4m3 with bias 11, finite, no negative zero.
    F8_E4M3B11FNUZ = Float8E4M3B11Fnuz, 8;
    /// 8-bit float e4m3, finite.
    F8_E4M3FN = Float8E4M3Fn, 8;
    /// 8-bit float e4m3, finite, no negative zero.
    F8_E4M3FNUZ = Float8E4M3Fnuz, 8;
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8_E5M2 = Float8E5M2, 8;
    /// 8-bit float e5m2, finite, no negative zero.
    F8_E5M2FNUZ = Float8E5M2Fnuz, 8;
    /// 8-bit power of two: the scale factor of microscaling formats.
    F8_E8M0FNU = Float8E8M0Fnu, 8;
    /// 6-bit float e2m3, packed.
    F6_E2M3FN = Float6E2M3Fn, 6;
    /// 6-bit float e3m2, packed.
    F6_E3M2FN = Float6E3M2Fn, 6;
    /// 4-bit float e2m1, packed.
    F4_E2M1FN = Float4E2M1Fn, 4;
}

impl Dtype {
    /// The dtype of DLPack's three numbers.
    ///
    /// # Errors
    /// [`DtypeError`] if the code is unknown, has no such width, or `lanes` is 0.
    pub fn from_dlpack(code: u8, bits: u8, lanes: u16) -> Result<Self, DtypeError> {
        let code = DtypeCode::from_dlpack(code).ok_or(DtypeError::UnknownCode { code })?;
        if !code.widths().contains(&bits) {
            return Err(DtypeError::NoSuchWidth { code, bits });
        }
        if lanes == 0 {
            return Err(DtypeError::NoLanes);
        }
        Ok(Self { code, bits, lanes })
    }

    /// The same element `lanes` times, as one element (a vector type).
    ///
    /// # Errors
    /// [`DtypeError::NoLanes`] if `lanes` is 0.
    pub fn with_lanes(self, lanes: u16) -> Result<Self, DtypeError> {
        Self::from_dlpack(self.code as u8, self.bits, lanes)
    }

    /// DLPack's type code.
    pub fn code(self) -> DtypeCode {
        self.code
    }

    /// Width of one lane in bits.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Lanes an element has; 1 for all but vector types.
    pub fn lanes(self) -> u16 {
        self.lanes
    }

    /// Width of a whole element in bits: lanes times bits.
    pub fn element_bits(self) -> usize {
        usize::from(self.bits) * usize::from(self.lanes)
    }

    /// Bytes of one element, or `None` if elements do not begin on byte boundaries.
    pub fn element_bytes(self) -> Option<usize> {
        self.element_bits().is_multiple_of(8).then(|| self.element_bits() / 8)
    }

    /// What an element's address has to be a multiple of, in bytes: its size, for complex numbers that of a part.
    pub fn alignment(self) -> usize {
        let bits = usize::from(self.bits);
        let parts = if self.code == DtypeCode::Complex { 2 } else { 1 };
        if bits < 8 { 1 } else { bits / 8 / parts }
    }

    /// Bytes that `elements` packed elements take, rounded up to whole bytes; `None` if that overflows.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        match self.element_bytes() {
            Some(bytes) => elements.checked_mul(bytes),
            None => Some(elements.checked_mul(self.element_bits())?.div_ceil(8)),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.stem())?;
        if self.code.width_follows_stem() {
            write!(f, "{}", self.bits)?;
        }
        if self.lanes != 1 {
            write!(f, "x{}", self.lanes)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Dtype {
    type Err = DtypeError;

    fn from_str(text: &str) -> Result<Self, DtypeError> {
        let (name, lanes) = match text.rsplit_once('x') {
            Some((name, lanes)) => (name, lanes.parse().map_err(|_| DtypeError::UnknownName)?),
            None => (text, 1),
        };
        let named = Self::ALL.iter().find(|dtype| dtype.to_string() == name).ok_or(DtypeError::UnknownName)?;
        named.with_lanes(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_dlpack_numbers_round_trip() {
        for &dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
            assert_eq!(Dtype::from_dlpack(dtype.code as u8, dtype.bits, dtype.lanes), Ok(dtype));
            let vector = dtype.with_lanes(4).unwrap();
            assert_eq!(vector.to_string().parse(), Ok(vector));
        }
        assert_eq!(Dtype::ALL.len(), 36);
    }

    #[test]
    fn sub_byte_elements_are_packed() {
        assert_eq!(Dtype::F6_E2M3FN.bytes_for(4), Some(3));
        assert_eq!(Dtype::U1.bytes_for(9), Some(2));
        assert_eq!(Dtype::I4.element_bytes(), None);
        assert_eq!(Dtype::I4.with_lanes(2).unwrap().element_bytes(), Some(1));
        assert_eq!(Dtype::F64.bytes_for(usize::MAX), None);
    }

    #[test]
    fn alignments_are_those_of_the_parts() {
        let of = [Dtype::BOOL, Dtype::I4, Dtype::F6_E2M3FN, Dtype::BF16, Dtype::C64, Dtype::C128, Dtype::U128];
        assert_eq!(of.map(Dtype::alignment), [1, 1, 1, 2, 4, 8, 16]);
        assert_eq!(Dtype::F32.with_lanes(4).unwrap().alignment(), 4);
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(Dtype::from_dlpack(3, 64, 1), Err(DtypeError::UnknownCode { code: 3 }));
        assert_eq!(Dtype::from_dlpack(2, 8, 1), Err(DtypeError::NoSuchWidth { code: DtypeCode::Float, bits: 8 }));
        assert_eq!(Dtype::from_dlpack(2, 32, 0), Err(DtypeError::NoLanes));
        assert_eq!("f33".parse::<Dtype>(), Err(DtypeError::UnknownName));
    }
}
