//! The formats.

use std::fmt;

use serde::Deserialize;

/// How the bytes of a record are to be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON text for each record.
    Json,
    /// One line of separated values for each record.
    Csv,
    /// The elements of tensors, little-endian, without any frame.
    Raw,
    /// TensorFlow Serving's `PredictRequest`; answers are `PredictResponse`.
    PredictRequest,
    /// `tensorflow.Example`.
    Example,
    /// A JPEG or PNG file.
    Image,
    /// Avro.
    Avro,
    /// Protobuf.
    Protobuf,
}

impl Format {
    /// The name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Raw => "raw",
            Format::PredictRequest => "predict_request",
            Format::Example => "example",
            Format::Image => "image",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
