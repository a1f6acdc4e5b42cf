//! The operators of the domain `salver`: those of TensorFlow that ONNX lacks, by TensorFlow's names and meanings.
//!
//! Attributes have TensorFlow's names and defaults. The texts of errors that a client can cause are TensorFlow's too,
//! because people search for them.

mod base64;
mod buckets;
mod cross;
mod example;
mod farm;
mod format;
mod hash;
mod integer;
mod parse;
mod ragged;
mod re2;
mod reduce;
mod replace;
mod segment;
mod sparse;
mod split;
mod substring;
mod table;
mod text;
mod unicode;

use salver_tensor::{DType, Tensor};

pub use table::table_order;

use crate::call::Call;
use crate::{Attributes, Error};

/// Computes one operator of the domain, see [`crate::run`]. The result may have more outputs than are asked for.
pub(crate) fn run(
    op: &str,
    attributes: &Attributes,
    inputs: &[Option<&Tensor>],
    n_outputs: usize,
) -> Result<Vec<Tensor>, Error> {
    let call = &Call { op, attributes, inputs, n_outputs };
    let one = |tensor: Tensor| vec![tensor];
    match call.op {
        "ParseExample" => example::parse_example(call),
        "LookupTable" => table::lookup(call).map(one),
        "StringLower" => text::lower(call).map(one),
        "StringUpper" => text::upper(call).map(one),
        "StringStrip" => text::strip(call).map(one),
        "StringLength" => text::length(call).map(one),
        "StringJoin" => text::join(call).map(one),
        "ReduceJoin" => reduce::reduce_join(call).map(one),
        "Substr" => substring::substr(call).map(one),
        "RegexReplace" => replace::regex_replace(call).map(one),
        "RegexFullMatch" => replace::regex_full_match(call).map(one),
        "StringSplit" => split::string_split(call),
        "StringNGrams" => split::string_n_grams(call),
        "AsString" => format::as_string(call).map(one),
        "StringToNumber" => parse::string_to_number(call).map(one),
        "StringToHashBucketFast" => hash::fast(call).map(one),
        "StringToHashBucketStrong" => hash::strong(call).map(one),
        "StringToHashBucket" => hash::legacy(call).map(one),
        "EncodeBase64" => base64::encode(call).map(one),
        "DecodeBase64" => base64::decode(call).map(one),
        "DecodeRaw" => parse::decode_raw(call).map(one),
        "Bucketize" => buckets::bucketize(call).map(one),
        "DenseBincount" => buckets::dense_bincount(call).map(one),
        "RaggedBincount" => buckets::ragged_bincount(call).map(one),
        "SparseToDense" => sparse::to_dense(call).map(one),
        "SparseReshape" => sparse::reshape(call),
        "SparseFillEmptyRows" => sparse::fill_empty_rows(call),
        "SparseTensorDenseMatMul" => segment::sparse_mat_mul(call).map(one),
        "SegmentSum" => segment::segment_sum(call).map(one),
        "SparseSegmentSum" => segment::sparse_segment(call, segment::Total::Sum).map(one),
        "SparseSegmentMean" => segment::sparse_segment(call, segment::Total::Mean).map(one),
        "SparseSegmentSqrtN" => segment::sparse_segment(call, segment::Total::SqrtN).map(one),
        "RaggedTensorToTensor" => ragged::to_tensor(call).map(one),
        "RaggedTensorToSparse" => ragged::to_sparse(call),
        "FloorDiv" => integer::floor_div(call).map(one),
        "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "LeftShift" | "RightShift" => {
            integer::bits(call).map(one)
        }
        "Rint" => integer::rint(call).map(one),
        "Bitcast" => integer::bitcast(call).map(one),
        "SparseCross" => cross::sparse_cross(call),
        "UnicodeDecode" => unicode::decode(call),
        "UnicodeEncode" => unicode::encode(call).map(one),
        other => Err(Error::unsupported(format!("no operator salver.{other}"))),
    }
}

impl<'a> Call<'a> {
    /// The elements of an input of strings.
    fn strings(&self, index: usize) -> Result<&'a [bytes::Bytes], Error> {
        let tensor = self.input(index)?;
        tensor.strings().ok_or_else(|| {
            let dtype = tensor.dtype();
            Error::invalid(format!("input {index} of {} is {dtype}, expected string", self.op))
        })
    }

    /// An attribute that the operator cannot do without.
    fn needed<T>(&self, name: &str, found: Option<T>) -> Result<T, Error> {
        found.ok_or_else(|| Error::invalid(format!("{} lacks the attribute '{name}'", self.op)))
    }
}

/// TensorFlow's name of an element type, as its messages print it.
fn tf_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "half",
        DType::F32 => "float",
        DType::F64 => "double",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests;
