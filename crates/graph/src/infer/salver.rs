//! Operators of the domain `salver`: TensorFlow's, by TensorFlow's names.

use salver_tensor::DType;

use super::{Asked, Outcome, broadcast, same_dtype};
use crate::Error;
use crate::ir::Dim;

pub(super) fn infer(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let dims_of = |at: usize| asked.optional(at).and_then(|input| input.dims.map(<[_]>::to_vec));
    let like_first = |dtype: DType| vec![Outcome::new(dtype, dims_of(0))];
    let rank = |dtype: DType, rank: usize| Outcome::new(dtype, Some(vec![Dim::Unknown; rank]));
    let text_type = |name: &str, default: DType| asked.attributes.dtype(name).map(|d| d.unwrap_or(default));
    Ok(match asked.op {
        "StringLower" | "StringUpper" | "StringStrip" | "RegexReplace" | "AsString" | "EncodeBase64"
        | "DecodeBase64" => like_first(DType::String),
        "RegexFullMatch" => like_first(DType::Bool),
        "StringLength" | "Bucketize" => like_first(DType::I32),
        "StringToNumber" => like_first(text_type("out_type", DType::F32)?),
        "StringToHashBucket" | "StringToHashBucketFast" | "StringToHashBucketStrong" => {
            like_first(DType::I64)
        }
        "LookupTable" => {
            let values = asked.attributes.tensor("values")?;
            let values = values.ok_or_else(|| Error::invalid("LookupTable without values"))?;
            like_first(values.dtype())
        }
        "Substr" => {
            vec![Outcome::new(DType::String, broadcast(dims_of(0).as_deref(), dims_of(1).as_deref())?)]
        }
        "StringJoin" => {
            let mut dims = dims_of(0);
            for input in asked.present().skip(1) {
                dims = broadcast(dims.as_deref(), input.dims)?;
            }
            vec![Outcome::new(DType::String, dims)]
        }
        "ReduceJoin" | "StringNGrams" => vec![Outcome::new(DType::String, None), rank(DType::I64, 1)],
        "StringSplit" => vec![rank(DType::I64, 2), rank(DType::String, 1), rank(DType::I64, 1)],
        "DecodeRaw" => {
            let dims = dims_of(0).map(|mut dims| {
                dims.push(Dim::Unknown);
                dims
            });
            vec![Outcome::new(text_type("out_type", DType::U8)?, dims)]
        }
        "FloorDiv" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "LeftShift" | "RightShift" => {
            let dtype = same_dtype(asked)?;
            vec![Outcome::new(dtype, broadcast(dims_of(0).as_deref(), dims_of(1).as_deref())?)]
        }
        "Rint" => like_first(asked.input(0)?.dtype),
        "ParseExample" => parse_example(asked)?,
        "SparseToDense" => {
            let shape = asked.input(1)?;
            let dims = match (shape.items, shape.dims) {
                (Some(items), _) => Some(items.iter().map(Dim::from).collect()),
                (None, Some([Dim::Fixed(rank)])) => Some(vec![Dim::Unknown; *rank]),
                _ => None,
            };
            vec![Outcome::new(asked.input(2)?.dtype, dims)]
        }
        "SparseCross" => {
            let hashed = asked.attributes.flag("hashed_output", false)?;
            let dtype = if hashed { DType::I64 } else { DType::String };
            vec![rank(DType::I64, 2), rank(dtype, 1), rank(DType::I64, 1)]
        }
        "Bitcast" => {
            let (from, to) = (asked.input(0)?.dtype, text_type("type", DType::U8)?);
            let dims = dims_of(0).and_then(|mut dims| {
                match (from.size()?, to.size()?) {
                    (old, new) if old > new => dims.push(Dim::Fixed(old / new)),
                    (old, new) if old < new => drop(dims.pop()?),
                    _ => {}
                }
                Some(dims)
            });
            vec![Outcome::new(to, dims)]
        }
        "UnicodeDecode" => vec![rank(text_type("Tsplits", DType::I64)?, 1), rank(DType::I32, 1)],
        "UnicodeEncode" => vec![rank(DType::String, 1)],
        "SparseReshape" => vec![rank(DType::I64, 2), rank(DType::I64, 1)],
        "SparseFillEmptyRows" => vec![
            rank(DType::I64, 2),
            rank(asked.input(1)?.dtype, 1),
            rank(DType::Bool, 1),
            rank(DType::I64, 1),
        ],
        "SparseSegmentSum" | "SparseSegmentMean" | "SparseSegmentSqrtN" | "SegmentSum" => {
            let data = asked.input(0)?;
            let dims = data.dims.map(|dims| {
                let rest = dims.get(1..).unwrap_or_default().iter().cloned();
                std::iter::once(Dim::Unknown).chain(rest).collect()
            });
            vec![Outcome::new(data.dtype, dims)]
        }
        "SparseTensorDenseMatMul" => vec![rank(asked.input(3)?.dtype, 2)],
        "DenseBincount" | "RaggedBincount" => {
            let weights = asked.optional(asked.inputs.len().saturating_sub(1));
            let dtype = weights.map_or(DType::F32, |weights| weights.dtype);
            vec![Outcome::new(dtype, None)]
        }
        "RaggedTensorToTensor" => vec![Outcome::new(asked.input(1)?.dtype, None)],
        "RaggedTensorToSparse" => {
            let values = asked.inputs.len().saturating_sub(1);
            vec![rank(DType::I64, 2), rank(asked.input(values)?.dtype, 1), rank(DType::I64, 1)]
        }
        op => return Err(Error::unsupported(format!("operator salver.{op} is not known"))),
    })
}

/// Sparse indices, values and shapes, dense values, ragged values and row splits, each one per key.
fn parse_example(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let attributes = asked.attributes;
    let serialized = asked.input(0)?;
    if serialized.dtype != DType::String {
        return Err(Error::invalid(format!("ParseExample of {}, expected string", serialized.dtype)));
    }
    let batch: Vec<Dim> = match serialized.dims {
        Some(dims) => dims.to_vec(),
        None => vec![Dim::Unknown],
    };
    let index_rank = 1 + batch.len();
    let vector = |dtype| Outcome::new(dtype, Some(vec![Dim::Unknown]));
    let sparse = attributes.dtypes("sparse_types")?.unwrap_or_default();
    let indices = Outcome::new(DType::I64, Some(vec![Dim::Unknown, Dim::Fixed(index_rank)]));
    let mut outcomes = vec![indices; sparse.len()];
    outcomes.extend(sparse.iter().map(|&dtype| vector(dtype)));
    outcomes.extend(sparse.iter().map(|_| Outcome::new(DType::I64, Some(vec![Dim::Fixed(index_rank)]))));
    let mut dims = attributes.ints("dense_dims")?.unwrap_or_default().iter();
    let ranks = attributes.ints("dense_ranks")?.unwrap_or_default();
    let types = attributes.dtypes("dense_types")?.unwrap_or_default();
    for (&dtype, &rank) in types.iter().zip(ranks) {
        let own = dims.by_ref().take(usize::try_from(rank).unwrap_or(0));
        let own = own.map(|&dim| usize::try_from(dim).map_or(Dim::Unknown, Dim::Fixed));
        outcomes.push(Outcome::new(dtype, Some(batch.iter().cloned().chain(own).collect())));
    }
    outcomes.extend(attributes.dtypes("ragged_value_types")?.unwrap_or_default().iter().map(|&d| vector(d)));
    outcomes.extend(attributes.dtypes("ragged_split_types")?.unwrap_or_default().iter().map(|&d| vector(d)));
    Ok(outcomes)
}
