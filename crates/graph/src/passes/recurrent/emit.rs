//! Putting recurrent nodes in the place of a loop.

use std::collections::{HashMap, HashSet};

use salver_kernels::Attributes;
use salver_tensor::{DType, Shape, Tensor};

use super::body::Source;
use super::counts::Count;
use super::outputs::Output;
use super::plan::{Layer, Plan};
use crate::Error;
use crate::infer::{self, Known};
use crate::ir::{Dim, Graph, Node, Value, ValueId};

/// Adds values to a graph and makes nodes for a block of it.
pub(super) struct Emitter<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) names: &'a mut HashSet<String>,
    /// The name of the loop.
    pub(super) name: String,
    pub(super) nodes: Vec<Node>,
}

/// What a recurrent node gives.
struct Given {
    /// `[steps, batch, hidden]`, in the sequence's order.
    all: ValueId,
    /// `[1, batch, hidden]`: the output, and the cell state.
    last: Vec<ValueId>,
}

impl Emitter<'_> {
    /// Makes the nodes; the loop's outputs stay the same values. Returns the nodes that take the place of those that
    /// pick the last step, by what they give.
    ///
    /// # Errors
    /// When a shape does not fit, which a plan excludes.
    pub(super) fn plan(&mut self, plan: &Plan) -> Result<HashMap<ValueId, Node>, Error> {
        let mut given: Vec<Given> = Vec::new();
        for layer in &plan.layers {
            let layer = self.layer(plan, layer, &given)?;
            given.push(layer);
        }
        for (id, output) in &plan.outputs {
            self.output(plan, &given, *id, *output)?;
        }
        let mut picks = HashMap::new();
        for (id, output) in &plan.last_picks {
            self.output(plan, &given, *id, *output)?;
            picks.extend(self.nodes.pop().map(|node| (*id, node)));
        }
        Ok(picks)
    }

    fn layer(&mut self, plan: &Plan, layer: &Layer, before: &[Given]) -> Result<Given, Error> {
        let mut sources = Vec::new();
        for source in &layer.sources {
            sources.push(match source {
                Source::Cell(at) => before[*at].all,
                Source::Sequence { id, axis } => {
                    let steps_first = match axis {
                        0 => *id,
                        _ => {
                            let perm = if *axis == 1 { [1i64, 0, 2] } else { [2, 0, 1] };
                            let attributes = Attributes::new().with("perm", perm);
                            self.node("Transpose", &[Some(*id)], attributes, 1)?[0]
                        }
                    };
                    match plan.longer.contains(id) {
                        true => self.first_steps(steps_first, plan.steps)?,
                        false => steps_first,
                    }
                }
            });
        }
        let x = match sources[..] {
            [x] => x,
            _ => {
                let inputs: Vec<_> = sources.into_iter().map(Some).collect();
                self.node("Concat", &inputs, Attributes::new().with("axis", 2i64), 1)?[0]
            }
        };
        let w = self.constant("W", layer.w.clone());
        let r = self.constant("R", layer.r.clone());
        let b = layer.b.clone().map(|b| self.constant("B", b));
        let mut inputs = vec![Some(x), Some(w), Some(r), b, None];
        for initial in &layer.initial {
            inputs.push(match initial {
                None => None,
                Some(id) => {
                    let axes = self.ints(&[0]);
                    Some(self.node("Unsqueeze", &[Some(*id), Some(axes)], Attributes::new(), 1)?[0])
                }
            });
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let n_states = layer.initial.len();
        let outputs = self.node(layer.op, &inputs, layer.attributes.clone(), 1 + n_states)?;
        let axes = self.ints(&[1]);
        let all = self.node("Squeeze", &[Some(outputs[0]), Some(axes)], Attributes::new(), 1)?[0];
        Ok(Given { all, last: outputs[1..].to_vec() })
    }

    /// The first steps of a sequence that may be longer than the loop.
    fn first_steps(&mut self, sequence: ValueId, steps: ValueId) -> Result<ValueId, Error> {
        let (zero, one) = (self.ints(&[0]), self.ints(&[1]));
        let end = self.node("Reshape", &[Some(steps), Some(one)], Attributes::new(), 1)?[0];
        Ok(self.node("Slice", &[Some(sequence), Some(zero), Some(end), Some(zero)], Attributes::new(), 1)?[0])
    }

    fn output(&mut self, plan: &Plan, given: &[Given], id: ValueId, output: Output) -> Result<(), Error> {
        match output {
            Output::Same(other) => self.node_to(id, "Identity", &[other]),
            Output::Count(count) => self.count_to(plan, id, count),
            Output::Last { layer, state } => self.squeeze_to(id, given[layer].last[state], 0),
            Output::Single { layer } => self.node_to(id, "Identity", &[given[layer].last[0]]),
            Output::All { layer, backwards: false } => self.node_to(id, "Identity", &[given[layer].all]),
            Output::All { layer, backwards: true } => {
                let (start, end, axes) = (self.ints(&[-1]), self.ints(&[-i64::MAX]), self.ints(&[0]));
                self.node_to(id, "Slice", &[given[layer].all, start, end, axes, start])
            }
        }
    }

    /// `steps · M + add` in the element type of the value.
    fn count_to(&mut self, plan: &Plan, id: ValueId, count: Count) -> Result<(), Error> {
        let dtype = self.graph.value(id).dtype;
        let shape = self.graph.value(id).dims.as_deref().unwrap_or_default();
        let shape: Vec<i64> = shape.iter().map(|_| 1).collect();
        let (factor, add) = (self.scalar(count.steps), self.scalar(count.add));
        let product = self.node("Mul", &[Some(plan.steps), Some(factor)], Attributes::new(), 1)?[0];
        let sum = self.node("Add", &[Some(product), Some(add)], Attributes::new(), 1)?[0];
        let cast = match dtype {
            DType::I64 => sum,
            _ => self.node("Cast", &[Some(sum)], Attributes::new().with("to", dtype), 1)?[0],
        };
        let shape = self.ints(&shape);
        self.node_to(id, "Reshape", &[cast, shape])
    }

    fn squeeze_to(&mut self, id: ValueId, of: ValueId, axis: i64) -> Result<(), Error> {
        let axes = self.ints(&[axis]);
        self.node_to(id, "Squeeze", &[of, axes])
    }

    /// A node whose output is a value that is there.
    fn node_to(&mut self, id: ValueId, op: &str, inputs: &[ValueId]) -> Result<(), Error> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let made = self.node(op, &inputs, Attributes::new(), 1)?[0];
        let better = self.graph.values[made.index()].dims.clone();
        let value = &mut self.graph.values[id.index()];
        // What was known of the loop's output may be more or less than what is known of the layer's.
        value.dims = match (value.dims.take(), better) {
            (Some(known), Some(better)) if known.len() == better.len() => {
                let pick = |(known, better)| if known == Dim::Unknown { better } else { known };
                Some(known.into_iter().zip(better).map(pick).collect())
            }
            (known, better) => known.or(better),
        };
        if let Some(node) = self.nodes.last_mut() {
            node.outputs = vec![id];
        }
        Ok(())
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let known: Vec<_> = inputs.iter().map(|id| id.map(|id| known(self.graph.value(id)))).collect();
        let outcomes = infer::infer("", op, &attributes, &known, &[], n_outputs)?;
        let mut outputs = Vec::with_capacity(n_outputs);
        for outcome in outcomes {
            let (name, items) = (format!("{}/{op}", self.name), outcome.items);
            outputs.push(self.value(&name, outcome.dtype, outcome.dims, None, items)?);
        }
        self.nodes.push(Node {
            name: self.name.clone(),
            domain: String::new(),
            op: op.to_owned(),
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            attributes,
            blocks: Vec::new(),
        });
        Ok(outputs)
    }

    fn constant(&mut self, what: &str, tensor: Tensor) -> ValueId {
        let dims = tensor.shape().dims().iter().copied().map(Dim::Fixed).collect();
        let items = crate::builder::items_of(&tensor);
        let name = format!("{}/{what}", self.name);
        let made = self.value(&name, tensor.dtype(), Some(dims), Some(tensor), items);
        made.expect("a graph in memory has fewer than 2^32 values")
    }

    fn ints(&mut self, ints: &[i64]) -> ValueId {
        let shape = Shape::vector(ints.len()).expect("a few elements");
        self.constant("ints", Tensor::from_vec(shape, ints.to_vec()).expect("as many as the shape says"))
    }

    fn scalar(&mut self, int: i64) -> ValueId {
        self.constant("int", Tensor::from_vec(Shape::scalar(), vec![int]).expect("one element"))
    }

    fn value(
        &mut self,
        name: &str,
        dtype: DType,
        dims: Option<Vec<Dim>>,
        constant: Option<Tensor>,
        items: Option<Vec<crate::Item>>,
    ) -> Result<ValueId, Error> {
        let mut unique = name.to_owned();
        let mut n = 0usize;
        while !self.names.insert(unique.clone()) {
            n += 1;
            unique = format!("{name}.{n}");
        }
        let id = ValueId::new(self.graph.values.len())?;
        self.graph.values.push(Value { name: unique, dtype, dims, constant, items });
        Ok(id)
    }
}

fn known(value: &Value) -> Known<'_> {
    Known {
        dtype: value.dtype,
        dims: value.dims.as_deref(),
        constant: value.constant.as_ref(),
        items: value.items.as_deref(),
    }
}
