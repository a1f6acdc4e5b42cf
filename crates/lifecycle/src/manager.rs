use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::handle::{Available, Exit};
use crate::model::Model;
use crate::{
    Aspired, Clock, Config, Handle, Id, Loader, ModelName, NotFound, State, States, Version, VersionState,
};

mod books;
mod driver;

use books::Books;
use driver::Shared;

/// Is told of every change of a published state, in order. It runs while the manager is locked: it must be
/// quick, and of the manager's methods it may call [`Manager::handle`] and [`Manager::available`] only.
pub type Observer = Box<dyn Fn(&Id, &State) + Send + Sync>;

/// Loads and unloads so that what is available becomes what is aspired.
///
/// All methods can be called from any thread. [`handle`](Manager::handle) and
/// [`available`](Manager::available) take no lock; the others take one for a short while, and only
/// [`wait`](Manager::wait) and [`shutdown`](Manager::shutdown) block for long. Dropping the manager shuts it
/// down without waiting.
pub struct Manager<L: Loader> {
    shared: Arc<Shared<L>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<L: Loader> fmt::Debug for Manager<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("states", &self.all_states()).finish_non_exhaustive()
    }
}

impl<L: Loader> Manager<L> {
    /// Starts a manager with nothing aspired. Fails if a thread cannot be started.
    pub fn new(loader: L, config: &Config, clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::start(loader, config, clock, None)
    }

    /// Like [`Manager::new`], with an observer of every change.
    pub fn with_observer(
        loader: L,
        config: &Config,
        clock: Arc<dyn Clock>,
        observer: Observer,
    ) -> io::Result<Self> {
        Self::start(loader, config, clock, Some(observer))
    }

    fn start(
        loader: L,
        config: &Config,
        clock: Arc<dyn Clock>,
        observer: Option<Observer>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            loader,
            rules: config.rules(),
            n_load_threads: config.n_load_threads.get(),
            clock,
            observer,
            available: ArcSwap::from_pointee(Available::new()),
            exit: Arc::new(Exit::new()),
            books: Mutex::new(Books::new()),
            work: Condvar::new(),
            changed: Condvar::new(),
        });
        let manager = Self { shared, threads: Mutex::new(Vec::new()) };
        for n in 0..config.n_load_threads.get() {
            manager.spawn(format!("load-{n}"), Shared::run_loads)?;
        }
        for n in 0..config.n_unload_threads.get() {
            manager.spawn(format!("unload-{n}"), Shared::run_unloads)?;
        }
        Ok(manager)
    }

    fn spawn(&self, name: String, run: impl Fn(&Shared<L>) + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.shared.lock().n_threads += 1;
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            run(&shared);
            shared.thread_ended();
        });
        let thread = thread.inspect_err(|_| self.shared.thread_ended())?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// The loader that this manager uses.
    pub fn loader(&self) -> &L {
        &self.shared.loader
    }

    /// States the complete wish for one name. Returns at once. What is no longer wanted is called off or
    /// unloaded, what is new is loaded; the same wish again changes nothing. Ignored once
    /// [`shutdown`](Manager::shutdown) has begun.
    pub fn aspire(&self, aspired: Aspired<L::Source>) {
        let mut books = self.shared.lock();
        if books.closing {
            return;
        }
        books.models.entry(aspired.name.clone()).or_insert_with(Model::new);
        self.shared.change(&mut books, &aspired.name, None, |model, effects| {
            model.aspire(aspired.versions, &self.shared.rules, effects);
        });
    }

    /// Unloads every version of the name and then drops every record of it. Returns at once; until the last
    /// version is gone the name still has states.
    pub fn forget(&self, name: &ModelName) {
        let mut books = self.shared.lock();
        self.shared
            .change(&mut books, name, None, |model, effects| model.forget(&self.shared.rules, effects));
    }

    /// A handle to this version, or to the highest available one. Never waits.
    pub fn handle(&self, name: &str, version: Option<Version>) -> Result<Handle<L::Servable>, NotFound> {
        let found = self.shared.available.load().find(name, version);
        found.ok_or_else(|| NotFound { name: name.to_owned(), version })
    }

    /// The available versions of the name, from the highest down. Never waits.
    pub fn available(&self, name: &str) -> Vec<Version> {
        self.shared.available.load().versions(name)
    }

    /// The states of the name's versions, from the highest down; empty if the name is not known.
    pub fn states(&self, name: &str) -> Vec<VersionState> {
        self.shared.lock().models.get(name).map_or_else(Vec::new, Model::states)
    }

    /// The states of all versions of all known names.
    pub fn all_states(&self) -> States {
        self.shared.lock().states()
    }

    /// The known names, in order: every name that was aspired and not forgotten, and those not yet gone.
    pub fn names(&self) -> Vec<ModelName> {
        self.shared.lock().models.keys().cloned().collect()
    }

    /// Blocks until `is_done` says yes to the states of all versions, or the deadline has come; says whether
    /// it said yes. `is_done` runs at least once, and again at each change, while the manager is locked, as
    /// an [`Observer`] does.
    pub fn wait(&self, deadline: Instant, mut is_done: impl FnMut(&States) -> bool) -> bool {
        let books = self.shared.lock();
        let (_books, done) = self.shared.wait(books, deadline, |books| is_done(&books.states()));
        done
    }

    /// Lets the manager look at its clock again. Needed only after a clock was moved by hand.
    pub fn wake(&self) {
        let _books = self.shared.lock();
        self.shared.work.notify_all();
        self.shared.changed.notify_all();
    }

    /// Calls off every load, unloads everything and ends the threads. Blocks until that is done, and says so,
    /// or until the deadline has come; what still runs then (a load that does not return, a handle that is
    /// held) is left to itself. A servable whose last handle goes after this is dropped on that handle's
    /// thread.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        let mut books = self.shared.lock();
        books.closing = true;
        for name in books.models.keys().cloned().collect::<Vec<_>>() {
            self.shared.change(&mut books, &name, None, |model, effects| {
                model.aspire(Vec::new(), &self.shared.rules, effects);
            });
        }
        let (mut books, idle) =
            self.shared.wait(books, deadline, |books| books.models.values().all(Model::is_idle));
        books.stopped = true;
        self.shared.work.notify_all();
        self.shared.exit.close();
        let (books, ended) = self.shared.wait(books, deadline, |books| books.n_threads == 0);
        drop(books);
        if ended {
            self.join();
        }
        idle && ended
    }

    fn join(&self) {
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the lifecycle manager panicked");
            }
        }
    }
}

impl<L: Loader> Drop for Manager<L> {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shutdown(now);
    }
}

#[cfg(test)]
mod tests;
