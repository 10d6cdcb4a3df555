use half::{bf16, f16};

use crate::layout::Dtype;

/// A Rust type that a tensor's elements can be viewed as.
///
/// Implemented for the integers, the floats, and `half`'s `f16` and `bf16`. A type of one's own (a complex number, an
/// 8-bit float, a pixel as a vector type) can implement it: any plain type whose size is that of its dtype's elements.
pub trait Element: bytemuck::Pod {
    /// The dtype of tensors with such elements.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty: $dtype:ident,)*) => { $(impl Element for $type {
        const DTYPE: Dtype = Dtype::$dtype;
    })* };
}

elements! {
    i8: I8, i16: I16, i32: I32, i64: I64, i128: I128,
    u8: U8, u16: U16, u32: U32, u64: U64, u128: U128,
    f16: F16, bf16: BF16, f32: F32, f64: F64,
}
