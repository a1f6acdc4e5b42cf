//! The walk itself: what stands for what, what is known again, blocks, and nodes that were there before.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Content, MAX_COMPARED_BYTES, Rewriter, Rule};
use crate::infer::{self, Outcome};
use crate::ir::{Block, Dim, Node, ValueId};

impl Rewriter {
    pub(super) fn grow(&mut self) {
        let n = self.builder.values.len();
        self.replaced.resize(n, None);
        self.makers.resize(n, None);
        self.n_uses.resize(n, 0);
        self.is_sharper.resize(n, false);
    }

    /// Takes note of a node that was just written, if these are its outputs.
    pub(super) fn note_last(&mut self, outputs: &[ValueId]) {
        self.grow();
        let depth = self.builder.blocks.len() - 1;
        let nodes = &self.builder.blocks[depth].nodes;
        let Some(last) = nodes.last().filter(|node| node.outputs == outputs) else { return };
        if outputs.first().is_some_and(|id| self.makers[id.index()].is_some()) {
            return;
        }
        for id in outputs {
            self.makers[id.index()] = Some((depth, nodes.len() - 1));
        }
        for id in last.present_inputs() {
            self.n_uses[id.index()] += 1;
        }
    }

    /// What stands for a value now.
    pub(super) fn current(&mut self, mut id: ValueId) -> ValueId {
        while let Some(next) = self.replaced[id.index()] {
            id = next;
        }
        id
    }

    pub(super) fn replace(&mut self, from: ValueId, to: ValueId) {
        if from == to {
            return;
        }
        self.replaced[from.index()] = Some(to);
        self.n_uses[to.index()] += std::mem::take(&mut self.n_uses[from.index()]);
        let (old, new) = (self.builder.value(from), self.builder.value(to));
        if old.dims != new.dims || old.items != new.items || new.constant.is_some() {
            self.is_sharper[to.index()] = true;
        }
        if new.constant.is_none() {
            let known = old.dims.clone();
            let value = &mut self.builder.values[to.index()];
            value.dims = sharper(value.dims.take(), known);
        }
    }

    pub(super) fn nodes(&mut self, nodes: Vec<Node>, rules: &[Rule]) {
        for node in nodes {
            self.node(node, rules);
        }
    }

    pub(super) fn node(&mut self, mut node: Node, rules: &[Rule]) {
        for id in node.inputs.iter_mut().flatten() {
            self.n_uses[id.index()] = self.n_uses[id.index()].saturating_sub(1);
            *id = self.current(*id);
            if self.own.common {
                *id = self.common_constant(*id);
            }
        }
        if !node.blocks.is_empty() {
            match self.taken_branch(&node) {
                Some(key) if self.own.fold => return self.inline(node, key, rules),
                _ => self.blocks(&mut node, rules),
            }
        }
        if let Some(values) = self.applied(&node, rules) {
            for (&from, to) in node.outputs.iter().zip(values) {
                self.replace(from, to);
            }
            return;
        }
        self.keep(node);
    }

    /// Runs the rules on a node. The uses by its inputs are not counted meanwhile.
    pub(super) fn applied(&mut self, node: &Node, rules: &[Rule]) -> Option<Vec<ValueId>> {
        if self.own.common
            && let Some(values) = self.computed_before(node)
        {
            self.counts.common += 1;
            return Some(values);
        }
        for (at, rule) in rules.iter().enumerate() {
            let n_nodes = self.builder.blocks.last().map_or(0, |block| block.nodes.len());
            let done = rule(self, node).ok().flatten();
            if let Some(values) = done.filter(|values| values.len() == node.outputs.len()) {
                self.counts.rules[at] += 1;
                return Some(values);
            }
            self.forget_from(n_nodes);
        }
        None
    }

    /// Takes back what a rule added in vain.
    pub(super) fn forget_from(&mut self, n_nodes: usize) {
        let Some(block) = self.builder.blocks.last_mut() else { return };
        for node in block.nodes.drain(n_nodes.min(block.nodes.len())..) {
            for id in node.present_inputs() {
                self.n_uses[id.index()] = self.n_uses[id.index()].saturating_sub(1);
            }
            for id in node.outputs {
                self.makers[id.index()] = None;
            }
        }
    }

    pub(super) fn keep(&mut self, node: Node) {
        let changed = node.present_inputs().any(|id| self.is_sharper[id.index()]);
        if changed && self.sharpen(&node) {
            return;
        }
        let depth = self.builder.blocks.len() - 1;
        let at = self.builder.blocks[depth].nodes.len();
        for id in node.present_inputs() {
            self.n_uses[id.index()] += 1;
        }
        for id in &node.outputs {
            self.makers[id.index()] = Some((depth, at));
        }
        if self.own.common && is_comparable(&node) {
            self.known[depth].entry(hash(&node)).or_default().push(at);
        }
        self.builder.blocks[depth].nodes.push(node);
    }

    /// Infers a node again since more is known of its inputs. Whether constants took its place.
    pub(super) fn sharpen(&mut self, node: &Node) -> bool {
        let Ok(outcomes) = self.builder.infer(node, node.outputs.len()) else { return false };
        if self.own.fold
            && let Ok(Some(constants)) = self.builder.fold(node, &outcomes)
        {
            self.grow();
            self.counts.folded += 1;
            for (&from, to) in node.outputs.iter().zip(constants) {
                self.replace(from, to);
            }
            return true;
        }
        for (&id, Outcome { dims, items, .. }) in node.outputs.iter().zip(outcomes) {
            let value = &mut self.builder.values[id.index()];
            let dims = sharper(value.dims.take(), dims);
            let items = items.or(value.items.take());
            self.is_sharper[id.index()] = true;
            (value.dims, value.items) = (dims, items);
        }
        false
    }

    pub(super) fn blocks(&mut self, node: &mut Node, rules: &[Rule]) {
        for (_, block) in &mut node.blocks {
            let old = std::mem::take(block);
            self.builder.blocks.push(Block { inputs: old.inputs, ..Block::default() });
            self.known.push(HashMap::new());
            self.nodes(old.nodes, rules);
            self.known.pop();
            *block = self.builder.blocks.pop().unwrap_or_default();
            block.outputs = old.outputs.iter().map(|&id| self.current(id)).collect();
        }
    }

    /// The branch of an `If` that is always taken.
    pub(super) fn taken_branch(&self, node: &Node) -> Option<&'static str> {
        let condition = self.constant(node.input(0)?).filter(|_| node.is("If"))?;
        let yes = condition.bytes()?.first().copied()? != 0;
        Some(if yes { "then_branch" } else { "else_branch" })
    }

    pub(super) fn inline(&mut self, mut node: Node, key: &str, rules: &[Rule]) {
        let Some(at) = node.blocks.iter().position(|(name, _)| name == key) else { return self.keep(node) };
        let block = node.blocks.swap_remove(at).1;
        self.counts.folded += 1;
        self.nodes(block.nodes, rules);
        for (from, to) in node.outputs.into_iter().zip(block.outputs) {
            let to = self.current(to);
            self.replace(from, to);
        }
    }

    /// The outputs of a node before this one that computes the same.
    pub(super) fn computed_before(&self, node: &Node) -> Option<Vec<ValueId>> {
        if !is_comparable(node) {
            return None;
        }
        let hash = hash(node);
        self.known.iter().zip(&self.builder.blocks).find_map(|(known, block)| {
            let same = |&&at: &&usize| {
                let other = &block.nodes[at];
                other.op == node.op
                    && other.domain == node.domain
                    && other.inputs == node.inputs
                    && other.outputs.len() == node.outputs.len()
                    && other.attributes == node.attributes
            };
            known.get(&hash)?.iter().find(same).map(|&at| block.nodes[at].outputs.clone())
        })
    }

    /// The first constant that is the same.
    pub(super) fn common_constant(&mut self, id: ValueId) -> ValueId {
        let Some(tensor) = self.builder.constant_of(id) else { return id };
        let Some(bytes) = tensor.bytes() else { return id };
        let content = if bytes.len() <= MAX_COMPARED_BYTES {
            Content::Small(bytes.clone())
        } else {
            Content::Shared(bytes.as_ptr().addr(), bytes.len())
        };
        let key = (tensor.dtype(), tensor.shape().dims().to_vec(), content);
        *self.constants.entry(key).or_insert(id)
    }
}

fn is_comparable(node: &Node) -> bool {
    node.blocks.is_empty() && infer::is_pure(&node.domain, &node.op)
}

fn hash(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&node.domain, &node.op, &node.inputs, node.outputs.len()).hash(&mut hasher);
    hasher.finish()
}

/// What both know of the same dimensions.
fn sharper(old: Option<Vec<Dim>>, new: Option<Vec<Dim>>) -> Option<Vec<Dim>> {
    match (old, new) {
        (Some(old), Some(new)) if old.len() == new.len() => {
            let pick = |(old, new): (Dim, Dim)| match (&old, &new) {
                (_, Dim::Fixed(_)) | (Dim::Unknown, _) => new,
                _ => old,
            };
            Some(old.into_iter().zip(new).map(pick).collect())
        }
        (old, new) => new.or(old),
    }
}
