//! `NonMaxSuppression`: of boxes that overlap the one with the highest score.

use salver_tensor::{DType, Tensor};

use crate::call::{Call, read, size};
use crate::layout::output_shape;
use crate::{Error, Outputs, cast};

/// A box by its lower and upper corner.
#[derive(Debug, Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    /// From two opposite corners in any order.
    fn of_corners(b: &[f32]) -> Corners {
        Corners { low: [b[0].min(b[2]), b[1].min(b[3])], high: [b[0].max(b[2]), b[1].max(b[3])] }
    }

    /// From the centre, the width and the height.
    fn of_centre(b: &[f32]) -> Corners {
        let (w, h) = (b[2] / 2.0, b[3] / 2.0);
        Corners { low: [b[1] - h, b[0] - w], high: [b[1] + h, b[0] + w] }
    }

    fn area(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// The area of the intersection divided by that of the union; 0 where a box has no area.
    fn overlap(&self, other: &Corners) -> f32 {
        let side = |i: usize| (self.high[i].min(other.high[i]) - self.low[i].max(other.low[i])).max(0.0);
        let shared = side(0) * side(1);
        let union = self.area() + other.area() - shared;
        if self.area() <= 0.0 || other.area() <= 0.0 || union <= 0.0 { 0.0 } else { shared / union }
    }
}

/// `NonMaxSuppression`, for each class of each batch apart.
pub(crate) fn suppress(call: &Call<'_>) -> Outputs {
    let (boxes, scores) = (call.input(0)?, call.input(1)?);
    let (&[batch, n, 4], &[batches, classes, m]) = (boxes.shape().dims(), scores.shape().dims()) else {
        return Err(misfit(boxes, scores));
    };
    if batch != batches || n != m || [boxes, scores].iter().any(|t| t.dtype() != DType::F32) {
        return Err(misfit(boxes, scores));
    }
    let most = match call.optional(2) {
        Some(_) => size(call.int(2)?.max(0), "max_output_boxes_per_class")?,
        None => 0,
    };
    let threshold = |index: usize, default: f32| -> Result<f32, Error> {
        let Some(tensor) = call.optional(index) else { return Ok(default) };
        match cast::to_type(tensor, DType::F32)?.to_slice::<f32>().as_deref() {
            Some([value]) => Ok(*value),
            _ => {
                Err(Error::invalid(format!("input {index} has shape {}, expected a scalar", tensor.shape())))
            }
        }
    };
    let (overlap, least) = (threshold(3, 0.0)?, threshold(4, f32::NEG_INFINITY)?);
    let by_centre = call.attributes.flag("center_point_box", false)?;
    let corners = if by_centre { Corners::of_centre } else { Corners::of_corners };
    let corners: Vec<Corners> = read::<f32>(boxes).chunks_exact(4).map(corners).collect();
    let scores = read::<f32>(scores);
    let mut picked: Vec<i64> = Vec::new();
    for group in 0..if n == 0 { 0 } else { batch * classes } {
        let (b, class) = (group / classes, group % classes);
        let (corners, scores) = (&corners[b * n..(b + 1) * n], &scores[group * n..(group + 1) * n]);
        for i in best(corners, scores, most, overlap, least) {
            picked.extend([b as i64, class as i64, i as i64]);
        }
    }
    let shape = output_shape(DType::I64, &[picked.len() / 3, 3])?;
    Ok(vec![Tensor::from_vec(shape, picked)?])
}

fn misfit(boxes: &Tensor, scores: &Tensor) -> Error {
    Error::invalid(format!(
        "boxes {boxes:?} and scores {scores:?}, expected float32 [batch,boxes,4] and [batch,classes,boxes]"
    ))
}

/// The boxes that are kept, by falling score.
fn best(corners: &[Corners], scores: &[f32], most: usize, overlap: f32, least: f32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > least).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() >= most {
            break;
        }
        if kept.iter().all(|&k| corners[i].overlap(&corners[k]) <= overlap) {
            kept.push(i);
        }
    }
    kept
}
