use half::{bf16, f16};

use crate::layout::Dtype;

/// A Rust type that a tensor's elements can be viewed as.
///
/// Implemented for the integers, the floats, `half`'s `f16` and `bf16`, with the feature `num-complex` for
/// `num_complex::Complex` of `f16`, `f32` and `f64`, and with the feature `microfloat` for that crate's 8-bit floats. A type of
/// one's own (a pixel as a vector type) can implement it: any plain type whose size is that of its dtype's elements. Truth values are viewed by
/// [`TensorView::view_bool`](crate::TensorView::view_bool), since not every byte is a `bool`; elements narrower than a byte
/// are read by [`TensorView::unpack`](crate::TensorView::unpack).
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

#[cfg(feature = "num-complex")]
elements! {
    num_complex::Complex<f16>: C32, num_complex::Complex<f32>: C64, num_complex::Complex<f64>: C128,
}

#[cfg(feature = "microfloat")]
elements! {
    microfloat::f8e3m4: F8_E3M4, microfloat::f8e4m3: F8_E4M3, microfloat::f8e4m3b11fnuz: F8_E4M3B11FNUZ,
    microfloat::f8e4m3fn: F8_E4M3FN, microfloat::f8e4m3fnuz: F8_E4M3FNUZ,
    microfloat::f8e5m2: F8_E5M2, microfloat::f8e5m2fnuz: F8_E5M2FNUZ, microfloat::f8e8m0fnu: F8_E8M0FNU,
}
