//! What is asked: made up from a signature, or read from a file.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};
use prost::Message as _;
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};
use salver_wire::client::{Named, tfs_grpc};
use salver_wire::proto::inference::ModelInferRequest;
use salver_wire::proto::tensorflow::serving::PredictRequest;
use salver_wire::warmup::{WarmupReader, WarmupRequest, read_record};

use crate::call::{Call, MAX_ANSWER, Subject};
use crate::error::Error;
use crate::schedule::Random;
use crate::target::Protocol;

/// How requests are made up.
#[derive(Debug, Clone, PartialEq)]
pub struct MakeUp {
    /// Rows of each request, where the outermost dimension is open.
    pub n_rows: usize,
    /// Whole shapes of inputs, by name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of string inputs, in turn.
    pub texts: Vec<String>,
    /// Of the random numbers.
    pub seed: u64,
    /// How many different requests there are at most; fewer when they are large.
    pub n_bodies: usize,
}

impl Default for MakeUp {
    /// One row, 16 requests.
    fn default() -> MakeUp {
        let texts = ["the quick brown fox", "jumps over the lazy dog"].map(str::to_owned).to_vec();
        MakeUp { n_rows: 1, shapes: BTreeMap::new(), texts, seed: 1, n_bodies: 16 }
    }
}

/// Bytes of all tensors that are made up; one request may be as large as this by itself.
const MAX_BYTES: usize = 128 << 20;

/// Requests of random numbers for a signature: numbers with a fraction lie between 0 and 1, integers between 0 and 9. Open
/// dimensions are 1 unless a shape is given.
///
/// # Errors
/// [`crate::Kind::Input`] for a shape that does not fit, an input that there is not, or a request that is too large.
pub fn make_up(signature: &Signature, how: &MakeUp) -> Result<Vec<Named>, Error> {
    for name in how.shapes.keys() {
        if signature.input_index(name).is_none() {
            let names: Vec<&str> = signature.inputs().iter().map(|spec| &*spec.name).collect();
            return Err(Error::input(format!(
                "there is no input '{name}'; the inputs are: {}",
                names.join(", ")
            )));
        }
    }
    let specs = signature.inputs().iter();
    let shapes = specs.map(|spec| Ok((spec, shape(spec, how)?))).collect::<Result<Vec<_>, Error>>()?;
    let n_bytes = |(spec, shape): &(&TensorSpec, Shape)| {
        shape.n_elements().saturating_mul(spec.dtype.size().unwrap_or(32))
    };
    let one: usize = shapes.iter().map(n_bytes).fold(1, usize::saturating_add);
    if one > MAX_BYTES {
        return Err(Error::input(format!(
            "one request would take {one} bytes, at most {MAX_BYTES} are made up"
        )));
    }
    let mut random = Random::new(how.seed);
    let n = how.n_bodies.clamp(1, 4096).min(MAX_BYTES / one).max(1);
    let body = |_| {
        let inputs = shapes.iter().map(|(spec, shape)| {
            Ok((spec.name.to_string(), tensor(spec, shape.clone(), &how.texts, &mut random)?))
        });
        inputs.collect::<Result<Named, Error>>()
    };
    (0..n).map(body).collect()
}

fn shape(spec: &TensorSpec, how: &MakeUp) -> Result<Shape, Error> {
    let wrong = |why: String| Error::input(format!("input '{}' takes {}: {why}", spec.name, spec.dims));
    let given = how.shapes.get(&*spec.name);
    let dims: Vec<usize> = match (given, spec.dims.known()) {
        (Some(given), _) => given.clone(),
        (None, None) => vec![how.n_rows],
        (None, Some(dims)) => {
            let size =
                |(at, dim): (usize, &Option<usize>)| dim.unwrap_or(if at == 0 { how.n_rows } else { 1 });
            dims.iter().enumerate().map(size).collect()
        }
    };
    let shape = Shape::new(&dims).map_err(|error| wrong(error.to_string()))?;
    if !spec.dims.accepts(&shape) {
        return Err(wrong(format!("the shape {shape} does not fit")));
    }
    let has_rows = given.is_some() || spec.dims.has_open_rows() || spec.dims.known().is_none();
    if how.n_rows != 1 && !has_rows && shape.n_rows() != Some(how.n_rows) {
        return Err(wrong(format!("it has no room for {} rows", how.n_rows)));
    }
    Ok(shape)
}

fn tensor(spec: &TensorSpec, shape: Shape, texts: &[String], random: &mut Random) -> Result<Tensor, Error> {
    let n = shape.n_elements();
    let mut digit = || (random.next() >> 33) % 10;
    macro_rules! digits {
        ($($rust:ty),*) => { ($((0..n).map(|_| digit() as $rust).collect::<Vec<$rust>>()),*) };
    }
    let made = match spec.dtype {
        DType::Bool => Tensor::from_bools(shape, &(0..n).map(|_| digit() < 5).collect::<Vec<_>>()),
        DType::I8 => Tensor::from_vec(shape, digits!(i8)),
        DType::I16 => Tensor::from_vec(shape, digits!(i16)),
        DType::I32 => Tensor::from_vec(shape, digits!(i32)),
        DType::I64 => Tensor::from_vec(shape, digits!(i64)),
        DType::U8 => Tensor::from_vec(shape, digits!(u8)),
        DType::U16 => Tensor::from_vec(shape, digits!(u16)),
        DType::U32 => Tensor::from_vec(shape, digits!(u32)),
        DType::U64 => Tensor::from_vec(shape, digits!(u64)),
        DType::F32 => Tensor::from_vec(shape, (0..n).map(|_| random.unit() as f32).collect()),
        DType::F64 => Tensor::from_vec(shape, (0..n).map(|_| random.unit()).collect::<Vec<f64>>()),
        DType::F16 => Tensor::from_vec(shape, (0..n).map(|_| f16::from_f64(random.unit())).collect()),
        DType::BF16 => Tensor::from_vec(shape, (0..n).map(|_| bf16::from_f64(random.unit())).collect()),
        DType::C64 => {
            let pair = |_| [random.unit() as f32, random.unit() as f32];
            Tensor::from_vec(shape, (0..n).map(pair).collect())
        }
        DType::C128 => {
            let pair = |_| [random.unit(), random.unit()];
            Tensor::from_vec(shape, (0..n).map(pair).collect::<Vec<[f64; 2]>>())
        }
        DType::String => {
            let text = |at: usize| Bytes::copy_from_slice(texts[at % texts.len()].as_bytes());
            if texts.is_empty() {
                return Err(Error::input(format!("input '{}' takes strings, and none are given", spec.name)));
            }
            let first = usize::try_from(random.next() % texts.len() as u64).unwrap_or(0);
            Tensor::from_strings(shape, (first..first + n).map(text).collect())
        }
    };
    made.map_err(|error| Error::input(format!("input '{}': {error}", spec.name)))
}

/// The longest record of a file.
const MAX_RECORD: u64 = 256 << 20;

/// The requests of a file, with notes on what was left out: records of `PredictionLog` (as in
/// `tf_serving_warmup_requests`) for every interface; a serialized request for gRPC; JSON for REST, one body, or one on each
/// line. Model and version are those of `subject`, the signature is the one of the request where it has one.
///
/// # Errors
/// [`crate::Kind::Input`] with what the file was taken for and what is wrong with it.
pub fn read_calls(file: &[u8], subject: &Subject) -> Result<(Vec<Call>, Vec<String>), Error> {
    if file.is_empty() {
        return Err(Error::input("the file is empty"));
    }
    // A record begins with a length and its checksum, which nothing else has by accident.
    if matches!(read_record(&mut &file[..], MAX_RECORD), Ok(Some(_))) {
        return records(file, subject);
    }
    let calls = match subject.protocol {
        Protocol::TfsGrpc => {
            let request = PredictRequest::decode(file)
                .map_err(|error| Error::input(format!("neither records nor a PredictRequest: {error}")))?;
            vec![predict(request, subject)?]
        }
        Protocol::OipGrpc => {
            let mut request = ModelInferRequest::decode(file)
                .map_err(|error| Error::input(format!("neither records nor a ModelInferRequest: {error}")))?;
            let own = salver_wire::client::oip_grpc::metadata_request(&subject.spec);
            (request.model_name, request.model_version) = (own.name, own.version);
            vec![Call::grpc(salver_wire::client::oip_grpc::INFER, &request)?]
        }
        Protocol::TfsRest | Protocol::OipRest | Protocol::OipRestBinary => json(file, subject)?,
    };
    Ok((calls, Vec::new()))
}

fn predict(mut request: PredictRequest, subject: &Subject) -> Result<Call, Error> {
    let recorded = request.model_spec.take().map(|spec| spec.signature_name).unwrap_or_default();
    let mut spec = tfs_grpc::proto_spec(&subject.spec);
    spec.signature_name = if recorded.is_empty() { subject.signature.clone() } else { recorded };
    request.model_spec = Some(spec);
    Call::grpc(tfs_grpc::PREDICT, &request)
}

fn records(file: &[u8], subject: &Subject) -> Result<(Vec<Call>, Vec<String>), Error> {
    let mut calls = Vec::new();
    let mut n_others = 0;
    for request in WarmupReader::new(file, MAX_RECORD) {
        match request.map_err(|error| Error::input(error.to_string()))? {
            WarmupRequest::Predict(request) if subject.protocol == Protocol::TfsGrpc => {
                calls.push(predict(*request, subject)?);
            }
            WarmupRequest::Predict(request) => {
                let signature = request.model_spec.as_ref().map(|spec| spec.signature_name.clone());
                let inputs = tfs_grpc::decode_inputs(*request, MAX_ANSWER)
                    .map_err(|error| Error::input(format!("record {}: {error}", calls.len() + n_others)))?;
                let signature =
                    signature.filter(|name| !name.is_empty()).unwrap_or_else(|| subject.signature.clone());
                calls.push(Subject { signature, ..subject.clone() }.call(&inputs)?);
            }
            _ => n_others += 1,
        }
    }
    if calls.is_empty() {
        return Err(Error::input(format!("none of the {n_others} records is of a Predict request")));
    }
    let notes =
        (n_others > 0).then(|| format!("{n_others} records that are not of Predict requests are left out"));
    Ok((calls, notes.into_iter().collect()))
}

fn json(file: &[u8], subject: &Subject) -> Result<Vec<Call>, Error> {
    let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text);
    let whole = match is_json(file) {
        Ok(_) => return Ok(vec![subject.json(Bytes::copy_from_slice(file))]),
        Err(error) => error,
    };
    let lines: Vec<&[u8]> =
        file.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    if lines.len() > 1 && lines.iter().all(|line| is_json(line).is_ok()) {
        return Ok(lines.into_iter().map(|line| subject.json(Bytes::copy_from_slice(line))).collect());
    }
    Err(Error::input(format!("neither records, nor JSON, nor lines of JSON: {whole}")))
}

#[cfg(test)]
mod tests;
