//! Element types: ours and OpenVINO's.

use openvino_sys::ov_element_type_e as Ov;
use salver_tensor::DType;

use crate::sys::Elem;

/// OpenVINO's element type; `None` for those that it does not take from us.
pub(crate) fn to_openvino(dtype: DType) -> Option<Ov> {
    Some(match dtype {
        DType::Bool => Ov::OV_BOOLEAN,
        DType::I8 => Ov::I8,
        DType::I16 => Ov::I16,
        DType::I32 => Ov::I32,
        DType::I64 => Ov::I64,
        DType::U8 => Ov::U8,
        DType::U16 => Ov::U16,
        DType::U32 => Ov::U32,
        DType::U64 => Ov::U64,
        DType::F16 => Ov::F16,
        DType::BF16 => Ov::BF16,
        DType::F32 => Ov::F32,
        DType::F64 => Ov::F64,
        DType::C64 | DType::C128 | DType::String => return None,
    })
}

/// Whether OpenVINO's number stands for this element type.
pub(crate) fn is(elem: Elem, dtype: DType) -> bool {
    to_openvino(dtype).is_some_and(|known| known as u32 == elem.0)
}

/// The address that memory for this element type must be a multiple of.
pub(crate) fn alignment(dtype: DType) -> usize {
    dtype.size().unwrap_or(1).min(8)
}
