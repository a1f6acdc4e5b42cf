//! What servers say of models, kept for a while. One question at a time for each model and choice of a version.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use http::HeaderMap;
use salver_predict::{Blame, Code, Error, ModelId, ModelName, ModelSpec, Version, VersionChoice};
use salver_tensor::Signature;
use salver_wire::client::Described;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::clock::now;
use crate::codec;
use crate::connections::lock;
use crate::pool::Pool;
use crate::protocol::Protocol;

/// Models and choices of versions that are kept.
const MOST: usize = 1024;

/// What is older than so many times the age at which it is asked again is waited for instead of used.
const STALE: u32 = 10;

/// What is younger than the age at which it is asked again, divided by this, is not doubted.
const YOUNG: u32 = 10;

/// What is known of one choice of a version.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: ModelId,
    pub(crate) signatures: Vec<Arc<Signature>>,
    /// What servers have and cannot be used here, each with its name.
    pub(crate) refused: Vec<String>,
    pub(crate) platform: String,
}

impl Known {
    /// Whether the model has this very signature.
    pub(crate) fn has(&self, signature: &Signature) -> bool {
        self.signatures.iter().any(|one| **one == *signature)
    }
}

type Found = Pin<Box<dyn Future<Output = Result<Arc<Known>, Error>> + Send>>;

/// A question that is under way.
#[derive(Clone)]
struct Asking {
    answer: Shared<Found>,
    since: Instant,
}

/// What a question found.
struct Kept {
    known: Arc<Known>,
    asked: Instant,
    answered: Instant,
}

#[derive(Default)]
struct Entry {
    kept: Option<Kept>,
    asking: Option<Asking>,
    used: Option<Instant>,
}

/// All that is known.
pub(crate) struct Models {
    pool: Arc<Pool>,
    /// What every question carries.
    headers: HeaderMap,
    refresh_every: Duration,
    timeout: Duration,
    entries: Mutex<HashMap<ModelName, Vec<(VersionChoice, Entry)>>>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Models {
    pub(crate) fn new(
        pool: Arc<Pool>,
        headers: HeaderMap,
        refresh_every: Duration,
        timeout: Duration,
    ) -> Models {
        Models { pool, headers, refresh_every, timeout, entries: Mutex::default() }
    }

    /// What is known of it. What is old is used and asked again beside; what is very old or not there is waited for.
    ///
    /// # Errors
    /// What servers say, or why none can be asked, where nothing was known before.
    pub(crate) async fn get(self: &Arc<Self>, tasks: &Handle, spec: &ModelSpec) -> Result<Arc<Known>, Error> {
        let asking = match self.look(tasks, spec, now()) {
            Looked::Known(known) => return Ok(known),
            Looked::Asking(asking) => asking,
        };
        match asking.answer.await {
            Ok(known) => Ok(known),
            // Servers that cannot be asked do not make old knowledge wrong.
            Err(error) => self.last(spec).ok_or(error),
        }
    }

    /// What servers say of it when they are asked at `since` or later, by whomever.
    ///
    /// # Errors
    /// What servers say, or why none can be asked.
    pub(crate) async fn get_anew(
        self: &Arc<Self>,
        tasks: &Handle,
        spec: &ModelSpec,
        since: Instant,
    ) -> Result<Arc<Known>, Error> {
        loop {
            let asking = {
                let mut entries = lock(&self.entries);
                let entry = entry(&mut entries, spec);
                if let Some(kept) = entry.kept.as_ref().filter(|kept| kept.asked >= since) {
                    return Ok(Arc::clone(&kept.known));
                }
                entry.asking.get_or_insert_with(|| self.start(tasks, spec)).clone()
            };
            let answer = asking.answer.await;
            if asking.since >= since {
                return answer;
            }
        }
    }

    /// An answer did not fit what is known, so it is asked again, if that was not just done.
    pub(crate) fn doubt(self: &Arc<Self>, tasks: &Handle, spec: &ModelSpec) {
        let now = now();
        let mut entries = lock(&self.entries);
        let Some(entry) = find(&mut entries, spec) else { return };
        let is_young = entry
            .kept
            .as_ref()
            .is_none_or(|kept| now.saturating_duration_since(kept.answered) < self.refresh_every / YOUNG);
        if !is_young && entry.asking.is_none() {
            entry.asking = Some(self.start(tasks, spec));
        }
    }

    fn look(self: &Arc<Self>, tasks: &Handle, spec: &ModelSpec, now: Instant) -> Looked {
        let mut entries = lock(&self.entries);
        let entry = entry(&mut entries, spec);
        entry.used = Some(now);
        let age = |kept: &Kept| now.saturating_duration_since(kept.answered);
        if let Some(kept) = entry.kept.as_ref().filter(|kept| age(kept) < self.refresh_every) {
            return Looked::Known(Arc::clone(&kept.known));
        }
        let asking = match &entry.asking {
            Some(asking) => asking.clone(),
            None => entry.asking.insert(self.start(tasks, spec)).clone(),
        };
        let found = match &entry.kept {
            Some(kept) if age(kept) < self.refresh_every * STALE => Looked::Known(Arc::clone(&kept.known)),
            _ => Looked::Asking(asking),
        };
        forget(&mut entries);
        found
    }

    fn last(&self, spec: &ModelSpec) -> Option<Arc<Known>> {
        let mut entries = lock(&self.entries);
        find(&mut entries, spec)?.kept.as_ref().map(|kept| Arc::clone(&kept.known))
    }

    /// Asks, whoever waits for it.
    fn start(self: &Arc<Self>, tasks: &Handle, spec: &ModelSpec) -> Asking {
        let (done, result) = oneshot::channel();
        let (models, spec) = (Arc::clone(self), spec.clone());
        let since = now();
        tasks.spawn(async move {
            let result = match models.describe(&spec, since + models.timeout).await {
                Ok(described) => known(&spec, described),
                Err(error) => Err(error),
            };
            // Nobody may wait any more.
            drop(done.send(models.settle(&spec, result, since)));
        });
        let result = async move { result.await.unwrap_or_else(|_| Err(ended())) };
        let boxed: Found = Box::pin(result);
        Asking { answer: boxed.shared(), since }
    }

    /// Takes note of what was found. What says the same as before stays the same, so that it can be told by its address.
    fn settle(
        &self,
        spec: &ModelSpec,
        result: Result<Known, Error>,
        asked: Instant,
    ) -> Result<Arc<Known>, Error> {
        let mut entries = lock(&self.entries);
        let entry = entry(&mut entries, spec);
        entry.asking = None;
        let before = entry.kept.take();
        let is_new = result.is_ok();
        let (known, result) = match (result, before.as_ref().map(|kept| &kept.known)) {
            (Ok(new), Some(old)) => {
                let known = merged(new, old);
                (Some(Arc::clone(&known)), Ok(known))
            }
            (Ok(new), None) => {
                let known = Arc::new(new);
                (Some(Arc::clone(&known)), Ok(known))
            }
            // The model is gone, or there is none of this version.
            (Err(error), _) if error.blame() == Blame::Client => (None, Err(error)),
            (Err(error), before) => (before.map(Arc::clone), Err(error)),
        };
        // A question that failed has learnt nothing of the model, but is not to be asked again at once.
        let asked = before.filter(|_| !is_new).map_or(asked, |kept| kept.asked);
        entry.kept = known.map(|known| Kept { known, asked, answered: now() });
        if entry.kept.is_none() {
            remove(&mut entries, spec);
        }
        result
    }

    /// Asks servers what there is to know. If their protocol is not known yet, it is afterwards.
    async fn describe(&self, spec: &ModelSpec, deadline: Instant) -> Result<Described, Error> {
        if let Some(protocol) = self.pool.protocol() {
            return self.describe_by(protocol, spec, deadline).await;
        }
        let mut refusal = None;
        for protocol in [Protocol::TfsGrpc, Protocol::OipGrpc] {
            match self.describe_by(protocol, spec, deadline).await {
                Ok(described) => {
                    self.pool.speaks(protocol);
                    return Ok(described);
                }
                Err(error) if error.code() == Code::Unimplemented => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(ended))
    }

    async fn describe_by(
        &self,
        protocol: Protocol,
        spec: &ModelSpec,
        deadline: Instant,
    ) -> Result<Described, Error> {
        let mut ask = codec::ask_metadata(protocol, spec, self.pool.max_message)?;
        ask.headers.extend(self.headers.clone());
        let (reply, peer) = self.pool.call(&ask, deadline).await?;
        let described = codec::metadata(protocol, &reply.body);
        self.pool.judge(peer, described.is_ok());
        described
    }
}

enum Looked {
    Known(Arc<Known>),
    Asking(Asking),
}

type Entries = HashMap<ModelName, Vec<(VersionChoice, Entry)>>;

fn entry<'a>(entries: &'a mut Entries, spec: &ModelSpec) -> &'a mut Entry {
    let choices = entries.entry(spec.name.clone()).or_default();
    let at = choices.iter().position(|(choice, _)| *choice == spec.version).unwrap_or_else(|| {
        choices.push((spec.version.clone(), Entry::default()));
        choices.len() - 1
    });
    &mut choices[at].1
}

fn find<'a>(entries: &'a mut Entries, spec: &ModelSpec) -> Option<&'a mut Entry> {
    let choices = entries.get_mut(&spec.name)?;
    choices.iter_mut().find(|(choice, _)| *choice == spec.version).map(|(_, entry)| entry)
}

fn remove(entries: &mut Entries, spec: &ModelSpec) {
    if let Some(choices) = entries.get_mut(&spec.name) {
        choices.retain(|(choice, _)| *choice != spec.version);
        if choices.is_empty() {
            entries.remove(&spec.name);
        }
    }
}

/// Drops what has not been used for longest, when there is too much.
fn forget(entries: &mut Entries) {
    if entries.values().map(Vec::len).sum::<usize>() <= MOST {
        return;
    }
    let all = entries.iter().flat_map(|(name, choices)| choices.iter().map(move |choice| (name, choice)));
    let idle = all.filter(|(_, (_, entry))| entry.asking.is_none());
    let oldest = idle.min_by_key(|(_, (_, entry))| entry.used);
    let oldest =
        oldest.map(|(name, (version, _))| ModelSpec { name: name.clone(), version: version.clone() });
    if let Some(spec) = oldest {
        remove(entries, &spec);
    }
}

/// `new`, with the parts of `old` that are equal to its own.
fn merged(new: Known, old: &Arc<Known>) -> Arc<Known> {
    let is_same_signatures = new.signatures == old.signatures;
    if is_same_signatures && new.id == old.id && new.refused == old.refused && new.platform == old.platform {
        return Arc::clone(old);
    }
    let signatures = if is_same_signatures { old.signatures.clone() } else { new.signatures };
    Arc::new(Known { signatures, ..new })
}

fn known(spec: &ModelSpec, described: Described) -> Result<Known, Error> {
    let Described { versions, platform, signatures, refused } = described;
    if signatures.is_empty() {
        let text = format!("no signature of model '{}' can be used: {}", spec.name, refused.join("; "));
        return Err(Error::client(Code::FailedPrecondition, text));
    }
    let asked = match spec.version {
        VersionChoice::Number(number) => u64::try_from(number).ok(),
        VersionChoice::Latest | VersionChoice::Label(_) => None,
    };
    let version = asked.or(versions.into_iter().max()).unwrap_or(0);
    let id = ModelId { name: spec.name.clone(), version: Version(version) };
    Ok(Known { id, signatures, refused, platform })
}

/// The threads that own the connections are gone.
pub(crate) fn ended() -> Error {
    Error::new(Code::Unavailable, Blame::Us, "calls to other servers have ended")
}

#[cfg(test)]
mod tests {
    use salver_tensor::{DType, Dims, TensorSpec};

    use super::*;

    fn described(versions: &[u64], rows: Option<usize>) -> Described {
        let spec = TensorSpec {
            name: "x".into(),
            tensor_name: "x".into(),
            dtype: DType::F32,
            dims: Dims::new(vec![rows]),
            default: None,
        };
        let signature = Signature::new("serving_default", "", vec![spec.clone()], vec![spec]);
        Described {
            versions: versions.to_vec(),
            signatures: vec![Arc::new(signature)],
            ..Described::default()
        }
    }

    fn spec(version: VersionChoice) -> ModelSpec {
        ModelSpec { name: ModelName::new("m").unwrap(), version }
    }

    #[test]
    fn the_version_is_the_one_asked_for_or_the_highest() {
        for (choice, versions, expected) in [
            (VersionChoice::Latest, &[3][..], 3),
            (VersionChoice::Latest, &[1, 10, 9], 10),
            (VersionChoice::Latest, &[], 0),
            (VersionChoice::Number(9), &[1, 10, 9], 9),
            (VersionChoice::Label("stable".to_owned()), &[4], 4),
        ] {
            let known = known(&spec(choice.clone()), described(versions, None)).unwrap();
            assert_eq!(known.id.version, Version(expected), "{choice:?} of {versions:?}");
        }
        let unusable = Described { refused: vec!["signature 'a': why".to_owned()], ..Described::default() };
        let error = known(&spec(VersionChoice::Latest), unusable).unwrap_err();
        assert_eq!(error.message(), "no signature of model 'm' can be used: signature 'a': why");
    }

    #[test]
    fn what_is_the_same_stays_the_same() {
        let new = |version, rows| known(&spec(VersionChoice::Latest), described(&[version], rows)).unwrap();
        let old = Arc::new(new(1, None));
        assert!(Arc::ptr_eq(&merged(new(1, None), &old), &old));
        let other_version = merged(new(2, None), &old);
        assert_eq!(other_version.id.version, Version(2));
        assert!(Arc::ptr_eq(&other_version.signatures[0], &old.signatures[0]));
        let other_shape = merged(new(2, Some(4)), &old);
        assert!(!Arc::ptr_eq(&other_shape.signatures[0], &old.signatures[0]));
    }

    #[test]
    fn models_that_are_kept_have_a_bound() {
        let start = now();
        let mut entries = Entries::new();
        for number in 0..=MOST as u64 {
            let spec = spec(VersionChoice::Number(number as i64));
            entry(&mut entries, &spec).used = Some(start + Duration::from_secs((number + 5) % 1000));
            forget(&mut entries);
        }
        let kept = &entries[&ModelName::new("m").unwrap()];
        assert_eq!(kept.len(), MOST);
        // Used at the earliest moment.
        assert!(!kept.iter().any(|(choice, _)| *choice == VersionChoice::Number(995)));
    }
}
