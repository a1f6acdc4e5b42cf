//! One input of a source, and how far it is.

use std::time::Duration;

use salver_records::{Error, Partition};

use crate::frame::{Frame, Framer};
use crate::input::{Got, Input};
use crate::ledger::Spot;
use crate::{Form, Progress};

/// One input and how far it is.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) input: Input,
    pub(crate) partition: Partition,
    form: Form,
    pub(crate) framer: Framer,
    /// Where reading begins when it begins; the input is open if there is none.
    pub(crate) open_at: Option<Spot>,
    /// A record that was read ahead, to know whether there is one.
    pub(crate) ahead: Option<Frame>,
    /// The input is read to its end.
    pub(crate) at_end: bool,
    /// Why reading came to an end before that. A reader that failed once need not fail again.
    failure: Option<Error>,
    /// [`salver_records::Event::End`] was given.
    pub(crate) ended: bool,
    pub(crate) paused: bool,
    /// After the last record given.
    pub(crate) next: i64,
    /// Records before it are passed over.
    pub(crate) from: i64,
}

impl Feed {
    pub(crate) fn new(input: Input, number: i32, form: Form, max_bytes: usize) -> Feed {
        let partition = Partition { topic: input.name().clone(), number };
        Feed {
            input,
            partition,
            form,
            framer: Framer::new(form, max_bytes, 0, 0),
            open_at: Some(Spot::default()),
            ahead: None,
            at_end: false,
            failure: None,
            ended: false,
            paused: true,
            next: 0,
            from: 0,
        }
    }

    /// Reads the header row, which is no record.
    pub(crate) fn header(&mut self) -> Result<Vec<String>, Error> {
        self.begin()?;
        let name = self.partition.topic.clone();
        let row = loop {
            match self.next_frame(Duration::from_secs(1))? {
                Some(row) => break row,
                None if self.at_end => {
                    return Err(Error::fatal(format!(
                        "{name} is empty, expected a row that names the columns"
                    )));
                }
                None => {}
            }
        };
        if row.cut_from.is_some() {
            return Err(Error::fatal(format!("the header of {name} is larger than a record may be")));
        }
        self.next = row.next_line;
        self.open_at = self.input.is_file().then_some(Spot { byte: row.end, line: row.next_line });
        // Until its turn comes, so that there may be more inputs than files that a process may have open.
        self.input.close();
        self.ahead = None;
        fields(self.form, &row.value).map_err(|error| Error::fatal(format!("the header of {name}: {error}")))
    }

    /// Goes to where an earlier run left off, if it did.
    pub(crate) fn go_to(&mut self, progress: Option<&Progress>) -> Result<(), Error> {
        let name = &self.partition.topic;
        let number = self.partition.number;
        let done = progress.and_then(|progress| progress.done.iter().find(|done| done.partition == number));
        let Some(done) = done else { return Ok(()) };
        let (Some(byte), Some(then), Some(now)) = (done.byte, done.file, self.input.fingerprint()) else {
            return Err(Error::fatal(format!(
                "{name} is a stream and cannot be resumed at record {}: start over with another output",
                done.next
            )));
        };
        if let Some(what) = then.differs(&now) {
            return Err(Error::fatal(format!(
                "{name} has changed since the run that is to be resumed: {what}; start over with another output"
            )));
        }
        self.open_at = Some(Spot { byte, line: done.next });
        self.next = done.next;
        Ok(())
    }

    /// Opens the input, if it is not.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        let Some(spot) = self.open_at else { return Ok(()) };
        self.input.open_at(spot.byte)?;
        self.framer = Framer::new(self.form, self.framer.max_bytes(), spot.byte, spot.line);
        self.ahead = None;
        self.at_end = false;
        self.failure = None;
        self.ended = false;
        self.open_at = None;
        Ok(())
    }

    /// The next record; `None` if there is none, or, of a stream, if none came in time.
    pub(crate) fn next_frame(&mut self, wait: Duration) -> Result<Option<Frame>, Error> {
        if let Some(frame) = self.ahead.take() {
            return Ok(Some(frame));
        }
        loop {
            match self.framer.next(self.at_end) {
                Some(frame) if frame.line < self.from => continue,
                Some(frame) => return Ok(Some(frame)),
                None => {}
            }
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            if self.at_end {
                return Ok(None);
            }
            match self.input.read(self.framer.buffer(), wait) {
                Ok(Got::Bytes) => {}
                Ok(Got::NothingYet) => return Ok(None),
                Ok(Got::End) => self.at_end = true,
                Err(error) => self.failure = Some(error),
            }
        }
    }

    pub(crate) fn look_ahead(&mut self) -> Result<(), Error> {
        if self.ahead.is_none() {
            self.ahead = self.next_frame(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Nothing comes after what was given.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.at_end && self.ahead.is_none() && self.framer.is_empty()
    }

    /// Whether a poll has something to do with it.
    pub(crate) fn is_active(&self) -> bool {
        !self.paused && !self.ended
    }
}

/// The fields of a row.
fn fields(form: Form, row: &[u8]) -> Result<Vec<String>, String> {
    let Form::Csv { delimiter, quote } = form else { return Ok(Vec::new()) };
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).quote(quote).build();
    let (mut text, mut ends) = (vec![0; row.len() + 1], vec![0; row.len() + 2]);
    let (_, n_read, mut n_text, mut n_ends) = reader.read_record(row, &mut text, &mut ends);
    if n_read < row.len() {
        return Err(
            "it has a carriage return that no line feed follows, expected rows that end with \\n or \\r\\n"
                .into(),
        );
    }
    let (_, _, more_text, more_ends) = reader.read_record(&[], &mut text[n_text..], &mut ends[n_ends..]);
    n_text += more_text;
    n_ends += more_ends;
    let mut fields = Vec::new();
    let mut start = 0;
    for &end in &ends[..n_ends] {
        let field = text.get(start..end.min(n_text)).unwrap_or_default();
        let field =
            std::str::from_utf8(field).map_err(|_| format!("field {} is not UTF-8", fields.len() + 1))?;
        fields.push(field.to_owned());
        start = end;
    }
    Ok(fields)
}
