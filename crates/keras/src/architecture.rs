//! The architecture of a model: its JSON, in any of Keras' versions, as layers and the calls between them.

use salver_graph::Error;
use serde_json::{Map, Value};

use crate::config::{Config, Policy};
use crate::legacy;

/// The bound on layers, nested ones included.
const MAX_LAYERS: usize = 100_000;

/// The version of Keras that wrote a file, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keras {
    One,
    Two,
    Three,
}

/// What a model is made of.
#[derive(Debug)]
pub(crate) struct Architecture {
    pub(crate) keras: Keras,
    pub(crate) network: Network,
}

/// A model: layers and how they call each other.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// `Sequential` or `Functional`.
    pub(crate) class: &'static str,
    pub(crate) trainable: bool,
    pub(crate) layers: Vec<Layer>,
    /// Where the inputs of a functional model come in, with their keys where they are given by name.
    pub(crate) inputs: Vec<(Option<String>, TensorRef)>,
    /// What a functional model gives back, with the keys where it gives a dictionary.
    pub(crate) outputs: Vec<(Option<String>, TensorRef)>,
    /// The input shape that a sequential model was built with.
    pub(crate) build_shape: Option<Vec<Option<i64>>>,
}

/// A layer, an operation of Keras 3, or a model used as a layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) class: String,
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) trainable: bool,
    pub(crate) policy: Policy,
    pub(crate) config: Config,
    /// The calls of this layer, in a functional model.
    pub(crate) calls: Vec<Call>,
    /// The model, when this layer is one.
    pub(crate) network: Option<Box<Network>>,
}

/// Arguments of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    pub(crate) args: Vec<Arg>,
    pub(crate) kwargs: Vec<(String, Arg)>,
}

/// One argument.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Tensor(TensorRef),
    List(Vec<Arg>),
    Map(Vec<(String, Arg)>),
    Slice(Box<[Arg; 3]>),
    Json(Value),
}

/// A tensor by what makes it: layer, which of its calls, which of the call's results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorRef {
    pub(crate) layer: String,
    pub(crate) call: usize,
    pub(crate) output: usize,
}

impl Architecture {
    /// Reads the JSON of a model: `model_config`, `config.json` or what `to_json()` gives. `version` is what the file
    /// says of the Keras that wrote it.
    pub(crate) fn read(json: &[u8], version: Option<&str>) -> Result<Architecture, Error> {
        let part = "the model's configuration";
        let value: Value =
            serde_json::from_slice(json).map_err(|error| Error::invalid(error.to_string()).at(part))?;
        let said = version.or_else(|| value.get("keras_version").and_then(Value::as_str));
        let keras = keras_version(said, &value);
        let mut n_layers = 0;
        let network =
            Reader { keras, n_layers: &mut n_layers }.network(&value).map_err(|error| error.at(part))?;
        Ok(Architecture { keras, network })
    }
}

fn keras_version(said: Option<&str>, value: &Value) -> Keras {
    match said.and_then(|text| text.split('.').next()) {
        Some("1") => Keras::One,
        Some("2") => Keras::Two,
        Some(_) => Keras::Three,
        // `to_json` of Keras 3 does not say its version; only Keras 3 names the shape of an input so.
        None if has_key(value, "batch_shape") || has_key(value, "registered_name") => Keras::Three,
        None => Keras::Two,
    }
}

fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(map) => map.contains_key(key) || map.values().any(|value| has_key(value, key)),
        Value::Array(list) => list.iter().any(|value| has_key(value, key)),
        _ => false,
    }
}

struct Reader<'a> {
    keras: Keras,
    n_layers: &'a mut usize,
}

impl Reader<'_> {
    /// Reads a model. Models nest no deeper than the JSON does, which the parser bounds.
    fn network(&mut self, value: &Value) -> Result<Network, Error> {
        let class = text(value, "class_name").unwrap_or_default();
        let config = value.get("config").ok_or_else(|| Error::invalid("no config"))?;
        let functional = config.get("input_layers").is_some() && config.get("output_layers").is_some();
        let trainable = config.get("trainable").and_then(Value::as_bool).unwrap_or(true);
        let known_class = matches!(class, "Sequential" | "Functional" | "Model");
        if !known_class {
            return Err(Error::unsupported(format!(
                "the model is of the class '{class}', which is code and not in the file: export it as a SavedModel \
                 (model.export)"
            )));
        }
        let (name, layers) = match config {
            // Keras 1 and early Keras 2: the configuration of a sequential model is the list of its layers.
            Value::Array(layers) => ("sequential", layers),
            config => {
                let layers = config.get("layers").and_then(Value::as_array);
                let layers = layers.ok_or_else(|| {
                    Error::unsupported(
                        "a subclassed model, whose computation is code and not in the file: export it as a SavedModel \
                         (model.export)",
                    )
                })?;
                (text(config, "name").unwrap_or("model"), layers)
            }
        };
        let mut network = Network {
            name: name.to_owned(),
            class: if functional { "Functional" } else { "Sequential" },
            trainable,
            layers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            build_shape: config
                .get("build_input_shape")
                .or_else(|| value.get("build_config").and_then(|built| built.get("input_shape")))
                .and_then(shape),
        };
        for (at, layer) in layers.iter().enumerate() {
            let read = self.layer(layer, at, functional).map_err(|error| {
                let name = layer_name(layer).unwrap_or("?");
                if error.place().is_some() { error } else { error.at(format!("layer '{name}'")) }
            })?;
            network.layers.push(read);
        }
        if functional {
            network.inputs = references(&config["input_layers"]).map_err(|error| error.at("input_layers"))?;
            network.outputs =
                references(&config["output_layers"]).map_err(|error| error.at("output_layers"))?;
        } else if class != "Sequential" {
            return Err(Error::invalid("a functional model without input_layers and output_layers"));
        }
        Ok(network)
    }

    fn layer(&mut self, value: &Value, at: usize, functional: bool) -> Result<Layer, Error> {
        *self.n_layers += 1;
        if *self.n_layers > MAX_LAYERS {
            return Err(Error::too_large(format!("more than {MAX_LAYERS} layers")));
        }
        let mut layer = self.bare_layer(value)?;
        if layer.name.is_empty() {
            layer.name = format!("{}_{at}", snake_case(&layer.class));
        }
        if functional {
            let nodes = value.get("inbound_nodes").and_then(Value::as_array);
            for node in nodes.into_iter().flatten() {
                layer.calls.push(call(node)?);
            }
        }
        Ok(layer)
    }

    /// A layer without its calls.
    fn bare_layer(&mut self, value: &Value) -> Result<Layer, Error> {
        let class = text(value, "class_name").ok_or_else(|| Error::invalid("a layer without class_name"))?;
        let class = class.rsplit('>').next().unwrap_or(class);
        let name = layer_name(value).unwrap_or_default().to_owned();
        let config = value.get("config").cloned().unwrap_or(Value::Object(Map::new()));
        let is_model = matches!(class, "Sequential" | "Functional" | "Model")
            && (config.is_array() || config.get("layers").is_some());
        let network = if is_model { Some(Box::new(self.network(value)?)) } else { None };
        let mut config = match config {
            Value::Object(map) if !is_model => Config::new(map),
            _ => Config::default(),
        };
        // What a layer was built with says the input shape where nothing else does.
        if let Some(built) = value.get("build_config").and_then(|built| built.get("input_shape")) {
            config.set("__build_shape", built.clone());
        }
        let mut class = class.to_owned();
        legacy::modernise(self.keras, &mut class, &mut config)?;
        let trainable = match &network {
            Some(network) => network.trainable,
            None => config.flag("trainable", true)?,
        };
        let policy = Policy::read(config.json("dtype"))?;
        let module = text(value, "module").unwrap_or_default().to_owned();
        Ok(Layer { class, module, name, trainable, policy, config, calls: Vec::new(), network })
    }
}

/// Reads the layer inside a wrapper's configuration.
pub(crate) fn inner_layer(keras: Keras, config: &Config, key: &str) -> Result<Layer, Error> {
    let value = config.json(key).ok_or_else(|| Error::invalid(format!("a wrapper without {key}")))?;
    layer_from(keras, value)
}

/// Reads a layer that stands alone, inside another's configuration.
pub(crate) fn layer_from(keras: Keras, value: &Value) -> Result<Layer, Error> {
    let mut n_layers = 0;
    Reader { keras, n_layers: &mut n_layers }.bare_layer(value)
}

fn layer_name(value: &Value) -> Option<&str> {
    text(value, "name").or_else(|| value.get("config").and_then(|config| text(config, "name")))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// `[null, 3]` as dimensions; `None` when it is something else.
pub(crate) fn shape(value: &Value) -> Option<Vec<Option<i64>>> {
    let list = crate::config::plain(value).as_array()?;
    list.iter()
        .map(|dim| match dim {
            Value::Null => Some(None),
            dim => crate::config::int(dim).map(Some),
        })
        .collect()
}

fn index(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|index| usize::try_from(index).ok())
}

fn tensor_ref(list: &[Value]) -> Option<TensorRef> {
    let [layer, call, output, ..] = list else { return None };
    Some(TensorRef { layer: layer.as_str()?.to_owned(), call: index(call)?, output: index(output)? })
}

/// Inputs or outputs of a model: one reference, or lists or dictionaries of them. Dictionaries are in the order of
/// their keys, as Keras flattens them.
fn references(value: &Value) -> Result<Vec<(Option<String>, TensorRef)>, Error> {
    let mut found = Vec::new();
    collect_references(value, None, &mut found)?;
    Ok(found)
}

fn collect_references(
    value: &Value,
    key: Option<&str>,
    found: &mut Vec<(Option<String>, TensorRef)>,
) -> Result<(), Error> {
    match value {
        Value::Array(list) => match tensor_ref(list).filter(|_| list.len() == 3) {
            Some(tensor) => found.push((key.map(str::to_owned), tensor)),
            None => list.iter().try_for_each(|item| collect_references(item, key, found))?,
        },
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().try_for_each(|(key, item)| collect_references(item, Some(key), found))?;
        }
        other => return Err(Error::invalid(format!("{other}, expected [layer, call, output]"))),
    }
    Ok(())
}

fn call(node: &Value) -> Result<Call, Error> {
    match node {
        Value::Object(map) if map.contains_key("args") => {
            let args = map.get("args").and_then(Value::as_array);
            let args = args.into_iter().flatten().map(modern_arg).collect::<Result<_, _>>()?;
            let kwargs = map.get("kwargs").and_then(Value::as_object);
            let kwargs = kwargs.into_iter().flatten();
            let kwargs = kwargs.map(|(key, value)| Ok((key.clone(), modern_arg(value)?)));
            Ok(Call { args, kwargs: kwargs.collect::<Result<_, Error>>()? })
        }
        Value::Array(list) => legacy_call(list),
        Value::Object(map) => {
            // tf.keras: a dictionary of inputs.
            let mut entries = Vec::new();
            for (key, value) in map {
                let reference = value.as_array().and_then(|list| tensor_ref(list));
                let reference =
                    reference.ok_or_else(|| Error::invalid("an inbound node that is not understood"))?;
                entries.push((key.clone(), Arg::Tensor(reference)));
            }
            Ok(Call { args: vec![Arg::Map(entries)], kwargs: Vec::new() })
        }
        other => Err(Error::invalid(format!("an inbound node is {other}, expected a list or an object"))),
    }
}

/// An argument as Keras 3 writes it. Depth is bounded by the parser.
fn modern_arg(value: &Value) -> Result<Arg, Error> {
    Ok(match value {
        Value::Array(list) => Arg::List(list.iter().map(modern_arg).collect::<Result<_, _>>()?),
        Value::Object(map) => match map.get("class_name").and_then(Value::as_str) {
            Some("__keras_tensor__") => {
                let history = value["config"]["keras_history"].as_array();
                let tensor = history.and_then(|list| tensor_ref(list));
                Arg::Tensor(tensor.ok_or_else(|| Error::invalid("a tensor without keras_history"))?)
            }
            Some("__slice__") => {
                let part = |key: &str| modern_arg(&value["config"][key]);
                Arg::Slice(Box::new([part("start")?, part("stop")?, part("step")?]))
            }
            Some("__ellipsis__") => Arg::Json(Value::String("...".into())),
            Some(_) => Arg::Json(value.clone()),
            None => {
                let entries = map.iter().map(|(key, value)| Ok((key.clone(), modern_arg(value)?)));
                Arg::Map(entries.collect::<Result<_, Error>>()?)
            }
        },
        other => Arg::Json(other.clone()),
    })
}

/// A node as Keras 1 and 2 write it: `[[layer, call, output, kwargs], ...]`, or a single such entry.
fn legacy_call(list: &[Value]) -> Result<Call, Error> {
    if tensor_ref(list).is_some() || list.first().and_then(Value::as_str) == Some("_CONSTANT_VALUE") {
        return legacy_call(&[Value::Array(list.to_vec())]);
    }
    let mut inputs = Vec::new();
    let mut kwargs = Vec::new();
    for entry in list {
        match entry {
            Value::Array(parts) if parts.first().and_then(Value::as_str) == Some("_CONSTANT_VALUE") => {
                inputs.push(Arg::Json(parts.get(2).cloned().unwrap_or(Value::Null)));
            }
            Value::Array(parts) => {
                let tensor = tensor_ref(parts);
                inputs.push(Arg::Tensor(
                    tensor.ok_or_else(|| Error::invalid("an inbound node that is not understood"))?,
                ));
            }
            other => return Err(Error::invalid(format!("an inbound node is {other}, expected a list"))),
        }
        let named = entry.get(3).and_then(Value::as_object);
        for (key, value) in named.into_iter().flatten() {
            if !kwargs.iter().any(|(known, _)| known == key) {
                kwargs.push((key.clone(), legacy_kwarg(value)?));
            }
        }
    }
    let args = if inputs.len() == 1 { inputs } else { vec![Arg::List(inputs)] };
    Ok(Call { args, kwargs })
}

/// An argument by name as Keras 2 writes it: `["layer", 0, 0]` is a tensor.
fn legacy_kwarg(value: &Value) -> Result<Arg, Error> {
    Ok(match value {
        Value::Array(list) => match tensor_ref(list).filter(|_| list.len() >= 3 && list[0].is_string()) {
            Some(tensor) => Arg::Tensor(tensor),
            None if list.first().and_then(Value::as_str) == Some("_CONSTANT_VALUE") => {
                Arg::Json(list.get(2).cloned().unwrap_or(Value::Null))
            }
            None => Arg::List(list.iter().map(legacy_kwarg).collect::<Result<_, _>>()?),
        },
        Value::Object(map) if !map.contains_key("class_name") => {
            let entry = |key: &str| map.get(key).map_or(Ok(Arg::Json(Value::Null)), legacy_kwarg);
            // The shape of a slice in tf.keras' SlicingOpLambda.
            if map.len() == 3 && ["start", "stop", "step"].iter().all(|key| map.contains_key(*key)) {
                Arg::Slice(Box::new([entry("start")?, entry("stop")?, entry("step")?]))
            } else {
                let entries = map.iter().map(|(key, value)| Ok((key.clone(), legacy_kwarg(value)?)));
                Arg::Map(entries.collect::<Result<_, Error>>()?)
            }
        }
        other => modern_arg(other)?,
    })
}

/// The name that Keras gives to a class: `MaxPooling2D` becomes `max_pooling2d`.
pub(crate) fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut first = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let starts_word = c.is_ascii_uppercase() && chars.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if at > 0 && starts_word && !first.ends_with('_') {
            first.push('_');
        }
        first.push(c);
    }
    let mut name = String::new();
    let mut before = '_';
    for c in first.chars() {
        if before.is_ascii_lowercase() && c.is_ascii_uppercase() {
            name.push('_');
        }
        before = c;
        name.extend(c.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_become_names() {
        let cases = [
            ("Dense", "dense"),
            ("Conv2D", "conv2d"),
            ("MaxPooling2D", "max_pooling2d"),
            ("SimpleRNN", "simple_rnn"),
            ("GRUCell", "gru_cell"),
            ("LSTM", "lstm"),
            ("ConvLSTM2D", "conv_lstm2d"),
            ("BatchNormalization", "batch_normalization"),
            ("LeakyReLU", "leaky_re_lu"),
            ("PReLU", "p_re_lu"),
            ("StackedRNNCells", "stacked_rnn_cells"),
            ("TextVectorization", "text_vectorization"),
            ("Conv2DTranspose", "conv2d_transpose"),
        ];
        for (class, name) in cases {
            assert_eq!(snake_case(class), name);
        }
    }
}
