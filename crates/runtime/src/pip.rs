//! Getting a wheel with the user's own pip, so that its mirrors, proxies and certificates hold.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::{Error, ErrorKind, Kind, Platform, Progress, Version};

/// Programs that may have pip, in the order in which they are tried.
const PROGRAMS: [&[&str]; 5] =
    [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"], &["uvx", "pip"]];

/// Versions of Python for which all three libraries have wheels; asked for when the user's own has none.
const PYTHONS: [&str; 2] = ["3.12", "3.11"];

/// How often the files that pip writes are measured.
const TICK: Duration = Duration::from_millis(200);

/// What is kept of pip's output.
const MAX_OUTPUT: usize = 1 << 16;

/// The pip to use.
#[derive(Debug, Clone, Default)]
pub struct Pip {
    /// The Python whose pip it is; without one it is looked for.
    pub python: Option<PathBuf>,
}

/// What came of one run.
enum Ran {
    Got,
    /// There is no wheel for this Python, or none of this version; with pip's text.
    NoMatch(String),
    Failed(String),
}

impl Pip {
    /// Downloads the wheel of a library into a folder, which must be empty and on the disk that has room. Returns the wheel's
    /// path and the command that got it.
    pub(crate) fn fetch(
        &self,
        kind: Kind,
        version: &Version,
        folder: &Path,
        platform: &Platform,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(PathBuf, String), Error> {
        let program = self.program(kind)?;
        let said = program.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut first = None;
        let pythons = std::iter::once(None).chain(PYTHONS.map(Some));
        for python in pythons {
            for package in kind.packages_on(&platform.arch) {
                let wanted = format!("{package}=={version}");
                let asked = python.map(|python| format!("{wanted} (wheels of Python {python})"));
                let package = asked.unwrap_or_else(|| wanted.clone());
                progress(Progress::Fetching { command: said.clone(), package });
                let arguments = arguments(&wanted, python, platform);
                match run(&program, &arguments, folder, progress)? {
                    Ran::Got => return Ok((only_wheel(folder)?, said)),
                    Ran::NoMatch(text) => first = first.or(Some((wanted, text))),
                    Ran::Failed(text) => return Err(failed(&said, &wanted, &text)),
                }
            }
        }
        let (wanted, text) = first.unwrap_or_default();
        Err(failed(&said, &wanted, &text))
    }

    /// The program with its first arguments.
    fn program(&self, kind: Kind) -> Result<Vec<OsString>, Error> {
        let runs = |words: &[OsString]| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg("--version").stdin(Stdio::null());
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let offline = format!(
            "; or download a wheel of {} on another machine and give it with --from",
            kind.packages()[0]
        );
        if let Some(python) = &self.python {
            let words = vec![python.clone().into_os_string(), "-m".into(), "pip".into()];
            let missing = || format!("'{} -m pip' does not run{offline}", python.display());
            return if runs(&words) { Ok(words) } else { Err(Error::new(ErrorKind::Fetch, missing())) };
        }
        let all = PROGRAMS.iter().map(|words| words.iter().map(OsString::from).collect::<Vec<_>>());
        all.into_iter().find(|words| runs(words)).ok_or_else(|| {
            let tried = PROGRAMS.map(|words| words.join(" ")).join(", ");
            let text =
                format!("no pip here (tried {tried}): install Python with pip, or name it with --python");
            Error::new(ErrorKind::Fetch, text + &offline)
        })
    }
}

fn failed(command: &str, wanted: &str, text: &str) -> Error {
    let told: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = told[told.len().saturating_sub(8)..].join("\n  ");
    let hint = match text.contains("(from versions: none)") {
        true => {
            "\n  pip sees no version of it at all: its index may not be reachable from here. A wheel from another \
                 machine can be given with --from"
        }
        false => "",
    };
    Error::new(ErrorKind::Fetch, format!("{command} could not download {wanted}:\n  {tail}{hint}"))
}

fn arguments(wanted: &str, python: Option<&str>, platform: &Platform) -> Vec<String> {
    let fixed = ["download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"];
    let mut all: Vec<String> = fixed.map(str::to_owned).to_vec();
    if let Some(python) = python {
        all.extend(["--implementation=cp".to_owned(), format!("--python-version={python}")]);
        all.extend(platform.wheel_platforms().iter().map(|name| format!("--platform={name}")));
    }
    all.push(wanted.to_owned());
    all
}

/// Runs pip to its end. It unpacks downloads in a folder for temporary files, whose growth is the progress.
fn run(
    program: &[OsString],
    arguments: &[String],
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ran, Error> {
    let (to, temporary) = (folder.join("wheel"), folder.join("tmp"));
    for path in [&to, &temporary] {
        std::fs::create_dir_all(path).map_err(|error| Error::io("create", path, &error))?;
    }
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(arguments).arg("--dest").arg(&to).stdin(Stdio::null());
    command.env("TMPDIR", &temporary).env("PYTHONUNBUFFERED", "1").env("PIP_NO_INPUT", "1");
    // Nothing is installed in any environment.
    command.env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = program[0].to_string_lossy();
    let start =
        |error: std::io::Error| Error::new(ErrorKind::Fetch, format!("{name} does not start: {error}"));
    let mut child = command.spawn().map_err(start)?;
    let (out, err) = watch(&mut child, folder, progress);
    let status = child.wait().map_err(start)?;
    // Where the index does not answer, another Python has no better luck.
    let is_offline = [&out, &err].iter().any(|text| text.contains("Retrying (Retry("));
    let text = if err.trim().is_empty() { out } else { err };
    Ok(match status.success() {
        true => Ran::Got,
        false if text.contains("No matching distribution") && !is_offline => Ran::NoMatch(text),
        false => Ran::Failed(format!("{text}\n(ended with {status})")),
    })
}

/// Reads what a program writes until it closes both streams, and reports the growth of the folder meanwhile.
fn watch(child: &mut Child, folder: &Path, progress: &mut dyn FnMut(Progress)) -> (String, String) {
    let (to, chunks) = sync_channel(64);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let second = to.clone();
        scope.spawn(move || stdout.map(|from| forward(from, &to, false)));
        scope.spawn(move || stderr.map(|from| forward(from, &second, true)));
        collect(&chunks, folder, progress)
    })
}

fn forward(mut from: impl Read, to: &SyncSender<(bool, Vec<u8>)>, is_error: bool) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.send((is_error, buffer[..n].to_vec())).is_err() {
            return;
        }
    }
}

fn collect(
    chunks: &Receiver<(bool, Vec<u8>)>,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match chunks.recv_timeout(TICK) {
            Ok((is_error, chunk)) => {
                let text = if is_error { &mut err } else { &mut out };
                text.extend_from_slice(&chunk);
                let excess = text.len().saturating_sub(MAX_OUTPUT);
                text.drain(..excess);
            }
            Err(RecvTimeoutError::Timeout) => {
                let total = announced(&String::from_utf8_lossy(&out));
                progress(Progress::Downloaded { done: n_bytes(folder, 4), total });
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err))
}

/// The size that pip says the wheel has: a line such as `Downloading x-1.0-py3-none-any.whl (27.8 MB)`.
fn announced(output: &str) -> Option<u64> {
    let size = |line: &str| {
        let line = line.trim();
        let is_wheel = line.starts_with("Downloading ") || line.starts_with("Using cached ");
        let (name, size) = line.rsplit_once('(').filter(|_| is_wheel)?;
        if !name.trim_end().ends_with(".whl") {
            return None;
        }
        let (number, unit) = size.trim_end_matches(')').split_once(' ')?;
        let unit = match unit {
            "bytes" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        Some(Duration::try_from_secs_f64(number * unit).ok()?.as_secs())
    };
    output.lines().rev().find_map(size)
}

/// Bytes of the files in a folder and so many levels below it.
pub(crate) fn n_bytes(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => depth.checked_sub(1).map_or(0, |depth| n_bytes(&entry.path(), depth)),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

fn only_wheel(folder: &Path) -> Result<PathBuf, Error> {
    let folder = folder.join("wheel");
    let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("read", &folder, &error))?;
    let wheels: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "whl"))
        .collect();
    match wheels.as_slice() {
        [wheel] => Ok(wheel.clone()),
        other => Err(Error::new(ErrorKind::Fetch, format!("pip left {} wheels, expected one", other.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_what_pip_says() {
        for (line, expected) in [
            (
                "  Downloading onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl (27.8 MB)",
                Some(27_800_000),
            ),
            ("  Using cached x-1-py3-none-any.whl (5.1 kB)", Some(5_100)),
            ("  Downloading x-1-py3-none-any.whl (12 bytes)", Some(12)),
            ("  Downloading x-1-py3-none-any.whl.metadata (5.1 kB)", None),
            ("  Downloading x-1-py3-none-any.whl (-5 MB)", None),
            ("  Downloading x-1-py3-none-any.whl (NaN MB)", None),
            ("Collecting x (27.8 MB)", None),
            ("", None),
        ] {
            assert_eq!(announced(line), expected, "{line}");
        }
    }
}
