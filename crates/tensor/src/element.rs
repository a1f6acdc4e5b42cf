//! Rust types that stand for element types.

use bytemuck::Pod;
use half::{bf16, f16};

use crate::DType;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type whose memory is one tensor element. `bool` and strings have no such type: [`DType::Bool`] is read
/// and written as `u8` through [`crate::Tensor::from_bools`] and [`crate::Tensor::bytes`].
pub trait Element: Pod + PartialEq + std::fmt::Debug + Send + Sync + sealed::Sealed {
    /// The element type that this Rust type stands for.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
            }
        )*
    };
}

elements! {
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
    [f32; 2] => C64, [f64; 2] => C128,
}
