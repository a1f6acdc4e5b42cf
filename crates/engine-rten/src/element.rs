//! ONNX element types: which the engine takes, and how it keeps them.

use salver_tensor::DType;

pub(crate) use salver_graph::onnx::proto::tensor_proto::DataType as Elem;

/// The element type behind ONNX's number; `Undefined` for a number that is none.
pub(crate) fn elem(number: i32) -> Elem {
    Elem::try_from(number).unwrap_or(Elem::Undefined)
}

/// The name that a person knows.
pub(crate) fn shown(elem: Elem) -> String {
    match elem {
        Elem::Float => "float32".into(),
        Elem::Double => "float64".into(),
        other => other.as_str_name().to_ascii_lowercase(),
    }
}

/// How an element type of a model's input or output is shown to clients; `None` for those that the engine does not
/// take there.
pub(crate) fn dtype(elem: Elem) -> Option<DType> {
    Some(match elem {
        Elem::Float => DType::F32,
        Elem::Float16 => DType::F16,
        Elem::Int32 => DType::I32,
        Elem::Int64 => DType::I64,
        Elem::Int8 => DType::I8,
        Elem::Uint8 => DType::U8,
        Elem::Bool => DType::Bool,
        _ => return None,
    })
}

/// Bytes per element in a file; `None` for element types that the engine does not take.
pub(crate) fn file_size(elem: Elem) -> Option<usize> {
    match elem {
        Elem::Double => Some(8),
        other => dtype(other).and_then(DType::size),
    }
}

/// Bytes per element in the engine's memory.
pub(crate) fn memory_size(elem: Elem) -> usize {
    match elem {
        Elem::Int8 | Elem::Uint8 => 1,
        _ => 4,
    }
}
