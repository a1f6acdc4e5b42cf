//! Records that are pictures: JPEG and PNG.
//!
//! What a file says of turning itself (EXIF) is not looked at, as in TensorFlow's `decode_jpeg`. Transparency is dropped.

use std::io::Cursor;

use bytes::Bytes;
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat, ImageReader, Limits, Rgb32FImage};
use salver_tensor::{Shape, Tensor};

use crate::Refused;
use crate::fields::Slot;
use crate::settings::{Channels, Layout, LimitSettings, Resize};
use crate::value::Value;

/// The field of a picture's pixels.
pub(crate) const PIXELS: &str = "pixels";

/// What a model wants of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Height and width; the picture's own if not said.
    pub(crate) size: Option<[u32; 2]>,
    pub(crate) channels: Channels,
    pub(crate) layout: Layout,
    pub(crate) resize: Resize,
    /// Whether numbers are rounded to whole ones, as a model of whole numbers needs.
    pub(crate) rounds: bool,
}

/// Reads pictures.
#[derive(Debug)]
pub(crate) struct Reader {
    picture: Option<Picture>,
    slots: Vec<Slot>,
    max_pixels: u64,
}

impl Reader {
    /// `picture` is not needed where only the file itself is wanted.
    pub(crate) fn new(
        picture: Option<Picture>,
        slots: &[Slot],
        limits: &LimitSettings,
    ) -> Result<Reader, String> {
        for slot in slots {
            let text = slot.path.to_string();
            if !slot.path.steps().is_empty() && text != PIXELS {
                return Err(format!("field `{text}`: a picture has `{PIXELS}` and `$`, the file itself"));
            }
        }
        Ok(Reader { picture, slots: slots.to_vec(), max_pixels: limits.max_pixels })
    }

    /// The file or its pixels, in the order of the slots.
    pub(crate) fn read(&self, record: &Bytes) -> Result<Vec<Option<Value>>, Refused> {
        let mut pixels = None;
        let mut found = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            found.push(Some(match (slot.path.steps(), self.picture) {
                ([], _) => Value::Bytes(record.clone()),
                (_, None) => return Err(Refused::shape("the model takes no pixels")),
                (_, Some(picture)) => {
                    if pixels.is_none() {
                        pixels = Some(picture.tensor(decode(record, self.max_pixels)?)?);
                    }
                    pixels.clone().map_or(Value::Null, Value::Tensor)
                }
            }));
        }
        Ok(found)
    }
}

fn decode(record: &[u8], max_pixels: u64) -> Result<DynamicImage, Refused> {
    let wrong =
        |error: image::ImageError| Refused::format(format!("not a picture that can be read: {error}"));
    let format = match record {
        [0xff, 0xd8, ..] => ImageFormat::Jpeg,
        [0x89, b'P', b'N', b'G', ..] => ImageFormat::Png,
        _ => return Err(Refused::format("not a picture: expected JPEG or PNG")),
    };
    let (width, height) =
        ImageReader::with_format(Cursor::new(record), format).into_dimensions().map_err(wrong)?;
    let n_pixels = u64::from(width) * u64::from(height);
    if n_pixels > max_pixels {
        return Err(Refused::too_large(format!(
            "the picture has {height} x {width} pixels, at most {max_pixels} are allowed"
        )));
    }
    let mut reader = ImageReader::with_format(Cursor::new(record), format);
    let mut limits = Limits::default();
    // Four channels of 16 bits, and as much again for what decoding needs besides.
    limits.max_alloc = Some(n_pixels.saturating_mul(16).saturating_add(1 << 20));
    reader.limits(limits);
    reader.decode().map_err(wrong)
}

impl Picture {
    /// The dimensions of a row; `None` where the picture decides.
    pub(crate) fn row(&self) -> Option<Vec<usize>> {
        let [height, width] = self.size?;
        let (height, width) = (usize::try_from(height).ok()?, usize::try_from(width).ok()?);
        Some(self.dims(height, width))
    }

    fn dims(&self, height: usize, width: usize) -> Vec<usize> {
        match self.layout {
            Layout::Nhwc => vec![height, width, self.n_channels()],
            Layout::Nchw => vec![self.n_channels(), height, width],
        }
    }

    pub(crate) fn n_channels(&self) -> usize {
        if self.channels == Channels::Gray { 1 } else { 3 }
    }

    /// The pixels, as `float32` from 0 to 255, or `uint8` where the model takes whole numbers.
    fn tensor(&self, decoded: DynamicImage) -> Result<Tensor, Refused> {
        let source = Source::new(decoded, self.channels)?;
        let (height, width) = match self.size {
            Some([height, width]) => (height as usize, width as usize),
            None => (source.height, source.width),
        };
        let mut pixels = source.resized(height, width, self.resize)?;
        let wrong = |error: &dyn std::fmt::Display| Refused::shape(format!("field `{PIXELS}`: {error}"));
        let shape = Shape::new(&self.dims(height, width)).map_err(|error| wrong(&error))?;
        if self.channels == Channels::Bgr {
            pixels.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
        }
        if self.layout == Layout::Nchw {
            pixels = planar(&pixels, self.n_channels());
        }
        if self.rounds {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 255")]
            let bytes = pixels.iter().map(|&number| number.round().clamp(0.0, 255.0) as u8).collect();
            return Tensor::from_vec::<u8>(shape, bytes).map_err(|error| wrong(&error));
        }
        Tensor::from_vec(shape, pixels).map_err(|error| wrong(&error))
    }
}

fn planar(pixels: &[f32], n_channels: usize) -> Vec<f32> {
    (0..n_channels).flat_map(|channel| pixels.iter().skip(channel).step_by(n_channels).copied()).collect()
}

/// The brightness of pixels by the weights of ITU-R BT.601, as JPEG files, TensorFlow's `decode_jpeg` and Pillow have it. The
/// library's own are those of BT.709.
fn brightness(pixels: &[u8]) -> Vec<u8> {
    // Of 65,536, rounded; they are Pillow's.
    let weigh = |&[red, green, blue]: &[u8; 3]| {
        let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000;
        sum.to_be_bytes()[1]
    };
    pixels.as_chunks().0.iter().map(weigh).collect()
}

/// A picture as it came: row by row, channels together.
struct Source {
    height: usize,
    width: usize,
    n_channels: usize,
    bytes: Vec<u8>,
}

impl Source {
    fn new(decoded: DynamicImage, channels: Channels) -> Result<Source, Refused> {
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let (n_channels, bytes) = match channels {
            Channels::Gray if decoded.color().has_color() => (1, brightness(&decoded.into_rgb8())),
            Channels::Gray => (1, decoded.into_luma8().into_raw()),
            Channels::Rgb | Channels::Bgr => (3, decoded.into_rgb8().into_raw()),
        };
        if height == 0 || width == 0 || bytes.len() != height * width * n_channels {
            return Err(Refused::format(format!("the picture has {height} x {width} pixels")));
        }
        Ok(Source { height, width, n_channels, bytes })
    }

    /// The pixels, from 0 to 255, in another size.
    fn resized(&self, height: usize, width: usize, resize: Resize) -> Result<Vec<f32>, Refused> {
        if (height, width) == (self.height, self.width) {
            return Ok(self.bytes.iter().map(|&byte| f32::from(byte)).collect());
        }
        match resize {
            Resize::None => Err(Refused::shape(format!(
                "the picture has {} x {} pixels, expected {height} x {width}, and `resize` is `none`",
                self.height, self.width
            ))),
            Resize::Bilinear => Ok(self.bilinear(height, width)),
            Resize::Nearest => Ok(self.nearest(height, width)),
            Resize::Triangle => self.filtered(height, width, FilterType::Triangle),
            Resize::Lanczos3 => self.filtered(height, width, FilterType::Lanczos3),
        }
    }

    fn at(&self, y: usize, x: usize, channel: usize) -> f32 {
        f32::from(self.bytes[(y * self.width + x) * self.n_channels + channel])
    }

    /// As `tf.image.resize` computes without antialiasing: half-pixel centres, edges repeated.
    fn bilinear(&self, height: usize, width: usize) -> Vec<f32> {
        let (ys, xs) = (taps(self.height, height), taps(self.width, width));
        let mut pixels = Vec::with_capacity(height * width * self.n_channels);
        for y in &ys {
            for x in &xs {
                for channel in 0..self.n_channels {
                    let across = |y: usize| {
                        let (left, right) = (self.at(y, x.low, channel), self.at(y, x.high, channel));
                        left + (right - left) * x.part
                    };
                    let (top, bottom) = (across(y.low), across(y.high));
                    pixels.push(top + (bottom - top) * y.part);
                }
            }
        }
        pixels
    }

    fn nearest(&self, height: usize, width: usize) -> Vec<f32> {
        let (ys, xs) = (nearest(self.height, height), nearest(self.width, width));
        let mut pixels = Vec::with_capacity(height * width * self.n_channels);
        for &y in &ys {
            for &x in &xs {
                pixels.extend((0..self.n_channels).map(|channel| self.at(y, x, channel)));
            }
        }
        pixels
    }

    /// By the library, in floats from 0 to 1, to which it holds them: nothing is rounded between.
    fn filtered(&self, height: usize, width: usize, filter: FilterType) -> Result<Vec<f32>, Refused> {
        let n = self.n_channels;
        let triples = |pixel: &[u8]| [0, 1, 2].map(|i: usize| f32::from(pixel[i.min(n - 1)]) / 255.0);
        let triples: Vec<f32> = self.bytes.chunks_exact(n).flat_map(triples).collect();
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let picture = Rgb32FImage::from_raw(size(self.width), size(self.height), triples);
        let picture = picture.ok_or_else(|| Refused::shape("the picture has no pixels"))?;
        let resized = image::imageops::resize(&picture, size(width), size(height), filter);
        Ok(resized
            .pixels()
            .flat_map(|pixel| pixel.0.into_iter().take(n))
            .map(|number| number * 255.0)
            .collect())
    }
}

/// The old pixel under the centre of each new one, in single precision, as TensorFlow computes it: where the centre lies between two,
/// rounding decides.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pictures have far fewer than 2^24 pixels on a side, and no place is negative"
)]
fn nearest(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| (((i as f32 + 0.5) * scale).floor() as usize).min(from - 1)).collect()
}

/// The two old pixels between which a new one lies.
struct Tap {
    low: usize,
    high: usize,
    part: f32,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pictures have far fewer than 2^24 pixels on a side, and negative places are clamped"
)]
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    let tap = |i: usize| {
        let at = (i as f32 + 0.5) * scale - 0.5;
        let floor = at.floor();
        let low = floor.max(0.0) as usize;
        let high = ((floor + 1.0).max(0.0) as usize).min(from - 1);
        Tap { low: low.min(from - 1), high, part: at - floor }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places where `tf.image.resize(.., method="nearest")` of TensorFlow 2.21 takes another pixel than exact numbers would.
    #[test]
    fn the_nearest_pixel_is_tensorflows() {
        let check = |from: usize, to: usize, expected: &[(usize, usize)]| {
            let got = nearest(from, to);
            let exact = |i: usize| (2 * i + 1) * from / (2 * to);
            let other: Vec<_> = got.iter().copied().enumerate().filter(|&(i, at)| at != exact(i)).collect();
            assert_eq!(other, expected, "{from} to {to}");
        };
        check(4, 227, &[(113, 1)]);
        check(152, 28, &[(10, 56)]);
        check(102, 331, &[(165, 50)]);
        check(224, 224, &[]);
        check(3, 1000, &[]);
    }
}
