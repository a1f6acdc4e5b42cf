//! How each version of each model is loaded and run: what flags, files and folders say of it, put together.
//!
//! What stands first counts: a flag, the model's part of `--config`, the version's own `salver.toml`, that of its model's
//! folder, the part of `--config` for all models, Salver's defaults.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::bail;
use salver_batch::Policy;
use salver_engine::{Choice, LoadOptions, Registry};
use salver_runtime::{Cpu, Machine};
use salver_servable::{KnownCosts, ModelSettings};

use crate::batching::{self, Joining, Parameters};
use crate::config::{self, Compat, Config, Files};
use crate::settings::{self, Settings};

/// Seconds of a run that files may name.
const LONGEST_RUN: f64 = 3600.0;

/// The engines of this process, and the same in processes of their own.
#[derive(Debug, Clone)]
pub(crate) struct Engines {
    pub(crate) here: Registry,
    pub(crate) apart: Registry,
}

/// What is said of all models.
#[derive(Debug)]
pub(crate) struct Loading {
    engines: Engines,
    flags: Settings,
    options: LoadOptions,
    lanes: salver_batch::Config,
    compat: Compat,
    sources: config::Sources,
    /// What files that are named by flags say, as far as they are right.
    files: RwLock<Arc<Files>>,
    /// What was settled when versions were loaded, by model and place.
    settled: Mutex<HashMap<(String, PathBuf), Settled>>,
    machine: ThisMachine,
}

/// The machine that costs are known for.
#[derive(Debug)]
struct ThisMachine {
    processor: String,
    n_processors: usize,
}

/// What a version keeps until it is loaded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    facts: Vec<(&'static str, String)>,
    /// The files that said so, as far as there were any.
    files: Vec<PathBuf>,
}

impl Settled {
    fn of(settings: &Settings, lanes: &salver_batch::Config) -> Settled {
        let text = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.to_owned());
        let ranges = settings.ranges.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
        Settled {
            facts: vec![
                ("engine", text(&settings.engine, "auto")),
                ("precision", text(&settings.precision, "f32")),
                ("ranges", ranges),
                ("isolate", settings.isolate.unwrap_or(false).to_string()),
                ("threads", lanes.threads.to_string()),
                ("lanes", lanes.n_lanes.to_string()),
                ("pin", lanes.pinned.to_string()),
            ],
            files: Vec::new(),
        }
    }

    /// What is another now, each as `key old -> new`.
    pub(crate) fn changes(&self, now: &Settled) -> Vec<String> {
        let pairs = self.facts.iter().zip(&now.facts);
        let changed = pairs.filter(|(before, after)| before != after);
        changed.map(|((key, before), (_, after))| format!("{key} {before} -> {after}")).collect()
    }
}

impl Loading {
    pub(crate) fn new(config: &Config, engines: Engines) -> Loading {
        Loading {
            engines,
            flags: config.flags.clone(),
            options: config.load.clone(),
            lanes: config.lanes.clone(),
            compat: config.compat,
            sources: config.sources.clone(),
            files: RwLock::new(Arc::new(config.files.clone())),
            settled: Mutex::default(),
            machine: ThisMachine { processor: Cpu::here().model, n_processors: Machine::here().n_usable },
        }
    }

    /// How the model of this name in this version folder or file is loaded and run. Reads the folder's settings.
    ///
    /// # Errors
    /// When a file cannot be read or says what there is not; the text names the file.
    pub(crate) fn of(&self, name: &str, version: &Path) -> anyhow::Result<ModelSettings> {
        let settings = self.settings(name, version)?;
        let lanes = self.lanes(version, &settings)?;
        let files = existing(self.files_of(version));
        let settled = Settled { files, ..Settled::of(&settings, &lanes) };
        self.settled().insert((name.to_owned(), version.to_path_buf()), settled);
        let mut options = self.options.clone();
        if let Some(precision) = &settings.precision {
            options.precision = precision.parse()?;
        }
        options.ranges.clone_from(&settings.ranges);
        let engines =
            if settings.isolate.unwrap_or(false) { &self.engines.apart } else { &self.engines.here };
        Ok(ModelSettings {
            registry: engines.clone(),
            choice: Choice::from_name(settings.engine.as_deref().unwrap_or_default()),
            options,
            lanes,
            costs: self.machine.costs(&settings),
        })
    }

    /// Reads the files that flags name once more; they count from now on, for versions that are loaded, too.
    ///
    /// # Errors
    /// When one cannot be read or is wrong; what was known stays.
    pub(crate) fn read_files(&self) -> anyhow::Result<()> {
        let files = Arc::new(self.sources.read()?);
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files;
        Ok(())
    }

    /// The files that flags name.
    pub(crate) fn common_files(&self) -> Vec<PathBuf> {
        self.sources.paths()
    }

    /// Where files would lie that say something of this version.
    pub(crate) fn files_of(&self, version: &Path) -> Vec<PathBuf> {
        let mut files = settings::places_of_version(version);
        if self.compat == Compat::PerModel {
            files.push(config::per_model_file(version));
        }
        files
    }

    /// The policy that files ask for now, for a version that is loaded; and what else they ask for that it cannot have before it is
    /// loaded again, each as `key old -> new`.
    ///
    /// # Errors
    /// When the version or a file that said something of it is not there any more: that asks for nothing. Else as [`Loading::of`].
    pub(crate) fn policy(&self, name: &str, version: &Path) -> anyhow::Result<(Policy, Vec<String>)> {
        let id = (name.to_owned(), version.to_path_buf());
        let settled = self.settled().get(&id).cloned();
        let files = settled.iter().flat_map(|settled| settled.files.iter().map(PathBuf::as_path));
        if let Some(gone) = files.chain([version]).find(|path| !path.exists()) {
            bail!("{} is not there any more", gone.display());
        }
        let settings = self.settings(name, version)?;
        let lanes = self.lanes(version, &settings)?;
        let now = Settled::of(&settings, &lanes);
        if let Some(settled) = self.settled().get_mut(&id) {
            settled.files = existing(self.files_of(version));
        }
        Ok((lanes.policy, settled.map(|settled| settled.changes(&now)).unwrap_or_default()))
    }

    /// Forgets versions that are not loaded any more.
    pub(crate) fn keep(&self, is_loaded: impl Fn(&str, &Path) -> bool) {
        self.settled().retain(|(name, place), _| is_loaded(name, place));
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashMap<(String, PathBuf), Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn settings(&self, name: &str, version: &Path) -> anyhow::Result<Settings> {
        let files = self.files();
        let own = files.config.models.get(name).cloned().unwrap_or_default();
        Ok(self.flags.clone().or(own).or(settings::of_version(version)?).or(files.config.all.clone()))
    }

    fn lanes(&self, version: &Path, settings: &Settings) -> anyhow::Result<salver_batch::Config> {
        let files = self.files();
        let of_model = match self.compat {
            Compat::PerModel => config::per_model_parameters(version)?,
            _ => None,
        };
        let common = files.parameters.clone().unwrap_or_default();
        let joining = match (self.compat, &of_model) {
            (Compat::Off, _) => Joining::Own,
            (Compat::All, _) => Joining::Parameters(&common),
            (Compat::PerModel, Some(parameters)) => Joining::Parameters(parameters),
            (Compat::PerModel, None) => Joining::Unbatched,
        };
        let mut lanes = config::with_settings(self.lanes.clone(), settings, threads_of_all(&common));
        lanes.policy = batching::policy(&lanes.policy, joining, settings.max_batch_size, &settings.batching)?;
        lanes.check()?;
        Ok(lanes)
    }
}

fn existing(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.retain(|path| path.exists());
    files
}

/// Threads are set for all models, by the file that is named by a flag.
fn threads_of_all(common: &Parameters) -> Option<NonZeroUsize> {
    common.n_lanes
}

impl ThisMachine {
    /// What `salver tune` measured, if that was on such a machine.
    fn costs(&self, settings: &Settings) -> Option<KnownCosts> {
        let tuned = &settings.tuned;
        let is_here = tuned.get("processor").and_then(toml::Value::as_str) == Some(&self.processor)
            && tuned.get("processors").and_then(toml::Value::as_integer)
                == i64::try_from(self.n_processors).ok();
        let signature = tuned.get("signature").and_then(toml::Value::as_str)?.to_owned();
        let table = tuned.get("seconds_by_rows").and_then(toml::Value::as_table).filter(|_| is_here)?;
        let run = |(rows, seconds): (&String, &toml::Value)| {
            let rows = rows.parse().ok().filter(|rows| (1..=settings::MAX_BATCH).contains(rows))?;
            // What people may have written: sums of a few such times must be times, too.
            let seconds = seconds.as_float().filter(|&seconds| seconds > 0.0 && seconds <= LONGEST_RUN)?;
            Some((rows, Duration::try_from_secs_f64(seconds).ok()?))
        };
        let mut runs = table.iter().filter_map(run).collect::<Vec<_>>();
        runs.sort_unstable();
        (!runs.is_empty()).then_some(KnownCosts { signature, runs })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use clap::Parser;
    use salver_engine::Precision;

    use super::*;
    use crate::config::Environment;
    use crate::flags::{Cli, Command};

    fn loading(args: &[&str]) -> Loading {
        let command = Cli::parse_from(["salver", "serve", "a"].iter().chain(args)).command;
        let Command::Serve(args) = command else { panic!("the command is serve") };
        let config = config::resolve(&args, &Environment::default()).unwrap();
        let engines = Engines { here: Registry::default(), apart: Registry::default() };
        Loading::new(&config, engines)
    }

    #[test]
    fn the_nearest_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.toml");
        std::fs::write(&file, "engine = 'tensorflow'\nthreads = 2\n[models.b]\nengine = 'embedded'").unwrap();
        let version = dir.path().join("3");
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("salver.toml"), "engine = 'openvino'\nprecision = 'bf16'").unwrap();
        let config = format!("--config={}", file.display());
        let check = |args: &[&str], name: &str, version: &Path, engine: &str, precision: Precision| {
            let settings = loading(args).of(name, version).unwrap();
            let got = (settings.choice.to_string(), settings.options.precision);
            assert_eq!(got, (engine.to_owned(), precision), "{args:?} {name}");
        };
        let elsewhere = Path::new("/no/such/4");
        let (f32, bf16) = (Precision::F32, Precision::Bf16);
        check(&[], "a", elsewhere, "auto", f32);
        check(&[], "a", &version, "openvino", bf16);
        check(&[&config], "a", elsewhere, "tensorflow", f32);
        check(&[&config], "a", &version, "openvino", bf16);
        check(&[&config], "b", &version, "embedded", bf16);
        check(&[&config, "--engine=onnxruntime", "--precision=f32"], "b", &version, "onnxruntime", f32);
    }

    #[test]
    fn threads_and_lanes_share_the_processors() {
        let dir = tempfile::tempdir().unwrap();
        let check = |args: &[&str], settings: &str, expected: (usize, usize), batch: Option<usize>| {
            std::fs::write(dir.path().join("salver.toml"), settings).unwrap();
            let lanes =
                loading(&[&["--compute_threads=8"], args].concat()).of("a", dir.path()).unwrap().lanes;
            assert_eq!((lanes.threads.get(), lanes.n_lanes.get()), expected, "{args:?} {settings}");
            assert_eq!(lanes.cores.unwrap().n(), 8);
            let size = lanes.policy.batching.map(|batching| batching.max_batch_size);
            assert_eq!(size, batch.and_then(NonZeroUsize::new));
        };
        check(&[], "", (1, 8), Some(128));
        check(&[], "threads = 4", (4, 2), Some(128));
        check(&["--max_batch_size=16"], "threads = 16\nmax_batch_size = 8", (16, 1), Some(16));
        check(&["--batching=off"], "max_batch_size = 8", (1, 8), None);
        check(&[], "threads = 2\nlanes = 1\nmax_batch_size = 8", (2, 1), Some(8));
        check(&["--lanes=3"], "threads = 2\nlanes = 1\nmax_batch_size = 1", (2, 3), None);
        check(
            &["--tensorflow_intra_op_parallelism=2", "--enable_batching"],
            "max_batch_size = 8",
            (2, 4),
            Some(1000),
        );
    }

    #[test]
    fn files_of_tensorflow_serving_are_the_compatibility_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("batching.txt");
        std::fs::write(&file, "max_batch_size { value: 6 } num_batch_threads { value: 3 }").unwrap();
        let file = format!("--batching_parameters_file={}", file.display());
        let check = |args: &[&str], expected: (usize, Option<(usize, bool)>)| {
            let lanes =
                loading(&[&["--compute_threads=8"], args].concat()).of("a", dir.path()).unwrap().lanes;
            let batching =
                lanes.policy.batching.map(|batching| (batching.max_batch_size.get(), batching.by_cost));
            assert_eq!((lanes.n_lanes.get(), batching), expected, "{args:?}");
        };
        check(&[], (8, Some((128, true))));
        check(&["--enable_batching", &file], (3, Some((6, false))));
        let per_model = ["--enable_batching", "--enable_per_model_batching_parameters", &file];
        check(&per_model, (3, None));
        std::fs::write(dir.path().join("batching_params.pbtxt"), "max_batch_size { value: 4 }").unwrap();
        check(&per_model, (3, Some((4, false))));
    }

    #[test]
    fn policies_follow_their_files_and_the_rest_waits() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("all.toml");
        std::fs::write(&config, "max_batch_size = 64").unwrap();
        let loading = loading(&[&format!("--config={}", config.display())]);
        let now = || loading.policy("a", dir.path());
        let before = loading.of("a", dir.path()).unwrap().lanes.policy;
        assert_eq!(now().unwrap(), (before.clone(), Vec::new()));

        std::fs::write(&config, "max_batch_size = 32").unwrap();
        loading.read_files().unwrap();
        let own = "engine = 'openvino'\n[batching]\ntimeout_ms = 5";
        std::fs::write(dir.path().join("salver.toml"), own).unwrap();
        let (after, waiting) = now().unwrap();
        assert_eq!(batching::changes(&before, &after), ["max_batch_size 64 -> 32", "timeout none -> 5ms"]);
        assert_eq!(waiting, ["engine auto -> openvino"]);

        // What is wrong changes nothing.
        std::fs::write(&config, "max_batch_size = 'many'").unwrap();
        assert!(loading.read_files().is_err());
        assert_eq!(now().unwrap().0, after);
    }

    #[test]
    fn what_is_gone_asks_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("3");
        std::fs::create_dir(&version).unwrap();
        let (around, own) = (dir.path().join("salver.toml"), version.join("salver.toml"));
        std::fs::write(&around, "max_batch_size = 8").unwrap();
        let loading = loading(&[]);
        let now = || loading.policy("a", &version).map(|(policy, _)| policy);
        let before = loading.of("a", &version).unwrap().lanes.policy;
        assert_eq!(loading.files_of(&version), [own.clone(), around.clone()]);
        let check_gone = |path: &Path| {
            let error = now().unwrap_err().to_string();
            assert_eq!(error, format!("{} is not there any more", path.display()));
        };
        // As it was loaded with.
        std::fs::remove_file(&around).unwrap();
        check_gone(&around);
        std::fs::write(&around, "max_batch_size = 8").unwrap();
        assert_eq!(now().unwrap(), before);
        // As it has come since.
        std::fs::write(&own, "max_batch_size = 4").unwrap();
        assert_eq!(batching::changes(&before, &now().unwrap()), ["max_batch_size 8 -> 4"]);
        std::fs::remove_file(&own).unwrap();
        check_gone(&own);
        // An empty file is one that says nothing.
        std::fs::write(&own, "").unwrap();
        assert_eq!(now().unwrap(), before);
        std::fs::remove_dir_all(&version).unwrap();
        assert!(now().is_err());
        // It had none of its own.
        loading.of("b", &version).unwrap();
        assert!(loading.policy("b", &version).unwrap_err().to_string().ends_with("3 is not there any more"));
    }

    #[test]
    fn costs_are_those_of_this_machine() {
        let machine = ThisMachine { processor: "P".to_owned(), n_processors: 2 };
        let check = |text: &str, expected: Option<&[(usize, u64)]>| {
            let settings: Settings = toml::from_str(text).unwrap();
            let costs = machine.costs(&settings).map(|costs| costs.runs);
            let expected = expected.map(|runs| {
                runs.iter().map(|&(rows, millis)| (rows, Duration::from_millis(millis))).collect::<Vec<_>>()
            });
            assert_eq!(costs, expected, "{text}");
        };
        let tuned = "[tuned]\nprocessor = 'P'\nprocessors = 2\nsignature = 's'\n";
        check(&format!("{tuned}[tuned.seconds_by_rows]\n8 = 0.016\n1 = 0.004"), Some(&[(1, 4), (8, 16)]));
        check(&format!("{tuned}[tuned.seconds_by_rows]\nmany = 0.016\n1 = -1.0"), None);
        let absurd =
            "1 = 1e300\n2 = inf\n3 = nan\n4 = 0.0\n5 = 3601.0\n6 = '1'\n0 = 0.5\n18446744073709551615 = 0.5";
        check(&format!("{tuned}[tuned.seconds_by_rows]\n{absurd}"), None);
        check(&format!("{tuned}[tuned.seconds_by_rows]\n{absurd}\n8 = 3600.0"), Some(&[(8, 3_600_000)]));
        check(tuned, None);
        let other = tuned.replace("= 2", "= 3");
        check(&format!("{other}[tuned.seconds_by_rows]\n8 = 0.016"), None);
    }

    #[test]
    fn mistakes_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("salver.toml"), "precision = 'f8'").unwrap();
        let error = format!("{:#}", loading(&[]).of("a", dir.path()).unwrap_err());
        let expected = "salver.toml: precision = 'f8', expected f32, bf16, int8";
        assert!(error.ends_with(expected), "{error}");
    }
}
