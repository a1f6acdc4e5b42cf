//! Each rule on a graph of its own: what is left, and that it computes the same.

use salver_tensor::Shape;

use super::*;
use crate::ir::{Dim, Node, ValueId};
use crate::{Builder, evaluate};

/// Numbers that look random, the same in each run.
fn values(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    let value = |at: usize| {
        let mixed = (at + 1).wrapping_mul(0x9e37_79b9).wrapping_add(seed.wrapping_mul(0x85eb_ca6b)) >> 7;
        (mixed % 4096) as f32 / 1024.0 - 2.0
    };
    Tensor::from_vec(Shape::new(shape).unwrap(), (0..n).map(value).collect::<Vec<f32>>()).unwrap()
}

/// A builder with what tests say often.
struct Made {
    b: Builder,
    n: usize,
}

impl Made {
    /// An input; 0 is an open dimension, of which 2 are given.
    fn input(&mut self, dims: &[usize]) -> ValueId {
        let dim = |&size: &usize| if size == 0 { Dim::symbol("batch") } else { Dim::Fixed(size) };
        self.b.input("x", DType::F32, Some(dims.iter().map(dim).collect()))
    }

    fn weights(&mut self, dims: &[usize]) -> ValueId {
        self.n += 1;
        let tensor = values(dims, self.n);
        self.b.constant("w", tensor)
    }

    fn number(&mut self, value: f32) -> ValueId {
        self.b.f32(value)
    }

    fn ints(&mut self, ints: &[i64]) -> ValueId {
        self.b.i64s(ints)
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.with(op, inputs, Attributes::new())
    }

    fn with(&mut self, op: &str, inputs: &[ValueId], attributes: Attributes) -> ValueId {
        self.b.op(op, op, inputs, attributes).unwrap()
    }

    fn transpose(&mut self, x: ValueId, perm: &[i64]) -> ValueId {
        self.with("Transpose", &[x], Attributes::new().with("perm", perm))
    }

    fn nchw(&mut self, x: ValueId) -> ValueId {
        self.transpose(x, &[0, 3, 1, 2])
    }

    fn nhwc(&mut self, x: ValueId) -> ValueId {
        self.transpose(x, &[0, 2, 3, 1])
    }
}

fn given(graph: &Graph) -> Vec<Tensor> {
    let size = |dim: &Dim| dim.fixed().unwrap_or(2);
    let tensor = |(at, &id): (usize, &ValueId)| {
        let dims: Vec<usize> = graph.value(id).dims.as_ref().unwrap().iter().map(size).collect();
        values(&dims, 100 + at)
    };
    graph.inputs().iter().enumerate().map(tensor).collect()
}

fn assert_same(name: &str, a: &Graph, b: &Graph) {
    let inputs = given(a);
    let (x, y) = (evaluate(a, &inputs).unwrap(), evaluate(b, &inputs).unwrap());
    assert_eq!(x.len(), y.len(), "{name}");
    for (x, y) in x.iter().zip(&y) {
        assert_eq!((x.dtype(), x.shape()), (y.dtype(), y.shape()), "{name}");
        for (x, y) in numbers(x).unwrap().iter().zip(numbers(y).unwrap()) {
            assert!((x - y).abs() <= 1e-4 * x.abs().max(1.0), "{name}: {x} and {y}");
        }
    }
}

/// Optimises, and expects these operators, in the order in which they compute.
fn check(name: &str, make: impl Fn(&mut Made) -> Vec<ValueId>, expected: &[&str]) {
    check_with(&Passes::all(), name, make, expected);
}

fn check_with(passes: &Passes, name: &str, make: impl Fn(&mut Made) -> Vec<ValueId>, expected: &[&str]) {
    let mut made = Made { b: Builder::new(), n: 0 };
    let outputs = make(&mut made);
    let names: Vec<String> = (0..outputs.len()).map(|at| format!("y{at}")).collect();
    let outputs: Vec<_> = names.iter().map(String::as_str).zip(outputs).collect();
    let graph = made.b.finish(&outputs).unwrap();
    let (optimised, _) = optimise(&graph, passes);
    let ops: Vec<_> = optimised.body().nodes.iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops, expected, "{name}");
    assert_eq!(crate::verify(&optimised), Ok(()), "{name}");
    assert_same(name, &graph, &optimised);
}

#[test]
fn what_changes_nothing_goes() {
    check(
        "reshape to the same",
        |m| {
            let x = m.input(&[0, 6]);
            let s = m.ints(&[-1, 6]);
            vec![m.op("Reshape", &[x, s])]
        },
        &[],
    );
    check(
        "reshape twice",
        |m| {
            let x = m.input(&[0, 6]);
            let (s, t) = (m.ints(&[-1, 2, 3]), m.ints(&[-1, 3, 2]));
            let y = m.op("Reshape", &[x, s]);
            vec![m.op("Reshape", &[y, t])]
        },
        &["Reshape"],
    );
    check(
        "there and back",
        |m| {
            let x = m.input(&[0, 6]);
            let a = m.ints(&[1]);
            let y = m.op("Unsqueeze", &[x, a]);
            let y = m.op("Relu", &[y]);
            vec![m.op("Squeeze", &[y, a])]
        },
        &["Unsqueeze", "Relu", "Squeeze"],
    );
    check(
        "squeeze of unsqueeze",
        |m| {
            let x = m.input(&[0, 6]);
            let a = m.ints(&[1]);
            let y = m.op("Unsqueeze", &[x, a]);
            vec![m.op("Squeeze", &[y, a])]
        },
        &[],
    );
    check(
        "transpose twice",
        |m| {
            let x = m.input(&[0, 3, 4, 5]);
            let y = m.nchw(x);
            vec![m.nhwc(y)]
        },
        &[],
    );
    check(
        "transposes become one",
        |m| {
            let x = m.input(&[0, 3, 4, 5]);
            let y = m.nchw(x);
            vec![m.nchw(y)]
        },
        &["Transpose"],
    );
    check(
        "arithmetic",
        |m| {
            let x = m.input(&[0, 3]);
            let (zero, one) = (m.number(0.0), m.number(1.0));
            let y = m.op("Add", &[x, zero]);
            let y = m.op("Mul", &[one, y]);
            let y = m.op("Div", &[y, one]);
            vec![m.op("Sub", &[y, zero])]
        },
        &[],
    );
    check(
        "a sum that makes more of it stays",
        |m| {
            let x = m.input(&[0, 1]);
            let zeros =
                m.b.constant("zeros", Tensor::from_vec(Shape::vector(3).unwrap(), vec![0f32; 3]).unwrap());
            vec![m.op("Add", &[x, zeros])]
        },
        &["Add"],
    );
    check(
        "one part",
        |m| {
            let x = m.input(&[0, 3]);
            vec![m.with("Concat", &[x], Attributes::new().with("axis", 1i64))]
        },
        &[],
    );
    check(
        "all of it",
        |m| {
            let x = m.input(&[0, 3]);
            let (start, end, axis) = (m.ints(&[0]), m.ints(&[i64::MAX]), m.ints(&[1]));
            vec![m.op("Slice", &[x, start, end, axis])]
        },
        &[],
    );
    check(
        "no padding",
        |m| {
            let x = m.input(&[0, 3]);
            let pads = m.ints(&[0; 4]);
            vec![m.op("Pad", &[x, pads])]
        },
        &[],
    );
    check(
        "a choice already made",
        |m| {
            let (x, y) = (m.input(&[0, 3]), m.input(&[0, 3]));
            let yes = m.b.constant("yes", Tensor::from_bools(Shape::scalar(), &[true]).unwrap());
            vec![m.op("Where", &[yes, x, y])]
        },
        &[],
    );
    check(
        "casts",
        |m| {
            let x = m.input(&[0, 3]);
            let y = m.with("Cast", &[x], Attributes::new().with("to", DType::F64));
            vec![m.with("Cast", &[y], Attributes::new().with("to", DType::F32))]
        },
        &[],
    );
    check(
        "a cast that loses stays",
        |m| {
            let x = m.input(&[0, 3]);
            let y = m.with("Cast", &[x], Attributes::new().with("to", DType::I32));
            vec![m.with("Cast", &[y], Attributes::new().with("to", DType::F32))]
        },
        &["Cast", "Cast"],
    );
}

#[test]
fn what_is_computed_twice_is_computed_once() {
    check(
        "the same nodes",
        |m| {
            let x = m.input(&[0, 3]);
            let (a, b) = (m.number(2.5), m.number(2.5));
            let (y, z) = (m.op("Mul", &[x, a]), m.op("Mul", &[x, b]));
            vec![m.op("Sub", &[y, z])]
        },
        &["Mul", "Sub"],
    );
    check(
        "other attributes",
        |m| {
            let x = m.input(&[0, 3]);
            let y = m.with("Elu", &[x], Attributes::new().with("alpha", 0.5f32));
            let z = m.with("Elu", &[x], Attributes::new().with("alpha", 0.25f32));
            vec![y, z]
        },
        &["Elu", "Elu"],
    );
}

#[test]
fn a_known_condition_takes_its_branch() {
    check(
        "if",
        |m| {
            let x = m.input(&[0, 3]);
            let yes = m.b.constant("yes", Tensor::from_bools(Shape::scalar(), &[true]).unwrap());
            let mut branches = Vec::new();
            for (key, op) in [("then_branch", "Relu"), ("else_branch", "Tanh")] {
                m.b.begin_block().unwrap();
                let y = m.op(op, &[x]);
                branches.push((key, m.b.end_block(&[y])));
            }
            let y = m.b.with_blocks("if", "If", &[Some(yes)], Attributes::new(), branches, 1).unwrap()[0];
            vec![m.op("Exp", &[y])]
        },
        &["Relu", "Exp"],
    );
}

fn conv(m: &mut Made, x: ValueId, channels: (usize, usize), kernel: usize) -> ValueId {
    let w = m.weights(&[channels.1, channels.0, kernel, kernel]);
    let k = kernel as i64;
    m.with("Conv", &[x, w], Attributes::new().with("kernel_shape", [k, k]))
}

#[test]
fn transposes_move_on_until_they_cancel() {
    check(
        "a network with channels last",
        |m| {
            let x = m.input(&[0, 6, 6, 3]);
            let mut y = m.nchw(x);
            y = conv(m, y, (3, 4), 3);
            y = m.nhwc(y);
            let scale = m.weights(&[4]);
            let left = m.op("Relu", &[y]);
            let gate = m.op("Mul", &[left, scale]);
            let right = m.op("Sigmoid", &[gate]);
            y = m.op("Mul", &[left, right]);
            let pads = m.ints(&[0, 1, 1, 0, 0, 1, 1, 0]);
            y = m.op("Pad", &[y, pads]);
            y = m.with("Concat", &[y, y], Attributes::new().with("axis", 3i64));
            y = m.with("Softmax", &[y], Attributes::new().with("axis", -1i64));
            y = m.nchw(y);
            y = conv(m, y, (8, 2), 1);
            y = m.nhwc(y);
            let axes = m.ints(&[1, 2]);
            vec![m.with("ReduceMean", &[y, axes], Attributes::new().with("keepdims", 0i64))]
        },
        &[
            "Transpose",
            "Conv",
            "Relu",
            "Mul",
            "Sigmoid",
            "Mul",
            "Pad",
            "Concat",
            "Softmax",
            "Conv",
            "ReduceMean",
        ],
    );
    check(
        "slices, parts and single rows",
        |m| {
            let x = m.input(&[0, 2, 4, 6]);
            let y = m.nhwc(x);
            let (start, end, axis) = (m.ints(&[1]), m.ints(&[4]), m.ints(&[2]));
            let y = m.op("Slice", &[y, start, end, axis]);
            let one = m.b.i64(1);
            let y = m.with("Gather", &[y, one], Attributes::new().with("axis", 3i64));
            vec![y]
        },
        &["Slice", "Gather"],
    );
    check(
        "split",
        |m| {
            let x = m.input(&[0, 4, 3, 5]);
            let y = m.nhwc(x);
            let attributes = Attributes::new().with("axis", 3i64).with("num_outputs", 2i64);
            let parts = m.b.ops("s", "", "Split", &[Some(y)], attributes, 2).unwrap();
            let y = m.op("Add", &[parts[0], parts[1]]);
            vec![m.nchw(y)]
        },
        &["Split", "Add"],
    );
    check(
        "squeeze and unsqueeze",
        |m| {
            let x = m.input(&[0, 4, 1, 5]);
            let y = m.nhwc(x);
            let (first, last) = (m.ints(&[1]), m.ints(&[-1]));
            let y = m.op("Squeeze", &[y, first]);
            let y = m.op("Unsqueeze", &[y, last]);
            vec![m.transpose(y, &[0, 2, 1, 3])]
        },
        &["Reshape"],
    );
    check(
        "a gate of one pixel",
        |m| {
            let x = m.input(&[0, 4, 3, 5]);
            let y = m.nhwc(x);
            let axes = m.ints(&[1, 2]);
            let gate = m.with("ReduceMean", &[y, axes], Attributes::new().with("keepdims", 0i64));
            let w = m.weights(&[4, 4]);
            let gate = m.op("MatMul", &[gate, w]);
            let shape = m.ints(&[-1, 1, 1, 4]);
            let gate = m.op("Reshape", &[gate, shape]);
            let y = m.op("Mul", &[y, gate]);
            vec![m.nchw(y)]
        },
        &["ReduceMean", "MatMul", "Reshape", "Mul"],
    );
    check(
        "resize",
        |m| {
            let x = m.input(&[0, 4, 3, 5]);
            let y = m.nhwc(x);
            let scales = Tensor::from_vec(Shape::vector(4).unwrap(), vec![1f32, 2.0, 3.0, 1.0]).unwrap();
            let scales = m.b.constant("scales", scales);
            let attributes = Attributes::new()
                .with("mode", "nearest")
                .with("coordinate_transformation_mode", "asymmetric");
            let y = m.b.ops("r", "", "Resize", &[Some(y), None, Some(scales)], attributes, 1).unwrap()[0];
            vec![m.nchw(y)]
        },
        &["Resize"],
    );
    check(
        "rows in another order",
        |m| {
            let x = m.input(&[0, 4, 3, 5]);
            let y = m.nhwc(x);
            let flat = m.ints(&[-1, 60]);
            let y = m.op("Reshape", &[y, flat]);
            let w = m.weights(&[60, 7]);
            vec![m.op("MatMul", &[y, w])]
        },
        &["Reshape", "MatMul"],
    );
    check(
        "the shape of it",
        |m| {
            let x = m.input(&[0, 4, 3, 5]);
            let y = m.nhwc(x);
            let shape = m.op("Shape", &[y]);
            let one = m.ints(&[0]);
            vec![m.with("Gather", &[shape, one], Attributes::new().with("axis", 0i64))]
        },
        &["Shape", "Gather", "Gather"],
    );
    check(
        "two different orders stay",
        |m| {
            let (x, z) = (m.input(&[0, 3, 3, 3]), m.input(&[0, 3, 3, 3]));
            let (a, b) = (m.nhwc(x), m.nchw(z));
            vec![m.op("Add", &[a, b])]
        },
        &["Transpose", "Transpose", "Add"],
    );
}

#[test]
fn scales_and_offsets_go_into_weights() {
    let norm = |m: &mut Made, y: ValueId, dims: &[usize]| {
        let (scale, offset) = (m.weights(dims), m.weights(dims));
        let y = m.op("Mul", &[y, scale]);
        m.op("Add", &[y, offset])
    };
    check(
        "a convolution",
        move |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let y = conv(m, x, (3, 4), 3);
            let y = norm(m, y, &[4, 1, 1]);
            let half = m.number(0.5);
            let y = m.op("Div", &[y, half]);
            vec![m.op("Sub", &[half, y])]
        },
        &["Conv"],
    );
    check(
        "channels last",
        move |m| {
            let x = m.input(&[0, 6, 6, 3]);
            let y = m.nchw(x);
            let y = conv(m, y, (3, 4), 3);
            let y = m.nhwc(y);
            let y = norm(m, y, &[4]);
            vec![m.nchw(y)]
        },
        &["Transpose", "Conv"],
    );
    check(
        "batch normalisation",
        |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let y = conv(m, x, (3, 4), 3);
            let (s, o, mean) = (m.weights(&[4]), m.weights(&[4]), m.weights(&[4]));
            let var = m.op("Mul", &[mean, mean]);
            vec![m.with(
                "BatchNormalization",
                &[y, s, o, mean, var],
                Attributes::new().with("epsilon", 0.5f32),
            )]
        },
        &["Conv"],
    );
    check(
        "what else is used stays",
        move |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let y = conv(m, x, (3, 4), 3);
            let z = norm(m, y, &[4, 1, 1]);
            vec![y, z]
        },
        &["Conv", "Mul", "Add"],
    );
    check(
        "a product",
        move |m| {
            let x = m.input(&[0, 5, 3]);
            let (w, b) = (m.weights(&[3, 4]), m.weights(&[4]));
            let y = m.op("MatMul", &[x, w]);
            let y = m.op("Add", &[y, b]);
            vec![norm(m, y, &[4])]
        },
        &["MatMul", "Add"],
    );
    check(
        "a product with bias",
        move |m| {
            let x = m.input(&[0, 3]);
            let (w, b) = (m.weights(&[4, 3]), m.weights(&[4]));
            let y = m.with("Gemm", &[x, w, b], Attributes::new().with("transB", 1i64));
            vec![norm(m, y, &[1, 4])]
        },
        &["Gemm"],
    );
    check(
        "a transposed convolution",
        move |m| {
            let x = m.input(&[0, 3, 4, 4]);
            let w = m.weights(&[3, 2, 3, 3]);
            let attributes = Attributes::new().with("kernel_shape", [3i64, 3]).with("strides", [2i64, 2]);
            let y = m.with("ConvTranspose", &[x, w], attributes);
            vec![norm(m, y, &[2, 1, 1])]
        },
        &["ConvTranspose"],
    );
    check(
        "groups",
        move |m| {
            let x = m.input(&[0, 4, 6, 6]);
            let w = m.weights(&[4, 1, 3, 3]);
            let y = m.with(
                "Conv",
                &[x, w],
                Attributes::new().with("kernel_shape", [3i64, 3]).with("group", 4i64),
            );
            vec![norm(m, y, &[4, 1, 1])]
        },
        &["Conv"],
    );
    check(
        "before it",
        |m| {
            let x = m.input(&[0, 6, 6, 3]);
            let scale = m.number(1.0 / 255.0);
            let y = m.op("Mul", &[x, scale]);
            let y = m.nchw(y);
            vec![conv(m, y, (3, 4), 3)]
        },
        &["Transpose", "Conv"],
    );
    check(
        "not per channel",
        move |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let y = conv(m, x, (3, 4), 3);
            vec![norm(m, y, &[4])]
        },
        &["Conv", "Mul", "Add"],
    );
}

#[test]
fn patterns_become_one_operator() {
    check(
        "clip",
        |m| {
            let x = m.input(&[0, 3]);
            let (low, high) = (m.number(-0.5), m.number(0.75));
            let y = m.op("Max", &[x, low]);
            vec![m.op("Min", &[high, y])]
        },
        &["Clip"],
    );
    check(
        "relu up to 6",
        |m| {
            let x = m.input(&[0, 3]);
            let high = m.number(1.0);
            let y = m.op("Relu", &[x]);
            vec![m.op("Min", &[y, high])]
        },
        &["Clip"],
    );
    check(
        "padding before a convolution",
        |m| {
            let x = m.input(&[0, 6, 6, 3]);
            let pads = m.ints(&[0, 0, 1, 0, 0, 1, 0, 0]);
            let y = m.op("Pad", &[x, pads]);
            let y = m.nchw(y);
            vec![conv(m, y, (3, 4), 3)]
        },
        &["Transpose", "Conv"],
    );
    check(
        "padding before a maximum of what is positive",
        |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let y = m.op("Relu", &[x]);
            let pads = m.ints(&[0, 0, 1, 1, 0, 0, 1, 1]);
            let y = m.op("Pad", &[y, pads]);
            vec![m.with(
                "MaxPool",
                &[y],
                Attributes::new().with("kernel_shape", [3i64, 3]).with("strides", [2i64, 2]),
            )]
        },
        &["Relu", "MaxPool"],
    );
    check(
        "padding before a maximum",
        |m| {
            let x = m.input(&[0, 3, 6, 6]);
            let pads = m.ints(&[0, 0, 1, 1, 0, 0, 1, 1]);
            let y = m.op("Pad", &[x, pads]);
            vec![m.with("MaxPool", &[y], Attributes::new().with("kernel_shape", [3i64, 3]))]
        },
        &["Pad", "MaxPool"],
    );
    check(
        "parts of parts",
        |m| {
            let (x, y, z) = (m.input(&[0, 3]), m.input(&[0, 3]), m.input(&[0, 2]));
            let inner = m.with("Concat", &[x, y], Attributes::new().with("axis", -1i64));
            vec![m.with("Concat", &[inner, z, x], Attributes::new().with("axis", 1i64))]
        },
        &["Concat"],
    );
    check(
        "gelu",
        |m| {
            let x = m.input(&[0, 3]);
            let (root, one, half) = (m.number(std::f32::consts::FRAC_1_SQRT_2), m.number(1.0), m.number(0.5));
            let y = m.op("Mul", &[x, root]);
            let y = m.op("Erf", &[y]);
            let y = m.op("Add", &[y, one]);
            let y = m.op("Mul", &[x, y]);
            vec![m.op("Mul", &[y, half])]
        },
        &["Gelu"],
    );
    check(
        "gelu by the complement",
        |m| {
            let x = m.input(&[0, 3]);
            let (root, one, half) = (m.number(std::f32::consts::FRAC_1_SQRT_2), m.number(1.0), m.number(0.5));
            let left = m.op("Mul", &[half, x]);
            let y = m.op("Neg", &[x]);
            let y = m.op("Mul", &[y, root]);
            let y = m.op("Erf", &[y]);
            let y = m.op("Sub", &[one, y]);
            vec![m.op("Mul", &[left, y])]
        },
        &["Gelu"],
    );
    check(
        "a dilated convolution by way of batches",
        |m| {
            let x = m.input(&[0, 9, 10, 4]);
            let pads = m.ints(&[0, 2, 2, 0, 0, 3, 2, 0]);
            let y = m.op("Pad", &[x, pads]);
            let (open, flat) = (m.ints(&[-1, 7, 2, 7, 2, 4]), m.ints(&[-1, 7, 7, 4]));
            let y = m.op("Reshape", &[y, open]);
            let y = m.transpose(y, &[2, 4, 0, 1, 3, 5]);
            let y = m.op("Reshape", &[y, flat]);
            let y = m.nchw(y);
            let y = conv(m, y, (4, 3), 3);
            let y = m.nhwc(y);
            let (open, flat) = (m.ints(&[2, 2, -1, 5, 5, 3]), m.ints(&[-1, 10, 10, 3]));
            let y = m.op("Reshape", &[y, open]);
            let y = m.transpose(y, &[2, 3, 0, 4, 1, 5]);
            let y = m.op("Reshape", &[y, flat]);
            let (start, end, axes) = (m.ints(&[0, 0]), m.ints(&[9, 10]), m.ints(&[1, 2]));
            let y = m.op("Slice", &[y, start, end, axes]);
            let bias = m.weights(&[3]);
            let y = m.op("Add", &[y, bias]);
            vec![m.nchw(y)]
        },
        &["Transpose", "Conv"],
    );
    check(
        "a sequence as an image of one row",
        |m| {
            let x = m.input(&[0, 9, 4]);
            let (pads, axes, zero) = (m.ints(&[2, 1]), m.ints(&[1]), m.number(0.0));
            let y = m.op("Pad", &[x, pads, zero, axes]);
            let more = m.ints(&[0, 1, 0, 0, 0, 0]);
            let y = m.op("Pad", &[y, more]);
            let one = m.ints(&[1]);
            let y = m.op("Unsqueeze", &[y, one]);
            let y = m.nchw(y);
            let w = m.weights(&[3, 4, 1, 3]);
            let y = m.with("Conv", &[y, w], Attributes::new().with("kernel_shape", [1i64, 3]));
            let y = m.nhwc(y);
            let y = m.op("Squeeze", &[y, one]);
            let bias = m.weights(&[3]);
            let y = m.op("Add", &[y, bias]);
            vec![m.transpose(y, &[0, 2, 1])]
        },
        &["Transpose", "Conv"],
    );
    check(
        "hard swish",
        |m| {
            let x = m.input(&[0, 3]);
            let (three, six, sixth) = (m.number(3.0), m.number(6.0), m.number(1.0 / 6.0));
            let y = m.op("Add", &[x, three]);
            let y = m.op("Relu", &[y]);
            let y = m.op("Min", &[y, six]);
            let y = m.op("Mul", &[y, sixth]);
            vec![m.op("Mul", &[x, y])]
        },
        &["HardSwish"],
    );
}

#[test]
fn layer_normalisation_is_one_operator() {
    let moments = |m: &mut Made, x: ValueId| {
        let last = m.ints(&[-1]);
        let mean = m.op("ReduceMean", &[x, last]);
        let centred = m.op("Sub", &[x, mean]);
        let squares = m.op("Mul", &[centred, centred]);
        let variance = m.op("ReduceMean", &[squares, last]);
        let epsilon = m.number(0.01);
        let sum = m.op("Add", &[variance, epsilon]);
        (mean, centred, m.op("Sqrt", &[sum]))
    };
    check(
        "as TensorFlow folds it",
        |m| {
            let x = m.input(&[0, 5, 6]);
            let (mean, _, deviation) = moments(m, x);
            let inverse = m.op("Reciprocal", &[deviation]);
            let (scale, offset) = (m.weights(&[1, 1, 6]), m.weights(&[6]));
            let factor = m.op("Mul", &[inverse, scale]);
            let product = m.op("Mul", &[x, factor]);
            let minus = m.op("Neg", &[mean]);
            let shift = m.op("Mul", &[minus, factor]);
            let shift = m.op("Add", &[shift, offset]);
            vec![m.op("Add", &[product, shift])]
        },
        &["LayerNormalization"],
    );
    check(
        "step by step",
        |m| {
            let x = m.input(&[0, 5, 6]);
            let (_, centred, deviation) = moments(m, x);
            let (scale, offset) = (m.weights(&[6]), m.weights(&[6]));
            let y = m.op("Div", &[centred, deviation]);
            let y = m.op("Mul", &[y, scale]);
            vec![m.op("Add", &[y, offset])]
        },
        &["LayerNormalization"],
    );
    check(
        "of another value",
        |m| {
            let (x, z) = (m.input(&[0, 6]), m.input(&[0, 6]));
            let (_, _, deviation) = moments(m, x);
            vec![m.op("Div", &[z, deviation])]
        },
        &["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div"],
    );
}

#[test]
fn products_are_those_of_matrices() {
    let einsum = |m: &mut Made, equation: &str, x: ValueId, w: ValueId| {
        m.with("Einsum", &[x, w], Attributes::new().with("equation", equation))
    };
    check(
        "split columns",
        |m| {
            let x = m.input(&[0, 5, 6]);
            let (w, bias) = (m.weights(&[6, 2, 3]), m.weights(&[2, 3]));
            let y = einsum(m, "abc,cde->abde", x, w);
            vec![m.op("Add", &[y, bias])]
        },
        &["MatMul", "Add", "Reshape"],
    );
    check(
        "joined rows",
        |m| {
            let x = m.input(&[0, 5, 2, 3]);
            let w = m.weights(&[2, 3, 4]);
            vec![einsum(m, "abcd,cde->abe", x, w)]
        },
        &["Reshape", "MatMul"],
    );
    check(
        "another order stays",
        |m| {
            let x = m.input(&[0, 5, 6]);
            let w = m.weights(&[4, 6]);
            vec![einsum(m, "abc,dc->abd", x, w)]
        },
        &["Einsum"],
    );
    check(
        "a row is a vector",
        |m| {
            let x = m.input(&[0, 6]);
            let (w, bias) = (m.weights(&[6, 4]), m.weights(&[1, 4]));
            let y = m.op("MatMul", &[x, w]);
            vec![m.op("Add", &[y, bias])]
        },
        &["MatMul", "Add"],
    );
}

#[test]
fn each_pass_can_be_switched_off() {
    let make = |m: &mut Made| {
        let x = m.input(&[0, 6, 6, 3]);
        let y = m.nchw(x);
        let y = conv(m, y, (3, 4), 3);
        let y = m.nhwc(y);
        let offset = m.weights(&[4]);
        let y = m.op("Add", &[y, offset]);
        vec![m.nchw(y)]
    };
    let all = Passes::all;
    check_with(&all().without("affine").unwrap(), "no affine", make, &["Transpose", "Conv", "Add"]);
    check_with(
        &all().without("layout").unwrap(),
        "no layout",
        make,
        &["Transpose", "Conv", "Transpose", "Add", "Transpose"],
    );
    check_with(&Passes::none(), "none", make, &["Transpose", "Conv", "Transpose", "Add", "Transpose"]);
    let error = all().without("speed").unwrap_err().to_string();
    assert!(error.starts_with("there is no pass 'speed', expected one of fold, common, "), "{error}");
}

#[test]
fn rules_work_inside_of_blocks() {
    let mut m = Made { b: Builder::new(), n: 0 };
    let x = m.input(&[0, 3]);
    let limit = m.b.i64(3);
    m.b.begin_block().unwrap();
    let _at = m.b.block_input("at", DType::I64, Some(vec![]));
    let go_on = m.b.block_input("go_on", DType::Bool, Some(vec![]));
    let state = m.b.block_input("state", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(3)]));
    let one = m.number(1.0);
    let y = m.op("Mul", &[state, one]);
    let (high, low) = (m.number(1.5), m.number(-1.5));
    let y = m.op("Max", &[y, low]);
    let y = m.op("Min", &[y, high]);
    let y = m.op("Add", &[y, x]);
    let body = m.b.end_block(&[go_on, y]);
    let inputs = [Some(limit), None, Some(x)];
    let y = m.b.with_blocks("loop", "Loop", &inputs, Attributes::new(), vec![("body", body)], 1).unwrap()[0];
    let graph = m.b.finish(&[("y", y)]).unwrap();
    let (optimised, counts) = optimise(&graph, &Passes::all());
    let mut ops = Vec::new();
    optimised.body().visit(&mut |node: &Node| ops.push(node.op.clone()));
    assert_eq!(ops, ["Loop", "Clip", "Add"]);
    assert!(counts.iter().any(|&(name, n)| name == "identities" && n == 1), "{counts:?}");
    assert_same("loop", &graph, &optimised);
}

#[test]
fn state_that_nothing_changes_is_left_out() {
    let mut m = Made { b: Builder::new(), n: 0 };
    let x = m.input(&[0, 3]);
    let idle = m.b.input("idle", DType::I64, Some(vec![]));
    let read = m.b.input("read", DType::F32, Some(vec![]));
    let changed = m.b.input("changed", DType::F32, Some(vec![]));
    let y = m.op("Mul", &[x, read]);
    let one = m.number(1.0);
    let next = m.op("Add", &[changed, one]);
    let same = m.op("Mul", &[read, one]);
    let graph = m.b.finish(&[("y", y), ("idle", idle), ("read", same), ("changed", next)]).unwrap();
    let port = |name: &str, value| crate::Port {
        name: name.into(),
        tensor_name: name.into(),
        value,
        dtype: DType::F32,
        dims: salver_tensor::Dims::unknown(),
        default: None,
    };
    let signature = SignatureGraph {
        name: "s".into(),
        method_name: String::new(),
        inputs: vec![port("x", x)],
        outputs: vec![port("y", y)],
        graph,
        state_inputs: vec![(0, idle), (1, read), (2, changed)],
        state_outputs: vec![(0, idle), (1, same), (2, next)],
    };
    let (optimised, _) = signature.optimised(&Passes::all());
    let at = |list: &[(usize, ValueId)]| list.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!((at(&optimised.state_inputs), at(&optimised.state_outputs)), (vec![1, 2], vec![2]));
    assert_eq!(optimised.graph.inputs(), [x, read, changed]);
    let names: Vec<_> = optimised.graph.outputs().map(|(name, _)| name).collect();
    assert_eq!(names, ["y", "changed"]);
    assert_eq!(optimised.graph.body.outputs, [optimised.outputs[0].value, optimised.state_outputs[0].1]);

    // What is changed and never read goes, unless another signature reads it.
    let state = |name: &str| crate::State { name: name.into(), initial: values(&[], 1) };
    let state = vec![state("idle"), state("read"), state("changed")];
    let mut model =
        crate::Model { signatures: vec![optimised.clone()], state: state.clone(), ..Default::default() };
    model.drop_unseen_state();
    let alone = &model.signatures[0];
    assert_eq!((at(&alone.state_inputs), at(&alone.state_outputs)), (vec![1], vec![]));
    let mut reader = optimised.clone();
    reader.outputs[0].value = changed;
    reader.graph.body.outputs[0] = changed;
    let mut model = crate::Model { signatures: vec![optimised, reader], state, ..Default::default() };
    model.drop_unseen_state();
    assert_eq!(at(&model.signatures[0].state_outputs), [2]);
}

/// What looks like the beginning of a rule and is not: the result must stay.
#[test]
fn what_only_looks_alike_stays() {
    let ints = |values: &[i32], dims: &[usize]| {
        Tensor::from_vec(Shape::new(dims).unwrap(), values.to_vec()).unwrap()
    };
    let check = |name: &str, graph: Graph, inputs: &[Tensor]| {
        let (after, _) = optimise(&graph, &Passes::all());
        let expected = evaluate(&graph, inputs).unwrap();
        assert_eq!(evaluate(&after, inputs).unwrap(), expected, "{name}");
    };
    let none = Attributes::new;

    let mut b = Builder::new();
    let x = b.input("x", DType::I32, Some(vec![Dim::symbol("batch"), Dim::Fixed(2)]));
    let w = b.constant("w", ints(&[1, 2, 3, 4], &[2, 2]));
    let two = b.constant("two", ints(&[2], &[1]));
    let product = b.op("product", "MatMul", &[x, w], none()).unwrap();
    let y = b.op("y", "Div", &[product, two], none()).unwrap();
    check("integers divided after a product", b.finish(&[("y", y)]).unwrap(), &[ints(&[5, 6], &[1, 2])]);

    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(2)]));
    let w = b.constant("w", values(&[2, 2, 3], 1));
    let y = b.op("y", "Einsum", &[x, w], none().with("equation", "abb,bbc->ac")).unwrap();
    check("a label twice in one term", b.finish(&[("y", y)]).unwrap(), &[values(&[1, 2, 2], 2)]);

    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some([1, 1, 3, 3].map(Dim::Fixed).to_vec()));
    let positive = b.op("positive", "Relu", &[x], none()).unwrap();
    let pads = b.i64s(&[0, 0, 1, 1, 0, 0, 0, 0]);
    let padded = b.op("padded", "Pad", &[positive, pads], none()).unwrap();
    let window = none().with("kernel_shape", [2, 2]).with("strides", [1, 1]);
    let pooled = b.ops("pooled", "", "MaxPool", &[Some(padded)], window, 2).unwrap();
    let graph = b.finish(&[("y", pooled[0]), ("at", pooled[1])]).unwrap();
    check("positions in a padded image", graph, &[values(&[1, 1, 3, 3], 3)]);

    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(2)]));
    let w = b.constant("w", values(&[2, 2], 4));
    let tiny = Tensor::from_vec(Shape::vector(2).unwrap(), vec![0.0f32, 1e-40]).unwrap();
    let tiny = b.constant("tiny", tiny);
    let product = b.op("product", "MatMul", &[x, w], none()).unwrap();
    let y = b.op("y", "Div", &[product, tiny], none()).unwrap();
    let graph = b.finish(&[("y", y)]).unwrap();
    let (after, _) = optimise(&graph, &Passes::all());
    assert!(after.body().nodes.iter().any(|node| node.op == "Div"), "a division without inverse");
}

#[test]
fn a_loop_that_its_body_ends_has_no_known_length() {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::Fixed(1)]));
    let (limit, two) = (b.i64(5), b.i64(2));
    b.begin_block().unwrap();
    let iteration = b.block_input("iteration", DType::I64, Some(vec![]));
    b.block_input("go", DType::Bool, Some(vec![]));
    let more = b.op("more", "Less", &[iteration, two], Attributes::new()).unwrap();
    let piece = b.op("piece", "Relu", &[x], Attributes::new()).unwrap();
    let body = b.end_block(&[more, piece]);
    let blocks = vec![("body", body)];
    let pieces =
        b.with_blocks("loop", "Loop", &[Some(limit), None], Attributes::new(), blocks, 1).unwrap()[0];
    let shape = b.op("shape", "Shape", &[pieces], Attributes::new()).unwrap();
    let graph = b.finish(&[("shape", shape)]).unwrap();
    let (after, _) = optimise(&graph, &Passes::all());
    let given = [values(&[1], 1)];
    let expected = [Tensor::from_vec(Shape::vector(2).unwrap(), vec![3i64, 1]).unwrap()];
    assert_eq!(evaluate(&graph, &given).unwrap(), expected);
    assert_eq!(evaluate(&after, &given).unwrap(), expected);
}
