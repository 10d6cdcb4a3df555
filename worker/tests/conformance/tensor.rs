use std::fs;
use std::path::Path;

use prost::Message;
use tensorbus_transport::{ContiguousTensor, Dtype, TensorView};

use crate::proto;

/// A tensor of a case, of a type that the backend has.
pub(crate) struct Tensor(ContiguousTensor);

impl Tensor {
    pub(crate) fn read(path: &Path) -> Self {
        let tensor = proto::Tensor::decode(&fs::read(path).unwrap()[..]).unwrap();
        let shape: Vec<usize> = tensor.dims.iter().map(|&size| size.try_into().unwrap()).collect();
        let little = |numbers: &[i32], bytes: usize| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()[..bytes].to_vec()).collect()
        };
        let (dtype, typed) = match tensor.data_type {
            Some(1) => (Dtype::F32, tensor.float_data.iter().flat_map(|number| number.to_le_bytes()).collect()),
            Some(2) => (Dtype::U8, little(&tensor.int32_data, 1)),
            Some(3) => (Dtype::I8, little(&tensor.int32_data, 1)),
            Some(6) => (Dtype::I32, little(&tensor.int32_data, 4)),
            Some(7) => (Dtype::I64, tensor.int64_data.iter().flat_map(|number| number.to_le_bytes()).collect()),
            Some(9) => (Dtype::BOOL, little(&tensor.int32_data, 1)),
            other => panic!("{}: a tensor of type {other:?}", path.display()),
        };
        let bytes: Vec<u8> = tensor.raw_data.map_or(typed, |raw| raw.to_vec());
        let strides = tensorbus_transport::layout::row_major_strides(&shape).unwrap();
        Self(TensorView::from_bytes(dtype, &bytes, &shape, &strides).unwrap().to_contiguous().unwrap())
    }

    pub(crate) fn view(&self) -> TensorView<'_> {
        self.0.as_view()
    }
}
