//! Strings as characters.

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use super::text::Budget;
use crate::Error;
use crate::call::Call;

/// The replacement character, where none is given.
const REPLACEMENT: i64 = 0xfffd;

/// What becomes of bytes that are not UTF-8, and of numbers that are no characters.
enum Fault {
    Replace(char),
    Ignore,
    Strict,
}

fn fault(call: &Call<'_>) -> Result<Fault, Error> {
    match call.attributes.text("errors", "replace")? {
        "replace" => {
            let number = call.attributes.int("replacement_char", REPLACEMENT)?;
            let replacement = u32::try_from(number).ok().and_then(char::from_u32);
            let replacement =
                replacement.ok_or_else(|| Error::invalid(format!("replacement_char is {number}")))?;
            Ok(Fault::Replace(replacement))
        }
        "ignore" => Ok(Fault::Ignore),
        "strict" => Ok(Fault::Strict),
        other => Err(Error::invalid(format!("errors is '{other}'"))),
    }
}

fn only_utf8(call: &Call<'_>, attribute: &str) -> Result<(), Error> {
    match call.attributes.text(attribute, "UTF-8")? {
        "UTF-8" => Ok(()),
        other => Err(Error::unsupported(format!("{attribute} '{other}' of {}, expected UTF-8", call.op))),
    }
}

/// The characters of all strings as numbers, and where each string's begin.
pub(super) fn decode(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    only_utf8(call, "input_encoding")?;
    let fault = fault(call)?;
    let controls = call.attributes.flag("replace_control_characters", false)?;
    let (mut splits, mut numbers) = (vec![0i64], Vec::new());
    for text in call.strings(0)? {
        for chunk in text.utf8_chunks() {
            numbers.extend(chunk.valid().chars().map(|letter| match &fault {
                Fault::Replace(replacement) if controls && letter <= '\x1f' => *replacement as i32,
                _ => letter as i32,
            }));
            if chunk.invalid().is_empty() {
                continue;
            }
            match &fault {
                Fault::Replace(replacement) => numbers.push(*replacement as i32),
                Fault::Ignore => {}
                Fault::Strict => return Err(Error::invalid("Invalid formatting on input string")),
            }
        }
        splits.push(numbers.len() as i64);
    }
    let numbers = Tensor::from_vec(Shape::vector(numbers.len())?, numbers)?;
    let shape = Shape::vector(splits.len())?;
    let splits = match call.attributes.dtype("Tsplits")?.unwrap_or(DType::I64) {
        DType::I32 => {
            let short: Option<Vec<i32>> = splits.iter().map(|&at| i32::try_from(at).ok()).collect();
            Tensor::from_vec(
                shape,
                short.ok_or_else(|| Error::too_large("more characters than int32 counts"))?,
            )?
        }
        _ => Tensor::from_vec(shape, splits)?,
    };
    Ok(vec![splits, numbers])
}

/// Strings of characters given as numbers, and where each string's begin.
pub(super) fn encode(call: &Call<'_>) -> Result<Tensor, Error> {
    only_utf8(call, "output_encoding")?;
    let fault = fault(call)?;
    let (numbers, splits) = (call.ints(0)?, call.ints(1)?);
    let wrong = || Error::invalid(format!("splits {splits:?} of {} characters", numbers.len()));
    let mut budget = Budget::default();
    let mut texts = Vec::with_capacity(splits.len().saturating_sub(1));
    for pair in splits.windows(2) {
        let range = usize::try_from(pair[0]).ok().zip(usize::try_from(pair[1]).ok());
        let letters = range.and_then(|(start, end)| numbers.get(start..end)).ok_or_else(wrong)?;
        let mut text = String::new();
        for &number in letters {
            match (u32::try_from(number).ok().and_then(char::from_u32), &fault) {
                (Some(letter), _) => text.push(letter),
                (None, Fault::Replace(replacement)) => text.push(*replacement),
                (None, Fault::Ignore) => {}
                (None, Fault::Strict) => {
                    return Err(Error::invalid("Code point is out of range for Unicode"));
                }
            }
        }
        budget.take(text.len())?;
        texts.push(Bytes::from(text));
    }
    Ok(Tensor::from_strings(Shape::vector(texts.len())?, texts)?)
}
