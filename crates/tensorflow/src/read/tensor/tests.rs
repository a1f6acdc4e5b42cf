#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use base64::Engine as _;
use prost::Message as _;

use super::*;
use crate::ErrorKind;
use crate::proto::tensor_shape_proto::Dim;

fn shape(dims: &[i64]) -> Option<TensorShapeProto> {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    Some(TensorShapeProto { dim, unknown_rank: false })
}

#[test]
fn every_type_is_read_from_content_and_from_fields() {
    let text = include_str!("../../../testdata/tensors.txt");
    for line in text.lines() {
        let mut words = line.split(' ');
        let (name, encoded, hex) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        let tensor = decode_tensor(&TensorProto::decode(bytes.as_slice()).unwrap(), &Budget::new(0)).unwrap();
        assert_eq!(tensor.dtype().name(), name);
        assert_eq!(tensor.shape().dims(), [2, 3]);
        let got: String = tensor.bytes().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, hex, "{name}");
    }
    assert_eq!(text.lines().count(), 30);
}

#[test]
fn the_last_element_is_repeated_within_the_budget() {
    let proto = TensorProto {
        dtype: 1,
        tensor_shape: shape(&[2, 2]),
        float_val: vec![1.0, 5.0],
        ..Default::default()
    };
    let tensor = decode_tensor(&proto, &Budget::new(8)).unwrap();
    assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 5.0, 5.0, 5.0]);
    let error = decode_tensor(&proto, &Budget::new(7)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let zeros = TensorProto { float_val: Vec::new(), ..proto };
    let budget = Budget::new(16);
    assert_eq!(decode_tensor(&zeros, &budget).unwrap().as_slice::<f32>().unwrap(), [0.0; 4]);
    assert!(decode_tensor(&zeros, &budget).is_err(), "the budget is used up");
    let words = TensorProto {
        dtype: 7,
        tensor_shape: shape(&[3]),
        string_val: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
        ..Default::default()
    };
    assert_eq!(decode_tensor(&words, &Budget::default()).unwrap().strings().unwrap(), ["a", "b", "b"]);
}

#[test]
fn what_is_no_tensor_is_refused() {
    let check = |proto: TensorProto, kind: ErrorKind, message: &str| {
        let error = decode_tensor(&proto, &Budget::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
    };
    let float = |dims: &[i64]| TensorProto { dtype: 1, tensor_shape: shape(dims), ..Default::default() };
    check(
        TensorProto { dtype: 12, ..float(&[]) },
        ErrorKind::Unsupported,
        "tensors of type DT_QUINT8 are not supported",
    );
    check(
        TensorProto { dtype: 999, ..float(&[]) },
        ErrorKind::Unsupported,
        "tensors of type number 999 are not supported",
    );
    check(float(&[-1]), ErrorKind::Invalid, "a dimension of a tensor is -1");
    check(
        float(&[1 << 60]),
        ErrorKind::Invalid,
        "shape [1152921504606846976] has more elements than fit in memory",
    );
    check(
        float(&[1 << 40]),
        ErrorKind::TooLarge,
        "a tensor takes 4398046511104 bytes, 4294967296 are left of what repeated elements may take",
    );
    check(
        TensorProto { tensor_content: Bytes::from_static(b"abc"), ..float(&[]) },
        ErrorKind::Invalid,
        "float32 tensor of shape [] takes 4 bytes, got 3",
    );
    check(
        TensorProto { dtype: 6, int_val: vec![128], ..float(&[]) },
        ErrorKind::Invalid,
        "element 128 is out of range for int8",
    );
    check(
        TensorProto { dtype: 7, tensor_content: Bytes::from_static(b"\x05ab"), ..float(&[]) },
        ErrorKind::Invalid,
        "the lengths of strings do not fit tensor_content",
    );
}

#[test]
fn numbers_of_types_are_read_with_references() {
    for dtype in DType::ALL {
        let number = dtype_number(dtype);
        assert_eq!(dtype_from_number(number), Some(dtype));
        assert_eq!(dtype_from_number(number + 100), Some(dtype));
    }
    for number in [0, 11, 20, 21, 24, 29, 111, 120, -1, i32::MAX, i32::MIN] {
        assert_eq!(dtype_from_number(number), None, "{number}");
    }
}
