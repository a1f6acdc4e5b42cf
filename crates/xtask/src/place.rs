//! Where the workspace lies, what the environment says, and how a program is run there.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::counts::{Counts, Runner};

/// The workspace and what the environment sets for it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// Where tools are kept between clones.
    pub(crate) cache: PathBuf,
    /// Whether a missing part (Python, test data) is a failure and not a skipped step.
    pub(crate) ci: bool,
    /// Models that are not part of the repository; tests that need them are skipped without.
    pub(crate) testdata: Option<PathBuf>,
    /// Where native libraries are installed for the tests.
    pub(crate) runtimes: PathBuf,
    /// Where Kafka's jars lie, and the clusters that run.
    pub(crate) kafka: PathBuf,
    /// The Java to take; that of the search path if there is none.
    pub(crate) java_home: Option<PathBuf>,
}

impl Place {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the workspace root lies two folders above crates/xtask")?
            .to_path_buf();
        let cache = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, Some(home)) => Path::new(&home).join(".cache"),
            (None, None) => root.join("target"),
        };
        Ok(Self {
            target: variable("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir)),
            cache: cache.join("salver-tools"),
            ci: variable("CI").is_some_and(|ci| ci != "false" && ci != "0"),
            testdata: variable("SALVER_TESTDATA").map(PathBuf::from),
            runtimes: variable("SALVER_RUNTIMES")
                .map_or_else(|| root.join(".runtimes"), |dir| root.join(dir)),
            kafka: root.join(".kafka"),
            java_home: variable("JAVA_HOME").map(PathBuf::from),
            root,
        })
    }

    /// A program to run in the workspace root.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Program {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        Program(command)
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Program {
        self.command("cargo").args(arguments)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment is read here and nowhere else in this program"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A program with its arguments, not started yet.
#[derive(Debug)]
pub(crate) struct Program(Command);

impl Program {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// What it prints goes to standard error.
    pub(crate) fn stdout_to_stderr(mut self) -> Self {
        self.0.stdout(std::io::stderr());
        self
    }

    /// Runs to the end with the output shown. An exit status other than 0 is an error.
    pub(crate) fn check(mut self) -> Result<Counts> {
        let status = self.0.status().with_context(|| format!("{} does not start", self.name()))?;
        if !status.success() {
            bail!("{} ended with {status}", self.name());
        }
        Ok(Counts::default())
    }

    /// Runs a test runner with the output shown, and reads its summary. Failed tests are counted and are not an
    /// error here; a runner that fails without one failed test is.
    pub(crate) fn count(mut self, runner: Runner) -> Result<Counts> {
        self.0.stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = self.name();
        let mut child = self.0.spawn().with_context(|| format!("{name} does not start"))?;
        let counts = Mutex::new(Counts::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(|| stdout.map(|from| show(from, runner, &counts)));
            scope.spawn(|| stderr.map(|from| show(from, runner, &counts)));
        });
        let status = child.wait()?;
        let counts = counts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !status.success() && counts.failed == 0 {
            bail!("{name} ended with {status}");
        }
        Ok(counts)
    }

    /// The standard output of a program that answers at once, or `None` where it is missing or fails.
    pub(crate) fn answer(mut self) -> Option<String> {
        let output = self.0.stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn name(&self) -> String {
        let program = Path::new(self.0.get_program()).file_name().unwrap_or_default().to_string_lossy();
        let first = self.0.get_args().next().unwrap_or_default().to_string_lossy();
        format!("{program} {first}")
    }
}

/// Passes lines on as they come and adds up what the summaries among them say.
fn show(from: impl Read, runner: Runner, counts: &Mutex<Counts>) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        if let Some(found) = runner.read(&text) {
            counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(found);
        }
        line.clear();
    }
}
