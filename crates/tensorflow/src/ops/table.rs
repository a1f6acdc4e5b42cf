//! Which operators there are.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::context::{Context, Outputs};
use super::{conv, elementwise, image, index, matrix, norm, pool, reduce, shape, slice, text};

/// One operator.
pub(super) struct Entry {
    /// TensorFlow's name.
    pub(super) op: &'static str,
    /// What it is made of here, or what is not supported, for people; may be empty.
    pub(super) note: &'static str,
    /// Adds it to the graph.
    pub(super) map: fn(&mut Context<'_>) -> Outputs,
}

/// An entry without a note.
pub(super) const fn plain(op: &'static str, map: fn(&mut Context<'_>) -> Outputs) -> Entry {
    Entry { op, note: "", map }
}

/// An entry with a note.
pub(super) const fn noted(
    op: &'static str,
    note: &'static str,
    map: fn(&mut Context<'_>) -> Outputs,
) -> Entry {
    Entry { op, note, map }
}

const FAMILIES: &[(&str, &[Entry])] = &[
    ("Element by element", elementwise::OPS),
    ("Reductions", reduce::OPS),
    ("Shapes", shape::OPS),
    ("Slices and padding", slice::OPS),
    ("Positions", index::OPS),
    ("Matrices", matrix::OPS),
    ("Convolutions", conv::OPS),
    ("Pooling", pool::OPS),
    ("Normalisation", norm::OPS),
    ("Images and quantisation", image::OPS),
    ("Strings, sparse and ragged tensors, tf.Example", text::OPS),
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static Entry>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|(_, ops)| *ops).map(|entry| (entry.op, entry)).collect());

pub(super) fn find(op: &str) -> Option<&'static Entry> {
    BY_NAME.get(op).copied()
}

/// All entries.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static Entry> {
    FAMILIES.iter().flat_map(|(_, ops)| *ops)
}

/// Whether [`map`](super::map) knows an operator.
pub fn is_known(op: &str) -> bool {
    find(op).is_some()
}

/// Operators that are not functions of tensors; the importer has them. For the documentation only.
const STRUCTURE: &[(&str, &str)] = &[
    ("Inputs and outputs", "Placeholder, PlaceholderV2, PlaceholderWithDefault, _Arg, _Retval"),
    (
        "Without effect on results",
        "NoOp, ControlTrigger, Assert, Print, PrintV2: left out; a request that an Assert would refuse gets an answer",
    ),
    (
        "Variables",
        "Variable, VariableV2, VarHandleOp, ReadVariableOp, IsVariableInitialized, VarIsInitializedOp, Assign, AssignAdd, \
         AssignSub, AssignVariableOp, AssignAddVariableOp, AssignSubVariableOp, RestoreV2",
    ),
    (
        "Functions and control flow",
        "PartitionedCall, StatefulPartitionedCall and calls by name; If, StatelessIf, Case, StatelessCase, While, \
         StatelessWhile; Enter, Exit, Switch, Merge, NextIteration, LoopCond",
    ),
    (
        "Lists and arrays",
        "TensorListReserve, EmptyTensorList, TensorListFromTensor, TensorListStack, TensorListGetItem, TensorListSetItem, \
         TensorListPushBack, TensorListPopBack, TensorListLength, TensorListElementShape, TensorListGather, \
         TensorListScatter, TensorListConcat, TensorListSplit, TensorListResize; TensorArrayV3 with its Read, Write, Gather, \
         Scatter, Concat, Split, Size and Close",
    ),
    (
        "Lookup tables",
        "HashTable, HashTableV2, MutableHashTable as far as it is not changed, InitializeTable, \
         InitializeTableFromTextFile, LookupTableImport, LookupTableFind, LookupTableSize, LookupTableExport",
    ),
];

/// The page of the documentation that lists the operators, in Markdown.
pub fn documentation() -> String {
    let n_ops: usize = FAMILIES.iter().map(|(_, ops)| ops.len()).sum();
    let mut text = String::from(
        "# TensorFlow operators\n\n\
         The TensorFlow operators that Salver imports, from SavedModels and frozen graphs. A model with others is refused \
         when it is loaded, with all operators that are missing; a signature that does not need them is served all the \
         same. Random numbers, decoding of images and training are not here: they need TensorFlow itself.\n\n\
         This page is written by `cargo run -p salver-tensorflow --example operators`.\n\n\
         ## Structure\n\n| kind | operators |\n|---|---|\n",
    );
    for (kind, ops) in STRUCTURE {
        text.push_str(&format!("| {kind} | {ops} |\n"));
    }
    text.push_str(&format!("\nThe {n_ops} operators that are functions of tensors follow.\n"));
    for (family, ops) in FAMILIES {
        text.push_str(&format!("\n## {family}\n\n| operator | remarks |\n|---|---|\n"));
        let mut ops: Vec<&Entry> = ops.iter().collect();
        ops.sort_by_key(|entry| entry.op);
        for Entry { op, note, .. } in ops {
            text.push_str(&format!("| {op} | {note} |\n"));
        }
    }
    text
}
