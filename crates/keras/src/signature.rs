//! The one signature of a Keras model: its inputs and outputs with the names that clients know.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use salver_graph::{Dim, Error, Model, Port, SignatureGraph, State, ValueId};
use salver_tensor::{DEFAULT_SIGNATURE, DType, Dims};

use crate::architecture::{Architecture, Layer, Network, shape};
use crate::config::{MAX_SIZE, Policy};
use crate::emit::Emit;
use crate::network::{self, Inputs, Value};
use crate::store::Store;
use crate::weights::{self, network_slots};

/// An input before it is in the graph.
struct Input {
    name: String,
    dtype: DType,
    dims: Vec<Option<i64>>,
}

pub(crate) fn import(
    model: &Architecture,
    store: Option<&Store>,
    assets: BTreeMap<String, Bytes>,
) -> Result<Model, Error> {
    let network = &model.network;
    let slots = network_slots(model.keras, network)?;
    let weights = weights::load(store, model.keras, network, &slots)?;
    let inputs =
        if network.class == "Sequential" { sequential_input(network)? } else { functional_inputs(network)? };
    let mut cx = Emit::new(model.keras, assets);
    let mut ports = Vec::new();
    let mut values = Vec::new();
    for input in inputs {
        let dims = input_dims(&input)?;
        let id = cx.b.input(&input.name, input.dtype, Some(dims.clone()));
        values.push(Value::from(id));
        ports.push(port(&input.name, &input.name, id, input.dtype, Some(&dims)));
    }
    let results = network::call(&mut cx, network, &weights, &Inputs::of(&values))?;
    let names = output_names(network, &results);
    let mut outputs = Vec::new();
    for ((name, policy), (_, value)) in names.into_iter().zip(&results) {
        let mut id = value.id;
        // Keras gives what the last layer's policy says.
        if let Some(policy) = policy
            && policy.declared != policy.compute
            && cx.b.dtype(id) == policy.compute
            && matches!(policy.declared, DType::F16 | DType::BF16)
        {
            id = cx.cast(id, policy.declared)?;
            let note = format!(
                "layers of {} are computed in {}, their results rounded at the outputs",
                policy.declared, policy.compute
            );
            if !cx.notes.contains(&note) {
                cx.notes.push(note);
            }
        }
        let dims = cx.b.dims(id).map(<[Dim]>::to_vec);
        outputs.push(port(&name, &name, id, cx.b.dtype(id), dims.as_deref()));
    }
    let notes = std::mem::take(&mut cx.notes);
    let kept = std::mem::take(&mut cx.kept);
    let named = outputs.iter().map(|port| (port.name.as_str(), port.value));
    let named: Vec<(&str, ValueId)> =
        named.chain(kept.iter().map(|kept| (kept.name.as_str(), kept.after))).collect();
    let graph = cx.b.finish(&named)?;
    let signature = SignatureGraph {
        name: DEFAULT_SIGNATURE.to_owned(),
        method_name: "tensorflow/serving/predict".to_owned(),
        inputs: ports,
        outputs,
        graph,
        state_inputs: kept.iter().enumerate().map(|(at, kept)| (at, kept.before)).collect(),
        state_outputs: kept.iter().enumerate().map(|(at, kept)| (at, kept.after)).collect(),
    };
    let state = kept.into_iter().map(|kept| State { name: kept.name, initial: kept.initial }).collect();
    Ok(Model { signatures: vec![signature], state, notes, ..Model::default() })
}

fn port(name: &str, tensor: &str, value: ValueId, dtype: DType, dims: Option<&[Dim]>) -> Port {
    let dims = dims.map_or_else(Dims::unknown, |dims| Dims::new(dims.iter().map(Dim::fixed).collect()));
    Port { name: name.to_owned(), tensor_name: format!("{tensor}:0"), value, dtype, dims, default: None }
}

/// The batch has a name; other open dimensions have none.
fn input_dims(input: &Input) -> Result<Vec<Dim>, Error> {
    let mut dims = Vec::new();
    for (at, dim) in input.dims.iter().enumerate() {
        dims.push(match dim {
            None if at == 0 => Dim::symbol("batch"),
            None => Dim::Unknown,
            Some(size) => {
                let size = usize::try_from(*size).ok().filter(|&size| size as i64 <= MAX_SIZE);
                Dim::Fixed(size.ok_or_else(|| {
                    Error::too_large(format!(
                        "dimension {dim:?} of input '{}', expected at most {MAX_SIZE}",
                        input.name
                    ))
                })?)
            }
        });
    }
    let known: Vec<usize> = dims.iter().filter_map(Dim::fixed).collect();
    salver_tensor::Shape::new(&known)
        .map_err(|error| Error::too_large(error.to_string()).at(format!("input '{}'", input.name)))?;
    Ok(dims)
}

/// What an input layer or a first layer says of its input: the shape with the batch.
fn declared_shape(layer: &Layer) -> Option<Vec<Option<i64>>> {
    let c = &layer.config;
    for key in ["batch_shape", "batch_input_shape"] {
        if let Some(dims) = c.json(key).and_then(shape) {
            return Some(dims);
        }
    }
    for key in ["input_shape", "shape"] {
        if let Some(dims) = c.json(key).and_then(shape) {
            return Some(std::iter::once(None).chain(dims).collect());
        }
    }
    None
}

fn input_dtype(layer: &Layer) -> Result<DType, Error> {
    // Keras 1 and 2 may say the type of the input apart from the layer's.
    match layer.config.opt_text("input_dtype")? {
        Some(name) => crate::config::dtype_named(name),
        None if layer.class == "Embedding" => Ok(DType::F32),
        None => Ok(layer.policy.declared),
    }
}

fn functional_inputs(network: &Network) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    for (_, tensor) in &network.inputs {
        let layer = network.layers.iter().find(|layer| layer.name == tensor.layer);
        let layer =
            layer.ok_or_else(|| Error::invalid(format!("there is no input layer '{}'", tensor.layer)))?;
        let dims = declared_shape(layer);
        let dims =
            dims.ok_or_else(|| Error::invalid("no shape").at(format!("input layer '{}'", layer.name)))?;
        if layer.config.flag("sparse", false)? || layer.config.flag("ragged", false)? {
            return Err(
                Error::unsupported("a sparse or ragged input").at(format!("input layer '{}'", layer.name))
            );
        }
        inputs.push(Input { name: layer.name.clone(), dtype: layer.policy.declared, dims });
    }
    Ok(inputs)
}

fn sequential_input(network: &Network) -> Result<Vec<Input>, Error> {
    let first = network.layers.first().ok_or_else(|| Error::invalid("a model without layers"))?;
    let unknown = || {
        Error::invalid("the shape of the input is not in the file: save the model after it was built or used")
    };
    if first.class == "InputLayer" {
        let dims = declared_shape(first).ok_or_else(unknown)?;
        return Ok(vec![Input { name: first.name.clone(), dtype: input_dtype(first)?, dims }]);
    }
    let name = format!("{}_input", first.name);
    if let Some(inner) = &first.network {
        let mut inputs =
            if inner.class == "Sequential" { sequential_input(inner)? } else { functional_inputs(inner)? };
        if let [input] = &mut inputs[..] {
            input.name = name;
        }
        return Ok(inputs);
    }
    let mut dims = declared_shape(first).or_else(|| network.build_shape.clone());
    if dims.is_none() {
        let c = &first.config;
        // Keras 1.
        let length = c.opt_int("input_length")?;
        dims = match (c.opt_int("input_dim")?, first.class.as_str()) {
            (_, "Embedding") => Some(vec![None, length]),
            (Some(size), "SimpleRNN" | "GRU" | "LSTM" | "Conv1D") => Some(vec![None, length, Some(size)]),
            (Some(size), _) => Some(vec![None, Some(size)]),
            (None, _) => c.json("__build_shape").and_then(shape),
        };
    }
    Ok(vec![Input { name, dtype: input_dtype(first)?, dims: dims.ok_or_else(unknown)? }])
}

/// The names of the outputs: their keys, or the layers that make them, numbered where one makes several.
fn output_names(network: &Network, results: &[(Option<String>, Value)]) -> Vec<(String, Option<Policy>)> {
    let mut used = HashSet::new();
    let mut names = Vec::new();
    for (at, (key, _)) in results.iter().enumerate() {
        let layer = if network.class == "Sequential" {
            network.layers.last()
        } else {
            let made_by = network.outputs.get(at).map(|(_, tensor)| tensor.layer.as_str());
            network.layers.iter().find(|layer| Some(layer.name.as_str()) == made_by)
        };
        let base = key
            .clone()
            .or_else(|| layer.map(|layer| layer.name.clone()))
            .unwrap_or_else(|| "output".to_owned());
        let mut name = base.clone();
        let mut number = 0;
        while !used.insert(name.clone()) {
            number += 1;
            name = format!("{base}_{number}");
        }
        let policy = layer.and_then(last_policy);
        names.push((name, policy));
    }
    names
}

/// The policy of the layer that makes the result: of a model, that of its last layer.
fn last_policy(layer: &Layer) -> Option<Policy> {
    let mut layer = layer;
    while let Some(network) = &layer.network {
        layer = match network.outputs.as_slice() {
            [(_, tensor)] => network.layers.iter().find(|inner| inner.name == tensor.layer)?,
            _ => network.layers.last()?,
        };
    }
    Some(layer.policy)
}
