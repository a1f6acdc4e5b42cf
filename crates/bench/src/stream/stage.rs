//! Where it is measured: the model, the broker, and files.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Settings;
use super::kafka::{Kafka, Topic};
use super::record::{Form, Records};
use crate::Common;
use crate::subject::Subject;

/// When the records of a filled topic were created: each a millisecond after the one before, so that it tells them apart.
const CREATED_MS: i64 = 1_700_000_000_000;

/// The model and the settings of a run.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) common: &'a Common,
    pub(crate) settings: &'a Settings,
    /// What is asked of the model, and the name of its first output.
    pub(crate) subject: Subject,
    pub(crate) output: &'static str,
    /// The model's file, in a folder as servers want it.
    pub(crate) onnx: PathBuf,
    pub(crate) models: PathBuf,
    kafka: Option<Kafka>,
    folder: tempfile::TempDir,
    n_files: Cell<u32>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(common: &'a Common, settings: &'a Settings) -> Result<Stage<'a>> {
        let subject = Subject::tiny(common)?;
        let output = if subject.name == "crayfish" { "output" } else { "probabilities" };
        let folder = tempfile::tempdir()?;
        let models = folder.path().join("models");
        let onnx = subject.install(&models, subject.name, 1)?;
        let kafka = settings.bootstrap.as_deref().map(Kafka::new).transpose()?;
        Ok(Stage { common, settings, subject, output, onnx, models, kafka, folder, n_files: Cell::new(0) })
    }

    pub(crate) fn kafka(&self) -> Result<&Kafka> {
        self.kafka.as_ref().context("there is no broker")
    }

    /// A path in this run's folder that nothing else has.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.n_files.set(self.n_files.get() + 1);
        self.folder.path().join(format!("{}-{name}", self.n_files.get()))
    }

    pub(crate) fn n_numbers(&self) -> usize {
        self.subject.values.len()
    }

    /// The dimensions of a row.
    pub(crate) fn row(&self) -> &[usize] {
        &self.subject.shape[1..]
    }

    /// Whether ONNX Runtime is there.
    pub(crate) fn has_onnxruntime(&self) -> bool {
        self.settings.runtimes.as_ref().is_some_and(|folder| folder.join("onnxruntime").exists())
    }

    /// The engine of a model that is small: ONNX Runtime, as the others have it, where it is there.
    pub(crate) fn engine(&self) -> &'static str {
        if self.has_onnxruntime() { "onnxruntime" } else { "embedded" }
    }

    /// A topic that holds so many records.
    pub(crate) fn filled(&self, form: Form, n: usize) -> Result<Topic<'_>> {
        let records = Records::new(form, self.n_numbers());
        let topic = self.kafka()?.topic("in")?;
        topic.fill(n, |index, value| records.write(index, CREATED_MS + index as i64, value))?;
        Ok(topic)
    }
}
