//! A file that grows at its end, of which a known length lasts.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use salver_records::Error;

use crate::frame::Framer;
use crate::{Form, Packing};

/// Bytes that are gathered before they are written.
const SPILL: usize = 1 << 20;
/// A good compromise of speed and size for text (zstd's own default).
const ZSTD_LEVEL: i32 = 3;

/// A growing file. Of a packed one each interval is a member (gzip) or frame (zstd) of its own, so that it can be cut
/// between them.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    file: File,
    packing: Packing,
    /// What lasts.
    lasting: u64,
    /// What was written.
    written: u64,
    /// What will be.
    buffer: Vec<u8>,
}

/// How a file that exists is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// It is cut back to that length.
    At(u64),
    /// It stays, but for a last row of that form that was not finished.
    AtLastRow(Form),
}

impl Tail {
    /// Opens a file, made if it is not there, and keeps other processes from writing it.
    pub(crate) fn open(path: &Path, packing: Packing, resume: Resume) -> Result<Tail, Error> {
        let mut tail = Tail::lock(path, packing)?;
        tail.resume(resume)?;
        Ok(tail)
    }

    /// As [`Tail::open`], but for [`Tail::resume`], which must follow: the file is as it was.
    pub(crate) fn lock(path: &Path, packing: Packing) -> Result<Tail, Error> {
        let shown = path.display();
        let failed = |error: io::Error| Error::fatal(format!("cannot write {shown}: {error}"));
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::fatal(format!("cannot write {shown}: another process is writing it")));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Tail { path: path.into(), file, packing, lasting: 0, written: 0, buffer: Vec::new() })
    }

    /// Cuts the file to what lasts.
    pub(crate) fn resume(&mut self, resume: Resume) -> Result<(), Error> {
        let there = self.file.metadata().map_err(|error| self.failed(&error))?.len();
        self.lasting = match resume {
            Resume::At(length) if length > there => {
                return Err(Error::fatal(format!(
                    "{} has {there} bytes, expected at least the {length} of the run to be resumed; start over with another \
                     output",
                    self.path.display()
                )));
            }
            Resume::At(length) => length,
            Resume::AtLastRow(Form::JsonLines) => {
                after_last_line(&mut self.file, there).map_err(|error| self.failed(&error))?
            }
            Resume::AtLastRow(form) => {
                after_last_row(&mut self.file, form).map_err(|error| self.failed(&error))?
            }
        };
        self.abort()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes with those that are not written yet. Of a packed file those are counted unpacked.
    pub(crate) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Where bytes are appended. To be followed by [`Tail::spill`].
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes what was gathered if it is much.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        if self.buffer.len() < SPILL { Ok(()) } else { self.write() }
    }

    /// Writes the beginning of an empty file; a compressed one holds something even if that is nothing.
    pub(crate) fn begin(&mut self, header: &[u8]) -> Result<(), Error> {
        if self.len() > 0 {
            return Ok(());
        }
        self.buffer.extend_from_slice(header);
        self.write_buffer()
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_buffer() }
    }

    fn write_buffer(&mut self) -> Result<(), Error> {
        let packed = pack(self.packing, &self.buffer).map_err(|error| self.failed(&error))?;
        let bytes = packed.as_ref().unwrap_or(&self.buffer);
        let n_bytes = bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.written += n_bytes;
        self.buffer.clear();
        Ok(())
    }

    /// Writes everything; forces it to disk if `sync`. The length that will last once it is known to.
    pub(crate) fn seal(&mut self, sync: bool) -> Result<u64, Error> {
        self.write()?;
        if sync && self.written != self.lasting {
            self.file.sync_data().map_err(|error| self.failed(&error))?;
        }
        Ok(self.written)
    }

    /// Nothing is written or gathered that does not last.
    pub(crate) fn is_lasting(&self) -> bool {
        self.len() == self.lasting
    }

    /// What was sealed lasts.
    pub(crate) fn accept(&mut self) {
        self.lasting = self.written;
    }

    /// Throws away what does not last.
    pub(crate) fn abort(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        self.file
            .set_len(self.lasting)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.lasting)))
            .map_err(|error| self.failed(&error))?;
        self.written = self.lasting;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::fatal(format!("cannot write {}: {error}", self.path.display()))
    }
}

fn pack(packing: Packing, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match packing {
        Packing::Plain => Ok(None),
        Packing::Gzip => {
            let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            member.write_all(bytes)?;
            member.finish().map(Some)
        }
        Packing::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).map(Some),
    }
}

/// The length of a file up to the end of its last row. What ends a row of CSV is known only to who has read all before it.
fn after_last_row(file: &mut File, form: Form) -> io::Result<u64> {
    file.rewind()?;
    let mut framer = Framer::new(form, 1, 0, 0);
    let mut end = 0;
    let mut block = vec![0; 256 * 1024];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(end),
            Ok(n_bytes) => framer.buffer().extend_from_slice(&block[..n_bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        while let Some(row) = framer.next(false) {
            end = row.end;
        }
    }
}

/// The length of a file up to its last line break.
fn after_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; 64 * 1024];
    let mut end = length;
    while end > 0 {
        let n_bytes = (block.len() as u64).min(end);
        let start = end - n_bytes;
        // The block is 64 KiB, so that the cast loses nothing.
        let part = &mut block[..n_bytes as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
