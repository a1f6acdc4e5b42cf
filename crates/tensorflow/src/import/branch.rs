//! Conditions: `If` and `Case` of functions, and `Switch` and `Merge`. Known ones are decided, others become ONNX's `If`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use salver_graph::{Attributes, Block, ValueId};
use salver_tensor::DType;

use super::frame::Frame;
use super::net::Source;
use super::node::Symbols;
use super::session::Session;
use super::symbol::{Content, List, Symbol};
use crate::Error;

/// What is computed in the branches of a condition.
pub(super) enum Branch<'b, 'a> {
    Functions {
        yes: &'b str,
        no: &'b str,
        arguments: Vec<Symbol>,
    },
    /// One function, or else the later ones of a case.
    Case {
        name: &'b str,
        index: ValueId,
        number: usize,
        branch: &'b str,
        rest: &'b [&'b str],
        arguments: Vec<Symbol>,
    },
    /// The inputs of some `Merge` nodes in one branch, or else in the later ones.
    Nodes {
        name: &'b str,
        frame: &'b mut Frame<'a>,
        plan: Rc<Plan>,
        index: ValueId,
        first: usize,
        rest: &'b [usize],
    },
}

/// `Merge` nodes that end one condition, and what must be computed before the branches.
#[derive(Debug)]
pub(super) struct Plan {
    decides: Source,
    merges: Vec<usize>,
    before: Vec<usize>,
}

/// What one branch gives.
struct Ending {
    block: Block,
    outputs: Vec<Symbol>,
    /// The values of the outputs that are values or lists.
    values: Vec<Option<ValueId>>,
    variables: BTreeMap<usize, Symbol>,
}

impl<'a> Session<'_, 'a> {
    /// Both branches of a condition that is not known, as one `If`.
    pub(super) fn either(&mut self, name: &str, condition: ValueId, branch: &mut Branch<'_, 'a>) -> Symbols {
        let depth = self.builder.depth();
        let outcome = self.both(name, condition, branch);
        if outcome.is_err() {
            self.close_blocks(depth);
        }
        outcome
    }

    fn both(&mut self, name: &str, condition: ValueId, branch: &mut Branch<'_, 'a>) -> Symbols {
        let condition = self.scalar_truth(condition)?;
        let before = self.current.clone();
        let yes = self.branch(branch, true)?;
        self.current.clone_from(&before);
        let no = self.branch(branch, false)?;
        self.current.clone_from(&before);
        if yes.outputs.len() != no.outputs.len() {
            return Err(Error::invalid("the branches of a condition give different numbers of values"));
        }
        let (mut then_values, mut else_values) = (Vec::new(), Vec::new());
        let mut results = Vec::with_capacity(yes.outputs.len());
        let mut places = Vec::new();
        for (at, (a, b)) in yes.outputs.iter().zip(&no.outputs).enumerate() {
            let result = match (a, b) {
                (Symbol::Missing, _) | (_, Symbol::Missing) => Symbol::Missing,
                (a, b) if a == b => a.clone(),
                _ => match (yes.values[at], no.values[at]) {
                    (Some(a), Some(b)) => {
                        places.push((at, joined_list(&yes.outputs[at], &no.outputs[at])));
                        then_values.push(a);
                        else_values.push(b);
                        Symbol::Dead
                    }
                    _ => {
                        return Err(Error::unsupported(
                            "a condition chooses between things that are not tensors",
                        ));
                    }
                },
            };
            results.push(result);
        }
        let mut changed = Vec::new();
        let touched: BTreeSet<usize> = yes.variables.keys().chain(no.variables.keys()).copied().collect();
        for at in touched {
            let (a, b) = (yes.variables.get(&at), no.variables.get(&at));
            if a == b && a == before.get(&at) {
                continue;
            }
            let mut one = |own: Option<&Symbol>| match own {
                Some(Symbol::Value(value)) => Ok(*value),
                Some(_) => Err(Error::unsupported("a variable is set in a branch to what is not a tensor")),
                None => self.read(at),
            };
            then_values.push(one(a)?);
            else_values.push(one(b)?);
            changed.push(at);
        }
        if then_values.is_empty() {
            return Ok(results);
        }
        let (mut yes, mut no) = (yes.block, no.block);
        yes.outputs.clone_from(&then_values);
        no.outputs.clone_from(&else_values);
        let blocks = vec![("then_branch", yes), ("else_branch", no)];
        let n = then_values.len();
        let outputs =
            self.builder.with_blocks(name, "If", &[Some(condition)], Attributes::new(), blocks, n)?;
        let n_results = places.len();
        for ((at, list), &value) in places.into_iter().zip(&outputs) {
            results[at] = match list {
                None => Symbol::Value(value),
                Some(list) => list.with(Content::Stacked(value)),
            };
        }
        for (at, &value) in changed.into_iter().zip(&outputs[n_results..]) {
            self.write(at, Symbol::Value(value));
        }
        Ok(results)
    }

    fn branch(&mut self, branch: &mut Branch<'_, 'a>, holds: bool) -> Result<Ending, Error> {
        self.builder.begin_block()?;
        let outputs = match branch {
            Branch::Functions { yes, no, arguments } => {
                self.call(if holds { yes } else { no }, arguments.clone())?
            }
            Branch::Case { branch, arguments, .. } if holds => self.call(branch, arguments.clone())?,
            Branch::Case { name, index, number, rest, arguments, .. } => {
                self.cases(name, *index, *number + 1, rest, arguments)?
            }
            Branch::Nodes { frame, plan, first, .. } if holds => self.merge_inputs(frame, plan, *first)?,
            Branch::Nodes { name, frame, plan, index, rest, .. } => {
                self.merge_branches(name, frame, plan, *index, rest)?
            }
        };
        let mut values = Vec::with_capacity(outputs.len());
        for output in &outputs {
            values.push(match output {
                Symbol::Value(_) | Symbol::Stored(_) | Symbol::List(_) => Some(self.value(output)?),
                Symbol::Variable(at) if matches!(branch, Branch::Nodes { .. }) => Some(self.read(*at)?),
                _ => None,
            });
        }
        let block = self.builder.end_block(&[]);
        Ok(Ending { block, outputs, values, variables: self.current.clone() })
    }

    /// A condition with one element as a scalar.
    fn scalar_truth(&mut self, condition: ValueId) -> Result<ValueId, Error> {
        if self.builder.rank(condition).is_none_or(|rank| rank == 0) {
            return Ok(condition);
        }
        let empty = self.builder.i64s(&[]);
        self.builder.op("condition", "Reshape", &[condition, empty], Attributes::new())
    }

    /// What a `Merge` must wait for: what decides, then the live input or what the branches need from outside.
    pub(super) fn merge_waits_for(&mut self, frame: &mut Frame<'a>, at: usize) -> Result<Vec<usize>, Error> {
        let net = frame.net.clone();
        let inputs = || net.nodes[at].inputs.iter().map(|source| source.node).collect::<Vec<_>>();
        let flow = net.flow.as_ref().ok_or_else(|| Error::invalid("a Merge without control flow"))?;
        if flow.loop_of_merge(at).is_some() {
            let place = format!("node '{}'", frame.name(at));
            return Err(Error::invalid("a variable of a loop is used outside of it").at(place));
        }
        let Some((decides, branches)) = flow.merges.get(&at) else { return Ok(inputs()) };
        if frame.assumption(*decides).is_none() && !frame.is_done(decides.node) {
            return Ok(vec![decides.node]);
        }
        Ok(match self.known_branch(frame, *decides) {
            Some(taken) => vec![inputs()[live(branches, taken)]],
            None => self.plan(frame, at, (*decides, branches)).before.clone(),
        })
    }

    /// The outputs of a `Merge` that ends a condition.
    pub(super) fn merge(&mut self, frame: &mut Frame<'a>, at: usize) -> Symbols {
        let net = frame.net.clone();
        let inputs = &net.nodes[at].inputs;
        let Some((decides, branches)) = net.flow.as_ref().and_then(|flow| flow.merges.get(&at)) else {
            for (number, &input) in inputs.iter().enumerate() {
                let symbol = frame.get(input)?;
                if symbol != Symbol::Dead {
                    return self.merged(symbol, number);
                }
            }
            return Ok(vec![Symbol::Dead]);
        };
        if let Some(taken) = self.known_branch(frame, *decides) {
            let number = live(branches, taken);
            let symbol = frame.get(inputs[number])?;
            return self.merged(symbol, number);
        }
        let condition = frame.get(*decides)?;
        if matches!(condition, Symbol::Missing | Symbol::Dead) {
            return Ok(vec![condition]);
        }
        let index = self.value(&condition)?;
        let plan = self.plan(frame, at, (*decides, branches));
        let name = frame.name(at).to_owned();
        let mut order = branches.clone();
        order.sort_unstable();
        if self.builder.dtype(index) == DType::Bool {
            order.reverse();
        }
        let outputs = self.merge_branches(&name, frame, &plan, index, &order)?;
        let mut own = Symbol::Missing;
        for (&merge, output) in plan.merges.iter().zip(outputs) {
            if merge == at {
                own = output;
            } else {
                frame.bind(merge, vec![output]);
            }
        }
        Ok(vec![own])
    }

    /// The first of these branches against the others.
    fn merge_branches(
        &mut self,
        name: &str,
        frame: &mut Frame<'a>,
        plan: &Rc<Plan>,
        index: ValueId,
        order: &[usize],
    ) -> Symbols {
        let [first, rest @ ..] = order else { return Err(Error::invalid("a Merge without inputs")) };
        if rest.is_empty() {
            return self.merge_inputs(frame, plan, *first);
        }
        let dtype = self.builder.dtype(index);
        let condition = if dtype == DType::Bool {
            index
        } else {
            let own = self.int(i64::try_from(*first).unwrap_or(i64::MAX), dtype)?;
            self.builder.op(name, "Equal", &[index, own], Attributes::new())?
        };
        let plan = plan.clone();
        self.either(name, condition, &mut Branch::Nodes { name, frame, plan, index, first: *first, rest })
    }

    /// What a decided `Merge` gives: the value, and which input it is.
    fn merged(&mut self, symbol: Symbol, number: usize) -> Symbols {
        let number = self.int(i64::try_from(number).unwrap_or(0), DType::I32)?;
        Ok(vec![symbol, Symbol::Value(number)])
    }

    /// The inputs of the merges in one branch.
    fn merge_inputs(&mut self, frame: &mut Frame<'a>, plan: &Plan, branch: usize) -> Symbols {
        let net = frame.net.clone();
        let mut sources = Vec::with_capacity(plan.merges.len());
        for &merge in &plan.merges {
            // The merges of one condition may have their inputs in different orders.
            let choice = net.flow.as_ref().and_then(|flow| flow.merges.get(&merge));
            let own = choice.map_or(0, |(_, branches)| live(branches, branch));
            sources.push(net.nodes[merge].inputs[own]);
        }
        let targets: Vec<usize> = sources.iter().map(|source| source.node).collect();
        let mark = frame.mark();
        frame.assumed.push((plan.decides, branch));
        let outcome = self
            .compute(frame, &targets)
            .and_then(|()| sources.into_iter().map(|source| frame.get(source)).collect::<Symbols>());
        frame.assumed.pop();
        frame.undo(mark);
        outcome
    }

    fn plan(&self, frame: &mut Frame<'a>, at: usize, choice: (Source, &[usize])) -> Rc<Plan> {
        if let Some(plan) = frame.plans.get(&at) {
            return plan.clone();
        }
        let net = frame.net.clone();
        let scope = |node: usize| net.nodes[node].def.name.rsplit_once('/').map(|(scope, _)| scope);
        let merges = net.flow.as_ref().map(|flow| &flow.merges);
        let own_scope = scope(at).filter(|scope| !scope.is_empty());
        let related = merges.into_iter().flatten().filter(|(node, (decides, branches))| {
            **node != at
                && *decides == choice.0
                && branches.len() == choice.1.len()
                && own_scope.is_some()
                && scope(**node) == own_scope
        });
        let mut group: Vec<usize> = related.map(|(node, _)| *node).chain(std::iter::once(at)).collect();
        group.sort_unstable();
        let plan = self.plan_of(frame, &group, choice.0);
        let plan = plan.or_else(|| self.plan_of(frame, &[at], choice.0));
        let nothing = || Plan { decides: choice.0, merges: vec![at], before: Vec::new() };
        let plan = Rc::new(plan.unwrap_or_else(nothing));
        frame.plans.insert(at, plan.clone());
        plan
    }

    /// What these merges need from outside of their condition; `None` when one needs another.
    fn plan_of(&self, frame: &Frame<'a>, merges: &[usize], decides: Source) -> Option<Plan> {
        let net = frame.net.clone();
        let flow = net.flow.as_ref()?;
        let mut before = Vec::new();
        let mut seen: HashSet<usize> = HashSet::new();
        let mut queue: Vec<(Source, usize)> = Vec::new();
        for &merge in merges {
            let (_, branches) = flow.merges.get(&merge)?;
            queue.extend(net.nodes[merge].inputs.iter().copied().zip(branches.iter().copied()));
        }
        while let Some((source, branch)) = queue.pop() {
            if merges.contains(&source.node) {
                return None;
            }
            if frame.is_done(source.node) {
                continue;
            }
            if !flow.stands_under(&net, source, (decides, branch)) {
                before.push(source.node);
                continue;
            }
            if !seen.insert(source.node) {
                continue;
            }
            if let Some(&(at, _)) = flow.exits.get(&source.node) {
                let enters = flow.loops[at].enters.iter().flat_map(|&enter| net.nodes[enter].inputs.first());
                queue.extend(enters.map(|&input| (input, branch)));
                continue;
            }
            let Some(node) = net.nodes.get(source.node) else { continue };
            queue.extend(node.inputs.iter().map(|&input| (input, branch)));
        }
        before.sort_unstable();
        before.dedup();
        Some(Plan { decides, merges: merges.to_vec(), before })
    }
}

/// The input that comes when a branch is taken; an index beyond all of them takes the last one.
fn live(branches: &[usize], taken: usize) -> usize {
    let exact = branches.iter().position(|&branch| branch == taken);
    let last = || branches.iter().enumerate().max_by_key(|(_, branch)| **branch).map_or(0, |(at, _)| at);
    exact.unwrap_or_else(last)
}

/// What two lists have in common, when both are lists.
fn joined_list(a: &Symbol, b: &Symbol) -> Option<List> {
    let (Symbol::List(a), Symbol::List(b)) = (a, b) else { return None };
    let dims = match (&a.dims, &b.dims) {
        (Some(a), Some(b)) if a == b => Some(a.clone()),
        _ => None,
    };
    Some(List { dtype: a.dtype, dims, content: a.content.clone() })
}
