//! Windows as the pipeline asks for them, kept by `steps`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use salver_records::{Partition, Restore, Severity};
use salver_steps::{Filled, Partial, State, StateSettings};
use salver_stream::{PushError, Pushed, Restoration, Restored, Windows};
use salver_tensor::Tensor;
use tracing::{info, warn};

use super::file;

/// Windows of one input, and where they are restored from.
#[derive(Debug)]
pub(super) struct Kept {
    input: String,
    state: State,
    /// The changelog; without it windows begin anew with every assignment.
    changelog: Option<Arc<Mutex<Box<dyn Restore>>>>,
}

impl Kept {
    /// Opens the store. `name` is whose state it is, `changelog` where it is restored from.
    ///
    /// # Errors
    /// When the store belongs to others, or cannot be opened.
    pub(super) fn open(
        window: &file::Window,
        name: &str,
        changelog: Option<Box<dyn Restore>>,
    ) -> anyhow::Result<Kept> {
        let state = State::open(&settings(window, name)).context("[window]")?;
        let changelog = changelog.map(|changelog| Arc::new(Mutex::new(changelog)));
        Ok(Kept { input: window.input.clone(), state, changelog })
    }

    /// Windows in memory, of the first records.
    ///
    /// # Errors
    /// As [`Kept::open`].
    pub(super) fn to_look(window: &file::Window) -> anyhow::Result<Kept> {
        let window = file::Window { store: None, ..window.clone() };
        Kept::open(&window, "", None)
    }
}

fn settings(window: &file::Window, name: &str) -> StateSettings {
    let default = StateSettings::of(window.rows);
    StateSettings {
        dir: window.store.clone(),
        name: name.to_owned(),
        rows: window.rows,
        history: window.history.unwrap_or(default.history),
        step: window.step.unwrap_or(default.step),
        partial: match window.partial {
            None | Some(file::Partial::Wait) => Partial::Wait,
            Some(file::Partial::Zeros) => Partial::Zeros,
            Some(file::Partial::First) => Partial::First,
        },
        ttl: window.ttl_seconds.map(|seconds| Duration::from_secs(seconds.get())),
        max_keys: window.max_keys.unwrap_or(default.max_keys),
        max_bytes: window.max_bytes.unwrap_or(default.max_bytes),
    }
}

impl Windows for Kept {
    fn input(&self) -> &str {
        &self.input
    }

    fn restoration(&mut self, partition: &Partition) -> Result<Restoration, String> {
        let restorer = self.state.begin(partition.number).map_err(|error| error.to_string())?;
        let changelog = self.changelog.clone();
        Ok(Box::new(move |is_wanted| {
            // Nobody else reads it now.
            let mut changelog =
                changelog.as_ref().map(|changelog| changelog.lock().unwrap_or_else(PoisonError::into_inner));
            let restore = changelog.as_mut().map(|changelog| &mut ***changelog as &mut dyn Restore);
            let filled = restorer.run(restore, is_wanted)?;
            Ok(Box::new(filled) as Restored)
        }))
    }

    fn assign(&mut self, partition: &Partition, restored: Restored) -> Result<(), String> {
        let filled: Box<Filled> = restored.downcast().expect("it is what the restoration gave");
        let restored = self.state.take_on(*filled).map_err(|error| error.to_string())?;
        info!(%partition, "windows of {} keys, after {} changes", restored.keys, restored.records);
        Ok(())
    }

    fn push(
        &mut self,
        partition: &Partition,
        key: &[u8],
        offset: i64,
        timestamp_ms: Option<i64>,
        row: &Tensor,
    ) -> Result<Pushed, PushError> {
        let pushed = self.state.push_at(partition.number, key, offset, timestamp_ms, row).map_err(
            |error| match error.severity() {
                Severity::Record => PushError::Row(error.to_string()),
                _ => PushError::Store(error.to_string()),
            },
        )?;
        let mut changes = Vec::new();
        if self.changelog.is_some() {
            changes.push(pushed.change);
            changes.extend(pushed.deleted);
        }
        Ok(Pushed { window: pushed.window, changes })
    }

    fn committed(&mut self, partition: &Partition, next: i64) -> Result<(), String> {
        self.state.committed(partition.number, next).map_err(|error| error.to_string())
    }

    fn rewind(&mut self, partition: &Partition, next: i64) -> Result<(), String> {
        self.state.rewind(partition.number, next);
        Ok(())
    }

    fn release(&mut self, partition: &Partition) {
        if let Err(error) = self.state.release(partition.number) {
            warn!(%partition, "windows could not be stored: {error}");
        }
    }

    fn n_bytes(&self) -> u64 {
        u64::try_from(self.state.n_bytes()).unwrap_or(u64::MAX)
    }
}
