//! Changing what is served, and waiting for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use salver_lifecycle::{Aspired, ModelName, Phase, States};
use salver_predict::{Blame, Code, Error, ModelConfig};
use tokio::sync::oneshot;

use super::{Servables, Shared};
use crate::rules::{self, Failure, Progress};

/// Waits at the same time at most; each takes a thread.
const MAX_WAITS: usize = 64;

impl Servables {
    /// Replaces the whole set of served models and returns at once; gives back the names that are new. Models that are no
    /// longer listed are unloaded.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] or [`Code::FailedPrecondition`]; nothing is then changed.
    pub fn apply(&self, models: Vec<ModelConfig>) -> Result<BTreeSet<ModelName>, Error> {
        let shared = &self.shared;
        let _changes = shared.lock_changes();
        let available = |name: &str, version| shared.manager.available(name).contains(&version);
        let configs = rules::check(models, &shared.book().configs, available, shared.strictness())?;
        let (new, removed) = shared.change_book(|book| {
            let new = rules::new_names(&book.configs, &configs);
            let removed = rules::new_names(&configs, &book.configs);
            book.unloaded.retain(|name| configs.contains_key(name));
            book.configs = configs;
            (new, removed)
        });
        shared.watch();
        for name in &removed {
            shared.manager.forget(name);
            shared.source_errors().remove(name);
        }
        Ok(new)
    }

    pub(super) async fn reload_and_wait(&self, models: Vec<ModelConfig>) -> Result<(), Error> {
        let new = self.apply(models)?;
        let failures = self.wait_for(new).await?;
        if failures.is_empty() { Ok(()) } else { Err(rules::not_available(&failures)) }
    }

    pub(super) async fn load_and_wait(&self, name: &str) -> Result<(), Error> {
        let name = self.configured(name)?;
        {
            let _changes = self.shared.lock_changes();
            if self.shared.change_book(|book| book.unloaded.remove(&name)) {
                // What was wrong with the folder before is not what this load waits for.
                self.shared.source_errors().remove(&name);
                self.shared.watch();
            }
        }
        let failures = self.wait_for(BTreeSet::from([name.clone()])).await?;
        match failures.get(&name) {
            None => Ok(()),
            Some(failure) => {
                let text = format!("model '{name}' did not load: {}", failure.message);
                Err(Error::new(failure.code, Blame::Model, text))
            }
        }
    }

    pub(super) async fn unload_and_wait(&self, name: &str) -> Result<(), Error> {
        let name = self.configured(name)?;
        {
            let _changes = self.shared.lock_changes();
            if self.shared.change_book(|book| book.unloaded.insert(name.clone())) {
                self.shared.watch();
            }
            self.shared.manager.aspire(Aspired { name: name.clone(), versions: Vec::new() });
        }
        self.wait(move |_, states| {
            let states = states.get(&name).map_or(&[][..], Vec::as_slice);
            states.iter().all(|state| state.state.phase == Phase::End).then_some(())
        })
        .await
    }

    fn configured(&self, name: &str) -> Result<ModelName, Error> {
        let book = self.shared.book();
        let known = book.configs.get_key_value(name).map(|(name, _)| name.clone());
        known.ok_or_else(|| Error::client(Code::NotFound, format!("model '{name}' is not configured")))
    }

    /// Waits until each of these models is settled; gives back those that did not become available.
    async fn wait_for(&self, names: BTreeSet<ModelName>) -> Result<BTreeMap<ModelName, Failure>, Error> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.wait(move |shared, states| settled(&names, states, &shared.errors_of(&names))).await
    }

    /// Waits on a thread of its own until `decide` has an answer. The thread ends soon after the caller has left.
    async fn wait<T: Send + 'static>(
        &self,
        decide: impl FnMut(&Shared, &States) -> Option<T> + Send + 'static,
    ) -> Result<T, Error> {
        // Dropped after the receiver, so that the thread then sees that nobody waits any more.
        let _wake = Wake(Arc::clone(&self.shared));
        let (sender, receiver) = oneshot::channel();
        let permit = Permit::take(&self.shared)?;
        let thread = std::thread::Builder::new().name("wait-models".into());
        let spawned = thread.spawn(move || wait_here(&permit.0, sender, decide));
        spawned.map_err(|error| {
            Error::new(
                Code::ResourceExhausted,
                Blame::Us,
                format!("cannot start a thread to wait on: {error}"),
            )
        })?;
        let over = |_| {
            let text = "the models are still loading; they go on, but this call waits no longer";
            Error::new(Code::DeadlineExceeded, Blame::Us, text)
        };
        receiver.await.map_err(over)
    }
}

fn wait_here<T>(
    shared: &Shared,
    sender: oneshot::Sender<T>,
    mut decide: impl FnMut(&Shared, &States) -> Option<T>,
) {
    let deadline = shared.clock.now() + shared.config.max_wait;
    let mut decided = None;
    shared.manager.wait(deadline, |states| {
        decided = decide(shared, states);
        decided.is_some() || sender.is_closed()
    });
    if let Some(decided) = decided {
        // The caller may have left; then nobody wants to know.
        drop(sender.send(decided));
    }
}

fn settled(
    names: &BTreeSet<ModelName>,
    states: &States,
    source_errors: &BTreeMap<ModelName, String>,
) -> Option<BTreeMap<ModelName, Failure>> {
    let mut failures = BTreeMap::new();
    for name in names {
        let states = states.get(name).map_or(&[][..], Vec::as_slice);
        match rules::progress(states, source_errors.get(name).map(String::as_str)) {
            Progress::Available => {}
            Progress::Failed(failure) => {
                failures.insert(name.clone(), failure);
            }
            Progress::Loading => return None,
        }
    }
    Some(failures)
}

/// Makes waiting threads look whether anybody still waits for them.
struct Wake(Arc<Shared>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.manager.wake();
    }
}

/// One of the [`MAX_WAITS`].
struct Permit(Arc<Shared>);

impl Permit {
    fn take(shared: &Arc<Shared>) -> Result<Permit, Error> {
        let permit = Permit(Arc::clone(shared));
        if shared.n_waits.fetch_add(1, Ordering::Relaxed) < MAX_WAITS {
            return Ok(permit);
        }
        let text = format!("{MAX_WAITS} calls wait for models already");
        Err(Error::overloaded(Code::ResourceExhausted, text, std::time::Duration::from_secs(1)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.n_waits.fetch_sub(1, Ordering::Relaxed);
    }
}
