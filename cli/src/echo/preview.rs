use serde::Serialize;
use tensorbus::{Dtype, Tensor, TensorView};

use super::value::Value;
use crate::output::short;

/// Elements shown of each tensor.
const SHOWN: usize = 8;
/// Elements that the statistics look at; of a larger tensor as many, spread over all of it.
const SAMPLED: usize = 1 << 16;

/// The first elements of a tensor and what its values are like.
#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    /// The first elements in row-major order; of a type narrower than a byte, the first bytes.
    pub(super) values: Vec<Value>,
    /// Whether there are more.
    more: bool,
    /// What there is to say about the values, if they are numbers and there are any.
    #[serde(flatten)]
    statistics: Option<Statistics>,
}

/// Least, greatest and mean of the values that are numbers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Statistics {
    min: f64,
    max: f64,
    mean: f64,
    /// Values that are not a number.
    nan: usize,
    /// Whether only some of the elements were looked at.
    sampled: bool,
}

/// A tensor's elements, wherever its strides put them.
struct Elements<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    strides: &'a [isize],
    bytes: &'a [u8],
}

impl Preview {
    pub(super) fn of(tensor: &Tensor) -> Self {
        let elements =
            Elements { dtype: tensor.dtype(), shape: tensor.shape(), strides: tensor.strides(), bytes: tensor.bytes() };
        elements.preview()
    }

    pub(crate) fn of_view(tensor: &TensorView<'_>) -> Self {
        Elements::of(tensor).preview()
    }
}

/// All elements of a tensor in row-major order, and the number of the largest one.
pub(crate) fn all(tensor: &TensorView<'_>) -> (Vec<Value>, Option<usize>) {
    let layout = tensor.layout();
    let elements = Elements::of(tensor);
    let Some(size) = layout.dtype.element_bytes() else {
        return (tensor.bytes().iter().map(|&byte| Value::Raw(vec![byte])).collect(), None);
    };
    let value = |index| elements.element(index, size).map(|bytes| Value::decode(layout.dtype, bytes));
    let values: Vec<_> = (0..layout.elements()).map_while(value).collect();
    let numbers = values.iter().enumerate().filter_map(|(index, value)| Some((index, value.number()?)));
    let largest = numbers.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index);
    (values, largest)
}

impl std::fmt::Display for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: Vec<String> = self.values.iter().map(Value::to_string).collect();
        write!(f, "[{}{}]", values.join(" "), if self.more { " …" } else { "" })?;
        if let Some(statistics) = &self.statistics {
            let about = if statistics.sampled { "~" } else { "" };
            let [min, max, mean] = [statistics.min, statistics.max, statistics.mean].map(short);
            write!(f, "  min {about}{min}  max {about}{max}  mean {about}{mean}")?;
            if statistics.nan > 0 {
                write!(f, "  nan {about}{}", statistics.nan)?;
            }
        }
        Ok(())
    }
}

impl<'a> Elements<'a> {
    fn of(tensor: &'a TensorView<'a>) -> Self {
        let layout = tensor.layout();
        Self { dtype: layout.dtype, shape: &layout.shape, strides: &layout.strides, bytes: tensor.bytes() }
    }

    fn preview(&self) -> Preview {
        let Some(size) = self.dtype.element_bytes() else {
            let values = self.bytes.iter().take(SHOWN).map(|&byte| Value::Raw(vec![byte])).collect();
            return Preview { values, more: self.bytes.len() > SHOWN, statistics: None };
        };
        // A tensor can repeat its elements (stride 0) more often than a machine can count to.
        let count = self.shape.iter().fold(1usize, |product, &extent| product.saturating_mul(extent));
        let value = |index| self.element(index, size).map(|bytes| Value::decode(self.dtype, bytes));
        let step = count.div_ceil(SAMPLED).max(1);
        let numbers = (0..count).step_by(step).map_while(|index| value(index)?.number());
        Preview {
            values: (0..count.min(SHOWN)).map_while(value).collect(),
            more: count > SHOWN,
            statistics: Statistics::of(numbers, step > 1),
        }
    }

    /// The bytes of the element with this number in row-major order.
    fn element(&self, index: usize, size: usize) -> Option<&[u8]> {
        let mut rest = index;
        let mut position = 0isize;
        for (&extent, &stride) in self.shape.iter().zip(self.strides).rev() {
            position += (rest % extent) as isize * stride;
            rest /= extent;
        }
        let start = usize::try_from(position).ok()?.checked_mul(size)?;
        self.bytes.get(start..start.checked_add(size)?)
    }
}

impl Statistics {
    fn of(numbers: impl Iterator<Item = f64>, sampled: bool) -> Option<Self> {
        let (mut min, mut max, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        let (mut count, mut nan) = (0usize, 0);
        for number in numbers {
            if number.is_nan() {
                nan += 1;
                continue;
            }
            (min, max, sum) = (min.min(number), max.max(number), sum + number);
            count += 1;
        }
        match (count, nan) {
            (0, 0) => None,
            (0, _) => Some(Self { min: f64::NAN, max: f64::NAN, mean: f64::NAN, nan, sampled }),
            _ => Some(Self { min, max, mean: sum / count as f64, nan, sampled }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(dtype: Dtype, shape: &[usize], strides: &[isize], bytes: &[u8]) -> String {
        Elements { dtype, shape, strides, bytes }.preview().to_string()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    #[test]
    fn rows_come_before_columns_whatever_the_strides() {
        let values = bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let row_major = text(Dtype::F32, &[2, 3], &[3, 1], &values);
        assert_eq!(row_major, "[1 2 3 4 5 6]  min 1  max 6  mean 3.5");
        let column_major = text(Dtype::F32, &[2, 3], &[1, 2], &values);
        assert_eq!(column_major, "[1 3 5 2 4 6]  min 1  max 6  mean 3.5");
        let repeated = text(Dtype::F32, &[3], &[0], &bytes(&[7.0]));
        assert_eq!(repeated, "[7 7 7]  min 7  max 7  mean 7");
    }

    #[test]
    fn the_ends_of_what_tensors_can_be() {
        assert_eq!(text(Dtype::F32, &[], &[], &bytes(&[2.5])), "[2.5]  min 2.5  max 2.5  mean 2.5");
        assert_eq!(text(Dtype::F32, &[0, 3], &[3, 1], &[]), "[]");
        assert_eq!(text(Dtype::I4, &[20], &[1], &[0x21; 10]), "[0x21 0x21 0x21 0x21 0x21 0x21 0x21 0x21 …]");
        assert_eq!(text(Dtype::C64, &[1], &[1], &[0; 8]), "[0x0000000000000000]");
        assert_eq!(text(Dtype::BOOL, &[4], &[1], &[1, 0, 1, 1]), "[true false true true]  min 0  max 1  mean 0.75");
        let endless = text(Dtype::U8, &[usize::MAX, 2], &[0, 1], &[3, 5]);
        assert!(endless.starts_with("[3 5 3 5 3 5 3 5 …]  min ~3"), "{endless}");
    }

    #[test]
    fn what_is_no_number_is_counted_apart() {
        let values = bytes(&[f32::NAN, 1.0, 3.0]);
        assert_eq!(text(Dtype::F32, &[3], &[1], &values), "[nan 1 3]  min 1  max 3  mean 2  nan 1");
        assert_eq!(text(Dtype::F32, &[1], &[1], &bytes(&[f32::NAN])), "[nan]  min nan  max nan  mean nan  nan 1");
    }

    #[test]
    fn large_tensors_are_sampled() {
        let large = vec![9u8; SAMPLED * 3 + 1];
        let shown = text(Dtype::U8, &[large.len()], &[1], &large);
        assert_eq!(shown, "[9 9 9 9 9 9 9 9 …]  min ~9  max ~9  mean ~9");
    }
}
