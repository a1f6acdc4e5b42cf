//! Rewrites of nodes into the form that rten runs correctly: attributes that are left out are filled in with ONNX's
//! defaults, and operators whose meaning rten does not have are said with others.

use salver_engine::{Error, ErrorKind};

use crate::bound::Bound;
use crate::check::Fact;
use crate::element::Elem;
use crate::proto::NodeExt;
use salver_graph::onnx::proto::{NodeProto, TensorProto};

/// What a rewrite may look at.
pub(crate) struct Context<'a> {
    /// What is known of the node's inputs.
    pub(crate) inputs: &'a [Option<Fact>],
    /// The version of ONNX's operators.
    pub(crate) opset: i64,
    /// Makes a name that no value has.
    pub(crate) fresh: &'a mut dyn FnMut(&str) -> String,
}

impl Context<'_> {
    fn input(&self, at: usize) -> Option<&Fact> {
        self.inputs.get(at).and_then(Option::as_ref)
    }

    fn rank(&self, at: usize) -> Option<usize> {
        self.input(at).and_then(|fact| fact.dims.as_ref()).map(Vec::len)
    }
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The nodes that stand for `node`, in the order in which they compute.
pub(crate) fn normalise(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Error> {
    if !node.is_onnx() {
        return Ok(vec![node]);
    }
    match node.op() {
        "Conv" | "ConvInteger" | "ConvTranspose" => convolution(&mut node, context)?,
        "MaxPool" | "AveragePool" => pooling(&mut node)?,
        "GRU" if node.attr_int("linear_before_reset").unwrap_or(0) == 0 => {
            return Err(unsupported("linear_before_reset=0 is not a GRU that the embedded engine has"));
        }
        "GRU" | "LSTM" if node.input.get(4).is_some_and(|name| !name.is_empty()) => {
            return Err(unsupported("lengths of sequences are not ones the embedded engine looks at"));
        }
        "GRU" | "LSTM" => recurrent(&mut node, context),
        "MatMul" if context.rank(1) == Some(1) => return Ok(times_vector(node, context)),
        "Pad" if node.input.get(3).is_some_and(|name| !name.is_empty()) => {
            return Err(unsupported("padding of some axes only is not one the embedded engine has"));
        }
        "Softmax" | "LogSoftmax" => return Ok(softmax(node, context)),
        "Cast" if node.attr_int("to") == Some(Elem::Bool as i64) => return Ok(cast_to_bool(node, context)),
        "Sign"
            if context.input(0).is_none_or(|fact| fact.elem != Elem::Int32 && fact.elem != Elem::Int64) =>
        {
            return Ok(sign(&node, context));
        }
        "ArgMax" | "ArgMin" => return Ok(arg_most(node, context)),
        "CastLike" => return cast_like(node, context),
        "Dropout" => dropout(&mut node, context)?,
        "Resize" if node.attr_str("mode") == Some("cubic") => {
            return Err(unsupported("cubic interpolation is not one the embedded engine has"));
        }
        _ => {}
    }
    Ok(vec![node])
}

/// Fills in strides, dilations and pads for `n_axes` spatial axes.
fn fill_in(node: &mut NodeProto, n_axes: usize, with_dilations: bool) {
    let mut names = vec![("strides", 1, n_axes)];
    if with_dilations {
        names.push(("dilations", 1, n_axes));
    }
    if !is_same(node) {
        names.push(("pads", 0, 2 * n_axes));
    }
    for (name, value, len) in names {
        if node.attr_ints(name).is_none() {
            node.set_ints(name, vec![value; len]);
        }
    }
}

fn is_same(node: &NodeProto) -> bool {
    matches!(node.attr_str("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"))
}

/// `VALID` means no padding, whatever `pads` says; `SAME_LOWER` differs from `SAME_UPPER` where the padding is odd.
fn automatic_padding(node: &mut NodeProto, kernel: Option<&[i64]>) -> Result<(), Error> {
    match node.attr_str("auto_pad") {
        Some("VALID") => {
            node.remove("auto_pad");
            node.remove("pads");
        }
        Some("SAME_LOWER") => {
            let all_one = |name| node.attr_ints(name).is_none_or(|ints| ints.iter().all(|&i| i == 1));
            let is_odd = |kernel: &[i64]| kernel.iter().all(|size| size % 2 == 1);
            if !(all_one("strides") && kernel.is_some_and(is_odd)) {
                return Err(unsupported(
                    "auto_pad SAME_LOWER with padding that may be uneven is not exact here",
                ));
            }
            node.set_str("auto_pad", "SAME_UPPER");
        }
        _ => {}
    }
    Ok(())
}

fn convolution(node: &mut NodeProto, context: &Context<'_>) -> Result<(), Error> {
    let weight = context.input(1).and_then(|fact| fact.dims.clone());
    let from_weight = weight.as_ref().and_then(|dims| {
        dims.get(2..)?
            .iter()
            .map(|dim| dim.and_then(|dim| i64::try_from(dim).ok()))
            .collect::<Option<Vec<_>>>()
    });
    let kernel = node.attr_ints("kernel_shape").map(<[i64]>::to_vec).or(from_weight);
    if node.op() == "ConvTranspose" && is_same(node) {
        return Err(unsupported("auto_pad of a transposed convolution is not exact here"));
    }
    automatic_padding(node, kernel.as_deref())?;
    let rank = weight.as_ref().map(Vec::len).or(context.rank(0)).map(|rank| rank.saturating_sub(2));
    let Some(n_axes) = kernel.as_ref().map(Vec::len).or(rank) else {
        let complete = ["strides", "dilations"].iter().all(|name| node.attr_ints(name).is_some())
            && (is_same(node) || node.attr_ints("pads").is_some());
        return if complete {
            Ok(())
        } else {
            Err(unsupported(
                "strides, dilations or pads are left out and the weight's shape is not known at load",
            ))
        };
    };
    check_axes(n_axes)?;
    fill_in(node, n_axes, true);
    let has_offset = context.input(2).is_some_and(|fact| fact.bound != Bound::ZERO);
    let pads = is_same(node) || node.attr_ints("pads").is_some_and(|pads| pads.iter().any(|&pad| pad != 0));
    if node.op() == "ConvInteger" && has_offset && pads {
        return Err(unsupported("padding around a zero point other than 0 is not exact here"));
    }
    match kernel {
        Some(kernel) => node.set_ints("kernel_shape", kernel),
        None => node.remove("kernel_shape"),
    }
    Ok(())
}

fn check_axes(n_axes: usize) -> Result<(), Error> {
    if n_axes > 2 {
        return Err(unsupported(format!("{n_axes} spatial axes, expected 1 or 2")));
    }
    Ok(())
}

fn pooling(node: &mut NodeProto) -> Result<(), Error> {
    let kernel = node.attr_ints("kernel_shape").map(<[i64]>::to_vec);
    let kernel = kernel.ok_or_else(|| Error::new(ErrorKind::InvalidModel, "kernel_shape is missing"))?;
    check_axes(kernel.len())?;
    automatic_padding(node, Some(&kernel))?;
    fill_in(node, kernel.len(), false);
    Ok(())
}

/// The recurrence weight says the hidden size when the attribute does not.
fn recurrent(node: &mut NodeProto, context: &Context<'_>) {
    let hidden = context.input(2).and_then(|fact| fact.dims.as_ref()?.get(2).copied()?);
    if let (None, Some(hidden)) = (node.attr("hidden_size"), hidden.and_then(|size| i64::try_from(size).ok()))
    {
        node.set_int("hidden_size", hidden);
    }
}

/// Before opset 13 all axes from `axis` on were one.
fn softmax(mut node: NodeProto, context: &mut Context<'_>) -> Vec<NodeProto> {
    if context.opset >= 13 {
        return vec![node];
    }
    let axis = node.attr_int("axis").unwrap_or(1);
    let is_last =
        context.rank(0).and_then(|rank| i64::try_from(rank).ok()).is_some_and(|rank| axis == rank - 1);
    if axis == -1 || is_last {
        node.set_int("axis", -1);
        return vec![node];
    }
    let (x, y) =
        (node.input.first().cloned().unwrap_or_default(), node.output.first().cloned().unwrap_or_default());
    let [shape, flat, done] = ["shape", "flat", "softmax"].map(|what| (context.fresh)(what));
    let mut flatten = NodeProto::new("Flatten", &[&x], &flat);
    flatten.set_int("axis", axis);
    node.input = vec![flat];
    node.output = vec![done.clone()];
    node.set_int("axis", -1);
    vec![
        NodeProto::new("Shape", &[&x], &shape),
        flatten,
        node,
        NodeProto::new("Reshape", &[&done, &shape], &y),
    ]
}

/// Any number but zero is true, fractions and NaN included. Going by way of `float32` serves every element type:
/// no whole number that is not zero becomes zero there.
fn cast_to_bool(mut node: NodeProto, context: &mut Context<'_>) -> Vec<NodeProto> {
    if context.input(0).is_some_and(|fact| fact.elem == Elem::Bool) {
        return vec![node];
    }
    let [number, zero, equal] = ["number", "zero", "equal"].map(|what| (context.fresh)(what));
    let y = std::mem::replace(&mut node.output, vec![number.clone()]).pop().unwrap_or_default();
    node.set_int("to", Elem::Float as i64);
    vec![
        node,
        float_constant(&zero, Elem::Float),
        NodeProto::new("Equal", &[&number, &zero], &equal),
        NodeProto::new("Not", &[&equal], &y),
    ]
}

/// rten leaves an axis too many when the other operand has more than two.
fn times_vector(mut node: NodeProto, context: &mut Context<'_>) -> Vec<NodeProto> {
    let [one, last, column, product] = ["one", "last", "column", "product"].map(|what| (context.fresh)(what));
    let y = std::mem::replace(&mut node.output, vec![product.clone()]).pop().unwrap_or_default();
    let vector = std::mem::replace(&mut node.input[1], column.clone());
    vec![
        int_constant(&one, 1),
        int_constant(&last, -1),
        NodeProto::new("Unsqueeze", &[&vector, &one], &column),
        node,
        NodeProto::new("Squeeze", &[&product, &last], &y),
    ]
}

/// rten takes the sign of zero to be one.
fn sign(node: &NodeProto, context: &mut Context<'_>) -> Vec<NodeProto> {
    let (x, y) = ends(node);
    let elem = context.input(0).map_or(Elem::Float, |fact| fact.elem);
    let names = ["zero", "above", "below", "positive", "negative"];
    let [zero, above, below, positive, negative] = names.map(|what| (context.fresh)(what));
    let cast = |from: &str, to: &str| {
        let mut node = NodeProto::new("Cast", &[from], to);
        node.set_int("to", elem as i64);
        node
    };
    vec![
        float_constant(&zero, elem),
        NodeProto::new("Greater", &[&x, &zero], &above),
        NodeProto::new("Less", &[&x, &zero], &below),
        cast(&above, &positive),
        cast(&below, &negative),
        NodeProto::new("Sub", &[&positive, &negative], &y),
    ]
}

/// Of equal elements ONNX wants the first unless it is told otherwise; rten takes the last, but its `TopK` the first.
fn arg_most(mut node: NodeProto, context: &mut Context<'_>) -> Vec<NodeProto> {
    let last = node.attr_int("select_last_index").unwrap_or(0) != 0;
    node.remove("select_last_index");
    if last {
        return vec![node];
    }
    let (x, y) = ends(&node);
    let (axis, keep) = (node.attr_int("axis").unwrap_or(0), node.attr_int("keepdims").unwrap_or(1) != 0);
    let [one, values, kept, axes] = ["one", "values", "kept", "axes"].map(|what| (context.fresh)(what));
    let mut top = NodeProto::new("TopK", &[&x, &one], &values);
    top.output.push(if keep { y.clone() } else { kept.clone() });
    top.set_int("axis", axis);
    top.set_int("largest", i64::from(node.op() == "ArgMax"));
    let mut nodes = vec![int_constant(&one, 1), top];
    if !keep {
        nodes.extend([int_constant(&axes, axis), NodeProto::new("Squeeze", &[&kept, &axes], &y)]);
    }
    nodes
}

/// The names of the first input and output.
fn ends(node: &NodeProto) -> (String, String) {
    (node.input.first().cloned().unwrap_or_default(), node.output.first().cloned().unwrap_or_default())
}

/// A scalar zero of an element type of fractions.
fn float_constant(name: &str, elem: Elem) -> NodeProto {
    let mut tensor = TensorProto { data_type: Some(elem.into()), ..Default::default() };
    if elem == Elem::Float16 {
        tensor.int32_data = vec![0];
    } else {
        tensor.float_data = vec![0.0];
    }
    let mut node = NodeProto::new("Constant", &[], name);
    node.set_tensor("value", tensor);
    node
}

/// A vector of one whole number.
fn int_constant(name: &str, value: i64) -> NodeProto {
    let tensor = TensorProto {
        data_type: Some(Elem::Int64.into()),
        dims: vec![1],
        int64_data: vec![value],
        ..Default::default()
    };
    let mut node = NodeProto::new("Constant", &[], name);
    node.set_tensor("value", tensor);
    node
}

/// The type to cast to is known at load.
fn cast_like(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Error> {
    let Some(to) = context.input(1).map(|fact| fact.elem) else {
        return Err(Error::new(ErrorKind::InvalidModel, "input 1 is missing"));
    };
    node.op_type = Some("Cast".into());
    node.input.truncate(1);
    node.set_int("to", to as i64);
    if to == Elem::Bool { Ok(cast_to_bool(node, context)) } else { Ok(vec![node]) }
}

/// Outside training it passes its input on.
fn dropout(node: &mut NodeProto, context: &Context<'_>) -> Result<(), Error> {
    if context.opset >= 12 && node.input.get(2).is_some_and(|name| !name.is_empty()) {
        let off = context.input(2).and_then(|fact| fact.ints.as_deref()) == Some(&[0]);
        if !off {
            return Err(unsupported("training_mode is not constantly false, so its answers are random"));
        }
    }
    node.input.truncate(1);
    node.attribute.clear();
    if node.output.get(1).is_none_or(String::is_empty) {
        node.op_type = Some("Identity".into());
        node.output.truncate(1);
    }
    Ok(())
}
