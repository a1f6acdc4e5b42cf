#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::proto::tensorflow::serving::PredictResponse;

const MAX: usize = 1 << 20;

fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    TensorProto {
        dtype: dtype_number(dtype),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        ..TensorProto::default()
    }
}

fn floats(dims: &[i64], float_val: &[f32]) -> TensorProto {
    TensorProto { float_val: float_val.to_vec(), ..proto(DType::F32, dims) }
}

fn content(dtype: DType, dims: &[i64], bytes: &'static [u8]) -> TensorProto {
    TensorProto { tensor_content: Bytes::from_static(bytes), ..proto(dtype, dims) }
}

fn golden(name: &str) -> PredictResponse {
    let path = format!("{}/tests/golden/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = Bytes::from(std::fs::read(path).expect("golden file is committed"));
    PredictResponse::decode(bytes).unwrap()
}

#[test]
fn what_tensorflow_writes_is_read_and_written_again() {
    for dtype in DType::ALL {
        let golden = golden(&format!("tensor_{dtype}"));
        let decode = |form: &str| decode_tensor(golden.outputs[form].clone(), MAX).unwrap();
        let tensor = decode("content");
        assert_eq!((tensor.dtype(), tensor.shape().dims()), (dtype, &[2, 3][..]));
        assert_eq!(tensor, decode("fields"), "{dtype}");
        // TensorFlow's Python package writes some types as fields in any case.
        let has_content = !golden.outputs["content"].tensor_content.is_empty();
        let form = if has_content { Encoding::Content } else { Encoding::Fields };
        assert_eq!(encode_tensor(&tensor, form), golden.outputs["content"], "{dtype}");
        assert_eq!(encode_tensor(&tensor, Encoding::Fields), golden.outputs["fields"], "{dtype}");
    }
}

#[test]
fn strings_in_content() {
    let path = format!("{}/tests/golden/tensor_string_content.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let proto = TensorProto::decode(bytes).unwrap();
    let tensor = decode_tensor(proto.clone(), MAX).unwrap();
    assert_eq!(tensor.strings().unwrap()[..4], [&b""[..], b"a", b"\xff\x00", b"bc"]);
    assert_eq!(tensor.strings().unwrap()[4].len(), 200);
    assert_eq!(encode_tensor(&tensor, Encoding::Content), proto);
}

#[test]
fn elements_are_repeated_cut_and_shared() {
    let check = |proto: TensorProto, expected: &[f32]| {
        let tensor = decode_tensor(proto, MAX).unwrap();
        assert_eq!(*tensor.to_slice::<f32>().unwrap(), *expected);
    };
    check(floats(&[3], &[1.0, 2.0]), &[1.0, 2.0, 2.0]);
    check(floats(&[3], &[]), &[0.0; 3]);
    check(floats(&[2], &[1.0, 2.0, 3.0]), &[1.0, 2.0]);
    check(floats(&[], &[4.0]), &[4.0]);
    check(floats(&[0, 5], &[4.0]), &[]);
    check(TensorProto { dtype: 101, ..floats(&[1], &[4.0]) }, &[4.0]);
    check(TensorProto { tensor_shape: None, ..floats(&[], &[4.0]) }, &[4.0]);
    // Content wins over fields.
    let both = content(DType::F32, &[1], &[0, 0, 128, 63]);
    check(TensorProto { float_val: vec![9.0], ..both.clone() }, &[1.0]);
    let address = both.tensor_content.as_ptr();
    assert_eq!(decode_tensor(both, MAX).unwrap().bytes().unwrap().as_ptr(), address);
}

#[test]
fn every_type_repeats_its_last_element() {
    let one = |dtype| {
        let mut one = proto(dtype, &[2]);
        one.int_val = vec![1];
        one.half_val = vec![0x3c00];
        one.string_val = vec![Bytes::from_static(b"s")];
        one.bool_val = vec![true];
        (one.float_val, one.double_val) = (vec![1.0], vec![1.0]);
        (one.int64_val, one.uint32_val, one.uint64_val) = (vec![1], vec![1], vec![1]);
        (one.scomplex_val, one.dcomplex_val) = (vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0]);
        one
    };
    for dtype in DType::ALL {
        let tensor = decode_tensor(one(dtype), MAX).unwrap();
        assert_eq!(tensor.rows(0, 1), tensor.rows(1, 1), "{dtype}");
        let zeros = decode_tensor(proto(dtype, &[2]), MAX).unwrap();
        assert!(tensor != zeros && zeros.rows(0, 1) == zeros.rows(1, 1), "{dtype}");
    }
}

#[test]
fn what_is_no_tensor_is_refused() {
    let mut unknown_rank = floats(&[], &[1.0]);
    unknown_rank.tensor_shape = Some(TensorShapeProto { dim: vec![], unknown_rank: true });
    let small = |dtype, value| TensorProto { int_val: vec![value], ..proto(dtype, &[1]) };
    let cases = [
        (TensorProto::default(), "element type 0 is not supported"),
        (TensorProto { dtype: 11, ..proto(DType::F32, &[1]) }, "element type 11 is not supported"),
        (TensorProto { dtype: -7, ..proto(DType::F32, &[1]) }, "element type -7 is not supported"),
        (floats(&[-1], &[1.0]), "shape is not fully defined"),
        (unknown_rank, "shape is not fully defined"),
        (
            floats(&[1 << 32, 1 << 32], &[]),
            "shape [4294967296,4294967296] has more elements than fit in memory",
        ),
        (floats(&[0, i64::MAX], &[]), "shape [0,9223372036854775807] has more elements than fit in memory"),
        (floats(&[1; 40], &[]), "40 dimensions, expected at most 32"),
        (
            floats(&[1 << 40], &[1.0]),
            "takes 4398046511104 bytes, 1048576 are left of what one request may take",
        ),
        (
            TensorProto { string_val: vec![Bytes::from(vec![0; 1 << 10])], ..proto(DType::String, &[1000]) },
            "takes 1056000 bytes, 1048576 are left of what one request may take",
        ),
        (content(DType::F32, &[2], &[0; 7]), "float32 tensor of shape [2] takes 8 bytes, got 7"),
        (content(DType::F32, &[2], &[0; 9]), "float32 tensor of shape [2] takes 8 bytes, got 9"),
        (content(DType::Bool, &[1], &[2]), "bool element is 2, expected 0 or 1"),
        (content(DType::String, &[2], &[1]), "string lengths do not fit tensor_content"),
        (content(DType::String, &[1], &[2, b'a']), "string lengths do not fit tensor_content"),
        (content(DType::String, &[1], &[0, b'a']), "string lengths do not fit tensor_content"),
        (content(DType::String, &[1], &[255; 12]), "string lengths do not fit tensor_content"),
        (small(DType::I8, 128), "128 is out of range for int8"),
        (small(DType::U8, -1), "-1 is out of range for uint8"),
        (small(DType::U16, 65536), "65536 is out of range for uint16"),
        (
            TensorProto { half_val: vec![65536], ..proto(DType::BF16, &[1]) },
            "65536 is out of range for bfloat16",
        ),
    ];
    for (proto, expected) in cases {
        assert_eq!(decode_tensor(proto, MAX).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_half_may_be_sign_extended() {
    let half = |half_val| TensorProto { half_val: vec![half_val], ..proto(DType::F16, &[1]) };
    assert_eq!(
        decode_tensor(half(0xbc00), MAX),
        decode_tensor(half(i32::from(0xbc00_u16.cast_signed())), MAX)
    );
}

prop_compose! {
    fn any_tensor()(
        dtype in prop::sample::select(&DType::ALL[..]),
        dims in prop::collection::vec(0usize..4, 0..4),
    )(
        bytes in prop::collection::vec(any::<u8>(), Shape::new(&dims).unwrap().n_elements() * dtype.size().unwrap_or(1)),
        dims in Just(dims),
        dtype in Just(dtype),
    ) -> Tensor {
        let shape = Shape::new(&dims).unwrap();
        match dtype {
            DType::String => {
                let string = |&byte: &u8| Bytes::from(vec![byte; usize::from(byte)]);
                Tensor::from_strings(shape, bytes.iter().map(string).collect()).unwrap()
            }
            DType::Bool => {
                Tensor::from_bytes(dtype, shape, bytes.iter().map(|byte| byte & 1).collect::<Vec<_>>().into()).unwrap()
            }
            _ => Tensor::from_bytes(dtype, shape, bytes.into()).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn encoded_tensors_decode(tensor in any_tensor()) {
        for encoding in [Encoding::Fields, Encoding::Content] {
            let bytes = Bytes::from(encode_tensor(&tensor, encoding).encode_to_vec());
            let back = decode_tensor(TensorProto::decode(bytes).unwrap(), MAX).unwrap();
            prop_assert_eq!(&back, &tensor);
        }
    }

    /// Bytes that are no message, or a message that is no tensor, are refused; none makes more than the bound.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64), max in 0usize..4096) {
        if let Ok(proto) = TensorProto::decode(Bytes::from(bytes))
            && let Ok(tensor) = decode_tensor(proto, max)
        {
            prop_assert!(tensor.dtype() == DType::String || tensor.n_bytes() <= max);
        }
    }
}
