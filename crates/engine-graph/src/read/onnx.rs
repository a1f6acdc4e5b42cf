//! ONNX files, with weights that lie beside them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path};

use bytes::Bytes;
use salver_engine::Error;
use salver_graph::{Model, Port, SignatureGraph, ValueId, onnx};

use super::folder;
use crate::engine_error;

/// The graph of an ONNX file as the one signature that it is. Each file of weights is read once.
pub(super) fn read(path: &Path) -> Result<Model, Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let files: RefCell<HashMap<String, Bytes>> = RefCell::default();
    let beside = |name: &str, start: usize, length: Option<usize>| {
        let refuse = |why: String| salver_graph::Error::invalid(format!("weights in file '{name}': {why}"));
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside {
            return Err(refuse("it does not lie beside the model".to_owned()));
        }
        let known = files.borrow().get(name).cloned();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = folder::read(&folder.join(name)).map_err(|error| refuse(error.to_string()))?;
                files.borrow_mut().insert(name.to_owned(), bytes.clone());
                bytes
            }
        };
        let end = length.map_or(Some(bytes.len()), |length| start.checked_add(length));
        match end {
            Some(end) if start <= end && end <= bytes.len() => Ok(bytes.slice(start..end)),
            _ => Err(refuse(format!("it has {} bytes, fewer than the model says", bytes.len()))),
        }
    };
    let proto = onnx::decode(folder::read(path)?).map_err(|error| engine_error(&error))?;
    let graph = onnx::graph(&proto, &beside).map_err(|error| engine_error(&error))?;
    let port = |name: &str, value: ValueId| Port {
        name: name.to_owned(),
        tensor_name: name.to_owned(),
        value,
        dtype: graph.value(value).dtype,
        dims: salver_graph::signature_dims(graph.value(value).dims.as_deref()),
        default: None,
    };
    let inputs = graph.inputs().iter().map(|&id| port(&graph.value(id).name, id)).collect();
    let outputs = graph.outputs().map(|(name, id)| port(name, id)).collect();
    let signature = SignatureGraph {
        name: salver_engine::DEFAULT_SIGNATURE.to_owned(),
        method_name: "tensorflow/serving/predict".to_owned(),
        inputs,
        outputs,
        graph,
        state_inputs: Vec::new(),
        state_outputs: Vec::new(),
    };
    Ok(Model { signatures: vec![signature], ..Model::default() })
}
