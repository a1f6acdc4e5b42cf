//! Which nodes of a graph this engine runs.

use salver_graph::{Attributes, Graph, Node};

use crate::operators;

/// Whether the engine has an operator with these attributes. Element types are for the caller to judge, and so is what
/// only shapes say; see [`supports_in`].
pub fn supports(node: &Node) -> bool {
    node.domain.is_empty()
        && operators::is_known(&node.op)
        && has_attributes(node)
        && node.blocks.iter().all(|(_, block)| block.nodes.iter().all(supports))
}

/// As [`supports`], and refuses what the shapes and constants in its graph show that the engine lacks.
pub fn supports_in(graph: &Graph, node: &Node) -> bool {
    supports(node)
        && fits(graph, node)
        && node.blocks.iter().all(|(_, block)| block.nodes.iter().all(|inner| fits_all(graph, inner)))
}

fn fits_all(graph: &Graph, node: &Node) -> bool {
    fits(graph, node) && node.blocks.iter().all(|(_, block)| block.nodes.iter().all(|n| fits_all(graph, n)))
}

fn has_attributes(node: &Node) -> bool {
    let attributes = &node.attributes;
    let is = |name: &str, value: i64| attributes.int(name, value).is_ok_and(|got| got == value);
    let text_in = |name: &str, values: &[&str]| {
        attributes.text(name, values[0]).is_ok_and(|text| values.contains(&text))
    };
    match node.op.as_str() {
        "GRU" => {
            is("linear_before_reset", 1)
                && attributes.get("linear_before_reset").is_some()
                && recurrent(node, &["Sigmoid", "Tanh"])
        }
        "LSTM" => is("input_forget", 0) && recurrent(node, &["Sigmoid", "Tanh", "Tanh"]),
        "Conv" | "ConvInteger" => is_flat(attributes) && !is_uneven(attributes),
        "ConvTranspose" => {
            is_flat(attributes)
                && text_in("auto_pad", &["NOTSET", "VALID"])
                && attributes.get("output_shape").is_none()
        }
        "MaxPool" | "AveragePool" => {
            is_flat(attributes)
                && !is_uneven(attributes)
                && attributes.get("kernel_shape").is_some()
                && is("storage_order", 0)
                && all_are(attributes, "dilations", 1)
                && node.outputs.len() == 1
        }
        "Resize" => {
            is("antialias", 0)
                && is("exclude_outside", 0)
                && attributes.get("axes").is_none()
                && text_in("mode", &["nearest", "linear"])
                && text_in("keep_aspect_ratio_policy", &["stretch"])
                && text_in(
                    "coordinate_transformation_mode",
                    &["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"],
                )
        }
        "Pad" => node.input(3).is_none() && text_in("mode", &["constant", "reflect", "edge", "wrap"]),
        "BatchNormalization" => is("training_mode", 0) && node.outputs.len() == 1,
        "LayerNormalization" => node.outputs.len() == 1,
        "LpNormalization" => attributes.int("p", 2).is_ok_and(|p| p == 1 || p == 2),
        "GridSample" => text_in("mode", &["linear", "bilinear"]) && text_in("padding_mode", &["zeros"]),
        "Dropout" => node.input(2).is_none() && node.outputs.len() == 1,
        "QuantizeLinear" | "DequantizeLinear" => is("block_size", 0),
        _ => true,
    }
}

/// One direction or two, with the activations that rten has; it does not look at the lengths of sequences.
fn recurrent(node: &Node, activations: &[&str]) -> bool {
    let attributes = &node.attributes;
    let given = attributes.texts("activations").unwrap_or_default().unwrap_or_default();
    let empty = |name: &str| attributes.floats(name).is_ok_and(|list| list.is_none_or(<[f32]>::is_empty));
    attributes.get("hidden_size").is_some()
        && given.len().is_multiple_of(activations.len())
        && given.iter().zip(activations.iter().cycle()).all(|(given, known)| given == known)
        && empty("activation_alpha")
        && empty("activation_beta")
        && attributes.float("clip", 0.0) == Ok(0.0)
        && attributes.int("layout", 0) == Ok(0)
        && node.input(4).is_none()
        && node.input(7).is_none()
}

/// At most two spatial dimensions, as far as the attributes say.
fn is_flat(attributes: &Attributes) -> bool {
    let at_most = |name: &str, n: usize| {
        attributes.ints(name).is_ok_and(|ints| ints.is_none_or(|ints| ints.len() <= n))
    };
    at_most("kernel_shape", 2) && at_most("strides", 2) && at_most("dilations", 2) && at_most("pads", 4)
}

/// `SAME_LOWER` is exact here only where it does not differ from `SAME_UPPER`.
fn is_uneven(attributes: &Attributes) -> bool {
    let odd = attributes
        .ints("kernel_shape")
        .is_ok_and(|kernel| kernel.is_some_and(|kernel| kernel.iter().all(|size| size % 2 == 1)));
    let even = odd && all_are(attributes, "strides", 1) && all_are(attributes, "dilations", 1);
    attributes.text("auto_pad", "NOTSET") == Ok("SAME_LOWER") && !even
}

fn all_are(attributes: &Attributes, name: &str, value: i64) -> bool {
    attributes.ints(name).is_ok_and(|ints| ints.is_none_or(|ints| ints.iter().all(|&int| int == value)))
}

fn fits(graph: &Graph, node: &Node) -> bool {
    let rank = |at: usize| node.input(at).and_then(|id| graph.value(id).dims.as_ref()).map(Vec::len);
    match node.op.as_str() {
        "Conv" | "ConvInteger" | "ConvTranspose" | "MaxPool" | "AveragePool" => {
            rank(0).is_some_and(|rank| rank <= 4)
        }
        "Resize" => rank(0).is_some_and(|rank| rank <= 4) && resizes_two(graph, node),
        "Pad" => node.attributes.text("mode", "constant") == Ok("constant") || pads_last_two(graph, node),
        _ => true,
    }
}

/// Whether only two dimensions change, and of an image the last two.
fn resizes_two(graph: &Graph, node: &Node) -> bool {
    let dims = |id| graph.value(id).dims.as_deref();
    let (Some(from), Some(to)) = (node.input(0).and_then(dims), node.outputs.first().copied().and_then(dims))
    else {
        return false;
    };
    let n_kept = from.len().saturating_sub(2);
    from.len() == to.len() && from.iter().zip(to).take(n_kept).all(|(a, b)| a.is_same(b))
}

fn pads_last_two(graph: &Graph, node: &Node) -> bool {
    let pads = node.input(1).and_then(|id| graph.value(id).constant.as_ref());
    let Some(pads) = pads.and_then(|pads| pads.to_slice::<i64>()) else { return false };
    let rank = pads.len() / 2;
    (0..rank.saturating_sub(2)).all(|at| pads[at] == 0 && pads[at + rank] == 0)
}

#[cfg(test)]
mod tests {
    use salver_graph::Attributes;

    use super::*;

    #[test]
    fn limits_of_operators_are_known() {
        let none = Attributes::new;
        let gru = || none().with("hidden_size", 3i64).with("linear_before_reset", 1i64);
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        for (op, attributes, expected) in [
            ("Add", none(), true),
            ("Scan", none(), false),
            ("GRU", gru(), true),
            ("GRU", none().with("hidden_size", 3i64), false),
            ("GRU", gru().with("activations", texts(&["Sigmoid", "Tanh"])), true),
            ("GRU", gru().with("activations", texts(&["Sigmoid", "Relu"])), false),
            ("LSTM", none().with("hidden_size", 3i64).with("layout", 1i64), false),
            ("Conv", none().with("strides", [1i64, 1]), true),
            ("Conv", none().with("kernel_shape", [3i64, 3, 3]), false),
            ("Conv", none().with("auto_pad", "SAME_LOWER").with("kernel_shape", [2i64, 2]), false),
            ("ConvTranspose", none().with("auto_pad", "SAME_UPPER"), false),
            ("MaxPool", none().with("kernel_shape", [2i64, 2]).with("dilations", [2i64, 2]), false),
            ("Resize", none().with("mode", "cubic"), false),
            ("Resize", none().with("mode", "linear"), true),
        ] {
            let node = Node {
                name: op.into(),
                domain: String::new(),
                op: op.into(),
                inputs: vec![None; 3],
                outputs: vec![salver_graph::Builder::new().f32(0.0)],
                attributes: attributes.clone(),
                blocks: Vec::new(),
            };
            assert_eq!(supports(&node), expected, "{op} {attributes:?}");
        }
    }
}
