//! What a model wants of a picture.

use salver_tensor::DType;

use super::build::Build;
use crate::Format;
use crate::image::{PIXELS, Picture};
use crate::inputs::Input;
use crate::settings::{Channels, ImageSettings, Layout, RowsSettings};

impl Build<'_> {
    /// Settles what is wanted of a picture. For an input of pixels, how many neighbouring elements are of one channel.
    pub(super) fn picture_of(&mut self, input: &mut Input) -> Result<Option<usize>, String> {
        let is_pixels =
            self.format == Format::Image && input.features.iter().any(|feature| &*feature.name == PIXELS);
        if !is_pixels {
            return Ok(None);
        }
        if input.dtype == DType::String {
            return Err("it holds strings: the file itself is the field `$`".into());
        }
        let picture = picture(&self.settings.image, input)?;
        if self.picture.is_some_and(|other| other != picture) {
            return Err("another input wants other pixels of the same picture".into());
        }
        self.picture = Some(picture);
        if let Some(row) = picture.row() {
            let fit = input.target.fit(&row, RowsSettings::One);
            fit.map_err(|expected| format!("a picture gives {row:?}, expected {expected}"))?;
        }
        let stride = match (picture.layout, picture.size) {
            (Layout::Nchw, Some([height, width])) => height as usize * width as usize,
            (Layout::Nchw, None) => {
                return Err("with layout `nchw`, height and width must be known: set image.size".into());
            }
            (Layout::Nhwc, _) => 1,
        };
        Ok(Some(stride))
    }
}

fn picture(settings: &ImageSettings, input: &Input) -> Result<Picture, String> {
    let row = input.target.row.clone().filter(|_| !input.target.is_reshaped).unwrap_or_default();
    let is_channels = |dim: Option<usize>| matches!(dim, Some(1 | 3));
    let layout = settings.layout.unwrap_or(match row.as_slice() {
        [first, _, last] if is_channels(*first) && !is_channels(*last) => Layout::Nchw,
        _ => Layout::Nhwc,
    });
    let (height, width, n_channels) = match (row.as_slice(), layout) {
        ([height, width, channels], Layout::Nhwc) | ([channels, height, width], Layout::Nchw) => {
            (*height, *width, *channels)
        }
        ([height, width], _) => (*height, *width, Some(1)),
        _ => (None, None, None),
    };
    let channels = match (settings.channels, n_channels) {
        (Some(channels), _) => channels,
        (None, Some(1)) => Channels::Gray,
        (None, _) => Channels::Rgb,
    };
    let side = |dim: usize| u32::try_from(dim).map_err(|_| format!("a side of {dim} pixels is too long"));
    let size = match (settings.size, height, width) {
        (Some(size), _, _) => Some(size),
        (None, Some(height), Some(width)) => Some([side(height)?, side(width)?]),
        _ => None,
    };
    if let Some([height, width]) = size {
        let n = u64::from(height) * u64::from(width) * 3;
        if n == 0 || n > input.max_elements as u64 {
            return Err(format!(
                "pictures of {height} x {width} pixels, expected 1 to {} elements",
                input.max_elements
            ));
        }
    }
    let rounds = !matches!(input.dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    Ok(Picture { size, channels, layout, resize: settings.resize, rounds })
}
