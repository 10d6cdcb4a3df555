//! The dtypes of safetensors and ours.

use safetensors::Dtype as Stored;
use tensorbus_transport::Dtype;

const PAIRS: [(Stored, Dtype); 22] = [
    (Stored::BOOL, Dtype::BOOL),
    (Stored::F4, Dtype::F4_E2M1FN),
    (Stored::F6_E2M3, Dtype::F6_E2M3FN),
    (Stored::F6_E3M2, Dtype::F6_E3M2FN),
    (Stored::U8, Dtype::U8),
    (Stored::I8, Dtype::I8),
    (Stored::F8_E5M2, Dtype::F8_E5M2),
    (Stored::F8_E4M3, Dtype::F8_E4M3FN),
    (Stored::F8_E8M0, Dtype::F8_E8M0FNU),
    (Stored::F8_E4M3FNUZ, Dtype::F8_E4M3FNUZ),
    (Stored::F8_E5M2FNUZ, Dtype::F8_E5M2FNUZ),
    (Stored::I16, Dtype::I16),
    (Stored::U16, Dtype::U16),
    (Stored::F16, Dtype::F16),
    (Stored::BF16, Dtype::BF16),
    (Stored::I32, Dtype::I32),
    (Stored::U32, Dtype::U32),
    (Stored::F32, Dtype::F32),
    (Stored::C64, Dtype::C64),
    (Stored::F64, Dtype::F64),
    (Stored::I64, Dtype::I64),
    (Stored::U64, Dtype::U64),
];

pub(super) fn from_stored(stored: Stored) -> Option<Dtype> {
    PAIRS.iter().find(|(theirs, _)| *theirs == stored).map(|(_, ours)| *ours)
}

pub(super) fn to_stored(dtype: Dtype) -> Option<Stored> {
    PAIRS.iter().find(|(_, ours)| *ours == dtype).map(|(theirs, _)| *theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_agree() {
        for (stored, dtype) in PAIRS {
            assert_eq!(stored.bitsize(), dtype.element_bits(), "{stored}");
            assert_eq!(from_stored(stored), Some(dtype));
            assert_eq!(to_stored(dtype), Some(stored));
        }
        assert_eq!(to_stored(Dtype::I4), None);
    }
}
