//! Checkpoints: an index of tensors and the shards that hold their bytes.
//!
//! The format is TensorFlow's "tensor bundle" (`tensorflow/core/util/tensor_bundle`): the index is a [`Table`] from
//! names to `BundleEntryProto`, with a `BundleHeaderProto` under the empty name; a shard is the tensors' bytes in a row.
//! A tensor stored in parts has an entry that lists them, and one entry for each under a name that encodes the slice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;
use salver_tensor::{DType, Shape, Tensor};

use super::table::mask;
use super::tensor::{decode_shape, dtype_from_number, dtype_name, made};
use super::{Files, Table};
use crate::Error;
use crate::proto::{
    BundleEntryProto, BundleHeaderProto, TensorSliceProto, bundle_header_proto, tensor_slice_proto,
};

/// A checkpoint that is open: its index is read, its shards are read when a tensor in them is asked for.
pub struct Bundle<'a> {
    files: &'a dyn Files,
    prefix: String,
    index: Table,
    n_shards: i32,
    shards: RefCell<BTreeMap<i32, Bytes>>,
}

/// What the index says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The element type.
    pub dtype: DType,
    /// The shape.
    pub shape: Shape,
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({}, {} shards)", self.prefix, self.n_shards)
    }
}

impl<'a> Bundle<'a> {
    /// Opens the checkpoint `<prefix>.index`; `None` when there is no such file. Blocks.
    ///
    /// # Errors
    /// When the index cannot be read or is damaged; the place is the file.
    pub fn open(files: &'a dyn Files, prefix: &str) -> Result<Option<Bundle<'a>>, Error> {
        let name = format!("{prefix}.index");
        let Some(bytes) = files.read(&name)? else { return Ok(None) };
        Bundle::of_index(files, prefix, &bytes).map(Some).map_err(|error| error.at(name))
    }

    fn of_index(files: &'a dyn Files, prefix: &str, bytes: &Bytes) -> Result<Bundle<'a>, Error> {
        let index = Table::read(bytes)?;
        let header = index.get(b"").ok_or_else(|| Error::invalid("there is no header"))?;
        let header = BundleHeaderProto::decode(header.clone())
            .map_err(|error| Error::invalid(format!("the header is damaged: {error}")))?;
        if header.endianness() != bundle_header_proto::Endianness::Little {
            return Err(Error::unsupported("the checkpoint is big-endian"));
        }
        let (n_shards, prefix) = (header.num_shards, prefix.to_owned());
        Ok(Bundle { files, prefix, index, n_shards, shards: RefCell::default() })
    }

    /// The names of all tensors, sorted; parts of tensors are left out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        // Names of parts start with a zero byte.
        let whole = self.index.keys().filter(|key| key.first().is_some_and(|&byte| byte != 0));
        whole.filter_map(|key| std::str::from_utf8(key).ok())
    }

    /// What the index says of a tensor; `None` when it has none of that name.
    ///
    /// # Errors
    /// When the entry is damaged or of an element type that no tensor here has.
    pub fn entry(&self, name: &str) -> Result<Option<Entry>, Error> {
        let Some(proto) = self.proto(name.as_bytes()).map_err(|error| error.at(place(name)))? else {
            return Ok(None);
        };
        let (dtype, shape) = kind(&proto).map_err(|error| error.at(place(name)))?;
        Ok(Some(Entry { dtype, shape }))
    }

    /// Reads a tensor; `None` when the index has none of that name. The elements stay a slice of the shard, unless the
    /// tensor is stored in parts. Blocks.
    ///
    /// # Errors
    /// When the shard is missing or too short, or the checksum is wrong; the message names the tensor and the shard.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, Error> {
        let read = || {
            let Some(proto) = self.proto(name.as_bytes())? else { return Ok(None) };
            let (dtype, shape) = kind(&proto)?;
            if proto.slices.is_empty() {
                return self.read_whole(&proto, dtype, shape).map(Some);
            }
            self.read_parts(name, &proto, dtype, shape).map(Some)
        };
        read().map_err(|error: Error| error.at(place(name)))
    }

    fn proto(&self, key: &[u8]) -> Result<Option<BundleEntryProto>, Error> {
        // The header is under the empty name.
        let Some(value) = self.index.get(key).filter(|_| !key.is_empty()) else { return Ok(None) };
        BundleEntryProto::decode(value.clone())
            .map(Some)
            .map_err(|error| Error::invalid(format!("its entry in the index is damaged: {error}")))
    }

    fn read_whole(&self, proto: &BundleEntryProto, dtype: DType, shape: Shape) -> Result<Tensor, Error> {
        let shard_name = self.shard_name(proto.shard_id);
        let shard = self.shard(proto.shard_id, &shard_name)?;
        self.read_from(&shard, proto, dtype, shape).map_err(|error| error.at(shard_name))
    }

    fn read_from(
        &self,
        shard: &Bytes,
        proto: &BundleEntryProto,
        dtype: DType,
        shape: Shape,
    ) -> Result<Tensor, Error> {
        let range = usize::try_from(proto.offset).ok().zip(usize::try_from(proto.size).ok());
        let range = range.and_then(|(offset, size)| Some((offset, offset.checked_add(size)?)));
        let Some((start, end)) = range.filter(|(_, end)| *end <= shard.len()) else {
            let (offset, size, length) = (proto.offset, proto.size, shard.len());
            return Err(Error::invalid(format!(
                "the tensor's {size} bytes at {offset} go beyond the end of the shard, which has {length} bytes"
            )));
        };
        let bytes = shard.slice(start..end);
        if dtype == DType::String {
            let (strings, crc) = split_strings(shape.n_elements(), bytes)?;
            check_crc(proto.crc32c, crc)?;
            return made(Tensor::from_strings(shape, strings));
        }
        check_crc(proto.crc32c, crc32c::crc32c(&bytes))?;
        made(Tensor::from_bytes(dtype, shape, bytes))
    }

    fn shard_name(&self, id: i32) -> String {
        format!("{}.data-{id:05}-of-{:05}", self.prefix, self.n_shards)
    }

    fn shard(&self, id: i32, name: &str) -> Result<Bytes, Error> {
        if let Some(shard) = self.shards.borrow().get(&id) {
            return Ok(shard.clone());
        }
        if id < 0 || id >= self.n_shards {
            return Err(Error::invalid(format!("shard {id} of {}", self.n_shards)));
        }
        let shard =
            self.files.read(name)?.ok_or_else(|| Error::invalid(format!("there is no shard {name}")))?;
        self.shards.borrow_mut().insert(id, shard.clone());
        Ok(shard)
    }

    /// Puts a tensor together from its parts.
    fn read_parts(
        &self,
        name: &str,
        proto: &BundleEntryProto,
        dtype: DType,
        shape: Shape,
    ) -> Result<Tensor, Error> {
        let Some(size) = dtype.size() else {
            return Err(Error::unsupported("strings stored in parts are not supported"));
        };
        let mut parts = Vec::with_capacity(proto.slices.len());
        let mut n_elements = 0usize;
        for slice in &proto.slices {
            let part = Part::new(slice, &shape)?;
            let own = self.proto(&slice_key(name, slice))?;
            let own = own.ok_or_else(|| Error::invalid(format!("its part {part} is missing")))?;
            let (part_dtype, part_shape) = kind(&own)?;
            if part_dtype != dtype || part_shape.dims() != part.lengths {
                return Err(Error::invalid(format!("its part {part} is {part_dtype} {part_shape}")));
            }
            let tensor =
                self.read_whole(&own, dtype, part_shape).map_err(|error| error.at(format!("part {part}")))?;
            n_elements = n_elements.saturating_add(tensor.shape().n_elements());
            parts.push((part, tensor));
        }
        // Every part is read by now, so this many bytes are really there.
        if n_elements != shape.n_elements() {
            let want = shape.n_elements();
            return Err(Error::invalid(format!("its parts have {n_elements} elements, expected {want}")));
        }
        let mut whole = BytesMut::zeroed(n_elements.saturating_mul(size));
        for (part, tensor) in &parts {
            let bytes = tensor.bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
            part.copy(&shape, size, bytes, &mut whole)
                .ok_or_else(|| Error::invalid(format!("its part {part} does not fit")))?;
        }
        made(Tensor::from_bytes(dtype, shape, whole.freeze()))
    }
}

fn place(name: &str) -> String {
    format!("variable '{name}'")
}

fn kind(proto: &BundleEntryProto) -> Result<(DType, Shape), Error> {
    let dtype = dtype_from_number(proto.dtype).ok_or_else(|| {
        Error::unsupported(format!("tensors of type {} are not supported", dtype_name(proto.dtype)))
    })?;
    let shape = proto.shape.as_ref().map_or_else(|| Ok(Shape::scalar()), decode_shape)?;
    Ok((dtype, shape))
}

fn check_crc(stored: u32, computed: u32) -> Result<(), Error> {
    let computed = mask(computed);
    if stored != computed {
        return Err(Error::invalid(format!("checksum is {computed:#010x}, expected {stored:#010x}")));
    }
    Ok(())
}

/// Strings in a shard: all lengths as varints, a checksum of the lengths, the strings in a row. The tensor's checksum
/// runs over the lengths as fixed numbers (of 32 bits, or 64 where they do not fit), the checksum and the strings.
fn split_strings(n: usize, mut bytes: Bytes) -> Result<(Vec<Bytes>, u32), Error> {
    let wrong = || Error::invalid("the lengths of strings do not fit the tensor's bytes");
    if n > bytes.len() {
        return Err(wrong());
    }
    let mut crc = 0;
    let mut lengths = Vec::with_capacity(n);
    let mut total = 0u64;
    for _ in 0..n {
        let length = prost::encoding::decode_varint(&mut bytes).map_err(|_| wrong())?;
        crc = match u32::try_from(length) {
            Ok(short) => crc32c::crc32c_append(crc, &short.to_le_bytes()),
            Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
        };
        total = total.saturating_add(length);
        lengths.push(usize::try_from(length).map_err(|_| wrong())?);
    }
    if bytes.len() < 4 {
        return Err(wrong());
    }
    let stored = bytes.get_u32_le();
    check_crc(stored, crc)?;
    crc = crc32c::crc32c_append(crc, &stored.to_le_bytes());
    if total != bytes.len() as u64 {
        return Err(wrong());
    }
    crc = crc32c::crc32c_append(crc, &bytes);
    // The lengths add up to what is there, so no single one is longer than the rest.
    Ok((lengths.into_iter().map(|length| bytes.split_to(length)).collect(), crc))
}

/// A box within a tensor.
struct Part {
    starts: Vec<usize>,
    lengths: Vec<usize>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {:?}", self.lengths, self.starts)
    }
}

impl Part {
    fn new(slice: &TensorSliceProto, shape: &Shape) -> Result<Part, Error> {
        let wrong = || Error::invalid(format!("one of its parts does not lie within the shape {shape}"));
        if slice.extent.len() != shape.rank() {
            return Err(wrong());
        }
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for (extent, &dim) in slice.extent.iter().zip(shape.dims()) {
            let start = usize::try_from(extent.start).map_err(|_| wrong())?;
            let length = match extent.has_length {
                None => dim,
                Some(tensor_slice_proto::extent::HasLength::Length(length)) => {
                    usize::try_from(length).map_err(|_| wrong())?
                }
            };
            if start.checked_add(length).is_none_or(|end| end > dim) {
                return Err(wrong());
            }
            starts.push(start);
            lengths.push(length);
        }
        Ok(Part { starts, lengths })
    }

    /// Copies the part's elements to their places; `None` when something does not fit, which [`Part::new`] excludes.
    fn copy(&self, shape: &Shape, size: usize, part: &[u8], whole: &mut [u8]) -> Option<()> {
        let Some((&row, outer)) = self.lengths.split_last() else {
            whole.copy_from_slice(part);
            return Some(());
        };
        let row = row.checked_mul(size)?;
        if row == 0 {
            return Some(());
        }
        let mut at = vec![0usize; outer.len()];
        for source in part.chunks_exact(row) {
            let mut offset = 0usize;
            for (axis, &dim) in shape.dims().iter().enumerate() {
                let position = self.starts.get(axis)?.checked_add(at.get(axis).copied().unwrap_or(0))?;
                offset = offset.checked_mul(dim)?.checked_add(position)?;
            }
            let start = offset.checked_mul(size)?;
            whole.get_mut(start..start.checked_add(row)?)?.copy_from_slice(source);
            for (position, &length) in at.iter_mut().zip(outer).rev() {
                *position = position.checked_add(1)?;
                if *position < length {
                    break;
                }
                *position = 0;
            }
        }
        Some(())
    }
}

/// The name under which a part of a tensor is stored: a zero, the tensor's name, the number of dimensions and each
/// start and length, in TensorFlow's order-preserving code (`tensorflow/core/lib/strings/ordered_code`).
fn slice_key(name: &str, slice: &TensorSliceProto) -> Vec<u8> {
    let mut key = Vec::new();
    push_number(&mut key, 0);
    push_string(&mut key, name.as_bytes());
    push_number(&mut key, slice.extent.len() as u64);
    for extent in &slice.extent {
        let length = match extent.has_length {
            None => -1,
            Some(tensor_slice_proto::extent::HasLength::Length(length)) => length,
        };
        push_signed(&mut key, extent.start);
        push_signed(&mut key, length);
    }
    key
}

/// The number of bytes and then the number, most significant byte first.
fn push_number(key: &mut Vec<u8>, number: u64) {
    let skip = (number.leading_zeros() / 8) as usize;
    let bytes = number.to_be_bytes();
    let significant = bytes.get(skip..).unwrap_or_default();
    key.extend(u8::try_from(significant.len()));
    key.extend_from_slice(significant);
}

/// Zeros and 0xff are escaped, and 0 1 ends the string.
fn push_string(key: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            0 => key.extend([0, 0xff]),
            0xff => key.extend([0xff, 0]),
            byte => key.push(byte),
        }
    }
    key.extend([0, 1]);
}

/// Two's complement, most significant byte first, in as few bytes as leave room for a sign and, in front, as many ones
/// as there are bytes; the leading bits of negative numbers are inverted.
fn push_signed(key: &mut Vec<u8>, number: i64) {
    let magnitude = if number < 0 { !number } else { number };
    // One byte holds 6 bits of the magnitude, each further byte 7 more.
    let bits = 64u32.saturating_sub(magnitude.leading_zeros());
    let n = (bits / 7).saturating_add(1).min(10) as usize;
    let mut bytes = [if number < 0 { 0xffu8 } else { 0 }; 10];
    for (byte, own) in bytes.iter_mut().skip(2).zip(number.to_be_bytes()) {
        *byte = own;
    }
    let mut header = [0u8; 2];
    for bit in 0..n {
        let (at, shift) = (bit / 8, bit % 8);
        if let Some(byte) = header.get_mut(at) {
            *byte |= 0x80u8 >> shift;
        }
    }
    let start = bytes.len().saturating_sub(n);
    for (at, byte) in bytes.iter().skip(start).enumerate() {
        key.push(byte ^ header.get(at).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;
