//! Parts of strings.

use bytes::Bytes;
use salver_tensor::{DType, Tensor};

use super::text::{Unit, begins_char, unit};
use crate::Error;
use crate::call::{Call, integers};
use crate::layout::{Walk, broadcast, broadcast_strides, output_shape};

/// A part of each string, from a position (from the end if negative) and of a length.
pub(super) fn substr(call: &Call<'_>) -> Result<Tensor, Error> {
    let texts = call.strings(0)?;
    let (input, position, length) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if position.shape() != length.shape() {
        let (position, length) = (position.shape(), length.shape());
        let text = format!("pos and len should have the same shape, got: {position} vs. {length}");
        return Err(Error::invalid(text));
    }
    let (positions, lengths) = (integers(position)?, integers(length)?);
    let unit = unit(call)?;
    let (from, at_dims) = (input.shape().dims(), position.shape().dims());
    let dims = broadcast(from, at_dims)?;
    let shape = output_shape(DType::String, &dims)?;
    let walk = Walk::new(&dims, [&broadcast_strides(from, &dims), &broadcast_strides(at_dims, &dims)]);
    let mut parts = Vec::with_capacity(shape.n_elements());
    let mut failed = None;
    walk.each([0, 0], |[text, at]| match part(&texts[text], positions[at], lengths[at], unit) {
        Some(part) => parts.push(part),
        None if failed.is_none() => failed = Some((parts.len(), text, at)),
        None => {}
    });
    if let Some((index, text, at)) = failed {
        let index = if from == at_dims || at_dims.is_empty() || dims.len() != 2 {
            index.to_string()
        } else {
            format!("({}, {})", index / dims[1].max(1), index % dims[1].max(1))
        };
        return Err(out_of_range(positions[at], &texts[text], unit, &index));
    }
    Ok(Tensor::from_strings(shape, parts)?)
}

fn out_of_range(position: i64, text: &Bytes, unit: Unit, index: &str) -> Error {
    let shown = String::from_utf8_lossy(&text[..text.len().min(1024)]);
    Error::invalid(match unit {
        Unit::Bytes => format!("pos {position} out of range for string b'{shown}' at index {index}"),
        Unit::Chars => format!("pos {position} out of range for string at index {index}"),
    })
}

/// `None` when the position lies outside; a length that is too long or negative means all of the rest.
fn part(text: &Bytes, position: i64, length: i64, unit: Unit) -> Option<Bytes> {
    let size = match unit {
        Unit::Bytes => text.len(),
        Unit::Chars => n_chars(text),
    };
    let signed = i64::try_from(size).ok()?;
    let start = if position < 0 { position.checked_add(signed)? } else { position };
    let start = usize::try_from(start).ok().filter(|&start| start <= size)?;
    let end = usize::try_from(length).map_or(size, |length| start.saturating_add(length).min(size));
    Some(match unit {
        Unit::Bytes => text.slice(start..end),
        Unit::Chars => text.slice(char_position(text, start)..char_position(text, end)),
    })
}

/// Characters; bytes that cannot begin one belong to what is before them, or to the first.
fn n_chars(text: &[u8]) -> usize {
    text.iter().skip(1).filter(|byte| begins_char(byte)).count() + usize::from(!text.is_empty())
}

/// Where the character of that number begins; the end of the text for a number past it.
fn char_position(text: &[u8], n: usize) -> usize {
    let begins = text.iter().enumerate().skip(1).filter(|(_, byte)| begins_char(byte)).map(|(at, _)| at);
    std::iter::once(0).chain(begins).nth(n).unwrap_or(text.len())
}
