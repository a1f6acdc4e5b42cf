//! Vocabularies: StringLookup, IntegerLookup and TextVectorization.

use bytes::Bytes;
use salver_graph::{Error, ValueId};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value as Json;

use crate::architecture::{Keras, Layer};
use crate::attrs;
use crate::config;
use crate::emit::Emit;
use crate::layers::norm::doubles;
use crate::layers::preprocess::encode;
use crate::network::Inputs;
use crate::weights::{Slots, Weights};

/// What TextVectorization takes out of a text.
const PUNCTUATION: &str = r##"[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']"##;

/// The bound on idf_weights, which are filled up to the number of indices whatever the file holds.
const MAX_WEIGHTS: usize = 1 << 24;

pub(super) fn slots(layer: &Layer) -> Result<Slots, Error> {
    let weighted = layer.config.text_or("output_mode", "int")?.replace('-', "_") == "tf_idf";
    let slots = Slots::of(layer);
    Ok(if weighted && !layer.config.has("idf_weights") { slots.fixed(&["idf_weights"]) } else { slots })
}

pub(super) fn call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let x = inputs.one()?.id;
    let table = Table::read(cx, layer, weights)?;
    if table.n_oov == 0 && !table.invert {
        let becomes = if table.mode == "int" { "becomes -1" } else { "counts nowhere" };
        let note = format!(
            "layer '{}' ({}) with num_oov_indices=0: what is not in the vocabulary {becomes}, where Keras refuses it",
            layer.name, layer.class
        );
        if !cx.notes.contains(&note) {
            cx.notes.push(note);
        }
    }
    if layer.class == "TextVectorization" {
        return vectorise(cx, layer, weights, &table, x);
    }
    let x = if table.integers && !table.invert { cx.cast(x, DType::I64)? } else { x };
    if table.invert {
        let x = cx.cast(x, DType::I64)?;
        return table.inverse(cx, x);
    }
    if !table.integers && cx.dtype(x) != DType::String {
        return Err(Error::invalid(format!("the input is {}, expected string", cx.dtype(x))));
    }
    let found = table.look_up(cx, x)?;
    if table.mode == "int" {
        return Ok(found);
    }
    table.encode(cx, layer, weights, found)
}

/// A vocabulary and what to do with what is not in it.
struct Table {
    tokens: Vec<Bytes>,
    integers: bool,
    invert: bool,
    mode: String,
    mask: Option<Bytes>,
    oov: Bytes,
    n_oov: usize,
    depth: usize,
    farmhash: bool,
    salt: Option<[i64; 2]>,
    /// Whether the vocabulary held the special tokens.
    had_special: bool,
}

fn token(value: &Json) -> Option<Bytes> {
    match value {
        Json::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        other => config::int(other).map(|number| Bytes::from(number.to_string())),
    }
}

impl Table {
    fn read(cx: &Emit, layer: &Layer, weights: &Weights) -> Result<Table, Error> {
        let c = &layer.config;
        let text = layer.class == "TextVectorization";
        let integers = layer.class == "IntegerLookup";
        let mode = match c.text_or("output_mode", "int")?.replace('-', "_").as_str() {
            "binary" => "multi_hot".to_owned(),
            mode => mode.to_owned(),
        };
        if c.flag("sparse", false)? || c.flag("ragged", false)? {
            return Err(Error::unsupported("sparse or ragged outputs"));
        }
        let encoding = c.text_or("encoding", "utf-8")?.to_ascii_lowercase();
        if encoding != "utf-8" && encoding != "utf8" {
            return Err(Error::unsupported(format!("encoding '{encoding}', expected 'utf-8'")));
        }
        let mask = if text { Some(Bytes::new()) } else { c.json("mask_token").and_then(token) };
        let n_oov =
            if text { 1 } else { c.int_or("num_oov_indices", 1)?.clamp(0, config::MAX_SIZE) as usize };
        let default_oov = if integers { "-1" } else { "[UNK]" };
        let oov =
            c.json("oov_token").and_then(token).unwrap_or_else(|| Bytes::from_static(default_oov.as_bytes()));
        let mut tokens = vocabulary(cx, layer, weights)?;
        let n_masks = usize::from(mask.is_some() && mode == "int");
        let n_special = n_masks + n_oov;
        let mut special: Vec<&Bytes> = mask.iter().filter(|_| mode == "int").collect();
        special.extend(std::iter::repeat_n(&oov, n_oov.min(tokens.len())));
        let had_special = special.len() == n_special
            && tokens.iter().take(n_special).eq(special)
            && tokens.len() >= n_special;
        if had_special {
            tokens.drain(..n_special);
        }
        let depth =
            match c.opt_int("max_tokens")?.filter(|_| c.flag("pad_to_max_tokens", false).unwrap_or(false)) {
                Some(_) => c.size("max_tokens")?,
                None => tokens.len() + n_special,
            };
        let farmhash = c.text_or("oov_method", "floormod")? == "farmhash";
        let salt = match c.opt_ints("salt")?.as_deref() {
            None => None,
            Some(&[one]) => Some([one, one]),
            Some(&[first, second]) => Some([first, second]),
            Some(salt) => {
                return Err(Error::invalid(format!("salt {salt:?}, expected one or two integers")));
            }
        };
        let invert = c.flag("invert", false)?;
        Ok(Table { tokens, integers, invert, mode, mask, oov, n_oov, depth, farmhash, salt, had_special })
    }

    /// The index of the first token that is not in the vocabulary.
    fn oov_start(&self) -> i64 {
        i64::from(self.mask.is_some() && self.mode == "int")
    }

    fn start(&self) -> i64 {
        self.oov_start() + self.n_oov as i64
    }

    fn keys(&self) -> Result<Tensor, Error> {
        strings_or_ints(&self.tokens, self.integers)
    }

    fn indices(&self) -> Result<Tensor, Error> {
        let start = self.start();
        ints((0..self.tokens.len() as i64).map(|at| start + at).collect())
    }

    /// Tokens to indices; -1 for what counts nowhere.
    fn look_up(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        let default = cx.int(-1);
        let attrs = attrs!("keys": self.keys()?, "values": self.indices()?);
        let mut found = cx.salver_one("LookupTable", &[x, default], attrs)?;
        if self.n_oov == 1 {
            let oov = cx.int(self.oov_start());
            found = self.replace_missing(cx, found, oov)?;
        } else if self.n_oov > 1 {
            let hashed = self.hashed(cx, x)?;
            found = self.replace_missing(cx, found, hashed)?;
        }
        if let Some(mask) = &self.mask {
            let mask = constant(cx, mask, self.integers)?;
            let is_mask = cx.op("Equal", &[x, mask])?;
            let value = cx.int(if self.mode == "int" { 0 } else { -1 });
            found = cx.select(is_mask, value, found)?;
        }
        Ok(found)
    }

    fn replace_missing(&self, cx: &mut Emit, found: ValueId, other: ValueId) -> Result<ValueId, Error> {
        let missing = cx.int(-1);
        let is_missing = cx.op("Equal", &[found, missing])?;
        cx.select(is_missing, other, found)
    }

    fn hashed(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        let n = self.n_oov as i64;
        let bucket = if self.integers && !self.farmhash {
            let n = cx.int(n);
            cx.op_with("Mod", &[x, n], attrs!("fmod": 0))?
        } else {
            let x = if self.integers { cx.salver_one("AsString", &[x], attrs!())? } else { x };
            match &self.salt {
                Some(key) => {
                    cx.salver_one("StringToHashBucketStrong", &[x], attrs!("num_buckets": n, "key": *key))?
                }
                None => cx.salver_one("StringToHashBucketFast", &[x], attrs!("num_buckets": n))?,
            }
        };
        let start = cx.int(self.oov_start());
        cx.add(bucket, start)
    }

    /// Indices to tokens.
    fn inverse(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        let default = constant(cx, &self.oov, self.integers)?;
        let attrs = attrs!("keys": self.indices()?, "values": self.keys()?);
        let found = cx.salver_one("LookupTable", &[x, default], attrs)?;
        match self.mask.as_ref().filter(|_| self.mode == "int") {
            Some(mask) => {
                let mask = constant(cx, mask, self.integers)?;
                let zero = cx.int(0);
                let is_mask = cx.op("Equal", &[x, zero])?;
                cx.select(is_mask, mask, found)
            }
            None => Ok(found),
        }
    }

    fn encode(
        &self,
        cx: &mut Emit,
        layer: &Layer,
        weights: &Weights,
        found: ValueId,
    ) -> Result<ValueId, Error> {
        let dtype = layer.policy.compute;
        if self.mode != "tf_idf" {
            let dtype = if cx.keras == Keras::Three { DType::I64 } else { dtype };
            return encode(cx, found, &self.mode, self.depth, dtype, None);
        }
        let counts = encode(cx, found, "count", self.depth, dtype, None)?;
        let factors = self.idf_weights(layer, weights)?;
        let factors = cx.floats("idf_weights", &[self.depth], factors, dtype)?;
        cx.mul(counts, factors)
    }

    /// The weight of each index. What is not in the vocabulary weighs as much as the average.
    fn idf_weights(&self, layer: &Layer, weights: &Weights) -> Result<Vec<f64>, Error> {
        for (key, n) in [("num_oov_indices", self.n_oov), ("max_tokens", self.depth)] {
            if n > MAX_WEIGHTS {
                return Err(Error::too_large(format!(
                    "{key} is {n} with output_mode 'tf_idf', expected at most {MAX_WEIGHTS}"
                )));
            }
        }
        let mut factors = match layer.config.opt_floats("idf_weights")? {
            Some(factors) if !self.had_special => {
                let average = factors.iter().sum::<f64>() / factors.len().max(1) as f64;
                let mut all = vec![average; self.n_oov];
                all.extend(factors);
                all
            }
            Some(factors) => factors,
            None => doubles(&weights.get("idf_weights")?.tensor)
                .ok_or_else(|| Error::unsupported("idf_weights of a type that is no float"))?,
        };
        if factors.len() > self.depth {
            return Err(Error::invalid(format!("{} idf_weights for {} tokens", factors.len(), self.depth)));
        }
        factors.resize(self.depth, 0.0);
        Ok(factors)
    }
}

/// The vocabulary of the configuration, or else of the file's assets.
fn vocabulary(cx: &Emit, layer: &Layer, weights: &Weights) -> Result<Vec<Bytes>, Error> {
    if let Some(value) = layer.config.json("vocabulary") {
        let value = config::plain(value);
        if value.is_string() {
            return Err(Error::unsupported(
                "a vocabulary that is a file elsewhere: save the model with the vocabulary in it",
            ));
        }
        let tokens: Option<Vec<Bytes>> = value.as_array().and_then(|list| list.iter().map(token).collect());
        return tokens.ok_or_else(|| Error::invalid("vocabulary is no list of tokens"));
    }
    let path = format!("{}/vocabulary.txt", weights.path);
    let text = cx.assets.get(&path).ok_or_else(|| {
        Error::invalid(format!(
            "no vocabulary: it is not in the configuration, and assets/{path} is not in the file"
        ))
    })?;
    // Tokens may be empty: the mask of texts is.
    Ok(text
        .split(|&byte| byte == b'\n')
        .map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            text.slice_ref(line)
        })
        .collect())
}

fn ints(values: Vec<i64>) -> Result<Tensor, Error> {
    let shape = Shape::vector(values.len()).map_err(|error| Error::too_large(error.to_string()))?;
    Tensor::from_vec(shape, values).map_err(|error| Error::invalid(error.to_string()))
}

fn number(text: &Bytes) -> Result<i64, Error> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| Error::invalid(format!("token '{}' is no integer", String::from_utf8_lossy(text))))
}

fn strings_or_ints(tokens: &[Bytes], integers: bool) -> Result<Tensor, Error> {
    if integers {
        return ints(tokens.iter().map(number).collect::<Result<_, _>>()?);
    }
    let shape = Shape::vector(tokens.len()).map_err(|error| Error::too_large(error.to_string()))?;
    Tensor::from_strings(shape, tokens.to_vec()).map_err(|error| Error::invalid(error.to_string()))
}

fn constant(cx: &mut Emit, text: &Bytes, integers: bool) -> Result<ValueId, Error> {
    if integers {
        return Ok(cx.int(number(text)?));
    }
    let tensor = Tensor::from_strings(Shape::scalar(), vec![text.clone()]);
    Ok(cx.tensor("token", tensor.map_err(|error| Error::invalid(error.to_string()))?))
}

fn vectorise(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    table: &Table,
    x: ValueId,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    if cx.dtype(x) != DType::String {
        return Err(Error::invalid(format!("the input is {}, expected string", cx.dtype(x))));
    }
    let own_code = |key: &str| {
        Error::unsupported(format!(
            "'{key}' is Python code, which is not run here: export the model as a SavedModel (model.export)"
        ))
    };
    let mut x = x;
    let named = |key: &str| -> Result<Option<String>, Error> {
        match c.json(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(own_code(key)),
        }
    };
    let standardize = named("standardize")?.unwrap_or_default();
    match standardize.as_str() {
        "" | "None" => {}
        "lower" | "strip_punctuation" | "lower_and_strip_punctuation" => {
            if standardize.starts_with("lower") {
                x = cx.salver_one("StringLower", &[x], attrs!("encoding": ""))?;
            }
            if standardize.ends_with("punctuation") {
                let (pattern, empty) = (cx.text(PUNCTUATION)?, cx.text("")?);
                x = cx.salver_one("RegexReplace", &[x, pattern, empty], attrs!("replace_global": 1))?;
            }
        }
        _ => return Err(own_code("standardize")),
    }
    let length = c.opt_int("output_sequence_length")?;
    let widths = ngram_widths(layer)?;
    match named("split")?.as_deref() {
        None | Some("None") => {
            if widths.is_some() {
                return Err(Error::unsupported("ngrams without split"));
            }
            let found = table.look_up(cx, x)?;
            if table.mode != "int" {
                return table.encode(cx, layer, weights, found);
            }
            return fixed_length(cx, found, length);
        }
        Some("whitespace") => {}
        Some("character") => return Err(Error::unsupported("split='character'")),
        Some(_) => return Err(own_code("split")),
    }
    let rank = cx.rank(x)?;
    if rank > 2 || (rank == 2 && cx.dims(x)?[1].is_some_and(|dim| dim != 1)) {
        return Err(Error::invalid("a text per row is expected, that is one or a last dimension of 1"));
    }
    if rank == 2 {
        x = cx.squeeze(x, &[-1])?;
    }
    let separator = cx.text("")?;
    let parts = cx.salver("StringSplit", &[x, separator], attrs!("maxsplit": -1), 3)?;
    let (mut words, mut splits) = (parts[1], row_splits(cx, parts[0], x)?);
    if let Some(widths) = widths {
        let attrs = attrs!(
            "separator": " ", "ngram_widths": widths, "left_pad": "", "right_pad": "", "pad_width": 0,
            "preserve_short_sequences": 0,
        );
        let grams = cx.salver("StringNGrams", &[words, splits], attrs, 2)?;
        (words, splits) = (grams[0], cx.cast(grams[1], DType::I64)?);
    }
    let found = table.look_up(cx, words)?;
    let integers = table.mode == "int";
    let shape = cx.ints(&[-1, if integers { length.unwrap_or(-1) } else { -1 }]);
    let padding = cx.int(if integers { 0 } else { -1 });
    let attrs = attrs!("row_partition_types": vec!["ROW_SPLITS".to_owned()]);
    let dense = cx.salver_one("RaggedTensorToTensor", &[shape, found, padding, splits], attrs)?;
    let batch = cx.b.dims(x).and_then(|dims| dims.first().cloned()).unwrap_or(salver_graph::Dim::Unknown);
    let columns = length.filter(|_| integers).and_then(|length| usize::try_from(length).ok());
    cx.b.set_dims(
        dense,
        Some(vec![batch, columns.map_or(salver_graph::Dim::Unknown, salver_graph::Dim::Fixed)]),
    );
    if integers { Ok(dense) } else { table.encode(cx, layer, weights, dense) }
}

/// `[rows + 1]`: where in the list of words each row begins, from the `[row, column]` of each word.
fn row_splits(cx: &mut Emit, indices: ValueId, rows: ValueId) -> Result<ValueId, Error> {
    let row = cx.slice(indices, 1, 0, 1, 1)?;
    let row = cx.transpose(row, &[1, 0])?;
    let n = cx.size(rows, 0)?;
    let one = cx.ints(&[1]);
    let n = cx.add(n, one)?;
    let starts = cx.range(n)?;
    let starts = cx.unsqueeze(starts, &[1])?;
    let before = cx.op("Less", &[row, starts])?;
    let before = cx.cast(before, DType::I64)?;
    cx.reduce("ReduceSum", before, &[1], false)
}

/// An integer means all widths up to it, a list the widths themselves.
fn ngram_widths(layer: &Layer) -> Result<Option<Vec<i64>>, Error> {
    let Some(value) = layer.config.json("ngrams") else { return Ok(None) };
    let widths = match config::int(value) {
        Some(width) => (1..=width.min(64)).collect(),
        None => config::ints(value)
            .ok_or_else(|| Error::invalid("ngrams is no integer and no list of integers"))?,
    };
    if widths.is_empty() || widths.iter().any(|width| !(1..=64).contains(width)) {
        return Err(Error::invalid(format!("ngrams {widths:?}, expected 1 to 64")));
    }
    Ok(Some(widths))
}

/// Cuts the last dimension, or fills it with zeros.
fn fixed_length(cx: &mut Emit, x: ValueId, length: Option<i64>) -> Result<ValueId, Error> {
    let Some(length) = length else { return Ok(x) };
    let rank = cx.rank(x)?;
    let last = rank.checked_sub(1).ok_or_else(|| Error::invalid("a scalar text"))?;
    let size = cx.dim(x, last)? as i64;
    if !(0..=config::MAX_SIZE).contains(&length) {
        return Err(Error::invalid(format!("output_sequence_length {length}")));
    }
    if size >= length {
        return cx.slice(x, last, 0, length, 1);
    }
    let mut pads = vec![0; 2 * rank];
    pads[2 * rank - 1] = length - size;
    let pads = cx.ints(&pads);
    let zero = cx.int(0);
    cx.op_with("Pad", &[x, pads, zero], attrs!("mode": "constant"))
}
