//! Recurrent cells step by step: a loop.

use salver_graph::{Dim, Error, ValueId};
use salver_tensor::DType;

use super::{Options, Ran};
use crate::attrs;
use crate::emit::Emit;
use crate::layers::cells::Cell;

/// The steps one by one. A masked step carries the states on and repeats the output before it.
pub(super) fn looped(
    cx: &mut Emit,
    cell: &Cell,
    options: &Options,
    x: ValueId,
    states: Option<&[ValueId]>,
    mask: Option<ValueId>,
) -> Result<Ran, Error> {
    let rank = cx.rank(x)?;
    let dtype = cx.dtype(x);
    let swapped: Vec<usize> = [1, 0].into_iter().chain(2..rank).collect();
    let mut steps = cx.transpose(x, &swapped)?;
    let mut mask = match mask {
        Some(mask) => {
            let mask = cx.cast(mask, DType::Bool)?;
            cx.expect_rank(mask, 2).map_err(|error| error.at("mask"))?;
            Some(cx.transpose(mask, &[1, 0])?)
        }
        None => None,
    };
    if options.backwards {
        steps = cx.reverse(steps, 0)?;
        mask = mask.map(|mask| cx.reverse(mask, 0)).transpose()?;
    }
    let state_dims = cell.state_dims();
    let mut initial = Vec::new();
    for (at, dims) in state_dims.iter().enumerate() {
        initial.push(match states {
            Some(states) => cx.float(states[at], dtype)?,
            None => zero_state(cx, x, dims)?,
        });
    }
    // The output of a step has the dimensions of the last cell's first state.
    let output_dims = match cell {
        Cell::Stacked(_) => vec![Some(cell.n_outputs())],
        _ => state_dims[0].clone(),
    };
    let batch = cx.b.dims(x).and_then(|dims| dims.first().cloned()).unwrap_or(Dim::Unknown);
    let with_batch = |dims: &[Option<usize>]| {
        let dims = dims.iter().map(|dim| dim.map_or(Dim::Unknown, Dim::Fixed));
        Some(std::iter::once(batch.clone()).chain(dims).collect::<Vec<_>>())
    };
    let previous = match mask {
        Some(_) => Some(zero_state(cx, x, &output_dims)?),
        None => None,
    };
    let count = cx.size(steps, 0)?;
    let count = cx.squeeze(count, &[0])?;

    cx.b.begin_block()?;
    let at = cx.b.block_input("step", DType::I64, Some(Vec::new()));
    let go_on = cx.b.block_input("go_on", DType::Bool, Some(Vec::new()));
    let mut carried = Vec::new();
    for (n, dims) in state_dims.iter().enumerate() {
        carried.push(cx.b.block_input(&format!("state_{n}"), dtype, with_batch(dims)));
    }
    let before = previous.map(|_| cx.b.block_input("before", dtype, with_batch(&output_dims)));
    let body = step_body(cx, cell, options, steps, mask, at, &carried, before);
    let (output, new_states) = match body {
        Ok(body) => body,
        Err(error) => {
            cx.b.drop_block();
            return Err(error);
        }
    };
    let mut results = vec![go_on];
    results.extend(&new_states);
    if before.is_some() {
        results.push(output);
    }
    results.push(output);
    let block = cx.b.end_block(&results);

    let mut loop_inputs = vec![Some(count), None];
    loop_inputs.extend(initial.iter().copied().map(Some));
    loop_inputs.extend(previous.map(Some));
    let n_carried = loop_inputs.len() - 2;
    let outputs = cx.with_blocks("Loop", &loop_inputs, vec![("body", block)], n_carried + 1)?;
    let all = outputs[n_carried];
    let sequence = cx.transpose(all, &swapped_like(cx, all)?)?;
    let states = outputs[..initial.len()].to_vec();
    let last = match before {
        Some(_) => outputs[initial.len()],
        // A step's output is its first state, except of cells in a row, where it is the last cell's.
        None => match cell {
            Cell::Stacked(cells) => {
                let last = cells.last().map_or(1, |cell| cell.state_dims().len());
                states[states.len() - last]
            }
            _ => states[0],
        },
    };
    Ok(Ran { sequence: options.return_sequences.then_some(sequence), last, states })
}

fn swapped_like(cx: &Emit, x: ValueId) -> Result<Vec<usize>, Error> {
    Ok([1, 0].into_iter().chain(2..cx.rank(x)?).collect())
}

#[allow(clippy::too_many_arguments)]
fn step_body(
    cx: &mut Emit,
    cell: &Cell,
    options: &Options,
    steps: ValueId,
    mask: Option<ValueId>,
    at: ValueId,
    carried: &[ValueId],
    before: Option<ValueId>,
) -> Result<(ValueId, Vec<ValueId>), Error> {
    let x = cx.op_with("Gather", &[steps, at], attrs!("axis": 0))?;
    let (mut output, mut states) = cell.step(cx, x, carried)?;
    if let (Some(mask), Some(before)) = (mask, before) {
        let counts = cx.op_with("Gather", &[mask, at], attrs!("axis": 0))?;
        for (state, old) in states.iter_mut().zip(carried) {
            let wide = widen(cx, counts, *state)?;
            *state = cx.select(wide, *state, *old)?;
        }
        let wide = widen(cx, counts, output)?;
        output =
            if options.zero_masked { cx.keep_where(wide, output)? } else { cx.select(wide, output, before)? };
    }
    Ok((output, states))
}

/// `[batch]` with as many dimensions of 1 as `like` has more.
fn widen(cx: &mut Emit, mask: ValueId, like: ValueId) -> Result<ValueId, Error> {
    let axes: Vec<i64> = (1..cx.rank(like)? as i64).collect();
    cx.unsqueeze(mask, &axes)
}

/// Zeros `[batch of x, dims]`.
fn zero_state(cx: &mut Emit, x: ValueId, dims: &[Option<usize>]) -> Result<ValueId, Error> {
    let batch = cx.size(x, 0)?;
    let dims: Option<Vec<i64>> = dims.iter().map(|dim| dim.map(|dim| dim as i64)).collect();
    let dims = dims
        .ok_or_else(|| Error::unsupported("a recurrent layer over pictures of a size that is not known"))?;
    let rest = cx.ints(&dims);
    let dims = cx.concat(&[batch, rest], 0)?;
    cx.filled(dims, 0.0, x)
}
