//! Regular expressions on strings.

use bytes::Bytes;
use regex::bytes::{Captures, Regex};
use salver_tensor::Tensor;

use super::re2;
use super::text::Budget;
use crate::Error;
use crate::call::Call;

/// Whether the whole of each string matches.
pub(super) fn regex_full_match(call: &Call<'_>) -> Result<Tensor, Error> {
    let pattern = argument(call, 1, "pattern")?;
    let regex = re2::compile_full(&pattern)?;
    let matches: Vec<bool> = call.strings(0)?.iter().map(|text| regex.is_match(text)).collect();
    Ok(Tensor::from_bools(call.input(0)?.shape().clone(), &matches)?)
}

/// Replaces what matches; `\1` in the rewrite is the first group, `\0` all of the match.
pub(super) fn regex_replace(call: &Call<'_>) -> Result<Tensor, Error> {
    let pattern = argument(call, 1, "pattern")?;
    let rewrite = argument(call, 2, "rewrite")?;
    let global = call.attributes.flag("replace_global", true)?;
    let regex = re2::compile(&pattern)?;
    let texts = call.strings(0)?;
    // A rewrite that names a group too many changes nothing, as in RE2.
    if highest_group(&rewrite) >= regex.captures_len() {
        return Ok(call.input(0)?.clone());
    }
    let mut budget = Budget::default();
    let replaced = texts
        .iter()
        .map(|text| match global {
            true => replace_all(&regex, text, &rewrite, &mut budget),
            false => replace_first(&regex, text, &rewrite, &mut budget),
        })
        .collect::<Result<Vec<Bytes>, Error>>()?;
    Ok(Tensor::from_strings(call.input(0)?.shape().clone(), replaced)?)
}

/// A text that is an input, or an attribute of the operator's static form.
fn argument(call: &Call<'_>, index: usize, name: &str) -> Result<Bytes, Error> {
    if call.optional(index).is_none() {
        let text = call.needed(name, call.attributes.get(name))?;
        let crate::Attribute::String(text) = text else {
            return Err(Error::invalid(format!("attribute '{name}' of {} is not a text", call.op)));
        };
        return Ok(Bytes::from(text.clone()));
    }
    match call.strings(index)? {
        [text] => Ok(text.clone()),
        all => Err(Error::invalid(format!("{name} has {} elements, expected a scalar", all.len()))),
    }
}

fn highest_group(rewrite: &[u8]) -> usize {
    let mut highest = 0;
    let mut at = 0;
    while at < rewrite.len() {
        if rewrite[at] == b'\\' {
            at += 1;
            if let Some(digit) = rewrite.get(at).filter(|byte| byte.is_ascii_digit()) {
                highest = highest.max(usize::from(digit - b'0'));
            }
        }
        at += 1;
    }
    highest
}

/// Writes the rewrite of one match. `false` when the rewrite is not valid; what comes before the fault is written.
fn write(
    out: &mut Vec<u8>,
    rewrite: &[u8],
    groups: &Captures<'_>,
    budget: &mut Budget,
) -> Result<bool, Error> {
    let mut bytes = rewrite.iter();
    while let Some(&byte) = bytes.next() {
        let part = match byte {
            b'\\' => match bytes.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    groups.get(usize::from(digit - b'0')).map_or(&[][..], |group| group.as_bytes())
                }
                Some(b'\\') => b"\\",
                _ => return Ok(false),
            },
            _ => std::slice::from_ref(&byte),
        };
        budget.take(part.len())?;
        out.extend_from_slice(part);
    }
    Ok(true)
}

fn replace_first(regex: &Regex, text: &Bytes, rewrite: &[u8], budget: &mut Budget) -> Result<Bytes, Error> {
    let Some(groups) = regex.captures(text) else { return Ok(text.clone()) };
    let Some(found) = groups.get(0) else { return Ok(text.clone()) };
    budget.take(text.len())?;
    let mut out = text[..found.start()].to_vec();
    if !write(&mut out, rewrite, &groups, budget)? {
        return Ok(text.clone());
    }
    out.extend_from_slice(&text[found.end()..]);
    Ok(Bytes::from(out))
}

/// An empty match right after a match is passed over, a character at a time.
fn replace_all(regex: &Regex, text: &Bytes, rewrite: &[u8], budget: &mut Budget) -> Result<Bytes, Error> {
    budget.take(text.len())?;
    let mut out = Vec::new();
    let mut at = 0;
    let mut last_end = None;
    while at <= text.len() {
        let Some(groups) = regex.captures_at(text, at) else { break };
        let Some(found) = groups.get(0) else { break };
        out.extend_from_slice(&text[at..found.start()]);
        if found.is_empty() && last_end == Some(found.start()) {
            let n = char_len(&text[found.start()..]);
            out.extend_from_slice(&text[found.start()..found.start() + n]);
            at = found.start() + n.max(1);
            continue;
        }
        write(&mut out, rewrite, &groups, budget)?;
        at = found.end();
        last_end = Some(at);
    }
    if last_end.is_none() {
        return Ok(text.clone());
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    Ok(Bytes::from(out))
}

/// Bytes of the first character; 1 where it is not UTF-8, 0 at the end.
fn char_len(text: &[u8]) -> usize {
    let head = &text[..text.len().min(4)];
    match head.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next()) {
        Some(first) => first.len_utf8(),
        None => head.len().min(1),
    }
}
