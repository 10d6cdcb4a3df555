use super::{Dtype, DtypeCode};

/// Elements narrower than a byte, taken out one by one in row-major order: each is its bit pattern in the low bits.
///
/// DLPack's packing (`DLDataType` in `dlpack.h` 1.1): without padding, the first element in the lowest bits. Made by
/// [`TensorView::unpack`](crate::TensorView::unpack).
#[derive(Clone, Debug)]
pub struct Unpack<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    next: usize,
    end: usize,
}

impl<'a> Unpack<'a> {
    /// `None` for dtypes that are not 1 to 7 bits wide in one lane. `bytes` holds at least the elements.
    pub fn new(dtype: Dtype, elements: usize, bytes: &'a [u8]) -> Option<Self> {
        let packed = dtype.lanes() == 1 && dtype.bits() < 8;
        let fits = dtype.bytes_for(elements).is_some_and(|needed| needed <= bytes.len());
        (packed && fits).then_some(Self { bytes, dtype, next: 0, end: elements })
    }

    /// The elements as numbers. Each of these dtypes fits into an `f32` exactly.
    ///
    /// Integers are two's complement; floats are those of the OCP Microscaling Formats Specification 1.0, section 5.3.
    pub fn values(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        let dtype = self.dtype;
        self.map(move |pattern| value(dtype, pattern))
    }
}

impl Iterator for Unpack<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.next == self.end {
            return None;
        }
        let bits = usize::from(self.dtype.bits());
        let first = self.next * bits;
        self.next += 1;
        let byte = |index: usize| u16::from(self.bytes.get(index).copied().unwrap_or(0));
        // An element of up to 7 bits lies in one byte or in two.
        let both = byte(first / 8) | byte(first / 8 + 1) << 8;
        Some((both >> (first % 8)) as u8 & ((1 << bits) - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for Unpack<'_> {}

fn value(dtype: Dtype, pattern: u8) -> f32 {
    match dtype.code() {
        DtypeCode::Int => {
            let unused = 8 - dtype.bits();
            f32::from((pattern << unused) as i8 >> unused)
        }
        DtypeCode::Float4E2M1Fn => float(pattern, 2, 1),
        DtypeCode::Float6E2M3Fn => float(pattern, 2, 3),
        DtypeCode::Float6E3M2Fn => float(pattern, 3, 2),
        _ => f32::from(pattern),
    }
}

/// A float without infinities and NaNs, whose bias is half of its exponents.
fn float(pattern: u8, exponent_bits: u8, mantissa_bits: u8) -> f32 {
    let bias = (1 << (exponent_bits - 1)) - 1;
    let sign = if pattern >> (exponent_bits + mantissa_bits) == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(pattern >> mantissa_bits & ((1 << exponent_bits) - 1));
    let fraction = f32::from(pattern & ((1 << mantissa_bits) - 1)) / f32::from(1u8 << mantissa_bits);
    if exponent == 0 {
        sign * fraction * 2f32.powi(1 - bias)
    } else {
        sign * (1.0 + fraction) * 2f32.powi(exponent - bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers() {
        let values =
            |dtype, elements, bytes: &[u8]| Unpack::new(dtype, elements, bytes).unwrap().values().collect::<Vec<_>>();
        assert_eq!(values(Dtype::I4, 3, &[0xf1, 0x08]), [1.0, -1.0, -8.0]);
        assert_eq!(values(Dtype::U2, 5, &[0b11_10_01_00, 0b10]), [0.0, 1.0, 2.0, 3.0, 2.0]);
        assert_eq!(values(Dtype::U1, 3, &[0b101]), [1.0, 0.0, 1.0]);
        assert_eq!(values(Dtype::I1, 2, &[0b10]), [0.0, -1.0]);
        // All of e2m1: table 5 of the specification.
        let e2m1 = values(Dtype::F4_E2M1FN, 16, &[0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
        assert_eq!(e2m1[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!(e2m1[8..].iter().zip(&e2m1[..8]).all(|(below, above)| *below == -above));
        // Largest and smallest of the 6-bit floats: 011111, then 000001.
        assert_eq!(values(Dtype::F6_E2M3FN, 2, &[0b0101_1111, 0]), [7.5, 0.125]);
        assert_eq!(values(Dtype::F6_E3M2FN, 2, &[0b0101_1111, 0]), [28.0, 0.0625]);
    }

    #[test]
    fn whole_bytes_and_vectors_are_not_packed() {
        assert!(Unpack::new(Dtype::U8, 1, &[1]).is_none());
        assert!(Unpack::new(Dtype::I4.with_lanes(2).unwrap(), 1, &[1]).is_none());
        assert!(Unpack::new(Dtype::I4, 3, &[1]).is_none(), "too few bytes");
        assert_eq!(Unpack::new(Dtype::I4, 0, &[]).unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn bit_by_bit(bytes in prop::collection::vec(any::<u8>(), 0..20), bits in prop::sample::select(vec![Dtype::U1, Dtype::U2, Dtype::U4, Dtype::F6_E2M3FN])) {
            let width = usize::from(bits.bits());
            let elements = bytes.len() * 8 / width;
            let all: Vec<bool> = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
            let expected: Vec<u8> = all
                .chunks_exact(width)
                .map(|bits| bits.iter().rev().fold(0, |pattern, &bit| pattern << 1 | u8::from(bit)))
                .collect();
            prop_assert_eq!(Unpack::new(bits, elements, &bytes).unwrap().collect::<Vec<_>>(), expected);
        }
    }
}
