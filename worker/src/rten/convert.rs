//! Tensors to rten's values and back.

use rten::{Value, ValueOrView, ValueView};
use rten_tensor::{AsView, Layout, TensorView as View};
use tensorbus_registry::BoxError;
use tensorbus_transport::{Dtype, Element, TensorView};

use crate::call::Call;
use crate::error::InferError;
use crate::signature::TensorInfo;

/// Whether inputs and outputs can be of this type. rten computes with f32, i8, u8 and i32; i64 and truth values are converted.
/// f64 and f16 would be computed as f32, silently.
pub(super) fn is_supported(dtype: Dtype) -> bool {
    [Dtype::F32, Dtype::I8, Dtype::U8, Dtype::I32, Dtype::I64, Dtype::BOOL].contains(&dtype)
}

/// The input as rten takes it, and how many bytes were converted for that.
pub(super) fn input<'a>(info: &TensorInfo, tensor: &TensorView<'a>) -> Result<(ValueOrView<'a>, usize), BoxError> {
    let shape = &tensor.layout().shape[..];
    let value = match info.dtype {
        Dtype::F32 => ValueView::from_shape(shape, tensor.view::<f32>()?)?,
        Dtype::I8 => ValueView::from_shape(shape, tensor.view::<i8>()?)?,
        Dtype::U8 => ValueView::from_shape(shape, tensor.view::<u8>()?)?,
        Dtype::I32 => ValueView::from_shape(shape, tensor.view::<i32>()?)?,
        Dtype::I64 => {
            let numbers = tensor.view::<i64>()?;
            let narrow = numbers.iter().enumerate().map(|(index, &number)| narrowed(info, index, number));
            let narrow = narrow.collect::<Result<Vec<i32>, _>>()?;
            return Ok((Value::from_shape(shape, narrow)?.into(), size_of_val(numbers)));
        }
        Dtype::BOOL => {
            let flags = tensor.view_bool()?;
            let numbers: Vec<i32> = flags.iter().map(|&flag| i32::from(flag)).collect();
            return Ok((Value::from_shape(shape, numbers)?.into(), flags.len()));
        }
        other => return Err(format!("rten has no {other}").into()),
    };
    Ok((value.into(), 0))
}

fn narrowed(info: &TensorInfo, index: usize, number: i64) -> Result<i32, InferError> {
    i32::try_from(number).map_err(|_| InferError::InputValue {
        input: info.name.clone(),
        index,
        value: number.to_string(),
        reason: "rten computes with 32 bits, and it does not fit into them",
    })
}

/// Writes an output to where it is wanted: one copy, whatever the strides, with the conversion if there is one.
pub(super) fn output(call: &mut Call<'_>, index: usize, value: &Value) -> Result<(), InferError> {
    let info = &call.signature().outputs()[index];
    let shape = value.shape();
    let wrong = |found: Dtype| InferError::OutputDtype { output: info.name.clone(), found, expected: info.dtype };
    match (value, info.dtype) {
        (Value::FloatTensor(tensor), Dtype::F32) => copied(call, index, &tensor.view(), &shape),
        (Value::Int8Tensor(tensor), Dtype::I8) => copied(call, index, &tensor.view(), &shape),
        (Value::UInt8Tensor(tensor), Dtype::U8) => copied(call, index, &tensor.view(), &shape),
        (Value::Int32Tensor(tensor), Dtype::I32) => copied(call, index, &tensor.view(), &shape),
        (Value::Int32Tensor(tensor), Dtype::I64) => {
            let to = call.output::<i64>(index, &shape)?;
            to.iter_mut().zip(tensor.iter()).for_each(|(to, &from)| *to = i64::from(from));
            let bytes = size_of_val(to);
            call.count_copied(bytes);
            Ok(())
        }
        (Value::Int32Tensor(tensor), Dtype::BOOL) => {
            let to = call.output_bytes(index, &shape)?;
            to.iter_mut().zip(tensor.iter()).for_each(|(to, &from)| *to = u8::from(from != 0));
            let bytes = to.len();
            call.count_copied(bytes);
            Ok(())
        }
        (Value::FloatTensor(_), _) => Err(wrong(Dtype::F32)),
        (Value::Int8Tensor(_), _) => Err(wrong(Dtype::I8)),
        (Value::UInt8Tensor(_), _) => Err(wrong(Dtype::U8)),
        (Value::Int32Tensor(_), _) => Err(wrong(Dtype::I32)),
        _ => Err(InferError::Failed(format!("output {:?} is no tensor", info.name).into())),
    }
}

fn copied<T: Element>(
    call: &mut Call<'_>,
    index: usize,
    from: &View<'_, T>,
    shape: &[usize],
) -> Result<(), InferError> {
    let to = call.output::<T>(index, shape)?;
    match from.data() {
        Some(values) => to.copy_from_slice(values),
        None => to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to = *from),
    }
    let bytes = size_of_val(to);
    call.count_copied(bytes);
    Ok(())
}
