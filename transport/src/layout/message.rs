use super::{
    ALIGNMENT, Dtype, MAX_NAME_BYTES, MAX_TENSORS, column_major_strides, element_count, is_column_major, is_row_major,
    row_major_strides, span_bytes,
};

/// Name of the tensor in a message that was loaned with a dtype and a shape only.
pub const DEFAULT_TENSOR_NAME: &str = "tensor";

/// A tensor that a publisher wants room for: name, dtype, shape and the order of its elements.
///
/// ```
/// use tensorbus_transport::{Dtype, TensorSpec};
///
/// let batch = TensorSpec::new("batch", Dtype::F32, &[8, 1, 28, 28]);
/// let image = TensorSpec::new("image", Dtype::U8, &[1080, 1920, 3]).column_major();
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    order: Order,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Order {
    RowMajor,
    ColumnMajor,
    Strides(Vec<isize>),
}

impl TensorSpec {
    /// A dense tensor in row-major (C) order.
    pub fn new(name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec(), order: Order::RowMajor }
    }

    /// Dense, but in column-major (Fortran) order.
    pub fn column_major(mut self) -> Self {
        self.order = Order::ColumnMajor;
        self
    }

    /// These strides, in elements. None may be negative; 0 repeats elements.
    pub fn strides(mut self, strides: &[isize]) -> Self {
        self.order = Order::Strides(strides.to_vec());
        self
    }
}

/// One tensor of a message: what it is and where it lies in the message's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorLayout {
    /// Name, unique in its message.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// Step of each dimension, in elements; never negative.
    pub strides: Vec<isize>,
    /// Offset of the first byte from the start of the data, a multiple of [`ALIGNMENT`].
    pub offset: usize,
    /// Bytes from the first element to the end of the last one.
    pub len: usize,
}

impl TensorLayout {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        element_count(&self.shape).unwrap_or(0)
    }

    /// Whether the elements lie densely in C order.
    pub fn is_row_major(&self) -> bool {
        is_row_major(&self.shape, &self.strides)
    }

    /// Whether the elements lie densely in Fortran order.
    pub fn is_column_major(&self) -> bool {
        is_column_major(&self.shape, &self.strides)
    }
}

/// All tensors of a message, in the order in which they lie, not overlapping.
///
/// A value of this type is always valid: it is made from specs by [`MessageLayout::pack`] or checked by
/// [`MessageLayout::check`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageLayout {
    tensors: Vec<TensorLayout>,
    data_len: usize,
}

/// Tensors that no message can carry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A message without tensors.
    #[error("a message needs at least one tensor")]
    NoTensors,
    /// More tensors than [`MAX_TENSORS`].
    #[error(
        "{tensors} tensors are more than a message can carry ({MAX_TENSORS}); send several messages or stack tensors of one shape"
    )]
    TooManyTensors {
        /// Tensors asked for.
        tensors: usize,
    },
    /// Rank above [`MAX_RANK`](super::MAX_RANK).
    #[error("{rank} dimensions are more than a tensor can have ({max}); merge some by a reshape", max = super::MAX_RANK)]
    TooManyDimensions {
        /// Dimensions asked for.
        rank: usize,
    },
    /// A name is empty or longer than [`MAX_NAME_BYTES`].
    #[error("tensor name {name:?} must have 1 to {MAX_NAME_BYTES} bytes")]
    NameLength {
        /// The name.
        name: String,
    },
    /// Two tensors of a message have the same name.
    #[error("two tensors of the message are called {name:?}; give each its own name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Not one stride for each dimension.
    #[error("{strides} strides for {rank} dimensions; give one for each")]
    StridesDoNotMatchShape {
        /// Dimensions.
        rank: usize,
        /// Strides.
        strides: usize,
    },
    /// A stride below zero.
    #[error("strides {strides:?} go backwards; copy the tensor into row-major order first")]
    NegativeStride {
        /// All strides, in elements.
        strides: Vec<isize>,
    },
    /// Elements narrower than a byte in another order than C.
    #[error("{dtype} elements are packed into bytes and can only be dense in row-major order; copy the tensor first")]
    PackedNeedsRowMajor {
        /// The packed dtype.
        dtype: Dtype,
    },
    /// The size in bytes does not fit into an address.
    #[error("a {dtype} tensor of shape {shape:?} is larger than memory can be")]
    SizeOverflows {
        /// Type of the elements.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A tensor does not begin at a multiple of [`ALIGNMENT`].
    #[error("tensor {name:?} begins at byte {offset}, which is not a multiple of {ALIGNMENT}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset in the data.
        offset: usize,
    },
    /// A tensor begins before the one in front of it ends.
    #[error("tensor {name:?} begins at byte {offset}, inside the tensor before it, which ends at {previous_end}")]
    Overlaps {
        /// The tensor.
        name: String,
        /// Its offset in the data.
        offset: usize,
        /// End of the tensor before it.
        previous_end: usize,
    },
    /// A tensor's stated length is not what its shape and strides need.
    #[error("tensor {name:?} is said to have {stated} bytes, but its shape and strides need {needed}")]
    WrongLength {
        /// The tensor.
        name: String,
        /// Bytes that were stated.
        stated: usize,
        /// Bytes that shape, strides and dtype need.
        needed: usize,
    },
}

impl MessageLayout {
    /// Lays the tensors out one after another, each aligned to [`ALIGNMENT`].
    ///
    /// # Errors
    /// [`LayoutError`] if a tensor or the whole cannot be carried by a message.
    pub fn pack(specs: &[TensorSpec]) -> Result<Self, LayoutError> {
        let mut end = 0usize;
        let tensors = specs
            .iter()
            .map(|spec| {
                let too_big = || LayoutError::SizeOverflows { dtype: spec.dtype, shape: spec.shape.clone() };
                let strides = match &spec.order {
                    Order::RowMajor => row_major_strides(&spec.shape).ok_or_else(too_big)?,
                    Order::ColumnMajor => column_major_strides(&spec.shape).ok_or_else(too_big)?,
                    Order::Strides(strides) => strides.clone(),
                };
                let len = span_bytes(spec.dtype, &spec.shape, &strides)?;
                let offset = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_big)?;
                end = offset.checked_add(len).ok_or_else(too_big)?;
                let (name, shape) = (spec.name.clone(), spec.shape.clone());
                Ok(TensorLayout { name, dtype: spec.dtype, shape, strides, offset, len })
            })
            .collect::<Result<_, _>>()?;
        Self::check(tensors)
    }

    /// Takes tensors as somebody else laid them out, after checking every rule.
    ///
    /// # Errors
    /// [`LayoutError`] names the first rule that is broken.
    pub fn check(tensors: Vec<TensorLayout>) -> Result<Self, LayoutError> {
        if tensors.is_empty() {
            return Err(LayoutError::NoTensors);
        }
        if tensors.len() > MAX_TENSORS {
            return Err(LayoutError::TooManyTensors { tensors: tensors.len() });
        }
        let mut end = 0usize;
        for (index, tensor) in tensors.iter().enumerate() {
            let name = || tensor.name.clone();
            if tensor.name.is_empty() || tensor.name.len() > MAX_NAME_BYTES {
                return Err(LayoutError::NameLength { name: name() });
            }
            if tensors[..index].iter().any(|earlier| earlier.name == tensor.name) {
                return Err(LayoutError::DuplicateName { name: name() });
            }
            let needed = span_bytes(tensor.dtype, &tensor.shape, &tensor.strides)?;
            if tensor.len != needed {
                return Err(LayoutError::WrongLength { name: name(), stated: tensor.len, needed });
            }
            if !tensor.offset.is_multiple_of(ALIGNMENT) {
                return Err(LayoutError::Misaligned { name: name(), offset: tensor.offset });
            }
            if tensor.offset < end {
                return Err(LayoutError::Overlaps { name: name(), offset: tensor.offset, previous_end: end });
            }
            end = tensor
                .offset
                .checked_add(needed)
                .ok_or_else(|| LayoutError::SizeOverflows { dtype: tensor.dtype, shape: tensor.shape.clone() })?;
        }
        Ok(Self { tensors, data_len: end })
    }

    /// The tensors, in the order in which they lie.
    pub fn tensors(&self) -> &[TensorLayout] {
        &self.tensors
    }

    /// Bytes of data: the end of the last tensor.
    pub fn data_len(&self) -> usize {
        self.data_len
    }

    /// Place of the tensor of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|tensor| tensor.name == name)
    }

    /// Whether this is one dense row-major tensor with the default name, and of this dtype and shape.
    pub(crate) fn is_single(&self, dtype: Dtype, shape: &[usize]) -> bool {
        matches!(&self.tensors[..], [only] if only.dtype == dtype
            && only.shape == shape
            && only.name == DEFAULT_TENSOR_NAME
            && only.is_row_major())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> impl Strategy<Value = TensorSpec> {
        (0..Dtype::ALL.len(), prop::collection::vec(0usize..7, 0..5), any::<bool>()).prop_map(
            |(dtype, shape, column)| {
                let dtype = Dtype::ALL[dtype];
                let spec = TensorSpec::new("", dtype, &shape);
                if column && dtype.element_bytes().is_some() { spec.column_major() } else { spec }
            },
        )
    }

    proptest! {
        #[test]
        fn packed_tensors_are_aligned_and_apart(specs in prop::collection::vec(spec(), 1..9)) {
            let specs: Vec<_> = specs
                .into_iter()
                .enumerate()
                .map(|(i, spec)| TensorSpec { name: format!("t{i}"), ..spec })
                .collect();
            let layout = MessageLayout::pack(&specs).unwrap();
            let mut used = vec![false; layout.data_len()];
            for tensor in layout.tensors() {
                prop_assert_eq!(tensor.offset % ALIGNMENT, 0);
                for byte in &mut used[tensor.offset..tensor.offset + tensor.len] {
                    prop_assert!(!*byte, "two tensors share a byte");
                    *byte = true;
                }
            }
            prop_assert_eq!(MessageLayout::check(layout.tensors().to_vec()), Ok(layout));
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let good =
            MessageLayout::pack(&[TensorSpec::new("a", Dtype::F32, &[3]), TensorSpec::new("b", Dtype::U8, &[5])])
                .unwrap();
        let broken = |change: fn(&mut Vec<TensorLayout>)| {
            let mut tensors = good.tensors().to_vec();
            change(&mut tensors);
            MessageLayout::check(tensors).unwrap_err()
        };
        assert_eq!(broken(Vec::clear), LayoutError::NoTensors);
        assert!(matches!(broken(|t| t[1].name = "a".into()), LayoutError::DuplicateName { .. }));
        assert!(matches!(broken(|t| t[1].name.clear()), LayoutError::NameLength { .. }));
        assert!(matches!(broken(|t| t[1].offset = 8), LayoutError::Misaligned { .. }));
        assert!(matches!(broken(|t| t[1].offset = 0), LayoutError::Overlaps { .. }));
        assert!(matches!(broken(|t| t[0].len = 13), LayoutError::WrongLength { stated: 13, needed: 12, .. }));
        assert!(matches!(broken(|t| t[0].shape = vec![usize::MAX; 3]), LayoutError::StridesDoNotMatchShape { .. }));
        let many = |n: usize| (0..n).map(|i| TensorSpec::new(&i.to_string(), Dtype::U8, &[])).collect::<Vec<_>>();
        assert!(MessageLayout::pack(&many(MAX_TENSORS)).is_ok());
        assert_eq!(MessageLayout::pack(&many(65)).unwrap_err(), LayoutError::TooManyTensors { tensors: 65 });
    }
}
