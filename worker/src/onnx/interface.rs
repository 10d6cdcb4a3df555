use super::dtype::tensor_dtype;
use super::proto::{Graph, ValueInfo};
use crate::signature::{Dim, TensorInfo};

/// The inputs and outputs of a model, as it declares them.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) inputs: Vec<TensorInfo>,
    pub(crate) outputs: Vec<TensorInfo>,
}

/// Reads the inputs, without those that have a value in the model, and the outputs. An error is an input or output that is no
/// tensor of a known type: its name and its type's number.
pub(crate) fn interface(graph: &Graph) -> Result<Interface, (String, Option<i32>)> {
    let has_value = |info: &&ValueInfo| graph.initializer.iter().any(|tensor| tensor.name.as_ref() == Some(&info.name));
    let inputs = graph.input.iter().filter(|info| !has_value(info)).map(tensor_info).collect::<Result<_, _>>()?;
    let outputs = graph.output.iter().map(tensor_info).collect::<Result<_, _>>()?;
    Ok(Interface { inputs, outputs })
}

fn tensor_info(info: &ValueInfo) -> Result<TensorInfo, (String, Option<i32>)> {
    let tensor = info.r#type.as_ref().and_then(|r#type| r#type.tensor.as_ref()).ok_or((info.name.clone(), None))?;
    let dtype = tensor_dtype(tensor.elem_type).ok_or((info.name.clone(), Some(tensor.elem_type)))?;
    let dims = tensor.shape.as_ref().map(|shape| {
        let dim = shape.dim.iter().map(|dim| match (dim.dim_value, &dim.dim_param) {
            (Some(size), _) if size >= 0 => usize::try_from(size).map_or(Dim::Any, Dim::Fixed),
            (_, Some(name)) if !name.is_empty() => Dim::Named(name.clone()),
            _ => Dim::Any,
        });
        dim.collect()
    });
    Ok(TensorInfo { name: info.name.clone(), dtype, dims })
}
