//! Calling a model: its layers, in the order in which their results are needed.

use std::collections::{HashMap, HashSet};

use salver_graph::{Error, ValueId};
use salver_tensor::DType;
use serde_json::Value as Json;

use crate::architecture::{Arg, Call, Keras, Layer, Network, TensorRef};
use crate::emit::Emit;
use crate::layers;
use crate::weights::Weights;

/// The bound on calls of layers: models that call models that call models twice would grow without end.
const MAX_CALLS: usize = 200_000;

/// A tensor, and which of its steps count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) id: ValueId,
    pub(crate) mask: Option<ValueId>,
}

impl From<ValueId> for Value {
    fn from(id: ValueId) -> Value {
        Value { id, mask: None }
    }
}

/// One argument of a call.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Tensor(Value),
    List(Vec<Given>),
    Map(Vec<(String, Given)>),
    Slice(Box<[Given; 3]>),
    Json(Json),
}

impl Given {
    /// All tensors in it, in order.
    pub(crate) fn tensors(&self) -> Vec<Value> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect(&self, found: &mut Vec<Value>) {
        match self {
            Given::Tensor(value) => found.push(*value),
            Given::List(list) => list.iter().for_each(|item| item.collect(found)),
            Given::Map(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.into_iter().for_each(|(_, item)| item.collect(found));
            }
            Given::Slice(parts) => parts.iter().for_each(|item| item.collect(found)),
            Given::Json(_) => {}
        }
    }

    /// Takes the masks off tensors that have lost them.
    fn forget_masks(&mut self, unmasked: &HashSet<ValueId>) {
        match self {
            Given::Tensor(value) if unmasked.contains(&value.id) => value.mask = None,
            Given::Tensor(_) | Given::Json(_) | Given::Slice(_) => {}
            Given::List(list) => list.iter_mut().for_each(|item| item.forget_masks(unmasked)),
            Given::Map(map) => map.iter_mut().for_each(|(_, item)| item.forget_masks(unmasked)),
        }
    }

    pub(crate) fn tensor(&self) -> Option<Value> {
        match self {
            Given::Tensor(value) => Some(*value),
            Given::List(list) if list.len() == 1 => list[0].tensor(),
            _ => None,
        }
    }

    pub(crate) fn json(&self) -> Option<Json> {
        match self {
            Given::Json(Json::Null) => None,
            Given::Json(json) => Some(json.clone()),
            Given::List(list) => list
                .iter()
                .map(|item| match item {
                    Given::Json(json) => Some(json.clone()),
                    other => other.json(),
                })
                .collect::<Option<Vec<_>>>()
                .map(Json::Array),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Given::Json(Json::Null))
    }
}

/// The arguments of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) args: Vec<Given>,
    pub(crate) kwargs: Vec<(String, Given)>,
}

impl Inputs {
    pub(crate) fn of(values: &[Value]) -> Inputs {
        let mut list: Vec<Given> = values.iter().copied().map(Given::Tensor).collect();
        let first = if list.len() == 1 { list.remove(0) } else { Given::List(list) };
        Inputs { args: vec![first], kwargs: Vec::new() }
    }

    /// The tensors of the first argument.
    pub(crate) fn values(&self) -> Vec<Value> {
        match self.args.first() {
            Some(first) => first.tensors(),
            // Keras 3 may name the first argument.
            None => self
                .kwargs
                .iter()
                .filter(|(key, _)| key != "mask")
                .flat_map(|(_, given)| given.tensors())
                .collect(),
        }
    }

    /// The one tensor of the first argument.
    pub(crate) fn one(&self) -> Result<Value, Error> {
        match self.values()[..] {
            [one] => Ok(one),
            ref many => Err(Error::invalid(format!("called with {} tensors, expected 1", many.len()))),
        }
    }

    /// An argument by position or by name; what is `null` is not there.
    pub(crate) fn arg(&self, at: usize, name: &str) -> Option<&Given> {
        let named = || self.kwargs.iter().find(|(key, _)| key == name).map(|(_, given)| given);
        self.args.get(at).or_else(named).filter(|given| !given.is_null())
    }

    pub(crate) fn kwarg(&self, name: &str) -> Option<&Given> {
        self.arg(usize::MAX, name)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.kwarg(name), Some(Given::Json(Json::Bool(true))))
    }

    /// The masks of the tensors of the first argument: those given by name, else those that the tensors carry.
    pub(crate) fn masks(&self) -> Vec<Option<ValueId>> {
        let values = self.values();
        match self.kwarg("mask") {
            Some(Given::List(list)) => {
                let given = list.iter().map(|item| item.tensor().map(|value| value.id));
                values.iter().zip(given.chain(std::iter::repeat(None))).map(|(_, mask)| mask).collect()
            }
            Some(given) if given.tensor().is_some() => {
                let mask = given.tensor().map(|value| value.id);
                values.iter().map(|_| mask).collect()
            }
            _ => values.iter().map(|value| value.mask).collect(),
        }
    }

    pub(crate) fn mask(&self) -> Option<ValueId> {
        self.masks().first().copied().flatten()
    }
}

/// Calls a model; gives its results with their keys, where it gives a dictionary.
pub(crate) fn call(
    cx: &mut Emit,
    network: &Network,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<(Option<String>, Value)>, Error> {
    if network.class == "Sequential" {
        return sequential(cx, network, weights, inputs);
    }
    Functional::new(cx.keras, network, inputs)?.run(cx, weights)
}

fn sequential(
    cx: &mut Emit,
    network: &Network,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<(Option<String>, Value)>, Error> {
    let mut current = inputs.values();
    for layer in network.layers.iter().filter(|layer| layer.class != "InputLayer") {
        current = one_call(cx, layer, weights.child(&layer.name)?, Inputs::of(&current))?;
    }
    Ok(current.into_iter().map(|value| (None, value)).collect())
}

fn one_call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    mut inputs: Inputs,
) -> Result<Vec<Value>, Error> {
    inputs.args.iter_mut().for_each(|given| given.forget_masks(&cx.unmasked));
    inputs.kwargs.iter_mut().for_each(|(_, given)| given.forget_masks(&cx.unmasked));
    cx.n_calls += 1;
    if cx.n_calls > MAX_CALLS {
        return Err(Error::too_large(format!("more than {MAX_CALLS} calls of layers")));
    }
    cx.enter(&layer.name);
    let result = layers::call(cx, layer, weights, &inputs);
    cx.leave();
    result.map_err(|error| layers::at(layer, error))
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Done,
}

/// A call of a layer: its position in the model, which of its calls.
type Step = (usize, usize);

struct Functional<'a> {
    keras: Keras,
    network: &'a Network,
    by_name: HashMap<&'a str, usize>,
    results: HashMap<Step, Vec<Value>>,
    given: Vec<Value>,
}

impl<'a> Functional<'a> {
    fn new(keras: Keras, network: &'a Network, inputs: &Inputs) -> Result<Functional<'a>, Error> {
        let mut by_name = HashMap::new();
        for (at, layer) in network.layers.iter().enumerate() {
            if by_name.insert(layer.name.as_str(), at).is_some() {
                return Err(Error::invalid(format!("two layers are called '{}'", layer.name)));
            }
        }
        let given = match inputs.args.first() {
            Some(Given::Map(map)) => {
                let by_key = |key: &str| {
                    map.iter().find(|(name, _)| name == key).and_then(|(_, given)| given.tensor())
                };
                let named: Option<Vec<Value>> = network
                    .inputs
                    .iter()
                    .map(|(key, tensor)| key.as_deref().and_then(by_key).or_else(|| by_key(&tensor.layer)))
                    .collect();
                named.unwrap_or_else(|| inputs.values())
            }
            _ => inputs.values(),
        };
        if given.len() != network.inputs.len() {
            return Err(Error::invalid(format!(
                "model '{}' is called with {} tensors, expected {}",
                network.name,
                given.len(),
                network.inputs.len()
            )));
        }
        Ok(Functional { keras, network, by_name, results: HashMap::new(), given })
    }

    fn run(mut self, cx: &mut Emit, weights: &Weights) -> Result<Vec<(Option<String>, Value)>, Error> {
        for (at, (_, tensor)) in self.network.inputs.iter().enumerate() {
            let index = self.layer(&tensor.layer)?;
            let layer = &self.network.layers[index];
            let mut value = self.given[at];
            // A model takes its inputs in the types that it declares.
            let dtype = layer.policy.declared;
            let numbers = dtype != DType::String && cx.dtype(value.id) != DType::String;
            if layer.class == "InputLayer" && numbers && !matches!(dtype, DType::F16 | DType::BF16) {
                value.id = cx.cast(value.id, dtype)?;
            }
            self.results.insert((index, 0), vec![value]);
        }
        for step in self.order()? {
            if self.results.contains_key(&step) {
                continue;
            }
            let layer = &self.network.layers[step.0];
            let inputs = self.inputs(self.call(step)?)?;
            let values = one_call(cx, layer, weights.child_or_empty(&layer.name), inputs)?;
            self.results.insert(step, values);
        }
        let mut outputs = Vec::new();
        for (key, tensor) in &self.network.outputs {
            let step = self.step(tensor, true)?;
            outputs.push((key.clone(), self.result(tensor, step)?));
        }
        Ok(outputs)
    }

    fn layer(&self, name: &str) -> Result<usize, Error> {
        let found = self.by_name.get(name).copied();
        found.ok_or_else(|| Error::invalid(format!("there is no layer '{name}'")))
    }

    /// Which call of which layer makes a tensor. Models count from 1 in some places: their first call is the one that
    /// made them.
    fn step(&self, tensor: &TensorRef, is_output: bool) -> Result<Step, Error> {
        let index = self.layer(&tensor.layer)?;
        let layer = &self.network.layers[index];
        let Some(network) = &layer.network else { return Ok((index, tensor.call)) };
        let from_one = match self.keras {
            Keras::Three => is_output && network.class == "Functional",
            _ => true,
        };
        let n = layer.calls.len();
        let call = tensor.call;
        let one_less = call.checked_sub(1).filter(|&less| less < n);
        let call = if from_one {
            one_less.unwrap_or(call)
        } else if call < n {
            call
        } else {
            one_less.unwrap_or(call)
        };
        Ok((index, call))
    }

    fn result(&self, tensor: &TensorRef, step: Step) -> Result<Value, Error> {
        let results = self.results.get(&step);
        let value = results.and_then(|values| values.get(tensor.output)).copied();
        value.ok_or_else(|| {
            Error::invalid(format!(
                "layer '{}' gives {} tensors, number {} is used",
                tensor.layer,
                results.map_or(0, Vec::len),
                tensor.output
            ))
        })
    }

    fn call(&self, step: Step) -> Result<&'a Call, Error> {
        let layer = &self.network.layers[step.0];
        layer.calls.get(step.1).ok_or_else(|| {
            let n = layer.calls.len();
            Error::invalid(format!("layer '{}' is called {n} times, call {} is used", layer.name, step.1))
        })
    }

    /// The calls that the outputs need, in the order in which Keras makes them: from the one farthest from the outputs
    /// on. The order shows in masks, which attention takes off the tensors that it has seen.
    fn order(&self) -> Result<Vec<Step>, Error> {
        let sorted = self.sorted()?;
        let mut depths: HashMap<Step, usize> = HashMap::new();
        let mut layer_depths: HashMap<usize, usize> = HashMap::new();
        let mut seen = Vec::new();
        for &step in sorted.iter().rev() {
            let own = *depths.entry(step).or_insert_with(|| {
                seen.push(step);
                0
            });
            let of_layer = layer_depths.entry(step.0).or_insert(0);
            let depth = own.max(*of_layer);
            *of_layer = depth;
            depths.insert(step, depth);
            for need in self.step_needs(step)? {
                let known = depths.entry(need).or_insert_with(|| {
                    seen.push(need);
                    0
                });
                *known = (*known).max(depth + 1);
            }
        }
        seen.sort_by_key(|step| std::cmp::Reverse(depths[step]));
        Ok(seen)
    }

    /// The calls that the outputs need, each after those that it needs itself. Without recursion: a model may be deep.
    fn sorted(&self) -> Result<Vec<Step>, Error> {
        let mut states: HashMap<Step, State> = HashMap::new();
        let mut sorted = Vec::new();
        for (_, tensor) in &self.network.outputs {
            let mut stack = vec![self.step(tensor, true)?];
            while let Some(&step) = stack.last() {
                match states.get(&step) {
                    Some(State::Done) => {
                        stack.pop();
                    }
                    Some(State::Waiting) => {
                        states.insert(step, State::Done);
                        sorted.push(step);
                        stack.pop();
                    }
                    None => {
                        states.insert(step, State::Waiting);
                        for need in self.step_needs(step)?.into_iter().rev() {
                            match states.get(&need) {
                                None => stack.push(need),
                                // What waits further down in the stack needs this one.
                                Some(State::Waiting) => {
                                    let name = &self.network.layers[step.0].name;
                                    let circle = Error::invalid("the layers call each other in a circle");
                                    return Err(circle.at(format!("layer '{name}'")));
                                }
                                Some(State::Done) => {}
                            }
                        }
                    }
                }
            }
        }
        Ok(sorted)
    }

    /// What a call needs; nothing for what is given.
    fn step_needs(&self, step: Step) -> Result<Vec<Step>, Error> {
        let mut needs = Vec::new();
        if !self.results.contains_key(&step) {
            self.needs(self.call(step)?, &mut needs)?;
        }
        Ok(needs)
    }

    fn needs(&self, call: &Call, needs: &mut Vec<Step>) -> Result<(), Error> {
        let all = call.args.iter().chain(call.kwargs.iter().map(|(_, arg)| arg));
        for arg in all {
            self.arg_needs(arg, needs)?;
        }
        Ok(())
    }

    /// Arguments nest no deeper than the JSON does, which the parser bounds.
    fn arg_needs(&self, arg: &Arg, needs: &mut Vec<Step>) -> Result<(), Error> {
        match arg {
            Arg::Tensor(tensor) => needs.push(self.step(tensor, false)?),
            Arg::List(list) => list.iter().try_for_each(|item| self.arg_needs(item, needs))?,
            Arg::Map(map) => map.iter().try_for_each(|(_, item)| self.arg_needs(item, needs))?,
            Arg::Slice(parts) => parts.iter().try_for_each(|item| self.arg_needs(item, needs))?,
            Arg::Json(_) => {}
        }
        Ok(())
    }

    fn inputs(&self, call: &Call) -> Result<Inputs, Error> {
        let args = call.args.iter().map(|arg| self.given(arg)).collect::<Result<_, _>>()?;
        let kwargs = call.kwargs.iter().map(|(key, arg)| Ok((key.clone(), self.given(arg)?)));
        Ok(Inputs { args, kwargs: kwargs.collect::<Result<_, Error>>()? })
    }

    fn given(&self, arg: &Arg) -> Result<Given, Error> {
        Ok(match arg {
            Arg::Tensor(tensor) => Given::Tensor(self.result(tensor, self.step(tensor, false)?)?),
            Arg::List(list) => {
                Given::List(list.iter().map(|item| self.given(item)).collect::<Result<_, _>>()?)
            }
            Arg::Map(map) => {
                let entries = map.iter().map(|(key, item)| Ok((key.clone(), self.given(item)?)));
                Given::Map(entries.collect::<Result<_, Error>>()?)
            }
            Arg::Slice(parts) => Given::Slice(Box::new([
                self.given(&parts[0])?,
                self.given(&parts[1])?,
                self.given(&parts[2])?,
            ])),
            Arg::Json(json) => Given::Json(json.clone()),
        })
    }
}
