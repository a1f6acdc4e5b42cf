//! Writes lines to anything that takes bytes.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use salver_records::{Delivery, Error, Outgoing, Output, Receipt, Sink, Transaction};

use crate::tail::{Resume, Tail};
use crate::{Form, Packing, letters};

/// Bytes that are gathered before they are written.
const SPILL: usize = 256 * 1024;

/// Writes records one by one, to standard output above all: at least once, and never resumed. Dead letters go to a file;
/// state is not kept.
pub struct LineSink {
    to: Box<dyn Write + Send>,
    name: String,
    form: Form,
    buffer: Vec<u8>,
    /// Records that were taken and not told of.
    taken: Vec<Receipt>,
    dead_path: Option<PathBuf>,
    dead: Option<Tail>,
}

impl fmt::Debug for LineSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSink").field("to", &self.name).field("form", &self.form).finish_non_exhaustive()
    }
}

impl LineSink {
    /// A sink that writes there. `columns` is the header row of CSV. Dead letters are appended to `dead`; without it, the
    /// first one is a fatal error.
    pub fn new(
        name: &str,
        to: Box<dyn Write + Send>,
        form: Form,
        columns: Option<&[String]>,
        dead: Option<PathBuf>,
    ) -> LineSink {
        let mut buffer = Vec::new();
        letters::append_header(columns, form, &mut buffer);
        LineSink { to, name: name.into(), form, buffer, taken: Vec::new(), dead_path: dead, dead: None }
    }

    /// To standard output.
    pub fn stdout(form: Form, columns: Option<&[String]>, dead: Option<PathBuf>) -> LineSink {
        LineSink::new("-", Box::new(io::stdout()), form, columns, dead)
    }

    fn write(&mut self) -> Result<(), Error> {
        let result = self.to.write_all(&self.buffer).and_then(|()| self.to.flush());
        result.map_err(|error| Error::fatal(format!("cannot write {}: {error}", self.name)))?;
        self.buffer.clear();
        if let Some(dead) = &mut self.dead {
            dead.seal(true)?;
            dead.accept();
        }
        Ok(())
    }

    fn dead(&mut self) -> Result<&mut Tail, Error> {
        let Some(path) = &self.dead_path else {
            return Err(Error::fatal("a dead letter has nowhere to go: name a file for dead letters"));
        };
        match &mut self.dead {
            Some(dead) => Ok(dead),
            none => Ok(none.insert(Tail::open(path, Packing::Plain, Resume::AtLastRow(Form::JsonLines))?)),
        }
    }
}

impl Sink for LineSink {
    fn send(&mut self, record: Outgoing, receipt: Receipt) -> Result<(), Error> {
        match record.output {
            Output::Main => letters::append(&record, self.form, &mut self.buffer)?,
            Output::Dead => letters::append_dead(&record, self.dead()?.buffer())?,
            Output::Changelog => {}
        }
        self.taken.push(receipt);
        if self.buffer.len() >= SPILL { self.write() } else { Ok(()) }
    }

    fn deliveries(&mut self, _wait: Duration, into: &mut Vec<Delivery>) {
        if self.taken.is_empty() {
            return;
        }
        let result = self.write();
        into.extend(self.taken.drain(..).map(|receipt| Delivery { receipt, result: result.clone() }));
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.write()
    }

    fn is_transactional(&self) -> bool {
        false
    }

    fn begin(&mut self) -> Result<(), Error> {
        Err(Error::fatal(format!("{} cannot be written exactly once, only at least once", self.name)))
    }

    fn commit(&mut self, _transaction: &Transaction) -> Result<(), Error> {
        self.begin()
    }

    fn abort(&mut self) -> Result<(), Error> {
        self.begin()
    }
}
