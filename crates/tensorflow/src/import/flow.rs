//! Control flow of the old kind (`Switch`, `Merge`, `Enter`, `Exit`, `NextIteration`): which nodes make up a loop, and
//! under which conditions a node runs.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::net::{Net, Source};
use crate::Error;
use crate::ops::View;

/// How many conditions a node may stand under.
const MAX_CONDITIONS: usize = 64;

/// How many copies of a condition are followed.
const MAX_COPIES: usize = 1000;

/// A condition, by the tensor that decides, and the output of `Switch` that is taken: 1 when it holds.
pub(super) type Condition = (Source, usize);

/// The condition that a `Merge` ends: the tensor that decides, and for which output of `Switch` each input comes.
pub(super) type Choice = (Source, Vec<usize>);

/// One variable of a loop.
#[derive(Debug, Clone)]
pub(super) struct LoopVariable {
    pub(super) enter: usize,
    pub(super) merge: usize,
    pub(super) switch: Option<usize>,
    /// What is given to the next iteration.
    pub(super) next: Source,
    pub(super) exit: Option<usize>,
}

/// One loop.
#[derive(Debug, Clone)]
pub(super) struct LoopFrame {
    pub(super) name: String,
    /// What decides whether there is another iteration.
    pub(super) condition: Source,
    pub(super) variables: Vec<LoopVariable>,
    /// All nodes through which values come in.
    pub(super) enters: Vec<usize>,
}

/// The control flow of one graph.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) loops: Vec<LoopFrame>,
    /// Loop and variable of each `Exit`.
    pub(super) exits: HashMap<usize, (usize, usize)>,
    /// `Merge` nodes that are loop variables.
    loop_merges: HashMap<usize, usize>,
    loop_switches: HashMap<usize, usize>,
    /// The conditions under which each node runs.
    conditions: Vec<Rc<[Condition]>>,
    /// In how many loops each node is.
    levels: Vec<usize>,
    /// The condition that each other `Merge` ends.
    pub(super) merges: HashMap<usize, Choice>,
}

fn is(net: &Net<'_>, node: usize, ops: &[&str]) -> bool {
    net.nodes.get(node).is_some_and(|node| ops.contains(&node.def.op.as_str()))
}

const ENTER: &[&str] = &["Enter", "RefEnter"];
const EXIT: &[&str] = &["Exit", "RefExit"];
const MERGE: &[&str] = &["Merge", "RefMerge"];
const NEXT: &[&str] = &["NextIteration", "RefNextIteration"];
const SWITCH: &[&str] = &["Switch", "RefSwitch", "_SwitchN"];

impl Flow {
    /// The control flow of a graph; `None` when it has none of the old kind.
    ///
    /// # Errors
    /// When it is not as TensorFlow makes it, or a cycle goes around outside of a loop; the error names a node.
    pub(super) fn of(net: &Net<'_>) -> Result<Option<Flow>, Error> {
        let any =
            (0..net.nodes.len()).any(|at| is(net, at, SWITCH) || is(net, at, MERGE) || is(net, at, ENTER));
        if !any {
            return Ok(None);
        }
        let mut flow = Flow {
            loops: Vec::new(),
            exits: HashMap::new(),
            loop_merges: HashMap::new(),
            loop_switches: HashMap::new(),
            conditions: Vec::new(),
            levels: vec![0; net.len()],
            merges: HashMap::new(),
        };
        flow.find_loops(net);
        flow.find_conditions(net)?;
        Ok(Some(flow))
    }

    fn find_loops(&mut self, net: &Net<'_>) {
        let mut enters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut consumers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, node) in net.nodes.iter().enumerate() {
            if is(net, at, ENTER) {
                let frame = View::of(node.def).text("frame_name", "").unwrap_or_default();
                enters.entry(frame).or_default().push(at);
            }
            for source in &node.inputs {
                if is(net, source.node, ENTER) || is(net, source.node, MERGE) || is(net, source.node, SWITCH)
                {
                    consumers.entry(source.node).or_default().push(at);
                }
            }
        }
        let used_by = |node: usize| consumers.get(&node).map(Vec::as_slice).unwrap_or_default();
        for (name, enters) in enters {
            let mut variables = Vec::new();
            let mut condition = None;
            for &enter in &enters {
                for &merge in used_by(enter).iter().filter(|&&user| is(net, user, MERGE)) {
                    let inputs = &net.nodes[merge].inputs;
                    let Some(back) = inputs.iter().find(|source| is(net, source.node, NEXT)) else {
                        continue;
                    };
                    let Some(&next) = net.nodes[back.node].inputs.first() else { continue };
                    let is_end = |&&user: &&usize| {
                        let decides = net.nodes[user].inputs.get(1);
                        is(net, user, SWITCH)
                            && decides.is_some_and(|source| is(net, source.node, &["LoopCond"]))
                    };
                    let switch = used_by(merge).iter().find(is_end).copied();
                    if let Some(decides) = switch.and_then(|switch| net.nodes[switch].inputs.get(1)) {
                        condition = net.nodes[decides.node].inputs.first().copied().or(condition);
                    }
                    let exit = switch.and_then(|switch| {
                        used_by(switch).iter().find(|&&user| is(net, user, EXIT)).copied()
                    });
                    variables.push(LoopVariable { enter, merge, switch, next, exit });
                }
            }
            let Some(condition) = condition else { continue };
            let at = self.loops.len();
            for (position, variable) in variables.iter().enumerate() {
                self.loop_merges.insert(variable.merge, at);
                self.loop_switches.extend(variable.switch.map(|switch| (switch, at)));
                self.exits.extend(variable.exit.map(|exit| (exit, (at, position))));
            }
            self.loops.push(LoopFrame { name: name.to_owned(), condition, variables, enters });
        }
    }

    /// Goes through the nodes in an order in which they can be computed, and notes under which conditions each runs.
    fn find_conditions(&mut self, net: &Net<'_>) -> Result<(), Error> {
        let nobody: Rc<[Condition]> = Rc::from([]);
        self.conditions = vec![nobody; net.len()];
        for node in in_order(net)? {
            let conditions = if is(net, node, MERGE) && !self.loop_merges.contains_key(&node) {
                self.merge_conditions(net, node)?
            } else {
                self.joined(net, node)?
            };
            self.conditions[node] = conditions;
            let inputs = net.nodes[node].inputs.iter().map(|source| source.node);
            let inputs =
                inputs.filter(|&from| !is(net, from, NEXT)).chain(net.nodes[node].controls.iter().copied());
            let level = inputs.map(|from| self.levels[from]).max().unwrap_or(0);
            self.levels[node] = if is(net, node, ENTER) {
                level + 1
            } else if is(net, node, EXIT) {
                level.saturating_sub(1)
            } else {
                level
            };
        }
        Ok(())
    }

    fn joined(&self, net: &Net<'_>, at: usize) -> Result<Rc<[Condition]>, Error> {
        let node = &net.nodes[at];
        let inputs = node.inputs.iter().filter(|source| !is(net, source.node, NEXT));
        let mut joined: Option<Rc<[Condition]>> = None;
        let controls = node.controls.iter().map(|&control| Source { node: control, port: usize::MAX });
        for source in inputs.copied().chain(controls) {
            let own = self.conditions_of(net, source);
            joined = Some(match joined {
                None => own,
                Some(joined) if own.iter().all(|condition| joined.contains(condition)) => joined,
                Some(joined) if joined.iter().all(|condition| own.contains(condition)) => own,
                Some(joined) => {
                    let mut all = joined.to_vec();
                    all.extend(own.iter().filter(|condition| !joined.contains(condition)));
                    all.into()
                }
            });
        }
        let joined = joined.unwrap_or_else(|| Rc::from([]));
        if joined.len() > MAX_CONDITIONS {
            let message = format!("a node under more than {MAX_CONDITIONS} conditions");
            return Err(Error::too_large(message).at(format!("node '{}'", node.def.name)));
        }
        Ok(joined)
    }

    /// What a `Merge` has left when the condition that it ends is taken away.
    fn merge_conditions(&mut self, net: &Net<'_>, at: usize) -> Result<Rc<[Condition]>, Error> {
        let inputs = &net.nodes[at].inputs;
        let conditions: Vec<_> = inputs.iter().map(|&source| self.conditions_of(net, source)).collect();
        let Some((first, rest)) = conditions.split_first() else { return Ok(Rc::from([])) };
        // The innermost condition is noted last.
        for (decides, branch) in first.iter().rev() {
            let mut branches = vec![*branch];
            for other in rest {
                let own =
                    other.iter().find(|(source, branch)| source == decides && !branches.contains(branch));
                branches.extend(own.map(|(_, branch)| *branch));
            }
            if branches.len() == inputs.len() && branches.len() > 1 {
                self.merges.insert(at, (*decides, branches));
                break;
            }
        }
        let everywhere = first.iter().filter(|condition| rest.iter().all(|other| other.contains(condition)));
        Ok(everywhere.copied().collect())
    }

    fn conditions_of(&self, net: &Net<'_>, source: Source) -> Rc<[Condition]> {
        let own = &self.conditions[source.node];
        if source.port == usize::MAX
            || !is(net, source.node, SWITCH)
            || self.loop_switches.contains_key(&source.node)
        {
            return own.clone();
        }
        let Some(&decides) = net.nodes[source.node].inputs.get(1) else { return own.clone() };
        let condition = (decider(net, decides), source.port);
        if own.contains(&condition) {
            return own.clone();
        }
        own.iter().copied().chain(std::iter::once(condition)).collect()
    }

    /// Whether an output exists only under a condition.
    pub(super) fn stands_under(&self, net: &Net<'_>, source: Source, condition: Condition) -> bool {
        self.conditions_of(net, source).contains(&condition)
    }

    /// Whether a node runs only under some condition, or in a loop.
    pub(super) fn is_inside(&self, node: usize) -> bool {
        !self.conditions[node].is_empty() || self.levels[node] > 0
    }

    /// The loop whose variable this `Merge` is.
    pub(super) fn loop_of_merge(&self, node: usize) -> Option<usize> {
        self.loop_merges.get(&node).copied()
    }

    /// The variables of a loop that are needed to know some of them and the condition, and the nodes through which
    /// values come in for them.
    pub(super) fn needed_variables(
        &self,
        net: &Net<'_>,
        at: usize,
        wanted: &[usize],
    ) -> (Vec<usize>, Vec<usize>) {
        let frame = &self.loops[at];
        let by_merge: HashMap<usize, usize> = frame
            .variables
            .iter()
            .enumerate()
            .map(|(position, variable)| (variable.merge, position))
            .collect();
        let mut needed = vec![false; frame.variables.len()];
        let mut seen = vec![false; net.len()];
        let mut enters = Vec::new();
        let mut queue = vec![frame.condition.node];
        for &position in wanted {
            queue.push(frame.variables[position].merge);
        }
        while let Some(node) = queue.pop() {
            if std::mem::replace(&mut seen[node], true) {
                continue;
            }
            if let Some(&position) = by_merge.get(&node) {
                needed[position] = true;
                enters.push(frame.variables[position].enter);
                queue.push(frame.variables[position].next.node);
                continue;
            }
            if is(net, node, ENTER) && frame.enters.contains(&node) {
                enters.push(node);
                continue;
            }
            let Some(node) = net.nodes.get(node) else { continue };
            queue.extend(node.inputs.iter().map(|source| source.node));
        }
        ((0..needed.len()).filter(|&position| needed[position]).collect(), enters)
    }
}

/// The tensor that decides, without the copies of it that TensorFlow makes.
pub(super) fn decider(net: &Net<'_>, source: Source) -> Source {
    let mut source = source;
    for _ in 0..MAX_COPIES {
        let Some(node) = net.nodes.get(source.node) else { break };
        let copies = matches!(node.def.op.as_str(), "Identity" | "Enter");
        match node.inputs.first() {
            Some(&from) if copies => source = from,
            _ => break,
        }
    }
    source
}

/// All nodes, each behind its inputs; what comes from the iteration before does not count.
fn in_order(net: &Net<'_>) -> Result<Vec<usize>, Error> {
    let n = net.nodes.len();
    let mut waits = vec![0usize; n];
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (at, node) in net.nodes.iter().enumerate() {
        let inputs = node.inputs.iter().map(|source| source.node).filter(|&from| !is(net, from, NEXT));
        for from in inputs.chain(node.controls.iter().copied()).filter(|&from| from < n) {
            consumers[from].push(at);
            waits[at] += 1;
        }
    }
    let mut order: Vec<usize> = (0..n).filter(|&at| waits[at] == 0).collect();
    let mut done = 0;
    while let Some(&at) = order.get(done) {
        done += 1;
        for &user in &consumers[at] {
            waits[user] -= 1;
            if waits[user] == 0 {
                order.push(user);
            }
        }
    }
    match (0..n).find(|&at| waits[at] > 0) {
        None => Ok(order),
        Some(at) => {
            let name = &net.nodes[at].def.name;
            Err(Error::invalid("the graph has a cycle outside of loops").at(format!("node '{name}'")))
        }
    }
}
