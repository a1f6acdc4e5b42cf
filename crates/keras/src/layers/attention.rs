//! Attention.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::{Keras, Layer};
use crate::attrs;
use crate::emit::{Emit, front_axis};
use crate::layers::core::{einsum, einsum_bias, masked_softmax, project};
use crate::network::{Inputs, Value};
use crate::weights::{Slots, Weights};

/// The slots of attention with several heads, in the order in which Keras makes them.
pub(super) fn slots(layer: &Layer) -> Result<Slots, Error> {
    let c = &layer.config;
    let bias = c.flag("use_bias", true)?;
    let mut slots = Slots::of(layer);
    let mut names = vec!["query_dense", "key_dense", "value_dense", "output_dense"];
    if c.flag("use_gate", false)? {
        names.insert(2, "gate_dense");
    }
    for name in names {
        let own = Slots { trainable: true, ..Slots::of(layer) }.with(&["kernel"]).with_if(bias, "bias");
        slots = slots.child(name, &[name, &format!("_{name}")], own);
    }
    Ok(slots)
}

/// Attention and AdditiveAttention: `[query, value, key]`.
pub(super) fn simple(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let values = inputs.values();
    let (query, value, key) = match values[..] {
        [query, value] => (query.id, value.id, value.id),
        [query, value, key] => (query.id, value.id, key.id),
        _ => return Err(Error::invalid(format!("called with {} tensors, expected 2 or 3", values.len()))),
    };
    let dtype = layer.policy.compute;
    let (query, value, key) = (cx.float(query, dtype)?, cx.float(value, dtype)?, cx.float(key, dtype)?);
    let masks = inputs.masks();
    let scores = scores(cx, layer, weights, query, key)?;
    let mut mask = masks.get(1).copied().flatten();
    if let Some(given) = mask {
        let given = cx.cast(given, DType::Bool)?;
        mask = Some(cx.unsqueeze(given, &[-2])?);
    }
    // Older versions say causality when the layer is made.
    if inputs.flag("use_causal_mask") || layer.config.flag("causal", false)? {
        let rank = cx.rank(scores)?;
        let (t, s) = (cx.size(scores, rank - 2)?, cx.size(scores, rank - 1)?);
        let causal = causal_mask(cx, t, s)?;
        mask = Some(both(cx, mask, causal)?);
    }
    let mut scores = scores;
    if let Some(mask) = mask {
        let hidden = cx.op("Not", &[mask])?;
        let weight = cx.cast(hidden, dtype)?;
        let penalty = cx.with("Mul", weight, 1e9)?;
        scores = cx.sub(scores, penalty)?;
    }
    let distribution = cx.softmax(scores, -1)?;
    let mut result = cx.op("MatMul", &[distribution, value])?;
    let query_mask = masks.first().copied().flatten();
    if let Some(mask) = query_mask {
        let mask = cx.cast(mask, DType::Bool)?;
        let wide = cx.unsqueeze(mask, &[-1])?;
        result = cx.keep_where(wide, result)?;
    }
    let mut results = vec![Value { id: result, mask: query_mask }];
    if inputs.flag("return_attention_scores") {
        results.push(Value::from(distribution));
    }
    Ok(results)
}

fn scores(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    query: ValueId,
    key: ValueId,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    let dtype = layer.policy.compute;
    let additive = layer.class == "AdditiveAttention";
    let scale = if c.flag("use_scale", additive)? {
        let n = cx.last_dim(query)?;
        let dims: &[usize] = if additive { &[n] } else { &[] };
        Some(cx.weight(weights.get("scale")?, "scale", dims, dtype)?)
    } else {
        None
    };
    let sum = |cx: &mut Emit| -> Result<ValueId, Error> {
        let query = cx.unsqueeze(query, &[-2])?;
        let key = cx.unsqueeze(key, &[-3])?;
        cx.add(query, key)
    };
    if additive {
        let sum = sum(cx)?;
        let mut tanh = cx.op("Tanh", &[sum])?;
        if let Some(scale) = scale {
            tanh = cx.mul(tanh, scale)?;
        }
        return cx.reduce("ReduceSum", tanh, &[-1], false);
    }
    match c.text_or("score_mode", "dot")? {
        "dot" => {
            let rank = cx.rank(key)?;
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 1, rank - 2);
            let key = cx.transpose(key, &perm)?;
            let scores = cx.op("MatMul", &[query, key])?;
            scale.map_or(Ok(scores), |scale| cx.mul(scores, scale))
        }
        "concat" => {
            let mut sum = sum(cx)?;
            if let Some(scale) = scale {
                sum = cx.mul(sum, scale)?;
            }
            let tanh = cx.op("Tanh", &[sum])?;
            let total = cx.reduce("ReduceSum", tanh, &[-1], false)?;
            let weight = cx.weight(weights.get("concat_score_weight")?, "concat_score_weight", &[], dtype)?;
            cx.mul(total, weight)
        }
        other => Err(Error::invalid(format!("score_mode '{other}', expected 'dot' or 'concat'"))),
    }
}

/// `[1, t, s]`: whether step `t` may see step `s`.
fn causal_mask(cx: &mut Emit, t: ValueId, s: ValueId) -> Result<ValueId, Error> {
    let (rows, columns) = (cx.range(t)?, cx.range(s)?);
    let rows = cx.unsqueeze(rows, &[0, 2])?;
    let columns = cx.unsqueeze(columns, &[0, 1])?;
    cx.op("GreaterOrEqual", &[rows, columns])
}

fn window_mask(cx: &mut Emit, t: ValueId, s: ValueId, window: i64) -> Result<ValueId, Error> {
    let (rows, columns) = (cx.range(t)?, cx.range(s)?);
    let rows = cx.unsqueeze(rows, &[0, 2])?;
    let columns = cx.unsqueeze(columns, &[0, 1])?;
    let distance = cx.sub(rows, columns)?;
    let distance = cx.op("Abs", &[distance])?;
    let window = cx.int(window);
    cx.op("Less", &[distance, window])
}

fn both(cx: &mut Emit, mask: Option<ValueId>, other: ValueId) -> Result<ValueId, Error> {
    mask.map_or(Ok(other), |mask| cx.op("And", &[mask, other]))
}

fn letters(n: usize, from: usize) -> Result<String, Error> {
    let all: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    let letters = all.get(from..from.saturating_add(n));
    letters.map(|letters| letters.iter().collect()).ok_or_else(|| Error::too_large("too many dimensions"))
}

/// The arguments of attention with several heads.
struct Heads {
    query: Value,
    value: Value,
    key: Value,
    has_key: bool,
}

impl Heads {
    fn read(inputs: &Inputs) -> Result<Heads, Error> {
        let missing = || Error::invalid("attention needs a query and a value");
        let first = inputs.values();
        let given = |at: usize, name: &str| inputs.arg(at, name).and_then(|given| given.tensor());
        // Keras 2 may give a list.
        let query = if inputs.args.is_empty() { given(0, "query") } else { first.first().copied() };
        let value = given(1, "value").or_else(|| first.get(1).copied());
        let key = given(2, "key").or_else(|| first.get(2).copied());
        let (query, value) = (query.ok_or_else(missing)?, value.ok_or_else(missing)?);
        Ok(Heads { query, value, key: key.unwrap_or(value), has_key: key.is_some() })
    }
}

pub(super) fn multi_head(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let c = &layer.config;
    let dtype = layer.policy.compute;
    let grouped = layer.class != "MultiHeadAttention";
    let heads = Heads::read(inputs)?;
    let rank = cx.rank(heads.query.id)?;
    if rank < 3 || (grouped && rank != 3) {
        return Err(Error::invalid(format!("attention over an input of {rank} dimensions")));
    }
    let head_size = if grouped { c.size("head_dim")? } else { c.size("key_dim")? };
    let own_bias = c.flag("use_bias", true)?;
    // [batch, .., features] to [batch, .., heads, size].
    let free = letters(rank - 1, 0)?;
    let (m, h) = (letters(1, rank - 1)?, letters(2, rank)?);
    let equation = format!("{free}{m},{m}{h}->{free}{h}");
    let dense = |cx: &mut Emit, name: &str, x: ValueId| -> Result<ValueId, Error> {
        let x = cx.float(x, dtype)?;
        let weights = weights.child(name)?;
        cx.enter(name);
        let y = project(cx, weights, x, &equation, dtype)
            .and_then(|y| if own_bias { einsum_bias(cx, weights, y, &equation, &h) } else { Ok(y) });
        cx.leave();
        y.map_err(|error| error.at(name))
    };
    let query = dense(cx, "query_dense", heads.query.id)?;
    let mut key = dense(cx, "key_dense", heads.key.id)?;
    let mut value = dense(cx, "value_dense", heads.value.id)?;
    if grouped {
        let (queries, keys) = (c.size("num_query_heads")?, c.size("num_key_value_heads")?);
        if queries % keys != 0 {
            return Err(Error::invalid(format!("{queries} query heads over {keys} key heads")));
        }
        key = repeat_heads(cx, key, keys, queries / keys)?;
        value = repeat_heads(cx, value, keys, queries / keys)?;
    }
    let axes: Vec<usize> = match c.opt_ints("attention_axes")? {
        Some(axes) => axes.into_iter().map(|axis| front_axis(axis, rank)).collect::<Result<_, _>>()?,
        None => (1..rank - 1).collect(),
    };
    let mask = attention_mask(cx, layer, inputs, &heads)?;
    let scaled = cx.with("Mul", query, 1.0 / (head_size as f64).sqrt())?;

    // With letters for the dimensions of queries, and others for the attended ones of keys.
    let target = letters(rank + 1, 0)?;
    let others = letters(axes.len(), rank + 1)?;
    let mut source: Vec<char> = target.chars().collect();
    for (axis, letter) in axes.iter().zip(others.chars()) {
        source[*axis] = letter;
    }
    let source: String = source.into_iter().collect();
    let t: Vec<char> = target.chars().collect();
    let mut product = String::new();
    product.extend((0..rank).filter(|at| !axes.contains(at)).map(|at| t[at]));
    product.extend(axes.iter().map(|&at| t[at]));
    product.push_str(&others);
    let scores = einsum(cx, &format!("{source},{target}->{product}"), key, scaled)?;
    let distribution = distribution(cx, layer, inputs, scores, mask, axes.len(), grouped)?;
    let mut result = einsum(cx, &format!("{product},{source}->{target}"), distribution, value)?;
    if c.flag("use_gate", false)? {
        let gate = dense(cx, "gate_dense", heads.query.id)?;
        let gate = cx.op("Sigmoid", &[gate])?;
        result = cx.mul(result, gate)?;
    }
    let output = output_dense(cx, weights.child("output_dense")?, result, own_bias, dtype)?;
    // In Keras 3 what was attended to has no mask from here on, for whichever layer comes next.
    if cx.keras == Keras::Three && !grouped {
        cx.unmasked.extend([heads.query.id, heads.value.id, heads.key.id]);
    }
    let mut results = vec![Value { id: output, mask: heads.query.mask }];
    if inputs.flag("return_attention_scores") {
        results.push(Value::from(distribution));
    }
    Ok(results)
}

/// Each head of keys serves several heads of queries, which lie next to each other.
fn repeat_heads(cx: &mut Emit, x: ValueId, heads: usize, n: usize) -> Result<ValueId, Error> {
    if n == 1 {
        return Ok(x);
    }
    let indices: Vec<i64> = (0..heads).flat_map(|head| std::iter::repeat_n(head as i64, n)).collect();
    let indices = cx.ints(&indices);
    cx.op_with("Gather", &[x, indices], attrs!("axis": 2))
}

fn output_dense(
    cx: &mut Emit,
    weights: &Weights,
    x: ValueId,
    own_bias: bool,
    dtype: DType,
) -> Result<ValueId, Error> {
    let rank = cx.rank(x)?;
    let n_outputs = weights.get("kernel")?.tensor.shape().rank().checked_sub(2);
    let n_outputs = n_outputs
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::invalid("output_dense: a kernel of too few dimensions"))?;
    let free = letters(rank - 2, 0)?;
    let (bound, out) = (letters(2, rank - 2)?, letters(n_outputs, rank)?);
    let equation = format!("{free}{bound},{bound}{out}->{free}{out}");
    cx.enter("output_dense");
    let y = project(cx, weights, x, &equation, dtype)
        .and_then(|y| if own_bias { einsum_bias(cx, weights, y, &equation, &out) } else { Ok(y) });
    cx.leave();
    y.map_err(|error| error.at("output_dense"))
}

/// `[batch, t, s]` of what may be seen, of all masks that there are.
fn attention_mask(
    cx: &mut Emit,
    layer: &Layer,
    inputs: &Inputs,
    heads: &Heads,
) -> Result<Option<ValueId>, Error> {
    let given = |name: &str| inputs.kwarg(name).and_then(|given| given.tensor()).map(|value| value.id);
    let mut mask = None;
    let query_mask = given("query_mask").or(heads.query.mask);
    let value_mask = given("value_mask").or(heads.value.mask);
    let key_mask = given("key_mask").or(heads.key.mask.filter(|_| heads.has_key));
    for (part, axis) in [(query_mask, -1), (value_mask, -2), (key_mask, -2)] {
        if let Some(part) = part {
            let part = cx.cast(part, DType::Bool)?;
            let part = cx.unsqueeze(part, &[axis])?;
            mask = Some(both(cx, mask, part)?);
        }
    }
    let (t, s) = (cx.size(heads.query.id, 1)?, cx.size(heads.value.id, 1)?);
    if inputs.flag("use_causal_mask") {
        let causal = causal_mask(cx, t, s)?;
        mask = Some(both(cx, mask, causal)?);
    }
    if let Some(window) = layer.config.opt_int("sliding_window")? {
        let window = window_mask(cx, t, s, window)?;
        mask = Some(both(cx, mask, window)?);
    }
    if let Some(own) = inputs.arg(6, "attention_mask").and_then(|given| given.tensor()) {
        let own = cx.cast(own.id, DType::Bool)?;
        mask = Some(both(cx, mask, own)?);
    }
    Ok(mask)
}

fn distribution(
    cx: &mut Emit,
    layer: &Layer,
    inputs: &Inputs,
    scores: ValueId,
    mask: Option<ValueId>,
    n_axes: usize,
    grouped: bool,
) -> Result<ValueId, Error> {
    let rank = cx.rank(scores)?;
    let axes: Vec<i64> = (1..=n_axes as i64).map(|axis| -axis).rev().collect();
    let Some(mut mask) = mask else { return masked_softmax(cx, scores, None, &axes) };
    // The heads stand before the attended dimensions.
    let missing = rank.saturating_sub(cx.rank(mask)?);
    for _ in 0..missing {
        let at = cx.rank(mask)? as i64 + 1 - 2 * n_axes as i64 - 1;
        mask = cx.unsqueeze(mask, &[at.max(0)])?;
    }
    // Without dropout and with one attended dimension Keras 3 uses another function, which differs where nothing may
    // be seen: everything then counts the same.
    let fused = cx.keras == Keras::Three
        && layer.config.float_or("dropout", 0.0)? == 0.0
        && !inputs.flag("return_attention_scores")
        && (rank == 4 || grouped);
    if fused {
        let hidden = cx.scalar(f64::from(f32::MAX) * -0.7, scores)?;
        let scores = cx.select(mask, scores, hidden)?;
        return masked_softmax(cx, scores, None, &axes);
    }
    masked_softmax(cx, scores, Some(mask), &axes)
}
