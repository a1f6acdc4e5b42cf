//! How a record says which schema it was written with.
//!
//! The frame of Confluent's serializers: a byte 0 and the schema's id as four bytes, most significant first; or a byte 1 and
//! its GUID as 16 bytes. For Protobuf the place of the message in its file follows, as a list of zigzag varints with their number
//! first; a single 0 is short for the first message. Then comes the content. Newer serializers put the same bytes into the
//! header `__value_schema_id` and leave the content bare.
//! Source: Confluent's documentation of the wire format, and the serializers of confluent-kafka 2.16 that the golden files
//! of the tests were made with.

use std::fmt;

use salver_records::Header;
use smallvec::SmallVec;

use crate::Refused;

/// The header that names the schema of a record's value. What it says is not true of a value that was written anew.
pub(crate) const VALUE_HEADER: &str = "__value_schema_id";

const BY_ID: u8 = 0;
const BY_GUID: u8 = 1;

/// How deep messages may be nested in each other in a `.proto` file.
const MAX_INDEXES: usize = 32;

/// What a schema is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SchemaId {
    Number(u32),
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Number(id) => write!(f, "{id}"),
            SchemaId::Guid(bytes) => f.write_str(&guid_text(bytes)),
        }
    }
}

/// The form 8-4-4-4-12.
pub(super) fn guid_text(bytes: &[u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
    }
    text
}

/// Which message of a file: the number of a message at the top, then of one nested in it, and so on.
pub(super) type Indexes = SmallVec<[u32; 4]>;

/// Whether the place of a message is part of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// It is: Protobuf.
    Message,
    /// It is not: Avro and JSON.
    None,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: SchemaId,
    /// Empty but for Protobuf.
    pub(super) indexes: Indexes,
    /// Where the content starts in the record.
    pub(super) start: usize,
}

/// Reads the frame of a record: the header's if there is one, else that of the first bytes.
pub(super) fn read(record: &[u8], headers: &[Header], places: Places) -> Result<Frame, Refused> {
    let header = headers.iter().rev().find(|header| &*header.name == VALUE_HEADER);
    if let Some(bytes) = header.and_then(|header| header.value.as_ref()) {
        let frame = parse(bytes, places)
            .map_err(|what| Refused::schema(format!("header `{VALUE_HEADER}`: {what}")))?;
        if frame.start != bytes.len() {
            return Err(Refused::schema(format!(
                "header `{VALUE_HEADER}`: bytes are left over after the schema's id"
            )));
        }
        return Ok(Frame { start: 0, ..frame });
    }
    parse(record, places)
        .map_err(|what| Refused::schema(format!("the record is not framed for a registry: {what}")))
}

fn parse(bytes: &[u8], places: Places) -> Result<Frame, String> {
    let cut = || "it ends within the schema's id".to_owned();
    let (id, mut start) = match bytes.first() {
        Some(&BY_ID) => (
            SchemaId::Number(u32::from_be_bytes(
                *bytes.get(1..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?,
            )),
            5,
        ),
        Some(&BY_GUID) => {
            (SchemaId::Guid(*bytes.get(1..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?), 17)
        }
        Some(other) => {
            return Err(format!("the first byte is {other}, expected 0 (then an id) or 1 (then a GUID)"));
        }
        None => return Err("it is empty".into()),
    };
    let mut indexes = Indexes::new();
    if places == Places::Message {
        let mut next = || varint(bytes, &mut start);
        let n = next()?;
        if n > MAX_INDEXES as u64 {
            return Err(format!("the message lies {n} deep, expected {MAX_INDEXES} at most"));
        }
        for _ in 0..n {
            indexes.push(u32::try_from(next()?).map_err(|_| "the number of a message is too large")?);
        }
        if indexes.is_empty() {
            indexes.push(0);
        }
    }
    Ok(Frame { id, indexes, start })
}

/// A zigzag varint that is not negative.
fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at).ok_or("it ends within the place of the message")?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if value & 1 == 0 {
                Ok(value >> 1)
            } else {
                Err("the place of the message is negative".into())
            };
        }
    }
    Err("the place of the message is too long a number".into())
}

/// Appends a frame. No indexes for Avro.
pub(super) fn write(id: u32, indexes: &[u32], into: &mut Vec<u8>) {
    into.push(BY_ID);
    into.extend_from_slice(&id.to_be_bytes());
    match indexes {
        [] => {}
        [0] => into.push(0),
        _ => {
            push_varint(indexes.len() as u64, into);
            for &index in indexes {
                push_varint(u64::from(index), into);
            }
        }
    }
}

fn push_varint(value: u64, into: &mut Vec<u8>) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        into.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    into.push(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &[u8]) -> Vec<Header> {
        vec![Header { name: VALUE_HEADER.into(), value: Some(value.to_vec().into()) }]
    }

    #[test]
    fn frames_are_read() {
        let check = |bytes: &[u8], places: Places, id: u32, indexes: &[u32], start: usize| {
            let frame = read(bytes, &[], places).unwrap();
            assert_eq!(
                (frame.id, frame.indexes.as_slice(), frame.start),
                (SchemaId::Number(id), indexes, start),
                "{bytes:?}"
            );
        };
        check(&[0, 0, 0, 1, 2, 9], Places::None, 258, &[], 5);
        check(&[0, 0xff, 0xff, 0xff, 0xff], Places::None, u32::MAX, &[], 5);
        check(&[0, 0, 0, 0, 7, 0, 9], Places::Message, 7, &[0], 6);
        check(&[0, 0, 0, 0, 7, 2, 2, 9], Places::Message, 7, &[1], 7);
        check(&[0, 0, 0, 0, 7, 4, 2, 0x80, 2, 9], Places::Message, 7, &[1, 128], 9);
    }

    #[test]
    fn a_header_comes_before_the_first_bytes() {
        let guid: Vec<u8> = std::iter::once(1).chain(0..16).collect();
        let frame = read(&[0, 0, 0, 0, 1], &header(&guid), Places::None).unwrap();
        assert_eq!((frame.id.to_string().as_str(), frame.start), ("00010203-0405-0607-0809-0a0b0c0d0e0f", 0));
        let frame = read(&[], &header(&[0, 0, 0, 0, 3, 2, 4]), Places::Message).unwrap();
        assert_eq!((frame.id, frame.indexes.as_slice(), frame.start), (SchemaId::Number(3), &[2u32][..], 0));
        let framed: Vec<u8> = guid.iter().copied().chain([5]).collect();
        assert_eq!(read(&framed, &[], Places::None).unwrap().start, 17);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &[u8], headers: &[Header], places: Places, expected: &str| {
            let refused = read(bytes, headers, places).unwrap_err();
            assert!(refused.message.contains(expected) && !refused.passing, "{bytes:?}: {refused}");
        };
        check(&[], &[], Places::None, "empty");
        check(b"{}", &[], Places::None, "first byte is 123");
        check(&[0, 0, 0, 1], &[], Places::None, "ends within");
        check(&[1, 0, 0, 1, 4, 5, 6], &[], Places::None, "ends within");
        check(&[0, 0, 0, 0, 1], &[], Places::Message, "ends within");
        check(&[0, 0, 0, 0, 1, 0x80], &[], Places::Message, "ends within");
        check(&[0, 0, 0, 0, 1, 1], &[], Places::Message, "negative");
        check(&[0, 0, 0, 0, 1, 2], &[], Places::Message, "ends within");
        check(&[0, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0x0f], &[], Places::Message, "deep");
        check(
            &[0, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
            &[],
            Places::Message,
            "too long",
        );
        check(&[], &header(&[0, 0, 0, 0, 1, 2]), Places::None, "left over");
        check(&[], &header(&[2]), Places::None, "first byte is 2");
    }

    #[test]
    fn what_is_written_is_read() {
        for indexes in [&[][..], &[0], &[1], &[0, 0], &[3, 64, 1_000_000]] {
            let mut bytes = vec![];
            write(0x0102_0304, indexes, &mut bytes);
            let places = if indexes.is_empty() { Places::None } else { Places::Message };
            let frame = read(&bytes, &[], places).unwrap();
            assert_eq!(
                (frame.id, frame.indexes.as_slice(), frame.start),
                (SchemaId::Number(0x0102_0304), indexes, bytes.len())
            );
        }
    }
}
