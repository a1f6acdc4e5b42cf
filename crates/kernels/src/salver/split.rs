//! Splitting of strings, and runs of neighbours.

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use super::text::{Budget, concat, is_space, trim};
use crate::Error;
use crate::call::Call;
use crate::layout::scratch;

/// Splits each string; the result is a sparse tensor: indices, values, shape.
///
/// As Python's `str.split` does it: with a separator the parts may be empty, without one runs of blanks separate.
pub(super) fn string_split(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let texts = call.strings(0)?;
    if call.input(0)?.shape().rank() != 1 {
        let text = format!("input must be a vector, got shape: {}", call.input(0)?.shape());
        return Err(Error::invalid(text));
    }
    let [separator] = call.strings(1)? else {
        let text = format!("sep must be a scalar, got shape: {}", call.input(1)?.shape());
        return Err(Error::invalid(text));
    };
    let limit = call.attributes.int("maxsplit", -1)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut indices = Vec::new();
    let mut values = Vec::new();
    let mut longest = 0;
    for (row, text) in texts.iter().enumerate() {
        let parts = if separator.is_empty() { words(text, limit) } else { parts(text, separator, limit) };
        longest = longest.max(parts.len());
        indices.extend((0..parts.len()).flat_map(|at| [row as i64, at as i64]));
        values.extend(parts);
    }
    let n = values.len();
    let dims = vec![texts.len() as i64, longest as i64];
    Ok(vec![
        Tensor::from_vec(Shape::new(&[n, 2])?, indices)?,
        Tensor::from_strings(Shape::vector(n)?, values)?,
        Tensor::from_vec(Shape::vector(2)?, dims)?,
    ])
}

fn parts(text: &Bytes, separator: &[u8], limit: usize) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let mut rest = &text[..];
    while parts.len() < limit
        && let Some(at) = find(rest, separator)
    {
        parts.push(text.slice_ref(&rest[..at]));
        rest = &rest[at + separator.len()..];
    }
    parts.push(text.slice_ref(rest));
    parts
}

/// Where the needle, which is not empty, first occurs.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

fn words(text: &Bytes, limit: usize) -> Vec<Bytes> {
    if limit == 0 {
        return vec![text.clone()];
    }
    let mut parts = Vec::new();
    let mut rest = trim_start(text);
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| is_space(byte)).unwrap_or(rest.len());
        parts.push(text.slice_ref(&rest[..end]));
        rest = trim_start(&rest[end..]);
        if parts.len() == limit {
            // What is left is one part, blanks at its end included.
            parts.push(text.slice_ref(rest));
            break;
        }
    }
    parts
}

fn trim_start(text: &[u8]) -> &[u8] {
    let kept = trim(text);
    if kept.is_empty() {
        return kept;
    }
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(0);
    &text[start..]
}

/// How n-grams are made.
struct Grams<'a> {
    separator: &'a [u8],
    left: Bytes,
    right: Bytes,
    /// Pads at each end; `None` for as many as make every token first and last of an n-gram.
    pad_width: Option<usize>,
}

impl Grams<'_> {
    fn pads(&self, width: usize) -> usize {
        let most = width.saturating_sub(1);
        self.pad_width.map_or(most, |pads| pads.min(most))
    }

    fn count(&self, n_tokens: usize, width: usize) -> usize {
        (n_tokens + 2 * self.pads(width) + 1).saturating_sub(width)
    }

    /// All n-grams of one width over the tokens of one row, added to `out`.
    fn add(
        &self,
        tokens: &[Bytes],
        width: usize,
        n: usize,
        out: &mut Vec<Bytes>,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        let pads = self.pads(width);
        scratch(&[n, width], size_of::<Bytes>())?;
        for index in 0..n {
            let left = pads.saturating_sub(index);
            let right = pads.saturating_sub(n - (index + 1));
            let first = index.saturating_sub(pads);
            let inner = width.saturating_sub(left + right);
            let tokens = tokens.iter().skip(first).take(inner);
            let all = std::iter::repeat_n(&self.left, left).chain(tokens);
            let all = all.chain(std::iter::repeat_n(&self.right, right));
            out.push(concat(all, self.separator, budget)?);
        }
        Ok(())
    }
}

/// Joins neighbours within each row of a ragged tensor: n-grams and their row splits.
pub(super) fn string_n_grams(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let data = call.strings(0)?;
    let splits = splits(&call.ints(1)?, data.len())?;
    let attributes = call.attributes;
    let widths = call.needed("ngram_widths", attributes.ints("ngram_widths")?)?;
    let widths = widths
        .iter()
        .map(|&width| usize::try_from(width).ok().filter(|&width| (1..=1 << 20).contains(&width)))
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| Error::invalid("ngram_widths must be 1 or more"))?;
    let pad_width = attributes.int("pad_width", 0)?;
    let text = |name: &str| attributes.text(name, "").map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let grams = Grams {
        separator: attributes.text("separator", "")?.as_bytes(),
        left: text("left_pad")?,
        right: text("right_pad")?,
        pad_width: usize::try_from(pad_width).ok(),
    };
    let keeps_short = attributes.flag("preserve_short_sequences", false)?;
    let mut budget = Budget::default();
    let mut out = Vec::new();
    let mut ends = Vec::with_capacity(splits.len());
    if !splits.is_empty() {
        ends.push(0);
    }
    for row in splits.windows(2) {
        let tokens = &data[row[0]..row[1]];
        let before = out.len();
        for &width in &widths {
            grams.add(tokens, width, grams.count(tokens.len(), width), &mut out, &mut budget)?;
        }
        if keeps_short && out.len() == before && !tokens.is_empty() {
            let pads = grams.pad_width.unwrap_or(0).min(1 << 20);
            grams.add(tokens, tokens.len() + 2 * pads, 1, &mut out, &mut budget)?;
        }
        ends.push(out.len());
    }
    let shape = Shape::vector(ends.len())?;
    let ends = match call.input(1)?.dtype() {
        DType::I32 => {
            let narrow: Result<Vec<i32>, _> = ends.iter().map(|&end| i32::try_from(end)).collect();
            Tensor::from_vec(shape, narrow.map_err(|_| Error::too_large("row splits do not fit in int32"))?)?
        }
        _ => Tensor::from_vec(shape, ends.iter().map(|&end| end as i64).collect())?,
    };
    Ok(vec![Tensor::from_strings(Shape::vector(out.len())?, out)?, ends])
}

/// Row splits, checked with TensorFlow's texts.
fn splits(splits: &[i64], n_values: usize) -> Result<Vec<usize>, Error> {
    let Some((&first, &last)) = splits.first().zip(splits.last()) else { return Ok(Vec::new()) };
    if first != 0 {
        return Err(Error::invalid(format!("First split value must be 0, got {first}")));
    }
    let n = n_values as i64;
    if let Some(pair) = splits.windows(2).find(|pair| pair[1] < pair[0] || pair[1] > n) {
        let (low, got) = (pair[0], pair[1]);
        return Err(Error::invalid(format!("Invalid split value {got}, must be in [{low}, {n}]")));
    }
    if last != n {
        return Err(Error::invalid(format!("Last split value must be data size. Expected {n}, got {last}")));
    }
    Ok(splits.iter().filter_map(|&split| usize::try_from(split).ok()).collect())
}
