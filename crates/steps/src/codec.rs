//! The bytes of changelog records and of what the store holds. The layout is told in the crate's documentation.

use std::sync::Arc;

use bytes::Bytes;
use salver_tensor::{DType, MAX_RANK, Shape, Tensor};

const VERSION: u8 = 1;
const KIND: u8 = b'w';
const KEY_HEAD: usize = 6;
const HAS_CLOCK: u8 = 1;

/// The clock before any timestamp was seen.
pub(crate) const NO_CLOCK: i64 = i64::MIN;

/// Element type and shape of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

impl Layout {
    pub(crate) fn of(row: &Tensor) -> Layout {
        Layout { dtype: row.dtype(), shape: row.shape().clone() }
    }

    /// Whether a row is of it.
    pub(crate) fn is_of(&self, row: &Tensor) -> bool {
        self.dtype == row.dtype() && self.shape == *row.shape()
    }

    /// Bytes of a row; 0 for strings, which are never in a window.
    pub(crate) fn row_bytes(&self) -> usize {
        self.shape.n_elements() * self.dtype.size().unwrap_or(0)
    }
}

/// One row of a key's ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The offset at which the window began.
    pub(crate) born: i64,
    /// Its number since then.
    pub(crate) number: u64,
    pub(crate) offset: i64,
    pub(crate) clock: i64,
    pub(crate) layout: Arc<Layout>,
    pub(crate) data: Bytes,
}

impl Row {
    pub(crate) fn place(&self, ring: u32) -> u32 {
        place(self.number, ring)
    }
}

/// Where in the ring a row lies.
pub(crate) fn place(number: u64, ring: u32) -> u32 {
    // Less than `ring`, which is a u32.
    (number % u64::from(ring)) as u32
}

/// The changelog key of a place.
pub(crate) fn encode_key(place: u32, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(KEY_HEAD + key.len());
    bytes.extend_from_slice(&[VERSION, KIND]);
    bytes.extend_from_slice(&place.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.into()
}

/// The place and the record's key of a changelog key.
pub(crate) fn decode_key(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    let Some((&[version, kind, a, b, c, d], key)) = bytes.split_first_chunk::<KEY_HEAD>() else {
        return Err(format!("its key has {} bytes, expected at least {KEY_HEAD}", bytes.len()));
    };
    if (version, kind) != (VERSION, KIND) {
        return Err(format!("its key begins with {version}, {kind}, expected {VERSION}, {KIND}"));
    }
    Ok((u32::from_be_bytes([a, b, c, d]), key))
}

/// The value of a row.
pub(crate) fn encode_row(row: &Row, ring: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + row.data.len());
    let has_clock = row.clock != NO_CLOCK;
    bytes.extend_from_slice(&[VERSION, u8::from(has_clock) * HAS_CLOCK]);
    put(u64::from(ring), &mut bytes);
    put_signed(row.born, &mut bytes);
    put(row.number, &mut bytes);
    put_signed(row.offset, &mut bytes);
    if has_clock {
        put_signed(row.clock, &mut bytes);
    }
    let dims = row.layout.shape.dims();
    let dtype = DType::ALL.iter().position(|dtype| *dtype == row.layout.dtype).unwrap_or(usize::MAX);
    bytes.extend_from_slice(&[dtype as u8, dims.len() as u8]);
    for &dim in dims {
        put(dim as u64, &mut bytes);
    }
    bytes.extend_from_slice(&row.data);
    bytes
}

/// A row and the size of the ring it is of. Of any bytes: the data is a slice of them.
pub(crate) fn decode_row(bytes: &Bytes) -> Result<(Row, u32), String> {
    let mut rest = &bytes[..];
    let version = byte(&mut rest)?;
    if version != VERSION {
        return Err(format!("its value is of version {version}, expected {VERSION}"));
    }
    let flags = byte(&mut rest)?;
    if flags & !HAS_CLOCK != 0 {
        return Err(format!("its value has the flags {flags:#x}, expected {HAS_CLOCK:#x} at most"));
    }
    let ring = u32::try_from(take(&mut rest)?).ok().filter(|ring| *ring > 0);
    let ring = ring.ok_or("its ring is empty or too large")?;
    let born = take_signed(&mut rest)?;
    let number = take(&mut rest)?;
    if i64::try_from(number).is_err() {
        return Err(format!("its number is {number}, expected at most {}", i64::MAX));
    }
    let offset = take_signed(&mut rest)?;
    let clock = if flags & HAS_CLOCK != 0 { take_signed(&mut rest)? } else { NO_CLOCK };
    let dtype = byte(&mut rest)?;
    let dtype = *DType::ALL.get(usize::from(dtype)).ok_or_else(|| format!("its element type is {dtype}"))?;
    let rank = usize::from(byte(&mut rest)?);
    if rank > MAX_RANK {
        return Err(format!("its rank is {rank}, expected at most {MAX_RANK}"));
    }
    let dims: Result<Vec<usize>, String> = (0..rank)
        .map(|_| usize::try_from(take(&mut rest)?).map_err(|_| "a dimension is out of range".to_owned()))
        .collect();
    let shape = Shape::new(&dims?).map_err(|error| error.to_string())?;
    let n_bytes = dtype.size().and_then(|size| shape.n_elements().checked_mul(size));
    if n_bytes != Some(rest.len()) || shape.dims().first() != Some(&1) {
        return Err(format!("its {} bytes are no row of {dtype} {shape}", rest.len()));
    }
    let data = bytes.slice(bytes.len() - rest.len()..);
    let layout = Arc::new(Layout { dtype, shape });
    Ok((Row { born, number, offset, clock, layout, data }, ring))
}

/// What the store holds of a key: each row as in the changelog, after its length.
pub(crate) fn encode_rows<'a>(rows: impl Iterator<Item = &'a Row>, ring: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        let row = encode_row(row, ring);
        put(row.len() as u64, &mut bytes);
        bytes.extend_from_slice(&row);
    }
    bytes
}

/// All rows that the store holds of a key.
pub(crate) fn decode_rows(bytes: &Bytes, ring: u32) -> Result<Vec<Row>, String> {
    let mut rest = &bytes[..];
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let n_bytes = usize::try_from(take(&mut rest)?).unwrap_or(usize::MAX);
        if n_bytes > rest.len() {
            return Err("a row is cut off".into());
        }
        let start = bytes.len() - rest.len();
        let (row, its_ring) = decode_row(&bytes.slice(start..start + n_bytes))?;
        if its_ring != ring {
            return Err(format!("its ring has {its_ring} places, expected {ring}"));
        }
        rows.push(row);
        rest = &rest[n_bytes..];
    }
    Ok(rows)
}

pub(crate) fn put(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

pub(crate) fn put_signed(value: i64, to: &mut Vec<u8>) {
    put(((value << 1) ^ (value >> 63)) as u64, to);
}

pub(crate) fn byte(from: &mut &[u8]) -> Result<u8, String> {
    let (&byte, rest) = from.split_first().ok_or("it is cut off")?;
    *from = rest;
    Ok(byte)
}

pub(crate) fn take(from: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let part = byte(from)?;
        let bits = u64::from(part & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if part & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than 64 bits".into())
}

pub(crate) fn take_signed(from: &mut &[u8]) -> Result<i64, String> {
    let value = take(from)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        (any::<i64>(), 0..=i64::MAX as u64, any::<i64>(), any::<i64>(), 0usize..4).prop_map(
            |(born, number, offset, clock, width)| {
                let layout = Arc::new(Layout { dtype: DType::F32, shape: Shape::new(&[1, width]).unwrap() });
                let data = Bytes::from(vec![7; width * 4]);
                Row { born, number, offset, clock, layout, data }
            },
        )
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::vec(any_row(), 0..4), ring in 1u32..) {
            for row in &rows {
                prop_assert_eq!(decode_row(&encode_row(row, ring).into()).unwrap(), (row.clone(), ring));
            }
            let bytes = Bytes::from(encode_rows(rows.iter(), ring));
            prop_assert_eq!(decode_rows(&bytes, ring).unwrap(), rows);
        }

        #[test]
        fn keys_come_back(place: u32, key: Vec<u8>) {
            let encoded = encode_key(place, &key);
            prop_assert_eq!(decode_key(&encoded), Ok((place, &key[..])));
        }

        /// Any bytes are taken or refused.
        #[test]
        fn hostile_bytes(row in any_row(), at in 0usize..60, with: u8, cut in 0usize..60, noise: Vec<u8>) {
            let mut bytes = encode_row(&row, 5);
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            for bytes in [bytes, noise] {
                let bytes = Bytes::from(bytes);
                if let Ok((row, ring)) = decode_row(&bytes) {
                    prop_assert_eq!(decode_row(&encode_row(&row, ring).into()), Ok((row, ring)));
                }
                if let Ok(rows) = decode_rows(&bytes, 5) {
                    prop_assert!(rows.iter().map(|row| row.data.len()).sum::<usize>() <= bytes.len());
                }
                if let Ok((_, key)) = decode_key(&bytes) {
                    prop_assert!(key.len() < bytes.len());
                }
            }
        }
    }
}
