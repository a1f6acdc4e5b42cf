//! Text to tensors and back, in CPU time of the thread. The case to watch is one picture of 224 x 224 x 3 floats in
//! 1.5 MB of text.
#![expect(clippy::unwrap_used, reason = "a benchmark whose input is wrong should stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use salver_wire::json::{Format, Limits, NonFinite, decode_predict, encode_predict};
use salver_wire::oip_rest::Infer;

/// Measures the CPU time of the calling thread, so that other work on the machine counts less.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap()
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype, dims: Dims::unknown(), default: None }
}

/// Digits that look random and are the same in every run.
fn digits(i: u64) -> u64 {
    (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24
}

/// Lists nested by `dims` with numbers such as `0.1234567`.
fn lists(dims: &[usize], next: &mut u64, body: &mut String) {
    let Some((&len, inner)) = dims.split_first() else {
        *next += 1;
        body.push_str(&format!("0.{:07}", digits(*next) % 10_000_000));
        return;
    };
    for i in 0..len {
        body.push(if i == 0 { '[' } else { ',' });
        lists(inner, next, body);
    }
    body.push(']');
}

fn nested(dims: &[usize]) -> String {
    let mut body = String::new();
    lists(dims, &mut 0, &mut body);
    body
}

fn decode(c: &mut Criterion<CpuTime>) {
    let signature = Arc::new(Signature::new("serving_default", "", vec![spec("x", DType::F32)], vec![]));
    let words = Arc::new(Signature::new("serving_default", "", vec![spec("x", DType::String)], vec![]));
    let rows = nested(&[1000, 4]).replace('[', "{\"x\":[").replacen("{\"x\":", "", 1).replace("],", "]},");
    let rows = format!("{{\"instances\": {}", rows.replacen("]]", "]}]}", 1));
    let cases = [
        ("picture_rows", &signature, format!("{{\"instances\": {}}}", nested(&[1, 224, 224, 3]))),
        ("picture_columnar", &signature, format!("{{\"inputs\": {}}}", nested(&[1, 224, 224, 3]))),
        ("flat_150528", &signature, format!("{{\"instances\": {}}}", nested(&[1, 224 * 224 * 3]))),
        ("row_of_784", &signature, format!("{{\"instances\": {}}}", nested(&[1, 784]))),
        ("named_rows_1000_of_4", &signature, rows),
        ("words_1000", &words, format!("{{\"instances\": [{}\"w\"]}}", "\"some words\", ".repeat(999))),
    ];
    let mut group = c.benchmark_group("decode_predict");
    for (name, signature, body) in cases {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let resolve = |_: &str| Ok(signature.clone());
                black_box(decode_predict(black_box(body.as_bytes()), resolve, Limits::default()).unwrap())
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion<CpuTime>) {
    let n = 150_528;
    let short: Vec<f32> = (0..n).map(|i| (digits(i) % 1000) as f32 / 1000.0).collect();
    let long: Vec<f32> = (0..n).map(|i| digits(i) as f32 / (1u64 << 40) as f32).collect();
    let double: Vec<f64> = (0..n).map(|i| digits(i) as f64 / (1u64 << 40) as f64).collect();
    let shape = || Shape::new(&[1, 224, 224, 3]).unwrap();
    let cases = [
        ("floats_of_3_digits", Tensor::from_vec(shape(), short).unwrap()),
        ("floats_of_9_digits", Tensor::from_vec(shape(), long).unwrap()),
        ("doubles_of_17_digits", Tensor::from_vec(shape(), double).unwrap()),
    ];
    let mut group = c.benchmark_group("encode_predict");
    group.throughput(Throughput::Elements(n));
    for (name, tensor) in &cases {
        group.bench_function(*name, |b| {
            b.iter(|| encode_predict(Format::Row, black_box(&[("y", tensor)]), NonFinite::Literal).unwrap());
        });
    }
    group.finish();
}

fn open_inference(c: &mut Criterion<CpuTime>) {
    let head = r#"{"inputs": [{"name": "x", "shape": [1, 224, 224, 3], "datatype": "FP32", "#;
    let json = Bytes::from(format!("{head}\"data\": {}}}]}}", nested(&[224 * 224 * 3])));
    let header = format!("{head}\"parameters\": {{\"binary_data_size\": 602112}}}}]}}");
    let mut binary = header.clone().into_bytes();
    binary.resize(header.len() + 602_112, 0);
    let binary = Bytes::from(binary);
    let mut group = c.benchmark_group("decode_infer");
    group.bench_function("picture_json", |b| {
        b.iter(|| Infer::decode(black_box(&json), None, Limits::default()).unwrap());
    });
    group.bench_function("picture_binary", |b| {
        b.iter(|| Infer::decode(black_box(&binary), Some(header.len()), Limits::default()).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).measurement_time(Duration::from_secs(3));
    targets = decode, encode, open_inference
}
criterion_main!(benches);
