//! Operators with bodies.

use salver_tensor::DType;

use super::{Asked, KnownBlock, Outcome, common};
use crate::Error;
use crate::ir::Dim;

pub(super) fn infer(asked: &Asked<'_>) -> Result<Option<Vec<Outcome>>, Error> {
    match asked.op {
        "If" => infer_if(asked).map(Some),
        "Loop" => infer_loop(asked).map(Some),
        "Scan" => infer_scan(asked).map(Some),
        _ => Ok(None),
    }
}

fn block<'a>(asked: &'a Asked<'_>, key: &str) -> Result<&'a KnownBlock<'a>, Error> {
    let found = asked.blocks.iter().find(|block| block.key == key);
    found.ok_or_else(|| Error::invalid(format!("{} without {key}", asked.op)))
}

fn infer_if(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let condition = asked.input(0)?.dtype;
    if condition != DType::Bool {
        return Err(Error::invalid(format!("the condition of If is {condition}, expected bool")));
    }
    let (yes, no) = (block(asked, "then_branch")?, block(asked, "else_branch")?);
    if yes.outputs.len() != no.outputs.len() {
        let (a, b) = (yes.outputs.len(), no.outputs.len());
        return Err(Error::invalid(format!("the branches of If give {a} and {b} values")));
    }
    yes.outputs
        .iter()
        .zip(&no.outputs)
        .map(|(a, b)| {
            if a.dtype != b.dtype {
                let (a, b) = (a.dtype, b.dtype);
                return Err(Error::invalid(format!("the branches of If give {a} and {b} for one output")));
            }
            Ok(Outcome::new(a.dtype, common(a.dims, b.dims)))
        })
        .collect()
}

fn infer_loop(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let body = block(asked, "body")?;
    let n_carried = asked.inputs.len().saturating_sub(2);
    if body.inputs.len() != n_carried + 2 || body.outputs.len() < n_carried + 1 {
        let (inputs, outputs) = (body.inputs.len(), body.outputs.len());
        return Err(Error::invalid(format!(
            "the body of Loop takes {inputs} and gives {outputs} values for {n_carried} loop variables"
        )));
    }
    for at in 0..n_carried {
        let (given, taken, next) =
            (asked.input(at + 2)?.dtype, body.inputs[at + 2].dtype, body.outputs[at + 1].dtype);
        if given != taken || taken != next {
            return Err(Error::invalid(format!(
                "loop variable {at} is {given}, {taken} and {next}, expected one element type"
            )));
        }
    }
    // The body may end the loop before the limit, unless what it says is always true.
    let goes_on = body.outputs.first().and_then(|go_on| go_on.constant?.bytes()?.first().copied()) == Some(1);
    let is_counted = asked.optional(1).is_none() && goes_on;
    let trips = asked.optional(0).and_then(|limit| limit.ints()).filter(|_| is_counted);
    let trips = trips.and_then(|limit| usize::try_from(*limit.first()?).ok());
    let carried = body.inputs[2..].iter().zip(asked.inputs[2..].iter().flatten()).zip(&body.outputs[1..]);
    let mut outcomes: Vec<_> = carried
        .map(|((taken, given), next)| {
            let dims = common(common(taken.dims, next.dims).as_deref(), given.dims);
            Outcome::new(taken.dtype, dims)
        })
        .collect();
    outcomes.extend(body.outputs[n_carried + 1..].iter().map(|scan| {
        let dims = scan.dims.map(|dims| {
            let mut all = vec![trips.map_or(Dim::Unknown, Dim::Fixed)];
            all.extend_from_slice(dims);
            all
        });
        Outcome::new(scan.dtype, dims)
    }));
    Ok(outcomes)
}

fn infer_scan(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let body = block(asked, "body")?;
    let n_scanned = usize::try_from(asked.attributes.int("num_scan_inputs", 0)?)
        .map_err(|_| Error::invalid("num_scan_inputs is negative"))?;
    let n_state = asked.inputs.len().checked_sub(n_scanned);
    let n_state = n_state.ok_or_else(|| Error::invalid("Scan has fewer inputs than num_scan_inputs"))?;
    let length = asked.inputs.get(n_state).copied().flatten().and_then(|input| input.dims?.first().cloned());
    let outcome = |(at, output): (usize, &super::Known<'_>)| {
        let dims = output.dims.map(|dims| {
            let mut all = if at < n_state { vec![] } else { vec![length.clone().unwrap_or(Dim::Unknown)] };
            all.extend_from_slice(dims);
            all
        });
        Outcome::new(output.dtype, dims)
    };
    Ok(body.outputs.iter().enumerate().map(outcome).collect())
}
