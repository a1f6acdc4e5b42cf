//! Nodes of older and newer operator sets said with those of [`crate::OPSET`].

use salver_kernels::{Attribute, Attributes};
use salver_tensor::{Shape, Tensor};

use crate::ir::ValueId;
use crate::{Builder, Error};

/// A node on its way into the graph.
pub(super) struct Incoming<'a> {
    pub(super) name: &'a str,
    pub(super) op: String,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) attributes: Attributes,
    pub(super) n_outputs: usize,
    /// The version of ONNX's operators that the file is written in.
    pub(super) version: i64,
}

/// Adds a node without blocks, as the operators of our version that mean the same.
///
/// # Errors
/// When the meaning cannot be had, or the node does not fit the operator.
pub(super) fn add(b: &mut Builder, mut node: Incoming<'_>) -> Result<Vec<ValueId>, Error> {
    let version = node.version;
    match node.op.as_str() {
        "Constant" => return constant(b, &node).map(|id| vec![id]),
        "Squeeze" | "Unsqueeze" if version < 13 => ints_to_input(b, &mut node, "axes", 1),
        "ReduceSum" if version < 13 => ints_to_input(b, &mut node, "axes", 1),
        op if op.starts_with("Reduce") && op != "ReduceSum" && version < 18 => {
            ints_to_input(b, &mut node, "axes", 1);
        }
        "Split" => split(b, &mut node),
        "Pad" if version < 11 => {
            ints_to_input(b, &mut node, "pads", 1);
            float_to_input(b, &mut node, "value", 2)?;
        }
        "Clip" if version < 11 => {
            float_to_input(b, &mut node, "min", 1)?;
            float_to_input(b, &mut node, "max", 2)?;
        }
        "Slice" if version < 10 => {
            for (at, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
                ints_to_input(b, &mut node, name, at + 1);
            }
        }
        "TopK" if version < 10 => {
            if let Some(Attribute::Int(k)) = node.attributes.remove("k") {
                let k = b.i64s(&[k]);
                node.set_input(1, k);
            }
        }
        "Dropout" => return dropout(b, &node),
        "Softmax" | "LogSoftmax" | "Hardmax" if version < 13 => return softmax(b, node),
        "Upsample" => upsample(b, &mut node)?,
        "Resize" if version < 11 => {
            node.inputs.insert(1, None);
            older_resize(&mut node);
        }
        "BatchNormalization" => {
            if node.attributes.int("spatial", 1)? != 1 || node.attributes.flag("training_mode", false)? {
                return Err(Error::unsupported("statistics per pixel and training are not read"));
            }
            node.drop_attributes(&["spatial", "momentum", "training_mode", "is_test"]);
            node.n_outputs = 1;
        }
        "AveragePool" => {
            let dilations = node.attributes.ints("dilations")?.unwrap_or_default();
            if dilations.iter().any(|&n| n != 1) {
                return Err(Error::unsupported("dilations of AveragePool are not read"));
            }
            node.attributes.remove("dilations");
        }
        "Scatter" => node.op = "ScatterElements".into(),
        "Scan" if version < 9 => return Err(Error::unsupported("Scan with batches is not read")),
        "Cast" => {
            node.drop_attributes(&["saturate", "round_mode"]);
            type_attribute(&mut node, "to")?;
        }
        "CastLike" => {
            let like = node.inputs.get(1).copied().flatten();
            let like = like.ok_or_else(|| Error::invalid("CastLike lacks input 1"))?;
            node.inputs.truncate(1);
            node.op = "Cast".into();
            node.attributes = Attributes::new().with("to", b.dtype(like));
        }
        "GridSample" => {
            for (newer, own) in [("linear", "bilinear"), ("cubic", "bicubic")] {
                if node.attributes.text("mode", "")? == newer {
                    node.attributes.set("mode", own);
                }
            }
        }
        "EyeLike" | "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike"
        | "Multinomial" => type_attribute(&mut node, "dtype")?,
        _ => {}
    }
    let Incoming { name, op, inputs, attributes, n_outputs, .. } = node;
    b.ops(name, "", &op, &inputs, attributes, n_outputs)
}

impl Incoming<'_> {
    fn drop_attributes(&mut self, names: &[&str]) {
        for name in names {
            self.attributes.remove(name);
        }
    }

    fn set_input(&mut self, at: usize, id: ValueId) {
        self.inputs.resize(self.inputs.len().max(at + 1), None);
        self.inputs[at] = Some(id);
    }
}

/// A number of an element type becomes the type.
fn type_attribute(node: &mut Incoming<'_>, name: &str) -> Result<(), Error> {
    let Some(Attribute::Int(number)) = node.attributes.get(name) else { return Ok(()) };
    let dtype = i32::try_from(*number).ok().and_then(super::dtype_of);
    let dtype = dtype
        .ok_or_else(|| Error::unsupported(format!("{name} is element type {number}, which is not read")))?;
    node.attributes.set(name, dtype);
    Ok(())
}

fn ints_to_input(b: &mut Builder, node: &mut Incoming<'_>, name: &str, at: usize) {
    if let Some(Attribute::Ints(ints)) = node.attributes.remove(name) {
        let ints = b.i64s(&ints);
        node.set_input(at, ints);
    }
}

fn float_to_input(b: &mut Builder, node: &mut Incoming<'_>, name: &str, at: usize) -> Result<(), Error> {
    let first = node.inputs.first().copied().flatten();
    if let (Some(Attribute::Float(value)), Some(like)) = (node.attributes.remove(name), first) {
        let value = b.scalar(value.into(), like)?;
        node.set_input(at, value);
    }
    Ok(())
}

/// Without sizes the parts are equal, which is said by their number.
fn split(b: &mut Builder, node: &mut Incoming<'_>) {
    if node.version < 13 {
        ints_to_input(b, node, "split", 1);
    }
    let has_sizes = node.inputs.get(1).copied().flatten().is_some();
    if !has_sizes && node.attributes.get("num_outputs").is_none() {
        node.attributes.set("num_outputs", i64::try_from(node.n_outputs).unwrap_or(i64::MAX));
    }
}

/// Outside of training it passes its input on; the mask is all true.
fn dropout(b: &mut Builder, node: &Incoming<'_>) -> Result<Vec<ValueId>, Error> {
    let input = |at: usize| node.inputs.get(at).copied().flatten();
    let x = input(0).ok_or_else(|| Error::invalid("Dropout lacks input 0"))?;
    if let Some(training) = input(2) {
        let off = b.constant_of(training).and_then(|flag| flag.bytes()).is_some_and(|flag| *flag == [0][..]);
        if !off {
            return Err(Error::unsupported(
                "training_mode is not constantly false, so its answers are random",
            ));
        }
    }
    if node.n_outputs == 1 {
        return Ok(vec![x]);
    }
    if node.version < 10 {
        return Err(Error::unsupported("a mask of dropout that is not bool is not read"));
    }
    let one = Shape::vector(1).expect("one element fits");
    let all = Tensor::from_bools(one, &[true]).expect("as many elements as the shape");
    let shape = b.op(node.name, "Shape", &[x], Attributes::new())?;
    let mask = b.op(node.name, "ConstantOfShape", &[shape], Attributes::new().with("value", all))?;
    Ok(vec![x, mask])
}

/// Before version 13 all dimensions from `axis` on were one.
fn softmax(b: &mut Builder, mut node: Incoming<'_>) -> Result<Vec<ValueId>, Error> {
    let x = node.inputs.first().copied().flatten();
    let x = x.ok_or_else(|| Error::invalid(format!("{} lacks input 0", node.op)))?;
    let axis = node.attributes.int("axis", 1)?;
    let rank = b.rank(x).and_then(|rank| i64::try_from(rank).ok());
    node.attributes.set("axis", -1i64);
    if axis == -1 || rank.is_some_and(|rank| axis == rank - 1) {
        return b.ops(node.name, "", &node.op, &[Some(x)], node.attributes, 1);
    }
    let shape = b.op(node.name, "Shape", &[x], Attributes::new())?;
    let flat = b.op(node.name, "Flatten", &[x], Attributes::new().with("axis", axis))?;
    let y = b.op(node.name, &node.op, &[flat], node.attributes)?;
    Ok(vec![b.op(node.name, "Reshape", &[y, shape], Attributes::new())?])
}

/// `Upsample` is a `Resize` that starts at the corner.
fn upsample(b: &mut Builder, node: &mut Incoming<'_>) -> Result<(), Error> {
    let scales = match node.attributes.remove("scales") {
        Some(Attribute::Floats(scales)) => {
            let shape = Shape::vector(scales.len()).map_err(|error| Error::invalid(error.to_string()))?;
            let tensor =
                Tensor::from_vec(shape, scales).map_err(|error| Error::invalid(error.to_string()))?;
            Some(b.constant("scales", tensor))
        }
        _ => node.inputs.get(1).copied().flatten(),
    };
    let scales = scales.ok_or_else(|| Error::invalid("Upsample without scales"))?;
    node.inputs.truncate(1);
    node.inputs.extend([None, Some(scales)]);
    node.op = "Resize".into();
    older_resize(node);
    Ok(())
}

fn older_resize(node: &mut Incoming<'_>) {
    node.attributes.set("coordinate_transformation_mode", "asymmetric");
    node.attributes.set("nearest_mode", "floor");
}

fn constant(b: &mut Builder, node: &Incoming<'_>) -> Result<ValueId, Error> {
    let misfit = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
    let vector = |n: usize| Shape::vector(n).map_err(|error| misfit(&error));
    let texts = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes().into()).collect();
    for (name, value) in node.attributes.iter() {
        let tensor = match (name, value) {
            ("value", Attribute::Tensor(tensor)) => Ok(tensor.clone()),
            ("value_int", Attribute::Int(int)) => Tensor::from_vec(Shape::scalar(), vec![*int]),
            ("value_float", Attribute::Float(x)) => Tensor::from_vec(Shape::scalar(), vec![*x]),
            ("value_string", Attribute::String(text)) => {
                Tensor::from_strings(Shape::scalar(), texts(std::slice::from_ref(text)))
            }
            ("value_ints", Attribute::Ints(ints)) => Tensor::from_vec(vector(ints.len())?, ints.clone()),
            ("value_floats", Attribute::Floats(xs)) => Tensor::from_vec(vector(xs.len())?, xs.clone()),
            ("value_strings", Attribute::Strings(all)) => {
                Tensor::from_strings(vector(all.len())?, texts(all))
            }
            _ => continue,
        };
        return Ok(b.constant(node.name, tensor.map_err(|error| misfit(&error))?));
    }
    Err(Error::unsupported("it holds a value that is neither a tensor nor numbers nor texts"))
}
