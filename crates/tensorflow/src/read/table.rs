//! The sorted table that the index of a checkpoint is.
//!
//! The format is that of LevelDB's table files, described in its `doc/table_format.md`: blocks of sorted entries whose
//! keys share prefixes, each block followed by a byte that says how it is compressed and a masked CRC-32C; an index
//! block, whose values say where blocks lie; a footer of 48 bytes. Compressed blocks are Snappy.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};

use crate::Error;

const FOOTER_BYTES: usize = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Compression byte and checksum behind each block.
const TRAILER_BYTES: usize = 5;
/// A key repeats what it shares with the one before; without a bound, a small file could ask for any amount of memory.
const MAX_KEY_BYTES: usize = 64 << 20;
/// A block is about 256 KiB when TensorFlow writes it.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// All entries of a table, by key.
#[derive(Debug, Clone, Default)]
pub struct Table {
    entries: BTreeMap<Vec<u8>, Bytes>,
}

impl Table {
    /// Reads a table; checksums are verified.
    ///
    /// # Errors
    /// When the bytes are not a table, are cut off or damaged; the message says where.
    pub fn read(file: &Bytes) -> Result<Table, Error> {
        let index = read_block(file, index_handle(file)?)?;
        let mut table = Table::default();
        let mut key_bytes = 0usize;
        for entry in BlockEntries::new(&index, &mut 0)? {
            let (_, mut value) = entry?;
            let block = read_block(file, Handle::read(&mut value)?)?;
            for entry in BlockEntries::new(&block, &mut key_bytes)? {
                let (key, value) = entry?;
                table.entries.insert(key, value);
            }
        }
        Ok(table)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(Vec::as_slice)
    }
}

/// Where a block lies in the file, without its trailer.
#[derive(Debug, Clone, Copy)]
struct Handle {
    offset: usize,
    size: usize,
}

impl Handle {
    fn read(bytes: &mut Bytes) -> Result<Handle, Error> {
        let mut number = || usize::try_from(varint(bytes)?).map_err(|_| damaged("a block handle"));
        Ok(Handle { offset: number()?, size: number()? })
    }
}

fn damaged(what: &str) -> Error {
    Error::invalid(format!("{what} is damaged"))
}

fn varint(bytes: &mut Bytes) -> Result<u64, Error> {
    prost::encoding::decode_varint(bytes).map_err(|_| damaged("a number"))
}

fn index_handle(file: &Bytes) -> Result<Handle, Error> {
    let start = file.len().checked_sub(FOOTER_BYTES);
    let mut footer = start.map(|start| file.slice(start..)).ok_or_else(|| {
        Error::invalid(format!("{} bytes are too few for a checkpoint index; it is cut off", file.len()))
    })?;
    let mut magic = footer.split_off(FOOTER_BYTES - 8);
    if magic.get_u64_le() != MAGIC {
        return Err(Error::invalid(
            "not a checkpoint index, or cut off: its last 8 bytes are not those of a table",
        ));
    }
    Handle::read(&mut footer)?;
    Handle::read(&mut footer)
}

fn read_block(file: &Bytes, handle: Handle) -> Result<Bytes, Error> {
    let place = || format!("block at byte {}", handle.offset);
    let end = handle.offset.checked_add(handle.size);
    let whole = end.and_then(|end| end.checked_add(TRAILER_BYTES)).filter(|&end| end <= file.len());
    let (Some(end), Some(whole)) = (end, whole) else {
        return Err(Error::invalid("goes beyond the end of the file").at(place()));
    };
    let content = file.slice(handle.offset..end);
    let mut trailer = file.slice(end..whole);
    let checked = file.slice(handle.offset..end.saturating_add(1));
    let compression = trailer.get_u8();
    let (stored, computed) = (trailer.get_u32_le(), mask(crc32c::crc32c(&checked)));
    if stored != computed {
        let message = format!("checksum is {computed:#010x}, expected {stored:#010x}");
        return Err(Error::invalid(message).at(place()));
    }
    match compression {
        0 => Ok(content),
        1 => decompress(&content).map_err(|error| error.at(place())),
        other => Err(Error::unsupported(format!("compression type {other}")).at(place())),
    }
}

fn decompress(content: &[u8]) -> Result<Bytes, Error> {
    let wrong = |error: snap::Error| Error::invalid(format!("cannot decompress: {error}"));
    let length = snap::raw::decompress_len(content).map_err(wrong)?;
    // Snappy's longest copy makes 64 bytes of 2, so a claim beyond that is false.
    if length > MAX_BLOCK_BYTES || length / 64 > content.len() {
        return Err(Error::too_large(format!("{length} bytes when decompressed")));
    }
    snap::raw::Decoder::new().decompress_vec(content).map(Bytes::from).map_err(wrong)
}

/// The form in which checksums are stored (`crc32c::Mask` of LevelDB and TensorFlow).
pub(crate) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The entries of one block, in order.
struct BlockEntries<'a> {
    rest: Bytes,
    key: Vec<u8>,
    /// Bytes of all keys so far.
    key_bytes: &'a mut usize,
}

impl BlockEntries<'_> {
    fn new<'a>(block: &Bytes, key_bytes: &'a mut usize) -> Result<BlockEntries<'a>, Error> {
        let wrong = || damaged("the end of a block");
        let count_at = block.len().checked_sub(4).ok_or_else(wrong)?;
        let n_restarts = block.slice(count_at..).get_u32_le() as usize;
        let end = n_restarts.checked_mul(4).and_then(|n| count_at.checked_sub(n)).ok_or_else(wrong)?;
        Ok(BlockEntries { rest: block.slice(..end), key: Vec::new(), key_bytes })
    }

    fn entry(&mut self) -> Result<(Vec<u8>, Bytes), Error> {
        let mut number = || usize::try_from(varint(&mut self.rest)?).map_err(|_| damaged("an entry"));
        let (shared, own, value) = (number()?, number()?, number()?);
        if shared > self.key.len() || own.checked_add(value).is_none_or(|n| n > self.rest.len()) {
            return Err(damaged("an entry"));
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&self.rest.split_to(own));
        *self.key_bytes = self.key_bytes.saturating_add(self.key.len());
        if *self.key_bytes > MAX_KEY_BYTES {
            return Err(Error::too_large(format!("the names take more than {MAX_KEY_BYTES} bytes")));
        }
        Ok((self.key.clone(), self.rest.split_to(value)))
    }
}

impl Iterator for BlockEntries<'_> {
    type Item = Result<(Vec<u8>, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest.clear();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
