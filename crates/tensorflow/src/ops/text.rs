//! Strings, sparse and ragged tensors, and tf.Example: operators of the domain `salver`, which have TensorFlow's names,
//! inputs and attributes.

use salver_graph::{Attribute, Attributes, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;
use crate::proto::TensorShapeProto;
use crate::read::proto_dims;

pub(super) const OPS: &[Entry] = &[
    plain("AsString", |c| {
        let attributes = copied(c, &["precision", "scientific", "shortest", "width", "fill"])?;
        host(c, "AsString", attributes, 1)
    }),
    plain("Bucketize", |c| {
        let boundaries = c.node.floats("boundaries")?.to_vec();
        host(c, "Bucketize", Attributes::new().with("boundaries", boundaries), 1)
    }),
    plain("DecodeBase64", |c| host(c, "DecodeBase64", Attributes::new(), 1)),
    plain("DecodeRaw", |c| {
        let out = c.node.dtype("out_type", DType::U8)?;
        let attributes = copied(c, &["little_endian"])?.with("out_type", out);
        host(c, "DecodeRaw", attributes, 1)
    }),
    plain("DenseBincount", |c| {
        let attributes = copied(c, &["binary_output"])?;
        host(c, "DenseBincount", attributes, 1)
    }),
    plain("EncodeBase64", |c| {
        let attributes = copied(c, &["pad"])?;
        host(c, "EncodeBase64", attributes, 1)
    }),
    plain("ParseExample", parse_example),
    noted("ParseExampleV2", "constant keys", parse_example_v2),
    plain("ParseSingleExample", parse_single_example),
    plain("RaggedBincount", |c| {
        let attributes = copied(c, &["binary_output"])?;
        host(c, "RaggedBincount", attributes, 1)
    }),
    plain("RaggedTensorToSparse", |c| host(c, "RaggedTensorToSparse", Attributes::new(), 3)),
    plain("RaggedTensorToTensor", |c| {
        let types = c.node.texts("row_partition_types")?;
        host(c, "RaggedTensorToTensor", Attributes::new().with("row_partition_types", types), 1)
    }),
    plain("ReduceJoin", |c| {
        let attributes = copied(c, &["keep_dims", "separator"])?;
        host(c, "ReduceJoin", attributes, 1)
    }),
    noted("RegexFullMatch", "a constant pattern", |c| host(c, "RegexFullMatch", Attributes::new(), 1)),
    plain("RegexReplace", |c| {
        let attributes = copied(c, &["replace_global"])?;
        host(c, "RegexReplace", attributes, 1)
    }),
    plain("SegmentSum", |c| host(c, "SegmentSum", Attributes::new(), 1)),
    plain("SparseCross", sparse_cross),
    plain("SparseFillEmptyRows", |c| host(c, "SparseFillEmptyRows", Attributes::new(), 4)),
    plain("SparseReshape", |c| host(c, "SparseReshape", Attributes::new(), 2)),
    plain("SparseSegmentMean", |c| host(c, "SparseSegmentMean", Attributes::new(), 1)),
    plain("SparseSegmentMeanWithNumSegments", |c| host(c, "SparseSegmentMean", Attributes::new(), 1)),
    plain("SparseSegmentSqrtN", |c| host(c, "SparseSegmentSqrtN", Attributes::new(), 1)),
    plain("SparseSegmentSqrtNWithNumSegments", |c| host(c, "SparseSegmentSqrtN", Attributes::new(), 1)),
    plain("SparseSegmentSum", |c| host(c, "SparseSegmentSum", Attributes::new(), 1)),
    plain("SparseSegmentSumWithNumSegments", |c| host(c, "SparseSegmentSum", Attributes::new(), 1)),
    plain("SparseTensorDenseMatMul", |c| {
        let attributes = copied(c, &["adjoint_a", "adjoint_b"])?;
        host(c, "SparseTensorDenseMatMul", attributes, 1)
    }),
    plain("SparseToDense", |c| {
        let attributes = copied(c, &["validate_indices"])?;
        host(c, "SparseToDense", attributes, 1)
    }),
    plain("StaticRegexFullMatch", |c| {
        let attributes = copied(c, &["pattern"])?;
        host(c, "RegexFullMatch", attributes, 1)
    }),
    plain("StaticRegexReplace", |c| {
        let attributes = copied(c, &["pattern", "rewrite", "replace_global"])?;
        host(c, "RegexReplace", attributes, 1)
    }),
    plain("StringJoin", |c| {
        let attributes = copied(c, &["separator"])?;
        host(c, "StringJoin", attributes, 1)
    }),
    plain("StringLength", |c| {
        let attributes = copied(c, &["unit"])?;
        host(c, "StringLength", attributes, 1)
    }),
    plain("StringLower", |c| {
        let attributes = copied(c, &["encoding"])?;
        host(c, "StringLower", attributes, 1)
    }),
    plain("StringNGrams", string_n_grams),
    noted("StringSplit", "at one character, without empty parts", string_split_v1),
    plain("StringSplitV2", |c| {
        let attributes = copied(c, &["maxsplit"])?;
        host(c, "StringSplit", attributes, 3)
    }),
    plain("StringStrip", |c| host(c, "StringStrip", Attributes::new(), 1)),
    plain("StringToHashBucket", |c| {
        let attributes = copied(c, &["num_buckets"])?;
        host(c, "StringToHashBucket", attributes, 1)
    }),
    plain("StringToHashBucketFast", |c| {
        let attributes = copied(c, &["num_buckets"])?;
        host(c, "StringToHashBucketFast", attributes, 1)
    }),
    plain("StringToHashBucketStrong", |c| {
        let key = c.node.ints("key")?.unwrap_or_default().to_vec();
        let attributes = copied(c, &["num_buckets"])?.with("key", key);
        host(c, "StringToHashBucketStrong", attributes, 1)
    }),
    plain("StringToNumber", |c| {
        let out = c.node.dtype("out_type", DType::F32)?;
        host(c, "StringToNumber", Attributes::new().with("out_type", out), 1)
    }),
    plain("StringUpper", |c| {
        let attributes = copied(c, &["encoding"])?;
        host(c, "StringUpper", attributes, 1)
    }),
    noted("UnicodeDecode", "UTF-8", |c| {
        let splits = c.node.dtype("Tsplits", DType::I64)?;
        let names = ["input_encoding", "errors", "replacement_char", "replace_control_characters"];
        let attributes = copied(c, &names)?.with("Tsplits", splits);
        host(c, "UnicodeDecode", attributes, 2)
    }),
    noted("UnicodeEncode", "UTF-8", |c| {
        let attributes = copied(c, &["output_encoding", "errors", "replacement_char"])?;
        host(c, "UnicodeEncode", attributes, 1)
    }),
    plain("Substr", |c| {
        let attributes = copied(c, &["unit"])?;
        host(c, "Substr", attributes, 1)
    }),
];

/// The same operator of the domain, on all inputs.
fn host(c: &mut Context<'_>, op: &str, attributes: Attributes, n_outputs: usize) -> Outputs {
    let inputs = c.inputs;
    c.salver(op, inputs, attributes, n_outputs)
}

/// Attributes that are numbers, truths and texts, as the node has them.
fn copied(c: &Context<'_>, names: &[&str]) -> Result<Attributes, Error> {
    let mut attributes = Attributes::new();
    for &name in names {
        if let Some(value) = c.node.plain(name)? {
            attributes.set(name, value);
        }
    }
    Ok(attributes)
}

impl super::View<'_> {
    fn plain(&self, name: &str) -> Result<Option<Attribute>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        let flag = self.flag(name, false).map(|flag| Attribute::Int(i64::from(flag)));
        let plain = flag
            .or_else(|_| self.int(name, 0).map(Attribute::Int))
            .or_else(|_| self.float(name, 0.0).map(Attribute::Float))
            .or_else(|_| self.text(name, "").map(|text| Attribute::String(text.to_owned())));
        plain.map(Some)
    }
}

/// Inputs: indices, values and shapes of `N` sparse columns, then dense columns.
fn sparse_cross(c: &mut Context<'_>) -> Outputs {
    let n_sparse = c.node.int("N", 0)?;
    let attributes = copied(c, &["hashed_output", "num_buckets", "hash_key"])?.with("n_sparse", n_sparse);
    host(c, "SparseCross", attributes, 3)
}

fn string_n_grams(c: &mut Context<'_>) -> Outputs {
    let widths = c.node.ints("ngram_widths")?.unwrap_or_default().to_vec();
    let names = ["separator", "left_pad", "right_pad", "pad_width", "preserve_short_sequences"];
    let attributes = copied(c, &names)?.with("ngram_widths", widths);
    host(c, "StringNGrams", attributes, 2)
}

/// The older operator leaves empty parts out; the newer one gives them, and they are taken out here.
fn string_split_v1(c: &mut Context<'_>) -> Outputs {
    let (input, delimiter) = (c.input(0)?, c.input(1)?);
    let text = c.builder.constant_of(delimiter).and_then(|text| text.strings()?.first().cloned());
    if !c.node.flag("skip_empty", true)? || text.is_none_or(|text| text.len() != 1) {
        return Err(Error::unsupported("StringSplit other than at one character and without empty parts"));
    }
    let split = c.salver("StringSplit", &[input, delimiter], Attributes::new(), 3)?;
    let [places, words, shape] = [split[0], split[1], split[2]];
    let lengths = c.salver("StringLength", &[words], Attributes::new(), 1)?;
    let zero = c.scalar(0.0, lengths[0])?;
    let kept = c.op("Greater", &[lengths[0], zero])?;
    // The column of a word is the number of words kept before it, less those before its row. Each row has a first part,
    // which may be empty.
    let counted = c.as_i64(kept)?;
    let axis = c.builder.i64(0);
    let before = c.with("CumSum", &[counted, axis], Attributes::new().with("exclusive", 1))?;
    let (rows, columns) = (c.slice(places, 1, 0, 1)?, c.slice(places, 1, 1, 2)?);
    let (rows, columns) = (c.squeeze(rows, &[1])?, c.squeeze(columns, &[1])?);
    let first = c.builder.i64(0);
    let is_first = c.op("Equal", &[columns, first])?;
    let along = || Attributes::new().with("axis", 0);
    let before_rows = c.with("Compress", &[before, is_first], along())?;
    let before_row = c.with("Gather", &[before_rows, rows], along())?;
    let columns = c.op("Sub", &[before, before_row])?;
    let (rows, columns) = (c.unsqueeze(rows, &[1])?, c.unsqueeze(columns, &[1])?);
    let places = c.concat(&[rows, columns], 1)?;
    let places = c.with("Compress", &[places, kept], along())?;
    let words = c.with("Compress", &[words, kept], along())?;
    // The widest row, or 0 where nothing is left.
    let columns = c.slice(places, 1, 1, 2)?;
    let none = c.builder.i64s(&[-1]);
    let none = c.reshape(none, &[1, 1])?;
    let columns = c.concat(&[columns, none], 0)?;
    let last = c.with("ReduceMax", &[columns], Attributes::new().with("keepdims", 0))?;
    let last = c.unsqueeze(last, &[0])?;
    let one = c.builder.i64s(&[1]);
    let width = c.op("Add", &[last, one])?;
    let n_rows = c.slice(shape, 0, 0, 1)?;
    let shape = c.concat(&[n_rows, width], 0)?;
    Ok(vec![places, words, shape])
}

/// What one kind of features is parsed to.
#[derive(Default)]
struct Features {
    sparse_keys: Vec<String>,
    dense_keys: Vec<String>,
    ragged_keys: Vec<String>,
}

/// The keys that an input holds.
fn keys(c: &Context<'_>, id: ValueId) -> Result<Vec<String>, Error> {
    let refused = || Error::unsupported("the keys of features are computed by the graph, expected constants");
    let keys = c.builder.constant_of(id).and_then(|keys| keys.strings()).ok_or_else(refused)?;
    let text = |key: &bytes::Bytes| {
        String::from_utf8(key.to_vec()).map_err(|_| Error::unsupported("a key that is not UTF-8"))
    };
    keys.iter().map(text).collect()
}

/// Inputs: serialized, names, one key per sparse feature, one key per dense feature, one default per dense feature.
fn parse_example(c: &mut Context<'_>) -> Outputs {
    let (n_sparse, n_dense) = (c.node.count("Nsparse")?, c.node.count("Ndense")?);
    let inputs = c.inputs;
    if inputs.len() != 2 + n_sparse + 2 * n_dense {
        return Err(Error::invalid(format!(
            "{} inputs for {n_sparse} sparse and {n_dense} dense features",
            inputs.len()
        )));
    }
    let one_each = |c: &Context<'_>, ids: &[ValueId]| -> Result<Vec<String>, Error> {
        let lists: Vec<Vec<String>> = ids.iter().map(|&id| keys(c, id)).collect::<Result<_, _>>()?;
        Ok(lists.concat())
    };
    let features = Features {
        sparse_keys: one_each(c, &inputs[2..2 + n_sparse])?,
        dense_keys: one_each(c, &inputs[2 + n_sparse..2 + n_sparse + n_dense])?,
        ragged_keys: Vec::new(),
    };
    parse(c, features, &inputs[2 + n_sparse + n_dense..])
}

/// Inputs: serialized, names, sparse keys, dense keys, ragged keys, one default per dense feature.
fn parse_example_v2(c: &mut Context<'_>) -> Outputs {
    let inputs = c.inputs;
    let features = Features {
        sparse_keys: keys(c, c.input(2)?)?,
        dense_keys: keys(c, c.input(3)?)?,
        ragged_keys: keys(c, c.input(4)?)?,
    };
    parse(c, features, inputs.get(5..).unwrap_or_default())
}

/// Inputs: serialized, one default per dense feature.
fn parse_single_example(c: &mut Context<'_>) -> Outputs {
    let inputs = c.inputs;
    let features = Features {
        sparse_keys: c.node.texts("sparse_keys")?,
        dense_keys: c.node.texts("dense_keys")?,
        ragged_keys: Vec::new(),
    };
    parse(c, features, inputs.get(1..).unwrap_or_default())
}

fn parse(c: &mut Context<'_>, features: Features, defaults: &[ValueId]) -> Outputs {
    let sparse_types = c.node.dtypes("sparse_types")?;
    let dense_types = c.node.dtypes("Tdense")?;
    let ragged_value_types = c.node.dtypes("ragged_value_types")?;
    let ragged_split_types = c.node.dtypes("ragged_split_types")?;
    let shapes = c.node.shapes("dense_shapes")?;
    let n_dense = features.dense_keys.len();
    let fits = features.sparse_keys.len() == sparse_types.len()
        && [dense_types.len(), shapes.len(), defaults.len()] == [n_dense; 3]
        && [ragged_value_types.len(), ragged_split_types.len()] == [features.ragged_keys.len(); 2];
    if !fits {
        return Err(Error::invalid("keys, types, shapes and defaults of features are not equally many"));
    }
    let (dense_ranks, dense_dims) = dense_shapes(shapes)?;
    let n_outputs = 3 * sparse_types.len() + n_dense + 2 * ragged_value_types.len();
    let attributes = Attributes::new()
        .with("sparse_keys", features.sparse_keys)
        .with("dense_keys", features.dense_keys)
        .with("ragged_keys", features.ragged_keys)
        .with("sparse_types", sparse_types)
        .with("dense_types", dense_types)
        .with("ragged_value_types", ragged_value_types)
        .with("ragged_split_types", ragged_split_types)
        .with("dense_ranks", dense_ranks)
        .with("dense_dims", dense_dims);
    let inputs: Vec<ValueId> = [c.input(0)?].iter().chain(defaults).copied().collect();
    c.salver("ParseExample", &inputs, attributes, n_outputs)
}

/// How many dimensions each shape has, and the dimensions of all in a row.
fn dense_shapes(shapes: &[TensorShapeProto]) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let (mut ranks, mut all) = (Vec::new(), Vec::new());
    for shape in shapes {
        let dims = proto_dims(shape).ok_or_else(|| Error::unsupported("a dense feature of unknown shape"))?;
        ranks.push(dims.len() as i64);
        all.extend(dims.into_iter().map(|dim| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1)));
    }
    Ok((ranks, all))
}
