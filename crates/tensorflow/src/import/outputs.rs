//! What the outputs of operators are called, because functions refer to outputs by name.

use crate::ops::View;
use crate::proto::NodeDef;

/// Operators with more than one output, and the names of these. A star and an attribute follow an output that stands
/// for several: as many as the attribute says, or as many as it has element types. From TensorFlow's registry.
const OUTPUTS: &[(&str, &str)] = &[
    ("BlockLSTM", "i cs f o ci co h"),
    ("BlockLSTMV2", "i cs f o ci co h"),
    (
        "CTCBeamSearchDecoder",
        "decoded_indices*top_paths decoded_values*top_paths decoded_shape*top_paths log_probability",
    ),
    ("CTCGreedyDecoder", "decoded_indices decoded_values decoded_shape log_probability"),
    ("CombinedNonMaxSuppression", "nmsed_boxes nmsed_scores nmsed_classes valid_detections"),
    ("DenseCountSparseOutput", "output_indices output_values output_dense_shape"),
    ("DenseToDenseSetOperation", "result_indices result_values result_shape"),
    ("DeserializeManySparse", "sparse_indices sparse_values sparse_shape"),
    ("DeserializeSparse", "sparse_indices sparse_values sparse_shape"),
    ("FractionalAvgPool", "output row_pooling_sequence col_pooling_sequence"),
    ("FractionalMaxPool", "output row_pooling_sequence col_pooling_sequence"),
    ("FusedBatchNorm", "y batch_mean batch_variance reserve_space_1 reserve_space_2"),
    ("FusedBatchNormV2", "y batch_mean batch_variance reserve_space_1 reserve_space_2"),
    ("FusedBatchNormV3", "y batch_mean batch_variance reserve_space_1 reserve_space_2 reserve_space_3"),
    ("GRUBlockCell", "r u c h"),
    ("LSTMBlockCell", "i cs f o ci co h"),
    ("ListDiff", "out idx"),
    ("LogMatrixDeterminant", "sign log_abs_determinant"),
    ("LookupTableExport", "keys values"),
    ("LookupTableExportV2", "keys values"),
    ("Lu", "lu p"),
    ("MaxPoolWithArgmax", "output argmax"),
    ("Merge", "output value_index"),
    ("NonMaxSuppressionV4", "selected_indices valid_outputs"),
    ("NonMaxSuppressionV5", "selected_indices selected_scores valid_outputs"),
    (
        "ParseExample",
        "sparse_indices*Nsparse sparse_values*sparse_types sparse_shapes*Nsparse dense_values*Tdense",
    ),
    (
        "ParseExampleV2",
        "sparse_indices*num_sparse sparse_values*sparse_types sparse_shapes*num_sparse dense_values*Tdense ragged_values*ragged_value_types ragged_row_splits*ragged_split_types",
    ),
    (
        "ParseSequenceExample",
        "context_sparse_indices*Ncontext_sparse context_sparse_values*context_sparse_types context_sparse_shapes*Ncontext_sparse context_dense_values*Tcontext_dense feature_list_sparse_indices*Nfeature_list_sparse feature_list_sparse_values*feature_list_sparse_types feature_list_sparse_shapes*Nfeature_list_sparse feature_list_dense_values*feature_list_dense_types feature_list_dense_lengths*Nfeature_list_dense",
    ),
    (
        "ParseSequenceExampleV2",
        "context_sparse_indices*Ncontext_sparse context_sparse_values*context_sparse_types context_sparse_shapes*Ncontext_sparse context_dense_values*Tcontext_dense context_ragged_values*context_ragged_value_types context_ragged_row_splits*context_ragged_split_types feature_list_sparse_indices*Nfeature_list_sparse feature_list_sparse_values*feature_list_sparse_types feature_list_sparse_shapes*Nfeature_list_sparse feature_list_dense_values*feature_list_dense_types feature_list_dense_lengths*Nfeature_list_dense feature_list_ragged_values*feature_list_ragged_value_types feature_list_ragged_outer_splits*feature_list_ragged_split_types feature_list_ragged_inner_splits*feature_list_ragged_split_types",
    ),
    (
        "ParseSingleExample",
        "sparse_indices*num_sparse sparse_values*sparse_types sparse_shapes*num_sparse dense_values*Tdense",
    ),
    (
        "ParseSingleSequenceExample",
        "context_sparse_indices*Ncontext_sparse context_sparse_values*context_sparse_types context_sparse_shapes*Ncontext_sparse context_dense_values*Tcontext_dense feature_list_sparse_indices*Nfeature_list_sparse feature_list_sparse_values*feature_list_sparse_types feature_list_sparse_shapes*Nfeature_list_sparse feature_list_dense_values*feature_list_dense_types",
    ),
    ("Qr", "q r"),
    ("RaggedCountSparseOutput", "output_indices output_values output_dense_shape"),
    ("RaggedCross", "output_values output_row_splits"),
    ("RaggedFillEmptyRows", "output_value_rowids output_values empty_row_indicator reverse_index_map"),
    ("RaggedGather", "output_nested_splits*OUTPUT_RAGGED_RANK output_dense_values"),
    ("RaggedRange", "rt_nested_splits rt_dense_values"),
    ("RaggedTensorFromVariant", "output_nested_splits*output_ragged_rank output_dense_values"),
    ("RaggedTensorToSparse", "sparse_indices sparse_values sparse_dense_shape"),
    ("RefMerge", "output value_index"),
    ("RefSwitch", "output_false output_true"),
    ("SelfAdjointEigV2", "e v"),
    ("SoftmaxCrossEntropyWithLogits", "loss backprop"),
    ("SparseAdd", "sum_indices sum_values sum_shape"),
    ("SparseConcat", "output_indices output_values output_shape"),
    ("SparseCountSparseOutput", "output_indices output_values output_dense_shape"),
    ("SparseCross", "output_indices output_values output_shape"),
    ("SparseCrossHashed", "output_indices output_values output_shape"),
    ("SparseCrossV2", "output_indices output_values output_shape"),
    ("SparseFillEmptyRows", "output_indices output_values empty_row_indicator reverse_index_map"),
    ("SparseReorder", "output_indices output_values"),
    ("SparseReshape", "output_indices output_shape"),
    ("SparseSlice", "output_indices output_values output_shape"),
    ("SparseSoftmaxCrossEntropyWithLogits", "loss backprop"),
    ("SparseSparseMaximum", "output_indices output_values"),
    ("SparseSparseMinimum", "output_indices output_values"),
    ("SparseSplit", "output_indices*num_split output_values*num_split output_shape*num_split"),
    ("StatelessRandomGetKeyCounter", "key counter"),
    ("StatelessRandomGetKeyCounterAlg", "key counter alg"),
    ("StringNGrams", "ngrams ngrams_splits"),
    ("StringSplit", "indices values shape"),
    ("StringSplitV2", "indices values shape"),
    ("Svd", "s u v"),
    ("Switch", "output_false output_true"),
    ("TensorArrayConcat", "value lengths"),
    ("TensorArrayConcatV2", "value lengths"),
    ("TensorArrayConcatV3", "value lengths"),
    ("TensorArrayV3", "handle flow"),
    ("TensorListConcat", "tensor lengths"),
    ("TensorListConcatV2", "tensor lengths"),
    ("TensorListPopBack", "output_handle tensor"),
    ("TopK", "values indices"),
    ("TopKV2", "values indices"),
    ("UnicodeDecode", "row_splits char_values"),
    ("UnicodeDecodeWithOffsets", "row_splits char_values char_to_byte_starts"),
    ("Unique", "y idx"),
    ("UniqueV2", "y idx"),
    ("UniqueWithCounts", "y idx count"),
    ("UniqueWithCountsV2", "y idx count"),
    ("_FusedBatchNormEx", "y batch_mean batch_variance reserve_space_1 reserve_space_2 reserve_space_3"),
];

/// Where the outputs of that name begin among all outputs of the node. An operator that is not in the table has one
/// name for all of its outputs.
pub(super) fn first_of(node: &NodeDef, name: &str) -> Option<usize> {
    let Ok(at) = OUTPUTS.binary_search_by_key(&node.op.as_str(), |(op, _)| op) else { return Some(0) };
    let mut first = 0usize;
    for output in OUTPUTS[at].1.split(' ') {
        let (own, count) = output.split_once('*').unwrap_or((output, ""));
        if own == name {
            return Some(first);
        }
        first = first.checked_add(if count.is_empty() { 1 } else { length(node, count)? })?;
    }
    None
}

fn length(node: &NodeDef, attribute: &str) -> Option<usize> {
    let view = View::of(node);
    match view.count(attribute) {
        Ok(count) => Some(count),
        Err(_) => view.dtypes(attribute).ok().map(|types| types.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OUTPUTS.is_sorted_by_key(|(op, _)| *op));
    }

    #[test]
    fn outputs_are_counted_in_order() {
        for (op, name, expected) in [
            ("TopKV2", "values", Some(0)),
            ("TopKV2", "indices", Some(1)),
            ("TopKV2", "nothing", None),
            ("Relu", "activations", Some(0)),
            ("FusedBatchNormV3", "reserve_space_1", Some(3)),
        ] {
            let node = NodeDef { op: op.into(), ..NodeDef::default() };
            assert_eq!(first_of(&node, name), expected, "{op} {name}");
        }
    }
}
