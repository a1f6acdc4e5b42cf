//! The operators that rten 0.27 has.

use std::collections::BTreeMap;

use salver_engine::{Error, ErrorKind};

use crate::proto::{NodeExt, subgraphs};
use salver_graph::onnx::proto::{GraphProto, NodeProto};

/// Of ONNX's own domain, sorted. `Constant` is not an operator to rten, but it is read. rten's `NonMaxSuppression` is
/// left out: it limits boxes per batch where ONNX limits them per class.
const ONNX: &[&str] = &[
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
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "BitCast",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "ConcatFromSequence",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
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
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "If",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "Loop",
    "LpNormalization",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Multinomial",
    "Neg",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "RMSNormalization",
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
    "RotaryEmbedding",
    "Round",
    "STFT",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "Shape",
    "Sigmoid",
    "Sign",
    "SimplifiedLayerNormalization",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "SplitToSequence",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];

/// Of the domain `com.microsoft`, sorted.
const MICROSOFT: &[&str] = &[
    "BiasGelu",
    "DynamicQuantizeLSTM",
    "FastGelu",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Missing operators that are listed by name.
const MAX_LISTED: usize = 50;

/// Whether it is an operator of ONNX's own domain that rten has.
pub(crate) fn is_known(op: &str) -> bool {
    ONNX.binary_search(&op).is_ok()
}

fn is_supported(node: &NodeProto) -> bool {
    match node.domain() {
        "" | "ai.onnx" => is_known(node.op()),
        "com.microsoft" => MICROSOFT.binary_search(&node.op()).is_ok(),
        _ => false,
    }
}

/// Refuses a graph with operators that rten lacks, naming all of them with their number and one node each.
pub(crate) fn check(graph: &GraphProto) -> Result<(), Error> {
    let mut missing = BTreeMap::new();
    collect(graph, &mut missing);
    if missing.is_empty() {
        return Ok(());
    }
    let listed: Vec<_> = missing
        .iter()
        .take(MAX_LISTED)
        .map(|(op, (count, first))| format!("{op} ({count}, such as node '{first}')"))
        .collect();
    let more = missing.len().saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!("operators that the embedded engine lacks: {}{more}", listed.join(", "));
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Whether there is a loop in it, at any depth.
pub(crate) fn has_loops(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| node.op() == "Loop" || subgraphs(node).any(has_loops))
}

fn collect(graph: &GraphProto, missing: &mut BTreeMap<String, (usize, String)>) {
    for node in &graph.node {
        if !is_supported(node) {
            let name = [node.name(), node.output.first().map_or("", String::as_str)];
            let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
            missing.entry(node.full_op()).or_insert_with(|| (0, name.to_owned())).0 += 1;
        }
        for graph in subgraphs(node) {
            collect(graph, missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(ONNX.is_sorted() && MICROSOFT.is_sorted());
    }

    #[test]
    fn all_missing_operators_are_named() {
        let mut graph = GraphProto::default();
        for (op, domain) in
            [("Add", ""), ("LRN", ""), ("Scan", ""), ("LRN", ""), ("TreeEnsemble", "ai.onnx.ml")]
        {
            let mut node = NodeProto::new(op, &["a"], &format!("out_{op}"));
            node.domain = Some(domain.into());
            graph.node.push(node);
        }
        let error = check(&graph).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "operators that the embedded engine lacks: LRN (2, such as node 'out_LRN'), \
             Scan (1, such as node 'out_Scan'), ai.onnx.ml.TreeEnsemble (1, such as node 'out_TreeEnsemble')"
        );
    }
}
