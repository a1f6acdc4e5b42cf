use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Id, ModelName, Version};

/// Access to an available servable. While any handle to it lives, the servable stays in memory, so keep one
/// only as long as a request needs it. Dropping the last handle never drops the servable on the thread at
/// hand: an unload thread does that.
pub struct Handle<S>(pub(crate) Arc<Instance<S>>);

impl<S> Handle<S> {
    /// Which version of which model this is.
    pub fn id(&self) -> &Id {
        &self.0.id
    }
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Deref for Handle<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.servable.as_ref().expect("the servable is taken out only when the last handle is gone")
    }
}

impl<S> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(self.id()).finish()
    }
}

/// There is no available version as asked for. The text is TensorFlow Serving's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// The name asked for.
    pub name: String,
    /// The version asked for; `None` means the highest available one.
    pub version: Option<Version>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "Servable not found for request: Specific({}, {version})", self.name),
            None => write!(f, "Servable not found for request: Latest({})", self.name),
        }
    }
}

impl std::error::Error for NotFound {}

/// A loaded servable; when the last reference goes, it sends the servable to the unload threads.
pub(crate) struct Instance<S> {
    id: Id,
    servable: Option<S>,
    exit: Arc<Exit<S>>,
}

impl<S> Instance<S> {
    pub(crate) fn new(id: Id, servable: S, exit: &Arc<Exit<S>>) -> Arc<Self> {
        Arc::new(Self { id, servable: Some(servable), exit: Arc::clone(exit) })
    }
}

impl<S> Drop for Instance<S> {
    fn drop(&mut self) {
        if let Some(servable) = self.servable.take() {
            self.exit.send(self.id.clone(), servable);
        }
    }
}

/// Where servables wait for an unload thread. Never longer than the number of loaded servables.
pub(crate) struct Exit<S> {
    inner: Mutex<Waiting<S>>,
    changed: Condvar,
}

struct Waiting<S> {
    servables: VecDeque<(Id, S)>,
    closed: bool,
}

impl<S> Exit<S> {
    pub(crate) fn new() -> Self {
        let inner = Mutex::new(Waiting { servables: VecDeque::new(), closed: false });
        Self { inner, changed: Condvar::new() }
    }

    /// Hands over a servable. Once closed there is no unload thread left, and it is dropped here.
    fn send(&self, id: Id, servable: S) {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            return drop(servable);
        }
        waiting.servables.push_back((id, servable));
        self.changed.notify_one();
    }

    /// Blocks until there is a servable to drop; `None` when closed and empty.
    pub(crate) fn receive(&self) -> Option<(Id, S)> {
        let mut waiting = self.lock();
        loop {
            if let Some(next) = waiting.servables.pop_front() {
                return Some(next);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is available, as readers see it: a value that is replaced as a whole. Each list ascends and is not
/// empty.
pub(crate) struct Available<S>(HashMap<ModelName, Arc<[Arc<Instance<S>>]>>);

impl<S> Available<S> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(crate) fn find(&self, name: &str, version: Option<Version>) -> Option<Handle<S>> {
        let instances = self.0.get(name)?;
        let found = match version {
            None => instances.last()?,
            Some(version) => {
                let at = instances.binary_search_by_key(&version, |instance| instance.id.version).ok()?;
                &instances[at]
            }
        };
        Some(Handle(Arc::clone(found)))
    }

    pub(crate) fn versions(&self, name: &str) -> Vec<Version> {
        let instances = self.0.get(name).map_or(&[][..], |instances| instances);
        instances.iter().rev().map(|instance| instance.id.version).collect()
    }

    /// This map and one more instance.
    pub(crate) fn with(&self, instance: Arc<Instance<S>>) -> Self {
        let id = instance.id.clone();
        self.edited(&id.name, |instances| {
            let at = instances.partition_point(|other| other.id.version < id.version);
            instances.insert(at, instance);
        })
    }

    /// This map less one instance.
    pub(crate) fn without(&self, name: &ModelName, version: Version) -> Self {
        self.edited(name, |instances| instances.retain(|instance| instance.id.version != version))
    }

    fn edited(&self, name: &ModelName, edit: impl FnOnce(&mut Vec<Arc<Instance<S>>>)) -> Self {
        let mut map = self.0.clone();
        let mut instances = map.remove(name).map_or_else(Vec::new, |instances| instances.to_vec());
        edit(&mut instances);
        if !instances.is_empty() {
            map.insert(name.clone(), instances.into());
        }
        Self(map)
    }
}
