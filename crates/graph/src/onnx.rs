//! ONNX: the messages, and graphs written as them and read from them.
//!
//! Format: <https://github.com/onnx/onnx/blob/main/docs/IR.md> and the `.proto` file under `proto/onnx`.

use salver_tensor::DType;

mod external;
mod lower;
mod read;
mod table;
mod tensor;
mod upgrade;
mod write;

pub use crate::generated::onnx as proto;
pub use external::{ExternalData, externalise};
pub use read::{OPSETS, decode, graph};
pub use tensor::Beside;
pub use write::{Labels, Weights, Written, bytes, model};

use proto::tensor_proto::DataType;

/// ONNX's number of an element type.
pub fn elem_of(dtype: DType) -> i32 {
    let elem = match dtype {
        DType::Bool => DataType::Bool,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::C64 => DataType::Complex64,
        DType::C128 => DataType::Complex128,
        DType::String => DataType::String,
    };
    elem.into()
}

/// The element type behind ONNX's number; `None` for those that graphs do not have.
pub fn dtype_of(elem: i32) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| elem_of(dtype) == elem)
}

#[cfg(test)]
mod tests;
