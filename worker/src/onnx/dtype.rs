use tensorbus_transport::Dtype;

/// The dtype of ONNX's number for it (`TensorProto.DataType`); `None` for strings and what is not known here.
pub(crate) fn tensor_dtype(number: i32) -> Option<Dtype> {
    Some(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::BOOL,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        14 => Dtype::C64,
        15 => Dtype::C128,
        16 => Dtype::BF16,
        17 => Dtype::F8_E4M3FN,
        18 => Dtype::F8_E4M3FNUZ,
        19 => Dtype::F8_E5M2,
        20 => Dtype::F8_E5M2FNUZ,
        21 => Dtype::U4,
        22 => Dtype::I4,
        23 => Dtype::F4_E2M1FN,
        24 => Dtype::F8_E8M0FNU,
        25 => Dtype::U2,
        26 => Dtype::I2,
        _ => return None,
    })
}

/// The name of ONNX's number, for messages.
pub(crate) fn name(number: i32) -> String {
    match (number, tensor_dtype(number)) {
        (8, _) => "string".to_owned(),
        (_, Some(dtype)) => dtype.to_string(),
        _ => format!("data type {number}"),
    }
}
