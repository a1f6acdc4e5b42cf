//! Layers that join several tensors.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::{Keras, Layer};
use crate::emit::Emit;
use crate::layers::norm;
use crate::network::{Inputs, Value};

/// Brings tensors to one element type: the widest float, else the widest integer.
pub(super) fn same_dtype(cx: &mut Emit, ids: &mut [ValueId], float: DType) -> Result<(), Error> {
    let first = cx.dtype(ids[0]);
    if ids.iter().all(|&id| cx.dtype(id) == first) {
        return Ok(());
    }
    if ids.iter().any(|&id| cx.dtype(id) == DType::String) {
        return Err(Error::invalid("text and numbers cannot be joined"));
    }
    let is_float = |dtype| matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    let target = if ids.iter().any(|&id| cx.dtype(id) == DType::F64) {
        DType::F64
    } else if ids.iter().any(|&id| is_float(cx.dtype(id))) {
        float
    } else if ids.iter().any(|&id| matches!(cx.dtype(id), DType::I64 | DType::U32 | DType::U64)) {
        DType::I64
    } else {
        DType::I32
    };
    for id in ids {
        *id = cx.cast(*id, target)?;
    }
    Ok(())
}

/// Tensors of fewer dimensions get dimensions of 1 behind the batch.
fn same_rank(cx: &mut Emit, ids: &mut [ValueId]) -> Result<(), Error> {
    let mut rank = 0;
    for &id in ids.iter() {
        rank = rank.max(cx.rank(id)?);
    }
    for id in ids {
        let missing = rank - cx.rank(*id)?;
        if missing > 0 {
            let axes: Vec<i64> = (1..=missing as i64).collect();
            *id = cx.unsqueeze(*id, &axes)?;
        }
    }
    Ok(())
}

pub(super) fn elementwise(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let values = inputs.values();
    if values.is_empty() {
        return Err(Error::invalid("called without tensors"));
    }
    let mut ids: Vec<ValueId> = values.iter().map(|value| value.id).collect();
    same_dtype(cx, &mut ids, layer.policy.compute)?;
    same_rank(cx, &mut ids)?;
    let masks = inputs.masks();
    let op = match layer.class.as_str() {
        "Add" | "Average" => "Add",
        "Subtract" => "Sub",
        "Multiply" => "Mul",
        "Maximum" => "Max",
        _ => "Min",
    };
    if layer.class == "Subtract" && ids.len() != 2 {
        return Err(Error::invalid(format!("Subtract of {} tensors, expected 2", ids.len())));
    }
    let mut result = ids[0];
    let mut result_mask = masks[0];
    let by_mask = matches!(op, "Max" | "Min") && cx.keras == Keras::Three;
    for (&id, &mask) in ids.iter().zip(&masks).skip(1) {
        let mut id = id;
        // In Keras 3 what is masked does not compete.
        if by_mask {
            if let Some(mask) = mask {
                let wide = cx.unsqueeze(mask, &[-1])?;
                id = cx.select(wide, id, result)?;
            }
            if let Some(mask) = result_mask {
                let wide = cx.unsqueeze(mask, &[-1])?;
                result = cx.select(wide, result, id)?;
            }
        }
        result = cx.op(op, &[result, id])?;
        result_mask = match (result_mask, mask) {
            (Some(a), Some(b)) => Some(either(cx, a, b)?),
            _ => None,
        };
    }
    if layer.class == "Average" {
        let dtype = cx.dtype(result);
        if !matches!(dtype, DType::F32 | DType::F64) {
            result = cx.cast(result, layer.policy.compute)?;
        }
        result = cx.with("Div", result, ids.len() as f64)?;
    }
    Ok(vec![Value { id: result, mask: merged_mask(cx, &masks, result_mask)? }])
}

/// Keras 3 lets a step count that counts in any input, Keras 2 one that counts in all that have a mask.
fn merged_mask(
    cx: &mut Emit,
    masks: &[Option<ValueId>],
    any: Option<ValueId>,
) -> Result<Option<ValueId>, Error> {
    if cx.keras == Keras::Three {
        return Ok(any);
    }
    let mut all = None;
    for mask in masks.iter().flatten() {
        all = Some(match all {
            None => *mask,
            Some(other) => cx.op("And", &[other, *mask])?,
        });
    }
    Ok(all)
}

fn either(cx: &mut Emit, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
    if a == b { Ok(a) } else { cx.op("Or", &[a, b]) }
}

pub(super) fn concatenate(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let values = inputs.values();
    if values.is_empty() {
        return Err(Error::invalid("called without tensors"));
    }
    let mut ids: Vec<ValueId> = values.iter().map(|value| value.id).collect();
    same_dtype(cx, &mut ids, layer.policy.compute)?;
    let axis = layer.config.int_or("axis", -1)?;
    let rank = cx.rank(ids[0])?;
    let front = cx.axis(ids[0], axis)?;
    let joined = cx.concat(&ids, front as i64)?;
    let masks = inputs.masks();
    if masks.iter().all(Option::is_none) {
        return Ok(vec![Value::from(joined)]);
    }
    let mut parts = Vec::new();
    for (&id, mask) in ids.iter().zip(masks) {
        // As 0 and 1, which every engine can take the extremes of.
        let shape = cx.shape(id)?;
        let like = cx.b.f32(0.0);
        let part = match mask {
            None => cx.filled(shape, 1.0, like)?,
            Some(mask) => {
                let mask = cx.cast(mask, DType::F32)?;
                if cx.rank(mask)? < rank {
                    let wide = cx.unsqueeze(mask, &[-1])?;
                    cx.op("Expand", &[wide, shape])?
                } else {
                    mask
                }
            }
        };
        parts.push(part);
    }
    let all = cx.concat(&parts, front as i64)?;
    // Keras 3: any element counts; before: all do.
    let op = if cx.keras == Keras::Three { "ReduceMax" } else { "ReduceMin" };
    let mask = cx.reduce(op, all, &[-1], false)?;
    let mask = cx.cast(mask, DType::Bool)?;
    Ok(vec![Value { id: joined, mask: Some(mask) }])
}

/// A product over one axis of each, batch by batch.
pub(super) fn dot(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let values = inputs.values();
    let [x, y] = values[..] else {
        return Err(Error::invalid(format!("Dot of {} tensors, expected 2", values.len())));
    };
    let mut ids = [x.id, y.id];
    same_dtype(cx, &mut ids, layer.policy.compute)?;
    let axes = layer.config.opt_ints("axes")?.ok_or_else(|| crate::config::missing("axes"))?;
    let axes = match axes[..] {
        [one] => [one, one],
        [first, second] => [first, second],
        _ => return Err(Error::invalid(format!("axes {axes:?}, expected one or two"))),
    };
    let mut sides = Vec::new();
    for (mut id, axis) in ids.into_iter().zip(axes) {
        let axis = cx.axis(id, axis)?;
        if axis == 0 {
            return Err(Error::invalid("a product over the batch"));
        }
        if layer.config.flag("normalize", false)? {
            id =
                norm::normalised(cx, id, &[axis as i64], if cx.keras == Keras::Three { 1e-7 } else { 1e-6 })?;
        }
        sides.push((id, axis));
    }
    // Letters: a the batch, z what is summed over.
    let letters: Vec<char> = ('b'..'z').collect();
    let mut next = letters.iter();
    let mut terms = Vec::new();
    let mut output = String::from("a");
    for &(id, axis) in &sides {
        let mut term = String::from("a");
        for at in 1..cx.rank(id)? {
            if at == axis {
                term.push('z');
            } else {
                let letter = next.next().ok_or_else(|| Error::too_large("too many dimensions"))?;
                term.push(*letter);
                output.push(*letter);
            }
        }
        terms.push(term);
    }
    let equation = format!("{},{}->{output}", terms[0], terms[1]);
    let result = super::core::einsum(cx, &equation, sides[0].0, sides[1].0)?;
    // The product of vectors keeps a dimension of 1.
    if output.len() == 1 { cx.unsqueeze(result, &[1]) } else { Ok(result) }
}
