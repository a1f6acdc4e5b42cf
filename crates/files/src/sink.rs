//! Writes an output that lasts in intervals.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use salver_records::{Delivery, Error, Group, Outgoing, Output, Partition, Receipt, Sink, Transaction};

use crate::ledger::Ledger;
use crate::progress::beside;
use crate::state::StateFile;
use crate::tail::{Resume, Tail};
use crate::{Done, Form, Packing, Progress, letters};

/// What is written, and how.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// The output.
    pub path: PathBuf,
    /// How records lie in it; `None` goes by its name.
    pub form: Option<Form>,
    /// The header row of CSV, written once.
    pub columns: Option<Vec<String>>,
    /// The file for dead letters; `None` is `OUTPUT.dead.jsonl`.
    pub dead: Option<PathBuf>,
    /// Whether an output that is there, finished or not, is thrown away.
    pub overwrite: bool,
    /// Whether a commit forces what was written to disk. Without it a commit outlives the process, not the machine.
    pub sync: bool,
}

impl SinkSettings {
    /// To that file, by its name; what is there already is not touched.
    pub fn of(path: PathBuf) -> SinkSettings {
        SinkSettings { path, form: None, columns: None, dead: None, overwrite: false, sync: true }
    }

    fn dead_path(&self) -> PathBuf {
        self.dead.clone().unwrap_or_else(|| beside(&self.path, ".dead.jsonl"))
    }

    /// What an earlier run left of this output, to be given to [`crate::FileSource::open`] and [`FileSink::open`]; `None` if
    /// the run begins anew.
    ///
    /// # Errors
    /// When there is an output that no run says it made and that may not be overwritten, or the progress cannot be read.
    pub fn progress(&self) -> Result<Option<Progress>, Error> {
        if self.overwrite {
            return Ok(None);
        }
        if let Some(progress) = Progress::read(&self.path)? {
            return Ok(Some(progress));
        }
        for path in [&self.path, &self.dead_path()] {
            // An empty one is all that is left by a run that was killed before it wrote anything.
            if fs::metadata(path).is_ok_and(|about| about.len() > 0 || !about.is_file()) {
                return Err(Error::fatal(format!(
                    "{} exists and no progress file says how it was made: choose another output or overwrite it",
                    path.display()
                )));
            }
        }
        Ok(None)
    }
}

/// Appends to an output. An interval lasts when [`Sink::commit`] returns, together with its dead letters, its changelog and
/// the positions of the source; what a killed process wrote after the last commit is cut off by the next [`FileSink::open`].
///
/// Records may also be sent one by one, outside of any transaction. Then the output is never cut back (but for a last row
/// that was not finished), and where to go on is the source's to remember: at least once, from then on. Compressed outputs and
/// changelogs need transactions.
#[derive(Debug)]
pub struct FileSink {
    form: Form,
    sync: bool,
    packing: Packing,
    /// The header row of CSV, or nothing.
    header: Vec<u8>,
    progress_path: PathBuf,
    progress: Progress,
    output_path: PathBuf,
    main: Tail,
    dead_path: PathBuf,
    dead: Option<Tail>,
    state: Option<StateFile>,
    in_transaction: bool,
    /// Who read what was committed last.
    group: Option<Group>,
    /// Sent one by one and not told of.
    taken: Vec<Receipt>,
}

impl FileSink {
    /// Opens an output to be begun, or to be resumed from what [`SinkSettings::progress`] gave.
    ///
    /// # Errors
    /// When it cannot be written, another process is writing it, or it is shorter than it was.
    pub fn open(settings: &SinkSettings, progress: Option<Progress>) -> Result<FileSink, Error> {
        if progress.is_none() && !settings.overwrite && settings.progress()?.is_some() {
            let shown = settings.path.display();
            return Err(Error::fatal(format!(
                "{shown} has a progress file: resume from it or overwrite the output"
            )));
        }
        let (form, packing) = Form::of(&settings.path);
        let form = settings.form.or(form).ok_or_else(|| unknown_form(&settings.path))?;
        let progress_path = Progress::path(&settings.path);
        let begun = progress.is_some();
        let progress = progress.unwrap_or_default();
        let dead_path = settings.dead_path();
        let resume =
            |form, length| if progress.append { Resume::AtLastRow(form) } else { Resume::At(length) };
        // The lock comes before anything of another process could be overwritten.
        let mut main = Tail::lock(&settings.path, packing)?;
        if !begun {
            // Said before anything is cut, so that a kill in between leaves something that can be resumed.
            progress.write(&progress_path, settings.sync)?;
            remove_states(&settings.path)?;
            if dead_path.exists() {
                Tail::open(&dead_path, Packing::Plain, Resume::At(0))?;
            }
        }
        main.resume(resume(form, progress.output_bytes))?;
        let dead = match progress.dead_bytes > 0 || (begun && dead_path.exists()) {
            true => {
                let resume = resume(Form::JsonLines, progress.dead_bytes);
                Some(Tail::open(&dead_path, Packing::Plain, resume)?)
            }
            false => None,
        };
        let state = match progress.state.bytes {
            0 => None,
            _ => Some(StateFile::open(&settings.path, progress.state)?),
        };
        let mut header = Vec::new();
        letters::append_header(settings.columns.as_deref(), form, &mut header);
        let mut sink = FileSink {
            form,
            header,
            sync: settings.sync,
            packing,
            progress_path,
            progress,
            output_path: settings.path.clone(),
            main,
            dead_path,
            dead,
            state,
            in_transaction: false,
            group: None,
            taken: Vec::new(),
        };
        // An output without any record has a header too.
        sink.main.begin(&sink.header)?;
        Ok(sink)
    }

    /// What lasts.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Writes the first record outside of a transaction: from here on the output is never cut back.
    fn begin_appending(&mut self) -> Result<(), Error> {
        if self.packing != Packing::Plain {
            let shown = self.output_path.display();
            return Err(Error::fatal(format!(
                "{shown} is compressed and can be written in transactions only"
            )));
        }
        if !self.progress.append {
            self.progress.append = true;
            self.progress.write(&self.progress_path, self.sync)?;
        }
        Ok(())
    }

    fn seal(&mut self, transaction: &Transaction) -> Result<Progress, Error> {
        let ledger = transaction.group.as_ref().and_then(|group| group.get::<Ledger>());
        let mut progress = self.progress.clone();
        progress.output_bytes = self.main.seal(self.sync)?;
        if let Some(dead) = &mut self.dead {
            progress.dead_bytes = dead.seal(self.sync)?;
        }
        if let Some(state) = &mut self.state {
            progress.state = state.seal(self.sync)?;
        }
        for (partition, next) in &transaction.positions {
            let done = ledger.and_then(|ledger| ledger.done(partition, *next));
            progress.note(done.unwrap_or_else(|| elsewhere(partition, *next)));
        }
        progress.finished = ledger.is_some_and(|ledger| ledger.covers(&progress.done));
        progress.write(&self.progress_path, self.sync)?;
        Ok(progress)
    }

    /// Tells what was sent one by one: it is in the files.
    fn append_all(&mut self) -> Result<(), Error> {
        self.main.seal(self.sync)?;
        self.main.accept();
        if let Some(dead) = &mut self.dead {
            dead.seal(self.sync)?;
            dead.accept();
        }
        Ok(())
    }
}

/// The position of a source that is no file.
fn elsewhere(partition: &Partition, next: i64) -> Done {
    let (input, partition) = (partition.topic.to_string(), partition.number);
    Done { input, partition, next, byte: None, file: None, finished: false }
}

fn unknown_form(path: &Path) -> Error {
    let shown = path.display();
    Error::fatal(format!(
        "the name of {shown} does not say what it shall hold: expected .jsonl, .ndjson, .csv or .tsv, then .gz or .zst to \
         compress it, or a form in the settings"
    ))
}

/// Removes the changelogs of an output that begins anew.
fn remove_states(output: &Path) -> Result<(), Error> {
    let prefix = beside(Path::new(output.file_name().unwrap_or_default()), ".state-");
    let prefix = prefix.as_os_str().as_encoded_bytes();
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error| Error::fatal(format!("cannot remove old state in {}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix);
        if number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// The end of an input may have been found after the last commit.
impl Drop for FileSink {
    fn drop(&mut self) {
        let ledger = self.group.as_ref().and_then(Group::get::<Ledger>);
        let is_covered = ledger.is_some_and(|ledger| ledger.covers(&self.progress.done));
        let is_left = !self.main.is_lasting() || self.dead.as_ref().is_some_and(|dead| !dead.is_lasting());
        if is_covered && !is_left && !self.progress.finished && !self.progress.append {
            self.progress.finished = true;
            // Without it the next run finds that there is nothing left to do.
            drop(self.progress.write(&self.progress_path, self.sync));
        }
    }
}

impl Sink for FileSink {
    fn send(&mut self, record: Outgoing, receipt: Receipt) -> Result<(), Error> {
        if !self.in_transaction {
            self.begin_appending()?;
        }
        match record.output {
            Output::Main => {
                letters::append(&record, self.form, self.main.buffer())?;
                self.main.spill()?;
            }
            Output::Dead => {
                let dead = match &mut self.dead {
                    Some(dead) => dead,
                    none => none.insert(Tail::open(&self.dead_path, Packing::Plain, Resume::At(0))?),
                };
                letters::append_dead(&record, dead.buffer())?;
                dead.spill()?;
            }
            Output::Changelog if !self.in_transaction => {
                return Err(Error::fatal("state over files can be kept in transactions only"));
            }
            Output::Changelog => {
                let state = match &mut self.state {
                    Some(state) => state,
                    none => none.insert(StateFile::open(&self.output_path, self.progress.state)?),
                };
                state.append(&record)?;
            }
        }
        if !self.in_transaction {
            self.taken.push(receipt);
        }
        Ok(())
    }

    fn deliveries(&mut self, _wait: Duration, into: &mut Vec<Delivery>) {
        if self.taken.is_empty() {
            return;
        }
        let result = self.append_all();
        into.extend(self.taken.drain(..).map(|receipt| Delivery { receipt, result: result.clone() }));
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.in_transaction { Ok(()) } else { self.append_all() }
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.progress.append {
            return Err(Error::fatal(format!(
                "{} was written one by one, so that it does not say up to where its input is done: go on at least once, or \
                 start over with another output",
                self.output_path.display()
            )));
        }
        self.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.progress = self.seal(transaction)?;
        self.in_transaction = false;
        self.main.accept();
        if let Some(dead) = &mut self.dead {
            dead.accept();
        }
        if let Some(state) = &mut self.state {
            state.accept()?;
        }
        self.group.clone_from(&transaction.group);
        if let Some(ledger) = transaction.group.as_ref().and_then(|group| group.get::<Ledger>()) {
            for (partition, next) in &transaction.positions {
                ledger.settle(partition, *next);
            }
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Error> {
        self.in_transaction = false;
        self.main.abort()?;
        self.main.begin(&self.header)?;
        if let Some(dead) = &mut self.dead {
            dead.abort()?;
        }
        if let Some(state) = &mut self.state {
            state.abort(self.progress.state)?;
        }
        Ok(())
    }
}
