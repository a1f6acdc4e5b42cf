//! Cuts bytes into lines or rows. Pure: bytes go in as they come, frames come out.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use memchr::{memchr, memchr_iter, memchr2};

use crate::Form;

/// The mark that some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line or row, without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The line on which it begins.
    pub(crate) line: i64,
    /// The line after it.
    pub(crate) next_line: i64,
    /// The byte after it and its line break.
    pub(crate) end: u64,
    /// Its bytes, or the first of them.
    pub(crate) value: Bytes,
    /// How many bytes there were, if there were more.
    pub(crate) cut_from: Option<u64>,
}

/// A row that is too large to be kept: what is known of the part that was thrown away.
#[derive(Debug)]
struct Long {
    kept: Bytes,
    n_bytes: u64,
    line_breaks: i64,
    last: u8,
}

/// What ends a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// A line break, which is not of the row.
    Break,
    /// The end of the file: a line break before it is of the row, in quotes that are not closed.
    File,
}

pub(crate) struct Framer {
    form: Form,
    max_bytes: usize,
    /// What was put in and not given out; begins within the row that is being read.
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no end of the row.
    searched: usize,
    /// The position of the buffer's first byte.
    position: u64,
    /// The line on which the row begins.
    line: i64,
    long: Option<Long>,
    /// Finds the end of a row that has quotes.
    rows: Box<Reader>,
    /// The row has quotes: only `rows` knows where it ends.
    quoted: bool,
    /// A byte order mark may come.
    at_start: bool,
}

impl fmt::Debug for Framer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer")
            .field("form", &self.form)
            .field("position", &self.position)
            .field("line", &self.line)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl Framer {
    /// Of bytes that begin at that position, with that line. Values of more than `max_bytes` are cut.
    pub(crate) fn new(form: Form, max_bytes: usize, position: u64, line: i64) -> Framer {
        let (delimiter, quote) = match form {
            Form::Csv { delimiter, quote } => (delimiter, quote),
            Form::JsonLines => (b',', b'"'),
        };
        let mut rows = ReaderBuilder::new();
        rows.delimiter(delimiter).quote(quote).terminator(Terminator::Any(b'\n'));
        Framer {
            form,
            max_bytes: max_bytes.max(1),
            buffer: BytesMut::new(),
            searched: 0,
            position,
            line,
            long: None,
            rows: Box::new(rows.build()),
            quoted: false,
            at_start: position == 0,
        }
    }

    /// Where bytes are to be appended, and nothing else done.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// As it was made with.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Nothing is buffered.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.long.is_none()
    }

    /// The next frame; `None` if more bytes are needed, or if there is nothing more and `at_end` says so. Blank lines are
    /// passed over.
    pub(crate) fn next(&mut self, at_end: bool) -> Option<Frame> {
        if self.at_start && !self.pass_mark(at_end) {
            return None;
        }
        loop {
            let (end, ending) = match self.find_end() {
                Some(end) => (end, Ending::Break),
                None if !at_end => {
                    if self.long.is_some() || self.buffer.len() > self.max_bytes.saturating_add(2) {
                        self.shorten();
                    }
                    return None;
                }
                None if self.buffer.is_empty() && self.long.is_none() => return None,
                None => (self.buffer.len(), Ending::File),
            };
            if let Some(frame) = self.take(end, ending) {
                return Some(frame);
            }
        }
    }

    /// Passes over a byte order mark; `false` as long as it cannot be told.
    fn pass_mark(&mut self, at_end: bool) -> bool {
        if self.buffer.len() < BYTE_ORDER_MARK.len() && !at_end && BYTE_ORDER_MARK.starts_with(&self.buffer) {
            return false;
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.advance(BYTE_ORDER_MARK.len());
            self.position += BYTE_ORDER_MARK.len() as u64;
        }
        self.at_start = false;
        true
    }

    /// The index after the row's line feed.
    fn find_end(&mut self) -> Option<usize> {
        let rest = &self.buffer[self.searched..];
        let found = match self.form {
            Form::JsonLines => memchr(b'\n', rest),
            Form::Csv { .. } if self.quoted => return self.find_row_end(self.searched),
            Form::Csv { quote, .. } => memchr2(b'\n', quote, rest),
        };
        let Some(at) = found.map(|at| self.searched + at) else {
            self.searched = self.buffer.len();
            return None;
        };
        if self.buffer[at] == b'\n' {
            return Some(at + 1);
        }
        // What a quote means depends on the byte before it only, so that the search begins there.
        self.quoted = true;
        self.rows.reset();
        if at > 0 {
            return self.find_row_end(at - 1);
        }
        if let Some(long) = &self.long {
            self.rows.read_record(&[long.last], &mut [0; 4], &mut [0; 4]);
        }
        self.find_row_end(0)
    }

    /// The index after the row's line feed, by the state machine, which has seen the row up to `from`.
    fn find_row_end(&mut self, mut from: usize) -> Option<usize> {
        let (mut fields, mut ends) = ([0; 1024], [0; 64]);
        while from < self.buffer.len() {
            let (result, n_read, ..) = self.rows.read_record(&self.buffer[from..], &mut fields, &mut ends);
            from += n_read;
            if matches!(result, ReadRecordResult::Record) {
                return Some(from);
            }
        }
        self.searched = from;
        None
    }

    /// Throws away what is buffered of a row that is too large, but for its beginning. All of it was searched.
    fn shorten(&mut self) {
        let Some(&last) = self.buffer.last() else { return };
        let long = self.long.get_or_insert_with(|| Long {
            kept: Bytes::copy_from_slice(&self.buffer[..self.max_bytes]),
            n_bytes: 0,
            line_breaks: 0,
            last,
        });
        long.n_bytes += self.buffer.len() as u64;
        long.line_breaks += count_line_breaks(&self.buffer);
        long.last = last;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        self.searched = 0;
    }

    /// Takes the row that ends there out of the buffer; `None` if it is blank.
    fn take(&mut self, end: usize, ending: Ending) -> Option<Frame> {
        let mut row = self.buffer.split_to(end).freeze();
        self.position += end as u64;
        self.searched = 0;
        self.quoted = false;
        let line = self.line;
        let is_break = &row[..] == b"\n";
        let mut line_breaks = count_line_breaks(&row);
        if ending == Ending::Break {
            row.truncate(row.len() - if row.ends_with(b"\r\n") { 2 } else { 1 });
        }
        let mut cut_from = None;
        let mut value = row;
        if let Some(long) = self.long.take() {
            // The break may have come in two parts.
            let split_break = is_break && long.last == b'\r';
            cut_from = Some(long.n_bytes + value.len() as u64 - u64::from(split_break));
            line_breaks += long.line_breaks;
            value = long.kept;
        } else if value.len() > self.max_bytes {
            cut_from = Some(value.len() as u64);
            value = Bytes::copy_from_slice(&value[..self.max_bytes]);
        }
        // A file that ends without a line break ends a line all the same.
        self.line += line_breaks + i64::from(ending == Ending::File);
        let blank = match self.form {
            Form::JsonLines => value.trim_ascii().is_empty() && cut_from.is_none(),
            Form::Csv { .. } => value.is_empty(),
        };
        (!blank).then_some(Frame { line, next_line: self.line, end: self.position, value, cut_from })
    }
}

fn count_line_breaks(bytes: &[u8]) -> i64 {
    i64::try_from(memchr_iter(b'\n', bytes).count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
