//! A schema registry over its REST calls, as Confluent's, Karapace and Apicurio's compatible one have them.
//!
//! What was learned is kept: an id means one schema for ever, so a registry that goes away stops nobody who reads records
//! of known ids. One thread asks for a thing at a time while others wait for its answer. An id that is unknown is asked for
//! again after 5 s, then 10 s and so on up to a minute; a registry that cannot be reached is left alone for such times
//! whatever is wanted of it.

mod aside;
mod cache;
mod client;

use std::fmt;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use salver_mapping::{Schema, SchemaError, Schemas, Unregistered};
use serde::Deserialize;

pub use self::aside::Aside;
use crate::connection::secret;
use crate::settings::Secret;
use cache::{Absence, Cache, Keeps, Step};
use client::{Client, Failure, escape};

/// How many schemas are kept. Those met first are forgotten.
const MAX_SCHEMAS: usize = 10_000;
/// How long the newest schema of a subject is taken for the newest.
const LATEST_FRESH_FOR: Duration = Duration::from_secs(300);

/// Where the registry is: `[registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// Addresses of the registry, `http://HOST:PORT` or `https://HOST:PORT/PATH`. The first that answers is used; the others
    /// when it does not.
    pub urls: Vec<String>,
    /// Name for basic authentication.
    pub username: Option<String>,
    /// Password for basic authentication. Better said by `password_env` or `password_file`.
    pub password: Option<Secret>,
    /// The variable of the environment that holds the password.
    pub password_env: Option<String>,
    /// The file that holds the password; the end of its last line does not belong to it.
    pub password_file: Option<PathBuf>,
    /// A token for bearer authentication, instead of name and password. Better said by `token_env` or `token_file`.
    pub token: Option<Secret>,
    /// The variable of the environment that holds the token.
    pub token_env: Option<String>,
    /// The file that holds the token; the end of its last line does not belong to it.
    pub token_file: Option<PathBuf>,
    /// A PEM file of the certificates that `https` addresses are held against; the system's without it.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take, in milliseconds; 5000 by default.
    pub timeout_ms: Option<u64>,
}

impl RegistrySettings {
    /// The registry at one address, without authentication.
    pub fn at(url: impl Into<String>) -> RegistrySettings {
        RegistrySettings {
            urls: vec![url.into()],
            username: None,
            password: None,
            password_env: None,
            password_file: None,
            token: None,
            token_env: None,
            token_file: None,
            ca_file: None,
            timeout_ms: None,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(5000).clamp(1, 600_000))
    }

    fn is_tls(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with("https://"))
    }

    fn checked_urls(&self) -> Result<Vec<String>, String> {
        if self.urls.is_empty() {
            return Err("registry.urls: expected one address or more".into());
        }
        let check = |url: &String| {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
            if host.contains('@') {
                return Err("registry.urls: an address holds a name or a password; give them as `username` and `password_env` or `password_file`".into());
            }
            if host.is_empty() || url.contains(['?', '#']) || url.parse::<ureq::http::Uri>().is_err() {
                return Err(format!(
                    "registry.urls: `{url}`, expected an address such as `http://registry:8081`"
                ));
            }
            Ok(url.trim_end_matches('/').to_owned())
        };
        self.urls.iter().map(check).collect()
    }

    fn authorization(&self, env: Env<'_>) -> Result<Option<String>, String> {
        let of = |key, said: &Option<Secret>, variable: &Option<String>, file: &Option<PathBuf>| {
            secret(key, said.as_ref(), variable.as_deref(), file.as_deref(), env)
                .map_err(|error| format!("registry: {error}"))
        };
        let password = of("password", &self.password, &self.password_env, &self.password_file)?;
        let token = of("token", &self.token, &self.token_env, &self.token_file)?;
        match (&self.username, password, token) {
            (None, None, None) => Ok(None),
            (Some(name), Some(password), None) if !name.contains(':') => {
                Ok(Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))))
            }
            (None, None, Some(token)) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(format!("Bearer {token}")))
            }
            _ => Err(
                "registry: expected `username` (without a colon) and `password_env` or `password_file` together, or \
                `token_env` or `token_file` alone"
                    .into(),
            ),
        }
    }
}

/// How variables of the environment are read.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A thing that schemas are found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Id(u32),
    Guid(String),
}

impl Key {
    fn path(&self) -> String {
        match self {
            Key::Id(id) => format!("schemas/ids/{id}"),
            Key::Guid(guid) => format!("schemas/guids/{}", escape(guid)),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Id(id) => write!(f, "schema {id}"),
            Key::Guid(guid) => write!(f, "schema {guid}"),
        }
    }
}

/// A schema of ours and the subject that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ours {
    subject: String,
    text: String,
}

/// A registry, and what was learned from it. Shared by threads; calls block for as long as the registry may take, and
/// not at all for what is known.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    absence: Mutex<Absence>,
    schemas: Shared<Key, Arc<Schema>>,
    latest: Shared<String, (u32, Arc<Schema>)>,
    ids: Shared<Ours, u32>,
}

impl Registry {
    /// Asks nothing yet; `env` is how variables of the environment are read.
    ///
    /// # Errors
    /// When an address, the authentication or the file of certificates cannot be used, or a password or token not be read.
    pub fn new(
        settings: &RegistrySettings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Registry, salver_records::Error> {
        Ok(Registry {
            client: Client::new(settings, env).map_err(salver_records::Error::fatal)?,
            absence: Mutex::default(),
            schemas: Shared::new(None),
            latest: Shared::new(Some(LATEST_FRESH_FOR)),
            ids: Shared::new(None),
        })
    }

    /// Asks, unless the registry is left alone now.
    fn ask<T>(&self, question: impl FnOnce(&Client) -> Result<T, Failure>) -> Result<T, Failure> {
        if lock(&self.absence).rests(now()) {
            return Err(resting());
        }
        let answer = question(&self.client);
        match &answer {
            Err(Failure::Away(_)) => lock(&self.absence).missed(now()),
            _ => lock(&self.absence).answered(),
        }
        answer
    }

    /// What would be said of a schema without asking for it; nothing if it would have to be asked for.
    fn known(&self, key: &Key) -> Option<Result<Arc<Schema>, SchemaError>> {
        let known = lock(&self.schemas.cache).known(key, now());
        let rests = || lock(&self.absence).rests(now()).then(|| Err(resting()));
        Some(known.or_else(rests)?.map_err(|failure| explain(&key.to_string(), &failure)))
    }

    fn schema(&self, key: &Key) -> Result<Arc<Schema>, SchemaError> {
        self.schemas
            .get(key, || self.ask(|client| client.schema(&key.path())).map(|(_, schema)| Arc::new(schema)))
            .map_err(|failure| explain(&key.to_string(), &failure))
    }
}

impl Schemas for Registry {
    fn get(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        self.schema(&Key::Id(id))
    }

    fn guid(&self, guid: &str) -> Result<Arc<Schema>, SchemaError> {
        self.schema(&Key::Guid(guid.to_owned()))
    }

    fn latest(&self, subject: &str) -> Result<(u32, Arc<Schema>), SchemaError> {
        let question = |client: &Client| {
            let path = format!("subjects/{}/versions/latest", escape(subject));
            let (id, schema) = client.schema(&path)?;
            let id = id.ok_or_else(|| Failure::Nonsense(format!("{path}: the answer has no id")))?;
            Ok((id, Arc::new(schema)))
        };
        self.latest
            .get(&subject.to_owned(), || self.ask(question))
            .map_err(|failure| explain(&format!("subject `{subject}`"), &failure))
    }

    fn id_of(&self, subject: &str, schema: &Schema, unknown: Unregistered) -> Result<u32, SchemaError> {
        let ours = Ours { subject: subject.to_owned(), text: schema.text.clone() };
        let path = match unknown {
            Unregistered::Register => format!("subjects/{}/versions", escape(subject)),
            Unregistered::Refuse => format!("subjects/{}", escape(subject)),
        };
        self.ids.get(&ours, || self.ask(|client| client.id_of(&path, schema))).map_err(|failure| {
            let about = format!("the schema of the answers under subject `{subject}`");
            let mut error = explain(&about, &failure);
            if unknown == Unregistered::Refuse && matches!(failure, Failure::NotFound(_)) {
                error.message.push_str("; register it, or allow that with `auto_register = true`");
            }
            error
        })
    }
}

fn resting() -> Failure {
    Failure::Away("it did not answer lately and is asked again in at most a minute".into())
}

/// An error for whoever asked. What is not found may be there soon: registries copy their state to each other.
fn explain(about: &str, failure: &Failure) -> SchemaError {
    let passing = matches!(failure, Failure::Away(_) | Failure::NotFound(_));
    let what = match failure {
        Failure::Away(_) => "the registry is away",
        Failure::NotFound(_) => "the registry does not have it",
        Failure::Refused(_) => "the registry refuses",
        Failure::Nonsense(_) => "the registry's answer cannot be used",
    };
    SchemaError { message: format!("{about}: {what}: {failure}"), passing }
}

/// A cache that threads share: one asks, the others wait for its answer.
#[derive(Debug)]
struct Shared<K, V> {
    cache: Mutex<Cache<K, V, Failure>>,
    changed: Condvar,
}

impl<K: Clone + Eq + Hash, V: Clone> Shared<K, V> {
    fn new(fresh_for: Option<Duration>) -> Self {
        Shared { cache: Mutex::new(Cache::new(MAX_SCHEMAS, fresh_for)), changed: Condvar::new() }
    }

    /// What is known, or what `ask` says. `ask` always ends, as each call has a time-out; it runs without the lock.
    fn get(&self, key: &K, ask: impl FnOnce() -> Result<V, Failure>) -> Result<V, Failure> {
        let mut cache = lock(&self.cache);
        loop {
            match cache.step(key, now()) {
                Step::Have(value) => return Ok(value),
                Step::Refuse(failure) => return Err(failure),
                Step::Wait => cache = self.changed.wait(cache).unwrap_or_else(PoisonError::into_inner),
                Step::Ask => break,
            }
        }
        drop(cache);
        let mut asking = Asking { shared: self, key, is_told: false };
        let answer = ask();
        asking.is_told = true;
        self.tell(key, answer)
    }

    fn tell(&self, key: &K, answer: Result<V, Failure>) -> Result<V, Failure> {
        let keeps = if matches!(answer, Err(Failure::Away(_))) { Keeps::No } else { Keeps::Yes };
        let told = lock(&self.cache).done(key, now(), answer, keeps);
        self.changed.notify_all();
        told
    }
}

/// Sees to it that nobody waits for an answer that a panic has prevented.
struct Asking<'a, K: Clone + Eq + Hash, V: Clone> {
    shared: &'a Shared<K, V>,
    key: &'a K,
    is_told: bool,
}

impl<K: Clone + Eq + Hash, V: Clone> Drop for Asking<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_told {
            drop(self.shared.tell(self.key, Err(Failure::Nonsense("asking ended in a panic".into()))));
        }
    }
}

/// The time, for the decisions of [`cache`].
fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "this is the driver; the cache takes it as an argument")]
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
