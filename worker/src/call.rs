use tensorbus_transport::{ContiguousTensor, Dtype, Element, TensorView};

use crate::error::InferError;
use crate::signature::{Signature, TensorInfo};

/// One call of a model: inputs to read where they lie, and outputs to write where they are wanted.
///
/// For a batched model the inputs are rows one behind the other, `[rows, ...]`: a part of a block of the request ring. All
/// of them are wanted. A block in which some rows are not is run in several calls.
#[derive(Debug)]
pub struct Call<'a> {
    signature: &'a Signature,
    inputs: Vec<TensorView<'a>>,
    outputs: Vec<Output<'a>>,
    rows: usize,
    copied_bytes: u64,
}

/// Where an output goes.
#[derive(Debug)]
pub struct Output<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Room { bytes: &'a mut [u8], written: Option<Written> },
    Memory(Option<ContiguousTensor>),
}

/// The tensor that the room holds now.
#[derive(Debug)]
struct Written {
    dtype: Dtype,
    shape: Vec<usize>,
    len: usize,
}

impl<'a> Output<'a> {
    /// Into these bytes, from the first on, dense in row-major order. There may be more than the output takes. They should
    /// begin at a multiple of 64.
    pub fn in_place(bytes: &'a mut [u8]) -> Self {
        Self(Place::Room { bytes, written: None })
    }

    /// Into memory of its own, as large as the output is.
    pub fn in_memory() -> Self {
        Self(Place::Memory(None))
    }

    /// What was written, once the model has run.
    pub fn tensor(&self) -> Option<TensorView<'_>> {
        match &self.0 {
            Place::Memory(tensor) => tensor.as_ref().map(ContiguousTensor::as_view),
            Place::Room { bytes, written } => {
                let Written { dtype, shape, len } = written.as_ref()?;
                let strides = tensorbus_transport::layout::row_major_strides(shape)?;
                TensorView::from_bytes(*dtype, &bytes[..*len], shape, &strides).ok()
            }
        }
    }

    /// Room for a tensor of this shape, which is the output from now on.
    fn take(&mut self, info: &TensorInfo, shape: &[usize]) -> Result<&mut [u8], InferError> {
        let zero = [0; 16];
        // One zero, repeated: the layout's rules for shapes, and zeros of any type.
        let zeros = TensorView::from_bytes(info.dtype, &zero, shape, &vec![0; shape.len()])?;
        match &mut self.0 {
            Place::Memory(tensor) => Ok(tensor.insert(zeros.to_contiguous()?).bytes_mut()),
            Place::Room { bytes, written } => {
                let elements = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size));
                let needed = elements.and_then(|elements| info.dtype.bytes_for(elements)).unwrap_or(usize::MAX);
                let room = bytes.len();
                if needed > room {
                    return Err(InferError::NoRoom { output: info.name.clone(), shape: shape.to_vec(), needed, room });
                }
                *written = Some(Written { dtype: info.dtype, shape: shape.to_vec(), len: needed });
                Ok(&mut bytes[..needed])
            }
        }
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        signature: &'a Signature,
        inputs: Vec<TensorView<'a>>,
        outputs: Vec<Output<'a>>,
    ) -> Result<Self, InferError> {
        let counts =
            [("input", inputs.len(), signature.inputs().len()), ("output", outputs.len(), signature.outputs().len())];
        if let Some((what, found, expected)) = counts.into_iter().find(|(_, found, expected)| found != expected) {
            return Err(InferError::Count { what, found, expected, signature: signature.to_string() });
        }
        let mut rows = None;
        for (info, tensor) in signature.inputs().iter().zip(&inputs) {
            let (input, layout) = (info.name.clone(), tensor.layout());
            if layout.dtype != info.dtype {
                return Err(InferError::InputDtype { input, found: layout.dtype, expected: info.dtype });
            }
            if !info.fits(&layout.shape) {
                return Err(InferError::InputShape { input, found: layout.shape.clone(), expected: info.to_string() });
            }
            if !layout.is_row_major() {
                return Err(InferError::InputOrder { input });
            }
            if signature.is_batched() {
                // A shape without a dimension does not fit a batched input, unless it takes any.
                let Some(&found) = layout.shape.first() else {
                    return Err(InferError::InputShape { input, found: Vec::new(), expected: info.to_string() });
                };
                let expected = *rows.get_or_insert(found);
                if found != expected {
                    return Err(InferError::InputRows { input, found, expected });
                }
            }
        }
        Ok(Self { signature, inputs, outputs, rows: rows.unwrap_or(1), copied_bytes: 0 })
    }

    /// What goes in and out.
    pub fn signature(&self) -> &'a Signature {
        self.signature
    }

    /// Rows of a batched model's inputs; 1 for any other.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The input of this number, in the order of the signature.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn input(&self, index: usize) -> &TensorView<'a> {
        &self.inputs[index]
    }

    /// Room for the output of this number, to write it in place.
    ///
    /// # Errors
    /// [`InferError`] if the output is of another type or shape, or the room too small for it.
    ///
    /// # Panics
    /// If there are fewer outputs.
    pub fn output<T: Element>(&mut self, index: usize, shape: &[usize]) -> Result<&mut [T], InferError> {
        let info = &self.signature.outputs()[index];
        let output = || info.name.clone();
        if info.dtype != T::DTYPE {
            return Err(InferError::OutputDtype { output: output(), found: T::DTYPE, expected: info.dtype });
        }
        let bytes = self.output_bytes(index, shape)?;
        if bytes.is_empty() {
            return Ok(&mut []);
        }
        bytemuck::try_cast_slice_mut(bytes)
            .map_err(|_| InferError::Misaligned { output: info.name.clone(), dtype: info.dtype })
    }

    /// As [`Call::output`], as bytes: for truth values, of which each is 0 or 1, and for types that Rust has not.
    ///
    /// # Errors
    /// As [`Call::output`].
    ///
    /// # Panics
    /// If there are fewer outputs.
    pub fn output_bytes(&mut self, index: usize, shape: &[usize]) -> Result<&mut [u8], InferError> {
        let info = &self.signature.outputs()[index];
        if !info.fits(shape) || (self.signature.is_batched() && shape.first() != Some(&self.rows)) {
            let rows = if self.signature.is_batched() { format!(" for {} rows", self.rows) } else { String::new() };
            let expected = format!("{info}{rows}");
            return Err(InferError::OutputShape { output: info.name.clone(), found: shape.to_vec(), expected });
        }
        self.outputs[index].take(info, shape)
    }

    /// Counts bytes of inputs or outputs that the model has copied or converted: those that it could not use in place.
    pub fn count_copied(&mut self, bytes: usize) {
        self.copied_bytes += bytes as u64;
    }

    /// The outputs, if all are written, and the bytes that were copied.
    pub(crate) fn finish(self) -> Result<(Vec<Output<'a>>, u64), InferError> {
        let is_written = |output: &Output<'_>| match &output.0 {
            Place::Memory(tensor) => tensor.is_some(),
            Place::Room { written, .. } => written.is_some(),
        };
        if let Some(index) = self.outputs.iter().position(|output| !is_written(output)) {
            return Err(InferError::NotWritten { output: self.signature.outputs()[index].name.clone() });
        }
        Ok((self.outputs, self.copied_bytes))
    }
}
