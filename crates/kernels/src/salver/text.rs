//! Strings one by one: case, blanks, length, joining.

use bytes::Bytes;
use salver_tensor::{Shape, Tensor};

use crate::Error;
use crate::call::Call;
use crate::layout::MAX_BYTES;

pub(super) fn lower(call: &Call<'_>) -> Result<Tensor, Error> {
    cased(call, |text| text.to_ascii_lowercase(), str::to_lowercase)
}

pub(super) fn upper(call: &Call<'_>) -> Result<Tensor, Error> {
    cased(call, |text| text.to_ascii_uppercase(), str::to_uppercase)
}

/// Without an encoding only ASCII letters change; with `utf-8` all do, and what is not UTF-8 is replaced.
fn cased(
    call: &Call<'_>,
    ascii: impl Fn(&[u8]) -> Vec<u8>,
    unicode: impl Fn(&str) -> String,
) -> Result<Tensor, Error> {
    match call.attributes.text("encoding", "")? {
        "" => each(call, |text| Bytes::from(ascii(text))),
        "utf-8" => each(call, |text| Bytes::from(unicode(&String::from_utf8_lossy(text)))),
        other => {
            let text = format!("encoding '{other}' of {} is not known, expected 'utf-8' or nothing", call.op);
            Err(Error::unsupported(text))
        }
    }
}

pub(super) fn strip(call: &Call<'_>) -> Result<Tensor, Error> {
    each(call, |text| text.slice_ref(trim(text)))
}

/// Without blanks at both ends, as C's `isspace` knows them.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let Some(start) = text.iter().position(|&byte| !is_space(byte)) else { return &text[..0] };
    let end = text.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

pub(super) fn each(call: &Call<'_>, change: impl Fn(&Bytes) -> Bytes) -> Result<Tensor, Error> {
    let changed = call.strings(0)?.iter().map(change).collect();
    Ok(Tensor::from_strings(call.input(0)?.shape().clone(), changed)?)
}

/// What a string is counted in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Chars,
}

/// The attribute `unit`.
pub(super) fn unit(call: &Call<'_>) -> Result<Unit, Error> {
    match call.attributes.text("unit", "BYTE")? {
        "BYTE" => Ok(Unit::Bytes),
        "UTF8_CHAR" => Ok(Unit::Chars),
        other => Err(Error::invalid(format!("unit '{other}' of {}, expected BYTE or UTF8_CHAR", call.op))),
    }
}

/// Whether the byte begins a character; stray continuation bytes belong to what is before them.
pub(super) fn begins_char(byte: &u8) -> bool {
    byte & 0xc0 != 0x80
}

pub(super) fn length(call: &Call<'_>) -> Result<Tensor, Error> {
    let unit = unit(call)?;
    let count = |text: &Bytes| match unit {
        Unit::Bytes => text.len(),
        Unit::Chars => text.iter().filter(|byte| begins_char(byte)).count(),
    };
    let lengths =
        call.strings(0)?.iter().map(|text| i32::try_from(count(text)).unwrap_or(i32::MAX)).collect();
    Ok(Tensor::from_vec(call.input(0)?.shape().clone(), lengths)?)
}

/// Joins tensors of one shape element by element; scalars go with every element.
pub(super) fn join(call: &Call<'_>) -> Result<Tensor, Error> {
    let separator = call.attributes.text("separator", "")?.as_bytes();
    let parts = (0..call.inputs.len()).map(|index| call.strings(index)).collect::<Result<Vec<_>, _>>()?;
    let mut shape = Shape::scalar();
    for tensor in call.all()? {
        if shape.rank() == 0 {
            shape = tensor.shape().clone();
        } else if tensor.shape().rank() != 0 && *tensor.shape() != shape {
            let text = format!("Input shapes do not match: {shape} vs. {}", tensor.shape());
            return Err(Error::invalid(text));
        }
    }
    let scalar = |index: usize| call.optional(index).is_some_and(|tensor| tensor.shape().rank() == 0);
    let scalars: Vec<bool> = (0..parts.len()).map(scalar).collect();
    let mut budget = Budget::default();
    let joined = (0..shape.n_elements()).map(|at| {
        let texts = parts.iter().zip(&scalars).map(|(part, &scalar)| &part[if scalar { 0 } else { at }]);
        concat(texts, separator, &mut budget)
    });
    let joined = joined.collect::<Result<Vec<_>, Error>>()?;
    Ok(Tensor::from_strings(shape, joined)?)
}

/// Counts the bytes of texts that are made, so that many copies of a long one are refused before they are made.
#[derive(Default)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn take(&mut self, n_bytes: usize) -> Result<(), Error> {
        self.0 = self.0.saturating_add(n_bytes);
        if self.0 > MAX_BYTES {
            return Err(Error::too_large(format!(
                "the strings of the result take more than {MAX_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

/// Texts with a separator between them.
pub(super) fn concat<'a>(
    texts: impl Iterator<Item = &'a Bytes>,
    separator: &[u8],
    budget: &mut Budget,
) -> Result<Bytes, Error> {
    let mut all = Vec::new();
    for (i, text) in texts.enumerate() {
        let before = if i == 0 { &[][..] } else { separator };
        budget.take(before.len() + text.len())?;
        all.extend_from_slice(before);
        all.extend_from_slice(text);
    }
    Ok(Bytes::from(all))
}
