//! TensorFlow's numbers of element types.

use salver_tensor::DType;

const NUMBERS: [(DType, i32); 16] = [
    (DType::F32, 1),
    (DType::F64, 2),
    (DType::I32, 3),
    (DType::U8, 4),
    (DType::I16, 5),
    (DType::I8, 6),
    (DType::String, 7),
    (DType::C64, 8),
    (DType::I64, 9),
    (DType::Bool, 10),
    (DType::BF16, 14),
    (DType::U16, 17),
    (DType::C128, 18),
    (DType::F16, 19),
    (DType::U32, 22),
    (DType::U64, 23),
];

/// What is added to a number to say that the tensor is a variable.
const REFERENCE: i32 = 100;

/// The element type of a `tensorflow.DataType`; a reference type is read as the type it refers to. `None` for types
/// that no tensor here has: quantised, 8-bit floats, resources, variants and unknown numbers.
pub fn dtype_from_number(number: i32) -> Option<DType> {
    let plain = if number > REFERENCE { number.wrapping_sub(REFERENCE) } else { number };
    NUMBERS.iter().find(|(_, known)| *known == plain).map(|(dtype, _)| *dtype)
}

/// The `tensorflow.DataType` of an element type.
pub fn dtype_number(dtype: DType) -> i32 {
    NUMBERS.iter().find(|(known, _)| *known == dtype).map_or(0, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_number_and_a_reference() {
        for dtype in DType::ALL {
            let number = dtype_number(dtype);
            assert_eq!(dtype_from_number(number), Some(dtype));
            assert_eq!(dtype_from_number(number + 100), Some(dtype));
        }
        for number in [0, 11, 12, 13, 15, 16, 20, 21, 24, 25, 33, 100, 111, 120, -1, -99, i32::MAX, i32::MIN]
        {
            assert_eq!(dtype_from_number(number), None, "{number}");
        }
    }
}
