//! The graph with what a plan says.

use std::collections::{HashMap, HashSet};

use salver_kernels::Attributes;
use salver_tensor::{DType, Element, Shape, Tensor};

use super::Range;
use super::plan::{Compute, Plan, Role, data_inputs, output_axis};
use crate::ir::{Dim, Value};
use crate::{Block, Error, Graph, Node, ValueId};

/// The largest number of steps that a bias may have: sums of products are added to it in 32 bits.
const MAX_BIAS: f64 = (1 << 30) as f64;

/// The graph in QDQ form. Nothing of it is folded: that would undo it.
pub(super) fn written(
    graph: &Graph,
    plan: &Plan,
    range: &dyn Fn(ValueId) -> Option<Range>,
) -> Result<Graph, Error> {
    let body = Block { nodes: Vec::new(), ..graph.body.clone() };
    let output_names = graph.output_names.clone();
    let mut writing = Writing {
        graph: Graph { values: graph.values.clone(), body, output_names },
        plan,
        range,
        names: graph.values.iter().map(|value| value.name.clone()).collect(),
        steps: HashMap::new(),
        rounded: HashMap::new(),
    };
    for &id in graph.inputs() {
        writing.round(id)?;
    }
    for (node, role) in graph.body.nodes.iter().zip(&plan.roles) {
        let written = match role {
            Role::Compute(compute) => writing.compute(node, compute)?,
            Role::Gone => continue,
            Role::Between => writing.rewired(node, &data_inputs(node)),
            Role::Float => {
                let ends = node.present_inputs().filter(|id| plan.ends.contains(id));
                // What follows a convolution directly is part of it.
                writing.rewired(node, &ends.collect::<Vec<_>>())
            }
        };
        writing.graph.body.nodes.push(written);
        let outputs = writing.graph.body.nodes.last().map(|node| node.outputs.clone()).unwrap_or_default();
        for id in outputs {
            writing.round(id)?;
        }
    }
    crate::passes::forget_unused(&mut writing.graph);
    Ok(writing.graph)
}

struct Writing<'a> {
    graph: Graph,
    plan: &'a Plan,
    range: &'a dyn Fn(ValueId) -> Option<Range>,
    names: HashSet<String>,
    /// By the value whose range it is: the constants of scale and zero point, and the scale.
    steps: HashMap<ValueId, (ValueId, ValueId, f32)>,
    /// By value: what is left of it in `int8`, as floats.
    rounded: HashMap<ValueId, ValueId>,
}

impl Writing<'_> {
    fn value(&mut self, value: Value) -> Result<ValueId, Error> {
        let id = ValueId::new(self.graph.values.len())?;
        let mut name = value.name.clone();
        let mut n = 0usize;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{}.{n}", value.name);
        }
        self.graph.values.push(Value { name, ..value });
        Ok(id)
    }

    fn constant<T: Element>(
        &mut self,
        name: String,
        shape: &Shape,
        elements: Vec<T>,
    ) -> Result<ValueId, Error> {
        let dims = Some(shape.dims().iter().copied().map(Dim::Fixed).collect());
        let tensor = Tensor::from_vec(shape.clone(), elements).expect("as many elements as the shape");
        self.value(Value { name, dtype: T::DTYPE, dims, constant: Some(tensor), items: None })
    }

    /// A node with one output of that name and of the shape of its first input.
    fn op(
        &mut self,
        op: &str,
        inputs: [ValueId; 3],
        output: (String, DType),
        axis: Option<usize>,
    ) -> Result<ValueId, Error> {
        let dims = self.graph.value(inputs[0]).dims.clone();
        let (name, dtype) = output;
        let id = self.value(Value { name, dtype, dims, constant: None, items: None })?;
        let axis = axis.and_then(|axis| i64::try_from(axis).ok());
        self.graph.body.nodes.push(Node {
            name: self.graph.value(id).name.clone(),
            domain: String::new(),
            op: op.to_owned(),
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: vec![id],
            attributes: axis.map_or_else(Attributes::new, |axis| Attributes::new().with("axis", axis)),
            blocks: Vec::new(),
        });
        Ok(id)
    }

    /// The constants of the steps over the range of a value, and the scale.
    fn steps(&mut self, root: ValueId) -> Result<(ValueId, ValueId, f32), Error> {
        if let Some(&known) = self.steps.get(&root) {
            return Ok(known);
        }
        let name = self.graph.value(root).name.clone();
        let unknown = || Error::invalid(format!("no range of value '{name}' is known"));
        let (scale, zero) = (self.range)(root).ok_or_else(unknown)?.steps();
        let of_scale = self.constant(format!("{name}/scale"), &Shape::scalar(), vec![scale])?;
        let of_zero = self.constant(format!("{name}/zero"), &Shape::scalar(), vec![zero])?;
        self.steps.insert(root, (of_scale, of_zero, scale));
        Ok((of_scale, of_zero, scale))
    }

    /// Puts both nodes behind a value that is to be rounded.
    fn round(&mut self, id: ValueId) -> Result<(), Error> {
        let Some(&root) = self.plan.values.get(&id) else { return Ok(()) };
        let (scale, zero, _) = self.steps(root)?;
        let name = self.graph.value(id).name.clone();
        let small =
            self.op("QuantizeLinear", [id, scale, zero], (format!("{name}/quantised"), DType::U8), None)?;
        let floats =
            self.op("DequantizeLinear", [small, scale, zero], (format!("{name}/rounded"), DType::F32), None)?;
        self.rounded.insert(id, floats);
        Ok(())
    }

    /// A node that takes what is left of these values in `int8`.
    fn rewired(&self, node: &Node, taken: &[ValueId]) -> Node {
        let current = |id: ValueId| match self.rounded.get(&id) {
            Some(&rounded) if taken.contains(&id) => rounded,
            _ => id,
        };
        Node { inputs: node.inputs.iter().map(|id| id.map(current)).collect(), ..node.clone() }
    }

    /// A product or convolution of rounded inputs, weights and bias.
    fn compute(&mut self, node: &Node, compute: &Compute) -> Result<Node, Error> {
        let lost = || Error::invalid("it cannot be in int8").at(format!("node '{}'", node.name));
        let (x, w) = (node.input(0).ok_or_else(lost)?, node.input(1).ok_or_else(lost)?);
        let root = *self.plan.values.get(&x).ok_or_else(lost)?;
        let (_, _, x_scale) = self.steps(root)?;
        let weights = self.graph.value(w).constant.clone().ok_or_else(lost)?;
        let bias =
            compute.bias.map(|id| self.graph.value(id).constant.clone().ok_or_else(lost)).transpose()?;
        let bias =
            bias.map(|bias| bias.to_slice::<f32>().map(|b| b.to_vec()).ok_or_else(lost)).transpose()?;
        let axis = output_axis(node);
        let small = Small::new(&weights, axis, x_scale, bias.as_deref()).ok_or_else(lost)?;
        let mut written = self.rewired(node, &[x]);
        written.inputs.truncate(1);
        let name = format!("{}/weights", node.name);
        let w_scales = small.scales.clone();
        written.inputs.push(Some(self.integers(&name, (weights.shape(), small.weights), w_scales, axis)?));
        if let Some(bias) = bias {
            let (steps, scales) = bias_steps(&bias, &small.scales, x_scale);
            let shape = Shape::vector(bias.len()).map_err(|error| Error::invalid(error.to_string()))?;
            let name = format!("{}/bias", node.name);
            written.inputs.push(Some(self.integers(&name, (&shape, steps), scales, 0)?));
            if node.is("MatMul") {
                written = Node { op: "Gemm".to_owned(), outputs: vec![compute.end], ..written };
            }
        }
        Ok(written)
    }

    /// A constant of integers with one scale for each channel, as floats.
    fn integers<T: Element + Default>(
        &mut self,
        name: &str,
        (shape, elements): (&Shape, Vec<T>),
        scales: Vec<f32>,
        axis: usize,
    ) -> Result<ValueId, Error> {
        let channels = Shape::vector(scales.len()).map_err(|error| Error::invalid(error.to_string()))?;
        let zeros = vec![T::default(); scales.len()];
        let zeros = self.constant(format!("{name}/zero"), &channels, zeros)?;
        let scales = self.constant(format!("{name}/scale"), &channels, scales)?;
        let small = self.constant(name.to_owned(), shape, elements)?;
        let output = (format!("{name}/rounded"), DType::F32);
        self.op("DequantizeLinear", [small, scales, zeros], output, Some(axis))
    }
}

/// Weights in steps of -127 to 127.
struct Small {
    weights: Vec<i8>,
    /// One for each output channel.
    scales: Vec<f32>,
}

impl Small {
    /// `None` when the tensor is not one of floats with such an axis. A scale is larger than the weights need where the
    /// bias would not fit 32 bits otherwise.
    fn new(tensor: &Tensor, axis: usize, x_scale: f32, bias: Option<&[f32]>) -> Option<Small> {
        let n = *tensor.shape().dims().get(axis)?;
        let after: usize = tensor.shape().dims().get(axis + 1..)?.iter().product();
        let values = tensor.to_slice::<f32>()?;
        let lines = || values.chunks(after.max(1)).zip((0..n).cycle());
        let mut scales = vec![0f32; n];
        for (line, at) in lines() {
            let largest = line.iter().fold(0f32, |largest, w| largest.max(w.abs()));
            scales[at] = scales[at].max(largest / 127.0);
        }
        // Neither a scale nor its product with the input's may be smaller than floats are exact.
        let x_scale = f64::from(x_scale);
        let least = f64::from(f32::MIN_POSITIVE) * (2.0 / x_scale).max(1.0);
        for (at, scale) in scales.iter_mut().enumerate() {
            let bias = bias.and_then(|bias| bias.get(at)).map_or(0.0, |bias| f64::from(bias.abs()));
            *scale = scale.max(least.max(bias / (x_scale * MAX_BIAS)) as f32);
        }
        let mut weights = Vec::with_capacity(values.len());
        for (line, at) in lines() {
            let scale = scales[at];
            weights.extend(line.iter().map(|w| (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8));
        }
        Some(Small { weights, scales })
    }
}

/// A bias in steps of the product of both scales, and these products.
fn bias_steps(bias: &[f32], scales: &[f32], x_scale: f32) -> (Vec<i32>, Vec<f32>) {
    let scales: Vec<f32> =
        scales.iter().map(|&scale| (f64::from(scale) * f64::from(x_scale)) as f32).collect();
    let steps = bias.iter().zip(&scales).map(|(&bias, &scale)| {
        let steps = f64::from(bias) / f64::from(scale);
        steps.round_ties_even().clamp(-2.0 * MAX_BIAS, 2.0 * MAX_BIAS - 1.0) as i32
    });
    (steps.collect(), scales)
}
