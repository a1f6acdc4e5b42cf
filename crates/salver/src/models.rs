//! Which models are wanted, now and as folders and files change, and who watches their versions.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use salver_lifecycle::Version;
use salver_predict::{ModelConfig, VersionPolicy};
use salver_servable::{Servables, WatchedModel, Watcher};
use salver_store::{Limits, PollMode, Poller, SourceStatus, Watched, local_path};
use tracing::{error, info, warn};

use crate::config::{self, Models, model_config};
use crate::discover;

/// The models that are wanted at this moment. A path that holds none is reported and stands in no other's way.
///
/// # Errors
/// When nothing at all can be served, or the configuration file cannot be used.
pub(crate) fn wanted(models: &Models) -> anyhow::Result<Vec<ModelConfig>> {
    match models {
        Models::File { path, .. } => config::read_model_config_file(path),
        Models::BasePath { name, path } => Ok(vec![model_config(name, path)]),
        Models::Paths { paths, name } => from_paths(paths, name.as_deref()),
    }
}

fn from_paths(paths: &[PathBuf], only_name: Option<&str>) -> anyhow::Result<Vec<ModelConfig>> {
    let mut found = BTreeMap::new();
    let mut last_error = None;
    for path in paths {
        match discover::discover(path) {
            Ok((models, others)) => {
                for other in others {
                    info!("{}: no model, left alone", other.display());
                }
                for model in models {
                    if let Some(twin) = found.insert(model.name.clone(), model.path.clone())
                        && twin != model.path
                    {
                        anyhow::bail!(
                            "two models are named '{}': {} and {}",
                            model.name,
                            twin.display(),
                            model.path.display()
                        );
                    }
                }
            }
            Err(error) => {
                warn!("{error:#}");
                last_error = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (found.is_empty(), last_error) {
        return Err(error);
    }
    match (only_name, found.len()) {
        (None, _) => {}
        (Some(name), 1) => return Ok(found.values().map(|path| model_config(name, path)).collect()),
        (Some(name), n) => anyhow::bail!("--model_name={name} names one model, but {n} were found"),
    }
    Ok(found.iter().map(|(name, path)| model_config(name, path)).collect())
}

/// How often the set of models is to be looked at again, if it can change.
pub(crate) fn refresh_interval(models: &Models, poll: PollMode) -> Option<Duration> {
    match models {
        Models::File { poll, .. } => *poll,
        Models::BasePath { .. } => None,
        Models::Paths { .. } => match poll {
            PollMode::Every(interval) => Some(interval),
            PollMode::Once | PollMode::Never => None,
        },
    }
}

/// Looks again which models are wanted and applies what changed, until the process ends. Blocks; has a thread of its
/// own.
pub(crate) fn refresh(
    models: &Models,
    mut applied: Vec<ModelConfig>,
    servables: &Servables,
    interval: Duration,
) {
    let mut last_error = String::new();
    let pause = (Mutex::new(()), Condvar::new());
    loop {
        // Nothing ever wakes this pause: the thread ends with the process.
        let guard = pause.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(pause.1.wait_timeout(guard, interval));
        let result = wanted_again(models, &applied).and_then(|configs| match configs {
            Some(configs) => {
                info!(models = configs.len(), "the set of models has changed");
                servables.apply(configs.clone())?;
                Ok(Some(configs))
            }
            None => Ok(None),
        });
        match result {
            Ok(Some(configs)) => applied = configs,
            Ok(None) => last_error.clear(),
            Err(error) => {
                let text = format!("{error:#}");
                if text != last_error {
                    error!("the set of models stays as it is: {text}");
                    last_error = text;
                }
            }
        }
    }
}

/// What is wanted, if that is something else than before. A configuration file counts as a statement each time its
/// content changes; what a reload call has set since then stays until then.
fn wanted_again(models: &Models, before: &[ModelConfig]) -> anyhow::Result<Option<Vec<ModelConfig>>> {
    let mut configs = wanted_quietly(models)?;
    if matches!(models, Models::Paths { .. }) {
        configs = with_those_not_gone(configs, before, is_gone);
    }
    Ok((before != configs.as_slice()).then_some(configs))
}

/// A model that is not found again stays, unless its folder or file is gone: a folder that cannot be read for a moment is
/// no reason to stop serving what is in it.
fn with_those_not_gone(
    mut found: Vec<ModelConfig>,
    before: &[ModelConfig],
    is_gone: impl Fn(&Path) -> bool,
) -> Vec<ModelConfig> {
    for model in before {
        let is_found = found.iter().any(|other| other.name == model.name);
        if !is_found && !is_gone(Path::new(&model.base_path)) {
            found.push(model.clone());
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Whether the folder around it can be read and does not hold it any more.
fn is_gone(path: &Path) -> bool {
    let is_missing =
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    is_missing && path.parent().is_some_and(|parent| std::fs::read_dir(parent).is_ok())
}

/// Folders of models are looked at every second: what is no model has been reported once.
fn wanted_quietly(models: &Models) -> anyhow::Result<Vec<ModelConfig>> {
    let quiet = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(quiet, || wanted(models))
}

/// Changes of the watched set that may wait to be carried out; each comes from an administrator.
const MAX_PENDING_CHANGES: usize = 1024;

/// Watches the folders of models for [`Servables`].
pub(crate) struct FolderWatcher {
    /// Every set in turn: a model that leaves and comes back must be seen to leave.
    changes: SyncSender<Vec<WatchedModel>>,
}

impl FolderWatcher {
    /// Starts watching nothing; what is found goes to `servables`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(mode: PollMode, servables: &Servables) -> std::io::Result<FolderWatcher> {
        let (aspire, report) = (servables.clone(), servables.clone());
        let poller = Poller::new(
            mode,
            Limits::default(),
            Box::new(move |aspired| aspire.aspire(aspired)),
            Box::new(move |name, status| {
                report.set_source_error(name, nothing_to_serve(status));
            }),
        )?;
        let (changes, pending) = sync_channel::<Vec<WatchedModel>>(MAX_PENDING_CHANGES);
        // Finding out what a base path is reads the file system, which may be slow: it has a thread of its own.
        std::thread::Builder::new().name("watch".into()).spawn(move || {
            for models in pending {
                poller.set_models(models.iter().map(watched).collect());
            }
        })?;
        Ok(FolderWatcher { changes })
    }
}

impl Watcher for FolderWatcher {
    fn watch(&self, models: Vec<WatchedModel>) {
        if self.changes.send(models).is_err() {
            error!("the thread that watches folders has ended: new versions are not found any more");
        }
    }
}

/// Why a base path gives no versions, if it does not: whoever waits for its model need not wait on.
fn nothing_to_serve(status: &SourceStatus) -> Option<String> {
    let is_empty = status.scanned && status.found.is_empty();
    let empty =
        || is_empty.then(|| "no version folders (expected folders with a number for a name)".to_owned());
    status.error.as_ref().map(ToString::to_string).or_else(empty)
}

/// A base path is a folder of versions, unless it is a model itself.
fn watched(model: &WatchedModel) -> Watched {
    let path = PathBuf::from(&model.base_path);
    let local = local_path(&path).unwrap_or_else(|_| path.clone());
    if let Some(version) = single_version(&local) {
        return Watched::single(model.name.clone(), local, version);
    }
    Watched { policy: policy(&model.policy), ..Watched::new(model.name.clone(), path) }
}

fn single_version(path: &Path) -> Option<Version> {
    let is_single = matches!(discover::layout(path), Ok(discover::Layout::Single));
    let number = discover::version_number(path).filter(|_| path.is_dir()).unwrap_or(1);
    Version::from_i64(i64::try_from(number).ok()?).filter(|_| is_single)
}

fn policy(policy: &VersionPolicy) -> salver_store::VersionPolicy {
    match policy {
        VersionPolicy::Latest(n) => salver_store::VersionPolicy::Latest(
            usize::try_from(*n).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN),
        ),
        VersionPolicy::All => salver_store::VersionPolicy::All,
        VersionPolicy::Specific(versions) => salver_store::VersionPolicy::Specific(
            versions.iter().filter_map(|&version| Version::from_i64(version)).collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_found_stays_until_it_is_gone() {
        let model = |name: &str| model_config(name, &Path::new("/m").join(name));
        let before = [model("a"), model("b")];
        let check = |found: &[&str], is_gone: bool, expected: &[&str]| {
            let found = found.iter().map(|name| model(name)).collect();
            let names: Vec<_> = with_those_not_gone(found, &before, |_| is_gone)
                .into_iter()
                .map(|model| model.name)
                .collect();
            assert_eq!(names, expected);
        };
        check(&["a", "b"], false, &["a", "b"]);
        check(&["b"], false, &["a", "b"]);
        check(&["b", "c"], true, &["b", "c"]);
        check(&[], false, &["a", "b"]);
    }

    #[test]
    fn gone_is_what_its_folder_does_not_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(is_gone(&path));
        std::fs::create_dir(&path).unwrap();
        assert!(!is_gone(&path));
        assert!(!is_gone(&dir.path().join("no/such/folder")));
    }
}
