//! The changelog of a run over files: a log of keyed records beside the output.
//!
//! The file begins with eight bytes ([`MAGIC`]), then frames follow: the length of the body (u32), its CRC-32C (u32), the
//! body. A body is the record's offset (i64), its partition (i32), the length of the key (u32), the key, and, unless the
//! record is a tombstone, a byte 1 and the value. All numbers are little-endian. When the log has grown to several times of
//! what it was when it was last rewritten, it is rewritten with the last record of each key only, under the next number.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use salver_records::{Error, Outgoing, Record, Restore, Severity, Slot};

use crate::progress::{StatePart, beside};
use crate::tail::{Resume, Tail};
use crate::{Packing, Progress};

/// The first bytes of a state file: a name and the version of the format.
const MAGIC: &[u8; 8] = b"SALVST\x00\x01";
/// No body of a frame is larger.
const MAX_BODY: usize = 64 << 20;
/// Bytes of a body before the key.
const BODY_HEAD: usize = 16;
/// A log is rewritten when it is larger than this and than four times of what it was after the last time.
const REWRITE_FROM: u64 = 64 << 20;

/// The log as it is written.
#[derive(Debug)]
pub(crate) struct StateFile {
    output: PathBuf,
    tail: Tail,
    generation: u64,
    /// The offset of the next record.
    next: i64,
    /// As long as it may become before it is rewritten.
    rewrite_at: u64,
    smallest: u64,
}

fn path(output: &Path, generation: u64) -> PathBuf {
    beside(output, &format!(".state-{generation}"))
}

impl StateFile {
    /// The log of an output, as it lasts.
    pub(crate) fn open(output: &Path, part: StatePart) -> Result<StateFile, Error> {
        StateFile::with_bound(output, part, REWRITE_FROM)
    }

    fn with_bound(output: &Path, part: StatePart, smallest: u64) -> Result<StateFile, Error> {
        let StatePart { generation, bytes, next } = part;
        let mut tail = Tail::open(&path(output, generation), Packing::Plain, Resume::At(bytes))?;
        if bytes == 0 {
            tail.buffer().extend_from_slice(MAGIC);
        }
        // What a killed run left of a rewriting.
        for stale in [generation.checked_sub(1), generation.checked_add(1)].into_iter().flatten() {
            remove(&path(output, stale))?;
        }
        Ok(StateFile {
            output: output.into(),
            tail,
            generation,
            next,
            rewrite_at: smallest.max(bytes),
            smallest,
        })
    }

    pub(crate) fn append(&mut self, record: &Outgoing) -> Result<(), Error> {
        let key = record.key.as_deref().unwrap_or_default();
        let n_body = BODY_HEAD + key.len() + record.value.as_ref().map_or(0, |value| value.len() + 1);
        let key_len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let body_len = match u32::try_from(n_body) {
            Ok(len) if n_body <= MAX_BODY => len,
            _ => {
                let message = format!("a state record has {n_body} bytes, expected at most {MAX_BODY}");
                return Err(Error::new(Severity::Record, message));
            }
        };
        let buffer = self.tail.buffer();
        let frame = buffer.len();
        buffer.extend_from_slice(&body_len.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        let body = buffer.len();
        buffer.extend_from_slice(&self.next.to_le_bytes());
        buffer.extend_from_slice(&record.partition.unwrap_or(0).to_le_bytes());
        buffer.extend_from_slice(&key_len.to_le_bytes());
        buffer.extend_from_slice(key);
        if let Some(value) = &record.value {
            buffer.push(1);
            buffer.extend_from_slice(value);
        }
        let sum = crc32c::crc32c(&buffer[body..]);
        buffer[frame + 4..frame + 8].copy_from_slice(&sum.to_le_bytes());
        self.next += 1;
        self.tail.spill()
    }

    /// Makes everything written, and says what will last. May rewrite the log.
    pub(crate) fn seal(&mut self, sync: bool) -> Result<StatePart, Error> {
        let mut bytes = self.tail.seal(sync)?;
        if bytes > self.rewrite_at {
            let generation = self.generation + 1;
            let rewritten = path(&self.output, generation);
            bytes = rewrite(self.tail.path(), bytes, &rewritten)?;
            self.tail = Tail::open(&rewritten, Packing::Plain, Resume::At(bytes))?;
            self.generation = generation;
            self.rewrite_at = self.smallest.max(bytes.saturating_mul(4));
        }
        Ok(StatePart { generation: self.generation, bytes, next: self.next })
    }

    /// What was sealed lasts.
    pub(crate) fn accept(&mut self) -> Result<(), Error> {
        self.tail.accept();
        match self.generation.checked_sub(1) {
            Some(outdated) => remove(&path(&self.output, outdated)),
            None => Ok(()),
        }
    }

    /// Goes back to what lasts.
    pub(crate) fn abort(&mut self, part: StatePart) -> Result<(), Error> {
        if part.generation != self.generation {
            *self = StateFile::with_bound(&self.output, part, self.smallest)?;
            return Ok(());
        }
        self.next = part.next;
        self.tail.abort()?;
        if part.bytes == 0 {
            self.tail.buffer().extend_from_slice(MAGIC);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::fatal(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Writes the last record of each key to another file, in order, and forces it to disk; its length.
fn rewrite(from: &Path, bytes: u64, to: &Path) -> Result<u64, Error> {
    let mut last: HashMap<(i32, Box<[u8]>), i64> = HashMap::new();
    let mut frames = Frames::open(from, bytes)?;
    while let Some(frame) = frames.next()? {
        match frame.value() {
            Some(_) => drop(last.insert((frame.partition, frame.key().into()), frame.offset)),
            None => drop(last.remove(&(frame.partition, Box::from(frame.key())))),
        }
    }
    let failed = |error: io::Error| Error::fatal(format!("cannot write {}: {error}", to.display()));
    let mut writer = BufWriter::new(File::create(to).map_err(failed)?);
    writer.write_all(MAGIC).map_err(failed)?;
    let mut length = MAGIC.len() as u64;
    let mut frames = Frames::open(from, bytes)?;
    while let Some(frame) = frames.next()? {
        if last.get(&(frame.partition, Box::from(frame.key()))) != Some(&frame.offset) {
            continue;
        }
        // A body was checked to be shorter than 64 MiB.
        writer.write_all(&(frame.body.len() as u32).to_le_bytes()).map_err(failed)?;
        writer.write_all(&crc32c::crc32c(frame.body).to_le_bytes()).map_err(failed)?;
        writer.write_all(frame.body).map_err(failed)?;
        length += 8 + frame.body.len() as u64;
    }
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_data().map_err(failed)?;
    Ok(length)
}

/// Reads the frames of a log.
#[derive(Debug)]
struct Frames {
    path: PathBuf,
    reader: BufReader<File>,
    at: u64,
    end: u64,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Frame<'a> {
    offset: i64,
    partition: i32,
    key_len: usize,
    body: &'a [u8],
}

impl Frame<'_> {
    fn key(&self) -> &[u8] {
        &self.body[BODY_HEAD..BODY_HEAD + self.key_len]
    }

    fn value(&self) -> Option<&[u8]> {
        self.body.get(BODY_HEAD + self.key_len + 1..)
    }
}

impl Frames {
    /// Of a log that ends there.
    fn open(path: &Path, end: u64) -> Result<Frames, Error> {
        let failed = |error: io::Error| Error::fatal(format!("cannot read {}: {error}", path.display()));
        let mut file = File::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut frames =
            Frames { path: path.into(), reader: BufReader::new(file), at: 0, end, body: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        frames.read(&mut magic)?;
        if &magic != MAGIC {
            return Err(frames.damaged("it does not begin as a state file of this version"));
        }
        Ok(frames)
    }

    fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        if self.at == self.end {
            return Ok(None);
        }
        let mut head = [0; 8];
        self.read(&mut head)?;
        let [a, b, c, d, sum @ ..] = head;
        let n_body = u32::from_le_bytes([a, b, c, d]) as usize;
        if !(BODY_HEAD..=MAX_BODY).contains(&n_body) || n_body as u64 > self.end - self.at {
            return Err(self.damaged("the length of a record is wrong"));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(n_body, 0);
        self.read(&mut body)?;
        if crc32c::crc32c(&body) != u32::from_le_bytes(sum) {
            return Err(self.damaged("the checksum of a record is wrong"));
        }
        self.body = body;
        let body = &self.body[..];
        let (offset, rest) = body.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (partition, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let (key_len, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let key_len = u32::from_le_bytes(*key_len) as usize;
        if key_len > rest.len() {
            return Err(self.damaged("the length of a key is wrong"));
        }
        let (offset, partition) = (i64::from_le_bytes(*offset), i32::from_le_bytes(*partition));
        Ok(Some(Frame { offset, partition, key_len, body }))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        let n_bytes = into.len() as u64;
        if n_bytes > self.end - self.at {
            return Err(self.damaged("it ends within a record"));
        }
        match self.reader.read_exact(into) {
            Ok(()) => {
                self.at += n_bytes;
                Ok(())
            }
            Err(error) => Err(Error::fatal(format!("cannot read {}: {error}", self.path.display()))),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::fatal(format!("{} is damaged at byte {}: {what}", self.path.display(), self.at))
    }
}

/// The changelog of an output as it lasts, to be read back. Opened before the [`crate::FileSink`] goes on writing, and read
/// before its next commit.
#[derive(Debug)]
pub struct StateLog {
    output: PathBuf,
    part: StatePart,
    n_partitions: i32,
}

impl StateLog {
    /// The changelog beside an output, of a run over so many partitions.
    pub fn new(output: &Path, progress: &Progress, n_partitions: i32) -> StateLog {
        StateLog { output: output.into(), part: progress.state, n_partitions }
    }
}

impl Restore for StateLog {
    fn restore(
        &mut self,
        partition: i32,
        from: Option<i64>,
        each: &mut dyn FnMut(Option<Record>) -> bool,
    ) -> Result<i64, Error> {
        if self.part.bytes == 0 {
            return Ok(self.part.next);
        }
        let mut frames = Frames::open(&path(&self.output, self.part.generation), self.part.bytes)?;
        while let Some(frame) = frames.next()? {
            if frame.partition != partition || from.is_some_and(|from| frame.offset < from) {
                continue;
            }
            let record = Record {
                slot: Slot(0),
                offset: frame.offset,
                key: Some(Bytes::copy_from_slice(frame.key())),
                value: frame.value().map(Bytes::copy_from_slice),
                headers: Vec::new(),
                timestamp_ms: None,
            };
            let offset = frame.offset;
            if !each(Some(record)) {
                return Ok(offset + 1);
            }
        }
        Ok(self.part.next)
    }

    fn n_partitions(&mut self) -> Result<i32, Error> {
        Ok(self.n_partitions)
    }
}

#[cfg(test)]
mod tests;
