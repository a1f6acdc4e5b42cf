//! A cell's weights and attributes in the order of ONNX's recurrent operators.

use salver_kernels::Attributes;
use salver_tensor::{Shape, Tensor};

use super::atoms::Activation;
use super::cell::{Cell, Kind};
use crate::Error;

/// `W [1, gates·hidden, width]`, `R [1, gates·hidden, hidden]` and, unless it is 0, `B [1, 2·gates·hidden]`. `widths` are
/// those of the inputs, which stand side by side in `W`.
///
/// # Errors
/// When they are too large.
pub(super) fn tensors(cell: &Cell, widths: &[usize]) -> Result<(Tensor, Tensor, Option<Tensor>), Error> {
    let (n, hidden, width) = (cell.gates.len(), cell.hidden, widths.iter().sum::<usize>());
    let mut w = vec![0f32; size(&[n, hidden, width])?];
    let mut r = vec![0f32; size(&[n, hidden, hidden])?];
    let mut b = vec![0f32; size(&[2, n, hidden])?];
    for (at, gate) in cell.gates.iter().enumerate() {
        for (number, weights) in &gate.inputs {
            let first: usize = widths[..*number].iter().sum();
            for row in 0..weights.n_rows {
                for (unit, &weight) in weights.row(row).iter().enumerate() {
                    w[(at * hidden + unit) * width + first + row] = weight;
                }
            }
        }
        for row in 0..hidden {
            for (unit, &weight) in gate.recurrent.row(row).iter().enumerate() {
                r[(at * hidden + unit) * hidden + row] = weight;
            }
        }
        let recurrent = gate.recurrent_bias.as_deref().unwrap_or_default();
        for (which, bias) in [(0, gate.bias.as_slice()), (n, recurrent)] {
            let to = &mut b[(which + at) * hidden..(which + at + 1) * hidden];
            to.iter_mut().zip(bias).for_each(|(to, &bias)| *to = bias as f32);
        }
    }
    let has_bias = b.iter().any(|&bias| bias != 0.0);
    let b = has_bias.then(|| tensor(&[1, 2 * n * hidden], b)).transpose()?;
    Ok((tensor(&[1, n * hidden, width], w)?, tensor(&[1, n * hidden, hidden], r)?, b))
}

fn size(dims: &[usize]) -> Result<usize, Error> {
    let shape = Shape::new(dims).map_err(|error| Error::too_large(error.to_string()))?;
    Ok(shape.n_elements())
}

fn tensor(dims: &[usize], elements: Vec<f32>) -> Result<Tensor, Error> {
    let shape = Shape::new(dims).map_err(|error| Error::too_large(error.to_string()))?;
    Tensor::from_vec(shape, elements).map_err(|error| Error::invalid(error.to_string()))
}

/// The attributes of the node.
pub(super) fn attributes(cell: &Cell, is_reverse: bool) -> Attributes {
    let mut attributes = Attributes::new().with("hidden_size", cell.hidden as i64);
    if is_reverse {
        attributes.set("direction", "reverse");
    }
    if let Kind::Gru { linear_before_reset } = cell.kind {
        attributes.set("linear_before_reset", i64::from(linear_before_reset));
    }
    if cell.activations != cell.kind.default_activations() {
        let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
        for activation in &cell.activations {
            let (name, alpha, beta) = named(*activation);
            names.push(name.to_owned());
            alphas.extend(alpha.map(|alpha| alpha as f32));
            betas.extend(beta.map(|beta| beta as f32));
        }
        attributes.set("activations", names);
        if !alphas.is_empty() {
            attributes.set("activation_alpha", alphas);
        }
        if !betas.is_empty() {
            attributes.set("activation_beta", betas);
        }
    }
    attributes
}

/// ONNX's name, alpha and beta.
fn named(activation: Activation) -> (&'static str, Option<f64>, Option<f64>) {
    match activation {
        Activation::Sigmoid => ("Sigmoid", None, None),
        Activation::Tanh => ("Tanh", None, None),
        Activation::Relu => ("Relu", None, None),
        Activation::HardSigmoid { alpha, beta } => ("HardSigmoid", Some(alpha), Some(beta)),
        Activation::Elu { alpha } => ("Elu", Some(alpha), None),
        Activation::LeakyRelu { alpha } => ("LeakyRelu", Some(alpha), None),
        Activation::ThresholdedRelu { alpha } => ("ThresholdedRelu", Some(alpha), None),
        Activation::Softsign => ("Softsign", None, None),
        Activation::Softplus => ("Softplus", None, None),
        // No cell is made with half a clip.
        Activation::Linear | Activation::Below { .. } => ("Affine", Some(1.0), Some(0.0)),
    }
}
