//! Settings that change while models are served: files are looked at again, and what may change does.
//!
//! A file counts once two looks have found the same, so that one half written changes nothing; and one that has gone from under a
//! loaded version changes nothing either.

mod looks;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use salver_batch::Policy;
use salver_predict::ModelId;
use salver_servable::Servables;
use salver_store::PollMode;
use tracing::{error, info, warn};

use crate::announce::Changes;
use crate::batching;
use crate::loading::Loading;
use crate::reload::looks::Looks;

/// How long to sleep where files are looked at only when that is asked for.
const LONG: Duration = Duration::from_secs(3600);

/// How long to sleep at most where a file has just changed and is to be looked at once more.
const SOON: Duration = Duration::from_secs(1);

/// Looks at the files again, every so often and whenever `asked` is notified, until the process ends. Blocks; has a thread of
/// its own.
pub(crate) fn watch(loading: &Loading, servables: &Servables, mode: PollMode, asked: &Changes) {
    let interval = match mode {
        PollMode::Every(interval) => Some(interval),
        PollMode::Once | PollMode::Never => None,
    };
    let (mut said, mut looks) = (Said::default(), Looks::default());
    let mut is_settled = true;
    loop {
        let pause = interval.unwrap_or(LONG);
        let is_asked = asked.wait(if is_settled { pause } else { pause.min(SOON) });
        if is_asked || interval.is_some() || !is_settled {
            is_settled = look(loading, servables, &mut looks, &mut said);
        }
    }
}

/// What was last said of each file or version, so that it is said once.
#[derive(Debug, Default)]
struct Said(HashMap<String, String>);

impl Said {
    /// Whether this is new. An empty text is never new, and forgets what was said.
    fn is_new(&mut self, about: &str, text: &str) -> bool {
        if text.is_empty() {
            self.0.remove(about);
            return false;
        }
        self.0.insert(about.to_owned(), text.to_owned()).as_deref() != Some(text)
    }
}

/// A loaded version, and what its policy becomes.
struct Change {
    id: ModelId,
    place: PathBuf,
    policy: Policy,
}

/// Whether no file waits for a second look.
fn look(loading: &Loading, servables: &Servables, looks: &mut Looks, said: &mut Said) -> bool {
    let mut loaded: Vec<(ModelId, PathBuf, Arc<Policy>)> = Vec::new();
    servables.each_loaded(|one| loaded.push((one.id().clone(), one.info().place.clone(), one.policy())));
    let is_loaded = |name: &str, place: &Path| {
        loaded.iter().any(|(id, known, _)| id.name.as_str() == name && known == place)
    };
    // A version that lies there may be loading just now.
    loading.keep(|name, place| is_loaded(name, place) || place.exists());
    said.0.retain(|about, _| about.is_empty() || loaded.iter().any(|(id, ..)| label(id) == *about));
    let own = loaded.iter().flat_map(|(_, place, _)| loading.files_of(place));
    looks.next(loading.common_files().into_iter().chain(own));
    let mut is_settled = look_at_common(loading, looks, said);
    let mut changes = Vec::new();
    for (id, place, before) in loaded {
        let files = loading.files_of(&place);
        // Said and done is only what the same files say before and after they are read.
        let read = looks.are_still(files.iter()).then(|| loading.policy(id.name.as_str(), &place));
        let Some(read) = read.filter(|_| looks.are_same(files.iter())) else {
            is_settled = false;
            continue;
        };
        if let Some(policy) = consider(&label(&id), read, said).filter(|policy| *policy != *before) {
            changes.push(Change { id, place, policy });
        }
    }
    if !changes.is_empty() {
        apply(servables, &changes);
    }
    is_settled
}

/// Reads the files that flags name, unless they change just now; whether they do not.
fn look_at_common(loading: &Loading, looks: &Looks, said: &mut Said) -> bool {
    let files = loading.common_files();
    if !looks.are_still(files.iter()) {
        return false;
    }
    let wrong = loading.read_files().err().map(|error| format!("{error:#}")).unwrap_or_default();
    let is_same = looks.are_same(files.iter());
    if is_same && said.is_new("", &wrong) {
        error!("settings stay as they are: {wrong}");
    }
    is_same
}

/// What a version's files ask for, if they can be followed; says what cannot.
fn consider(about: &str, read: anyhow::Result<(Policy, Vec<String>)>, said: &mut Said) -> Option<Policy> {
    match read {
        Ok((policy, waiting)) => {
            let waiting = waiting.join(", ");
            if said.is_new(about, &waiting) {
                warn!("model {about}: needs a new version or a restart: {waiting}");
            }
            Some(policy)
        }
        Err(error) => {
            let text = format!("{error:#}");
            if said.is_new(about, &text) {
                error!("model {about}: settings stay as they are: {text}");
            }
            None
        }
    }
}

fn apply(servables: &Servables, changes: &[Change]) {
    servables.each_loaded(|one| {
        let is_this = |change: &&Change| change.id == *one.id() && change.place == one.info().place;
        let Some(change) = changes.iter().find(is_this) else { return };
        let before = one.policy();
        match one.set_policy(change.policy.clone()) {
            Ok(()) => {
                for line in batching::changes(&before, &change.policy) {
                    info!("model {}: {line}", label(&change.id));
                }
            }
            Err(error) => error!("model {}: settings stay as they are: {error}", label(&change.id)),
        }
    });
}

fn label(id: &ModelId) -> String {
    format!("{}/{}", id.name, id.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_said_once_until_it_changes() {
        let mut said = Said::default();
        let said = [("", ""), ("", "a"), ("", "a"), ("x", "a"), ("", "b"), ("", ""), ("", "b")]
            .map(|(about, text)| said.is_new(about, text));
        assert_eq!(said, [false, true, false, true, true, false, true]);
    }
}
