//! Resizing of images, and fake quantisation.

use salver_graph::{Attributes, ValueId};
use salver_tensor::DType;

use super::context::{Context, Layout, Outputs};
use super::resample::{self, Kernel, Places};
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    plain("FakeQuantWithMinMaxArgs", |c| {
        let x = c.input(0)?;
        let low = c.scalar(f64::from(c.node.float("min", -6.0)?), x)?;
        let high = c.scalar(f64::from(c.node.float("max", 6.0)?), x)?;
        fake_quant(c, x, low, high)
    }),
    plain("FakeQuantWithMinMaxVars", |c| {
        let (x, low, high) = (c.input(0)?, c.input(1)?, c.input(2)?);
        fake_quant(c, x, low, high)
    }),
    plain("FakeQuantWithMinMaxVarsPerChannel", |c| {
        let (x, low, high) = (c.input(0)?, c.input(1)?, c.input(2)?);
        fake_quant(c, x, low, high)
    }),
    plain("ResizeBilinear", |c| resize(c, Kind::Linear)),
    noted("ResizeBicubic", "of open sizes: up to 0.001 of the range of values apart", bicubic),
    plain("ResizeNearestNeighbor", |c| resize(c, Kind::Nearest)),
    noted("ResizeArea", "of fixed sizes", resize_area),
    noted("ScaleAndTranslate", "of fixed sizes", scale_and_translate),
];

/// Rounds to the steps of a range that is moved so that 0 is one of the steps
/// (`tensorflow/core/kernels/fake_quant_ops_functor.h`).
fn fake_quant(c: &mut Context<'_>, x: ValueId, low: ValueId, high: ValueId) -> Outputs {
    let bits = c.node.int("num_bits", 8)?;
    if !(2..=16).contains(&bits) {
        return Err(Error::invalid(format!("num_bits is {bits}, expected 2 to 16")));
    }
    let first = if c.node.flag("narrow_range", false)? { 1.0 } else { 0.0 };
    let last = ((1i64 << bits) - 1) as f64;
    let steps = c.scalar(last - first, x)?;
    let (first, last) = (c.scalar(first, x)?, c.scalar(last, x)?);
    let range = c.op("Sub", &[high, low])?;
    let scale = c.op("Div", &[range, steps])?;
    let offset = c.op("Div", &[low, scale])?;
    let zero_point = c.op("Sub", &[first, offset])?;
    let zero_point = half_up(c, zero_point)?;
    let zero_point = c.op("Max", &[zero_point, first])?;
    let zero_point = c.op("Min", &[zero_point, last])?;
    let below = c.op("Sub", &[first, zero_point])?;
    let above = c.op("Sub", &[last, zero_point])?;
    let (nudged_low, nudged_high) = (c.op("Mul", &[below, scale])?, c.op("Mul", &[above, scale])?);
    let clamped = c.op("Max", &[x, nudged_low])?;
    let clamped = c.op("Min", &[clamped, nudged_high])?;
    let shifted = c.op("Sub", &[clamped, nudged_low])?;
    let inverse = c.op("Reciprocal", &[scale])?;
    let in_steps = c.op("Mul", &[shifted, inverse])?;
    let whole = half_up(c, in_steps)?;
    let scaled = c.op("Mul", &[whole, scale])?;
    Ok(vec![c.op("Add", &[scaled, nudged_low])?])
}

fn half_up(c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
    let half = c.scalar(0.5, x)?;
    let raised = c.op("Add", &[x, half])?;
    c.op("Floor", &[raised])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Cubic,
    Nearest,
}

fn resize(c: &mut Context<'_>, kind: Kind) -> Outputs {
    let (x, size) = (c.input(0)?, c.input(1)?);
    if c.rank(x)? != 4 {
        return Err(Error::invalid(format!("images of {} dimensions, expected 4", c.rank(x)?)));
    }
    let (corners, centres) =
        (c.node.flag("align_corners", false)?, c.node.flag("half_pixel_centers", false)?);
    let x = if kind == Kind::Nearest { x } else { c.cast(x, DType::F32)? };
    let places = match (corners, centres) {
        (true, _) => "align_corners",
        (_, true) => "half_pixel",
        _ => "asymmetric",
    };
    let attributes = Attributes::new().with("coordinate_transformation_mode", places);
    let attributes = match kind {
        Kind::Linear => attributes.with("mode", "linear"),
        Kind::Nearest => {
            // A place between two pixels goes to the upper one, but without centres always to the lower one.
            let rule = if corners || centres { "round_prefer_ceil" } else { "floor" };
            attributes.with("mode", "nearest").with("nearest_mode", rule)
        }
        Kind::Cubic => {
            // With centres, TensorFlow takes Keys' cubic and leaves out what lies outside; without, an older one.
            let attributes = attributes.with("mode", "cubic");
            match centres {
                true => attributes.with("cubic_coeff_a", -0.5f32).with("exclude_outside", 1),
                false => attributes.with("cubic_coeff_a", -0.75f32),
            }
        }
    };
    let data = c.channels_to_front(x, Layout::ChannelsLast, 4)?;
    let outer = c.with("Shape", &[data], Attributes::new().with("end", 2))?;
    let size = c.as_i64_vector(size)?;
    let sizes = c.concat(&[outer, size], 0)?;
    let inputs = [Some(data), None, None, Some(sizes)];
    let name = c.node.name;
    let y = c.builder.ops(name, "", "Resize", &inputs, attributes, 1)?;
    Ok(vec![c.channels_to_back(y[0], Layout::ChannelsLast, 4)?])
}

fn places(c: &Context<'_>) -> Result<Places, Error> {
    let align_corners = c.node.flag("align_corners", false)?;
    Ok(Places { align_corners, half_pixel_centers: c.node.flag("half_pixel_centers", false)? })
}

/// Height and width of the images and of the result, when they are known.
fn sizes(c: &Context<'_>, x: ValueId, size: ValueId) -> Option<[(usize, usize); 2]> {
    let size = c.known_ints(size)?;
    let pair = |at: usize| Some((c.fixed(x, at + 1)?, usize::try_from(*size.get(at)?).ok()?));
    Some([pair(0)?, pair(1)?])
}

fn known_sizes(c: &Context<'_>, x: ValueId, size: ValueId) -> Result<[(usize, usize); 2], Error> {
    sizes(c, x, size).ok_or_else(|| Error::unsupported(format!("{} of images of open size", c.node.op)))
}

fn bicubic(c: &mut Context<'_>) -> Outputs {
    let (x, size) = (c.input(0)?, c.input(1)?);
    let Some([(h, to_h), (w, to_w)]) = sizes(c, x, size) else { return resize(c, Kind::Cubic) };
    let places = places(c)?;
    let (height, width) = (resample::cubic(h, to_h, places)?, resample::cubic(w, to_w, places)?);
    Ok(vec![resample::apply(c, x, &height, &width)?])
}

fn resize_area(c: &mut Context<'_>) -> Outputs {
    let (x, size) = (c.input(0)?, c.input(1)?);
    let [(h, to_h), (w, to_w)] = known_sizes(c, x, size)?;
    let places = places(c)?;
    let (height, width) = (resample::area(h, to_h, places)?, resample::area(w, to_w, places)?);
    Ok(vec![resample::apply(c, x, &height, &width)?])
}

fn scale_and_translate(c: &mut Context<'_>) -> Outputs {
    let (x, size) = (c.input(0)?, c.input(1)?);
    let [(h, to_h), (w, to_w)] = known_sizes(c, x, size)?;
    let pair = |id: ValueId, what: &str| {
        let numbers = c.builder.constant_of(id).and_then(|tensor| tensor.to_slice::<f32>());
        match numbers.as_deref() {
            Some(&[first, second]) => Ok((first, second)),
            _ => Err(Error::unsupported(format!("{what} is computed by the graph, expected two constants"))),
        }
    };
    let (scale, moved) = (pair(c.input(2)?, "the scale")?, pair(c.input(3)?, "the translation")?);
    let kernel = Kernel::of(c.node.text("kernel_type", "lanczos3")?)?;
    let antialias = c.node.flag("antialias", true)?;
    let height = resample::scaled(h, to_h, kernel, (scale.0, moved.0), antialias)?;
    let width = resample::scaled(w, to_w, kernel, (scale.1, moved.1), antialias)?;
    Ok(vec![resample::apply(c, x, &height, &width)?])
}
