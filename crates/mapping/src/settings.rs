//! What a user says about formats, fields, answers and filters. Every key is explained in `docs/stream-mapping.md`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Format, SchemaSettings};

/// The whole of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How records are read and which fields go into the model.
    pub input: InputSettings,
    /// What of the answer goes where.
    pub output: OutputSettings,
    /// Which records are wanted. All must hold.
    pub filter: Vec<FilterSettings>,
}

/// `[input]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputSettings {
    /// The format of the records; JSON unless said.
    pub format: Option<Format>,
    /// How each input of the model is made. An input that is not named is made of the field of its name.
    pub tensors: Vec<TensorSettings>,
    /// How lines of separated values are read.
    pub csv: CsvSettings,
    /// How pictures become tensors.
    pub image: ImageSettings,
    /// Where schemas come from.
    pub schema: SchemaSettings,
    /// Bounds on one record.
    pub limits: LimitSettings,
}

/// `[[input.tensors]]`: one input of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorSettings {
    /// The input's name in the signature.
    pub input: String,
    /// The one field that it is made of: a number, or nested lists of numbers.
    pub field: Option<String>,
    /// The fields whose elements, one after the other, make a row. `v1..v28` stands for 28 of them.
    pub fields: Vec<String>,
    /// A value that is the same for all records, instead of fields.
    pub value: Option<Literal>,
    /// The dimensions of a row, when the field's lists are not nested so.
    pub reshape: Option<Vec<usize>>,
    /// What is done to numbers before the model sees them.
    pub scale: Option<ScaleSettings>,
    /// By field, the categories that become one column each.
    pub one_hot: BTreeMap<String, Vec<Literal>>,
    /// What becomes of a value that is none of its field's categories.
    pub unknown: Unknown,
    /// What stands for a field that is missing or null; such a record is refused if this is not said.
    pub missing: Option<Literal>,
    /// Whether a record may have several rows.
    pub rows: RowsSettings,
    /// The element type of raw bytes, where it is not the model's.
    pub dtype: Option<String>,
}

/// One value in settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Literal {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
}

/// One number, or one for each element.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Numbers {
    /// For all elements.
    One(f64),
    /// One for each element of a row, or for each of its last dimension (of a picture: for each channel).
    Each(Vec<f64>),
}

/// `scale`: one of three pairs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScaleSettings {
    /// With `std`: `(x - mean) / std`.
    pub mean: Option<Numbers>,
    /// With `mean`.
    pub std: Option<Numbers>,
    /// With `max`: `(x - min) / (max - min)`.
    pub min: Option<Numbers>,
    /// With `min`.
    pub max: Option<Numbers>,
    /// `x * factor + offset`; 1 unless said.
    pub factor: Option<Numbers>,
    /// `x * factor + offset`; 0 unless said.
    pub offset: Option<Numbers>,
}

/// What becomes of a value that is none of its field's categories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The record is refused.
    #[default]
    Refuse,
    /// All columns of the field are 0.
    Zeros,
}

/// How many rows a record has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsSettings {
    /// One, or as many as a list of rows has.
    #[default]
    Auto,
    /// One.
    One,
    /// As many as the outermost list has, or as a flat list has elements for.
    Many,
}

/// `[input.csv]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSettings {
    /// What separates columns: one byte.
    pub delimiter: char,
    /// What surrounds a column that has a delimiter in it: one byte; doubled it stands for itself.
    pub quote: char,
    /// The names of the columns, where the source has no header or another one.
    pub columns: Option<Vec<String>>,
    /// Texts that stand for nothing.
    pub null: Vec<String>,
}

impl Default for CsvSettings {
    fn default() -> CsvSettings {
        CsvSettings { delimiter: ',', quote: '"', columns: None, null: vec![String::new()] }
    }
}

/// `[input.image]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// How a picture is brought to the model's size.
    pub resize: Resize,
    /// Height and width, where the model leaves them open.
    pub size: Option<[u32; 2]>,
    /// The order of the channels, or one channel of brightness; three or one as the model takes them unless said.
    pub channels: Option<Channels>,
    /// Where the channels stand; as the model's dimensions show unless said.
    pub layout: Option<Layout>,
}

/// How a picture is brought to another size. The proportions are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Between the four nearest pixels, centres at halves: TensorFlow's `tf.image.resize` without antialiasing.
    #[default]
    Bilinear,
    /// The pixel under the new pixel's centre: `tf.image.resize` with `nearest`.
    Nearest,
    /// As bilinear, over as many pixels as the new one covers: with antialiasing.
    Triangle,
    /// Lanczos with three lobes, with antialiasing.
    Lanczos3,
    /// Not at all: a picture of another size is refused.
    None,
}

/// The channels of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Brightness, by the weights of ITU-R BT.601.
    Gray,
}

/// The order of a picture's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Rows, columns, channels.
    Nhwc,
    /// Channels, rows, columns.
    Nchw,
}

/// `[input.limits]`: bounds on one record.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// The bytes of a record.
    pub max_bytes: usize,
    /// How deep lists and objects on the way to a field, and in it, may be nested.
    pub max_depth: usize,
    /// The elements of all inputs made of one record.
    pub max_elements: usize,
    /// The pixels of a picture as it comes.
    pub max_pixels: u64,
}

/// 16 MiB, 64 levels, 2^24 elements, 2^24 pixels.
impl Default for LimitSettings {
    fn default() -> LimitSettings {
        LimitSettings { max_bytes: 16 << 20, max_depth: 64, max_elements: 1 << 24, max_pixels: 1 << 24 }
    }
}

/// `[output]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSettings {
    /// What becomes of the record; `append` where the input's format can, else `replace`.
    pub mode: Option<Mode>,
    /// The format of answers; the input's unless said, and JSON for pictures.
    pub format: Option<Format>,
    /// One object of this name for all fields, instead of each beside the record's own.
    pub under: Option<String>,
    /// Fields of the record that are copied into an answer that replaces it.
    pub keep: Vec<String>,
    /// What of the model's outputs is wanted, and under which names; all of them under their own if none are said.
    pub fields: Vec<FieldSettings>,
    /// Who answered, as further fields.
    pub about: Vec<AboutField>,
    /// What is written for numbers that are none.
    pub non_finite: NonFinite,
    /// Schemas of answers.
    pub schema: SchemaSettings,
}

/// What becomes of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The answer's fields are added to it.
    Append,
    /// The answer's fields take its place.
    Replace,
    /// The value of the one answer's field takes its place, without a name.
    Only,
}

/// A fact about the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AboutField {
    /// `model`: the model's name.
    Model,
    /// `model_version`: its version, a whole number.
    Version,
    /// `latency_ms`: from reading to the answer.
    Latency,
}

/// What is written for infinity and not-a-number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// `null` in JSON, `NaN`, `inf` and `-inf` in CSV, the number itself elsewhere.
    #[default]
    Null,
    /// Nothing: the record is refused.
    Refuse,
}

/// `[[output.fields]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldSettings {
    /// The model's output; may be left out where it has one only.
    pub output: Option<String>,
    /// The name in the answer; the output's unless said.
    pub name: Option<String>,
    /// Elements of the row, by number from 0. One makes a single value, several a list.
    pub select: Option<Vec<usize>>,
    /// The number of the largest element, or its label.
    pub argmax: bool,
    /// The largest elements, in falling order.
    pub top_k: Option<usize>,
    /// Names of the row's elements, for `argmax` and `top_k`.
    pub labels: Option<Vec<String>>,
    /// One number made of the row's elements.
    pub reduce: Option<Reduce>,
    /// The input that `mse`, `mae`, `rmse` and `max_error` compare with; may be left out where the model has one only.
    pub against: Option<String>,
    /// Whether the number is above this one, instead of the number.
    pub above: Option<f64>,
    /// Decimal places that numbers are rounded to.
    pub decimals: Option<u8>,
}

/// How a row's elements become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The largest.
    Max,
    /// The root of the sum of their squares.
    Norm,
    /// The mean of the squared differences from an input.
    Mse,
    /// The root of that.
    Rmse,
    /// The mean of the absolute differences from an input.
    Mae,
    /// The largest absolute difference from an input.
    MaxError,
}

/// `[[filter]]`: conditions on one field, all of which must hold, or `any` of several groups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSettings {
    /// The field.
    pub field: Option<String>,
    /// It has this value.
    pub equals: Option<Literal>,
    /// It has not this value. Holds for a field that is missing.
    pub not: Option<Literal>,
    /// It has one of these values.
    #[serde(rename = "in")]
    pub one_of: Option<Vec<Literal>>,
    /// It is a number greater than this.
    pub above: Option<f64>,
    /// It is a number not less than this.
    pub at_least: Option<f64>,
    /// It is a number less than this.
    pub below: Option<f64>,
    /// It is a number not greater than this.
    pub at_most: Option<f64>,
    /// It is there and not null, or it is not.
    pub exists: Option<bool>,
    /// It is text in which this regular expression is found.
    pub matches: Option<String>,
    /// One of these holds at least.
    pub any: Vec<FilterSettings>,
}
