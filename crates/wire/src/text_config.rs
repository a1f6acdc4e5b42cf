//! Configuration files in protobuf text format.
//!
//! Every form of the text format is taken. A field that the message does not have is refused with its line and column.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use miette::Diagnostic as _;
use prost::Message;
use prost_reflect::text_format::ParseError;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::tensorflow::ConfigProto;
pub use crate::proto::tensorflow::serving::{
    BatchingParameters, ModelServerConfig, MonitoringConfig, SessionBundleConfig, SslConfig,
};
use crate::proto::tensorflow::serving::{PlatformConfigMap, SavedModelBundleSourceAdapterConfig};

/// Longer texts are refused. A list of ten thousand models takes about 2 MiB.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Deeper nesting is refused: the reader calls itself for each level.
pub const MAX_DEPTH: usize = 32;

/// Why a text is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    line: usize,
    column: usize,
    message: String,
}

impl TextError {
    fn at(text: &str, offset: usize, message: impl Into<String>) -> TextError {
        let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
        let last_line = before.rsplit('\n').next().unwrap_or_default();
        TextError {
            line: before.matches('\n').count().saturating_add(1),
            column: last_line.chars().count().saturating_add(1),
            message: message.into(),
        }
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for TextError {}

/// Reads a ModelServerConfig; [`crate::tfs::resolve_models`] makes models of it.
///
/// # Errors
/// [`TextError`]
pub fn model_server_config(text: &str) -> Result<ModelServerConfig, TextError> {
    parse(text, "tensorflow.serving.ModelServerConfig")
}

/// Reads BatchingParameters.
///
/// # Errors
/// [`TextError`]
pub fn batching_parameters(text: &str) -> Result<BatchingParameters, TextError> {
    parse(text, "tensorflow.serving.BatchingParameters")
}

/// Reads an SSLConfig.
///
/// # Errors
/// [`TextError`]
pub fn ssl_config(text: &str) -> Result<SslConfig, TextError> {
    parse(text, "tensorflow.serving.SSLConfig")
}

/// Reads a MonitoringConfig.
///
/// # Errors
/// [`TextError`]
pub fn monitoring_config(text: &str) -> Result<MonitoringConfig, TextError> {
    parse(text, "tensorflow.serving.MonitoringConfig")
}

/// Reads the session options that have a meaning here; others are refused as unknown.
///
/// # Errors
/// [`TextError`]
pub fn session_config(text: &str) -> Result<ConfigProto, TextError> {
    parse(text, "tensorflow.ConfigProto")
}

/// Reads a PlatformConfigMap: what to load with, by platform.
///
/// # Errors
/// [`TextError`]; also for a platform whose configuration is not a SavedModelBundleSourceAdapterConfig.
pub fn platform_configs(text: &str) -> Result<BTreeMap<String, SessionBundleConfig>, TextError> {
    let map: PlatformConfigMap = parse(text, "tensorflow.serving.PlatformConfigMap")?;
    let mut configs = BTreeMap::new();
    for (platform, config) in map.platform_configs {
        let any = config.source_adapter_config.unwrap_or_default();
        if !any.type_url.ends_with("/tensorflow.serving.SavedModelBundleSourceAdapterConfig") {
            return Err(TextError::at(
                text,
                0,
                format!(
                    "source_adapter_config of platform '{platform}' is of type '{}', expected \
                     tensorflow.serving.SavedModelBundleSourceAdapterConfig",
                    any.type_url
                ),
            ));
        }
        let adapter = SavedModelBundleSourceAdapterConfig::decode(any.value.as_slice())
            .map_err(|error| TextError::at(text, 0, format!("platform '{platform}': {error}")))?;
        configs.insert(platform, adapter.legacy_config.unwrap_or_default());
    }
    Ok(configs)
}

/// The descriptors of every message, decoded once.
pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are well-formed")
});

fn parse<M: Message + Default>(text: &str, message: &str) -> Result<M, TextError> {
    check_bounds(text)?;
    let descriptor = POOL.get_message_by_name(message).expect("the committed descriptors hold the message");
    let parsed =
        DynamicMessage::parse_text_format(descriptor, text).map_err(|error| located(text, &error))?;
    parsed.transcode_to().map_err(|error| TextError::at(text, 0, error.to_string()))
}

fn located(text: &str, error: &ParseError) -> TextError {
    let label = error.labels().and_then(|mut labels| labels.next());
    let offset = label.map_or(text.len(), |label| label.offset());
    TextError::at(text, offset, error.to_string())
}

fn check_bounds(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("text is {} bytes long, at most {MAX_TEXT_BYTES} are allowed", text.len());
        return Err(TextError::at("", 0, message));
    }
    match first_too_deep(text) {
        Some(offset) => {
            Err(TextError::at(text, offset, format!("messages are nested deeper than {MAX_DEPTH} levels")))
        }
        None => Ok(()),
    }
}

/// Where the nesting goes beyond [`MAX_DEPTH`], if it does. Brackets in strings and comments do not count.
fn first_too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'{' | b'<' | b'[' => depth = depth.saturating_add(1),
            b'}' | b'>' | b']' => depth = depth.saturating_sub(1),
            b'#' => while bytes.next().is_some_and(|(_, byte)| byte != b'\n') {},
            b'"' | b'\'' => {
                while let Some((_, inner)) = bytes.next() {
                    match inner {
                        b'\\' => drop(bytes.next()),
                        // A string does not go beyond its line; the reader refuses one that does.
                        b'\n' => break,
                        end if end == byte => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(offset);
        }
    }
    None
}

#[cfg(test)]
mod tests;
