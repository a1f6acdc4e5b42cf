//! Telling what a loop's outputs are in terms of the cells that were found in it.

use salver_tensor::DType;

use super::atoms::Atom;
use super::body::{Carried, Reading, Source};
use super::counts::{Count, length};
use super::plan::{Around, Found};
use super::row::close;
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

/// What an output of the loop is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output {
    /// What a value of around the loop is.
    Same(ValueId),
    /// A number of steps, or so.
    Count(Count),
    /// A layer's last state, `[batch, hidden]`: 0 the output, 1 the cell state.
    Last { layer: usize, state: usize },
    /// The last output with a first dimension of 1.
    Single { layer: usize },
    /// All outputs `[steps, batch, hidden]`; `backwards` when they are not in the sequence's order.
    All { layer: usize, backwards: bool },
}

/// Telling what the loop's outputs are.
pub(super) struct Outputs<'a> {
    pub(super) around: &'a Around<'a>,
    pub(super) reading: &'a Reading<'a>,
    pub(super) found: &'a [Found],
    pub(super) n_steps: Count,
}

impl Outputs<'_> {
    /// The output of that number.
    ///
    /// # Errors
    /// When it is nothing that the cells give.
    pub(super) fn output(&self, at: usize) -> Result<Output, Error> {
        match self.reading.carried.get(at) {
            Some(carried) => self.carried(at, *carried),
            None => {
                let scanned = self.reading.body.outputs.get(at + 1);
                let scanned = *scanned.ok_or_else(|| Error::invalid("the body lacks an output"))?;
                let layer = self.layer(scanned)?;
                Ok(Output::All { layer, backwards: self.found[layer].at != Count::ITERATION })
            }
        }
    }

    fn carried(&self, number: usize, carried: Carried) -> Result<Output, Error> {
        if carried.now == carried.next {
            return Ok(Output::Same(carried.initial));
        }
        if let Some(count) = self.last_count(carried) {
            return Ok(Output::Count(count));
        }
        for (layer, found) in self.found.iter().enumerate() {
            if let Some(state) = found.cell.states.iter().position(|&state| state == number) {
                return Ok(Output::Last { layer, state });
            }
        }
        match self.stacked(carried)? {
            Some(output) => Ok(output),
            None => Ok(Output::Last { layer: self.layer(carried.next)?, state: 0 }),
        }
    }

    /// What a counter is after the last step.
    fn last_count(&self, carried: Carried) -> Option<Count> {
        let dtype = self.around.graph.value(carried.now).dtype;
        let start = self.reading.counts.known.get(&carried.now)?;
        let per_step = Count { iterations: 0, steps: start.iterations, add: 0 };
        let grown =
            if self.n_steps == Count::STEPS { per_step } else { self.n_steps.times(start.iterations)? };
        let count = Count { iterations: 0, ..*start }.plus(grown)?;
        matches!(dtype, DType::I32 | DType::I64).then_some(count)
    }

    /// Outputs that are written into a tensor step by step.
    fn stacked(&self, carried: Carried) -> Result<Option<Output>, Error> {
        let counts = &self.reading.counts;
        let writes = |node: &&&Node| node.is("ScatterND") && node.input(0) == Some(carried.now);
        let Some(node) = counts.producers.get(&carried.next).filter(writes) else { return Ok(None) };
        let (Some(place), Some(update)) = (node.input(1), node.input(2)) else { return Ok(None) };
        let layer = self.layer(update)?;
        let place =
            counts.of(place).ok_or_else(|| Error::unsupported("outputs are written to unknown places"))?;
        let length = length(counts, carried.initial, 0);
        if place == Count::number(0) && length == Some(Count::number(1)) {
            return Ok(Some(Output::Single { layer }));
        }
        let everywhere = length == Some(self.n_steps);
        let backwards = place != self.found[layer].at;
        let one_end = place == Count::ITERATION || Some(place) == Count::from_the_end(self.n_steps);
        if everywhere && one_end {
            return Ok(Some(Output::All { layer, backwards }));
        }
        Err(Error::unsupported("outputs are not written from one end to the other"))
    }

    /// The layer whose output in each step a value of the body is.
    fn layer(&self, id: ValueId) -> Result<usize, Error> {
        let row = self.reading.row(id)?;
        let other = || {
            let name = &self.around.graph.value(id).name;
            Error::unsupported(format!("value '{name}' leaves the loop but is no state"))
        };
        let [(atom, coefficients)] = &row.terms[..] else { return Err(other()) };
        let Atom::Input(number) = self.reading.atoms.get(*atom) else { return Err(other()) };
        let run = coefficients.run().ok_or_else(other)?;
        let whole = run.0 == 0
            && row.width() == self.reading.atoms.width(*atom)
            && run.1.iter().all(|&by| close(by, 1.0))
            && row.bias.iter().all(|&bias| bias == 0.0);
        match self.reading.inputs[*number].source {
            Source::Cell(layer) if whole => Ok(layer),
            _ => Err(other()),
        }
    }

    /// Nodes that take only the last step of an output with all steps.
    pub(super) fn last_picks(&self, outputs: &[(ValueId, Output)]) -> Vec<(ValueId, Output)> {
        let mut counts = self.reading.counts.clone();
        for (id, output) in outputs {
            if let Output::Count(count) = output {
                counts.known.insert(*id, *count);
            }
        }
        let mut picks = Vec::new();
        for node in self.around.siblings.iter().filter(|node| node.is("Gather")) {
            let all = outputs.iter().find(|(id, _)| node.input(0) == Some(*id));
            let Some((_, Output::All { layer, backwards })) = all else { continue };
            let (Some(at), Some(&picked)) = (node.input(1), node.outputs.first()) else { continue };
            // The last step stands at the end of what is in the order of the steps.
            let in_order = *backwards == (self.found[*layer].at != Count::ITERATION);
            let last = self.n_steps.plus(Count::number(-1));
            let count = counts.of(at);
            let is_last = count.is_some() && (count == Some(Count::number(-1)) || count == last);
            let is_first_axis = node.attributes.int("axis", 0).ok() == Some(0);
            let output = match self.around.graph.value(at).dims.as_deref() {
                Some([]) => Output::Last { layer: *layer, state: 0 },
                Some([Dim::Fixed(1)]) => Output::Single { layer: *layer },
                _ => continue,
            };
            if is_last && in_order && is_first_axis {
                picks.push((picked, output));
            }
        }
        picks
    }
}
