//! What the manager's lock protects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use crate::model::Model;
use crate::{Id, ModelName, States};

/// What the lock protects: one book per name, and the loads that are due.
pub(super) struct Books<S> {
    pub(super) models: BTreeMap<ModelName, Model<S>>,
    /// Loads that wait for a thread, the oldest first; entries may be out of date.
    pub(super) queue: VecDeque<Id>,
    /// When to queue a load again; entries may be out of date.
    pub(super) retries: BTreeMap<Id, Instant>,
    /// Loads that run, per name.
    pub(super) running: HashMap<ModelName, usize>,
    pub(super) n_threads: usize,
    pub(super) closing: bool,
    pub(super) stopped: bool,
}

impl<S> Books<S> {
    pub(super) fn new() -> Self {
        Self {
            models: BTreeMap::new(),
            queue: VecDeque::new(),
            retries: BTreeMap::new(),
            running: HashMap::new(),
            n_threads: 0,
            closing: false,
            stopped: false,
        }
    }

    pub(super) fn states(&self) -> States {
        self.models.iter().map(|(name, model)| (name.clone(), model.states())).collect()
    }

    /// Puts a load at the end of the queue, unless it is there.
    pub(super) fn queue(&mut self, id: Id) {
        if !self.queue.contains(&id) {
            self.queue.push_back(id);
        }
    }

    /// When the next retry is due.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retries.values().min().copied()
    }

    /// Takes the retries that are due.
    pub(super) fn due_retries(&mut self, now: Instant) -> Vec<Id> {
        let due: Vec<_> =
            self.retries.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in &due {
            self.retries.remove(id);
        }
        due
    }

    /// Takes the oldest load off the queue that may run now. The last free thread is for names that have no
    /// load running, so that one name cannot hold them all.
    pub(super) fn next_in_queue(&mut self, n_load_threads: usize) -> Option<Id> {
        let n_running: usize = self.running.values().sum();
        let is_last = n_load_threads > 1 && n_running + 1 >= n_load_threads;
        let at = self.queue.iter().position(|id| !is_last || !self.running.contains_key(&id.name))?;
        self.queue.remove(at)
    }

    pub(super) fn count_running(&mut self, name: &ModelName) {
        *self.running.entry(name.clone()).or_default() += 1;
    }

    pub(super) fn count_ended(&mut self, name: &ModelName) {
        if let Some(n_running) = self.running.get_mut(name) {
            *n_running -= 1;
            if *n_running == 0 {
                self.running.remove(name);
            }
        }
    }
}
