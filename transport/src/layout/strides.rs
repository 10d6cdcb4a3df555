use super::{Dtype, LayoutError, MAX_RANK};

/// Elements that a shape holds: the product of its dimensions, 1 for rank 0; `None` if that overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &dimension| product.checked_mul(dimension))
}

/// Strides in elements of a dense tensor whose last dimension varies fastest (C order).
///
/// Dimensions of size 0 count as 1, as NumPy does it. `None` if a stride does not fit into `isize`.
pub fn row_major_strides(shape: &[usize]) -> Option<Vec<isize>> {
    let mut strides = dense(shape.iter().rev())?;
    strides.reverse();
    Some(strides)
}

/// Strides in elements of a dense tensor whose first dimension varies fastest (Fortran order).
///
/// Dimensions of size 0 count as 1, as NumPy does it. `None` if a stride does not fit into `isize`.
pub fn column_major_strides(shape: &[usize]) -> Option<Vec<isize>> {
    dense(shape.iter())
}

fn dense<'a>(fastest_first: impl Iterator<Item = &'a usize>) -> Option<Vec<isize>> {
    let mut next = 1isize;
    fastest_first
        .map(|&dimension| {
            let stride = next;
            next = next.checked_mul(isize::try_from(dimension.max(1)).ok()?)?;
            Some(stride)
        })
        .collect()
}

/// Whether the elements lie densely in C order. Strides of dimensions of size 1 do not matter, nor any of an empty tensor.
pub fn is_row_major(shape: &[usize], strides: &[isize]) -> bool {
    is_dense(shape.iter().zip(strides).rev(), shape)
}

/// Whether the elements lie densely in Fortran order. Strides of dimensions of size 1 do not matter, nor any of an empty tensor.
pub fn is_column_major(shape: &[usize], strides: &[isize]) -> bool {
    is_dense(shape.iter().zip(strides), shape)
}

fn is_dense<'a>(fastest_first: impl Iterator<Item = (&'a usize, &'a isize)>, shape: &[usize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1usize;
    for (&dimension, &stride) in fastest_first {
        if dimension != 1 && usize::try_from(stride) != Ok(expected) {
            return false;
        }
        expected = expected.saturating_mul(dimension);
    }
    true
}

/// Bytes from a tensor's first element to the end of its last one: what it needs in a message.
///
/// An empty tensor needs none. A stride of 0 repeats elements and costs nothing.
///
/// # Errors
/// [`LayoutError`] if rank, strides or size are not ones that a message can carry.
pub fn span_bytes(dtype: Dtype, shape: &[usize], strides: &[isize]) -> Result<usize, LayoutError> {
    if shape.len() > MAX_RANK {
        return Err(LayoutError::TooManyDimensions { rank: shape.len() });
    }
    if strides.len() != shape.len() {
        return Err(LayoutError::StridesDoNotMatchShape { rank: shape.len(), strides: strides.len() });
    }
    let too_big = || LayoutError::SizeOverflows { dtype, shape: shape.to_vec() };
    let mut last = 0usize;
    for (&dimension, &stride) in shape.iter().zip(strides) {
        let stride = usize::try_from(stride).map_err(|_| LayoutError::NegativeStride { strides: strides.to_vec() })?;
        let reach = dimension.saturating_sub(1).checked_mul(stride).ok_or_else(too_big)?;
        last = last.checked_add(reach).ok_or_else(too_big)?;
    }
    let elements = element_count(shape).ok_or_else(too_big)?;
    if dtype.element_bytes().is_none() && !is_row_major(shape, strides) {
        return Err(LayoutError::PackedNeedsRowMajor { dtype });
    }
    if elements == 0 {
        return Ok(0);
    }
    let bytes = dtype.bytes_for(last.checked_add(1).ok_or_else(too_big)?).ok_or_else(too_big)?;
    if bytes > isize::MAX as usize { Err(too_big()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_layouts() {
        assert_eq!(row_major_strides(&[2, 3, 4]), Some(vec![12, 4, 1]));
        assert_eq!(column_major_strides(&[2, 3, 4]), Some(vec![1, 2, 6]));
        assert_eq!(row_major_strides(&[]), Some(vec![]));
        assert_eq!(row_major_strides(&[2, 0, 3]), Some(vec![3, 3, 1]));
        assert_eq!(span_bytes(Dtype::F32, &[], &[]), Ok(4));
        assert_eq!(span_bytes(Dtype::F32, &[3, 0], &[1, 1]), Ok(0));
        assert_eq!(span_bytes(Dtype::F32, &[1000, 1000], &[0, 0]), Ok(4));
        assert_eq!(span_bytes(Dtype::I4, &[3], &[1]), Ok(2));
    }

    #[test]
    fn what_cannot_travel_is_named() {
        let overflow = span_bytes(Dtype::F32, &[usize::MAX, 2], &[2, 1]);
        assert!(matches!(overflow, Err(LayoutError::SizeOverflows { .. })), "{overflow:?}");
        assert!(matches!(span_bytes(Dtype::U8, &[2], &[-1]), Err(LayoutError::NegativeStride { .. })));
        assert!(matches!(span_bytes(Dtype::I4, &[2, 2], &[1, 2]), Err(LayoutError::PackedNeedsRowMajor { .. })));
        assert!(matches!(span_bytes(Dtype::U8, &[2], &[]), Err(LayoutError::StridesDoNotMatchShape { .. })));
        assert!(matches!(span_bytes(Dtype::U8, &[1; 33], &[1; 33]), Err(LayoutError::TooManyDimensions { rank: 33 })));
    }

    /// Walks over every index; the largest offset reached is what the formula must give.
    fn naive_last(shape: &[usize], strides: &[isize]) -> usize {
        let mut offsets = vec![0usize];
        for (&dimension, &stride) in shape.iter().zip(strides) {
            offsets = offsets.iter().flat_map(|&o| (0..dimension).map(move |i| o + i * stride as usize)).collect();
        }
        offsets.into_iter().max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn span_matches_a_walk_over_all_elements(dims in prop::collection::vec((0usize..5, 0isize..9), 0..5)) {
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let expected = if shape.contains(&0) { 0 } else { 2 * (naive_last(&shape, &strides) + 1) };
            prop_assert_eq!(span_bytes(Dtype::U16, &shape, &strides), Ok(expected));
        }

        #[test]
        fn dense_strides_are_recognised(shape in prop::collection::vec(0usize..6, 0..5)) {
            let (rows, columns) = (row_major_strides(&shape).unwrap(), column_major_strides(&shape).unwrap());
            prop_assert!(is_row_major(&shape, &rows));
            prop_assert!(is_column_major(&shape, &columns));
            let elements = element_count(&shape).unwrap();
            prop_assert_eq!(span_bytes(Dtype::U8, &shape, &rows), Ok(elements));
            prop_assert_eq!(span_bytes(Dtype::U8, &shape, &columns), Ok(elements));
        }

        #[test]
        fn any_numbers_give_an_answer(dims in prop::collection::vec(any::<(usize, isize)>(), 0..40), bits in 0usize..36) {
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let _ = span_bytes(Dtype::ALL[bits], &shape, &strides);
        }
    }
}
