//! What holds for any input: movers undo each other, and nothing panics.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use half::bf16;
use proptest::prelude::*;
use salver_kernels::{Attribute, Attributes, ErrorKind, run};
use salver_tensor::{DType, Shape, Tensor};

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_vec(shape(&[values.len()]), values.to_vec()).unwrap()
}

/// A tensor of any type whose elements follow from a seed.
fn filled(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let shape = shape(dims);
    let n = shape.n_elements();
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    match dtype {
        DType::Bool => {
            Tensor::from_bools(shape, &(0..n).map(|_| next() & 1 == 1).collect::<Vec<_>>()).unwrap()
        }
        DType::String => {
            let texts = (0..n).map(|_| Bytes::from((next() % 7).to_string())).collect();
            Tensor::from_strings(shape, texts).unwrap()
        }
        DType::I64 => {
            let values: Vec<i64> = (0..n).map(|_| i64::from(next() % 9) - 4).collect();
            Tensor::from_vec(shape, values).unwrap()
        }
        DType::I32 => {
            let values: Vec<i32> = (0..n).map(|_| i32::from(next() % 9) - 4).collect();
            Tensor::from_vec(shape, values).unwrap()
        }
        DType::F32 => {
            let values: Vec<f32> = (0..n).map(|_| f32::from(next()) / 16.0 - 4.0).collect();
            Tensor::from_vec(shape, values).unwrap()
        }
        other => {
            let bytes: Vec<u8> = (0..n * other.size().unwrap()).map(|_| next()).collect();
            Tensor::from_bytes(other, shape, Bytes::from(bytes)).unwrap()
        }
    }
}

fn op(name: &str, attributes: &Attributes, inputs: &[&Tensor], n_outputs: usize) -> Vec<Tensor> {
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|&input| Some(input)).collect();
    run("", name, attributes, &inputs, n_outputs).unwrap()
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

proptest! {
    #[test]
    fn split_undoes_concat(
        dtype in dtypes(),
        dims in prop::collection::vec(0usize..4, 1..4),
        sizes in prop::collection::vec(0usize..4, 1..4),
        axis in 0usize..4,
        seed: u64,
    ) {
        let axis = axis % dims.len();
        let parts: Vec<Tensor> = sizes.iter().map(|&size| {
            let mut dims = dims.clone();
            dims[axis] = size;
            filled(dtype, &dims, seed ^ size as u64)
        }).collect();
        let attributes = Attributes::new().with("axis", axis as i64);
        let joined = op("Concat", &attributes, &parts.iter().collect::<Vec<_>>(), 1);
        let sizes: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
        let split = op("Split", &attributes, &[&joined[0], &ints(&sizes)], parts.len());
        prop_assert_eq!(split, parts);
    }

    #[test]
    fn a_transposition_is_undone_by_its_inverse(
        dtype in dtypes(),
        (dims, order) in prop::collection::vec(0usize..5, 0..6)
            .prop_flat_map(|dims| {
                let order: Vec<i64> = (0..dims.len() as i64).collect();
                (Just(dims), Just(order).prop_shuffle())
            }),
        seed: u64,
    ) {
        let tensor = filled(dtype, &dims, seed);
        let mut inverse = vec![0i64; order.len()];
        order.iter().enumerate().for_each(|(i, &axis)| inverse[axis as usize] = i as i64);
        let there = op("Transpose", &Attributes::new().with("perm", order), &[&tensor], 1);
        let back = op("Transpose", &Attributes::new().with("perm", inverse), &[&there[0]], 1);
        prop_assert_eq!(&back[0], &tensor);
    }

    #[test]
    fn a_slice_of_a_padded_tensor_is_the_tensor(
        dtype in dtypes(),
        dims in prop::collection::vec(1usize..4, 1..4),
        pads in prop::collection::vec(0i64..4, 8),
        mode in prop::sample::select(vec!["constant", "edge", "reflect", "wrap"]),
        seed: u64,
    ) {
        let tensor = filled(dtype, &dims, seed);
        let n = dims.len();
        let padded = op("Pad", &Attributes::new().with("mode", mode), &[&tensor, &ints(&pads[..2 * n])], 1);
        let ends: Vec<i64> = dims.iter().zip(&pads).map(|(&dim, &pad)| dim as i64 + pad).collect();
        let back = op("Slice", &Attributes::new(), &[&padded[0], &ints(&pads[..n]), &ints(&ends)], 1);
        prop_assert_eq!(&back[0], &tensor);
    }

    #[test]
    fn sums_of_parts_are_parts_of_sums(values in prop::collection::vec(any::<i64>(), 0..20)) {
        let tensor = ints(&values);
        let sum = op("ReduceSum", &Attributes::new(), &[&tensor], 1);
        let want = values.iter().fold(0i64, |sum, &x| sum.wrapping_add(x));
        prop_assert_eq!(sum[0].to_slice::<i64>().unwrap().to_vec(), vec![want]);
    }

    #[test]
    fn numbers_survive_text(values in prop::collection::vec(any::<f64>(), 0..20)) {
        let tensor = Tensor::from_vec(shape(&[values.len()]), values.clone()).unwrap();
        let text = op("Cast", &Attributes::new().with("to", DType::String), &[&tensor], 1);
        let back = op("Cast", &Attributes::new().with("to", DType::F64), &[&text[0]], 1);
        let back = back[0].to_slice::<f64>().unwrap().to_vec();
        prop_assert!(values.iter().zip(&back).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())));
    }
}

/// The attributes of a window over two axes.
#[derive(Debug, Clone)]
struct Window {
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    groups: usize,
}

impl Window {
    fn attributes(&self) -> Attributes {
        let list = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<i64>>();
        Attributes::new()
            .with("strides", list(&self.strides))
            .with("dilations", list(&self.dilations))
            .with("pads", list(&self.pads))
            .with("group", self.groups as i64)
    }
}

/// A convolution as it is defined, element by element.
fn convolved(
    x: &[f32],
    [n, c, h, w]: [usize; 4],
    k: &[f32],
    [m, kc, kh, kw]: [usize; 4],
    window: &Window,
) -> Vec<f32> {
    let size = |i: usize, input: usize, kernel: usize| {
        let padded = input + window.pads[i] + window.pads[i + 2];
        (padded - (kernel - 1) * window.dilations[i] - 1) / window.strides[i] + 1
    };
    let (oh, ow) = (size(0, h, kh), size(1, w, kw));
    let mut out = Vec::new();
    for place in 0..n * m * oh * ow {
        let (ox, oy, map, example) = (place % ow, place / ow % oh, place / ow / oh % m, place / ow / oh / m);
        let first = map / (m / window.groups) * kc;
        let mut sum = 0.0;
        for tap in 0..kc * kh * kw {
            let (tx, ty, channel) = (tap % kw, tap / kw % kh, tap / kw / kh);
            let ix = (ox * window.strides[1] + tx * window.dilations[1]).wrapping_sub(window.pads[1]);
            let iy = (oy * window.strides[0] + ty * window.dilations[0]).wrapping_sub(window.pads[0]);
            if ix < w && iy < h {
                let weight = k[((map * kc + channel) * kh + ty) * kw + tx];
                sum += weight * x[((example * c + first + channel) * h + iy) * w + ix];
            }
        }
        out.push(sum);
    }
    out
}

fn check_convolution(x_dims: [usize; 4], k_dims: [usize; 4], window: &Window, seed: u64) {
    let (x, k) = (filled(DType::F32, &x_dims, seed), filled(DType::F32, &k_dims, seed ^ 99));
    let got = op("Conv", &window.attributes(), &[&x, &k], 1);
    let (x, k) = (x.to_slice::<f32>().unwrap(), k.to_slice::<f32>().unwrap());
    let want = convolved(&x, x_dims, &k, k_dims, window);
    let got = got[0].to_slice::<f32>().unwrap().to_vec();
    assert_eq!(got.len(), want.len());
    // The elements are multiples of 1/16, so that sums are exact in any order.
    assert_eq!(got, want);
}

#[test]
fn a_large_convolution_is_its_definition() {
    let window = Window { strides: [1, 2], dilations: [1, 1], pads: [2, 1, 2, 3], groups: 1 };
    check_convolution([1, 8, 64, 150], [3, 8, 5, 5], &window, 1);
}

proptest! {
    #[test]
    fn a_convolution_is_its_definition(
        (n, groups, channels, maps) in (1usize..3, 1usize..4, 1usize..4, 1usize..4),
        (h, w, kh, kw) in (1usize..9, 1usize..9, 1usize..4, 1usize..4),
        strides in prop::array::uniform2(1usize..4),
        dilations in prop::array::uniform2(1usize..3),
        pads in prop::array::uniform4(0usize..4),
        seed: u64,
    ) {
        let window = Window { strides, dilations, pads, groups };
        let fits = |i: usize, input, kernel| input + pads[i] + pads[i + 2] > (kernel - 1) * dilations[i];
        prop_assume!(fits(0, h, kh) && fits(1, w, kw));
        check_convolution([n, groups * channels, h, w], [groups * maps, channels, kh, kw], &window, seed);
    }

    #[test]
    fn an_average_is_a_convolution_with_equal_weights(
        (h, w, kh, kw) in (1usize..9, 1usize..9, 1usize..4, 1usize..4),
        strides in prop::array::uniform2(1usize..4),
        dilations in prop::array::uniform2(1usize..3),
        pads in prop::array::uniform4(0usize..4),
        seed: u64,
    ) {
        let window = Window { strides, dilations, pads, groups: 1 };
        let fits = |i: usize, input, kernel| input + pads[i] + pads[i + 2] > (kernel - 1) * dilations[i];
        prop_assume!(fits(0, h, kh) && fits(1, w, kw));
        let x = filled(DType::F32, &[1, 1, h, w], seed);
        let ones = Tensor::from_vec(shape(&[1, 1, kh, kw]), vec![1f32; kh * kw]).unwrap();
        let sums = op("Conv", &window.attributes(), &[&x, &ones], 1);
        let attributes = window
            .attributes()
            .with("kernel_shape", [kh as i64, kw as i64])
            .with("count_include_pad", 1);
        let means = op("AveragePool", &attributes, &[&x], 1);
        let (sums, means) = (sums[0].to_slice::<f32>().unwrap(), means[0].to_slice::<f32>().unwrap());
        let n = (kh * kw) as f32;
        prop_assert!(sums.iter().zip(means.iter()).all(|(sum, mean)| (sum - mean * n).abs() < 1e-4));
    }

    #[test]
    fn a_resize_to_the_same_size_changes_nothing(
        (h, w) in (1usize..6, 1usize..6),
        mode in prop::sample::select(vec!["nearest", "linear", "cubic"]),
        how in prop::sample::select(vec!["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
        seed: u64,
    ) {
        let x = filled(DType::F32, &[1, 2, h, w], seed);
        let sizes = ints(&[1, 2, h as i64, w as i64]);
        let attributes = Attributes::new().with("mode", mode).with("coordinate_transformation_mode", how);
        let got = run("", "Resize", &attributes, &[Some(&x), None, None, Some(&sizes)], 1).unwrap();
        prop_assert_eq!(&got[0], &x);
    }

    /// The state of a layer that is run in two halves, the second from the state of the first, is that of one run.
    #[test]
    fn a_recurrent_layer_can_be_cut_in_time(
        (name, gates) in prop::sample::select(vec![("RNN", 1usize), ("GRU", 3), ("LSTM", 4)]),
        (steps, batch, input, hidden) in (2usize..6, 1usize..10, 1usize..4, 1usize..20),
        cut in 1usize..5,
        reset_after in 0i64..2,
        seed: u64,
    ) {
        let cut = cut.min(steps - 1);
        let n_outputs = if name == "LSTM" { 3 } else { 2 };
        let x = filled(DType::F32, &[steps, batch, input], seed);
        let w = filled(DType::F32, &[1, gates * hidden, input], seed ^ 1);
        let r = filled(DType::F32, &[1, gates * hidden, hidden], seed ^ 2);
        let attributes = Attributes::new().with("linear_before_reset", reset_after).with("clip", 0.5f32);
        let layer = |x: &Tensor, state: Option<&[Tensor]>| {
            let (h, c) = (state.map(|s| &s[1]), state.and_then(|s| s.get(2)));
            run("", name, &attributes, &[Some(x), Some(&w), Some(&r), None, None, h, c], n_outputs).unwrap()
        };
        let whole = layer(&x, None);
        let first = layer(&x.rows(0, cut).unwrap(), None);
        let second = layer(&x.rows(cut, steps - cut).unwrap(), Some(&first));
        for (a, b) in whole[1..].iter().zip(&second[1..]) {
            let (a, b) = (a.to_slice::<f32>().unwrap(), b.to_slice::<f32>().unwrap());
            prop_assert!(a.iter().zip(b.iter()).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn half_width_floats_are_rounded_once() {
    let scalar = |x: f32| Tensor::from_vec(shape(&[1]), vec![bf16::from_f32(x)]).unwrap();
    let (one, small) = (scalar(1.0), scalar(1.0 / 256.0));
    let list = Tensor::concat(&[one.clone(), small.clone(), small.clone()]).unwrap();
    let square = Tensor::concat(&[one.clone(), small.clone()]).unwrap();
    let ones = Tensor::concat(&[one.clone(), one.clone()]).unwrap();
    let none = Attributes::new;
    // 1 + 2/256 is a bfloat16; 1 + 1/256 lies between two and would go back to 1.
    for (name, inputs, want) in [
        ("Sum", vec![&one, &small, &small], 1.0 + 2.0 / 256.0),
        ("ReduceSum", vec![&list], 1.0 + 2.0 / 256.0),
        ("Add", vec![&one, &small], 1.0),
        ("MatMul", vec![&square, &ones], 1.0),
        ("Mean", vec![&one, &small], 0.5 + 0.5 / 256.0),
    ] {
        let got = op(name, &none(), &inputs, 1);
        let got = got[0].to_slice::<bf16>().unwrap()[0];
        assert_eq!(got.to_f32(), bf16::from_f32(want).to_f32(), "{name}");
    }
}

#[test]
fn what_does_not_fit_in_memory_is_refused() {
    let check = |name: &str, attributes: Attributes, inputs: &[&Tensor]| {
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|&input| Some(input)).collect();
        let error = run("", name, &attributes, &inputs, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
    };
    let none = Attributes::new;
    let one = ints(&[1]);
    let zero = Tensor::from_vec(shape(&[]), vec![0i64]).unwrap();
    let step = Tensor::from_vec(shape(&[]), vec![1i64]).unwrap();
    let far = Tensor::from_vec(shape(&[]), vec![i64::MAX]).unwrap();
    let huge = ints(&[1 << 20, 1 << 20]);
    check("Expand", none(), &[&one, &huge]);
    check("ConstantOfShape", none(), &[&huge]);
    check("ConstantOfShape", none(), &[&ints(&[1 << 60])]);
    check("Tile", none(), &[&one, &ints(&[1 << 40])]);
    check("Pad", none(), &[&one, &ints(&[1 << 40, 0])]);
    check("Range", none(), &[&zero, &far, &step]);
    check("OneHot", none(), &[&one, &ints(&[1 << 40]), &ints(&[0, 1])]);
    let column = Tensor::from_vec(shape(&[1 << 17, 1]), vec![0u8; 1 << 17]).unwrap();
    check("Add", none(), &[&column, &column.reshape(shape(&[1, 1 << 17])).unwrap()]);
    let image = filled(DType::F32, &[1, 1, 2, 2], 1);
    check("Conv", none().with("pads", [1 << 20; 4]), &[&image, &image]);
    check("Einsum", none().with("equation", "i,j,k->ijk"), &[&column.reshape(shape(&[1 << 17])).unwrap(); 3]);
}

const OPS: &[&str] = &[
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "BitShift",
    "Cast",
    "Clip",
    "Compress",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Einsum",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "GRU",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "GlobalAveragePool",
    "GlobalLpPool",
    "HardSigmoid",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "Less",
    "LogSoftmax",
    "LpNormalization",
    "LpPool",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "MeanVarianceNormalization",
    "Mod",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "RNN",
    "Range",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Resize",
    "ReverseSequence",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Size",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unique",
    "Unsqueeze",
    "Where",
];

const NAMES: &[&str] = &[
    "alpha",
    "auto_pad",
    "axes",
    "axis",
    "batch_axis",
    "batch_dims",
    "blocksize",
    "ceil_mode",
    "coordinate_transformation_mode",
    "count_include_pad",
    "dilations",
    "direction",
    "equation",
    "exclusive",
    "fmod",
    "group",
    "hidden_size",
    "k",
    "keepdims",
    "kernel_shape",
    "largest",
    "layout",
    "linear_before_reset",
    "mode",
    "nearest_mode",
    "num_outputs",
    "output_padding",
    "output_shape",
    "p",
    "pads",
    "perm",
    "reduction",
    "size",
    "strides",
    "time_axis",
    "to",
    "value",
    "value_ints",
];

const TEXTS: &[&str] = &[
    "",
    "LEFT",
    "RIGHT",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
    "linear",
    "cubic",
    "nearest",
    "reflect",
    "edge",
    "wrap",
    "add",
    "mul",
    "max",
    "bidirectional",
    "reverse",
    "ij,jk->ik",
    "...i->i",
    "ii->",
    "ij->ijk",
    ",->",
    "é",
    "tf_crop_and_resize",
    "align_corners",
    "floor",
    "CRD",
];

fn attribute() -> impl Strategy<Value = Attribute> {
    let small = prop_oneof![8 => -3i64..5, 1 => any::<i64>(), 1 => Just(1 << 24), 1 => Just(i64::MIN)];
    prop_oneof![
        4 => small.clone().prop_map(Attribute::Int),
        4 => prop::collection::vec(small, 0..6).prop_map(Attribute::Ints),
        1 => any::<f32>().prop_map(Attribute::Float),
        2 => prop::sample::select(TEXTS.to_vec()).prop_map(Attribute::from),
        1 => dtypes().prop_map(Attribute::DType),
        1 => tensors().prop_map(Attribute::Tensor),
    ]
}

fn tensors() -> impl Strategy<Value = Tensor> {
    let types =
        prop_oneof![4 => Just(DType::F32), 3 => Just(DType::I64), 1 => Just(DType::I32), 2 => dtypes()];
    let dims = prop_oneof![
        6 => prop::collection::vec(0usize..4, 0..5),
        2 => Just(vec![2, 3]),
        2 => Just(vec![1, 2, 3, 3]),
        1 => Just(vec![0, 1 << 40]),
        1 => Just(vec![0, 1 << 12]),
    ];
    let extreme = prop::collection::vec(any::<i64>(), 0..4).prop_map(|values| ints(&values));
    let filled = (types, dims, any::<u64>()).prop_map(|(dtype, dims, seed)| filled(dtype, &dims, seed));
    prop_oneof![9 => filled, 1 => extreme]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn nothing_panics(
        name in prop::sample::select(OPS.to_vec()),
        attributes in prop::collection::vec((prop::sample::select(NAMES.to_vec()), attribute()), 0..4),
        inputs in prop::collection::vec(prop::option::weighted(0.9, tensors()), 0..6),
        n_outputs in 0usize..4,
    ) {
        let mut all = Attributes::new();
        for (name, value) in attributes {
            match value {
                Attribute::Int(x) => all.set(name, x),
                Attribute::Ints(x) => all.set(name, x),
                Attribute::Float(x) => all.set(name, x),
                Attribute::String(x) => all.set(name, x),
                Attribute::DType(x) => all.set(name, x),
                Attribute::Tensor(x) => all.set(name, x),
                other => panic!("{other:?} is not made here"),
            }
        }
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        if let Ok(outputs) = run("", name, &all, &inputs, n_outputs) {
            prop_assert_eq!(outputs.len(), n_outputs);
        }
    }
}
