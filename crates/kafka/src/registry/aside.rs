//! Schemas for a thread that must not wait for them.

use std::collections::HashSet;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use salver_mapping::{Schema, SchemaError, Schemas, Unregistered};
use salver_records::Error;

use super::{Key, Registry, lock};

/// Schemas that wait to be asked for. Those beyond are asked for when they are wanted again.
const MAX_WANTED: usize = 64;

/// How long an answer is waited for the first time that a schema is wanted: as long as a registry takes that is well.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A registry whose schemas are asked for on a thread of its own: [`Schemas::get`] and [`Schemas::guid`] say almost at once what
/// is known, and of what is not that it may be known soon (`passing`). The other calls are the registry's, and block.
pub struct Aside {
    registry: Arc<Registry>,
    wanted: SyncSender<Key>,
    open: Arc<Open>,
}

/// What is being asked for.
#[derive(Debug, Default)]
struct Open {
    keys: Mutex<HashSet<Key>>,
    answered: Condvar,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Aside {
    /// Starts the thread, which ends with this.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(registry: Registry) -> Result<Aside, Error> {
        let registry = Arc::new(registry);
        let (wanted, asked) = sync_channel(MAX_WANTED);
        let open = Arc::<Open>::default();
        let (asking, answering) = (Arc::clone(&registry), Arc::clone(&open));
        let body = move || ask(&asking, &asked, &answering);
        let thread = std::thread::Builder::new().name("schemas".into()).spawn(body);
        thread.map_err(|error| {
            Error::fatal(format!("cannot start the thread that asks for schemas: {error}"))
        })?;
        Ok(Aside { registry, wanted, open })
    }

    fn schema(&self, key: &Key) -> Result<Arc<Schema>, SchemaError> {
        if let Some(known) = self.registry.known(key) {
            return known;
        }
        let mut keys = lock(&self.open.keys);
        if keys.insert(key.clone()) {
            // Where there is no room it is left out: whoever wants it comes again.
            if self.wanted.try_send(key.clone()).is_err() {
                keys.remove(key);
            }
            let is_open = |keys: &mut HashSet<Key>| keys.contains(key);
            let waited = self.open.answered.wait_timeout_while(keys, FIRST_WAIT, is_open);
            keys = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(keys);
        let open =
            || SchemaError { message: format!("{key}: the registry is being asked for it"), passing: true };
        self.registry.known(key).unwrap_or_else(|| Err(open()))
    }
}

/// Asks for what is wanted, so that it is known. Blocks until nobody is left who may want more.
fn ask(registry: &Registry, wanted: &Receiver<Key>, open: &Open) {
    while let Ok(key) = wanted.recv() {
        if let Err(error) = registry.schema(&key) {
            tracing::debug!("{}", error.message);
        }
        lock(&open.keys).remove(&key);
        open.answered.notify_all();
    }
}

impl Schemas for Aside {
    fn get(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        self.schema(&Key::Id(id))
    }

    fn guid(&self, guid: &str) -> Result<Arc<Schema>, SchemaError> {
        self.schema(&Key::Guid(guid.to_owned()))
    }

    fn latest(&self, subject: &str) -> Result<(u32, Arc<Schema>), SchemaError> {
        self.registry.latest(subject)
    }

    fn id_of(&self, subject: &str, schema: &Schema, unknown: Unregistered) -> Result<u32, SchemaError> {
        self.registry.id_of(subject, schema, unknown)
    }
}
