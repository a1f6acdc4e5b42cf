//! Bytes that are wrong in every way: nothing panics, and what is accepted has the shape that was asked for.

use std::collections::BTreeMap;

use prost::Message as _;
use salver_mapping::Plan;
use salver_tensor::{DType, Signature, Tensor};
use salver_wire::proto::tensorflow::serving::PredictRequest;
use salver_wire::proto::tensorflow::{Feature, Features, FloatList, feature::Kind};
use salver_wire::tfs::{Encoding, SerializedExample, encode_tensor};

use super::{answer, floats, plan, record, signature, spec, tensor};

const ROUNDS: u64 = 10_000;

/// Numbers that look random and are the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// One of the seeds with a few changes, or nothing but noise.
    fn content(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if self.below(8) == 0 {
            let n = self.below(64);
            return (0..n).map(|_| self.byte()).collect();
        }
        let mut content = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(content.len());
            match self.below(6) {
                0 if !content.is_empty() => content[at] = self.byte(),
                1 if !content.is_empty() => content[at] ^= 1 << self.below(8),
                2 => content.truncate(at),
                3 => content.insert(at, b"{}[],:\"\\e-.09\n;'\x00\xff"[self.below(18)]),
                4 => {
                    let part = content[at..(at + self.below(16)).min(content.len())].to_vec();
                    let to = self.below(content.len());
                    content.splice(to..to, part);
                }
                _ if !content.is_empty() => drop(content.remove(at)),
                _ => {}
            }
        }
        content
    }
}

/// Everything that is done with a record, over many that are wrong. Some are still right.
fn check(plan: &Plan, signature: &Signature, seeds: &[Vec<u8>], outputs: impl Fn(usize) -> Vec<Tensor>) {
    let mut dice = Dice(42);
    let (mut n_taken, mut n_refused) = (0, 0);
    for _ in 0..ROUNDS {
        let content = dice.content(seeds);
        let Ok(decoded) = plan.decode(&record(content.clone())) else {
            n_refused += 1;
            continue;
        };
        let _wanted = plan.keep(&decoded).is_ok_and(|wanted| wanted);
        let Ok(inputs) = plan.inputs(&decoded, &[]) else {
            n_refused += 1;
            continue;
        };
        n_taken += 1;
        for (spec, input) in signature.inputs().iter().zip(&inputs) {
            assert!(spec.dtype == input.dtype() && spec.dims.accepts(input.shape()), "{input:?}");
        }
        let n_rows = inputs[0].shape().n_rows().unwrap();
        if let Err(refused) = answer(plan, content, &outputs(n_rows)) {
            assert!(refused.message.contains("expected"), "{refused}");
        }
    }
    assert!(n_taken > 100 && n_refused > 100, "{n_taken} taken, {n_refused} refused");
}

fn column(n_rows: usize) -> Vec<Tensor> {
    vec![tensor(&[n_rows, 1], &vec![0.5; n_rows])]
}

#[test]
fn json() {
    let model = signature(
        vec![
            spec("i", DType::I64, &[None]),
            spec("s", DType::String, &[None]),
            spec("x", DType::F32, &[None, Some(3)]),
        ],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    let toml = "[[input.tensors]]\ninput = \"x\"\nfields = [\"a\", \"b.c[1]\", \"b.d\"]\nmissing = 0\n\
                [[input.tensors]]\ninput = \"i\"\nfield = \"b.c[0]\"\n\
                [[filter]]\nfield = \"b\"\nexists = true\n";
    let seeds = [
        br#"{"s": "caf\u00e9", "a": 1.5e3, "b": {"c": [7, 8], "d": -0.1}, "z": [null, {"q": true}]}"#
            .to_vec(),
        br#"{"b":{"c":[123456789012,2]},"s":{"b64":"AAAA"},"a":null,"b":{"c":[1]}}"#.to_vec(),
    ];
    check(&plan(toml, &model), &model, &seeds, column);
    let lists = [
        b"{\"x\": [[1, 2, 3], [4.5, 5, 6]], \"k\": 1}".to_vec(),
        b"[1, 2, 3]".to_vec(),
        b"{\"x\":[0,1e5,NaN]}".to_vec(),
    ];
    check(&plan("", &floats(3, 1)), &floats(3, 1), &lists, column);
}

#[test]
fn csv() {
    let toml = "[input]\nformat = \"csv\"\ncsv = { columns = [\"a\", \"b\", \"c\", \"d\"] }\n\
                [[input.tensors]]\ninput = \"x\"\nfields = [\"a\", \"c\", \"d\"]\nmissing = 0\n\
                [[filter]]\nfield = \"b\"\nmatches = \"o\"\n";
    let seeds = [b"1,\"two, \"\"or\"\" 2\",3.5e-3,\r\n".to_vec(), b"-7,two,8,9".to_vec()];
    check(&plan(toml, &floats(3, 1)), &floats(3, 1), &seeds, column);
}

#[test]
fn raw() {
    let toml = "[input]\nformat = \"raw\"";
    check(&plan(toml, &floats(3, 1)), &floats(3, 1), &[vec![1; 12], vec![2; 24]], column);
}

#[test]
fn predict_request() {
    let x = tensor(&[2, 3], &[1.0; 6]);
    let request = |encoding| {
        let inputs = BTreeMap::from([("x".to_owned(), encode_tensor(&x, encoding))]);
        PredictRequest { inputs, ..PredictRequest::default() }.encode_to_vec()
    };
    let seeds = [request(Encoding::Fields), request(Encoding::Content)];
    check(&plan("[input]\nformat = \"predict_request\"", &floats(3, 1)), &floats(3, 1), &seeds, column);
}

#[test]
fn example() {
    let list = Kind::FloatList(FloatList { value: vec![1.0, 2.0, 3.0] });
    let features = Features { feature: BTreeMap::from([("x".to_owned(), Feature { kind: Some(list) })]) };
    let seeds = [SerializedExample::from(&features).as_bytes().to_vec()];
    check(&plan("[input]\nformat = \"example\"", &floats(3, 1)), &floats(3, 1), &seeds, column);
}

/// A plan for records of a schema.
fn schema_plan(toml: &str, schema: &str) -> Plan {
    let mut settings = super::settings(toml);
    settings.input.schema.load(&mut |_| Ok(schema.to_owned())).unwrap();
    Plan::new(&settings, &floats(3, 1), None, None, None).unwrap()
}

#[test]
fn avro() {
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "x", "type": {"type": "array", "items": ["float", "long"]}},
        {"name": "more", "type": ["null", "R", {"type": "map", "values": ["bytes", "R"]}]},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}}]}"#;
    let plan = schema_plan("[input]\nformat = \"avro\"\nschema = { file = \"own\" }", schema);
    // 1.5, 2 and 3; nothing; 0.005. Then the same within itself, and a map of bytes.
    let list = [6, 0, 0, 0, 0xc0, 0x3f, 2, 4, 2, 6, 0];
    let plain = [&list[..], &[0, 2, 5]].concat();
    let inner = [&list[..], &[2], &plain, &[0]].concat();
    let mapped = [&list[..], &[4, 2, 2, b'k', 0, 4, 1, 2, 0, 2, 0xff]].concat();
    check(&plan, &floats(3, 1), &[plain, inner, mapped], column);
}

#[test]
fn protobuf() {
    let schema = "syntax = \"proto3\"; message R { repeated float x = 1; R more = 2; map<string, R> named = 3; oneof o { int64 n = 4; string s = 5; } }";
    let toml = "[input]\nformat = \"protobuf\"\nschema = { file = \"own\" }\n[output]\nformat = \"json\"\nmode = \"replace\"\nkeep = [\"more.named\", \"s\"]";
    let plan = schema_plan(toml, schema);
    let numbers = [&[10, 12][..], &[0, 0, 0x80, 0x3f].repeat(3)].concat();
    let inner = [&numbers[..], &[18, 14], &numbers, &[42, 1, b's']].concat();
    let named = [&numbers[..], &[18, 9, 26, 7, 10, 1, b'k', 18, 2, 32, 9, 32, 7]].concat();
    check(&plan, &floats(3, 1), &[numbers, inner, named], column);
}

#[test]
fn image() {
    use image::{ExtendedColorType::Rgb8, ImageEncoder as _};
    let pixels: Vec<u8> = (0..8 * 8 * 3).collect();
    let mut seeds = [Vec::new(), Vec::new()];
    image::codecs::png::PngEncoder::new(&mut seeds[0]).write_image(&pixels, 8, 8, Rgb8).unwrap();
    image::codecs::jpeg::JpegEncoder::new(&mut seeds[1]).write_image(&pixels, 8, 8, Rgb8).unwrap();
    let model = signature(
        vec![spec("x", DType::F32, &[None, Some(4), Some(4), Some(3)])],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    let toml = "[input]\nformat = \"image\"\n[input.limits]\nmax_pixels = 100000\n";
    check(&plan(toml, &model), &model, &seeds, column);
}
