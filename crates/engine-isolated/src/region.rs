//! Memory that two processes share. One writes it, the other reads it.
#![expect(unsafe_code, reason = "memory is mapped and copied by address")]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{NonNull, null_mut};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::codec::Malformed;

/// The largest region. It bounds what one run may pass on, and what a peer can make this process map.
pub(crate) const MAX_BYTES: usize = 1 << 34;

/// A mapping of a memory file, for as long as this lives. Bytes go in and out as copies only, because the other process
/// may write at any time: no reference to them is ever made.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process and to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, len: usize, access: ProtFlags) -> io::Result<Mapping> {
        // SAFETY: the address is left to the kernel, so that nothing that exists is replaced.
        let start = unsafe { rustix::mm::mmap(null_mut(), len, access, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("a mapping at no address"))?;
        Ok(Mapping { start, len })
    }

    /// Whether these bytes lie inside.
    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `Mapping::new`, and nothing else knows its address.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping that was made can be undone");
    }
}

/// The end that writes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    mapping: Mapping,
}

impl Outgoing {
    /// New memory of so many bytes, and the file to send to the reader. The file cannot change its size any more.
    ///
    /// # Errors
    /// When there is no memory or no file descriptor left.
    pub(crate) fn new(len: usize) -> io::Result<(Outgoing, OwnedFd)> {
        let file = memory()?;
        rustix::fs::ftruncate(&file, len as u64)?;
        // Pages that are missing later end the process that touches them; here they are an error.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Mapping::new(&file, len, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok((Outgoing { mapping }, file))
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(self.mapping.holds(offset, bytes.len()), "the region is made large enough for what is sent");
        // SAFETY: the target lies inside the mapping, as was just checked, which is writable and cannot shrink (it is
        // sealed); the source is memory of this process, so they do not overlap.
        unsafe {
            let target = self.mapping.start.as_ptr().add(offset);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

/// An empty memory file. A kernel may be set to refuse such as could hold a program, and one before 6.3 does not know how
/// to be asked for others.
fn memory() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("salver-tensors", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("salver-tensors", flags),
        made => made,
    }
}

/// The end that reads.
#[derive(Debug)]
pub(crate) struct Incoming {
    mapping: Mapping,
}

impl Incoming {
    /// Maps a file that the other process sent.
    ///
    /// # Errors
    /// When it is not memory that cannot shrink any more, or is empty or too large.
    pub(crate) fn open(file: &OwnedFd) -> Result<Incoming, Malformed> {
        let seals = rustix::fs::fcntl_get_seals(file)
            .map_err(|error| Malformed(format!("a file that is no memory: {error}")))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Malformed::new("memory that may shrink"));
        }
        let size = rustix::fs::fstat(file)
            .map_err(|error| Malformed(format!("memory without a size: {error}")))?
            .st_size;
        let len = usize::try_from(size)
            .ok()
            .filter(|len| (1..=MAX_BYTES).contains(len))
            .ok_or_else(|| Malformed(format!("{size} bytes of memory, expected 1 to {MAX_BYTES}")))?;
        let mapping = Mapping::new(file, len, ProtFlags::READ)
            .map_err(|error| Malformed(format!("memory that cannot be mapped: {error}")))?;
        Ok(Incoming { mapping })
    }

    /// A copy of these bytes, aligned to 16.
    ///
    /// # Errors
    /// When they do not lie inside.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Result<Bytes, Malformed> {
        if !self.mapping.holds(offset, len) {
            let all = self.mapping.len;
            return Err(Malformed(format!("{len} bytes at {offset} of {all}")));
        }
        let n_words = len.div_ceil(16);
        let mut words = Vec::<u128>::with_capacity(n_words);
        // SAFETY: the source lies inside the mapping, as was just checked, and a mapping whose file is sealed against
        // shrinking has memory behind each address; the target is `n_words` words that were just allocated, of which the
        // copy fills the first `len` bytes and the word written before it those behind them. What the other process writes
        // meanwhile makes the copy any bytes at all, and any bytes are a `u128`.
        unsafe {
            if n_words > 0 {
                words.as_mut_ptr().add(n_words - 1).write(0);
            }
            let source = self.mapping.start.as_ptr().add(offset);
            words.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(source, len);
            words.set_len(n_words);
        }
        Ok(Bytes::from_owner(Words { words, len }))
    }
}

/// The first bytes of some words.
struct Words {
    words: Vec<u128>,
    len: usize,
}

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        let start = self.words.as_ptr().cast::<u8>();
        // SAFETY: the words are at least so many bytes long, are written, and are nobody else's.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_beyond() {
        let (mut out, file) = Outgoing::new(4096).unwrap();
        out.write(100, b"seventeen letters");
        let incoming = Incoming::open(&file).unwrap();
        let bytes = incoming.read(100, 17).unwrap();
        assert_eq!(&*bytes, b"seventeen letters");
        assert_eq!(bytes.as_ptr() as usize % 16, 0);
        out.write(100, b"other");
        assert_eq!(&*bytes, b"seventeen letters", "what was read does not change any more");
        assert_eq!(incoming.read(4096, 0).unwrap().len(), 0);
        for (offset, len) in [(4096, 1), (0, 4097), (usize::MAX, 2), (4000, usize::MAX)] {
            assert!(incoming.read(offset, len).is_err(), "{len} at {offset}");
        }
    }

    #[test]
    fn only_memory_that_cannot_shrink_is_mapped() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let open = |len: u64, seals| {
            let file = memfd_create("test", flags).unwrap();
            rustix::fs::ftruncate(&file, len).unwrap();
            rustix::fs::fcntl_add_seals(&file, seals).unwrap();
            Incoming::open(&file).map(drop)
        };
        assert_eq!(open(4096, SealFlags::SHRINK), Ok(()));
        for (len, seals) in [
            (4096, SealFlags::empty()),
            (4096, SealFlags::GROW),
            (0, SealFlags::SHRINK),
            (MAX_BYTES as u64 + 1, SealFlags::SHRINK),
        ] {
            assert!(open(len, seals).is_err(), "{len} bytes with {seals:?}");
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Incoming::open(&file.into()).is_err());
    }
}
