//! The servers that are compared, and how each is started with a model.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::Settings;
use super::tree::Tree;
use super::triton::Triton;
use crate::Common;
use crate::body::Interface;
use crate::engines::Made;
use crate::server::free_address;

const FLASK: &str = "tests/peers/flask";
const WORKERS: usize = 2;

/// A server of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Side {
    /// Salver with ONNX Runtime.
    Salver,
    /// Salver with its own engine.
    Embedded,
    /// Triton's Python backend with onnxruntime.
    Triton,
    /// Flask's own server with TensorFlow.
    Flask,
    /// The same application run by gunicorn with two workers.
    Gunicorn,
}

impl Side {
    pub(crate) const ALL: [Side; 5] =
        [Side::Salver, Side::Embedded, Side::Triton, Side::Flask, Side::Gunicorn];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Side::Salver => "Salver, ONNX Runtime",
            Side::Embedded => "Salver, embedded",
            Side::Triton => "Triton 2.51",
            Side::Flask => "Flask + TensorFlow",
            Side::Gunicorn => "gunicorn, 2 workers",
        }
    }

    pub(crate) fn is_salver(self) -> bool {
        matches!(self, Side::Salver | Side::Embedded)
    }

    pub(crate) fn speaks(self, interface: Interface) -> bool {
        match self {
            Side::Salver | Side::Embedded => true,
            Side::Triton => interface != Interface::RestJson,
            Side::Flask | Side::Gunicorn => interface == Interface::RestJson,
        }
    }

    /// What is asked to see whether it is ready, and how many different answers say so.
    fn ready(self) -> (&'static str, usize) {
        match self {
            Side::Salver | Side::Embedded => ("/readyz", 1),
            Side::Triton => ("/v2/health/ready", 1),
            Side::Flask => ("/process", 1),
            Side::Gunicorn => ("/process", WORKERS),
        }
    }
}

/// What is needed to start any of the servers.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) common: &'a Common,
    pub(crate) settings: &'a Settings,
    pub(crate) triton: Option<Triton>,
    /// Folder for what the servers read and write.
    pub(crate) folder: PathBuf,
}

impl Stage<'_> {
    /// Lays the model where each server looks for it.
    pub(crate) fn install(&self, model: &Made) -> Result<()> {
        let at = self.models(model).join(model.name).join("1");
        place(&model.onnx, &at.join("model.onnx"))?;
        let old = SystemTime::now() - Duration::from_secs(3_600);
        for path in [at.join("model.onnx"), at] {
            // As if it had been there for an hour: a file that has just changed is not loaded at once.
            File::open(path)?.set_modified(old)?;
        }
        self.triton.as_ref().map_or(Ok(()), |triton| triton.install(model))
    }

    fn models(&self, model: &Made) -> PathBuf {
        self.folder.join("salver").join(model.name)
    }

    /// A running server that is ready.
    pub(crate) fn start(&self, side: Side, model: &Made) -> Result<Tree> {
        let (rest, grpc) = (free_address()?, free_address()?);
        let command = match side {
            Side::Salver => self.salver(model, "onnxruntime", rest.port(), grpc.port()),
            Side::Embedded => self.salver(model, "embedded", rest.port(), grpc.port()),
            Side::Triton => {
                let triton = self.triton.as_ref().context("Triton is not installed")?;
                triton.command(model, rest.port(), grpc.port())
            }
            Side::Flask => {
                let mut command = self.flask(&self.settings.places.python, model)?;
                command.arg("app.py").env("PORT", rest.port().to_string());
                command
            }
            Side::Gunicorn => {
                let mut command = self.flask(&self.settings.places.python, model)?;
                command.args(["-m", "gunicorn", "--log-level=warning", "--bind", &rest.to_string()]);
                command.args([format!("--workers={WORKERS}"), "app:app".to_owned()]);
                command
            }
        };
        let log = self.folder.join("log");
        let mut tree = Tree::start(command, rest, grpc, &log)?;
        let (path, n_answers) = side.ready();
        tree.wait_ready(path, n_answers).with_context(|| side.label())?;
        Ok(tree)
    }

    fn salver(&self, model: &Made, engine: &str, rest: u16, grpc: u16) -> Command {
        let mut command = Command::new(&self.common.salver);
        command.arg("serve").arg(self.models(model)).arg("--host=127.0.0.1");
        command.args([format!("--port={grpc}"), format!("--rest_api_port={rest}")]);
        command.args(["--engine", engine]);
        if let Some(runtimes) = &self.settings.places.runtimes {
            command.arg("--runtime_dir").arg(runtimes);
        }
        command.args(&self.settings.salver_arguments);
        command
    }

    fn flask(&self, python: &Path, model: &Made) -> Result<Command> {
        // The program runs in another folder.
        let python = std::path::absolute(python)?;
        let model = std::path::absolute(&model.saved_model)?;
        let mut command = Command::new(python);
        command.current_dir(FLASK).env("MODEL", model).env("TF_CPP_MIN_LOG_LEVEL", "2");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}

/// The same file at another path, without a second copy where the disk allows.
pub(crate) fn place(from: &Path, to: &Path) -> Result<()> {
    ensure!(from.exists(), "{} is missing", from.display());
    fs::create_dir_all(to.parent().context("a path inside a folder")?)?;
    if to.exists() {
        fs::remove_file(to)?;
    }
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
