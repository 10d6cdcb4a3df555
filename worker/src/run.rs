use std::panic::{AssertUnwindSafe, catch_unwind};

use tensorbus_transport::TensorView;

use crate::call::{Call, Output};
use crate::error::InferError;
use crate::model::Model;

/// What a model has given.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The outputs, in the order of the signature; each one is written.
    pub outputs: Vec<Output<'a>>,
    /// Bytes of inputs and outputs that were copied or converted, because the model could not use them in place.
    pub copied_bytes: u64,
}

/// Asks a model, in this thread. Inputs and outputs are in the order of its signature.
///
/// ```
/// use tensorbus_transport::{Dtype, TensorView};
/// use tensorbus_worker::{FunctionModel, Output, Signature, TensorInfo, run};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = TensorInfo::new("x", Dtype::F32, &[-1, 2]);
/// let sum = TensorInfo::new("sum", Dtype::F32, &[-1]);
/// let model = FunctionModel::new(Signature::new(vec![x], vec![sum])?.batched()?, |call| {
///     let x = call.input(0).view::<f32>()?;
///     let sums = call.output::<f32>(0, &[x.len() / 2])?;
///     sums.iter_mut().zip(x.chunks_exact(2)).for_each(|(sum, row)| *sum = row.iter().sum());
///     Ok(())
/// });
///
/// let x = TensorView::new(&[1_f32, 2.0, 3.0, 4.0], &[2, 2], &[2, 1])?;
/// let outcome = run(&model, vec![x], vec![Output::in_memory()])?;
/// assert_eq!(outcome.outputs[0].tensor().unwrap().view::<f32>()?, [3.0, 7.0]);
/// assert_eq!(outcome.copied_bytes, 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`InferError`] if the inputs are not what the model takes, it fails or panics, or its outputs are not what it says.
pub fn run<'a>(
    model: &'a dyn Model,
    inputs: Vec<TensorView<'a>>,
    outputs: Vec<Output<'a>>,
) -> Result<Outcome<'a>, InferError> {
    let mut call = Call::new(model.signature(), inputs, outputs)?;
    // What a model had in hand when it panicked is not used again: the call is dropped, and a lock of its own is poisoned.
    match catch_unwind(AssertUnwindSafe(|| model.infer(&mut call))) {
        Err(panic) => return Err(InferError::Panicked { message: message(&*panic) }),
        Ok(Err(error)) => {
            return Err(error.downcast::<InferError>().map_or_else(InferError::Failed, |error| *error));
        }
        Ok(Ok(())) => {}
    }
    let (outputs, copied_bytes) = call.finish()?;
    Ok(Outcome { outputs, copied_bytes })
}

/// Runs a model once on zeros of these shapes, one for each input, and says which shapes its outputs have. That warms it up,
/// and tells how much room outputs need whose dimensions are free.
///
/// # Errors
/// As [`run`].
pub fn probe(model: &dyn Model, shapes: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, InferError> {
    let zero = [0; 16];
    let zeros = model.signature().inputs().iter().zip(shapes).map(|(info, shape)| {
        let view = TensorView::from_bytes(info.dtype, &zero, shape, &vec![0; shape.len()])?;
        Ok(view.to_contiguous()?)
    });
    let zeros = zeros.collect::<Result<Vec<_>, InferError>>()?;
    let inputs = zeros.iter().map(|zeros| zeros.as_view()).collect();
    let outputs = model.signature().outputs().iter().map(|_| Output::in_memory()).collect();
    let outcome = run(model, inputs, outputs)?;
    let shape = |output: &Output<'_>| output.tensor().map(|tensor| tensor.layout().shape.clone());
    Ok(outcome.outputs.iter().filter_map(shape).collect())
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
