//! How a model is loaded and run, as files say it: `salver.toml` in a version folder or a model's folder, `NAME.salver.toml`
//! beside a model file, and the file of `--config`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use salver_batch::MAX_THREADS;
use salver_engine::Precision;
use serde::{Deserialize, Serialize};

use crate::batching::BatchingSettings;

/// The name of a folder's settings.
pub(crate) const FILE: &str = "salver.toml";

/// Behind the name of a model file: its settings.
const SUFFIX: &str = ".salver.toml";

/// What may be said of engines.
const ENGINES: [&str; 5] = ["auto", "embedded", "onnxruntime", "openvino", "tensorflow"];

/// Rows of a batch that may be asked for.
pub(crate) const MAX_BATCH: usize = 1 << 20;

/// The largest file of settings that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What may be said of a model. What is left out is said elsewhere or left to Salver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// `auto`, `embedded`, `onnxruntime`, `openvino` or `tensorflow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<String>,
    /// `f32`, `bf16` or `int8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) precision: Option<String>,
    /// The ranges that `int8` needs, beside this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ranges: Option<PathBuf>,
    /// Threads that one run may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Runs at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lanes: Option<NonZeroUsize>,
    /// Keep lanes on processors of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<bool>,
    /// Run the engine in a process of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolate: Option<bool>,
    /// Rows of requests that are joined at most; 1 joins none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_batch_size: Option<NonZeroUsize>,
    /// How requests are let in and joined.
    #[serde(skip_serializing_if = "BatchingSettings::is_empty", default)]
    pub(crate) batching: BatchingSettings,
    /// What `salver tune` measured, if it wrote the rest. Read by people, but for what runs cost on this machine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) tuned: BTreeMap<String, toml::Value>,
}

/// The file of `--config`: settings for all models, and for some.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ConfigFile {
    /// For all models.
    pub(crate) all: Settings,
    /// For these, by name.
    pub(crate) models: BTreeMap<String, Settings>,
}

impl Settings {
    /// What this says, and for what it leaves out, what `other` says.
    #[must_use]
    pub(crate) fn or(self, other: Settings) -> Settings {
        // Ranges belong to the precision that asks for them: what says another one has no use for these.
        let is_same = self.precision.is_none() || self.precision == other.precision;
        let ranges = self.ranges.or(other.ranges.filter(|_| is_same));
        // And so do figures to the engine that was measured: nothing is known of one that is asked for in its place.
        let is_other = self.engine.is_some() || self.precision.is_some() || self.threads.is_some();
        let tuned = if is_other || !self.tuned.is_empty() { self.tuned } else { other.tuned };
        Settings {
            engine: self.engine.or(other.engine),
            precision: self.precision.or(other.precision),
            ranges,
            threads: self.threads.or(other.threads),
            lanes: self.lanes.or(other.lanes),
            pin: self.pin.or(other.pin),
            isolate: self.isolate.or(other.isolate),
            max_batch_size: self.max_batch_size.or(other.max_batch_size),
            batching: self.batching.or(other.batching),
            tuned,
        }
    }

    /// Checks names and numbers.
    ///
    /// # Errors
    /// For an engine or a precision that there is not, and for more threads or lanes than make sense; the text names the key.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(engine) = &self.engine {
            let is_known = ENGINES.contains(&engine.as_str()) || engine == "rten";
            if !is_known {
                bail!("engine = '{engine}', expected {}", ENGINES.join(", "));
            }
        }
        if let Some(precision) = &self.precision
            && precision.parse::<Precision>().is_err()
        {
            bail!("precision = '{precision}', expected {}", Precision::ALL.map(Precision::name).join(", "));
        }
        self.batching.check()?;
        let numbers =
            [("threads", self.threads), ("lanes", self.lanes), ("max_batch_size", self.max_batch_size)];
        for (key, number) in numbers {
            let most = if key == "max_batch_size" { MAX_BATCH } else { MAX_THREADS };
            if let Some(number) = number.filter(|number| number.get() > most) {
                bail!("{key} = {number}, expected {most} at most");
            }
        }
        Ok(())
    }

    /// The same, checked, with the ranges as a path from where the process is; they must lie in the folder of the settings.
    fn in_folder(mut self, folder: &Path) -> anyhow::Result<Settings> {
        self.check()?;
        if let Some(ranges) = &self.ranges {
            let is_name = ranges.file_name().is_some_and(|name| Path::new(name) == ranges);
            if !is_name {
                bail!("ranges = '{}', expected the name of a file beside the settings", ranges.display());
            }
            self.ranges = Some(folder.join(ranges));
        }
        Ok(self)
    }
}

/// Where the settings of the model at this path lie: in its folder, or beside its file.
pub(crate) fn beside(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(FILE) } else { with_suffix(model, SUFFIX) }
}

/// Where the ranges of the model at this path lie.
pub(crate) fn ranges_beside(model: &Path) -> PathBuf {
    if model.is_dir() { model.join("salver-ranges.json") } else { with_suffix(model, ".salver-ranges.json") }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Whether a file in a folder of models is no model but says something of one.
pub(crate) fn is_settings(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [FILE, "salver-ranges.json"].contains(&name)
        || name.ends_with(SUFFIX)
        || name.ends_with(".salver-ranges.json")
}

/// The settings that lie with a version: its own, then those of the model's folder around it.
///
/// # Errors
/// When a file cannot be read or says what there is not; the text names the file and the line.
pub(crate) fn of_version(version: &Path) -> anyhow::Result<Settings> {
    let mut settings = Settings::default();
    for place in places_of_version(version) {
        settings = settings.or(read(&place)?.unwrap_or_default());
    }
    Ok(settings)
}

/// Where the settings that lie with a version are looked for, in the order in which they count.
pub(crate) fn places_of_version(version: &Path) -> Vec<PathBuf> {
    let is_version = version.is_dir() && crate::discover::version_number(version).is_some();
    let around = version.parent().filter(|_| is_version).map(|folder| folder.join(FILE));
    [beside(version)].into_iter().chain(around).collect()
}

/// Reads a file of settings, if there is one.
///
/// # Errors
/// As [`of_version`].
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Settings>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let context = || path.display().to_string();
    let settings: Settings =
        toml::from_str(&text).map_err(|error| plain(&text, &error)).with_context(context)?;
    settings.in_folder(path.parent().unwrap_or(Path::new(""))).map(Some).with_context(context)
}

/// Reads the file of `--config`.
///
/// # Errors
/// When it is not there, or as [`of_version`].
pub(crate) fn read_config(path: &Path) -> anyhow::Result<ConfigFile> {
    let context = || format!("--config={}", path.display());
    let text = read_text(path).with_context(context)?;
    let text = text.with_context(|| format!("{}: no such file", context()))?;
    parse_config(&text, path.parent().unwrap_or(Path::new(""))).with_context(context)
}

fn parse_config(text: &str, folder: &Path) -> anyhow::Result<ConfigFile> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        models: BTreeMap<String, Settings>,
        #[serde(flatten)]
        rest: BTreeMap<String, toml::Value>,
    }
    let File { models, rest } = toml::from_str(text).map_err(|error| plain(text, &error))?;
    let all: Settings = toml::Table::from_iter(rest).try_into().map_err(|error| plain("", &error))?;
    let placed = |(name, settings): (String, Settings)| {
        let settings = settings.in_folder(folder).with_context(|| format!("models.{name}"))?;
        Ok((name, settings))
    };
    let models = models.into_iter().map(placed).collect::<anyhow::Result<_>>()?;
    Ok(ConfigFile { all: all.in_folder(folder)?, models })
}

/// What the parser says, in one line with the place.
pub(crate) fn plain(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let what = error.message().replace("a nonzero usize", "a positive number").replace('\n', " ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => anyhow::anyhow!("line {}: {what}", before.matches('\n').count() + 1),
        None => anyhow::anyhow!("{what}"),
    }
}

fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    let context = || path.display().to_string();
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => bail!("{}: not a file", path.display()),
        Ok(meta) if meta.len() > MAX_BYTES => {
            bail!("{}: {} bytes, expected {MAX_BYTES} at most", path.display(), meta.len())
        }
        Ok(_) => std::fs::read_to_string(path).with_context(context).map(Some),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Writes settings, whole or not at all. `head` is the comment at the top.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, settings: &Settings, head: &str) -> anyhow::Result<()> {
    let mut text = String::new();
    for line in head.lines() {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&toml::to_string_pretty(settings)?);
    let context = || path.display().to_string();
    let new = with_suffix(path, ".new");
    std::fs::write(&new, text).with_context(|| new.display().to_string())?;
    std::fs::rename(&new, path).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &str) -> Settings {
        Settings { engine: Some(name.to_owned()), ..Settings::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = beside(dir.path());
        assert_eq!(read(&path).unwrap(), None);
        let settings = Settings {
            precision: Some("int8".into()),
            ranges: Some("salver-ranges.json".into()),
            lanes: NonZeroUsize::new(2),
            max_batch_size: NonZeroUsize::new(8),
            batching: BatchingSettings { timeout_ms: Some(2.5), ..BatchingSettings::default() },
            tuned: [("rows_per_second".to_owned(), toml::Value::Float(3.5))].into(),
            ..engine("openvino")
        };
        write(&path, &settings, "By a person.\nFor people.").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# By a person.\n# For people.\nengine = \"openvino\"\n"), "{text}");
        let expected = Settings { ranges: Some(ranges_beside(dir.path())), ..settings };
        assert_eq!(read(&path).unwrap(), Some(expected));
    }

    #[test]
    fn a_version_is_asked_before_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("7");
        std::fs::create_dir(&version).unwrap();
        std::fs::write(dir.path().join(FILE), "engine = 'openvino'\nthreads = 2").unwrap();
        let check = |path: &Path, engine: Option<&str>, threads: Option<usize>| {
            let settings = of_version(path).unwrap();
            assert_eq!(
                (settings.engine.as_deref(), settings.threads),
                (engine, threads.and_then(NonZeroUsize::new))
            );
        };
        check(&version, Some("openvino"), Some(2));
        std::fs::write(version.join(FILE), "engine = 'tensorflow'").unwrap();
        check(&version, Some("tensorflow"), Some(2));
        let file = dir.path().join("net.onnx");
        std::fs::write(&file, "").unwrap();
        check(&file, None, None);
        std::fs::write(dir.path().join("net.onnx.salver.toml"), "threads = 3").unwrap();
        check(&file, None, Some(3));
    }

    #[test]
    fn ranges_go_with_their_precision() {
        let ranges = |name: &str| Settings {
            precision: Some("int8".into()),
            ranges: Some(name.into()),
            ..Settings::default()
        };
        let plain = Settings { precision: Some("f32".into()), ..Settings::default() };
        assert_eq!(plain.or(ranges("a")).ranges, None);
        assert_eq!(engine("x").or(ranges("a")).ranges, Some("a".into()));
        assert_eq!(ranges("b").or(ranges("a")).ranges, Some("b".into()));
        let int8 = Settings { precision: Some("int8".into()), ..Settings::default() };
        assert_eq!(int8.or(ranges("a")).ranges, Some("a".into()));
    }

    #[test]
    fn figures_go_with_the_engine_that_was_measured() {
        let tuned = || Settings {
            tuned: [("processors".to_owned(), toml::Value::Integer(2))].into(),
            threads: NonZeroUsize::new(1),
            ..engine("openvino")
        };
        let check = |nearer: Settings, is_kept: bool| {
            assert_eq!(!nearer.or(tuned()).or(Settings::default()).tuned.is_empty(), is_kept);
        };
        check(Settings::default(), true);
        check(
            Settings {
                lanes: NonZeroUsize::new(3),
                max_batch_size: NonZeroUsize::new(4),
                ..Settings::default()
            },
            true,
        );
        check(engine("embedded"), false);
        check(Settings { precision: Some("bf16".into()), ..Settings::default() }, false);
        check(Settings { threads: NonZeroUsize::new(2), ..Settings::default() }, false);
    }

    #[test]
    fn the_config_file_knows_models_by_name() {
        let text = "engine = 'auto'\nlanes = 2\n[batching]\nmax_queue = 3\n[models.a]\nengine = 'openvino'\n\
                    [models.'b c']\npin = true\n[models.'b c'.batching]\ntimeout_ms = 5";
        let config = parse_config(text, Path::new("/etc")).unwrap();
        let batching = BatchingSettings { max_queue: NonZeroUsize::new(3), ..BatchingSettings::default() };
        assert_eq!(config.all, Settings { lanes: NonZeroUsize::new(2), batching, ..engine("auto") });
        assert_eq!(config.models["b c"].batching.timeout_ms, Some(5.0));
        assert_eq!(config.models["a"], engine("openvino"));
        assert_eq!(config.models["b c"].pin, Some(true));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", parse_config(text, Path::new("/etc")).unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        };
        check("engin = 'auto'", "unknown field `engin`");
        check("\nlanes = 0", "expected a positive number");
        check("lanes = -1", "expected a positive number");
        check("threads = 1000000", "threads = 1000000, expected 1024 at most");
        check(
            "engine = 'onnx'",
            "engine = 'onnx', expected auto, embedded, onnxruntime, openvino, tensorflow",
        );
        check("[models.a]\nlanes = 0", "line 2: ");
        check("[models.a]\nthread = 1", "unknown field `thread`");
        check("[models.a]\nranges = '../x'", "models.a: ranges = '../x', expected the name of a file");
        check("[batching]\nmode = 'fast'", "expected one of `natural`, `deferred`, `off`");
        check("[models.a.batching]\npadding = 'x'", "models.a: batching.padding = \"x\", expected");
        check("precision = 'f8'", "precision = 'f8', expected f32, bf16, int8");
        check("\nengine = ", "line 2: ");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "lanes = 'many'").unwrap();
        let error = format!("{:#}", of_version(dir.path()).unwrap_err());
        assert!(error.contains("salver.toml: line 1: "), "{error}");
    }
}
