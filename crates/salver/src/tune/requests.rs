//! What a model is asked while it is measured: its warm-up requests, a file, or what can be made up.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use salver_engine::DEFAULT_SIGNATURE;
use salver_predict::{bind_inputs, check_inputs};
use salver_servable::{MAX_WARMUP_REQUESTS, WarmupSource};
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};
use salver_tune::Request;
use salver_wire::json::{Limits, decode_predict};

use crate::warmup::RecordedPredictions;

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The model's warm-up requests.
    Recorded,
    /// The file that was named.
    File,
    /// Random numbers.
    MadeUp,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Recorded => "the model's warm-up requests",
            Origin::File => "the requests of the file",
            Origin::MadeUp => "random input",
        })
    }
}

/// The longest request and the largest file that are read.
const MAX_BYTES: usize = 256 << 20;

/// Rows of one made-up request, and how many requests are made up.
const ROWS: usize = 4;
const N_MADE_UP: usize = 8;

/// Bytes of all made-up requests together.
const MAX_MADE_UP: usize = 256 << 20;

/// The size of pictures where the model takes any.
const PICTURE: usize = 224;

/// The requests for a model at this place with these signatures.
///
/// # Errors
/// A text that says what cannot be read, or why nothing can be made up, with advice.
pub(super) fn of(
    place: &Path,
    file: Option<&Path>,
    signatures: &[Arc<Signature>],
) -> Result<(Vec<Request>, Origin), String> {
    if let Some(file) = file {
        return Ok((from_file(file, signatures)?, Origin::File));
    }
    let recorded = recorded(place, signatures)?;
    match recorded.is_empty() {
        true => Ok((made_up(signatures)?, Origin::MadeUp)),
        false => Ok((recorded, Origin::Recorded)),
    }
}

fn find<'a>(signatures: &'a [Arc<Signature>], name: &str) -> Option<&'a Arc<Signature>> {
    let name = if name.is_empty() { DEFAULT_SIGNATURE } else { name };
    signatures.iter().find(|signature| &**signature.name() == name)
}

fn recorded(place: &Path, signatures: &[Arc<Signature>]) -> Result<Vec<Request>, String> {
    let mut requests = Vec::new();
    let records = RecordedPredictions { max_bytes: MAX_BYTES }.requests(place)?;
    for (at, record) in records.into_iter().take(MAX_WARMUP_REQUESTS).enumerate() {
        let failed = |message: String| format!("warm-up record {}: {message}", at + 1);
        for name in &record.signature_names {
            let signature = find(signatures, name)
                .ok_or_else(|| failed(format!("no signature '{name}' that can be run")))?;
            let inputs =
                bind_inputs(signature, record.inputs.clone()).map_err(|error| failed(error.to_string()))?;
            check_inputs(signature, &inputs).map_err(|error| failed(error.to_string()))?;
            requests.push(Request { signature: Arc::clone(signature.name()), inputs });
        }
    }
    Ok(requests)
}

fn from_file(file: &Path, signatures: &[Arc<Signature>]) -> Result<Vec<Request>, String> {
    let failed = |message: String| format!("{}: {message}", file.display());
    let n_bytes = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if n_bytes > MAX_BYTES as u64 {
        return Err(failed(format!("{n_bytes} bytes, expected {MAX_BYTES} at most")));
    }
    let body = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let resolve = |name: &str| {
        find(signatures, name)
            .cloned()
            .ok_or_else(|| salver_predict::Error::invalid(format!("no signature '{name}' that can be run")))
    };
    let decoded =
        decode_predict(&body, resolve, Limits::default()).map_err(|error| failed(error.to_string()))?;
    Ok(cut(&decoded.signature, &decoded.inputs))
}

/// One request of many rows as several of few, where its rows are requests of their own.
fn cut(signature: &Signature, inputs: &[Tensor]) -> Vec<Request> {
    let whole = || vec![Request { signature: Arc::clone(signature.name()), inputs: inputs.to_vec() }];
    let n_rows = inputs.iter().map(|input| input.shape().n_rows()).min().flatten().unwrap_or(0);
    let is_even = inputs.iter().all(|input| input.shape().n_rows() == Some(n_rows));
    if !salver_batch::is_joinable(signature) || !is_even || n_rows <= ROWS {
        return whole();
    }
    let part = |start: usize| {
        let rows = |input: &Tensor| input.rows(start, ROWS.min(n_rows - start));
        let inputs = inputs.iter().map(rows).collect::<Option<Vec<Tensor>>>()?;
        Some(Request { signature: Arc::clone(signature.name()), inputs })
    };
    (0..n_rows).step_by(ROWS).map(part).collect::<Option<Vec<Request>>>().unwrap_or_else(whole)
}

/// Requests of random numbers for the default signature, or the first.
fn made_up(signatures: &[Arc<Signature>]) -> Result<Vec<Request>, String> {
    let usable = || signatures.iter().filter(|signature| !signature.keeps_state());
    let by_name = usable().find(|signature| &**signature.name() == DEFAULT_SIGNATURE);
    let Some(signature) = by_name.or_else(|| usable().next()) else {
        return Err("the model has no signature that can be run on trial: each keeps state".to_owned());
    };
    let n_rows = if salver_batch::is_joinable(signature) { ROWS } else { 1 };
    let mut random = Random(7);
    let mut n_bytes = 0;
    let mut requests = Vec::new();
    for _ in 0..N_MADE_UP {
        let inputs = signature.inputs().iter().map(|input| input_for(input, n_rows, &mut random));
        let inputs = inputs.collect::<Result<Vec<Tensor>, String>>()?;
        n_bytes += inputs.iter().map(Tensor::n_bytes).sum::<usize>();
        if n_bytes > MAX_MADE_UP && !requests.is_empty() {
            break;
        }
        requests.push(Request { signature: Arc::clone(signature.name()), inputs });
    }
    Ok(requests)
}

const ADVICE: &str =
    "record warm-up requests (assets.extra/tf_serving_warmup_requests), or give a request with --requests";

/// The sizes of an input: open rows are `n_rows`, what else is open is 1, or [`PICTURE`] for the sides of a picture.
fn dims_for(input: &TensorSpec, n_rows: usize) -> Result<Vec<usize>, String> {
    let name = &input.name;
    let Some(dims) = input.dims.known() else {
        return Err(format!("input '{name}' may have any shape, so nothing can be made up for it: {ADVICE}"));
    };
    let is_picture = matches!(dims, [_, _, _, Some(1 | 3 | 4)]);
    let open = |at: usize| match at {
        0 => n_rows,
        1 | 2 if is_picture => PICTURE,
        _ => 1,
    };
    Ok(dims.iter().enumerate().map(|(at, dim)| dim.unwrap_or_else(|| open(at))).collect())
}

/// What is made up for one input: floats from 0 to 1, small whole numbers, any booleans.
fn input_for(input: &TensorSpec, n_rows: usize, random: &mut Random) -> Result<Tensor, String> {
    let name = &input.name;
    if let Some(default) = input.default.as_ref().filter(|_| !input.dims.has_open_rows()) {
        return Ok(default.clone());
    }
    if input.dtype == DType::String {
        return Err(format!(
            "input '{name}' takes strings, for which nothing sensible can be made up: {ADVICE}"
        ));
    }
    let failed = |error: salver_tensor::TensorError| format!("input '{name}': {error}");
    let shape = Shape::new(&dims_for(input, n_rows)?).map_err(|error| format!("input '{name}': {error}"))?;
    let size = input.dtype.size().unwrap_or(1);
    if shape.n_elements().saturating_mul(size) > MAX_MADE_UP {
        return Err(format!("input '{name}' of shape {shape} is too large to be made up: {ADVICE}"));
    }
    let n = shape.n_elements();
    macro_rules! vector {
        ($make:expr) => {
            Tensor::from_vec(shape, std::iter::repeat_with($make).take(n).collect()).map_err(failed)
        };
    }
    match input.dtype {
        DType::Bool => {
            let elements: Vec<bool> = (0..n).map(|_| random.below(2) == 1).collect();
            Tensor::from_bools(shape, &elements).map_err(failed)
        }
        DType::I8 => vector!(|| random.below(10) as i8),
        DType::I16 => vector!(|| i16::from(random.below(10))),
        DType::I32 => vector!(|| i32::from(random.below(10))),
        DType::I64 => vector!(|| i64::from(random.below(10))),
        DType::U8 => vector!(|| random.below(10)),
        DType::U16 => vector!(|| u16::from(random.below(10))),
        DType::U32 => vector!(|| u32::from(random.below(10))),
        DType::U64 => vector!(|| u64::from(random.below(10))),
        DType::F16 => vector!(|| half::f16::from_f32(random.unit())),
        DType::BF16 => vector!(|| half::bf16::from_f32(random.unit())),
        DType::F32 => vector!(|| random.unit()),
        DType::F64 => vector!(|| f64::from(random.unit())),
        DType::C64 => vector!(|| [random.unit(), random.unit()]),
        DType::C128 => vector!(|| [f64::from(random.unit()), f64::from(random.unit())]),
        DType::String => unreachable!("refused above"),
    }
}

/// Numbers that look random and are the same each time: the generator SplitMix64 (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// A whole number below `n`.
    fn below(&mut self, n: u8) -> u8 {
        u8::try_from(self.next() % u64::from(n)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use salver_tensor::Dims;

    use super::*;

    fn spec(dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec {
            name: "x".into(),
            tensor_name: "x:0".into(),
            dtype,
            dims: Dims::new(dims.to_vec()),
            default: None,
        }
    }

    fn signature(inputs: Vec<TensorSpec>) -> Arc<Signature> {
        let output = TensorSpec { name: "y".into(), ..spec(DType::F32, &[None, Some(2)]) };
        Arc::new(Signature::new(DEFAULT_SIGNATURE, "tensorflow/serving/predict", inputs, vec![output]))
    }

    #[test]
    fn every_type_of_number_is_made_up_as_the_signature_asks() {
        for dtype in DType::ALL.into_iter().filter(|dtype| *dtype != DType::String) {
            let signature = signature(vec![spec(dtype, &[None, Some(5), None])]);
            let requests = made_up(std::slice::from_ref(&signature)).unwrap();
            assert_eq!(requests.len(), N_MADE_UP, "{dtype}");
            for request in &requests {
                check_inputs(&signature, &request.inputs).unwrap();
                assert_eq!(request.inputs[0].shape().dims(), [ROWS, 5, 1], "{dtype}");
            }
            assert_ne!(requests[0].inputs, requests[1].inputs, "{dtype}");
        }
        let request = &made_up(&[signature(vec![spec(DType::F32, &[None, Some(500)])])]).unwrap()[0];
        let floats = request.inputs[0].to_slice::<f32>().unwrap();
        assert!(floats.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(floats.iter().any(|x| *x > 0.9) && floats.iter().any(|x| *x < 0.1));
    }

    #[test]
    fn open_sides_of_pictures_are_those_of_pictures() {
        let check = |dims: &[Option<usize>], expected: &[usize]| {
            assert_eq!(dims_for(&spec(DType::F32, dims), 4).unwrap(), expected);
        };
        check(&[None, None, None, Some(3)], &[4, PICTURE, PICTURE, 3]);
        check(&[None, Some(299), Some(299), Some(3)], &[4, 299, 299, 3]);
        check(&[Some(1), None, Some(9)], &[1, 1, 9]);
        check(&[], &[]);
    }

    #[test]
    fn what_cannot_be_made_up_is_refused_with_advice() {
        let check = |inputs: Vec<TensorSpec>, expected: &str| {
            let error = made_up(&[signature(inputs)]).unwrap_err();
            assert!(error.starts_with(expected) && error.contains("--requests"), "{error}");
        };
        check(vec![spec(DType::String, &[None])], "input 'x' takes strings");
        let any = TensorSpec { dims: Dims::unknown(), ..spec(DType::F32, &[]) };
        check(vec![any], "input 'x' may have any shape");
        check(
            vec![spec(DType::F64, &[None, Some(1 << 30)])],
            "input 'x' of shape [4,1073741824] is too large",
        );
        let kept = Arc::new((*signature(vec![spec(DType::F32, &[None])])).clone().with_state());
        assert!(made_up(&[kept]).unwrap_err().contains("keeps state"));
    }

    #[test]
    fn a_file_is_cut_into_requests() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("body.json");
        let signatures = [signature(vec![spec(DType::F32, &[None, Some(2)])])];
        std::fs::write(&file, r#"{"instances": [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]}"#).unwrap();
        let (requests, origin) = of(dir.path(), Some(&file), &signatures).unwrap();
        let rows: Vec<_> = requests.iter().map(|one| one.inputs[0].shape().dims()[0]).collect();
        assert_eq!((origin, rows), (Origin::File, vec![4, 1]));
        assert_eq!(of(dir.path(), None, &signatures).unwrap().1, Origin::MadeUp);
        for (body, expected) in [
            (r#"{"instances": [[1, 2, 3]]}"#, "body.json: "),
            (r#"{"signature_name": "other", "instances": [[1, 2]]}"#, "no signature 'other'"),
        ] {
            std::fs::write(&file, body).unwrap();
            let error = of(dir.path(), Some(&file), &signatures).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
