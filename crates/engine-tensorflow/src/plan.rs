//! How a signature is run: what is fed and fetched, and what of it comes back.

use salver_engine::{Error, ErrorKind};
use salver_tensor::{DType, Dims, Signature, TensorSpec};
use salver_tensorflow::import::{PortOutline, SignatureOutline};
use salver_tensorflow::read::{dtype_from_number, dtype_name};

use crate::failure;
use crate::sys::{Call, Port, Session};

/// How one signature is run.
#[derive(Debug)]
pub(crate) struct Run {
    /// The number of the signature's inputs.
    pub(crate) n_inputs: usize,
    /// The positions of the inputs that are fed.
    pub(crate) feeds: Vec<usize>,
    /// Fetches all that the outputs need, each tensor once.
    pub(crate) all: Call,
    /// Each fetches one of that.
    pub(crate) single: Vec<Call>,
    /// Where each output comes from, in the signature's order.
    pub(crate) outputs: Vec<Origin>,
    /// Whether a run changes what later runs give.
    pub(crate) changes_state: bool,
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A position in [`Run::single`], and among what [`Run::all`] fetches.
    Fetch(usize),
    /// The input at this position: TensorFlow does not fetch what is fed.
    Input(usize),
}

/// How much of a signature is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// Only this fetch.
    One(usize),
    Nothing,
}

impl Wanted {
    /// What to fetch for outputs of these origins. All, or one: TensorFlow prepares and keeps a graph for each
    /// combination that it meets, and there shall be few. A run that changes something does all of it.
    fn of(origins: impl Iterator<Item = Origin>, changes_state: bool) -> Wanted {
        let mut wanted = None;
        for origin in origins {
            match (origin, wanted) {
                (Origin::Fetch(at), Some(Wanted::One(other))) if at != other => return Wanted::All,
                (Origin::Fetch(at), _) => wanted = Some(Wanted::One(at)),
                (Origin::Input(_), None) => wanted = Some(Wanted::Nothing),
                (Origin::Input(_), Some(_)) => {}
            }
        }
        if changes_state { Wanted::All } else { wanted.unwrap_or(Wanted::All) }
    }
}

impl Run {
    /// How much is run for these outputs.
    pub(crate) fn wanted(&self, outputs: &[usize]) -> Wanted {
        let origins = outputs.iter().filter_map(|&at| self.outputs.get(at).copied());
        match self.single.as_slice() {
            [] if !self.changes_state => Wanted::Nothing,
            [_] => Wanted::All,
            _ => Wanted::of(origins, self.changes_state),
        }
    }
}

/// The signature as everybody else sees it, and how it is run.
pub(crate) fn plan(session: &mut Session, outline: &SignatureOutline) -> Result<(Signature, Run), Error> {
    let mut ports = Vec::new();
    let (mut inputs, mut declared_inputs) = (Vec::new(), Vec::new());
    for of in &outline.inputs {
        let place = |error: Error| error.at(format!("input '{}'", of.name));
        let (port, dtype) = port(session, of).map_err(place)?;
        ports.push((Side::Input, of.name.as_str(), port));
        let dims = match (of.dims.known(), of.rank) {
            (None, Some(rank)) => Dims::new(vec![None; rank]),
            _ => of.dims.clone(),
        };
        inputs.push(spec(of, dtype, dims));
        declared_inputs.push(spec(of, of.dtype.unwrap_or(dtype), of.dims.clone()));
    }
    let (mut outputs, mut declared_outputs) = (Vec::new(), Vec::new());
    for of in &outline.outputs {
        let place = |error: Error| error.at(format!("output '{}'", of.name));
        let (port, dtype) = port(session, of).map_err(place)?;
        ports.push((Side::Output, of.name.as_str(), port));
        let own = session.dims(port).map_err(|failure| place(failure::of_load(&failure)))?;
        let own = own.map_or_else(|| of.dims.clone(), Dims::new);
        // A frozen graph declares nothing of its outputs.
        let (number, dims) = of.dtype.map_or((dtype, &own), |number| (number, &of.dims));
        declared_outputs.push(spec(of, number, dims.clone()));
        outputs.push(spec(of, dtype, own));
    }
    let mut signature = Signature::new(outline.name.as_str(), outline.method_name.as_str(), inputs, outputs)
        .with_declared(declared_inputs, declared_outputs);
    // TensorFlow holds no request to the shape that a signature declares, and clients count on it. Where more than single
    // elements are at stake the shape is held to all the same: a kernel that is given another one may end the process.
    if outline.is_elementwise {
        signature = signature.with_any_shape();
    }
    if outline.changes_state {
        signature = signature.with_state();
    }
    let run = run(session, &signature, &ports, outline.changes_state)?;
    Ok((signature, run))
}

/// Which side of a signature a tensor is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

fn spec(of: &PortOutline, dtype: DType, dims: Dims) -> TensorSpec {
    TensorSpec {
        name: of.name.as_str().into(),
        tensor_name: of.tensor_name.as_str().into(),
        dtype,
        dims,
        default: of.default.clone(),
    }
}

/// The tensor in TensorFlow's graph, and the type that it has there whatever is declared.
fn port(session: &mut Session, of: &PortOutline) -> Result<(Port, DType), Error> {
    let missing = || {
        let message = format!("there is no tensor '{}:{}' in the graph", of.node, of.output);
        Error::new(ErrorKind::InvalidModel, message)
    };
    let port = session.port(&of.node, of.output).ok_or_else(missing)?;
    let number = session.dtype(port);
    let dtype = dtype_from_number(number).ok_or_else(|| {
        let message = format!("tensors of type {} are not supported", dtype_name(number));
        Error::new(ErrorKind::Unsupported, message)
    })?;
    Ok((port, dtype))
}

fn run(
    session: &mut Session,
    signature: &Signature,
    ports: &[(Side, &str, Port)],
    changes_state: bool,
) -> Result<Run, Error> {
    let lost = || Error::new(ErrorKind::Internal, "a signature lacks one of its own names");
    let of_side = |side: Side| ports.iter().filter(move |(own, _, _)| *own == side);
    let mut feeds: Vec<(Port, usize)> = Vec::new();
    for &(_, name, port) in of_side(Side::Input) {
        // One tensor under two names is fed once.
        if !feeds.iter().any(|(known, _)| *known == port) {
            feeds.push((port, signature.input_index(name).ok_or_else(lost)?));
        }
    }
    let mut fetches: Vec<Port> = Vec::new();
    let mut outputs = vec![Origin::Fetch(0); signature.outputs().len()];
    for &(_, name, port) in of_side(Side::Output) {
        let at = signature.output_index(name).ok_or_else(lost)?;
        outputs[at] = match feeds.iter().find(|(fed, _)| *fed == port) {
            Some((_, input)) => Origin::Input(*input),
            None => {
                let known = fetches.iter().position(|known| *known == port);
                Origin::Fetch(known.unwrap_or_else(|| {
                    fetches.push(port);
                    fetches.len() - 1
                }))
            }
        };
    }
    let (fed, feeds): (Vec<Port>, Vec<usize>) = feeds.into_iter().unzip();
    let all = session.call(&fed, &fetches);
    let single = fetches.iter().map(|&fetch| session.call(&fed, &[fetch])).collect();
    Ok(Run { n_inputs: signature.inputs().len(), feeds, all, single, outputs, changes_state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_combinations_are_fetched() {
        use Origin::{Fetch, Input};
        let check = |changes_state, outputs: &[Origin], expected| {
            assert_eq!(Wanted::of(outputs.iter().copied(), changes_state), expected, "{outputs:?}");
        };
        check(false, &[Fetch(0)], Wanted::One(0));
        check(false, &[Fetch(1), Input(0), Fetch(1)], Wanted::One(1));
        check(false, &[Input(0), Input(2)], Wanted::Nothing);
        check(false, &[Input(0), Fetch(2)], Wanted::One(2));
        check(false, &[Fetch(0), Fetch(2)], Wanted::All);
        check(false, &[], Wanted::All);
        check(true, &[Fetch(0)], Wanted::All);
        check(true, &[Input(0)], Wanted::All);
    }
}
