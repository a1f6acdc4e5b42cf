//! How Keras 1 stored weights.

use salver_graph::Error;
use salver_tensor::{Shape, Tensor};

use crate::architecture::Layer;

/// Keras 1 stores the kernels of each gate apart: GRU z, r, h; LSTM i, c, f, o, each as kernel, recurrent kernel, bias.
pub(crate) fn weights(layer: &Layer, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let order: &[usize] = match (layer.class.as_str(), tensors.len()) {
        ("GRU", 9) => &[0, 1, 2],
        ("LSTM", 12) => &[0, 2, 1, 3],
        ("Conv1D", _) if layer.config.flag("__kernel_1d", false)? => return kernel_one_dimension(tensors),
        _ if layer.config.flag("__kernel_first", false)? && layer.class.starts_with("Conv") => {
            return Err(Error::unsupported(
                "a convolution of Keras 1 with dim_ordering 'th': load and save the model with Keras 2",
            ));
        }
        _ => return Ok(tensors),
    };
    let mut joined = Vec::new();
    for part in 0..3 {
        let parts: Vec<&Tensor> = order.iter().map(|gate| &tensors[gate * 3 + part]).collect();
        joined.push(side_by_side(&parts)?);
    }
    Ok(joined)
}

/// Keras 1 stores `[length, 1, inputs, outputs]`.
fn kernel_one_dimension(mut tensors: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    if let Some(kernel) = tensors.first_mut()
        && let [length, 1, inputs, outputs] = *kernel.shape().dims()
    {
        let shape =
            Shape::new(&[length, inputs, outputs]).map_err(|error| Error::too_large(error.to_string()))?;
        *kernel = kernel.reshape(shape).map_err(|error| Error::invalid(error.to_string()))?;
    }
    Ok(tensors)
}

/// Joins matrices of the same height, or vectors.
fn side_by_side(parts: &[&Tensor]) -> Result<Tensor, Error> {
    let wrong = || Error::invalid("the kernels of the gates do not fit each other");
    let height = if parts[0].shape().rank() == 2 { parts[0].shape().dims()[0] } else { 1 };
    let mut widths = Vec::new();
    let mut rows = Vec::new();
    for part in parts {
        let dims = part.shape().dims();
        let same = dims.len() == parts[0].shape().rank() && matches!(dims.len(), 1 | 2);
        let width = dims.last().copied().filter(|_| same && (dims.len() == 1 || dims[0] == height));
        widths.push(width.ok_or_else(wrong)?);
        rows.push(part.to_slice::<f32>().ok_or_else(wrong)?);
    }
    let total: usize = widths.iter().sum();
    let mut joined = Vec::new();
    for row in 0..height {
        for (part, &width) in rows.iter().zip(&widths) {
            joined.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    let dims = if parts[0].shape().rank() == 2 { vec![height, total] } else { vec![total] };
    let shape = Shape::new(&dims).map_err(|error| Error::too_large(error.to_string()))?;
    Tensor::from_vec(shape, joined).map_err(|error| Error::invalid(error.to_string()))
}
