//! Layers around recurrent layers: both directions, and a layer for each step.

use salver_graph::{Dim, Error, ValueId};

use super::node::{Node, stack_state};
use super::{Options, Ran, arguments, run};
use crate::architecture::{Keras, Layer, inner_layer};
use crate::attrs;
use crate::emit::Emit;
use crate::layers;
use crate::layers::cells::Cell;
use crate::network::{Given, Inputs, Value};
use crate::weights::Weights;

/// The two layers of a Bidirectional. Keras 2 may store one, which runs in both directions.
pub(in crate::layers) fn directions(keras: Keras, layer: &Layer) -> Result<[Layer; 2], Error> {
    let c = &layer.config;
    let mut forward = inner_layer(keras, c, "layer")?;
    let mut backward = if c.has("backward_layer") {
        inner_layer(keras, c, "backward_layer")?
    } else {
        let mut backward = inner_layer(keras, c, "layer")?;
        let reversed = !backward.config.flag("go_backwards", false)?;
        backward.config.set("go_backwards", serde_json::json!(reversed));
        backward
    };
    for layer in [&mut forward, &mut backward] {
        // As Keras does, so that what is masked adds nothing.
        let zero = layer.config.flag("return_sequences", false)?;
        layer.config.set("zero_output_for_mask", serde_json::json!(zero));
        layer.config.set("use_bias", serde_json::json!(layer.config.flag("use_bias", true)?));
    }
    Ok([forward, backward])
}

pub(in crate::layers) fn bidirectional(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let [forward, backward] = directions(cx.keras, layer)?;
    let (x, states, mask) = arguments(inputs)?;
    let halves = match &states {
        Some(states) => {
            let (first, second) = states.split_at(states.len() / 2);
            [Some(first), Some(second)]
        }
        None => [None, None],
    };
    let options = Options::read(&forward.config)?;
    let mode = layer.config.opt_text("merge_mode")?;
    let pair = [(&forward, "forward_layer"), (&backward, "backward_layer")];
    let mut ran = Vec::new();
    if let Some(both) = both_at_once(cx, &pair, weights, &halves, x, mask)? {
        ran = both;
    } else {
        for ((layer, key), states) in pair.iter().zip(halves) {
            let own = Options::read(&layer.config)?;
            cx.enter(key);
            let one = run(cx, layer, weights.child(key)?, &own, x, states, mask);
            cx.leave();
            let mut one = one.map_err(|error| error.at(*key))?;
            // The second gives its steps in the order in which it ran.
            if *key == "backward_layer" {
                one.sequence = one.sequence.map(|sequence| cx.reverse(sequence, 1)).transpose()?;
            }
            ran.push(one);
        }
    }
    let outputs: Vec<ValueId> = ran.iter().map(|one| one.sequence.unwrap_or(one.last)).collect();
    let mask = mask.filter(|_| options.return_sequences);
    let mut values = match mode {
        None => outputs.iter().map(|&id| Value { id, mask }).collect(),
        Some(mode) => vec![Value { id: merged(cx, mode, &outputs)?, mask }],
    };
    if options.return_state {
        values.extend(ran.into_iter().flat_map(|one| one.states).map(Value::from));
    }
    Ok(values)
}

fn merged(cx: &mut Emit, mode: &str, outputs: &[ValueId]) -> Result<ValueId, Error> {
    match mode {
        "concat" => cx.concat(outputs, -1),
        "sum" => cx.add(outputs[0], outputs[1]),
        "mul" => cx.mul(outputs[0], outputs[1]),
        "ave" => {
            let sum = cx.add(outputs[0], outputs[1])?;
            cx.with("Div", sum, 2.0)
        }
        other => {
            Err(Error::invalid(format!("merge_mode '{other}', expected 'concat', 'sum', 'mul' or 'ave'")))
        }
    }
}

/// Both directions as one node, where they are the same cell.
fn both_at_once(
    cx: &mut Emit,
    pair: &[(&Layer, &str); 2],
    weights: &Weights,
    states: &[Option<&[ValueId]>; 2],
    x: ValueId,
    mask: Option<ValueId>,
) -> Result<Option<Vec<Ran>>, Error> {
    let options = [Options::read(&pair[0].0.config)?, Options::read(&pair[1].0.config)?];
    let plain = pair.iter().all(|(layer, _)| matches!(layer.class.as_str(), "SimpleRNN" | "GRU" | "LSTM"));
    let stateful = options.iter().any(|options| options.stateful);
    if mask.is_some()
        || stateful
        || !plain
        || options[0].backwards
        || !options[1].backwards
        || pair[0].0.class != pair[1].0.class
    {
        return Ok(None);
    }
    cx.expect_rank(x, 3)?;
    let n_inputs = cx.last_dim(x)?;
    let x = cx.float(x, pair[0].0.policy.compute)?;
    let mut cells = Vec::new();
    for (layer, key) in pair {
        cells.push(Cell::of_layer(cx, layer, weights.child(key)?, n_inputs).map_err(|error| error.at(*key))?);
    }
    let nodes: Option<Vec<Node<'_>>> = cells.iter().map(|cell| Node::of(cx.keras, cell)).collect();
    let Some(nodes) = nodes else { return Ok(None) };
    let same = nodes[0].gates.units == nodes[1].gates.units
        && nodes[0].reset_after == nodes[1].reset_after
        && nodes[0].gates.bias.is_some() == nodes[1].gates.bias.is_some();
    if !same {
        return Ok(None);
    }
    let both = |cx: &mut Emit, parts: [ValueId; 2]| cx.concat(&parts, 0);
    let kernels = [nodes[0].kernel(cx, nodes[0].gates.kernel)?, nodes[1].kernel(cx, nodes[1].gates.kernel)?];
    let recurrent =
        [nodes[0].kernel(cx, nodes[0].gates.recurrent)?, nodes[1].kernel(cx, nodes[1].gates.recurrent)?];
    let bias = match (nodes[0].bias(cx)?, nodes[1].bias(cx)?) {
        (Some(first), Some(second)) => Some(both(cx, [first, second])?),
        _ => None,
    };
    let steps = cx.transpose(x, &[1, 0, 2])?;
    let mut inputs = vec![Some(steps), Some(both(cx, kernels)?), Some(both(cx, recurrent)?), bias];
    let n_states = nodes[0].n_states();
    if let [Some(first), Some(second)] = states {
        if first.len() != n_states || second.len() != n_states {
            return Err(Error::invalid(format!(
                "called with {} initial states, expected {}",
                first.len() + second.len(),
                2 * n_states
            )));
        }
        inputs.push(None);
        for (&a, &b) in first.iter().zip(*second) {
            let parts = [stack_state(cx, a, cx.dtype(x))?, stack_state(cx, b, cx.dtype(x))?];
            inputs.push(Some(both(cx, parts)?));
        }
    }
    let attrs = Node::attributes(&[&nodes[0], &nodes[1]], "bidirectional");
    let outputs = cx.ops(nodes[0].op, &inputs, attrs, 1 + n_states)?;
    let mut finals = Vec::new();
    for &state in &outputs[1..] {
        finals.push(cx.split(state, 0, 2)?);
    }
    let sequences = if options[0].return_sequences { Some(cx.split(outputs[0], 1, 2)?) } else { None };
    let mut ran = Vec::new();
    for at in 0..2 {
        let mut own = Vec::new();
        for state in &finals {
            own.push(cx.squeeze(state[at], &[0])?);
        }
        let sequence = match &sequences {
            Some(parts) => {
                let steps = cx.squeeze(parts[at], &[1])?;
                Some(cx.transpose(steps, &[1, 0, 2])?)
            }
            None => None,
        };
        ran.push(Ran { sequence, last: own[0], states: own });
    }
    Ok(Some(ran))
}

/// The steps as rows of one batch: the layer inside sees them all at once.
pub(in crate::layers) fn time_distributed(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let inner = inner_layer(cx.keras, &layer.config, "layer")?;
    let x = inputs.one()?;
    let dims =
        cx.b.dims(x.id).map(<[Dim]>::to_vec).ok_or_else(|| Error::invalid("an input of unknown rank"))?;
    if dims.len() < 3 {
        return Err(Error::invalid(format!("an input of {} dimensions, expected at least 3", dims.len())));
    }
    let folded = fold(cx, x.id, 2)?;
    let mut folded_dims = vec![Dim::Unknown];
    folded_dims.extend_from_slice(&dims[2..]);
    cx.b.set_dims(folded, Some(folded_dims));
    let mask = match inputs.mask() {
        Some(mask) if cx.rank(mask)? > 2 => Some(fold(cx, mask, 2)?),
        _ => None,
    };
    let given = Inputs { args: vec![Given::Tensor(Value { id: folded, mask })], kwargs: Vec::new() };
    cx.enter(&inner.name);
    let values = layers::call(cx, &inner, weights.child("layer")?, &given);
    cx.leave();
    let values = values.map_err(|error| layers::at(&inner, error))?;
    let mut unfolded = Vec::new();
    for value in values {
        let inner_dims = cx.b.dims(value.id).map(<[Dim]>::to_vec);
        let front = cx.op_with("Shape", &[x.id], attrs!("start": 0, "end": 2))?;
        let rest = cx.op_with("Shape", &[value.id], attrs!("start": 1))?;
        let shape = cx.concat(&[front, rest], 0)?;
        let y = cx.op("Reshape", &[value.id, shape])?;
        if let Some(inner_dims) = inner_dims {
            let known = dims[..2].iter().chain(inner_dims.get(1..).unwrap_or_default()).cloned().collect();
            cx.b.set_dims(y, Some(known));
        }
        unfolded.push(Value::from(y));
    }
    Ok(unfolded)
}

/// The first `n` dimensions as one.
fn fold(cx: &mut Emit, x: ValueId, n: usize) -> Result<ValueId, Error> {
    let rest = cx.op_with("Shape", &[x], attrs!("start": n as i64))?;
    let minus_one = cx.ints(&[-1]);
    let shape = cx.concat(&[minus_one, rest], 0)?;
    cx.op("Reshape", &[x, shape])
}
