//! What an operator computes, on tensors of any element type: exact, simple, pure.
//!
//! Operators go by their ONNX names and meanings (operator set 18, domain `""`); what ONNX lacks is in the domain
//! [`SALVER`]. Importers fold constants with these functions, and the host runs with them what an engine does not hold
//! exactly. This room knows nothing of graphs, files or threads.
//!
//! Integers wrap around; `float16` and `bfloat16` are computed in `float32` and rounded once per operator; sums of floats
//! are taken in `float64`. A result of more than 2^31 elements or 4 GiB is refused before memory is asked for.

mod attributes;
mod binary;
mod call;
mod cast;
mod conv;
mod datum;
mod einsum;
mod elementwise;
mod error;
mod fast;
mod generated;
mod layout;
mod matmul;
mod movement;
mod norm;
mod number;
mod pool;
mod quantise;
mod recurrent;
mod reduce;
mod resize;
mod salver;
mod softmax;
mod suppress;
mod window;

pub use attributes::{Attribute, Attributes};
pub use error::{Error, ErrorKind};
pub use salver::table_order;

use movement::{arrange, gather, make, pad, pick, scatter, shape, slice};
use salver_tensor::Tensor;

use call::Call;

/// The domain of the operators that ONNX lacks.
pub const SALVER: &str = "salver";

type Outputs = Result<Vec<Tensor>, Error>;
type Kernel = fn(&Call<'_>) -> Outputs;

/// Computes one operator. `inputs` are in the operator's order, `None` where an optional one is left out; the result
/// has one tensor for each of the `n_outputs` outputs. Blocks for as long as the computation takes.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there is no such operator here or not with these types, [`ErrorKind::Invalid`] when
/// inputs or attributes do not fit it, [`ErrorKind::TooLarge`] when the result would not fit in memory.
pub fn run(
    domain: &str,
    op: &str,
    attributes: &Attributes,
    inputs: &[Option<&Tensor>],
    n_outputs: usize,
) -> Result<Vec<Tensor>, Error> {
    inputs.iter().flatten().try_for_each(|tensor| layout::check_input(tensor))?;
    let mut outputs = match (domain, kernel(op)) {
        (SALVER, _) => salver::run(op, attributes, inputs, n_outputs)?,
        ("" | "ai.onnx", Some(kernel)) => kernel(&Call { op, attributes, inputs, n_outputs })?,
        _ => return Err(Error::unsupported(format!("no operator {domain}.{op}"))),
    };
    if outputs.len() < n_outputs {
        return Err(Error::invalid(format!(
            "{op} has {} outputs here, asked for {n_outputs}",
            outputs.len()
        )));
    }
    outputs.truncate(n_outputs);
    Ok(outputs)
}

/// The function of an ONNX operator.
fn kernel(op: &str) -> Option<Kernel> {
    Some(match op {
        "Abs" | "Relu" | "Sign" => elementwise::number,
        "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "Ceil" | "Celu" | "Cos" | "Cosh" | "Elu"
        | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid" | "HardSwish" | "LeakyRelu" | "Log" | "Mish"
        | "Reciprocal" | "Round" | "Selu" | "Shrink" | "Sigmoid" | "Sin" | "Sinh" | "Softplus"
        | "Softsign" | "Sqrt" | "Swish" | "Tan" | "Tanh" | "ThresholdedRelu" => elementwise::real,
        "BitwiseNot" => elementwise::bitwise_not,
        "Clip" => elementwise::clip,
        "IsInf" | "IsNaN" => elementwise::test,
        "Neg" => elementwise::neg,
        "Not" => elementwise::not,

        "Add" | "Div" | "Mul" | "Sub" => binary::arithmetic,
        "And" | "Or" | "Xor" => binary::logic,
        "BitShift" => binary::shift,
        "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => binary::bits,
        "Equal" => binary::equal,
        "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => binary::order,
        "Max" | "Mean" | "Min" | "Sum" => binary::variadic,
        "Mod" => binary::modulo,
        "PRelu" => binary::prelu,
        "Pow" => binary::pow,
        "Where" => binary::select,

        "Cast" => cast::cast,
        "CastLike" => cast::cast_like,

        "Dropout" => shape::dropout,
        "Expand" => shape::expand,
        "Flatten" => shape::flatten,
        "Identity" => shape::identity,
        "Reshape" => shape::reshape,
        "Shape" => shape::shape,
        "Size" => shape::n_elements,
        "Squeeze" => shape::squeeze,
        "Unsqueeze" => shape::unsqueeze,

        "Compress" => arrange::compress,
        "Concat" => arrange::concat,
        "DepthToSpace" => arrange::depth_to_space,
        "NonZero" => arrange::non_zero,
        "ReverseSequence" => arrange::reverse_sequence,
        "SpaceToDepth" => arrange::space_to_depth,
        "Split" => arrange::split,
        "Tile" => arrange::tile,
        "Transpose" => arrange::transpose,
        "Trilu" => arrange::trilu,

        "Gather" => gather::gather,
        "GatherElements" => gather::gather_elements,
        "GatherND" => gather::gather_nd,
        "Pad" => pad::pad,
        "Scatter" | "ScatterElements" => scatter::scatter_elements,
        "ScatterND" => scatter::scatter_nd,
        "Slice" => slice::slice,

        "Constant" => make::constant,
        "ConstantOfShape" => make::constant_of_shape,
        "CumSum" => make::cum_sum,
        "EyeLike" => make::eye_like,
        "OneHot" => make::one_hot,
        "Range" => make::range,

        "ArgMax" | "ArgMin" => pick::arg,
        "TopK" => pick::top_k,
        "Unique" => pick::unique,

        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce::reduce,

        "Einsum" => einsum::einsum,
        "Gemm" => matmul::gemm,
        "MatMul" => matmul::matmul,

        "Conv" => conv::conv,
        "ConvTranspose" => conv::conv_transpose,
        "AveragePool" | "LpPool" => pool::mean,
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => pool::global,
        "MaxPool" => pool::max,
        "Resize" => resize::resize,

        "BatchNormalization" => norm::batch,
        "InstanceNormalization" => norm::instance,
        "LayerNormalization" => norm::layer,
        "LpNormalization" => softmax::lp_normalization,
        "LRN" => norm::local_response,
        "MeanVarianceNormalization" => norm::mean_variance,

        "NonMaxSuppression" => suppress::suppress,
        "Hardmax" | "LogSoftmax" | "Softmax" => softmax::softmax,
        "GRU" | "LSTM" | "RNN" => recurrent::recurrent,

        "DequantizeLinear" => quantise::dequantise,
        "QuantizeLinear" => quantise::quantise,
        _ => return None,
    })
}
