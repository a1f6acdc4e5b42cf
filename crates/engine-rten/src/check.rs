//! The walk over a model's graph before rten sees it: element types and ranges of all values are worked out, nodes
//! are normalised, and whatever would be computed inexactly in silence is refused or given a [`Guard`].

mod constants;
mod guard;
mod infer;
mod ranges;

use std::collections::{HashMap, HashSet};

use salver_engine::{Error, ErrorKind};

use crate::bound::Bound;
use crate::element::{Elem, elem, file_size, memory_size, shown};
use crate::file::{Files, n_elements};
use crate::normalise::{Context, normalise};
use crate::proto::{MAX_NESTING, NodeExt};
use crate::signature::{dims_of, elem_of};
use salver_graph::onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

pub(crate) use guard::Guard;
use ranges::Outcome;

/// The longest chain of nodes from an input to an output: rten plans by recursion.
const MAX_DEPTH: u32 = 4000;

/// Elements of a tensor that a model makes out of constants alone, and that would be made while it loads.
const MAX_CONSTANT_ELEMENTS: f64 = (1u64 << 28) as f64;

/// Whole numbers of a constant that are remembered.
const MAX_KNOWN_INTS: usize = 32;

/// Dimensions; `None` for an open one.
pub(crate) type Dims = Vec<Option<usize>>;

/// What is known of a value.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) elem: Elem,
    /// The range of its elements.
    pub(crate) bound: Bound,
    pub(crate) dims: Option<Dims>,
    /// The elements, of a short constant of whole numbers.
    pub(crate) ints: Option<Vec<i64>>,
    /// Of a `float64` value: that `float32` holds it exactly.
    pub(crate) is_narrow: bool,
    /// Nodes on the longest way to it.
    pub(crate) depth: u32,
}

impl Fact {
    pub(crate) fn of(elem: Elem) -> Fact {
        Fact { elem, bound: Bound::of(elem), dims: None, ints: None, is_narrow: false, depth: 0 }
    }
}

/// What the walk found, beside the changed graph.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Checks of every run, in the order of the outputs that were added to the graph for them.
    pub(crate) guards: Vec<Guard>,
    /// Bytes that the weights take in the engine.
    pub(crate) n_bytes: u64,
}

pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidModel, message)
}

/// Checks and normalises a graph; outputs for the guards are added after its own.
pub(crate) fn check(graph: &mut GraphProto, opset: i64, files: &Files) -> Result<Checked, Error> {
    let mut walk = Walk::new(opset, files);
    let declared: Vec<_> = graph.output.iter().map(elem_of).collect::<Result<_, _>>()?;
    let outputs = walk.graph(graph, None)?;
    for ((info, declared), fact) in graph.output.iter().zip(declared).zip(&outputs) {
        if fact.elem != declared {
            let message = format!("declared as {}, but computed as {}", shown(declared), shown(fact.elem));
            return Err(invalid(message).at(format!("output '{}'", info.name())));
        }
    }
    graph.output.extend(walk.guards.iter().map(Guard::output));
    Ok(Checked { guards: walk.guards, n_bytes: walk.n_bytes })
}

struct Walk<'a> {
    opset: i64,
    files: &'a Files,
    /// Facts by name, of the graph walked and those around it.
    scopes: Vec<Scope>,
    guards: Vec<Guard>,
    n_fresh: usize,
    n_bytes: u64,
}

#[derive(Default)]
struct Scope {
    facts: HashMap<String, Fact>,
    /// Dimensions that the graph states.
    stated: HashMap<String, Dims>,
}

impl<'a> Walk<'a> {
    fn new(opset: i64, files: &'a Files) -> Walk<'a> {
        Walk { opset, files, scopes: Vec::new(), guards: Vec::new(), n_fresh: 0, n_bytes: 0 }
    }

    /// Walks one graph. `given` are the facts of an inner graph's inputs. Returns those of its outputs.
    fn graph(&mut self, graph: &mut GraphProto, given: Option<Vec<Fact>>) -> Result<Vec<Fact>, Error> {
        if self.scopes.len() == MAX_NESTING {
            return Err(invalid(format!("graphs are nested more than {MAX_NESTING} deep")));
        }
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map(|values| values.name().to_owned()).unwrap_or_default();
            return Err(unsupported("sparse tensors are not ones the embedded engine has")
                .at(format!("tensor '{name}'")));
        }
        constants::check_uses(graph, self.files)?;
        self.scopes.push(Scope { facts: HashMap::new(), stated: stated_dims(graph)? });
        let outputs = self.contents(graph, given)?;
        self.scopes.pop();
        Ok(outputs)
    }

    fn contents(&mut self, graph: &mut GraphProto, given: Option<Vec<Fact>>) -> Result<Vec<Fact>, Error> {
        let mut initial = HashSet::new();
        for tensor in &mut graph.initializer {
            let fact = self.constant(tensor)?;
            initial.insert(tensor.name().to_owned());
            self.define(tensor.name(), fact)?;
        }
        self.inputs(&graph.input, &initial, given)?;
        let nodes = std::mem::take(&mut graph.node);
        graph.node.reserve(nodes.len());
        for node in nodes {
            let place = node.place();
            self.node(node, &mut graph.node).map_err(|error| match error.location() {
                None => error.at(place),
                Some(_) => error,
            })?;
        }
        graph.output.iter().map(|info| self.output(info)).collect()
    }

    fn inputs(
        &mut self,
        infos: &[ValueInfoProto],
        initial: &HashSet<String>,
        given: Option<Vec<Fact>>,
    ) -> Result<(), Error> {
        let infos: Vec<_> = infos.iter().filter(|info| !initial.contains(info.name())).collect();
        let Some(given) = given else {
            for info in infos {
                let fact = Fact { dims: dims_of(info)?, ..Fact::of(elem_of(info)?) };
                self.define(info.name(), fact)?;
            }
            return Ok(());
        };
        if infos.len() != given.len() {
            return Err(invalid(format!(
                "an inner graph has {} inputs, expected {}",
                infos.len(),
                given.len()
            )));
        }
        infos.iter().zip(given).try_for_each(|(info, fact)| self.define(info.name(), fact))
    }

    fn output(&self, info: &ValueInfoProto) -> Result<Fact, Error> {
        let found = self.scopes.last().and_then(|scope| scope.facts.get(info.name()));
        let fact = found.ok_or_else(|| {
            invalid("no node, input or constant of this graph has this name")
                .at(format!("output '{}'", info.name()))
        })?;
        if fact.elem == Elem::Double {
            return Err(unsupported(DOUBLE).at(format!("output '{}'", info.name())));
        }
        Ok(fact.clone())
    }

    fn constant(&mut self, tensor: &mut TensorProto) -> Result<Fact, Error> {
        let fact = constants::fact(tensor, self.files)?;
        let size = n_elements(tensor)?.saturating_mul(memory_size(fact.elem));
        self.n_bytes = self.n_bytes.saturating_add(size as u64);
        Ok(fact)
    }

    fn define(&mut self, name: &str, fact: Fact) -> Result<(), Error> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        if scope.facts.insert(name.to_owned(), fact).is_some() || name.is_empty() {
            return Err(invalid("two values have this name, or one has none").at(format!("tensor '{name}'")));
        }
        Ok(())
    }

    fn facts(&self, node: &NodeProto) -> Result<Vec<Option<Fact>>, Error> {
        let find = |name: &String| {
            if name.is_empty() {
                return Ok(None);
            }
            let found = self.scopes.iter().rev().find_map(|scope| scope.facts.get(name));
            found.cloned().map(Some).ok_or_else(|| {
                invalid(format!("it takes '{name}', which no input, constant or node before it makes"))
            })
        };
        node.input.iter().map(find).collect()
    }

    /// Normalises a node, works out its outputs and appends what stands for it to `nodes`.
    fn node(&mut self, node: NodeProto, nodes: &mut Vec<NodeProto>) -> Result<(), Error> {
        let inputs = self.facts(&node)?;
        let n_fresh = &mut self.n_fresh;
        let mut fresh = |what: &str| {
            *n_fresh += 1;
            format!("salver.{what}.{n_fresh}")
        };
        let mut context = Context { inputs: &inputs, opset: self.opset, fresh: &mut fresh };
        let place = node.place();
        for mut node in normalise(node, &mut context)? {
            let inputs = self.facts(&node)?;
            let depth = inputs.iter().flatten().map(|fact| fact.depth).max().unwrap_or(0);
            let outputs = match node.op() {
                "Constant" if node.is_onnx() => vec![self.constant_node(&mut node)?],
                "If" if node.is_onnx() => self.branches(&mut node)?,
                "Loop" if node.is_onnx() => self.looped(&mut node, &inputs)?,
                _ => self.computed(&node, &inputs, &place, nodes)?,
            };
            self.define_outputs(&node, outputs, depth)?;
            nodes.push(node);
        }
        Ok(())
    }

    fn define_outputs(&mut self, node: &NodeProto, outputs: Vec<Fact>, depth: u32) -> Result<(), Error> {
        for (name, mut fact) in node.output.iter().zip(outputs) {
            if name.is_empty() {
                continue;
            }
            fact.depth = fact.depth.max(depth) + 1;
            if fact.depth > MAX_DEPTH {
                return Err(unsupported(format!("more than {MAX_DEPTH} nodes follow one upon the other")));
            }
            if fact.dims.is_none() {
                fact.dims = self.scopes.last().and_then(|scope| scope.stated.get(name).cloned());
            }
            self.define(name, fact)?;
        }
        Ok(())
    }

    fn constant_node(&mut self, node: &mut NodeProto) -> Result<Fact, Error> {
        for attr in &mut node.attribute {
            if let ("value", Some(tensor)) = (attr.name.as_deref().unwrap_or_default(), &mut attr.t) {
                return self.constant(tensor);
            }
        }
        constants::attribute_fact(node)
    }

    /// Either branch may be taken.
    fn branches(&mut self, node: &mut NodeProto) -> Result<Vec<Fact>, Error> {
        let mut outputs: Option<Vec<Fact>> = None;
        for attr in &mut node.attribute {
            let Some(graph) = &mut attr.g else { continue };
            let facts = self.graph(graph, Some(Vec::new()))?;
            outputs = Some(match outputs {
                None => facts,
                Some(other) => merged(other, facts)?,
            });
        }
        outputs.ok_or_else(|| invalid("its branches are missing"))
    }

    /// The body sees the number of the round, whether to go on, and values carried from round to round, of which
    /// only the element types are known.
    fn looped(&mut self, node: &mut NodeProto, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, Error> {
        let carried: Vec<_> =
            inputs.iter().skip(2).flatten().map(|f| Fact { depth: f.depth, ..Fact::of(f.elem) }).collect();
        let mut given = vec![Fact { bound: Bound::SIZE, ..Fact::of(Elem::Int64) }, Fact::of(Elem::Bool)];
        given.extend(carried.iter().cloned());
        let body = node.attribute.iter_mut().find_map(|attr| attr.g.as_mut());
        let body = body.ok_or_else(|| invalid("its body is missing"))?;
        let mut facts = self.graph(body, Some(given))?;
        if facts.len() < carried.len() + 1 {
            return Err(invalid(format!(
                "its body has {} outputs, expected {} or more",
                facts.len(),
                carried.len() + 1
            )));
        }
        facts.remove(0);
        for (fact, carried) in facts.iter_mut().zip(&carried) {
            if fact.elem != carried.elem {
                let message = format!(
                    "a carried value starts as {} and goes on as {}",
                    shown(carried.elem),
                    shown(fact.elem)
                );
                return Err(invalid(message));
            }
        }
        Ok(facts.into_iter().map(|fact| Fact { depth: fact.depth, ..Fact::of(fact.elem) }).collect())
    }

    fn computed(
        &mut self,
        node: &NodeProto,
        inputs: &[Option<Fact>],
        place: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<Vec<Fact>, Error> {
        check_float64(node, inputs)?;
        check_size(node, inputs)?;
        check_elements(node, inputs)?;
        let mut facts = Vec::with_capacity(node.output.len());
        for at in 0..node.output.len() {
            let mut fact = infer::output(node, inputs, at)?;
            if file_size(fact.elem).is_none() {
                let message =
                    format!("it makes {}, which the embedded engine does not compute in", shown(fact.elem));
                return Err(unsupported(message));
            }
            fact.bound = match ranges::output(node, inputs, fact.elem, at) {
                Outcome::In(bound) => bound,
                Outcome::Guarded(guarded) => self.guarded(node, guarded, place, nodes)?,
                Outcome::Unknown => {
                    return Err(unsupported("int64 is not computed exactly in this operator"));
                }
            };
            facts.push(fact);
        }
        Ok(facts)
    }

    /// Adds a guard; inner graphs have no outputs to put it in.
    fn guarded(
        &mut self,
        node: &NodeProto,
        guarded: guard::Guarded,
        place: &str,
        nodes: &mut Vec<NodeProto>,
    ) -> Result<Bound, Error> {
        if self.scopes.len() > 1 {
            return Err(unsupported(
                "its int64 result may leave the 32 bits that the embedded engine computes in, which cannot be checked inside If and Loop",
            ));
        }
        let (guard, shadow) = guard::Guard::new(node, guarded, place, self.guards.len());
        nodes.extend(shadow);
        self.guards.push(guard);
        Ok(Bound::I32)
    }
}

fn stated_dims(graph: &GraphProto) -> Result<HashMap<String, Dims>, Error> {
    let mut stated = HashMap::new();
    for info in graph.value_info.iter().chain(&graph.output) {
        if let Some(dims) = dims_of(info).map_err(|error| error.at(format!("tensor '{}'", info.name())))? {
            stated.insert(info.name().to_owned(), dims);
        }
    }
    Ok(stated)
}

/// What holds for both of two branches.
fn merged(a: Vec<Fact>, b: Vec<Fact>) -> Result<Vec<Fact>, Error> {
    if a.len() != b.len() {
        return Err(invalid(format!("its branches have {} and {} outputs", a.len(), b.len())));
    }
    let merge = |(a, b): (Fact, Fact)| {
        if a.elem != b.elem {
            return Err(invalid(format!("its branches give {} and {}", shown(a.elem), shown(b.elem))));
        }
        Ok(Fact { bound: a.bound.hull(b.bound), depth: a.depth.max(b.depth), ..Fact::of(a.elem) })
    };
    a.into_iter().zip(b).map(merge).collect()
}

const DOUBLE: &str =
    "float64 is computed as float32 by the embedded engine; this model needs another engine, or float32";

/// `float64` values may only be constants and casts that `float32` holds exactly, moved about and cast away again;
/// or any constant that is only cast to `float32`.
fn check_float64(node: &NodeProto, inputs: &[Option<Fact>]) -> Result<(), Error> {
    const MOVES: &[&str] =
        &["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Gather", "Slice"];
    let to = elem(node.attr_int("to").and_then(|to| i32::try_from(to).ok()).unwrap_or(0));
    let is_cast = node.op() == "Cast";
    for (name, fact) in node.input.iter().zip(inputs) {
        let Some(fact) = fact.as_ref().filter(|fact| fact.elem == Elem::Double) else { continue };
        if !(is_cast && to == Elem::Float || fact.is_narrow && MOVES.contains(&node.op())) {
            return Err(unsupported(format!("it takes '{name}', a float64: {DOUBLE}")));
        }
    }
    let exact = |fact: &Fact| match fact.elem {
        Elem::Double => fact.is_narrow,
        Elem::Int32 | Elem::Int64 => fact.bound.magnitude() <= f64::from(1 << 24),
        _ => true,
    };
    if is_cast && to == Elem::Double && !inputs.iter().flatten().all(exact) {
        return Err(unsupported(format!("it casts to float64: {DOUBLE}")));
    }
    Ok(())
}

/// Element types that rten's operators turn away, or get wrong, only when they run.
fn check_elements(node: &NodeProto, inputs: &[Option<Fact>]) -> Result<(), Error> {
    const NOT_ON_BYTES: &[&str] = &[
        "Abs",
        "Add",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "MaxPool",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Pow",
        "Sub",
        "Sum",
    ];
    const NOT_ON_FLAGS: &[&str] = &["ReduceMax", "ReduceMin"];
    let Some(elem) = inputs.first().and_then(Option::as_ref).map(|fact| fact.elem) else { return Ok(()) };
    let refused = match elem {
        Elem::Int8 | Elem::Uint8 => NOT_ON_BYTES,
        Elem::Bool => NOT_ON_FLAGS,
        _ => return Ok(()),
    };
    if refused.contains(&node.op()) {
        return Err(unsupported(format!("the embedded engine has no {} on {}", node.op(), shown(elem))));
    }
    Ok(())
}

/// Bounds tensors whose size the model states as a constant, which rten makes while it loads.
fn check_size(node: &NodeProto, inputs: &[Option<Fact>]) -> Result<(), Error> {
    let ints = |at: usize| inputs.get(at).and_then(Option::as_ref).and_then(|fact| fact.ints.as_deref());
    let product = |dims: &[i64]| dims.iter().map(|&dim| (dim as f64).abs().max(1.0)).product::<f64>();
    let one = |at: usize| ints(at).and_then(|ints| ints.first()).map(|&int| int as f64);
    let size = match node.op() {
        "ConstantOfShape" => ints(0).map(product),
        "Expand" | "Tile" | "Pad" => ints(1).map(product),
        "RandomNormal" | "RandomUniform" => node.attr_ints("shape").map(product),
        "OneHot" => one(1),
        "Range" => match (one(0), one(1), one(2)) {
            (Some(start), Some(limit), Some(delta)) => Some(((limit - start) / delta).abs()),
            _ => None,
        },
        _ => None,
    };
    if size.is_some_and(|size| size > MAX_CONSTANT_ELEMENTS) {
        let message = format!(
            "it makes {} elements or more, expected at most {MAX_CONSTANT_ELEMENTS}",
            size.unwrap_or(0.0)
        );
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    Ok(())
}
