//! Windows that move over the spatial axes of an image batch: sizes, steps, padding.

use crate::call::{Call, size};
use crate::{Error, layout};

/// One spatial axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Elements of the larger side: what a convolution reads, what a transposed one writes.
    pub(crate) input: usize,
    /// Places of the window.
    pub(crate) output: usize,
    /// Elements of the window.
    pub(crate) kernel: usize,
    /// From one place to the next.
    pub(crate) stride: usize,
    /// From one element of the window to the next.
    pub(crate) dilation: usize,
    /// Padding in front.
    pub(crate) before: usize,
    /// Padding behind.
    pub(crate) after: usize,
}

impl Axis {
    /// An axis that is not there.
    const NONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };

    /// The position of element `k` of the window at place `o`, if it lies inside.
    pub(crate) fn position(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.before).filter(|&at| at < self.input)
    }

    /// The positions of the elements of the window at place `o` that lie inside.
    pub(crate) fn inside(&self, o: usize) -> impl Iterator<Item = usize> + use<> {
        // Counted from the first element of the padding.
        let start = o * self.stride;
        let skipped = self.before.saturating_sub(start).div_ceil(self.dilation);
        let first = start + skipped * self.dilation;
        let end = (self.before + self.input).min(start + self.extent());
        let before = self.before;
        (first..end).step_by(self.dilation).map(move |at| at - before)
    }

    /// The number of elements of the window at place `o` that lie inside the padding or the input.
    pub(crate) fn within_padding(&self, o: usize) -> usize {
        let end = self.before + self.input + self.after;
        end.saturating_sub(o * self.stride).div_ceil(self.dilation).min(self.kernel)
    }
}

/// No kernel, stride, dilation or padding is larger, so that sums and products of them do not overflow.
const MAX: usize = 1 << 24;

/// How padding is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AutoPad {
    /// By the attribute `pads`.
    Given,
    /// None.
    Valid,
    /// So that the output is the input divided by the stride; an odd element behind.
    SameUpper,
    /// The same, an odd element in front.
    SameLower,
}

/// The attributes of a window, as they are given.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) kernel: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) dilations: Vec<usize>,
    pub(crate) pads: Vec<usize>,
    pub(crate) auto_pad: AutoPad,
}

impl Window {
    /// Reads the attributes. `kernel` is the window where the weights tell it.
    pub(crate) fn new(call: &Call<'_>, n_axes: usize, kernel: Option<&[usize]>) -> Result<Window, Error> {
        if n_axes == 0 || n_axes > 3 {
            return Err(Error::unsupported(format!("{} over {n_axes} axes, expected 1 to 3", call.op)));
        }
        let list = |name: &str, n: usize, least: usize| -> Result<Option<Vec<usize>>, Error> {
            let Some(values) = call.attributes.ints(name)? else { return Ok(None) };
            if values.len() != n {
                return Err(Error::invalid(format!("{name} has {} entries, expected {n}", values.len())));
            }
            let values: Vec<usize> = values.iter().map(|&v| size(v, name)).collect::<Result<_, _>>()?;
            match values.iter().find(|&&v| v < least || v > MAX) {
                Some(value) => Err(Error::invalid(format!("{name} has {value}, expected {least} to {MAX}"))),
                None => Ok(Some(values)),
            }
        };
        let given = list("kernel_shape", n_axes, 1)?;
        let kernel = match (given, kernel) {
            (Some(given), Some(kernel)) if given != kernel => {
                return Err(Error::invalid(format!(
                    "kernel_shape is {given:?}, the weights have {kernel:?}"
                )));
            }
            (Some(given), _) => given,
            (None, Some(kernel)) if kernel.iter().all(|&k| (1..=MAX).contains(&k)) => kernel.to_vec(),
            (None, Some(kernel)) => return Err(Error::invalid(format!("weights of {kernel:?}"))),
            (None, None) => return Err(Error::invalid("attribute 'kernel_shape' is missing")),
        };
        let auto_pad = match call.attributes.text("auto_pad", "NOTSET")? {
            "NOTSET" | "" => AutoPad::Given,
            "VALID" => AutoPad::Valid,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => return Err(Error::invalid(format!("auto_pad is '{other}'"))),
        };
        let ones = || vec![1; n_axes];
        Ok(Window {
            kernel,
            strides: list("strides", n_axes, 1)?.unwrap_or_else(ones),
            dilations: list("dilations", n_axes, 1)?.unwrap_or_else(ones),
            pads: list("pads", 2 * n_axes, 0)?.unwrap_or_else(|| vec![0; 2 * n_axes]),
            auto_pad,
        })
    }

    /// The axis `i` of a window over `input` elements, with padding chosen. `output` is 0 still.
    pub(crate) fn axis(&self, i: usize, input: usize) -> Result<Axis, Error> {
        if input > layout::MAX_ELEMENTS {
            return Err(Error::too_large(format!("an axis of {input} elements")));
        }
        let mut axis = Axis {
            input,
            output: 0,
            kernel: self.kernel[i],
            stride: self.strides[i],
            dilation: self.dilations[i],
            before: self.pads[i],
            after: self.pads[i + self.kernel.len()],
        };
        if self.auto_pad == AutoPad::Given {
            return Ok(axis);
        }
        (axis.before, axis.after) = (0, 0);
        if self.auto_pad != AutoPad::Valid && input > 0 {
            let places = input.div_ceil(axis.stride);
            let total = ((places - 1) * axis.stride + axis.extent()).saturating_sub(input);
            (axis.before, axis.after) = self.halves(total);
        }
        Ok(axis)
    }

    /// Padding in front and behind.
    fn halves(&self, total: usize) -> (usize, usize) {
        match self.auto_pad {
            AutoPad::SameLower => (total.div_ceil(2), total / 2),
            _ => (total / 2, total.div_ceil(2)),
        }
    }

    /// The three axes of a window that reads `spatial`, those that are not there in front.
    pub(crate) fn over(&self, spatial: &[usize], ceil: bool) -> Result<[Axis; 3], Error> {
        let mut axes = [Axis::NONE; 3];
        let lead = 3 - spatial.len();
        for (i, &input) in spatial.iter().enumerate() {
            let mut axis = self.axis(i, input)?;
            let padded = axis.before + input + axis.after;
            let Some(room) = padded.checked_sub(axis.extent()) else {
                return Err(Error::invalid(format!(
                    "a window of {} does not fit into {padded} elements of axis {i}",
                    axis.extent()
                )));
            };
            axis.output = 1 + if ceil { room.div_ceil(axis.stride) } else { room / axis.stride };
            if ceil && (axis.output - 1) * axis.stride >= input + axis.before {
                // A window that would begin behind the input has nothing to look at.
                axis.output -= 1;
            }
            axes[lead + i] = axis;
        }
        Ok(axes)
    }

    /// The three axes of a window that writes: `spatial` places, an output padded by `output_padding`, or of a given
    /// size.
    pub(crate) fn transposed(
        &self,
        spatial: &[usize],
        output_padding: &[usize],
        output_shape: Option<&[usize]>,
    ) -> Result<[Axis; 3], Error> {
        let mut axes = [Axis::NONE; 3];
        let lead = 3 - spatial.len();
        for (i, &places) in spatial.iter().enumerate() {
            if places > layout::MAX_ELEMENTS {
                return Err(Error::too_large(format!("an axis of {places} elements")));
            }
            let mut axis = Axis {
                input: 0,
                output: places,
                kernel: self.kernel[i],
                stride: self.strides[i],
                dilation: self.dilations[i],
                before: 0,
                after: 0,
            };
            let full = places.saturating_sub(1) * axis.stride + output_padding[i] + axis.extent();
            let wanted = match (output_shape, self.auto_pad) {
                (Some(wanted), _) => Some(wanted[i]),
                (None, AutoPad::SameUpper | AutoPad::SameLower) => Some(places * axis.stride),
                (None, AutoPad::Valid) => Some(full),
                (None, AutoPad::Given) => None,
            };
            match wanted {
                Some(wanted) => {
                    let total = full.saturating_sub(wanted);
                    (axis.before, axis.after) = match self.auto_pad {
                        AutoPad::SameUpper => (total / 2, total.div_ceil(2)),
                        _ => (total.div_ceil(2), total / 2),
                    };
                    axis.input = wanted;
                }
                None => {
                    (axis.before, axis.after) = (self.pads[i], self.pads[i + self.kernel.len()]);
                    axis.input = full.checked_sub(axis.before + axis.after).ok_or_else(|| {
                        Error::invalid(format!("padding leaves nothing of {full} elements of axis {i}"))
                    })?;
                }
            }
            axes[lead + i] = axis;
        }
        Ok(axes)
    }
}

impl Axis {
    /// Elements from the first to the last of the window, both included.
    pub(crate) fn extent(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }
}
