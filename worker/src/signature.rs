use std::fmt;

use tensorbus_transport::Dtype;

/// What a model takes and gives: its named inputs and outputs, and whether requests can be stacked.
///
/// ```
/// use tensorbus_transport::Dtype;
/// use tensorbus_worker::{Signature, TensorInfo};
///
/// let image = TensorInfo::new("image", Dtype::F32, &[-1, 1, 8, 8]);
/// let logits = TensorInfo::new("logits", Dtype::F32, &[-1, 10]);
/// let signature = Signature::new(vec![image], vec![logits])?.batched()?;
/// assert_eq!(signature.to_string(), "image f32[?, 1, 8, 8] -> logits f32[?, 10], by rows");
/// # Ok::<(), tensorbus_worker::SignatureError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    batched: bool,
}

/// One input or output of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Name, unique among the inputs or the outputs.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// The dimensions. `None`: any number of any size.
    pub dims: Option<Vec<Dim>>,
}

/// A dimension of an input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dim {
    /// This size and no other.
    Fixed(usize),
    /// Any size, which the model has a name for.
    Named(String),
    /// Any size.
    Any,
}

/// Inputs and outputs that no model can have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A model without an output computes nothing.
    #[error("a model needs at least one output")]
    NoOutputs,
    /// Two inputs, or two outputs, have the same name.
    #[error("two {what}s are called {name:?}; give each its own name")]
    DuplicateName {
        /// `input` or `output`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Rows can be stacked only where the first dimension of all inputs and outputs is free.
    #[error("requests cannot be stacked: the first dimension of {tensor} is not free; use the model without batches")]
    NotBatchable {
        /// The input or output, with its dtype and shape.
        tensor: String,
    },
}

impl Signature {
    /// A model that takes one request at a time.
    ///
    /// # Errors
    /// [`SignatureError`] if there is no output, or a name is there twice.
    pub fn new(inputs: Vec<TensorInfo>, outputs: Vec<TensorInfo>) -> Result<Self, SignatureError> {
        if outputs.is_empty() {
            return Err(SignatureError::NoOutputs);
        }
        for (what, tensors) in [("input", &inputs), ("output", &outputs)] {
            let is_again =
                |(index, tensor): (usize, &TensorInfo)| tensors[..index].iter().any(|t| t.name == tensor.name);
            if let Some((_, twice)) = tensors.iter().enumerate().find(|&pair| is_again(pair)) {
                return Err(SignatureError::DuplicateName { what, name: twice.name.clone() });
            }
        }
        Ok(Self { inputs, outputs, batched: false })
    }

    /// Says that the first dimension counts rows that have nothing to do with each other: what the model gives for a row
    /// is the same whichever rows are beside it. Then requests can be stacked into batches. Only who made the model knows
    /// that; it does not follow from the shapes.
    ///
    /// # Errors
    /// [`SignatureError::NotBatchable`] if the first dimension of an input or output is not free.
    pub fn batched(mut self) -> Result<Self, SignatureError> {
        let is_free = |tensor: &&TensorInfo| match &tensor.dims {
            None => true,
            Some(dims) => matches!(dims.first(), Some(Dim::Named(_) | Dim::Any)),
        };
        if let Some(fixed) = self.inputs.iter().chain(&self.outputs).find(|tensor| !is_free(tensor)) {
            return Err(SignatureError::NotBatchable { tensor: fixed.to_string() });
        }
        self.batched = true;
        Ok(self)
    }

    /// What the model takes.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What it gives.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Whether the first dimension of every input and output counts rows that are independent of each other.
    pub fn is_batched(&self) -> bool {
        self.batched
    }
}

impl TensorInfo {
    /// An input or output of this shape; a size below zero stands for any.
    pub fn new(name: &str, dtype: Dtype, shape: &[i64]) -> Self {
        let dims = shape.iter().map(|&size| usize::try_from(size).map_or(Dim::Any, Dim::Fixed)).collect();
        Self { name: name.to_owned(), dtype, dims: Some(dims) }
    }

    /// Whether a tensor of this shape can stand here.
    pub fn fits(&self, shape: &[usize]) -> bool {
        let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
        self.dims.as_ref().is_none_or(|dims| dims.len() == shape.len() && dims.iter().zip(shape).all(fits))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |tensors: &[TensorInfo]| tensors.iter().map(TensorInfo::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{} -> {}", list(&self.inputs), list(&self.outputs))?;
        f.write_str(if self.batched { ", by rows" } else { "" })
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.dtype)?;
        let Some(dims) = &self.dims else { return f.write_str("[..]") };
        let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
            Self::Any => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_model_can_have_is_refused() {
        let tensor = |name: &str, shape: &[i64]| TensorInfo::new(name, Dtype::F32, shape);
        assert_eq!(Signature::new(vec![tensor("x", &[1])], vec![]), Err(SignatureError::NoOutputs));
        let twice = Signature::new(vec![tensor("x", &[1]), tensor("x", &[2])], vec![tensor("y", &[1])]);
        assert_eq!(twice, Err(SignatureError::DuplicateName { what: "input", name: "x".to_owned() }));
        for fixed in [&[3, -1][..], &[]] {
            let signature = Signature::new(vec![tensor("x", &[-1])], vec![tensor("y", fixed)]).unwrap();
            assert!(matches!(signature.batched(), Err(SignatureError::NotBatchable { .. })), "{fixed:?}");
        }
    }

    #[test]
    fn free_dimensions_take_any_size() {
        let info = TensorInfo::new("x", Dtype::F32, &[-1, 3]);
        assert!(info.fits(&[0, 3]) && info.fits(&[9, 3]));
        assert!(!info.fits(&[9, 4]) && !info.fits(&[9]) && !info.fits(&[9, 3, 1]));
        assert!(TensorInfo { dims: None, ..info }.fits(&[1, 2, 3]));
    }
}
