use tensorbus_registry::BoxError;
use tensorbus_transport::{ContiguousError, Dtype, LayoutError};

/// Why there is no answer. Nothing of the outputs is to be used then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// Not as many inputs, or outputs, as the model has.
    #[error("{found} {what}s for a model that has {expected}; the model is {signature}")]
    Count {
        /// `input` or `output`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many the model has.
        expected: usize,
        /// The model's inputs and outputs.
        signature: String,
    },
    /// An input has elements of another type.
    #[error("input {input:?} has {found} elements, the model takes {expected}; convert it")]
    InputDtype {
        /// The input.
        input: String,
        /// Type of its elements.
        found: Dtype,
        /// Type that the model takes.
        expected: Dtype,
    },
    /// An input has another shape.
    #[error("input {input:?} has the shape {found:?}, the model takes {expected}")]
    InputShape {
        /// The input.
        input: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the model takes.
        expected: String,
    },
    /// An input is strided or column-major.
    #[error("input {input:?} is not dense in row-major order; copy it (`to_contiguous`)")]
    InputOrder {
        /// The input.
        input: String,
    },
    /// The inputs of a batch have different numbers of rows.
    #[error("input {input:?} has {found} rows and the first one {expected}; a batch has as many of each")]
    InputRows {
        /// The input.
        input: String,
        /// Its rows.
        found: usize,
        /// Rows of the first input.
        expected: usize,
    },
    /// A value that the model cannot compute with. A backend that computes with narrower numbers says so here.
    #[error("element {index} of input {input:?} is {value}: {reason}")]
    InputValue {
        /// The input.
        input: String,
        /// The element, counted in row-major order.
        index: usize,
        /// What it is.
        value: String,
        /// Why that is wrong.
        reason: &'static str,
    },
    /// The model gives an output of another type than it says.
    #[error("the model gives output {output:?} as {found} and says that it is {expected}; its declaration is wrong")]
    OutputDtype {
        /// The output.
        output: String,
        /// What it gives.
        found: Dtype,
        /// What it says.
        expected: Dtype,
    },
    /// The model gives an output of another shape than it says.
    #[error("the model gives output {output:?} with the shape {found:?} and says {expected}; its declaration is wrong")]
    OutputShape {
        /// The output.
        output: String,
        /// The shape that it gives.
        found: Vec<usize>,
        /// What it says.
        expected: String,
    },
    /// An output is larger than the room for it.
    #[error("output {output:?} of shape {shape:?} needs {needed} bytes, there is room for {room}; make more room")]
    NoRoom {
        /// The output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// The room for an output begins where no value of its type may.
    #[error("the room for output {output:?} is not aligned for {dtype}; begin it at a multiple of 64 bytes")]
    Misaligned {
        /// The output.
        output: String,
        /// Type of its elements.
        dtype: Dtype,
    },
    /// The model has left an output out.
    #[error("the model has not written output {output:?}; each output has to be written once")]
    NotWritten {
        /// The output.
        output: String,
    },
    /// A tensor that nothing can carry.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No memory for an output.
    #[error(transparent)]
    Memory(#[from] ContiguousError),
    /// The model has refused or failed.
    #[error("the model failed: {0}")]
    Failed(BoxError),
    /// The model panicked. It can be asked again.
    #[error("the model panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
}
