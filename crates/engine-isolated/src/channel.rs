//! Messages with tensors: what is said lies in shared memory, and a packet says where.
//!
//! Each direction has a region of its own. A message is written into the sender's region from its start: first the elements
//! of each tensor, then the head with the places of the tensors; the packet holds the kind and the place of the head. The
//! reader copies out and answers, and only then is the region written again, so nobody waits for a lock. A region that is too
//! small is replaced by a larger one, whose file comes with the packet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Error, ErrorKind};
use salver_tensor::{DType, Shape, Tensor};

use crate::codec::{Malformed, Reader, Wire};
use crate::message::Kind;
use crate::region::{Incoming, MAX_BYTES, Outgoing};
use crate::socket::{PACKET, Received, Socket};

/// Tensors start at multiples of this: a cache line.
const ALIGNMENT: usize = 64;
/// A region has at least so many bytes.
const SMALLEST: usize = 64 << 10;
/// A region of more bytes is given back when it was mostly empty for [`PATIENCE`] messages.
const KEPT: usize = 4 << 20;
const PATIENCE: u32 = 100;
/// Bytes that the head of a message may have.
const MAX_HEAD: usize = 1 << 28;

/// Why a message did not get through.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The other process closed its end, most likely by ending.
    Ended,
    /// The other process sent what makes no sense, or no socket works.
    Broken(String),
    /// The message is too large for the memory that there is. Nothing was sent.
    Full(Error),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Broken(malformed.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Fault::Ended,
            _ => Fault::Broken(error.to_string()),
        }
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Arc<Socket>,
    out: Option<Outgoing>,
    n_mostly_empty: u32,
    incoming: Option<Incoming>,
}

/// What came, without its tensors.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// What [`Channel::send`] was given as the head, and behind it the places of the tensors.
    pub(crate) head: Bytes,
    /// The socket that comes with [`Kind::Session`].
    pub(crate) socket: Option<OwnedFd>,
}

impl Channel {
    pub(crate) fn new(socket: Arc<Socket>) -> Channel {
        Channel { socket, out: None, n_mostly_empty: 0, incoming: None }
    }

    /// Sends a message. The other end must have answered the last one.
    pub(crate) fn send(&mut self, kind: Kind, head: &impl Wire, tensors: &[Tensor]) -> Result<(), Fault> {
        let mut bytes = Vec::with_capacity(64 + 64 * tensors.len());
        head.put(&mut bytes);
        tensors.len().put(&mut bytes);
        let mut end = 0usize;
        for tensor in tensors {
            let place = Place::of(tensor, end.next_multiple_of(ALIGNMENT));
            place.put(&mut bytes);
            end = place.offset.saturating_add(place.n_bytes);
        }
        let total = end.saturating_add(bytes.len());
        let file = self.make_room(total).map_err(Fault::Full)?;
        let out = self.out.as_mut().expect("room was made");
        let mut at = 0usize;
        for tensor in tensors {
            at = write(out, at.next_multiple_of(ALIGNMENT), tensor);
        }
        out.write(end, &bytes);
        let packet = packet(kind, end, bytes.len());
        self.socket.send(&packet, file.as_ref().map(AsFd::as_fd))?;
        Ok(())
    }

    /// Sees to a region of so many bytes; gives its file if it is a new one.
    fn make_room(&mut self, n_bytes: usize) -> Result<Option<OwnedFd>, Error> {
        let len = self.out.as_ref().map_or(0, Outgoing::len);
        let is_mostly_empty = len > KEPT && n_bytes < len / 4;
        self.n_mostly_empty = if is_mostly_empty { self.n_mostly_empty + 1 } else { 0 };
        if n_bytes <= len && self.n_mostly_empty < PATIENCE {
            return Ok(None);
        }
        let full = |why: String| {
            Error::new(ErrorKind::ResourceExhausted, format!("{n_bytes} bytes of tensors in one run: {why}"))
        };
        if n_bytes > MAX_BYTES {
            return Err(full(format!("a process of an engine takes at most {MAX_BYTES}")));
        }
        let wanted = (n_bytes + n_bytes / 4).next_multiple_of(SMALLEST).clamp(SMALLEST, MAX_BYTES);
        self.n_mostly_empty = 0;
        // The old one goes first, so that there are never two.
        self.out = None;
        let (out, file) = Outgoing::new(wanted).map_err(|error| full(error.to_string()))?;
        self.out = Some(out);
        Ok(Some(file))
    }

    /// Waits for a message. If the socket has a bound on waiting, `is_there` is asked each time whether to go on.
    pub(crate) fn receive(&mut self, is_there: impl Fn() -> bool) -> Result<Message, Fault> {
        let (packet, fd) = loop {
            match self.socket.receive()? {
                Received::Packet(packet, fd) => break (packet, fd),
                Received::Nothing if is_there() => {}
                Received::Nothing | Received::Closed => return Err(Fault::Ended),
                Received::Malformed => return Err(Fault::Broken("a packet of another form".to_owned())),
            }
        };
        let (kind, offset, len) = unpack(&packet)?;
        if kind == Kind::Session {
            return Ok(Message { kind, head: Bytes::new(), socket: fd });
        }
        if let Some(file) = fd {
            self.incoming = Some(Incoming::open(&file)?);
        }
        if len > MAX_HEAD {
            return Err(Fault::Broken(format!("a head of {len} bytes")));
        }
        let region = self.incoming.as_ref().ok_or_else(|| Malformed::new("a message in no memory"))?;
        Ok(Message { kind, head: region.read(offset, len)?, socket: None })
    }

    /// Copies out the tensors of the last message, whose places are next in `head`, and nothing else; if so many are
    /// `wanted`, there must be as many. No byte is copied twice, so that all of them take no more than the region.
    pub(crate) fn tensors(
        &self,
        mut head: Reader<'_>,
        wanted: Option<usize>,
    ) -> Result<Vec<Tensor>, Malformed> {
        if let Some(wanted) = wanted {
            let n = usize::get(&mut head.clone())?;
            if n != wanted {
                return Err(Malformed(format!("{n} tensors, expected {wanted}")));
            }
        }
        let places: Vec<Place> = Wire::get(&mut head)?;
        head.end()?;
        check_apart(&places)?;
        let region = self.incoming.as_ref().ok_or_else(|| Malformed::new("tensors in no memory"))?;
        places.into_iter().map(|place| read(region, place)).collect()
    }
}

/// Asks the worker on the other end of `control` for a session that listens on `session`.
pub(crate) fn offer(control: &Socket, session: &Socket) -> io::Result<()> {
    control.send(&packet(Kind::Session, 0, 0), Some(session.as_fd()))
}

fn packet(kind: Kind, offset: usize, len: usize) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = kind as u8;
    packet[8..16].copy_from_slice(&(offset as u64).to_le_bytes());
    packet[16..].copy_from_slice(&(len as u64).to_le_bytes());
    packet
}

fn unpack(packet: &[u8; PACKET]) -> Result<(Kind, usize, usize), Malformed> {
    let kind = Kind::from_code(packet[0]).ok_or_else(|| Malformed(format!("no message {}", packet[0])))?;
    let mut rest = Reader::new(&packet[8..]);
    Ok((kind, usize::get(&mut rest)?, usize::get(&mut rest)?))
}

/// Where the elements of a tensor lie.
struct Place {
    dtype: DType,
    shape: Shape,
    offset: usize,
    n_bytes: usize,
}

impl Place {
    fn of(tensor: &Tensor, offset: usize) -> Place {
        // Strings lie behind the list of their lengths.
        let lengths = tensor.strings().map_or(0, |strings| strings.len() * 8);
        let n_bytes = tensor.n_bytes().saturating_add(lengths);
        Place { dtype: tensor.dtype(), shape: tensor.shape().clone(), offset, n_bytes }
    }
}

impl Wire for Place {
    fn put(&self, out: &mut Vec<u8>) {
        self.dtype.put(out);
        self.shape.put(out);
        self.offset.put(out);
        self.n_bytes.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Place, Malformed> {
        Ok(Place {
            dtype: Wire::get(from)?,
            shape: Wire::get(from)?,
            offset: Wire::get(from)?,
            n_bytes: Wire::get(from)?,
        })
    }
}

/// Checks that no two places have a byte in common.
fn check_apart(places: &[Place]) -> Result<(), Malformed> {
    let mut filled: Vec<_> = places.iter().filter(|place| place.n_bytes > 0).collect();
    filled.sort_unstable_by_key(|place| place.offset);
    for pair in filled.windows(2) {
        let (first, next) = (pair[0], pair[1]);
        if first.n_bytes > next.offset - first.offset {
            let (offset, n_bytes) = (first.offset, first.n_bytes);
            return Err(Malformed(format!("{n_bytes} bytes at {offset} and others at {}", next.offset)));
        }
    }
    Ok(())
}

/// Writes the elements; gives the position behind them.
fn write(out: &mut Outgoing, at: usize, tensor: &Tensor) -> usize {
    if let Some(bytes) = tensor.bytes() {
        out.write(at, bytes);
        return at + bytes.len();
    }
    let strings = tensor.strings().unwrap_or_default();
    let mut end = at + strings.len() * 8;
    for (n, string) in strings.iter().enumerate() {
        out.write(at + n * 8, &(string.len() as u64).to_le_bytes());
        out.write(end, string);
        end += string.len();
    }
    end
}

fn read(region: &Incoming, place: Place) -> Result<Tensor, Malformed> {
    let Place { dtype, shape, offset, n_bytes } = place;
    let wrong = |error: salver_tensor::TensorError| Malformed(error.to_string());
    let Some(size) = dtype.size() else {
        let all = region.read(offset, n_bytes)?;
        let strings = split(&all, shape.n_elements())?;
        return Tensor::from_strings(shape, strings).map_err(wrong);
    };
    // Before anything is copied: the size of a small tensor may be claimed to be large.
    if shape.n_elements().checked_mul(size) != Some(n_bytes) {
        return Err(Malformed(format!("{n_bytes} bytes for {dtype} {shape}")));
    }
    Tensor::from_bytes(dtype, shape, region.read(offset, n_bytes)?).map_err(wrong)
}

/// The strings behind the list of their lengths; all share the memory.
fn split(all: &Bytes, n: usize) -> Result<Vec<Bytes>, Malformed> {
    let outside = || Malformed(format!("{n} strings in {} bytes", all.len()));
    let n_lengths = n.checked_mul(8).filter(|&end| end <= all.len()).ok_or_else(outside)?;
    let (mut lengths, mut at) = (Reader::new(&all[..n_lengths]), n_lengths);
    let mut strings = Vec::with_capacity(n);
    for _ in 0..n {
        let len = usize::get(&mut lengths)?;
        let end = at.checked_add(len).filter(|&end| end <= all.len()).ok_or_else(outside)?;
        strings.push(all.slice(at..end));
        at = end;
    }
    if at == all.len() { Ok(strings) } else { Err(outside()) }
}

#[cfg(test)]
mod tests;
