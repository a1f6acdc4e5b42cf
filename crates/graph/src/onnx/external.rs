//! Weights in a file beside the model.

use bytes::Bytes;

use super::proto::tensor_proto::DataLocation;
use super::proto::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};

/// Tensors below this many bytes stay in the model, where shapes can be inferred from them.
const MIN_BYTES: usize = 1024;

/// Where large tensors start, so that they can be mapped into memory.
const PAGE: usize = 4096;

/// Where the others start.
const LINE: usize = 64;

/// The content of a file of weights, in pieces that share the tensors' memory.
#[derive(Debug, Clone, Default)]
pub struct ExternalData {
    /// The name that the model knows the file by.
    pub file_name: String,
    pieces: Vec<Bytes>,
    n_bytes: usize,
}

impl ExternalData {
    /// The pieces in order, padding included.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// The size of the file.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn push(&mut self, bytes: Bytes) -> usize {
        let align = if bytes.len() >= PAGE { PAGE } else { LINE };
        let padding = self.n_bytes.next_multiple_of(align) - self.n_bytes;
        if padding > 0 {
            self.pieces.push(Bytes::from(vec![0; padding]));
        }
        let start = self.n_bytes + padding;
        self.n_bytes = start + bytes.len();
        self.pieces.push(bytes);
        start
    }
}

/// Moves the raw elements of large constants out of the model, into a file beside it of that name.
pub fn externalise(model: &mut ModelProto, file_name: &str) -> ExternalData {
    let mut data = ExternalData { file_name: file_name.to_owned(), ..ExternalData::default() };
    if let Some(graph) = &mut model.graph {
        move_graph(graph, &mut data);
    }
    data
}

fn move_graph(graph: &mut GraphProto, data: &mut ExternalData) {
    for tensor in &mut graph.initializer {
        if tensor.raw_data.as_ref().is_some_and(|raw| raw.len() >= MIN_BYTES) {
            move_tensor(tensor, data);
        }
    }
    for attr in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attr.g.iter_mut().chain(&mut attr.graphs).for_each(|inner| move_graph(inner, data));
    }
}

fn move_tensor(tensor: &mut TensorProto, data: &mut ExternalData) {
    let Some(raw) = tensor.raw_data.take() else { return };
    let length = raw.len();
    let offset = data.push(raw);
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", data.file_name.clone()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
    tensor.data_location = Some(DataLocation::External.into());
}
