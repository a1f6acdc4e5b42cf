//! Reads files and streams, line by line or row by row.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use salver_records::{
    Assignment, CUT_FROM, Error, Event, Group, Header, Lag, Partition, Position, Record, Slot, Source,
};

use crate::feed::Feed;
use crate::frame::Frame;
use crate::input::Input;
use crate::ledger::{Ledger, Spot};
use crate::{Form, Meter, Packing, Progress};

/// What is read, and how.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The files, one partition each, read one after the other; `-` alone is standard input.
    pub paths: Vec<PathBuf>,
    /// How records lie in them; `None` goes by their names (standard input: JSON lines).
    pub form: Option<Form>,
    /// Whether the first row of CSV names the columns.
    pub header: bool,
    /// Bytes of a record that are kept. Of a larger one the first so many are given, with a header
    /// [`salver_records::CUT_FROM`]. To let a limit of its own act, a pipeline asks for one byte more than it takes.
    pub max_record_bytes: usize,
    /// Where [`Source::commit`] remembers positions, when no [`crate::FileSink`] does. What it says goes before what an
    /// output's progress says.
    pub progress: Option<PathBuf>,
}

impl SourceSettings {
    /// Of these files, by their names.
    pub fn of(paths: Vec<PathBuf>) -> SourceSettings {
        SourceSettings { paths, form: None, header: true, max_record_bytes: 16 << 20, progress: None }
    }
}

/// Gives the lines or rows of files. Values are slices of what was read and share its memory; key and time are `None`.
/// Files are read on the thread that polls, streams on one of their own.
#[derive(Debug)]
pub struct FileSource {
    feeds: Vec<Feed>,
    ledger: Arc<Ledger>,
    meter: Arc<Meter>,
    columns: Option<Vec<String>>,
    progress: Option<(PathBuf, Progress)>,
    announced: bool,
    /// Nothing ever comes here: waiting for it is how nothing is waited for.
    silence: (SyncSender<()>, Receiver<()>),
}

impl FileSource {
    /// Opens the inputs, where an earlier run left off if `progress` says so. Blocks until the header rows are read.
    ///
    /// # Errors
    /// When an input cannot be read, has changed, or is not the one that the earlier run read; when headers differ.
    pub fn open(settings: &SourceSettings, progress: Option<&Progress>) -> Result<FileSource, Error> {
        let meter = Arc::new(Meter::default());
        let mut inputs = Vec::new();
        for path in &settings.paths {
            let (form, packing) = if settings.paths.len() == 1 && path == Path::new("-") {
                (Some(Form::JsonLines), Packing::Plain)
            } else {
                Form::of(path)
            };
            let form = settings.form.or(form).ok_or_else(|| unknown_form(path))?;
            let input = if path == Path::new("-") {
                Input::stream("-", Box::new(std::io::stdin()), meter.clone())?
            } else {
                Input::file(path, packing, meter.clone())?
            };
            inputs.push((input, form));
        }
        FileSource::of_inputs(inputs, settings, progress, meter)
    }

    /// Reads anything that gives bytes, once. `settings.paths` is not looked at.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn stream(
        name: &str,
        from: Box<dyn Read + Send>,
        settings: &SourceSettings,
    ) -> Result<FileSource, Error> {
        let meter = Arc::new(Meter::default());
        let input = Input::stream(name, from, meter.clone())?;
        FileSource::of_inputs(vec![(input, settings.form.unwrap_or(Form::JsonLines))], settings, None, meter)
    }

    fn of_inputs(
        inputs: Vec<(Input, Form)>,
        settings: &SourceSettings,
        progress: Option<&Progress>,
        meter: Arc<Meter>,
    ) -> Result<FileSource, Error> {
        if inputs.is_empty() {
            return Err(Error::fatal("no input file was named, expected at least one"));
        }
        let own = match &settings.progress {
            Some(path) => Some((path.clone(), Progress::read_file(path)?.unwrap_or_default())),
            None => None,
        };
        let progress = own.as_ref().map(|(_, own)| own).filter(|own| !own.done.is_empty()).or(progress);
        let names: Vec<&str> = inputs.iter().map(|(input, _)| &**input.name()).collect();
        check_names(&names, progress)?;
        let total = inputs.iter().map(|(input, _)| input.fingerprint().map(|file| file.size)).sum();
        meter.expect(total);
        let max_record_bytes = settings.max_record_bytes.max(1);
        let ledger = Arc::new(Ledger::default());
        let mut columns = None;
        let mut feeds = Vec::new();
        for (index, (input, form)) in inputs.into_iter().enumerate() {
            let number = i32::try_from(index).map_err(|_| Error::fatal("too many input files"))?;
            let mut feed = Feed::new(input, number, form, max_record_bytes);
            if settings.header && matches!(form, Form::Csv { .. }) {
                let row = feed.header()?;
                same_columns(&mut columns, row, &feed.partition.topic)?;
            }
            feed.go_to(progress)?;
            let base = feed.open_at.unwrap_or(Spot { byte: 0, line: feed.next });
            ledger.add(feed.partition.topic.clone(), feed.input.fingerprint(), base);
            feeds.push(feed);
        }
        Ok(FileSource {
            feeds,
            ledger,
            meter,
            columns,
            progress: own,
            announced: false,
            silence: sync_channel(0),
        })
    }

    /// The names of the columns, from the header of CSV.
    pub fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// How far reading has come.
    pub fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    fn idle(&self, wait: Duration) {
        match self.silence.1.recv_timeout(wait) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    /// Gives records of one input; how many bytes.
    fn take(
        &mut self,
        index: usize,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<usize, Error> {
        let slot = slot(index);
        let feed = &mut self.feeds[index];
        feed.begin()?;
        let (mut taken, mut places) = (0, Vec::new());
        let first = records.len();
        let result = loop {
            if taken >= max_bytes {
                // Whether there is another decides whether this was the last.
                break feed.look_ahead();
            }
            let wait = if records.is_empty() { wait } else { Duration::ZERO };
            match feed.next_frame(wait) {
                Ok(Some(frame)) => {
                    places.push((frame.line, Spot { byte: frame.end, line: frame.next_line }));
                    feed.next = frame.next_line;
                    let record = record(slot, frame);
                    taken += record.n_bytes();
                    records.push(record);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.ledger.give(index, &places);
        self.meter.add_records((records.len() - first) as u64);
        if feed.is_exhausted() {
            self.ledger.end(index);
            if taken < max_bytes && !feed.ended {
                feed.ended = true;
                feed.input.close();
                events.push(Event::End(slot));
            }
        }
        match result {
            // What was read before it goes first; the error comes again with the next call.
            Err(_) if records.len() > first => Ok(taken.max(max_bytes)),
            Err(error) => Err(error),
            Ok(()) => Ok(taken),
        }
    }
}

fn slot(index: usize) -> Slot {
    Slot(u32::try_from(index).unwrap_or(u32::MAX))
}

fn record(slot: Slot, frame: Frame) -> Record {
    let cut = |n_bytes: u64| Header { name: CUT_FROM.into(), value: Some(Bytes::from(n_bytes.to_string())) };
    Record {
        slot,
        offset: frame.line,
        key: None,
        value: Some(frame.value),
        headers: frame.cut_from.map(cut).into_iter().collect(),
        timestamp_ms: None,
    }
}

fn unknown_form(path: &Path) -> Error {
    let shown = path.display();
    Error::fatal(format!(
        "the name of {shown} does not say what it holds: expected .jsonl, .ndjson, .csv or .tsv, then .gz or .zst if it \
         is compressed, or a form in the settings"
    ))
}

fn check_names(names: &[&str], progress: Option<&Progress>) -> Result<(), Error> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Error::fatal(format!("input {name} is named twice, expected each file once")));
        }
    }
    for done in progress.map(|progress| &progress.done[..]).unwrap_or_default() {
        let now = usize::try_from(done.partition).ok().and_then(|number| names.get(number));
        if now != Some(&done.input.as_str()) {
            let now = now.map_or_else(|| "no file".to_owned(), |name| (*name).to_owned());
            return Err(Error::fatal(format!(
                "the run to be resumed read {} as input {}, now that is {now}: name the same files in the same order, or \
                 start over with another output",
                done.input, done.partition
            )));
        }
    }
    Ok(())
}

fn same_columns(columns: &mut Option<Vec<String>>, row: Vec<String>, name: &str) -> Result<(), Error> {
    match columns {
        Some(first) if *first != row => Err(Error::fatal(format!(
            "the header of {name} is {}, expected {} as in the first file",
            row.join(","),
            first.join(",")
        ))),
        Some(_) => Ok(()),
        None => {
            *columns = Some(row);
            Ok(())
        }
    }
}

impl Source for FileSource {
    fn poll(
        &mut self,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if !self.announced {
            self.announced = true;
            let assigned = self.feeds.iter().enumerate();
            let assigned =
                assigned.map(|(index, feed)| Assignment { slot: slot(index), next: Some(feed.next) });
            events.push(Event::Assigned(assigned.collect()));
            return Ok(());
        }
        let max_bytes = max_bytes.max(1);
        let (mut taken, mut waited) = (0, false);
        for index in 0..self.feeds.len() {
            if !self.feeds[index].is_active() {
                continue;
            }
            let wait = if taken == 0 && !waited { wait } else { Duration::ZERO };
            taken += self.take(index, wait, max_bytes - taken, records, events)?;
            waited = true;
            // Files are read one after the other: the next begins when this one has ended.
            if taken >= max_bytes || self.feeds[index].is_active() {
                break;
            }
        }
        if !waited {
            self.idle(wait);
        }
        Ok(())
    }

    fn partition(&self, slot: Slot) -> &Partition {
        let index = usize::try_from(slot.0).unwrap_or(usize::MAX).min(self.feeds.len() - 1);
        &self.feeds[index].partition
    }

    fn pause(&mut self, slots: &[Slot]) {
        self.set_paused(slots, true);
    }

    fn resume(&mut self, slots: &[Slot]) {
        self.set_paused(slots, false);
    }

    fn rewind(&mut self, to: &[Position]) -> Result<(), Error> {
        for position in to {
            let Some(feed) = self.feeds.get_mut(position.slot.0 as usize) else { continue };
            let name = &feed.partition.topic;
            if feed.open_at.is_none() && position.next >= feed.next {
                // It may be at its end, which comes again too.
                feed.ended = false;
                continue;
            }
            let Some(spot) = self.ledger.back_to(position.slot.0 as usize, position.next) else {
                let message =
                    format!("{name} cannot be read again from record {}: it is done", position.next);
                return Err(Error::fatal(message));
            };
            if !feed.input.is_file() && spot.line != feed.next {
                let message =
                    format!("{name} cannot be read again from record {}: it is a stream", position.next);
                return Err(Error::fatal(message));
            }
            if feed.input.is_file() {
                feed.input.close();
                feed.open_at = Some(spot);
                feed.ahead = None;
                feed.at_end = false;
            }
            feed.ended = false;
            feed.next = spot.line;
            feed.from = position.next;
        }
        Ok(())
    }

    fn give_up(&mut self, _slots: &[Slot]) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        let partitions =
            positions.iter().map(|position| (self.partition(position.slot).clone(), position.next));
        let partitions: Vec<_> = partitions.collect();
        if let Some((path, progress)) = &mut self.progress {
            for (partition, next) in &partitions {
                if let Some(done) = self.ledger.done(partition, *next) {
                    progress.note(done);
                }
            }
            progress.finished = self.ledger.covers(&progress.done);
            progress.write(path, true)?;
        }
        for (partition, next) in &partitions {
            self.ledger.settle(partition, *next);
        }
        Ok(())
    }

    fn group(&self) -> Option<Group> {
        Some(Group(self.ledger.clone()))
    }

    fn lags(&mut self) -> Vec<Lag> {
        let known = self.feeds.iter().enumerate().filter(|(_, feed)| feed.is_exhausted() || feed.ended);
        known.map(|(index, feed)| Lag { slot: slot(index), end: feed.next }).collect()
    }
}

impl FileSource {
    fn set_paused(&mut self, slots: &[Slot], paused: bool) {
        for slot in slots {
            if let Some(feed) = self.feeds.get_mut(slot.0 as usize) {
                feed.paused = paused;
            }
        }
    }
}
