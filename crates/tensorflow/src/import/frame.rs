//! One network while it is computed, and the operators that turned out to be missing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::branch::Plan;
use super::flow::Condition;
use super::net::{Net, Source};
use super::symbol::Symbol;
use crate::Error;

/// Operators that a signature needs and that are not there: how many nodes, the first one's name, and why if the
/// operator itself is known.
#[derive(Debug, Clone, Default)]
pub(super) struct MissingOps(BTreeMap<String, (usize, String, Option<String>)>);

impl MissingOps {
    pub(super) fn add(&mut self, op: &str, node: &str, reason: Option<String>) {
        let entry = self.0.entry(op.to_owned()).or_insert_with(|| (0, node.to_owned(), reason));
        entry.0 += 1;
    }

    /// All of them in one error, if there are any.
    pub(super) fn error(&self) -> Option<Error> {
        if self.0.is_empty() {
            return None;
        }
        let one = |(op, (n, node, reason)): (&String, &(usize, String, Option<String>))| {
            let nodes =
                if *n == 1 { format!("node '{node}'") } else { format!("{n} nodes, one is '{node}'") };
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{op} ({nodes}{reason})")
        };
        let list: Vec<String> = self.0.iter().map(one).collect();
        let n = list.len();
        let what = if n == 1 { "operator is" } else { "operators are" };
        Some(Error::unsupported(format!(
            "{n} {what} not supported: {}; the TensorFlow engine knows all of TensorFlow's (salver runtime install tensorflow)",
            list.join(", ")
        )))
    }
}

#[derive(Debug, Clone)]
pub(super) enum Slot {
    Empty,
    Running,
    Done(Vec<Symbol>),
}

/// One network while it is computed.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) net: Rc<Net<'a>>,
    pub(super) slots: Vec<Slot>,
    /// Slots that were filled, in order, so that those of an iteration or a branch can be emptied again.
    pub(super) log: Vec<usize>,
    /// What is taken for granted in a branch.
    pub(super) assumed: Vec<Condition>,
    pub(super) wanted: HashSet<Source>,
    pub(super) plans: HashMap<usize, Rc<Plan>>,
}

impl<'a> Frame<'a> {
    /// A network of which these outputs are asked for.
    pub(super) fn new(net: Rc<Net<'a>>, targets: &[Source]) -> Frame<'a> {
        let wanted = if net.has_loops { net.wanted(targets) } else { HashSet::new() };
        let slots = vec![Slot::Empty; net.len()];
        Frame { net, slots, log: Vec::new(), assumed: Vec::new(), wanted, plans: HashMap::new() }
    }

    /// Gives a node its outputs from outside.
    pub(super) fn bind(&mut self, node: usize, outputs: Vec<Symbol>) {
        self.log.push(node);
        self.slots[node] = Slot::Done(outputs);
    }

    pub(super) fn mark(&self) -> usize {
        self.log.len()
    }

    /// Forgets what was computed since the mark.
    pub(super) fn undo(&mut self, mark: usize) {
        for node in self.log.drain(mark..) {
            self.slots[node] = Slot::Empty;
        }
    }

    pub(super) fn is_done(&self, node: usize) -> bool {
        matches!(self.slots[node], Slot::Done(_))
    }

    /// An output that was computed.
    pub(super) fn get(&self, source: Source) -> Result<Symbol, Error> {
        let Slot::Done(outputs) = &self.slots[source.node] else {
            return Err(Error::invalid(format!("'{}' is used before it is there", self.name(source.node))));
        };
        match outputs.as_slice() {
            [only @ (Symbol::Dead | Symbol::Missing)] => Ok(only.clone()),
            outputs => outputs.get(source.port).cloned().ok_or_else(|| {
                let (name, n) = (self.name(source.node), outputs.len());
                Error::invalid(format!("output {} of node '{name}' is used, it has {n}", source.port))
            }),
        }
    }

    pub(super) fn name(&self, node: usize) -> &str {
        self.net.nodes.get(node).map_or("an argument", |node| node.def.name.as_str())
    }

    /// Whether a condition is taken for granted here.
    pub(super) fn assumption(&self, source: Source) -> Option<usize> {
        self.assumed.iter().rev().find(|(known, _)| *known == source).map(|(_, branch)| *branch)
    }
}
