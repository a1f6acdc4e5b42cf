//! What a person sees on standard output: what was found, where the server listens, and a command that works.

use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use salver_predict::{ModelConfig, ModelSpec, ModelStatus, Models, Predictor, State, VersionChoice};
use salver_servable::Servables;
use salver_server::Addresses;

use crate::example;

/// Tells a waiting thread that something has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    seen: Mutex<bool>,
    changed: Condvar,
}

impl Changes {
    /// Wakes the waiting thread, if there is one. Quick.
    pub(crate) fn notify(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until there was a change since the last wait, and says so, or for this long.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(seen, timeout, |seen| !*seen);
        std::mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Prints lines to standard output. A reader that has gone is no reason to stop serving.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// What was found and where the server listens.
pub(crate) fn found(models: &[ModelConfig], addresses: &Addresses) {
    say(&format!("Salver {}", env!("CARGO_PKG_VERSION")));
    for model in models {
        say(&format!("  model  {}  from {}", model.name, model.base_path));
    }
    if models.is_empty() {
        say("  no models");
    }
    if let Some(rest) = addresses.rest {
        say(&format!("  REST   http://{}", reachable(rest)));
    }
    if let Some(grpc) = addresses.grpc {
        say(&format!("  gRPC   {}", reachable(grpc)));
    }
    if let Some(path) = &addresses.grpc_unix {
        say(&format!("  gRPC   unix:{}", path.display()));
    }
    if let Some(metrics) = addresses.metrics {
        say(&format!("  metrics  http://{}/metrics", reachable(metrics)));
    }
}

/// Every address of this machine is reached as localhost.
fn reachable(address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        return format!("localhost:{}", address.port());
    }
    address.to_string()
}

/// Waits until every model has come up or failed, and says how each fared and how to ask. Blocks; has a thread of its
/// own.
pub(crate) fn outcome(servables: &Servables, changes: &Changes, addresses: &Addresses, is_tls: bool) {
    let mut reported: Vec<String> = Vec::new();
    loop {
        let models = servables.list();
        for model in models.iter().filter(|model| is_settled(model)) {
            let line = describe(model);
            if !reported.contains(&line) {
                say(&line);
                reported.push(line);
            }
        }
        if models.iter().all(is_settled) {
            break;
        }
        changes.wait(Duration::from_secs(1));
    }
    let Some(rest) = addresses.rest else { return };
    let scheme = if is_tls { "https" } else { "http" };
    if let Some(command) = example_for(servables, &format!("{scheme}://{}", reachable(rest))) {
        say(&format!("Try\n  {command}"));
    }
}

fn is_settled(model: &ModelStatus) -> bool {
    let is_final = |state| matches!(state, State::Available | State::End);
    model.source_error.is_some()
        || model.is_ready()
        || (!model.versions.is_empty() && model.versions.iter().all(|version| is_final(version.state)))
}

fn describe(model: &ModelStatus) -> String {
    let mut parts: Vec<String> = model
        .versions
        .iter()
        .map(|version| match &version.error {
            Some((_, error)) => format!("version {} failed: {error}", version.version),
            None => format!("version {} {}", version.version, version.state.name()),
        })
        .collect();
    parts.extend(model.source_error.clone());
    format!("  {}  {}", model.name, parts.join(", "))
}

/// A command for the first model that answers.
fn example_for(servables: &Servables, rest: &str) -> Option<String> {
    let model = servables.list().into_iter().find(ModelStatus::is_ready)?;
    let spec = ModelSpec { name: model.name.clone(), version: VersionChoice::Latest };
    let mut resolved = servables.resolve(&spec);
    // Models that are loaded here are found without waiting.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(target)) = resolved.as_mut().poll(&mut context) else { return None };
    let signature = target.signature("").ok()?;
    Some(example::curl(rest, model.name.as_str(), signature))
}
