use super::Dtype;

/// One dimension of a copy, with its steps in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Axis {
    len: usize,
    from: usize,
    to: usize,
}

/// Copies a tensor of this shape from one layout into another: elements keep their index, not their place.
///
/// Both strides are ones that [`span_bytes`](super::span_bytes) accepts, and both slices have the bytes that it says.
/// Where several indices share an element in `to`, the last one in row-major order stays.
///
/// # Panics
/// If a slice is shorter than its layout.
pub fn copy_elements(
    dtype: Dtype,
    shape: &[usize],
    (from, from_strides): (&[u8], &[isize]),
    (to, to_strides): (&mut [u8], &[isize]),
) {
    if shape.contains(&0) {
        return;
    }
    let Some(element) = dtype.element_bytes() else {
        // Packed tensors are row-major on both sides.
        to.copy_from_slice(from);
        return;
    };
    let mut axes = merged(element, shape, from_strides, to_strides);
    // What is dense on both sides is copied in runs.
    let run = match axes.last() {
        Some(&Axis { len, from, to }) if from == element && to == element => {
            axes.pop();
            len * element
        }
        _ => element,
    };
    match run {
        1 => walk(&axes, from, to, &copy_array::<1>),
        2 => walk(&axes, from, to, &copy_array::<2>),
        4 => walk(&axes, from, to, &copy_array::<4>),
        8 => walk(&axes, from, to, &copy_array::<8>),
        16 => walk(&axes, from, to, &copy_array::<16>),
        _ => walk(&axes, from, to, &|from: &[u8], to: &mut [u8]| to[..run].copy_from_slice(&from[..run])),
    }
}

/// Whether it is certain that no two indices share an element: each step is longer than all shorter ones together reach.
///
/// Layouts exist that share nothing and are refused; no slice, transpose or reshape of a dense tensor is one.
pub fn elements_are_apart(shape: &[usize], strides: &[isize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut axes: Vec<_> = strides.iter().copied().zip(shape.iter().copied()).filter(|&(_, len)| len > 1).collect();
    axes.sort_unstable();
    let mut reach = 0usize;
    axes.into_iter().all(|(stride, len)| {
        let Ok(stride) = usize::try_from(stride) else { return false };
        let apart = stride > reach;
        reach = reach.saturating_add(stride.saturating_mul(len - 1));
        apart
    })
}

/// The dimensions, outermost first; those that are one walk on both sides are one.
fn merged(element: usize, shape: &[usize], from: &[isize], to: &[isize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
    for ((&len, from), to) in shape.iter().zip(from).zip(to).filter(|((len, _), _)| **len != 1) {
        // Checked layouts: no stride is negative, and all that they reach fits into `isize` bytes.
        let axis = Axis { len, from: from.unsigned_abs() * element, to: to.unsigned_abs() * element };
        match axes.last_mut() {
            Some(outer) if outer.from == axis.from * len && outer.to == axis.to * len => {
                *outer = Axis { len: outer.len * len, ..axis };
            }
            _ => axes.push(axis),
        }
    }
    axes
}

fn walk(axes: &[Axis], from: &[u8], to: &mut [u8], copy: &impl Fn(&[u8], &mut [u8])) {
    match axes {
        [] => copy(from, to),
        [last] => {
            for index in 0..last.len {
                copy(&from[index * last.from..], &mut to[index * last.to..]);
            }
        }
        [first, inner @ ..] => {
            for index in 0..first.len {
                walk(inner, &from[index * first.from..], &mut to[index * first.to..], copy);
            }
        }
    }
}

fn copy_array<const N: usize>(from: &[u8], to: &mut [u8]) {
    to[..N].copy_from_slice(&from[..N]);
}

#[cfg(test)]
mod tests {
    use super::super::{element_count, row_major_strides, span_bytes};
    use super::*;
    use proptest::prelude::*;

    /// Index by index, the slow way.
    fn naive(shape: &[usize], strides: &[isize]) -> Vec<usize> {
        let mut offsets = vec![0usize];
        for (&len, &stride) in shape.iter().zip(strides) {
            offsets = offsets.iter().flat_map(|&at| (0..len).map(move |i| at + i * stride as usize)).collect();
        }
        offsets
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn permutation_of_dense() -> impl Strategy<Value = (Vec<usize>, Vec<isize>)> {
        prop::collection::vec(0usize..5, 0..5).prop_flat_map(|shape| {
            let dims: Vec<_> = shape.iter().copied().zip(row_major_strides(&shape).unwrap()).collect();
            Just(dims).prop_shuffle().prop_map(|dims| dims.into_iter().unzip())
        })
    }

    proptest! {
        #[test]
        fn gathering_matches_a_walk_over_all_indices(
            dims in prop::collection::vec((0usize..5, 0isize..9), 0..5),
            dtype in 0usize..Dtype::ALL.len(),
            lanes in 1u16..4,
        ) {
            let dtype = Dtype::ALL[dtype].with_lanes(lanes).unwrap();
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let Some(element) = dtype.element_bytes() else { return Ok(()) };
            let from = bytes(span_bytes(dtype, &shape, &strides).unwrap());
            let mut to = vec![0; element * element_count(&shape).unwrap()];
            copy_elements(dtype, &shape, (&from, &strides), (&mut to, &row_major_strides(&shape).unwrap()));
            let expected: Vec<u8> =
                naive(&shape, &strides).into_iter().flat_map(|at| from[at * element..][..element].to_vec()).collect();
            prop_assert_eq!(to, expected);
        }

        #[test]
        fn any_layout_goes_into_any_other((shape, strides) in permutation_of_dense(), from_strides in prop::collection::vec(0isize..9, 5)) {
            let from_strides = &from_strides[..shape.len()];
            let dtype = Dtype::U16;
            let from = bytes(span_bytes(dtype, &shape, from_strides).unwrap());
            let mut to = vec![0; span_bytes(dtype, &shape, &strides).unwrap()];
            copy_elements(dtype, &shape, (&from, from_strides), (&mut to, &strides));
            for (source, target) in naive(&shape, from_strides).into_iter().zip(naive(&shape, &strides)) {
                prop_assert_eq!(&from[2 * source..][..2], &to[2 * target..][..2]);
            }
        }

        #[test]
        fn apart_means_that_no_two_indices_share(dims in prop::collection::vec((0usize..5, 0isize..30), 0..4)) {
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let mut offsets = naive(&shape, &strides);
            let all = offsets.len();
            offsets.sort_unstable();
            offsets.dedup();
            if elements_are_apart(&shape, &strides) {
                prop_assert_eq!(offsets.len(), all);
            }
        }

        #[test]
        fn permutations_of_dense_tensors_are_apart((shape, strides) in permutation_of_dense()) {
            prop_assert!(elements_are_apart(&shape, &strides));
        }
    }

    #[test]
    fn dense_dimensions_become_one() {
        assert_eq!(merged(4, &[2, 3, 4], &[12, 4, 1], &[12, 4, 1]), [Axis { len: 24, from: 4, to: 4 }]);
        assert_eq!(merged(1, &[2, 1, 3], &[0, 7, 0], &[3, 9, 1]), [Axis { len: 6, from: 0, to: 1 }]);
        assert_eq!(merged(1, &[2, 3], &[1, 2], &[3, 1]).len(), 2);
    }

    #[test]
    fn repeated_elements_are_not_apart() {
        assert!(!elements_are_apart(&[3], &[0]));
        assert!(!elements_are_apart(&[3, 3], &[1, 2]));
        assert!(elements_are_apart(&[1, 3], &[0, 1]));
        assert!(elements_are_apart(&[0, 3], &[0, 0]));
    }
}
