//! The threads' side of the manager: carries out what the books decide. It has as few branches as it can.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::Observer;
use super::books::Books;
use crate::handle::{Available, Exit, Instance};
use crate::model::{Attempt, Effect, Model, Rules};
use crate::{Clock, ErrorKind, Id, LoadError, Loader, ModelName, State};

pub(super) struct Shared<L: Loader> {
    pub(super) loader: L,
    pub(super) rules: Rules,
    pub(super) n_load_threads: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Option<Observer>,
    pub(super) available: ArcSwap<Available<L::Servable>>,
    pub(super) exit: Arc<Exit<L::Servable>>,
    pub(super) books: Mutex<Books<L::Source>>,
    /// Signalled when a load thread may have something to do.
    pub(super) work: Condvar,
    /// Signalled when a wish or a published state changed, a name went, or a thread ended.
    pub(super) changed: Condvar,
}

struct Job<S> {
    id: Id,
    attempt: Attempt<S>,
}

impl<L: Loader> Shared<L> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Books<L::Source>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one book take an event and carries out what follows from it. `fresh` is the servable just loaded,
    /// if one was.
    pub(super) fn change<T>(
        &self,
        books: &mut Books<L::Source>,
        name: &ModelName,
        fresh: Option<Arc<Instance<L::Servable>>>,
        event: impl FnOnce(&mut Model<L::Source>, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let model = books.models.get_mut(name)?;
        let mut effects = Vec::new();
        let result = event(model, &mut effects);
        if model.is_gone() {
            books.models.remove(name);
        }
        self.apply(books, name, fresh, effects);
        Some(result)
    }

    fn apply(
        &self,
        books: &mut Books<L::Source>,
        name: &ModelName,
        mut fresh: Option<Arc<Instance<L::Servable>>>,
        effects: Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                Effect::Changed(version, state) => self.publish(&Id { name: name.clone(), version }, &state),
                Effect::Queue(version) => books.queue(Id { name: name.clone(), version }),
                Effect::QueueAt { version, at, error } => {
                    let id = Id { name: name.clone(), version };
                    tracing::warn!(%id, "load failed and will be tried again: {error}");
                    books.retries.insert(id, at);
                }
                Effect::Publish(_) => {
                    let instance = fresh.take().expect("a book publishes only what was just loaded");
                    self.available.store(Arc::new(self.available.load().with(instance)));
                }
                Effect::Unpublish(version) => {
                    self.available.store(Arc::new(self.available.load().without(name, version)));
                }
            }
        }
        self.work.notify_all();
        self.changed.notify_all();
    }

    fn publish(&self, id: &Id, state: &State) {
        let Some(observer) = &self.observer else { return };
        if catch_unwind(AssertUnwindSafe(|| observer(id, state))).is_err() {
            tracing::error!(%id, phase = %state.phase, "the observer of model states panicked");
        }
    }

    /// Waits on `changed` until the condition holds or the deadline has come.
    pub(super) fn wait<'a>(
        &'a self,
        mut books: MutexGuard<'a, Books<L::Source>>,
        deadline: Instant,
        mut is_done: impl FnMut(&Books<L::Source>) -> bool,
    ) -> (MutexGuard<'a, Books<L::Source>>, bool) {
        loop {
            if is_done(&books) {
                return (books, true);
            }
            let left = deadline.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                return (books, false);
            }
            books = self.changed.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn thread_ended(&self) {
        self.lock().n_threads -= 1;
        self.changed.notify_all();
    }

    pub(super) fn run_loads(&self) {
        while let Some(job) = self.next_job() {
            let result = self.load(&job);
            self.loaded(&job.id, result);
        }
    }

    fn next_job(&self) -> Option<Job<L::Source>> {
        let mut books = self.lock();
        while !books.stopped {
            self.queue_due_retries(&mut books);
            if let Some(job) = self.take_job(&mut books) {
                return Some(job);
            }
            books = self.wait_for_work(books);
        }
        None
    }

    fn queue_due_retries(&self, books: &mut Books<L::Source>) {
        let now = self.clock.now();
        for id in books.due_retries(now) {
            self.change(books, &id.name, None, |model, effects| model.wake(id.version, now, effects));
        }
    }

    fn take_job(&self, books: &mut Books<L::Source>) -> Option<Job<L::Source>> {
        while let Some(id) = books.next_in_queue(self.n_load_threads) {
            let begin = |model: &mut Model<_>, effects: &mut Vec<_>| model.begin(id.version, effects);
            if let Some(Some(attempt)) = self.change(books, &id.name, None, begin) {
                books.count_running(&id.name);
                return Some(Job { id, attempt });
            }
        }
        None
    }

    fn wait_for_work<'a>(
        &'a self,
        books: MutexGuard<'a, Books<L::Source>>,
    ) -> MutexGuard<'a, Books<L::Source>> {
        match books.next_retry() {
            None => self.work.wait(books).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let left = at.saturating_duration_since(self.clock.now());
                self.work.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn load(&self, job: &Job<L::Source>) -> Result<Arc<Instance<L::Servable>>, LoadError> {
        let Attempt { source, cancel } = &job.attempt;
        let result = catch_unwind(AssertUnwindSafe(|| self.loader.load(&job.id, source, cancel)));
        let servable = result.unwrap_or_else(|panic| {
            Err(LoadError::permanent(ErrorKind::Internal, format!("loader panicked: {}", text_of(&*panic))))
        })?;
        Ok(Instance::new(job.id.clone(), servable, &self.exit))
    }

    fn loaded(&self, id: &Id, result: Result<Arc<Instance<L::Servable>>, LoadError>) {
        let (fresh, result) = match result {
            Ok(instance) => (Some(instance), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Held until the lock is free: should this be the last reference, nothing is dropped under the lock.
        let _kept = fresh.clone();
        let now = self.clock.now();
        let mut books = self.lock();
        books.count_ended(&id.name);
        self.change(&mut books, &id.name, fresh, |model, effects| {
            model.loaded(id.version, result, now, &self.rules, effects);
        });
    }

    pub(super) fn run_unloads(&self) {
        while let Some((id, servable)) = self.exit.receive() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(servable))) {
                tracing::error!(%id, "dropping the servable panicked: {}", text_of(&*panic));
            }
            let mut books = self.lock();
            self.change(&mut books, &id.name, None, |model, effects| {
                model.dropped(id.version, &self.rules, effects);
            });
        }
    }
}

/// What a panic said, if it said something.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
