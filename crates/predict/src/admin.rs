//! What fronts may ask about models, and how they may change what is served.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::{BoxFuture, Code, Error, ModelName, Version};

/// A version's state, as TensorFlow Serving publishes it. `Available` is published after it is true, `Unloading`
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Known, not loading yet.
    Start,
    /// Being loaded and warmed up.
    Loading,
    /// Answers requests.
    Available,
    /// Taken away; answers the requests that hold it.
    Unloading,
    /// Gone, or never came up.
    End,
}

impl State {
    /// The name that TensorFlow Serving gives it.
    pub fn name(self) -> &'static str {
        match self {
            State::Start => "START",
            State::Loading => "LOADING",
            State::Available => "AVAILABLE",
            State::Unloading => "UNLOADING",
            State::End => "END",
        }
    }
}

/// The state of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionStatus {
    /// The version.
    pub version: Version,
    /// Its state.
    pub state: State,
    /// Why it ended, if that was an error.
    pub error: Option<(Code, String)>,
}

/// The state of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    /// The model.
    pub name: ModelName,
    /// All versions known, the highest first.
    pub versions: Vec<VersionStatus>,
    /// Labels that requests may use, with the version each stands for.
    pub labels: BTreeMap<String, Version>,
    /// Why the model's folder gives no versions, if it does not.
    pub source_error: Option<String>,
}

impl ModelStatus {
    /// Whether any version answers requests.
    pub fn is_ready(&self) -> bool {
        self.versions.iter().any(|version| version.state == State::Available)
    }
}

/// Which versions of a model are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest `n`.
    Latest(u32),
    /// All.
    All,
    /// Exactly these.
    Specific(Vec<i64>),
}

/// One model that is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name that requests use.
    pub name: String,
    /// The folder whose children are the versions.
    pub base_path: String,
    /// The platform asked for: `tensorflow`, `onnx`, ...; empty when not said.
    pub platform: String,
    /// Which versions are wanted.
    pub policy: VersionPolicy,
    /// Labels and the versions they stand for.
    pub labels: BTreeMap<String, i64>,
}

/// The models of a server: what there is, and changing it.
pub trait Models: Debug + Send + Sync + 'static {
    /// All models, sorted by name. Does not block.
    fn list(&self) -> Vec<ModelStatus>;

    /// One model, or `None` when it is neither configured nor remembered. Does not block.
    fn status(&self, name: &str) -> Option<ModelStatus>;

    /// Whether every configured model answers requests and the server is not shutting down. Does not block.
    fn is_ready(&self) -> bool;

    /// Replaces the whole set of served models and waits until every new model is available or has ended.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] or [`Code::FailedPrecondition`] for a configuration that is not applied;
    /// [`Code::Unknown`] when models did not become available.
    fn reload(&self, models: Vec<ModelConfig>) -> BoxFuture<'_, Result<(), Error>>;

    /// Loads a configured model again that was unloaded, and waits for it.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a model that is not configured, else why it does not load.
    fn load<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// Unloads a model until [`Models::load`] is called, and waits until its last request is done.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a model that is not configured.
    fn unload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;
}
