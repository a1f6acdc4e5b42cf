//! Pooling.

use salver_graph::{Attributes, ValueId};

use super::context::{Context, Layout, Outputs};
use super::conv::{Window, pads, spatial};
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    plain("AvgPool", |c| attribute_pool(c, "AveragePool", 2)),
    plain("AvgPool3D", |c| attribute_pool(c, "AveragePool", 3)),
    plain("MaxPool", |c| attribute_pool(c, "MaxPool", 2)),
    plain("MaxPool3D", |c| attribute_pool(c, "MaxPool", 3)),
    noted("MaxPoolV2", "constant window and strides", |c| {
        let window = c.ints(c.input(1)?, "the window")?;
        let strides = c.ints(c.input(2)?, "the strides")?;
        pool(c, "MaxPool", 2, &window, &strides)
    }),
];

fn attribute_pool(c: &mut Context<'_>, op: &str, n: usize) -> Outputs {
    let ints = |name: &str| Ok::<_, Error>(c.node.ints(name)?.unwrap_or_default().to_vec());
    let (window, strides) = (ints("ksize")?, ints("strides")?);
    pool(c, op, n, &window, &strides)
}

/// Averages count elements of the data only, as TensorFlow's do.
fn pool(c: &mut Context<'_>, op: &str, n: usize, window: &[i64], strides: &[i64]) -> Outputs {
    let x: ValueId = c.input(0)?;
    let layout: Layout = c.layout()?;
    let window = Window {
        kernel: spatial(c, "ksize", n, layout, window)?,
        strides: spatial(c, "strides", n, layout, strides)?,
        dilations: vec![1; n],
    };
    let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
    let attributes = Attributes::new()
        .with("kernel_shape", ints(&window.kernel))
        .with("strides", ints(&window.strides))
        .with("ceil_mode", 0);
    let attributes = pads(c, x, &window, layout)?.write(attributes);
    let attributes = match op {
        "AveragePool" => attributes.with("count_include_pad", 0),
        _ => attributes.with("dilations", ints(&window.dilations)),
    };
    let data = c.channels_to_front(x, layout, n + 2)?;
    let y = c.with(op, &[data], attributes)?;
    Ok(vec![c.channels_to_back(y, layout, n + 2)?])
}
