//! Whether two tensors hold the same: numbers with a fraction within a tolerance, all others exactly.

use std::fmt;

use half::{bf16, f16};
use tensorbus_transport::{Dtype, TensorView};

/// Where two tensors differ.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first difference, if there is one. A number may differ by `tolerance` times its size, or by `tolerance` if it is below 1;
/// what is no number equals the same.
pub(crate) fn difference(expected: &TensorView<'_>, found: &TensorView<'_>, tolerance: f64) -> Option<Difference> {
    let (is, should) = (found.layout(), expected.layout());
    if (is.dtype, &is.shape) != (should.dtype, &should.shape) {
        let text = format!("{}{:?} in place of {}{:?}", is.dtype, is.shape, should.dtype, should.shape);
        return Some(Difference(text));
    }
    let (is, should) = (found.bytes(), expected.bytes());
    let index = match expected.layout().dtype {
        Dtype::F64 => first(should, is, f64::from_le_bytes, tolerance),
        Dtype::F32 => first(should, is, |bytes| f64::from(f32::from_le_bytes(bytes)), tolerance),
        Dtype::F16 => first(should, is, |bytes| f16::from_le_bytes(bytes).to_f64(), tolerance),
        Dtype::BF16 => first(should, is, |bytes| bf16::from_le_bytes(bytes).to_f64(), tolerance),
        dtype => return exact(dtype, should, is),
    };
    index.map(|(index, should, is)| Difference(format!("element {index} is {is} in place of {should}")))
}

fn first<const N: usize>(
    expected: &[u8],
    found: &[u8],
    number: impl Fn([u8; N]) -> f64,
    tolerance: f64,
) -> Option<(usize, f64, f64)> {
    let pairs = expected.as_chunks::<N>().0.iter().zip(found.as_chunks::<N>().0);
    let mut pairs = pairs.map(|(&expected, &found)| (number(expected), number(found))).enumerate();
    let differs = |expected: f64, found: f64| {
        // Infinities and what is no number are equal or not.
        let is_close = expected.is_finite() && (expected - found).abs() <= tolerance * expected.abs().max(1.0);
        !(is_close || expected == found || (expected.is_nan() && found.is_nan()))
    };
    let (index, (expected, found)) = pairs.find(|&(_, (expected, found))| differs(expected, found))?;
    Some((index, expected, found))
}

fn exact(dtype: Dtype, expected: &[u8], found: &[u8]) -> Option<Difference> {
    let bytes = dtype.element_bytes().unwrap_or(1);
    let index = expected.chunks(bytes).zip(found.chunks(bytes)).position(|(expected, found)| expected != found)?;
    let at = |tensor: &[u8]| {
        let element = &tensor[index * bytes..(index + 1) * bytes];
        let number = element.iter().rev().fold(0_u128, |number, &byte| number << 8 | u128::from(byte));
        format!("{number:#x}")
    };
    Some(Difference(format!("element {index} is {} in place of {}", at(found), at(expected))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_differ_a_little_and_nothing_else() {
        let of = |expected: &[f32], found: &[f32]| {
            let view = |values| TensorView::new(values, &[2], &[1]).unwrap();
            difference(&view(expected), &view(found), 1e-3).map(|difference| difference.to_string())
        };
        assert_eq!(of(&[1.0, 2000.0], &[1.0009, 2001.9]), None);
        assert_eq!(of(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]), None);
        assert_eq!(of(&[1.0, 2000.0], &[1.0, 2003.0]).unwrap(), "element 1 is 2003 in place of 2000");
        assert!(of(&[1.0, f32::INFINITY], &[1.0, f32::NEG_INFINITY]).is_some());
        assert!(of(&[1.0, 1.0], &[1.0, f32::NAN]).is_some());
        assert!(of(&[0.0, f32::INFINITY], &[0.0, 1e30]).is_some());
        let integers = |values| TensorView::new(values, &[1], &[1]).unwrap();
        let exact = difference(&integers(&[1_i64 << 60]), &integers(&[(1_i64 << 60) + 1]), 1.0);
        assert_eq!(exact.unwrap().to_string(), "element 0 is 0x1000000000000001 in place of 0x1000000000000000");
        let row = TensorView::new(&[1_i64, 2], &[1, 2], &[2, 1]).unwrap();
        assert!(difference(&row, &integers(&[1_i64, 2]), 1.0).is_some());
    }
}
