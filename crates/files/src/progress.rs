//! How far a run has come: the file that says so, and its replacement as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use salver_records::{Error, Partition};
use serde::{Deserialize, Serialize};

use crate::Fingerprint;

/// The version of the progress file that is written and read.
pub const FORMAT: u32 = 1;
/// No progress file is larger.
const MAX_BYTES: u64 = 16 << 20;

/// What lasts of a run. Whatever the files hold after these lengths is of an interval that was not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// [`FORMAT`].
    pub format: u32,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// Bytes of the dead letters.
    pub dead_bytes: u64,
    /// The changelog.
    pub state: StatePart,
    /// Records are sent one by one: the output is never cut back, and records may come twice.
    pub append: bool,
    /// Where the inputs are, those that have given something.
    pub done: Vec<Done>,
    /// All inputs are done.
    pub finished: bool,
}

/// What lasts of a changelog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePart {
    /// Which file, `OUTPUT.state-N`.
    pub generation: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// The offset of the record that comes next.
    pub next: i64,
}

/// Up to where an input is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The file as it was named, or the topic.
    pub input: String,
    /// Its number: the place of the file among the inputs, or the partition of the topic.
    pub partition: i32,
    /// The first offset that is not done; of a file, the line that begins at `byte`.
    pub next: i64,
    /// Of a file: bytes that are done, unpacked.
    pub byte: Option<u64>,
    /// What the file was then; `None` of a stream or a topic.
    pub file: Option<Fingerprint>,
    /// Nothing comes after it.
    pub finished: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            format: FORMAT,
            output_bytes: 0,
            dead_bytes: 0,
            state: StatePart::default(),
            append: false,
            done: Vec::new(),
            finished: false,
        }
    }
}

impl Progress {
    /// The progress file beside an output.
    pub fn path(output: &Path) -> PathBuf {
        beside(output, ".progress")
    }

    /// What is written beside an output; `None` if nothing is.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is of another version.
    pub fn read(output: &Path) -> Result<Option<Progress>, Error> {
        Progress::read_file(&Progress::path(output))
    }

    /// What a progress file says; `None` if there is none.
    ///
    /// # Errors
    /// As [`Progress::read`].
    pub fn read_file(path: &Path) -> Result<Option<Progress>, Error> {
        let shown = path.display();
        let bytes = match fs::metadata(path).and_then(|about| match about.len() {
            0..=MAX_BYTES => fs::read(path),
            size => Err(io::Error::other(format!("it has {size} bytes, expected at most {MAX_BYTES}"))),
        }) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::fatal(format!("cannot read {shown}: {error}"))),
        };
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = |error| Error::fatal(format!("{shown} is not a progress file: {error}"));
        let version: Version = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version.format != FORMAT {
            let message = format!("{shown} is of format {}, expected {FORMAT}", version.format);
            return Err(Error::fatal(message));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Replaces a progress file. What is there afterwards is the old one or this one, whole.
    pub(crate) fn write(&self, path: &Path, sync: bool) -> Result<(), Error> {
        let failed = |error: io::Error| Error::fatal(format!("cannot write {}: {error}", path.display()));
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let draft = beside(path, ".new");
        let mut file = File::create(&draft).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        if sync {
            file.sync_data().map_err(failed)?;
        }
        fs::rename(&draft, path).map_err(failed)
    }

    /// The positions, as a source of another kind (a topic) is told to go on from them.
    pub fn positions(&self) -> Vec<(Partition, i64)> {
        let partition = |done: &Done| Partition { topic: done.input.as_str().into(), number: done.partition };
        self.done.iter().map(|done| (partition(done), done.next)).collect()
    }

    /// Takes over what was done.
    pub(crate) fn note(&mut self, done: Done) {
        let same = |old: &&mut Done| old.input == done.input && old.partition == done.partition;
        match self.done.iter_mut().find(same) {
            Some(old) => *old = done,
            None => self.done.push(done),
        }
    }
}

/// The path with something appended to the name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
