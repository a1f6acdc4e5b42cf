//! Which nodes of a graph the library runs.
//!
//! The lists say what ONNX Runtime 1.32 has for the processor at the operator set of graphs, as its own table of kernels
//! does (<https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md>), for the element types that parts
//! hold: float32, int32, int64 and bool.

use salver_graph::{Dim, Graph, Node, ValueId};
use salver_tensor::{DType, Tensor};

/// Operators of ONNX's own domain that have a kernel, or are made of those that do.
const KNOWN: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BatchNormalization",
    "Bernoulli",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Compress",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "DynamicQuantizeLinear",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "If",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "Loop",
    "LpNormalization",
    "LpPool",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "MeanVarianceNormalization",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Multinomial",
    "Neg",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RNN",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "ReverseSequence",
    "Round",
    "Scan",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unique",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Inputs by operator and position that must not have one of these element types: ONNX allows them, and there is no
/// kernel.
const LACKING: &[(&str, usize, &[DType])] = &[
    ("DepthToSpace", 0, &[DType::Bool, DType::I32, DType::I64]),
    ("EyeLike", 0, &[DType::Bool]),
    ("Gemm", 0, &[DType::I32, DType::I64]),
    ("GridSample", 0, &[DType::Bool, DType::I32, DType::I64]),
    ("PRelu", 0, &[DType::I32, DType::I64]),
    ("QuantizeLinear", 0, &[DType::I32]),
    ("ReduceMax", 0, &[DType::Bool]),
    ("ReduceMin", 0, &[DType::Bool]),
    ("Relu", 0, &[DType::I64]),
    ("Resize", 0, &[DType::Bool, DType::I64]),
    ("SpaceToDepth", 0, &[DType::Bool, DType::I32, DType::I64]),
    ("Unique", 0, &[DType::Bool, DType::I32]),
    ("Where", 1, &[DType::Bool]),
];

/// What `OneHot` has: element types of indices, depth and values.
const ONE_HOT: &[[DType; 3]] = &[
    [DType::I64, DType::I64, DType::I64],
    [DType::F32, DType::I64, DType::I64],
    [DType::F32, DType::F32, DType::F32],
    [DType::I64, DType::F32, DType::I32],
    [DType::I64, DType::I64, DType::F32],
    [DType::I32, DType::I32, DType::F32],
    [DType::I32, DType::F32, DType::F32],
    [DType::I64, DType::F32, DType::F32],
    [DType::I64, DType::I32, DType::F32],
];

/// Whether ONNX Runtime has what a node of this graph and the blocks in it ask for.
pub fn supports_in(graph: &Graph, node: &Node) -> bool {
    let mut all = has(graph, node);
    for (_, block) in &node.blocks {
        block.visit(&mut |inner| all &= has(graph, inner));
    }
    all
}

fn has(graph: &Graph, node: &Node) -> bool {
    node.domain.is_empty()
        && KNOWN.binary_search(&node.op.as_str()).is_ok()
        && has_types(graph, node)
        && is_exact(graph, node)
        && has_attributes(graph, node)
}

fn has_types(graph: &Graph, node: &Node) -> bool {
    let dtype = |at: usize| node.input(at).map(|id| graph.value(id).dtype);
    if node.op == "OneHot" {
        let types = [dtype(0), dtype(1), dtype(2)];
        return ONE_HOT.iter().any(|known| known.map(Some) == types);
    }
    if node.op == "EyeLike" && node.outputs.first().is_some_and(|&id| graph.value(id).dtype == DType::Bool) {
        return false;
    }
    let lacks = |(op, at, types): &(&str, usize, &[DType])| {
        *op == node.op && dtype(*at).is_some_and(|dtype| types.contains(&dtype))
    };
    !LACKING.iter().any(lacks)
}

/// Whether whole numbers come out right. The library takes powers of them as `float64`, and divides them by whatever is
/// there; but a zero, or the least number divided by -1, ends the process. So they are divided by constants alone that are
/// neither.
fn is_exact(graph: &Graph, node: &Node) -> bool {
    let is_whole = |at: usize| {
        let dtype = node.input(at).map(|id| graph.value(id).dtype);
        !dtype.is_some_and(|dtype| matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64))
    };
    match node.op.as_str() {
        "Div" | "Mod" if is_whole(1) => {
            node.input(1).is_some_and(|id| divides_all(&graph.value(id).constant))
        }
        "Pow" => !is_whole(0),
        _ => true,
    }
}

fn divides_all(divisor: &Option<Tensor>) -> bool {
    let Some(divisor) = divisor else { return false };
    let longs = divisor.to_slice::<i64>().is_some_and(|all| all.iter().all(|&x| x != 0 && x != -1));
    longs || divisor.to_slice::<i32>().is_some_and(|all| all.iter().all(|&x| x != 0 && x != -1))
}

fn has_attributes(graph: &Graph, node: &Node) -> bool {
    let attributes = &node.attributes;
    let is = |name: &str, value: i64| attributes.int(name, value).is_ok_and(|got| got == value);
    let rank = |at: usize| node.input(at).and_then(|id| graph.value(id).dims.as_ref()).map(Vec::len);
    match node.op.as_str() {
        "GRU" | "LSTM" | "RNN" => is("layout", 0),
        "BatchNormalization" => is("training_mode", 0) && node.outputs.len() == 1,
        // The operator set of graphs has no dilations there.
        "AveragePool" if attributes.get("dilations").is_some() => false,
        "AveragePool" | "LpPool" | "MaxPool" => rank(0).is_some_and(|rank| (3..=5).contains(&rank)),
        "Resize" => {
            let mode = attributes.text("mode", "nearest").unwrap_or("");
            is("antialias", 0) && (mode == "nearest" || resizes_an_image(graph, node, mode == "cubic"))
        }
        _ => true,
    }
}

/// Whether what is resized is a plane, or planes of an image with its channels before or, unless `first` asks for that,
/// behind them.
fn resizes_an_image(graph: &Graph, node: &Node, first: bool) -> bool {
    let dims = |id: ValueId| graph.value(id).dims.as_deref();
    let (Some(from), Some(to)) = (node.input(0).and_then(dims), node.outputs.first().copied().and_then(dims))
    else {
        return false;
    };
    let kept: Vec<bool> = from.iter().zip(to).map(|(a, b): (&Dim, &Dim)| a.is_same(b)).collect();
    match kept.as_slice() {
        [_, _] => true,
        [batch, channels, _, _] if *batch && *channels => true,
        [batch, _, _, channels] => !first && *batch && *channels,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use salver_graph::{Attributes, Builder};

    use super::*;

    #[test]
    fn the_list_can_be_searched() {
        assert!(KNOWN.is_sorted());
        assert!(LACKING.iter().all(|(op, _, _)| KNOWN.contains(op)));
    }

    #[test]
    fn limits_of_operators_are_known() {
        let shape = |dims: &[usize]| Some(dims.iter().map(|&dim| Dim::Fixed(dim)).collect::<Vec<_>>());
        let none = Attributes::new;
        let image: &[usize] = &[1, 3, 8, 8];
        let line: &[usize] = &[4];
        for (op, dtype, dims, more, attributes, expected) in [
            ("Relu", DType::F32, image, None, none(), true),
            ("Relu", DType::I64, image, None, none(), false),
            ("Asin", DType::F32, image, None, none(), true),
            ("Resize", DType::F32, image, Some([1i64, 3, 4, 4]), none().with("mode", "linear"), true),
            ("Resize", DType::F32, image, Some([1, 6, 4, 4]), none().with("mode", "linear"), false),
            ("Resize", DType::F32, image, Some([1, 4, 4, 8]), none().with("mode", "linear"), true),
            ("Resize", DType::F32, image, Some([1, 4, 4, 8]), none().with("mode", "cubic"), false),
            ("Resize", DType::F32, image, Some([2, 6, 4, 8]), none(), true),
            ("DepthToSpace", DType::I32, &[1, 4, 2, 2], None, none().with("blocksize", 2i64), false),
            ("DepthToSpace", DType::F32, &[1, 4, 2, 2], None, none().with("blocksize", 2i64), true),
            ("Pow", DType::I64, line, Some([1, 2, 3, 4]), none(), false),
            ("Div", DType::I64, line, Some([1, 2, 3, 4]), none(), true),
            ("Div", DType::I64, line, Some([1, 0, 3, 4]), none(), false),
            ("Mod", DType::I64, line, Some([1, -1, 3, 4]), none(), false),
        ] {
            let mut builder = Builder::new();
            let x = builder.input("x", dtype, shape(dims));
            let mut inputs = vec![Some(x)];
            if let Some(sizes) = more {
                let sizes =
                    Tensor::from_vec(salver_tensor::Shape::new(&[4]).unwrap(), sizes.to_vec()).unwrap();
                inputs.extend((op == "Resize").then_some([None, None]).into_iter().flatten());
                inputs.push(Some(builder.constant("sizes", sizes)));
            }
            let y = builder.ops("n", "", op, &inputs, attributes.clone(), 1).unwrap();
            let graph = builder.finish(&[("y", y[0])]).unwrap();
            let node = &graph.body().nodes[0];
            assert_eq!(supports_in(&graph, node), expected, "{op} {dtype} {attributes:?} {more:?}");
        }
    }
}
