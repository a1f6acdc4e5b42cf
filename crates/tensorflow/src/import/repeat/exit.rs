//! Loops of the old kind, from the node through which their values leave.

use super::Repeated;
use crate::Error;
use crate::import::frame::Frame;
use crate::import::net::Source;
use crate::import::node::Symbols;
use crate::import::session::Session;
use crate::import::symbol::Symbol;

impl<'a> Session<'_, 'a> {
    /// What an `Exit` must wait for: what goes into its loop.
    pub(in crate::import) fn exit_waits_for(
        &mut self,
        frame: &mut Frame<'a>,
        at: usize,
    ) -> Result<Vec<usize>, Error> {
        let (_, _, enters) = plan_of_loop(frame, at)?;
        let inputs = enters.iter().filter_map(|&enter| frame.net.nodes[enter].inputs.first());
        Ok(inputs.map(|source| source.node).collect())
    }

    /// The loop that an `Exit` ends; all of its needed variables are known then.
    pub(in crate::import) fn exit(&mut self, frame: &mut Frame<'a>, at: usize) -> Symbols {
        let (number, positions, _) = plan_of_loop(frame, at)?;
        let net = frame.net.clone();
        let flow = net.flow.as_ref().ok_or_else(|| Error::invalid("a loop without control flow"))?;
        let variables: Vec<_> = positions.iter().map(|&at_| &flow.loops[number].variables[at_]).collect();
        let mut initial = Vec::with_capacity(variables.len());
        let mut wanted = Vec::with_capacity(variables.len());
        for variable in &variables {
            let enter = &net.nodes[variable.enter];
            let source = enter.inputs.first().ok_or_else(|| Error::invalid("an Enter without input"))?;
            let symbol = frame.get(*source)?;
            initial.push(self.same(enter.def, symbol)?);
            wanted.push(variable.exit.is_some_and(|exit| exit == at || is_wanted(frame, exit)));
        }
        let name = flow.loops[number].name.clone();
        let mut repeated = Repeated::Nodes { frame: &mut *frame, at: number, positions };
        let results = self.repeat(&name, &mut repeated, initial, &wanted)?;
        let mut own = Symbol::Missing;
        for (variable, result) in variables.iter().zip(results) {
            match variable.exit {
                Some(exit) if exit == at => own = result,
                Some(exit) if !frame.is_done(exit) => frame.bind(exit, vec![result]),
                _ => {}
            }
        }
        Ok(vec![own])
    }
}

fn is_wanted(frame: &Frame<'_>, exit: usize) -> bool {
    frame.wanted.contains(&Source { node: exit, port: 0 })
}

/// The loop of an `Exit`, which of its variables are needed, and the nodes through which values come in.
fn plan_of_loop(frame: &Frame<'_>, at: usize) -> Result<(usize, Vec<usize>, Vec<usize>), Error> {
    let flow = frame.net.flow.as_ref();
    let known = flow.and_then(|flow| Some((flow, *flow.exits.get(&at)?)));
    let (flow, (number, own)) = known.ok_or_else(|| Error::unsupported("an Exit without a loop"))?;
    let variables = flow.loops[number].variables.iter().enumerate();
    let wanted = variables.filter(|(position, variable)| {
        *position == own || variable.exit.is_some_and(|exit| is_wanted(frame, exit))
    });
    let wanted: Vec<usize> = wanted.map(|(position, _)| position).collect();
    let (positions, enters) = flow.needed_variables(&frame.net, number, &wanted);
    Ok((number, positions, enters))
}
