//! What both forms of the Open Inference Protocol share: names of element types and of versions.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use bytes::{Buf as _, Bytes, BytesMut};
use salver_predict::{Error, ModelName, ModelSpec, VersionChoice};
use salver_tensor::{DType, Dims, TensorSpec};

const NAMES: [(DType, &str); 14] = [
    (DType::Bool, "BOOL"),
    (DType::I8, "INT8"),
    (DType::I16, "INT16"),
    (DType::I32, "INT32"),
    (DType::I64, "INT64"),
    (DType::U8, "UINT8"),
    (DType::U16, "UINT16"),
    (DType::U32, "UINT32"),
    (DType::U64, "UINT64"),
    (DType::F16, "FP16"),
    (DType::BF16, "BF16"),
    (DType::F32, "FP32"),
    (DType::F64, "FP64"),
    (DType::String, "BYTES"),
];

/// The protocol's name of an element type; `None` for complex numbers, which it does not have.
pub fn datatype(dtype: DType) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == dtype).map(|(_, name)| *name)
}

/// The element type of a name; `None` for a name that the protocol does not have.
pub fn dtype(name: &str) -> Option<DType> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(dtype, _)| *dtype)
}

/// The dimensions as the protocol writes them: -1 for an open one. A number of dimensions that is not known is
/// written as one open dimension, because the protocol has no other way.
pub fn shape(dims: &Dims) -> Vec<i64> {
    let size = |dim: &Option<usize>| dim.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
    dims.known().map_or_else(|| vec![-1], |dims| dims.iter().map(size).collect())
}

/// The protocol's name of a tensor's element type, and its dimensions.
pub fn tensor_metadata(spec: &TensorSpec) -> (&'static str, Vec<i64>) {
    (datatype(spec.dtype).unwrap_or("COMPLEX"), shape(&spec.dims))
}

/// Which model and version a request means. An empty version is the highest; one that is not a number is a label.
///
/// # Errors
/// [`salver_predict::Code::InvalidArgument`] when no model is named.
pub fn request_spec(name: &str, version: &str) -> Result<ModelSpec, Error> {
    let name = ModelName::new(name).ok_or_else(|| Error::invalid("request names no model"))?;
    let version = match version.parse() {
        _ if version.is_empty() => VersionChoice::Latest,
        Ok(number) => VersionChoice::Number(number),
        Err(_) => VersionChoice::Label(version.to_owned()),
    };
    Ok(ModelSpec { name, version })
}

/// Byte strings, each with its length as four little-endian bytes before it; they share the memory of `raw`.
///
/// # Errors
/// A text that says what is wrong, when a length goes beyond the end or the number of strings is not `n`.
pub fn split_bytes(n: usize, mut raw: Bytes) -> Result<Vec<Bytes>, String> {
    let n_bytes = raw.len();
    // Each string takes four bytes at least, which bounds the memory reserved.
    let mut strings = Vec::with_capacity(n.min(n_bytes / 4));
    while raw.has_remaining() {
        if strings.len() == n {
            return Err(format!("{n_bytes} raw bytes hold more than the {n} elements of the shape"));
        }
        let length = raw.try_get_u32_le().ok().and_then(|length| usize::try_from(length).ok());
        match length.filter(|length| *length <= raw.remaining()) {
            Some(length) => strings.push(raw.split_to(length)),
            None => return Err(format!("element {} ends beyond the {n_bytes} raw bytes", strings.len())),
        }
    }
    if strings.len() < n {
        return Err(format!("{n_bytes} raw bytes hold {} elements, expected {n}", strings.len()));
    }
    Ok(strings)
}

/// The reverse of [`split_bytes`].
///
/// # Errors
/// A text, when a string is longer than four bytes can say.
pub fn join_bytes(strings: &[Bytes]) -> Result<Bytes, String> {
    let total = strings.iter().map(|string| string.len().saturating_add(4)).fold(0, usize::saturating_add);
    let mut raw = BytesMut::with_capacity(total);
    for string in strings {
        let length = u32::try_from(string.len())
            .map_err(|_| format!("a string of {} bytes is too long for the protocol", string.len()))?;
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(string);
    }
    Ok(raw.freeze())
}

/// The priority that a request's parameter `priority` means, as Triton has it: 0 is the default, 1 the first, larger numbers come
/// later. Above 9, the last that there is, all count as 9.
pub fn priority(number: u64) -> Option<u8> {
    (number > 0).then(|| u8::try_from(number.min(9)).unwrap_or(9))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_types_match() {
        for (dtype_known, name) in NAMES {
            assert_eq!(datatype(dtype_known), Some(name));
            assert_eq!(dtype(name), Some(dtype_known));
        }
        assert_eq!(datatype(DType::C64), None);
        assert_eq!(dtype("FP8"), None);
        assert_eq!(dtype("fp32"), None);
    }

    #[test]
    fn priorities_are_bounded() {
        assert_eq!([0, 1, 9, 10, u64::MAX].map(priority), [None, Some(1), Some(9), Some(9), Some(9)]);
    }

    #[test]
    fn versions_are_numbers_or_labels() {
        let version = |text| request_spec("m", text).map(|spec| spec.version);
        assert_eq!(version(""), Ok(VersionChoice::Latest));
        assert_eq!(version("12"), Ok(VersionChoice::Number(12)));
        assert_eq!(version("canary"), Ok(VersionChoice::Label("canary".into())));
        assert!(request_spec("", "1").is_err());
    }

    #[test]
    fn raw_strings_are_refused_when_they_do_not_fit() {
        let cases: [(usize, &[u8], &str); 5] = [
            (1, &[1, 0, 0], "element 0 ends beyond the 3 raw bytes"),
            (1, &[2, 0, 0, 0, b'a'], "element 0 ends beyond the 5 raw bytes"),
            (1, &[255, 255, 255, 255], "element 0 ends beyond the 4 raw bytes"),
            (2, &[1, 0, 0, 0, b'a'], "5 raw bytes hold 1 elements, expected 2"),
            (1, &[0, 0, 0, 0, 0, 0, 0, 0], "8 raw bytes hold more than the 1 elements of the shape"),
        ];
        for (n, raw, expected) in cases {
            assert_eq!(split_bytes(n, Bytes::copy_from_slice(raw)), Err(expected.to_owned()));
        }
        assert_eq!(
            split_bytes(usize::MAX, Bytes::new()).unwrap_err(),
            format!("0 raw bytes hold 0 elements, expected {}", usize::MAX)
        );
    }

    proptest! {
        #[test]
        fn joined_strings_split(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
            let strings: Vec<Bytes> = strings.into_iter().map(Bytes::from).collect();
            let raw = join_bytes(&strings).unwrap();
            prop_assert_eq!(split_bytes(strings.len(), raw).unwrap(), strings);
        }
    }
}
