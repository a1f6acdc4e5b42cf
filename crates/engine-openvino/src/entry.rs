//! What is looked at before each run: sizes and positions that OpenVINO does not look at itself.

use std::collections::BTreeMap;

use salver_engine::{Error, ErrorKind};
use salver_graph::{Dim, Graph};
use salver_tensor::{DType, Signature, Tensor};

use crate::facts::Condition;

/// One dimension of one input, by their positions.
type Place = (usize, usize);

/// What a model asks of its inputs beyond their element types and shapes.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The largest size that is taken for a dimension that is open.
    pub(crate) max_dim: usize,
    /// Inputs whose elements are positions: the first and the last that there is.
    within: BTreeMap<usize, (i64, i64)>,
    /// Dimensions that must have a size or more.
    at_least: Vec<(Place, usize)>,
    /// Dimensions that must all be of one size.
    alike: Vec<Vec<Place>>,
}

impl Entry {
    pub(crate) fn new(
        graph: &Graph,
        signature: &Signature,
        conditions: &[Condition],
        max_dim: usize,
    ) -> Entry {
        let place = |name: &str| signature.inputs().iter().position(|spec| &*spec.name == name);
        let named = |symbol: &str| -> Vec<Place> {
            let inputs = graph.inputs().iter().filter_map(|&id| {
                let value = graph.value(id);
                Some((place(&value.name)?, value.dims.as_deref().unwrap_or_default()))
            });
            let is = |dim: &Dim| matches!(dim, Dim::Symbol(name) if &**name == symbol);
            inputs
                .flat_map(|(input, dims)| {
                    let named = dims.iter().enumerate().filter(|(_, dim)| is(dim));
                    named.map(move |(axis, _)| (input, axis))
                })
                .collect()
        };
        let mut entry = Entry { max_dim, within: BTreeMap::new(), at_least: Vec::new(), alike: Vec::new() };
        for condition in conditions {
            match condition {
                Condition::Within { input, from, to } => {
                    let Some(at) = place(&graph.value(*input).name) else { continue };
                    let bounds = entry.within.entry(at).or_insert((*from, *to));
                    *bounds = (bounds.0.max(*from), bounds.1.min(*to));
                }
                Condition::AtLeast { symbol, size } => {
                    entry.at_least.extend(named(symbol).into_iter().map(|place| (place, *size)));
                }
                Condition::Alike { symbol } => {
                    let places = named(symbol);
                    if places.len() > 1 && !entry.alike.contains(&places) {
                        entry.alike.push(places);
                    }
                }
            }
        }
        entry
    }

    /// Looks at the inputs of a run, whose shapes and element types are the signature's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] at the first input that does not do.
    pub(crate) fn check(&self, signature: &Signature, inputs: &[Tensor]) -> Result<(), Error> {
        let refuse = |at: usize, message: String| {
            let place = format!("input '{}'", signature.inputs()[at].name);
            Err(Error::new(ErrorKind::InvalidInput, message).at(place))
        };
        let size = |(at, axis): Place| inputs[at].shape().dims().get(axis).copied().unwrap_or(0);
        for &(place, least) in &self.at_least {
            if size(place) < least {
                let message = format!(
                    "dimension {} is {}, expected {least} or more: the model takes that many of it",
                    place.1,
                    size(place)
                );
                return refuse(place.0, message);
            }
        }
        for places in &self.alike {
            let first = places[0];
            if let Some(&other) = places.iter().find(|&&place| size(place) != size(first)) {
                let message = format!(
                    "dimension {} is {}, expected {} as of input '{}'",
                    other.1,
                    size(other),
                    size(first),
                    signature.inputs()[first.0].name
                );
                return refuse(other.0, message);
            }
        }
        for (&at, &bounds) in &self.within {
            if let Some((element, value)) = outside(&inputs[at], bounds) {
                let message = format!(
                    "element {element} is {value}, expected a position from {} to {}",
                    bounds.0, bounds.1
                );
                return refuse(at, message);
            }
        }
        Ok(())
    }
}

/// The first element that is not between the bounds, and its place.
fn outside(tensor: &Tensor, (from, to): (i64, i64)) -> Option<(usize, i64)> {
    if tensor.dtype() == DType::I32 {
        let ints = tensor.to_slice::<i32>()?;
        return ints.iter().map(|&int| i64::from(int)).enumerate().find(|&(_, int)| int < from || int > to);
    }
    tensor.to_slice::<i64>()?.iter().copied().enumerate().find(|&(_, int)| int < from || int > to)
}
