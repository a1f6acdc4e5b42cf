//! Messages in protobuf's text format.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::Error;
use crate::proto::FILE_DESCRIPTOR_SET;

/// Longer texts are refused: while it is read, a text takes many times its own size.
pub(crate) const MAX_TEXT_BYTES: usize = 256 << 20;

/// Deeper nesting is refused: the reader calls itself for each level. Of the models seen, none goes beyond 30.
const MAX_DEPTH: usize = 64;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are well-formed")
});

/// Whether a file is text: it starts with a field's name or a comment, and no control characters come early. A binary
/// message starts with a key, which of the first fifteen fields is a control character.
pub fn looks_like_text(bytes: &[u8]) -> bool {
    let start = bytes.get(..bytes.len().min(512)).unwrap_or(bytes);
    let is_control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'#' | b'_'))
        && !start.iter().any(is_control)
}

/// Reads the message of that full name.
pub(crate) fn parse<M: Message + Default>(bytes: &[u8], full_name: &str) -> Result<M, Error> {
    if bytes.len() > MAX_TEXT_BYTES {
        let message = format!("text of {} bytes, at most {MAX_TEXT_BYTES} are allowed", bytes.len());
        return Err(Error::too_large(message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::invalid(format!("not a text: {error}")))?;
    if let Some(offset) = first_too_deep(text) {
        let line = line_of(text, offset);
        return Err(Error::too_large(format!("line {line}: nested deeper than {MAX_DEPTH} levels")));
    }
    let descriptor = POOL.get_message_by_name(full_name).expect("the committed descriptors hold the message");
    let parsed = DynamicMessage::parse_text_format(descriptor, text)
        .map_err(|error| Error::invalid(format!("not a {full_name} in text form: {error}")))?;
    parsed.transcode_to().map_err(|error| Error::invalid(format!("not a {full_name}: {error}")))
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1)
}

/// Where the nesting goes beyond [`MAX_DEPTH`], if it does. Brackets in strings and comments do not count.
fn first_too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'{' | b'<' | b'[' => depth = depth.saturating_add(1),
            b'}' | b'>' | b']' => depth = depth.saturating_sub(1),
            b'#' => while bytes.next().is_some_and(|(_, byte)| byte != b'\n') {},
            b'"' | b'\'' => {
                while let Some((_, inner)) = bytes.next() {
                    match inner {
                        b'\\' => drop(bytes.next()),
                        // A string does not go beyond its line; the reader refuses one that does.
                        b'\n' => break,
                        end if end == byte => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(offset);
        }
    }
    None
}
