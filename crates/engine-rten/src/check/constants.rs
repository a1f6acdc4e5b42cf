//! Constants: their elements are counted and bounded, and whole numbers that the engine would change are refused.

use std::collections::HashMap;

use half::f16;
use salver_engine::Error;

use super::{Fact, MAX_KNOWN_INTS, invalid, unsupported};
use crate::bound::Bound;
use crate::element::{Elem, elem, shown};
use crate::file::{Files, n_bytes, n_elements};
use crate::proto::{NodeExt, subgraphs};
use salver_graph::onnx::proto::tensor_proto::DataLocation;
use salver_graph::onnx::proto::{GraphProto, NodeProto, TensorProto};

/// Elements of a constant of fractions up to which their range is worked out.
const MAX_RANGED_FLOATS: usize = 4096;

/// Nodes that a constant is followed through.
const MAX_STEPS: usize = 16;

/// What is known of a constant, once it is sure that its elements are as many as its shape says.
pub(super) fn fact(tensor: &mut TensorProto, files: &Files) -> Result<Fact, Error> {
    let place = format!("tensor '{}'", tensor.name());
    let elem = elem(tensor.data_type());
    check_count(tensor, files)
        .map_err(|error| if error.location().is_some() { error } else { error.at(place) })?;
    let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let mut fact = Fact { dims: Some(dims), ..Fact::of(elem) };
    match elem {
        Elem::Int64 | Elem::Int32 | Elem::Int8 | Elem::Uint8 | Elem::Bool => {
            let mut range = (f64::INFINITY, f64::NEG_INFINITY);
            let mut known = Vec::new();
            for_each_int(tensor, files, |int| {
                range = (range.0.min(int as f64), range.1.max(int as f64));
                if known.len() <= MAX_KNOWN_INTS {
                    known.push(int);
                }
            });
            fact.bound = if known.is_empty() { Bound::ZERO } else { Bound::constant(range.0, range.1) };
            if elem == Elem::Int64 {
                fact.bound = saturated(fact.bound);
            }
            fact.ints = Some(known).filter(|known| known.len() <= MAX_KNOWN_INTS);
        }
        Elem::Double => fact.is_narrow = all_narrow(tensor, files),
        _ => fact.bound = float_bound(tensor, files).unwrap_or(Bound::ANY),
    }
    Ok(fact)
}

/// As the engine keeps it; uses for which that is not good enough are refused in [`check_uses`].
fn saturated(bound: Bound) -> Bound {
    let clipped = bound.clip(Bound::I32.lo, Bound::I32.hi);
    if clipped == bound { bound } else { Bound { kind: Bound::I32.kind, ..clipped } }
}

/// The raw bytes of a tensor, in the file or beside it.
fn raw<'a>(tensor: &'a TensorProto, files: &'a Files) -> Option<&'a [u8]> {
    files.bytes(tensor).or(tensor.raw_data.as_deref())
}

fn check_count(tensor: &mut TensorProto, files: &Files) -> Result<(), Error> {
    let kind = elem(tensor.data_type());
    let (n_bytes, n_elements) = (n_bytes(tensor)?, n_elements(tensor)?);
    let n_typed = match kind {
        Elem::Float => tensor.float_data.len(),
        Elem::Double => tensor.double_data.len(),
        Elem::Int64 => tensor.int64_data.len(),
        _ => tensor.int32_data.len(),
    };
    if tensor.segment.is_some() {
        return Err(unsupported("a tensor in segments is not one the embedded engine reads"));
    }
    let is_external = tensor.data_location() == DataLocation::External;
    if !is_external && n_typed > 0 && tensor.raw_data.as_ref().is_some_and(bytes::Bytes::is_empty) {
        tensor.raw_data = None;
    }
    let (expected, got, unit) = match raw(tensor, files) {
        Some(bytes) => (n_bytes, bytes.len(), "bytes"),
        None => (n_elements, n_typed, "elements"),
    };
    if expected != got {
        let message = format!(
            "{} tensor of dimensions {:?} takes {expected} {unit}, got {got}",
            shown(kind),
            tensor.dims
        );
        return Err(invalid(message));
    }
    Ok(())
}

fn for_each_int(tensor: &TensorProto, files: &Files, mut visit: impl FnMut(i64)) {
    let kind = elem(tensor.data_type());
    let Some(raw) = raw(tensor, files) else {
        match kind {
            Elem::Int64 => tensor.int64_data.iter().for_each(|&int| visit(int)),
            _ => tensor.int32_data.iter().for_each(|&int| visit(int.into())),
        }
        return;
    };
    match kind {
        Elem::Int64 => raw.as_chunks().0.iter().for_each(|&chunk| visit(i64::from_le_bytes(chunk))),
        Elem::Int32 => raw.as_chunks().0.iter().for_each(|&chunk| visit(i32::from_le_bytes(chunk).into())),
        Elem::Int8 => raw.iter().for_each(|&byte| visit(i8::from_le_bytes([byte]).into())),
        _ => raw.iter().for_each(|&byte| visit(byte.into())),
    }
}

fn all_narrow(tensor: &TensorProto, files: &Files) -> bool {
    let is_narrow = |x: f64| x.is_nan() || f64::from(x as f32) == x;
    match raw(tensor, files) {
        Some(raw) => raw.as_chunks().0.iter().all(|&chunk| is_narrow(f64::from_le_bytes(chunk))),
        None => tensor.double_data.iter().all(|&x| is_narrow(x)),
    }
}

fn float_bound(tensor: &TensorProto, files: &Files) -> Option<Bound> {
    let values: Vec<f32> = match (elem(tensor.data_type()), raw(tensor, files)) {
        (Elem::Float, None) if tensor.float_data.len() <= MAX_RANGED_FLOATS => tensor.float_data.clone(),
        (Elem::Float, Some(raw)) if raw.len() / 4 <= MAX_RANGED_FLOATS => {
            raw.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
        }
        (Elem::Float16, Some(raw)) if raw.len() / 2 <= MAX_RANGED_FLOATS => {
            raw.as_chunks().0.iter().map(|&chunk| f16::from_le_bytes(chunk).to_f32()).collect()
        }
        _ => return None,
    };
    let first = f64::from(*values.first()?);
    let range = values
        .iter()
        .map(|&x| f64::from(x))
        .try_fold((first, first), |(lo, hi), x| (!x.is_nan()).then_some((lo.min(x), hi.max(x))))?;
    Some(Bound::constant(range.0, range.1))
}

/// A `Constant` node that holds its value in a plain attribute.
pub(super) fn attribute_fact(node: &NodeProto) -> Result<Fact, Error> {
    let whole = |ints: &[i64], dims: Vec<Option<usize>>| {
        let (lo, hi) = ints.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &int| {
            (lo.min(int as f64), hi.max(int as f64))
        });
        let bound = if ints.is_empty() { Bound::ZERO } else { saturated(Bound::constant(lo, hi)) };
        let ints = Some(ints.to_vec()).filter(|ints| ints.len() <= MAX_KNOWN_INTS);
        Fact { bound, ints, dims: Some(dims), ..Fact::of(Elem::Int64) }
    };
    if let Some(int) = node.attr_int("value_int") {
        return Ok(whole(&[int], Vec::new()));
    }
    if let Some(attr) = node.attr("value_ints") {
        return Ok(whole(&attr.ints, vec![Some(attr.ints.len())]));
    }
    if let Some(attr) = node.attr("value_float") {
        let x = f64::from(attr.f.unwrap_or_default());
        return Ok(Fact { bound: Bound::constant(x, x), dims: Some(Vec::new()), ..Fact::of(Elem::Float) });
    }
    if let Some(attr) = node.attr("value_floats") {
        return Ok(Fact { dims: Some(vec![Some(attr.floats.len())]), ..Fact::of(Elem::Float) });
    }
    Err(unsupported("it holds a value that is neither a tensor nor numbers"))
}

/// A constant with elements outside 32 bits.
struct Wide {
    name: String,
    below: bool,
    above: bool,
    example: i64,
}

fn wide(name: &str, tensor: &TensorProto, files: &Files) -> Option<Wide> {
    let mut wide = Wide { name: name.to_owned(), below: false, above: false, example: 0 };
    if elem(tensor.data_type()) == Elem::Int64 {
        for_each_int(tensor, files, |int| wide.add(int));
    }
    (wide.below || wide.above).then_some(wide)
}

impl Wide {
    fn add(&mut self, int: i64) {
        if i32::try_from(int).is_err() {
            self.below |= int < 0;
            self.above |= int > 0;
            self.example = int;
        }
    }
}

/// Refuses constants outside 32 bits, but where all uses take the nearest value of 32 bits for the same.
pub(super) fn check_uses(graph: &GraphProto, files: &Files) -> Result<(), Error> {
    let mut found: Vec<_> =
        graph.initializer.iter().filter_map(|tensor| wide(tensor.name(), tensor, files)).collect();
    for node in &graph.node {
        let name = node.output.first().map_or("", String::as_str);
        let tensor = node.attr("value").and_then(|attr| attr.t.as_ref());
        if node.op() == "Constant" {
            found.extend(tensor.and_then(|tensor| wide(name, tensor, files)));
            let mut plain = Wide { name: name.to_owned(), below: false, above: false, example: 0 };
            node.attr_int("value_int").into_iter().for_each(|int| plain.add(int));
            node.attr_ints("value_ints").unwrap_or_default().iter().for_each(|&int| plain.add(int));
            found.extend(Some(plain).filter(|plain| plain.below || plain.above));
        } else if let Some(wide) = tensor.and_then(|tensor| wide(name, tensor, files)) {
            return Err(refusal(&wide).at(node.place()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let uses = Uses::of(graph);
    for wide in &found {
        if !uses.allow(&wide.name, wide, MAX_STEPS) {
            return Err(refusal(wide).at(format!("constant '{}'", wide.name)));
        }
    }
    Ok(())
}

fn refusal(wide: &Wide) -> Error {
    unsupported(format!(
        "int64 value {} does not fit the 32 bits that the embedded engine computes in; this model needs another engine",
        wide.example
    ))
}

/// Which nodes take a value, and at which input.
struct Uses<'a> {
    nodes: HashMap<&'a str, Vec<(&'a NodeProto, usize)>>,
    /// Outputs of the graph, and values that inner graphs take.
    elsewhere: std::collections::HashSet<&'a str>,
}

impl<'a> Uses<'a> {
    fn of(graph: &'a GraphProto) -> Uses<'a> {
        let mut uses =
            Uses { nodes: HashMap::new(), elsewhere: graph.output.iter().map(|info| info.name()).collect() };
        for node in &graph.node {
            for (at, input) in node.input.iter().enumerate() {
                uses.nodes.entry(input.as_str()).or_default().push((node, at));
            }
            subgraphs(node).for_each(|graph| uses.add_inner(graph));
        }
        uses
    }

    fn add_inner(&mut self, graph: &'a GraphProto) {
        for node in &graph.node {
            self.elsewhere.extend(node.input.iter().map(String::as_str));
            subgraphs(node).for_each(|graph| self.add_inner(graph));
        }
    }

    fn allow(&self, name: &str, wide: &Wide, steps: usize) -> bool {
        if steps == 0 || self.elsewhere.contains(name) {
            return false;
        }
        let allowed = |&(node, at): &(&NodeProto, usize)| match (node.op(), at) {
            ("Slice", 1 | 2) => true,
            ("Loop", 0) => !wide.below,
            ("Clip", 1) | ("Max", _) => !wide.above,
            ("Clip", 2) | ("Min", _) => !wide.below,
            ("Identity" | "Unsqueeze" | "Squeeze" | "Reshape", 0) | ("Concat", _) => {
                node.output.iter().all(|output| self.allow(output, wide, steps - 1))
            }
            ("Cast", 0) if node.attr_int("to") == Some(Elem::Int64 as i64) => {
                node.output.iter().all(|output| self.allow(output, wide, steps - 1))
            }
            _ => false,
        };
        self.nodes.get(name).is_none_or(|nodes| nodes.iter().all(allowed))
    }
}
