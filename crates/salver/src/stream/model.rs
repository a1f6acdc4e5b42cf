//! What answers: models in this process, or other servers. All that follows knows neither.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use salver_lifecycle::Clock;
use salver_predict::{BoxFuture, Code, ModelSpec, Predictor, Target, VersionChoice};
use salver_stream::Enter;
use tracing::info;

use super::config::{Config, Where};
use super::embedded::Embedded;
use crate::announce::Changes;
use crate::serve;

/// How often servers are asked for a model that they do not have yet.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long servers that answer may be without the model: those that come up know what they will have.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// Models in this process, or other servers.
#[derive(Debug)]
pub(super) enum Answering {
    Here { embedded: Embedded, specs: Vec<ModelSpec>, wait: Duration },
    There { peers: Arc<salver_remote::Remote>, hosts: String, specs: Vec<ModelSpec> },
}

impl Answering {
    /// Begins to load models, or to ask servers for them.
    ///
    /// # Errors
    /// When settings contradict each other or a thread cannot be started.
    pub(super) fn start(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Answering> {
        match &config.models {
            Where::Here(settings) => {
                let (specs, wait) = (specs(config), config.pipeline.model_wait);
                Ok(Answering::Here { embedded: Embedded::start(settings, clock)?, specs, wait })
            }
            Where::There(settings) => {
                let hosts = settings.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let peers = Arc::new(salver_remote::Remote::new((**settings).clone())?);
                Ok(Answering::There { peers, hosts, specs: specs(config) })
            }
        }
    }

    /// Waits until all models answer, and says whether they do: not when it was called off.
    ///
    /// # Errors
    /// When a model will not come up.
    pub(super) fn wait(&self, is_called_off: &dyn Fn() -> bool) -> anyhow::Result<bool> {
        match self {
            Answering::Here { embedded, specs, wait } => embedded.wait(specs, *wait, is_called_off)?,
            Answering::There { hosts, specs, .. } => {
                for spec in specs {
                    self.wait_for(spec, hosts, is_called_off)?;
                }
            }
        }
        Ok(!is_called_off())
    }

    /// Waits until servers have a model.
    fn wait_for(
        &self,
        spec: &ModelSpec,
        hosts: &str,
        is_called_off: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let pause = Changes::default();
        let (mut told, mut n_unknown) = (String::new(), 0);
        while !is_called_off() {
            let error = match self.target(spec) {
                Ok(_) => break,
                Err(error) => error,
            };
            n_unknown = if error.code() == Code::NotFound { n_unknown + 1 } else { 0 };
            if !may_pass(error.code()) || ASK_EVERY * n_unknown > UNKNOWN_FOR {
                return Err(anyhow::anyhow!("the model '{}' at {hosts}: {error}", spec.name));
            }
            let text = error.to_string();
            if text != told {
                info!("waiting for the model '{}' at {hosts}: {text}", spec.name);
                told = text;
            }
            pause.wait(ASK_EVERY);
        }
        Ok(())
    }

    pub(super) fn predictor(&self) -> Arc<dyn Predictor> {
        match self {
            Answering::Here { embedded, .. } => Arc::new(embedded.servables.clone()),
            Answering::There { peers, .. } => Arc::clone(peers) as Arc<dyn Predictor>,
        }
    }

    /// The version that is meant, as it is now. Waits for the network at most.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn target(&self, spec: &ModelSpec) -> Result<Arc<dyn Target>, salver_predict::Error> {
        let predictor = self.predictor();
        block_on(predictor.resolve(spec))?
    }

    /// How workers come to where models run.
    pub(super) fn enter(&self) -> Enter {
        match self {
            Answering::Here { embedded, .. } => {
                let engines = embedded.engines.clone();
                Arc::new(move |body| serve::enter_all(&engines, body))
            }
            Answering::There { .. } => Arc::new(|body| body()),
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Answering::Here { embedded, .. } => embedded.describe(),
            Answering::There { hosts, specs, .. } => {
                let names: Vec<_> = specs.iter().map(spec_text).collect();
                format!("{} at {hosts}", names.join(", "))
            }
        }
    }

    /// Whether rows of the signature may be joined to one call; why not, if not. Of servers it is not known: they join rows of
    /// several callers themselves, or are set up not to.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn joins(&self, config: &Config) -> Result<(), String> {
        match self {
            Answering::Here { embedded, .. } => {
                embedded.joins(&config.primary.name, &config.pipeline.signature)
            }
            Answering::There { .. } => Ok(()),
        }
    }

    /// Puts away what there is by the deadline.
    pub(super) fn shutdown(&self, deadline: Instant) {
        if let Answering::Here { embedded, .. } = self {
            embedded.shutdown(deadline);
        }
    }
}

/// Waits for a future whose work others do.
pub(super) fn block_on<T>(future: BoxFuture<'_, T>) -> Result<T, salver_predict::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let internal = |error: std::io::Error| {
        salver_predict::Error::new(Code::Internal, salver_predict::Blame::Us, error.to_string())
    };
    Ok(runtime.map_err(internal)?.block_on(future))
}

/// Whether asking again may help: servers come up in their time, and so do their models.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled
    )
}

/// All models that are asked for.
fn specs(config: &Config) -> Vec<ModelSpec> {
    let mut specs = vec![config.primary.clone()];
    let pipeline = &config.pipeline;
    let parts = pipeline.canary.iter().chain(pipeline.shadow.iter().map(|shadow| &shadow.part));
    specs.extend(parts.map(|part| part.spec(&config.primary)));
    specs.dedup();
    specs
}

fn spec_text(spec: &ModelSpec) -> String {
    match &spec.version {
        VersionChoice::Latest => spec.name.to_string(),
        VersionChoice::Number(version) => format!("{} version {version}", spec.name),
        VersionChoice::Label(label) => format!("{} '{label}'", spec.name),
    }
}

/// The signature of a target that settings name.
///
/// # Errors
/// When it has none of that name; the text names the model.
pub(super) fn signature(target: &dyn Target, name: &str) -> anyhow::Result<Arc<salver_tensor::Signature>> {
    let signature = target.signature(name).map(Arc::clone);
    signature.with_context(|| {
        let known: Vec<_> =
            target.signatures().iter().map(|signature| signature.name().to_string()).collect();
        format!("the model '{}' (it has the signatures {})", target.id().name, known.join(", "))
    })
}
