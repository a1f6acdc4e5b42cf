//! Triton from the wheel of pytriton: its binary, its folders, and what it takes from the environment.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::side::place;
use crate::engines::Made;

const PROGRAMS: &str = "tests/peers/triton";
/// What the interpreter says of itself.
const QUESTION: &str = "import json, sys, sysconfig; print(json.dumps({'packages': sysconfig.get_path('purelib'), \
                        'lib': sysconfig.get_config_var('LIBDIR'), 'scripts': sysconfig.get_path('scripts'), \
                        'version': '%d.%d' % sys.version_info[:2]}))";

/// An installed Triton with folders of its own.
#[derive(Debug)]
pub(crate) struct Triton {
    binary: PathBuf,
    /// The Python backend with the stub for this Python beside it.
    backends: PathBuf,
    models: PathBuf,
    /// Where the wheel's libraries and Python's own are.
    libraries: OsString,
    /// With the environment's interpreter first.
    path: OsString,
    /// What its shared memory is called, so that what a killed server leaves can be found.
    memory: String,
}

impl Triton {
    /// Lays the backend out in `folder`. `python` is the interpreter of an environment with the wheel; `path` is the
    /// `PATH` of this process.
    pub(crate) fn find(python: &Path, path: &OsString, folder: &Path) -> Result<Triton> {
        let about = ask(python)?;
        let text = |key: &str| about[key].as_str().with_context(|| format!("{key} of {about}"));
        let packages = PathBuf::from(text("packages")?);
        let wheel = packages.join("pytriton/tritonserver");
        let binary = wheel.join("bin/tritonserver");
        ensure!(binary.exists(), "{} is missing", binary.display());
        let stub = wheel.join("python_backend_stubs").join(text("version")?).join(STUB);
        ensure!(stub.exists(), "this Triton has no Python backend for Python {}", text("version")?);
        let folder = std::path::absolute(folder)?.join("triton");
        let backends = folder.join("backends");
        for name in ["libtriton_python.so", "triton_python_backend_utils.py"] {
            place(&wheel.join("backends/python").join(name), &backends.join("python").join(name))?;
        }
        place(&stub, &backends.join("python").join(STUB))?;
        let libraries =
            std::env::join_paths([&packages.join("nvidia_pytriton.libs"), Path::new(text("lib")?)])?;
        let before = PathBuf::from(text("scripts")?);
        let path = std::env::join_paths([before].into_iter().chain(std::env::split_paths(path)))?;
        let memory = format!("salver-bench-{}", std::process::id());
        Ok(Triton { binary, backends, models: folder.join("models"), libraries, path, memory })
    }

    /// Lays the model out: its settings, the program and the ONNX file.
    pub(crate) fn install(&self, model: &Made) -> Result<()> {
        let at = self.models.join(model.name).join(model.name);
        place(&Path::new(PROGRAMS).join(model.name).join("config.pbtxt"), &at.join("config.pbtxt"))?;
        place(&Path::new(PROGRAMS).join("model.py"), &at.join("1/model.py"))?;
        place(&model.onnx, &at.join("1/model.onnx"))
    }

    pub(crate) fn command(&self, model: &Made, rest: u16, grpc: u16) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--model-repository").arg(self.models.join(model.name));
        command.arg("--backend-directory").arg(&self.backends);
        command.arg(format!("--backend-config=python,shm-region-prefix-name={}", self.memory));
        command.args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false"]);
        command.args([format!("--http-port={rest}"), format!("--grpc-port={grpc}")]);
        command.args(["--exit-timeout-secs=2", "--log-info=false"]);
        command.env("LD_LIBRARY_PATH", &self.libraries).env("PATH", &self.path);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

impl Drop for Triton {
    /// Removes the shared memory that killed servers have left.
    fn drop(&mut self) {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.memory) {
                let _left = fs::remove_file(entry.path());
            }
        }
    }
}

const STUB: &str = "triton_python_backend_stub";

fn ask(python: &Path) -> Result<Value> {
    let output = Command::new(python).args(["-c", QUESTION]).output();
    let output = output.with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        python.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("what the interpreter says of itself")
}
