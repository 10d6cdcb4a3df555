use tensorbus_transport::Dtype;

use crate::error::InferError;
use crate::model::Model;
use crate::run::probe;
use crate::signature::{Dim, TensorInfo};

/// What one request takes of each tensor at most: name, dtype and shape, without the dimension of the batch.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) inputs: Vec<(String, Dtype, Vec<usize>)>,
    pub(crate) outputs: Vec<(String, Dtype, Vec<usize>)>,
    /// Requests may be smaller.
    pub(crate) may_differ: bool,
}

/// A model whose tensors have no known size.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// An input can have any size.
    #[error("input {input} can have any size; say how large it is at most (`max_shape`)")]
    AnySize {
        /// The input, with its dtype and shape.
        input: String,
    },
    /// The largest shape that was said is none that the tensor can have.
    #[error("{tensor} cannot have the shape {shape:?}; give the shape of one request")]
    Shape {
        /// The tensor, with its dtype and shape.
        tensor: String,
        /// The shape that was said.
        shape: Vec<usize>,
    },
    /// A largest shape was said of a tensor that is not there.
    #[error("the model has no tensor {name:?}, it has {present:?}")]
    NoSuchTensor {
        /// The name.
        name: String,
        /// Names that there are.
        present: Vec<String>,
    },
    /// The model fails when it is run on zeros, which shows how large its outputs are.
    #[error("the model fails on zeros of the largest shapes: {0}")]
    Probe(#[source] InferError),
}

impl Places {
    /// Runs the model once on zeros of the largest shapes.
    pub(crate) fn new(model: &dyn Model, max_shapes: &[(String, Vec<usize>)]) -> Result<Self, PlaceError> {
        let signature = model.signature();
        let all = || signature.inputs().iter().chain(signature.outputs());
        if let Some((name, _)) = max_shapes.iter().find(|(name, _)| !all().any(|tensor| tensor.name == *name)) {
            let present = all().map(|tensor| tensor.name.clone()).collect();
            return Err(PlaceError::NoSuchTensor { name: name.clone(), present });
        }
        let said =
            |tensor: &TensorInfo| max_shapes.iter().find(|(name, _)| *name == tensor.name).map(|(_, shape)| shape);
        let with_rows = |row: &[usize]| if signature.is_batched() { [&[1], row].concat() } else { row.to_vec() };
        let row = |tensor: &TensorInfo| match said(tensor) {
            Some(shape) if tensor.fits(&with_rows(shape)) => Ok(shape.clone()),
            Some(shape) => Err(PlaceError::Shape { tensor: tensor.to_string(), shape: shape.clone() }),
            None => {
                let shape = fixed(tensor, signature.is_batched());
                shape.ok_or_else(|| PlaceError::AnySize { input: tensor.to_string() })
            }
        };
        let rows = signature.inputs().iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<_> = rows.iter().map(|shape| with_rows(shape)).collect();
        let found = probe(model, &shapes).map_err(PlaceError::Probe)?;
        let mut outputs = Vec::new();
        for (tensor, shape) in signature.outputs().iter().zip(found) {
            let shape = match said(tensor) {
                Some(_) => row(tensor)?,
                None if signature.is_batched() => shape[1..].to_vec(),
                None => shape,
            };
            outputs.push((tensor.name.clone(), tensor.dtype, shape));
        }
        let may_differ = all().any(|tensor| fixed(tensor, signature.is_batched()).is_none());
        let inputs = signature.inputs().iter().zip(rows);
        let inputs = inputs.map(|(tensor, shape)| (tensor.name.clone(), tensor.dtype, shape)).collect();
        Ok(Self { inputs, outputs, may_differ })
    }
}

/// The shape of one request, if all its dimensions are known.
fn fixed(tensor: &TensorInfo, is_batched: bool) -> Option<Vec<usize>> {
    let size = |dim: &Dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None };
    tensor.dims.as_ref()?.iter().skip(usize::from(is_batched)).map(size).collect()
}
