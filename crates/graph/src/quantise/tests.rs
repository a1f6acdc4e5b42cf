use proptest::prelude::*;
use salver_kernels::Attributes;
use salver_tensor::{DType, Shape, Tensor};

use super::*;
use crate::ir::Dim;
use crate::{Builder, evaluate, verify};

/// A tensor of numbers between -1 and 1 that look as if drawn at random.
fn noise(dims: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let n = dims.iter().product();
    Tensor::from_vec(Shape::new(dims).unwrap(), (0..n).map(|_| next()).collect()).unwrap()
}

fn input(b: &mut Builder, dims: &[usize]) -> ValueId {
    b.input("x", DType::F32, Some(dims.iter().copied().map(Dim::Fixed).collect()))
}

fn picture(b: &mut Builder) -> ValueId {
    input(b, &[1, 4, 6, 6])
}

/// A convolution that keeps the shape of `n` channels.
fn conv(b: &mut Builder, name: &str, x: ValueId, n: usize) -> ValueId {
    let weights = noise(&[n, n, 3, 3], name.len() as u64 + u64::from(name.as_bytes()[0]));
    let (w, bias) = (b.constant("w", weights), b.constant("b", noise(&[n], 3)));
    b.op(name, "Conv", &[x, w, bias], Attributes::new().with("pads", [1, 1, 1, 1])).unwrap()
}

fn op(b: &mut Builder, op: &str, inputs: &[ValueId]) -> ValueId {
    b.op(&op.to_lowercase(), op, inputs, Attributes::new()).unwrap()
}

fn product(b: &mut Builder, x: ValueId, rows: usize, columns: usize) -> ValueId {
    let w = b.constant("w", noise(&[rows, columns], 5));
    op(b, "MatMul", &[x, w])
}

/// The ranges of all points in runs on these inputs.
fn measured(graph: &Graph, runs: &[Tensor]) -> Ranges {
    let mut ranges = Ranges::new(graph);
    let points = calibration_points(graph);
    let named: Vec<_> = points.iter().map(|&id| (graph.value(id).name.clone(), id)).collect();
    let with_points = graph.extract(&graph.body().nodes, graph.inputs(), &named);
    for run in runs {
        let values = evaluate(&with_points, std::slice::from_ref(run)).unwrap();
        for ((name, _), value) in named.iter().zip(values) {
            ranges.include(name, &value.to_slice::<f32>().unwrap());
        }
    }
    ranges
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_slice::<f32>().unwrap().to_vec()
}

/// What takes and gives which values, constants left out: `conv(x/rounded) relu(conv) ..`.
fn text(graph: &Graph) -> String {
    let short = |id: ValueId| graph.value(id).name.replace("/quantised", "'").replace("/rounded", "\"");
    let node = |node: &crate::Node| {
        let inputs = node.present_inputs().filter(|&id| graph.value(id).constant.is_none()).map(short);
        let inputs: Vec<_> =
            inputs.filter(|name| !name.contains("/weights") && !name.contains("/bias")).collect();
        let is_ours = matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear");
        (!is_ours).then(|| format!("{}({})", node.op, inputs.join(",")))
    };
    graph.body().nodes.iter().filter_map(node).collect::<Vec<_>>().join(" ")
}

/// A graph, what becomes of it (`"` marks what is rounded), and what stays in floats and why.
type Case = (fn(&mut Builder) -> ValueId, &'static str, &'static [&'static str]);

#[test]
fn each_thing_becomes_int8_where_it_should() {
    let cases: &[Case] = &[
        // The last convolution stays.
        (
            |b| {
                let x = picture(b);
                let y = conv(b, "first", x, 4);
                let y = op(b, "Relu", &[y]);
                conv(b, "last", y, 4)
            },
            r#"Conv(x") Relu(first) Conv(relu")"#,
            &["last: its result is an output, or used in a body"],
        ),
        // What is between, and what else takes it.
        (
            |b| {
                let x = picture(b);
                let one = conv(b, "one", x, 4);
                let two = conv(b, "two", x, 4);
                let axis = Attributes::new().with("axis", 1i64);
                let joined = b.op("joined", "Concat", &[one, two], axis).unwrap();
                let kernel = Attributes::new().with("kernel_shape", [2, 2]);
                let pooled = b.op("pooled", "MaxPool", &[joined], kernel).unwrap();
                let y = conv(b, "last", pooled, 8);
                let gate = op(b, "Sigmoid", &[y]);
                op(b, "Mul", &[gate, y])
            },
            r#"Conv(x") Conv(x") Concat(one",two") MaxPool(joined") Conv(pooled") Sigmoid(last") Mul(sigmoid,last")"#,
            &[],
        ),
        // What only moves the input moves small integers. Adding is done in them when both are there.
        (
            |b| {
                let x = input(b, &[1, 6, 6, 4]);
                let turned = Attributes::new().with("perm", [0, 3, 1, 2]);
                let x = b.op("turned", "Transpose", &[x], turned).unwrap();
                let one = conv(b, "one", x, 4);
                let two = conv(b, "two", one, 4);
                let sum = op(b, "Add", &[one, two]);
                let sum = op(b, "Relu", &[sum]);
                let y = conv(b, "last", sum, 4);
                op(b, "Tanh", &[y])
            },
            r#"Transpose(x") Conv(turned") Conv(one") Add(one",two") Relu(add) Conv(relu") Tanh(last")"#,
            &[],
        ),
        // A product takes the addition of its bias along, gives floats, and leaves other users of its input alone.
        (
            |b| {
                let x = input(b, &[2, 64]);
                let x = op(b, "Tanh", &[x]);
                let y = product(b, x, 64, 64);
                let bias = b.constant("b", noise(&[64], 2));
                let y = op(b, "Add", &[y, bias]);
                op(b, "Add", &[y, x])
            },
            r#"Tanh(x) Gemm(tanh") Add(add,tanh)"#,
            &[],
        ),
        // One of three dimensions keeps its addition.
        (
            |b| {
                let x = input(b, &[2, 3, 64]);
                let y = product(b, x, 64, 32);
                let bias = b.constant("b", noise(&[32], 2));
                op(b, "Add", &[y, bias])
            },
            r#"MatMul(x") Add(matmul)"#,
            &[],
        ),
        // Too small, or of two activations.
        (
            |b| {
                let x = input(b, &[8, 8]);
                let y = product(b, x, 8, 8);
                op(b, "MatMul", &[y, x])
            },
            "MatMul(x) MatMul(matmul,x)",
            &["matmul: it is too small"],
        ),
        // Always the same.
        (
            |b| {
                let x = picture(b);
                let zero = b.f32(0.0);
                let x = op(b, "Mul", &[x, zero]);
                let y = conv(b, "first", x, 4);
                op(b, "Tanh", &[y])
            },
            "Mul(x) Conv(mul) Tanh(first)",
            &["first: a value that it takes or gives has no usable range"],
        ),
    ];
    for (make, expected, kept) in cases {
        let mut b = Builder::new();
        let y = make(&mut b);
        let graph = b.finish(&[("y", y)]).unwrap();
        let dims: Vec<_> =
            graph.value(graph.inputs()[0]).dims.iter().flatten().flat_map(Dim::fixed).collect();
        let ranges = measured(&graph, &[noise(&dims, 1)]);
        let (quantised, report) = quantise(&graph, &ranges).unwrap();
        assert_eq!(verify(&quantised), Ok(()), "{expected}");
        assert_eq!(text(&quantised), *expected);
        let found: Vec<_> = report.kept.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        assert_eq!(found, *kept, "{expected}");
        // What is written reads back as the same operators: nothing of it is folded away.
        let proto = crate::onnx::model(&quantised, &crate::onnx::Labels::default()).unwrap();
        let none = |_: &str, _, _| Err(Error::invalid("no files"));
        let again = crate::onnx::graph(&proto, &none).unwrap();
        let ops = |graph: &Graph| graph.body().nodes.iter().map(|node| node.op.clone()).collect::<Vec<_>>();
        assert_eq!(ops(&again), ops(&quantised), "{expected}");
    }
}

#[test]
fn ranges_of_another_model_are_refused() {
    let make = |seed: u64, name: &str| {
        let mut b = Builder::new();
        let x = input(&mut b, &[2, 64]);
        let w = b.constant("w", noise(&[64, 64], seed));
        let y = b.op(name, "MatMul", &[x, w], Attributes::new()).unwrap();
        b.finish(&[("y", y)]).unwrap()
    };
    let ranges = measured(&make(1, "y"), &[noise(&[2, 64], 1)]);
    for (seed, name, fits) in [(1, "y", true), (2, "y", false), (1, "z", false)] {
        let result = quantise(&make(seed, name), &ranges);
        assert_eq!(result.is_ok(), fits, "{seed} {name}: {result:?}");
    }
}

#[test]
fn a_large_bias_fits_32_bits() {
    let mut b = Builder::new();
    let x = input(&mut b, &[1, 2048]);
    let (w, bias) = (b.constant("w", noise(&[2048, 2], 1)), b.constant("b", noise(&[2], 1)));
    let tiny = b.f32(1e-12);
    let (w, scale) = (op(&mut b, "Mul", &[w, tiny]), b.f32(1e6));
    let bias = op(&mut b, "Mul", &[bias, scale]);
    let y = op(&mut b, "Gemm", &[x, w, bias]);
    let graph = b.finish(&[("y", y)]).unwrap();
    let x = noise(&[1, 2048], 7);
    let (quantised, report) = quantise(&graph, &measured(&graph, std::slice::from_ref(&x))).unwrap();
    assert_eq!(report.quantised, ["gemm"]);
    let (before, after) =
        (evaluate(&graph, std::slice::from_ref(&x)).unwrap(), evaluate(&quantised, &[x]).unwrap());
    for (before, after) in floats(&before[0]).into_iter().zip(floats(&after[0])) {
        assert!((before - after).abs() <= before.abs() * 1e-6, "{before} {after}");
    }
}

/// A small network, two inputs that it is measured with, and one more between them.
fn network(kinds: &[u8], seed: u64) -> (Graph, [Tensor; 3]) {
    let mut b = Builder::new();
    let mut y = picture(&mut b);
    for (at, kind) in kinds.iter().enumerate() {
        let before = y;
        y = conv(&mut b, &format!("{}{at}", (b'a' + (seed % 20) as u8) as char), y, 4);
        y = match kind {
            0 => op(&mut b, "Relu", &[y]),
            1 => {
                let y = op(&mut b, "Add", &[y, before]);
                op(&mut b, "Relu", &[y])
            }
            2 => {
                let kernel = Attributes::new().with("kernel_shape", [3, 3]).with("pads", [1, 1, 1, 1]);
                b.op("pool", "AveragePool", &[y], kernel).unwrap()
            }
            _ => op(&mut b, "Sigmoid", &[y]),
        };
    }
    let flat = b.i64s(&[1, 144]);
    let y = op(&mut b, "Reshape", &[y, flat]);
    let y = product(&mut b, y, 144, 8);
    let graph = b.finish(&[("y", y)]).unwrap();
    let [one, two] = [noise(&[1, 4, 6, 6], seed), noise(&[1, 4, 6, 6], seed ^ 99)];
    let between = floats(&one).iter().zip(floats(&two)).map(|(a, b)| 0.5 * (a + b)).collect();
    let between = Tensor::from_vec(Shape::new(&[1, 4, 6, 6]).unwrap(), between).unwrap();
    (graph, [one, two, between])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Of networks of up to three convolutions and a product, the results are off by at most a twentieth of the largest
    /// number in them: the root of the mean square over all results for what it was measured with, and for one between.
    #[test]
    fn results_stay_near(kinds in prop::collection::vec(0u8..4, 1..4), seed in 1u64..1000) {
        let (graph, inputs) = network(&kinds, seed);
        let ranges = measured(&graph, &inputs[..2]);
        let (quantised, report) = quantise(&graph, &ranges).unwrap();
        prop_assert_eq!(report.quantised.len(), kinds.len() + 1);
        let run = |graph: &Graph| -> Vec<f32> {
            inputs.iter().flat_map(|x| floats(&evaluate(graph, std::slice::from_ref(x)).unwrap()[0])).collect()
        };
        let (exact, near) = (run(&graph), run(&quantised));
        let largest = exact.iter().fold(0f32, |largest, y| largest.max(y.abs()));
        let squares: f32 = exact.iter().zip(&near).map(|(exact, near)| (exact - near).powi(2)).sum();
        let error = (squares / exact.len() as f32).sqrt();
        prop_assert!(error <= 0.05 * largest, "{} of {}", error, largest);
    }

    /// Of one product the error is at most what half a step of each factor makes of the other.
    #[test]
    fn one_product_is_as_exact_as_its_steps(seed in 1u64..1000, rows in 32usize..64, columns in 32usize..48) {
        let mut b = Builder::new();
        let x = input(&mut b, &[3, rows]);
        let y = product(&mut b, x, rows, columns);
        let graph = b.finish(&[("y", y)]).unwrap();
        let x = noise(&[3, rows], seed);
        let ranges = measured(&graph, std::slice::from_ref(&x));
        let (quantised, _) = quantise(&graph, &ranges).unwrap();
        let exact = floats(&evaluate(&graph, std::slice::from_ref(&x)).unwrap()[0]);
        let near = floats(&evaluate(&quantised, std::slice::from_ref(&x)).unwrap()[0]);
        let (x, w) = (floats(&x), floats(&noise(&[rows, columns], 5)));
        let (x_step, _) = ranges.get("x").unwrap().steps();
        for (at, (exact, near)) in exact.into_iter().zip(near).enumerate() {
            let (row, column) = (at / columns, at % columns);
            let of_w = (0..rows).map(|k| w[k * columns + column].abs());
            let w_step = of_w.clone().fold(0f32, f32::max) / 127.0;
            let of_x: f32 = x[row * rows..][..rows].iter().map(|x| x.abs()).sum();
            let bound = 0.5 * (x_step * of_w.sum::<f32>() + w_step * of_x + x_step * w_step * rows as f32);
            prop_assert!((exact - near).abs() <= bound * 1.01, "{} {} bound {}", exact, near, bound);
        }
    }

    /// Steps over any range hold 0 exactly, and every number of the range to half a step.
    #[test]
    fn steps_hold_zero_and_the_range(min in -1e6f32..1e6, size in 0f32..1e6, at in 0f32..1.0) {
        let range = Range { min, max: min + size };
        prop_assume!(range.is_usable());
        let (scale, zero) = range.steps();
        let there = |x: f32| ((x / scale).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0);
        let back = |x: f32| (there(x) - f32::from(zero)) * scale;
        prop_assert_eq!(back(0.0), 0.0);
        let x = min + size * at;
        prop_assert!((back(x) - x).abs() <= scale * 0.501 + scale * 0.51 * f32::from(u8::from(zero > 0)), "{} {}", back(x), x);
    }
}

#[test]
fn ranges_grow_and_say_when_they_are_of_no_use() {
    let check = |runs: &[&[f32]], expected: Option<(f32, f32)>, usable: bool| {
        let mut ranges = Ranges::default();
        runs.iter().for_each(|run| ranges.include("v", run));
        let range = ranges.get("v");
        assert_eq!(range.map(|range| (range.min, range.max)), expected, "{runs:?}");
        assert_eq!(range.is_some_and(|range| range.is_usable()), usable, "{runs:?}");
    };
    check(&[], None, false);
    check(&[&[]], None, false);
    check(&[&[0.0, 0.0]], Some((0.0, 0.0)), false);
    check(&[&[2.0]], Some((2.0, 2.0)), true);
    check(&[&[1.0, -2.0], &[], &[0.5, 3.0]], Some((-2.0, 3.0)), true);
    check(&[&[1.0], &[f32::NAN]], Some((f32::NEG_INFINITY, f32::INFINITY)), false);
    check(&[&[1.0, f32::INFINITY]], Some((f32::NEG_INFINITY, f32::INFINITY)), false);
    check(&[&[-3e38, 3e38]], Some((-3e38, 3e38)), false);
}

#[test]
fn ranges_belong_to_the_attributes_and_bounds_that_they_were_measured_with() {
    let made = |stride: i64, pad: i64, most: f32| {
        let mut b = Builder::new();
        let x = picture(&mut b);
        let (w, bias) = (b.constant("w", noise(&[4, 4, 3, 3], 1)), b.constant("b", noise(&[4], 3)));
        let attributes = Attributes::new().with("pads", [pad; 4]).with("strides", [stride; 2]);
        let y = b.op("conv", "Conv", &[x, w, bias], attributes).unwrap();
        let bound = |value: f32| Tensor::from_vec(Shape::new(&[]).unwrap(), vec![value]).unwrap();
        let (least, most) = (b.constant("least", bound(0.0)), b.constant("most", bound(most)));
        let y = op(&mut b, "Clip", &[y, least, most]);
        let y = op(&mut b, "Sigmoid", &[y]);
        fingerprint(&b.finish(&[("y", y)]).unwrap())
    };
    let first = made(1, 1, 6.0);
    assert_eq!(made(1, 1, 6.0), first);
    for other in [made(2, 1, 6.0), made(1, 0, 6.0), made(1, 1, 3.0)] {
        assert_ne!(other, first);
    }
}
