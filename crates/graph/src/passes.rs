//! Rewriting a graph without changing what it means.

mod affine;
mod dead;
mod dilated;
mod layout;
mod layout_ops;
mod noop;
mod normal;
mod patterns;
mod products;
mod recurrent;
pub(crate) mod rewrite;

use std::collections::BTreeSet;

use salver_kernels::{self as kernels, Attributes};
use salver_tensor::{DType, Tensor};

use crate::ir::Graph;
use crate::{Error, SignatureGraph};

pub(crate) use dead::dead_code;
pub use recurrent::loops_that_stay;
use rewrite::{Own, Rule};

/// Rounds over all passes; each does all that it can see, so that few are needed.
const MAX_ROUNDS: usize = 24;

/// Rounds over the rules that come before all others.
const FIRST_ROUNDS: usize = 6;

/// What a pass is made of.
enum Work {
    /// Rules that are tried at each node, in this order.
    Rules(&'static [Rule]),
    /// Nodes whose inputs are constants become constants.
    Fold,
    /// Nodes that compute the same as others go.
    Common,
    /// Nodes that nothing needs go.
    Dead,
    /// Loops that are recurrent layers become one node, when nothing else is left to do.
    Recurrent,
}

/// Every pass by name, with what it does in words.
const ALL: [(&str, &str, Work); 10] = [
    ("fold", "compute what depends on constants alone", Work::Fold),
    ("common", "compute once what is computed twice", Work::Common),
    ("identities", "leave out what changes nothing", Work::Rules(noop::RULES)),
    ("layout", "move transposes on until they cancel", Work::Rules(layout::RULES)),
    ("affine", "put scales and offsets into weights and biases", Work::Rules(affine::RULES)),
    ("patterns", "say with one operator what several say", Work::Rules(patterns::RULES)),
    ("normal", "say layer normalisation with one operator", Work::Rules(normal::RULES)),
    ("products", "multiply with constant weights as matrices", Work::Rules(products::RULES)),
    ("recurrent", "say with one operator what a loop over steps says", Work::Recurrent),
    ("dead", "leave out what no output needs", Work::Dead),
];

/// Which passes run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passes {
    off: BTreeSet<&'static str>,
}

impl Default for Passes {
    fn default() -> Passes {
        Passes::all()
    }
}

impl Passes {
    /// All of them.
    pub fn all() -> Passes {
        Passes { off: BTreeSet::new() }
    }

    /// None of them.
    pub fn none() -> Passes {
        Passes { off: Passes::names().map(|(name, _)| name).collect() }
    }

    /// The same without one.
    ///
    /// # Errors
    /// When there is no such pass; the message lists those that there are.
    pub fn without(mut self, name: &str) -> Result<Passes, Error> {
        self.off.insert(known(name)?);
        Ok(self)
    }

    /// The same and one more.
    ///
    /// # Errors
    /// As [`Passes::without`].
    pub fn with(mut self, name: &str) -> Result<Passes, Error> {
        self.off.remove(known(name)?);
        Ok(self)
    }

    /// Every pass by name, with what it does in words.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        ALL.iter().map(|(name, words, _)| (*name, *words))
    }

    fn has(&self, name: &str) -> bool {
        !self.off.contains(name)
    }
}

fn known(name: &str) -> Result<&'static str, Error> {
    let found = Passes::names().find(|(other, _)| *other == name);
    found.map(|(name, _)| name).ok_or_else(|| {
        let names: Vec<_> = Passes::names().map(|(name, _)| name).collect();
        Error::invalid(format!("there is no pass '{name}', expected one of {}", names.join(", ")))
    })
}

/// The same computation with fewer and cheaper nodes, and how often each pass changed something. Inputs and the names
/// and order of outputs stay; results stay the same but for rounding.
pub fn optimise(graph: &Graph, passes: &Passes) -> (Graph, Vec<(&'static str, usize)>) {
    let mut work = Optimiser::new(graph, passes);
    work.first();
    let mut late = [Optimiser::loops, Optimiser::last_layout].into_iter();
    for _ in 0..MAX_ROUNDS {
        if work.round() > 0 {
            continue;
        }
        // Nothing moves any more: what is better done late, and again all rounds if it changed something.
        if !late.any(|step| step(&mut work) > 0) {
            break;
        }
    }
    forget_unused(&mut work.graph);
    debug_assert!(
        is_as_whole(graph, &work.graph),
        "passes keep a graph whole: {:?}",
        crate::verify(&work.graph)
    );
    (work.graph, work.counts)
}

struct Optimiser {
    graph: Graph,
    counts: Vec<(&'static str, usize)>,
    rules: Vec<Rule>,
    /// By rule: the name of its pass.
    owners: Vec<&'static str>,
    own: Own,
}

impl Optimiser {
    fn new(graph: &Graph, passes: &Passes) -> Optimiser {
        let on: Vec<_> = ALL.iter().filter(|(name, _, _)| passes.has(name)).collect();
        let mut rules: Vec<Rule> = Vec::new();
        let mut owners = Vec::new();
        for (name, _, work) in &on {
            if let Work::Rules(list) = work {
                rules.extend_from_slice(list);
                owners.extend(std::iter::repeat_n(*name, list.len()));
            }
        }
        Optimiser {
            graph: graph.clone(),
            counts: on.iter().map(|(name, _, _)| (*name, 0)).collect(),
            rules,
            owners,
            own: Own { common: passes.has("common"), fold: passes.has("fold") },
        }
    }

    /// What is only seen as long as nothing has moved.
    fn first(&mut self) {
        let sets = [("normal", normal::RULES), ("patterns", patterns::FIRST_RULES)];
        let mut rules: Vec<Rule> = Vec::new();
        let mut owners = Vec::new();
        for (name, list) in sets.into_iter().filter(|(name, _)| self.is_on(name)) {
            rules.extend_from_slice(list);
            owners.extend(std::iter::repeat_n(name, list.len()));
        }
        for _ in 0..FIRST_ROUNDS {
            let changed = rewrite::walk(&mut self.graph, &rules, Own::default());
            for (owner, n) in owners.iter().zip(&changed.rules) {
                self.count(owner, *n);
            }
            if changed.total() == 0 {
                break;
            }
            dead_code(&mut self.graph);
        }
    }

    fn is_on(&self, name: &str) -> bool {
        self.counts.iter().any(|(other, _)| *other == name)
    }

    fn count(&mut self, name: &str, n: usize) {
        self.counts.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, sum)| *sum += n);
    }

    /// One walk with all rules. Returns how much it changed.
    fn round(&mut self) -> usize {
        let changed = rewrite::walk(&mut self.graph, &self.rules, self.own);
        for (at, &n) in changed.rules.iter().enumerate() {
            self.count(self.owners[at], n);
        }
        self.count("common", changed.common);
        self.count("fold", changed.folded);
        let total = changed.total();
        if total > 0 || self.is_on("dead") {
            // Rules leave what they replaced behind, so that this is part of every round.
            let n = dead_code(&mut self.graph);
            self.count("dead", n);
        }
        total
    }

    fn loops(&mut self) -> usize {
        let n = if self.is_on("recurrent") { recurrent::recurrent(&mut self.graph) } else { 0 };
        self.count("recurrent", n);
        n
    }

    fn last_layout(&mut self) -> usize {
        let rules = if self.is_on("layout") { layout::LAST_RULES } else { &[] };
        let n = rewrite::walk(&mut self.graph, rules, Own::default()).total();
        self.count("layout", n);
        n
    }
}

/// Whether a graph holds what it should if the one before it did.
fn is_as_whole(before: &Graph, after: &Graph) -> bool {
    crate::verify(after).is_ok() || crate::verify(before).is_err()
}

/// By value: whether a node or an output takes it.
pub(crate) fn used(graph: &Graph) -> Vec<bool> {
    let mut used = vec![false; graph.values.len()];
    graph.body.visit(&mut |node| {
        node.present_inputs().for_each(|id| used[id.index()] = true);
        node.blocks.iter().flat_map(|(_, block)| &block.outputs).for_each(|id| used[id.index()] = true);
    });
    graph.body.outputs.iter().for_each(|id| used[id.index()] = true);
    used
}

/// Lets go of the elements of constants that nothing uses any more.
pub(crate) fn forget_unused(graph: &mut Graph) {
    let used = used(graph);
    for (value, used) in graph.values.iter_mut().zip(used) {
        if !used {
            value.constant = None;
        }
    }
}

impl SignatureGraph {
    /// The same signature over an optimised graph, and how often each pass changed something. State that no run changes
    /// and no result needs is left out.
    pub fn optimised(&self, passes: &Passes) -> (SignatureGraph, Vec<(&'static str, usize)>) {
        let (graph, counts) = optimise(&self.graph, passes);
        let now = |id| {
            let at = self.graph.body.outputs.iter().position(|&old| old == id);
            at.map_or(id, |at| graph.body.outputs[at])
        };
        let mut outputs = self.outputs.clone();
        outputs.iter_mut().for_each(|port| port.value = now(port.value));
        let state_outputs = self.state_outputs.iter().map(|&(at, id)| (at, now(id))).collect();
        let mut optimised = SignatureGraph {
            name: self.name.clone(),
            method_name: self.method_name.clone(),
            inputs: self.inputs.clone(),
            outputs,
            state_inputs: self.state_inputs.clone(),
            state_outputs,
            graph,
        };
        optimised.drop_idle_state();
        (optimised, counts)
    }
}

/// The elements of a tensor of numbers.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let attributes = Attributes::new().with("to", DType::F64);
    let cast = kernels::run("", "Cast", &attributes, &[Some(tensor)], 1).ok()?;
    Some(cast.first()?.to_slice::<f64>()?.to_vec())
}

#[cfg(test)]
mod tests;
