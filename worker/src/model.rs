use tensorbus_registry::BoxError;

use crate::call::Call;
use crate::signature::Signature;

/// What a worker owns and runs for others: named tensors in, named tensors out.
///
/// [`FunctionModel`](crate::FunctionModel) makes one of a function. [`run`](crate::run) calls a model: it checks what goes in and
/// what comes out, so that a model can rely on its inputs, and whoever asks on the outputs.
///
/// A model is called by several threads at once if a worker has several instances of it.
pub trait Model: Send + Sync + 'static {
    /// Its inputs and outputs.
    fn signature(&self) -> &Signature;

    /// Reads the inputs where they lie and writes the outputs where they are wanted.
    ///
    /// The inputs have the dtypes and shapes of the signature, are dense in row-major order, and have equally many rows if
    /// the model is batched. Every output has to be written, with a shape that the signature allows.
    ///
    /// # Errors
    /// Whatever the model says. An [`InferError`](crate::InferError) in the box reaches the caller as it is.
    fn infer(&self, call: &mut Call<'_>) -> Result<(), BoxError>;

    /// Whether a request may be run again, because nothing but the outputs depends on it. Default: no. If it may, another
    /// worker can run what one that died has left.
    fn is_idempotent(&self) -> bool {
        false
    }
}
