//! Where it is measured: models on disk, and servers that have them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::Settings;
use crate::Common;
use crate::engines::{Made, make};
use crate::server::Server;

/// The models that the sections use.
const MODELS: [&str; 5] = ["bert_mini", "weather", "crayfish", "mobilenet_v2", "inception_v3"];
/// Rows of the largest batch, of which smaller ones are cut.
pub(crate) const MOST_ROWS: usize = 32;
/// The least time that a model may take to load without the wait for a server being given up: it is tried so often.
const TRIES: usize = 4;

/// A model file under the name that it is served by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) name: &'a str,
    pub(crate) onnx: &'a Path,
}

/// The models and the settings of a run.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) common: &'a Common,
    pub(crate) settings: &'a Settings,
    made: Vec<Made>,
    folder: tempfile::TempDir,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(common: &'a Common, settings: &'a Settings) -> Result<Stage<'a>> {
        let made = make(common, &settings.places, &MODELS.map(str::to_owned), &[1, MOST_ROWS])?;
        Ok(Stage { common, settings, made, folder: tempfile::tempdir()? })
    }

    /// A model by name; `None` when it is not there because the test data are not.
    pub(crate) fn made(&self, name: &str) -> Option<&Made> {
        self.made.iter().find(|made| made.name == name)
    }

    /// Whether a case is to be measured.
    pub(crate) fn wants(&self, label: &str) -> bool {
        label.contains(&self.settings.case)
    }

    /// A file for the servers to read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// A server that has these models and is ready. `name` tells its files from those of others.
    pub(crate) fn server(
        &self,
        name: &str,
        models: &[Placed<'_>],
        engine: &str,
        arguments: &[&str],
    ) -> Result<Server> {
        let folder = self.folder.path().join(name);
        for model in models {
            place(model.onnx, &folder.join(model.name).join("1"))?;
        }
        let runtimes = self.settings.places.runtimes.as_ref().map(|path| path.display().to_string());
        let mut all = vec!["--engine", engine];
        if let Some(runtimes) = &runtimes {
            all.extend(["--runtime_dir", runtimes]);
        }
        all.extend(arguments);
        all.extend(self.settings.salver_arguments.iter().map(String::as_str));
        let log = self.folder.path().join(format!("{name}.log"));
        let mut server = Server::salver(&self.common.salver, &folder, &all, &log)?;
        for _ in 1..TRIES {
            if server.wait_ready(&log).is_ok() {
                return Ok(server);
            }
            ensure!(!server.has_ended(), "the server has ended: {}", crate::server::tail(&log));
        }
        server.wait_ready(&log)?;
        Ok(server)
    }
}

impl Made {
    /// The model under its own name.
    pub(crate) fn placed(&self) -> Placed<'_> {
        Placed { name: self.name, onnx: &self.onnx }
    }
}

/// Lays a model into a version's folder, as if it had been there for an hour: one that has just changed is not loaded at once.
fn place(onnx: &Path, version: &Path) -> Result<()> {
    fs::create_dir_all(version)?;
    let file = version.join("model.onnx");
    if !file.exists() {
        // Not a link: the time below is to be that of this file alone.
        fs::copy(onnx, &file).with_context(|| format!("cannot copy {}", onnx.display()))?;
    }
    let old = SystemTime::now() - Duration::from_secs(3_600);
    for path in [file.as_path(), version] {
        File::open(path)?.set_modified(old)?;
    }
    Ok(())
}
