//! A record of Crayfish (JSON of 784 floats, about 8 KB of text) to a tensor, and the answer behind it, in CPU time of the
//! thread.
#![expect(clippy::unwrap_used, reason = "a benchmark whose input is wrong should stop")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use salver_mapping::{About, Plan, Settings};
use salver_predict::{ModelName, Version};
use salver_records::{Record, Slot};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

/// Measures the CPU time of the calling thread, so that other work on the machine counts less.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap()
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

fn spec(name: &str, width: usize) -> TensorSpec {
    let dims = Dims::new(vec![None, Some(width)]);
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype: DType::F32, dims, default: None }
}

/// Digits that look random and are the same in every run.
fn digits(i: u64) -> u64 {
    (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24
}

fn record(content: String) -> Record {
    let value = Some(Bytes::from(content));
    Record { slot: Slot(0), offset: 0, key: None, value, headers: Vec::new(), timestamp_ms: None }
}

fn run(c: &mut Criterion<CpuTime>, name: &str, toml: &str, content: String, width: usize) {
    let signature = Signature::new("serving_default", "", vec![spec("x", width)], vec![spec("y", 10)]);
    let plan = Plan::new(&toml::from_str::<Settings>(toml).unwrap(), &signature, None, None, None).unwrap();
    let record = record(content);
    let model = ModelName::new("ffnn").unwrap();
    let about = About { model: &model, version: Version(1), latency: Duration::from_millis(1) };
    let scores: Vec<f32> = (0..10u8).map(|i| 0.123_456_7 / f32::from(i + 1)).collect();
    let outputs = [Tensor::from_vec(Shape::new(&[1, 10]).unwrap(), scores).unwrap()];
    let decoded = plan.decode(&record).unwrap();
    let inputs = plan.inputs(&decoded, &[]).unwrap();
    let n_bytes = record.value.as_ref().map_or(0, Bytes::len) as u64;
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(n_bytes));
    group.bench_function("decode", |b| b.iter(|| plan.decode(black_box(&record)).unwrap()));
    group.bench_function("inputs", |b| b.iter(|| plan.inputs(black_box(&decoded), &[]).unwrap()));
    group.bench_function("encode", |b| {
        b.iter(|| plan.encode(black_box(&record), &decoded, &inputs, &outputs, &about).unwrap());
    });
    group.bench_function("all", |b| {
        b.iter(|| {
            let decoded = plan.decode(black_box(&record)).unwrap();
            let inputs = plan.inputs(&decoded, &[]).unwrap();
            plan.encode(&record, &decoded, &inputs, &outputs, &about).unwrap()
        });
    });
    group.finish();
}

fn mapping(c: &mut Criterion<CpuTime>) {
    let row: Vec<String> = (0..784).map(|i| format!("0.{:08}", digits(i) % 100_000_000)).collect();
    let crayfish = format!(r#"{{"id":17,"created":1700000000000,"x":[[{}]]}}"#, row.join(","));
    run(c, "crayfish", "", crayfish, 784);
    let fields: Vec<String> =
        (1..=28).map(|i| format!("\"v{i}\":-{}.{}", i % 3, digits(i) % 1_000_000)).collect();
    let fraud = format!(r#"{{"time":406,"amount":239.93,{},"class":0}}"#, fields.join(","));
    let toml = "[[input.tensors]]\ninput = \"x\"\nfields = [\"v1..v28\", \"amount\"]\n";
    run(c, "fraud", toml, fraud, 29);
    let line: Vec<String> = (0..30).map(|i| format!("{}.{}", i % 5, digits(i) % 1_000_000)).collect();
    run(c, "line", "[input]\nformat = \"csv\"\n", line.join(","), 30);
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = mapping
}
criterion_main!(benches);
