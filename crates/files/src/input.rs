//! One input: opening it anywhere, telling whether it changed, reading it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use salver_records::Error;
use serde::{Deserialize, Serialize};

use crate::{Meter, Packing};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;
/// Chunks of a stream that wait to be taken.
const AHEAD: usize = 4;
/// Bytes at the beginning of a file that its fingerprint covers.
const HEAD: u64 = 64 * 1024;

/// What tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Bytes.
    pub size: u64,
    /// When it was last written, nanoseconds since 1970.
    pub modified_ns: u64,
    /// CRC-32C of the first 64 KiB.
    pub head_crc32c: u32,
}

impl Fingerprint {
    /// Of the file as it is now.
    fn of(file: &mut File) -> io::Result<Fingerprint> {
        let about = file.metadata()?;
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut head = Vec::new();
        file.rewind()?;
        file.by_ref().take(HEAD).read_to_end(&mut head)?;
        file.rewind()?;
        let modified_ns = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
        Ok(Fingerprint { size: about.len(), modified_ns, head_crc32c: crc32c::crc32c(&head) })
    }

    /// What differs, for a person; `None` if nothing does.
    pub(crate) fn differs(&self, now: &Fingerprint) -> Option<String> {
        if self.size != now.size {
            return Some(format!("it had {} bytes, now it has {}", self.size, now.size));
        }
        if self.head_crc32c != now.head_crc32c {
            return Some("its first bytes are others".into());
        }
        (self.modified_ns != now.modified_ns).then(|| "it was written since".into())
    }
}

/// Where bytes come from.
#[derive(Debug)]
enum Origin {
    /// A file that can be read again.
    File { path: PathBuf, packing: Packing, fingerprint: Fingerprint },
    /// Something that is read once.
    Stream,
}

/// An input, open or not.
pub(crate) struct Input {
    name: Arc<str>,
    origin: Origin,
    reader: Option<Reader>,
    meter: Arc<Meter>,
    /// Bytes of the file that the meter counted since it was opened.
    counted: u64,
}

enum Reader {
    Plain(File),
    Packed(Box<dyn Read + Send>, Arc<Meter>),
    Stream(Receiver<io::Result<Vec<u8>>>),
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes,
    NothingYet,
    End,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Input {
    /// The file at a path; a pipe or another special file is read as a stream.
    pub(crate) fn file(path: &Path, packing: Packing, meter: Arc<Meter>) -> Result<Input, Error> {
        let name: Arc<str> = path.to_string_lossy().into();
        let failed = |error: io::Error| Error::fatal(format!("cannot read {name}: {error}"));
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(Error::fatal(format!("cannot read {name}: it is a folder, expected a file")));
        }
        if !about.is_file() {
            let unpacked = unpack(packing, Counted { file, meter: Arc::default() }).map_err(failed)?;
            return Input::stream(&name, unpacked, meter);
        }
        let fingerprint = Fingerprint::of(&mut file).map_err(failed)?;
        let origin = Origin::File { path: path.into(), packing, fingerprint };
        Ok(Input { name, origin, reader: None, meter, counted: 0 })
    }

    /// Something that is read once, on a thread of its own: a read of it may wait for ever.
    pub(crate) fn stream(name: &str, from: Box<dyn Read + Send>, meter: Arc<Meter>) -> Result<Input, Error> {
        let (chunks, receiver) = sync_channel(AHEAD);
        thread::Builder::new()
            .name("read-input".into())
            .spawn(move || pump(from, &chunks))
            .map_err(|error| Error::fatal(format!("cannot start a thread to read {name}: {error}")))?;
        let reader = Some(Reader::Stream(receiver));
        Ok(Input { name: name.into(), origin: Origin::Stream, reader, meter, counted: 0 })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `None` of a stream.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        match self.origin {
            Origin::File { fingerprint, .. } => Some(fingerprint),
            Origin::Stream => None,
        }
    }

    /// Whether a read returns at once.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.origin, Origin::File { .. })
    }

    /// Reads on from that byte, counted in what unpacking gives. Of a packed file all before it is read over.
    pub(crate) fn open_at(&mut self, byte: u64) -> Result<(), Error> {
        let Origin::File { path, packing, .. } = &self.origin else {
            if byte == 0 && self.counted == 0 && self.reader.is_some() {
                return Ok(());
            }
            return Err(Error::fatal(format!(
                "{} cannot be read again: it is a stream, not a file",
                self.name
            )));
        };
        self.meter.take_back(self.counted);
        self.counted = 0;
        let failed = |error: io::Error| Error::fatal(format!("cannot read {}: {error}", self.name));
        let mut file = File::open(path).map_err(failed)?;
        let reader = if *packing == Packing::Plain {
            file.seek(SeekFrom::Start(byte)).map_err(failed)?;
            self.meter.add_read(byte);
            self.counted = byte;
            Reader::Plain(file)
        } else {
            let counter = Arc::new(Meter::default());
            let mut reader = unpack(*packing, Counted { file, meter: counter.clone() }).map_err(failed)?;
            let passed = io::copy(&mut reader.by_ref().take(byte), &mut io::sink()).map_err(failed)?;
            if passed < byte {
                let message = format!("{} holds {passed} bytes, expected at least {byte}", self.name);
                return Err(Error::fatal(message));
            }
            Reader::Packed(reader, counter)
        };
        self.reader = Some(reader);
        Ok(())
    }

    /// Closes a file; the end was reached, or it will be opened elsewhere. A stream stays open.
    pub(crate) fn close(&mut self) {
        if self.is_file() {
            self.reader = None;
        }
    }

    /// Appends what is there; waits up to `wait` for a stream.
    pub(crate) fn read(&mut self, into: &mut BytesMut, wait: Duration) -> Result<Got, Error> {
        let name = &self.name;
        let failed = |error: io::Error| Error::fatal(format!("cannot read {name}: {error}"));
        let (n_read, n_counted) = match &mut self.reader {
            None => return Ok(Got::End),
            Some(Reader::Plain(file)) => {
                let n_read = read_chunk(file, into).map_err(failed)?;
                (n_read, n_read as u64)
            }
            Some(Reader::Packed(reader, counter)) => {
                let n_read = read_chunk(reader, into).map_err(failed)?;
                (n_read, counter.read().saturating_sub(self.counted))
            }
            Some(Reader::Stream(chunks)) => match receive(chunks, wait) {
                Ok(chunk) => {
                    let chunk = chunk.map_err(failed)?;
                    into.extend_from_slice(&chunk);
                    (chunk.len(), chunk.len() as u64)
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Got::NothingYet),
                Err(RecvTimeoutError::Disconnected) => return Ok(Got::End),
            },
        };
        self.meter.add_read(n_counted);
        self.counted += n_counted;
        Ok(if n_read == 0 { Got::End } else { Got::Bytes })
    }
}

fn receive(
    chunks: &Receiver<io::Result<Vec<u8>>>,
    wait: Duration,
) -> Result<io::Result<Vec<u8>>, RecvTimeoutError> {
    if !wait.is_zero() {
        return chunks.recv_timeout(wait);
    }
    chunks.try_recv().map_err(|error| match error {
        TryRecvError::Empty => RecvTimeoutError::Timeout,
        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
    })
}

/// Reads a stream until it ends or nobody wants it any more.
fn pump(mut from: Box<dyn Read + Send>, chunks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; 64 * 1024];
        let read = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n_read) => {
                chunk.truncate(n_read);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if chunks.send(read).is_err() || failed {
            return;
        }
    }
}

fn read_chunk(from: &mut impl Read, into: &mut BytesMut) -> io::Result<usize> {
    let filled = into.len();
    into.resize(filled + CHUNK, 0);
    let result = loop {
        match from.read(&mut into[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    into.truncate(filled + result.as_ref().copied().unwrap_or(0));
    result
}

/// What comes out is taken in chunks and never gathered, so that a small file cannot fill the memory.
fn unpack(packing: Packing, file: Counted) -> io::Result<Box<dyn Read + Send>> {
    Ok(match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file)))
        }
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}

/// Counts what is read of a file.
struct Counted {
    file: File,
    meter: Arc<Meter>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.file.read(buffer)?;
        self.meter.add_read(n_read as u64);
        Ok(n_read)
    }
}
