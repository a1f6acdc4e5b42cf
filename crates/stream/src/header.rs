//! The headers that are added to what is written.

use std::sync::Arc;

use salver_records::CUT_FROM;

/// The names of headers, made once.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) model: Arc<str>,
    pub(crate) model_version: Arc<str>,
    pub(crate) latency: Arc<str>,
    pub(crate) part: Arc<str>,
    pub(crate) source_topic: Arc<str>,
    pub(crate) source_partition: Arc<str>,
    pub(crate) source_offset: Arc<str>,
    pub(crate) content_type: Arc<str>,
    pub(crate) error_class: Arc<str>,
    pub(crate) error_message: Arc<str>,
    pub(crate) error_topic: Arc<str>,
    pub(crate) error_partition: Arc<str>,
    pub(crate) error_offset: Arc<str>,
    pub(crate) error_timestamp: Arc<str>,
    pub(crate) error_attempt: Arc<str>,
    pub(crate) error_model: Arc<str>,
    pub(crate) error_model_version: Arc<str>,
}

impl Default for Names {
    fn default() -> Names {
        Names {
            model: "salver-model".into(),
            model_version: "salver-model-version".into(),
            latency: "salver-latency-us".into(),
            part: "salver-part".into(),
            source_topic: "salver-source-topic".into(),
            source_partition: "salver-source-partition".into(),
            source_offset: "salver-source-offset".into(),
            content_type: "content-type".into(),
            error_class: "salver-error-class".into(),
            error_message: "salver-error-message".into(),
            error_topic: "salver-error-topic".into(),
            error_partition: "salver-error-partition".into(),
            error_offset: "salver-error-offset".into(),
            error_timestamp: "salver-error-timestamp".into(),
            error_attempt: "salver-error-attempt".into(),
            error_model: "salver-error-model".into(),
            error_model_version: "salver-error-model-version".into(),
        }
    }
}

impl Names {
    /// Whether a header that came with a record is one that a pipeline adds. An earlier pipeline's give way to this one's;
    /// what the source says of the record stays.
    pub(crate) fn is_ours(name: &str) -> bool {
        name.starts_with("salver-") && name != CUT_FROM
    }

    /// Whether a header that came with a record is left out where something is written among the answers. What the source says
    /// of the record is not true of that either.
    pub(crate) fn is_of_input(name: &str) -> bool {
        Names::is_ours(name) || name == CUT_FROM
    }

    /// Whether a header says something of the content that came and is not true of an answer: the id of its schema, where
    /// the serializers of schema registries put it.
    pub(crate) fn is_of_content(name: &str) -> bool {
        name == "__value_schema_id"
    }
}
