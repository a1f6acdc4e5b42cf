//! SavedModel and GraphDef, binary and text.

use bytes::Bytes;
use prost::Message;

use super::{Files, text};
use crate::Error;
use crate::proto::{GraphDef, MetaGraphDef, SavedModel};

/// Longer binary files are refused; protobuf has the same bound.
pub const MAX_BYTES: usize = (1 << 31) - 1;

/// The usual name of a SavedModel's main file.
pub const SAVED_MODEL_PB: &str = "saved_model.pb";

/// Its name in text form.
pub const SAVED_MODEL_PBTXT: &str = "saved_model.pbtxt";

/// The tag of a graph that is made for serving.
pub const SERVE: &str = "serve";

/// Reads the main file of a SavedModel: `saved_model.pb`, or else `saved_model.pbtxt`. Blocks.
///
/// # Errors
/// When there is neither, the file cannot be read, or it is not a SavedModel; the place is the file.
pub fn saved_model(files: &dyn Files) -> Result<SavedModel, Error> {
    for name in [SAVED_MODEL_PB, SAVED_MODEL_PBTXT] {
        if let Some(bytes) = files.read(name)? {
            return saved_model_bytes(name, bytes);
        }
    }
    Err(Error::invalid(format!("there is neither {SAVED_MODEL_PB} nor {SAVED_MODEL_PBTXT}")))
}

/// Reads a SavedModel from the bytes of a file, binary or text by what they look like. `name` is for messages.
///
/// # Errors
/// When the bytes are not a SavedModel, or hold no graph.
pub fn saved_model_bytes(name: &str, bytes: Bytes) -> Result<SavedModel, Error> {
    let model: SavedModel = message(name, bytes, "tensorflow.SavedModel")?;
    // The schema's version has been 1 since the format exists.
    if !matches!(model.saved_model_schema_version, 0 | 1) {
        let version = model.saved_model_schema_version;
        return Err(Error::unsupported(format!("SavedModel schema version {version}, expected 1")).at(name));
    }
    if model.meta_graphs.is_empty() {
        return Err(Error::invalid("the SavedModel holds no graph; the file may be cut off").at(name));
    }
    Ok(model)
}

/// The graph that has exactly these tags, as TensorFlow chooses it.
///
/// # Errors
/// When there is none; the message lists the tags that are there.
pub fn meta_graph(model: SavedModel, tags: &[&str]) -> Result<MetaGraphDef, Error> {
    let mut wanted = tags.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut there = Vec::new();
    for graph in model.meta_graphs {
        let mut own: Vec<&str> =
            graph.meta_info_def.iter().flat_map(|info| &info.tags).map(String::as_str).collect();
        own.sort_unstable();
        own.dedup();
        if own == wanted {
            return Ok(graph);
        }
        there.push(format!("[{}]", own.join(", ")));
    }
    let message =
        format!("no graph with the tags [{}]; there are graphs with {}", wanted.join(", "), there.join(", "));
    Err(Error::invalid(message))
}

/// Reads a frozen graph from the bytes of a file, binary or text by what they look like. `name` is for messages.
///
/// A binary file that ends between two nodes cannot be told from a smaller graph; a node whose input is missing is
/// refused.
///
/// # Errors
/// When the bytes are not a GraphDef, or it has no nodes or loose ends.
pub fn graph_def(name: &str, bytes: Bytes) -> Result<GraphDef, Error> {
    let graph: GraphDef = message(name, bytes, "tensorflow.GraphDef")?;
    if graph.node.is_empty() {
        return Err(
            Error::invalid("the graph has no nodes; the file may be cut off or hold something else").at(name)
        );
    }
    let names: std::collections::HashSet<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
    for node in &graph.node {
        for input in &node.input {
            let source = input.strip_prefix('^').unwrap_or(input);
            let source = source.split_once(':').map_or(source, |(source, _)| source);
            if !names.contains(source) {
                let message = format!("there is no node '{source}', an input of node '{}'", node.name);
                return Err(Error::invalid(message).at(name));
            }
        }
    }
    Ok(graph)
}

fn message<M: Message + Default>(name: &str, bytes: Bytes, full_name: &str) -> Result<M, Error> {
    if bytes.len() > MAX_BYTES {
        let message = format!("{} bytes, at most {MAX_BYTES} are allowed", bytes.len());
        return Err(Error::too_large(message).at(name));
    }
    if text::looks_like_text(&bytes) {
        return text::parse(&bytes, full_name).map_err(|error| error.at(name));
    }
    let short = full_name.rsplit('.').next().unwrap_or(full_name);
    M::decode(bytes)
        .map_err(|error| Error::invalid(format!("not a {short}, or cut off or damaged: {error}")).at(name))
}

#[cfg(test)]
mod tests;
