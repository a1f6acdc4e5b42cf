//! Protobuf messages by the text of their `.proto` file.

pub(super) mod read;
pub(super) mod write;

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::framing::Indexes;
use crate::Reference;

/// The name that the file itself has; others may import what they like but this.
const SELF: &str = "salver/the-schema.proto";
/// How long the text of a file may be.
const MAX_TEXT: usize = 4 << 20;
/// How many messages, fields in brackets and the like may lie in each other.
const MAX_NESTING: usize = 64;
/// How many imports may follow each other.
const MAX_FILES: usize = 300;

/// A file of messages, compiled.
#[derive(Debug, Clone)]
pub(super) struct Proto {
    file: FileDescriptor,
}

/// Gives the texts that a registry sent, and Google's own files.
struct Texts {
    own: String,
    references: Vec<(String, String)>,
    google: GoogleFileResolver,
}

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == SELF {
            return open(name, &self.own);
        }
        match self.references.iter().find(|(known, _)| known == name) {
            Some((_, text)) => open(name, text),
            None => self.google.open_file(name),
        }
    }
}

/// A file by its text, or by its descriptor in base 64: what Python's clients register, and some registries give back.
fn open(name: &str, text: &str) -> Result<File, protox::Error> {
    let Ok(bytes) = STANDARD.decode(text.trim()) else { return File::from_source(name, text) };
    let mut descriptor = FileDescriptorProto::decode(&*bytes).map_err(protox::Error::new)?;
    descriptor.name = Some(name.to_owned());
    Ok(File::from_file_descriptor_proto(descriptor))
}

impl Proto {
    /// Compiles a file with those that it imports. `Err` with what is wrong and where.
    pub(super) fn compile(text: &str, references: &[Reference]) -> Result<Proto, String> {
        if references.len() > MAX_FILES {
            return Err(format!("{} references, expected {MAX_FILES} at most", references.len()));
        }
        for (name, text) in std::iter::once(("the schema", text))
            .chain(references.iter().map(|r| (r.name.as_str(), r.text.as_str())))
        {
            check_size(text).map_err(|error| format!("{name}: {error}"))?;
        }
        let texts = Texts {
            own: text.to_owned(),
            references: references
                .iter()
                .map(|reference| (reference.name.clone(), reference.text.clone()))
                .collect(),
            google: GoogleFileResolver::new(),
        };
        let mut compiler = Compiler::with_file_resolver(texts);
        compiler.include_imports(true);
        compiler.open_file(SELF).map_err(|error| format!("the schema cannot be compiled: {error}"))?;
        let file = compiler.descriptor_pool().get_file_by_name(SELF);
        file.map(|file| Proto { file }).ok_or_else(|| "the schema has no file".into())
    }

    /// The message at a place, as frames have it.
    pub(super) fn at(&self, indexes: &[u32]) -> Result<MessageDescriptor, String> {
        let none = || format!("the schema has no message at {indexes:?}");
        let mut places = indexes.iter().map(|&index| usize::try_from(index).unwrap_or(usize::MAX));
        let first = places.next().ok_or_else(none)?;
        let mut message = self.file.messages().nth(first).ok_or_else(none)?;
        for place in places {
            let inner = nested(&message).nth(place);
            message = inner.ok_or_else(none)?;
        }
        Ok(message)
    }

    /// The message of that full name, or the only one of that last name; the first without a name.
    pub(super) fn named(&self, name: Option<&str>) -> Result<MessageDescriptor, String> {
        let Some(name) = name else {
            return self.file.messages().next().ok_or_else(|| "the schema has no message".into());
        };
        let pool = self.file.parent_pool();
        if let Some(message) = pool.get_message_by_name(name) {
            return Ok(message);
        }
        let mut named = pool
            .all_messages()
            .filter(|message| message.name() == name && message.parent_file() == self.file);
        match (named.next(), named.next()) {
            (Some(message), None) => Ok(message),
            (Some(_), Some(_)) => Err(format!("the schema has several messages `{name}`; name one in full")),
            (None, _) => {
                let known: Vec<String> =
                    self.file.messages().map(|message| message.full_name().to_owned()).take(20).collect();
                Err(format!("the schema has no message `{name}`, only {}", known.join(", ")))
            }
        }
    }

    /// Whether the message is of this file and not of one that it imports.
    pub(super) fn holds(&self, message: &MessageDescriptor) -> bool {
        message.parent_file() == self.file
    }
}

/// The compiler goes down into what is nested; this keeps it from going too deep.
fn check_size(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("it has {} bytes, expected {MAX_TEXT} at most", text.len()));
    }
    let mut open = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'/', [b'/', ..]) => from(after, b"\n"),
            (b'/', [b'*', comment @ ..]) => from(comment, b"*/"),
            (b'"' | b'\'', _) => after_text(*first, after),
            _ => after,
        };
        let closing = match first {
            b'{' => b'}',
            b'[' => b']',
            b'(' => b')',
            b'<' => b'>',
            _ => {
                if open.last() == Some(first) {
                    open.pop();
                }
                continue;
            }
        };
        open.push(closing);
        if open.len() > MAX_NESTING {
            return Err(format!("it is nested more than {MAX_NESTING} deep"));
        }
    }
    Ok(())
}

/// What follows after the first place of some bytes.
fn from<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|window| window == end);
    at.and_then(|at| text.get(at + end.len()..)).unwrap_or_default()
}

/// What follows after the quote that ends a text.
fn after_text(quote: u8, mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [] => return text,
            [b'\\', _, rest @ ..] => rest,
            // No text goes on in the next line; the compiler says so too.
            [first, rest @ ..] if *first == quote || *first == b'\n' => return rest,
            [_, rest @ ..] => rest,
        };
    }
}

/// The place of a message, as frames have it.
pub(super) fn place_of(message: &MessageDescriptor) -> Indexes {
    let mut place = Indexes::new();
    let mut here = message.clone();
    loop {
        let above = here.parent_message();
        let index = match &above {
            Some(above) => nested(above).position(|other| other == here),
            None => here.parent_file().messages().position(|other| other == here),
        };
        place.insert(0, index.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX));
        match above {
            Some(above) => here = above,
            None => return place,
        }
    }
}

/// The messages that are written within a message. Those that a compiler makes for maps do not count, as Java's serializer
/// has it; Python's counts them, and then the frame of a message that stands behind a map names another.
fn nested(message: &MessageDescriptor) -> impl Iterator<Item = MessageDescriptor> + '_ {
    message.child_messages().filter(|message| !message.is_map_entry())
}

/// `Err` unless what was written as `from` can be read as `to` with nothing lost or changed, whatever it is.
pub(super) fn check_extends(from: &MessageDescriptor, to: &MessageDescriptor) -> Result<(), String> {
    let mut done = HashSet::new();
    let mut left = vec![(from.clone(), to.clone())];
    while let Some((from, to)) = left.pop() {
        if !done.insert((from.full_name().to_owned(), to.full_name().to_owned())) {
            continue;
        }
        for field in from.fields() {
            let what =
                || format!("message `{}`: field `{}` = {}", from.full_name(), field.name(), field.number());
            let other = to.get_field(field.number());
            let other =
                other.ok_or_else(|| format!("{}: message `{}` does not have it", what(), to.full_name()))?;
            if other.name() != field.name() || !is_alike(&field, &other) {
                return Err(format!(
                    "{}: message `{}` has another field of that number",
                    what(),
                    to.full_name()
                ));
            }
            if let (Kind::Message(inner), Kind::Message(other)) = (field.kind(), other.kind()) {
                left.push((inner, other));
            }
        }
    }
    Ok(())
}

fn is_alike(one: &FieldDescriptor, other: &FieldDescriptor) -> bool {
    let kinds = match (one.kind(), other.kind()) {
        (Kind::Message(_), Kind::Message(_)) | (Kind::Enum(_), Kind::Enum(_)) => true,
        (one, other) => one == other,
    };
    kinds
        && one.is_list() == other.is_list()
        && one.is_map() == other.is_map()
        && one.is_group() == other.is_group()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, text: &str) -> Reference {
        Reference { name: name.into(), text: text.into(), registered: None }
    }

    const NESTED: &str = r#"syntax = "proto3"; package a;
        message One { map<string, int32> m = 1; message Inner { int32 x = 1; message Deep { int32 y = 1; } } }
        message Two { One.Inner inner = 1; }"#;

    #[test]
    fn messages_are_found_by_place_and_by_name() {
        let proto = Proto::compile(NESTED, &[]).unwrap();
        for (place, name) in [
            (&[0u32][..], "a.One"),
            (&[1], "a.Two"),
            (&[0, 0], "a.One.Inner"),
            (&[0, 0, 0], "a.One.Inner.Deep"),
        ] {
            let message = proto.at(place).unwrap();
            assert_eq!((message.full_name(), place_of(&message).as_slice()), (name, place));
            assert_eq!(proto.named(Some(name)).unwrap(), message);
        }
        assert_eq!(proto.named(None).unwrap().full_name(), "a.One");
        assert_eq!(proto.named(Some("Deep")).unwrap().full_name(), "a.One.Inner.Deep");
        assert!(proto.at(&[2]).is_err() && proto.at(&[]).is_err() && proto.at(&[0, 7]).is_err());
        assert!(proto.named(Some("Three")).unwrap_err().contains("a.One, a.Two"));
    }

    #[test]
    fn imports_are_references_or_googles() {
        let text = r#"syntax = "proto3"; import "x/y.proto"; import "google/protobuf/timestamp.proto";
            message M { Y y = 1; google.protobuf.Timestamp t = 2; }"#;
        let y = reference("x/y.proto", r#"syntax = "proto3"; message Y { float f = 1; }"#);
        let proto = Proto::compile(text, std::slice::from_ref(&y)).unwrap();
        assert_eq!(proto.named(None).unwrap().fields().count(), 2);
        assert!(Proto::compile(text, &[]).unwrap_err().contains("x/y.proto"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = Proto::compile(text, &[])
                .map(|proto| proto.named(None).unwrap_err())
                .unwrap_or_else(|error| error);
            assert!(error.contains(expected), "{error}");
        };
        check("message", "cannot be compiled");
        check("syntax = \"proto3\"; message M { Nothing n = 1; }", "cannot be compiled");
        check("syntax = \"proto3\";", "no message");
        check(&format!("{}{}", "message A { ".repeat(100_000), "}".repeat(100_000)), "nested");
        check(&format!("{}{}", "message A { // }\n".repeat(100), "}".repeat(100)), "nested");
        check(&" ".repeat(MAX_TEXT + 1), "at most");
        let quoted = format!(
            "syntax = \"proto3\"; /* {0} */ // {0}\n message M {{ string a = 1 [json_name = \"{0}\\\"{0}\"]; }}",
            "{".repeat(99)
        );
        assert!(Proto::compile(&quoted, &[]).is_ok(), "braces in comments and texts do not count");
    }

    #[test]
    fn a_message_extends_another_if_it_has_all_its_fields() {
        let check = |to: &str, expected: Option<&str>| {
            let from = "message M { int32 a = 1; repeated float b = 2; In c = 3; map<string, In> d = 4; } message In { bool x = 1; }";
            let compile = |text: &str| {
                Proto::compile(&format!("syntax = \"proto3\"; {text}"), &[]).unwrap().named(None).unwrap()
            };
            let result = check_extends(&compile(from), &compile(to));
            match expected {
                None => assert_eq!(result, Ok(()), "{to}"),
                Some(expected) => assert!(result.clone().unwrap_err().contains(expected), "{to}: {result:?}"),
            }
        };
        let with = |fields: &str, inner: &str| format!("message N {{ {fields} }} message In {{ {inner} }}");
        let all = "int32 a = 1; repeated float b = 2; In c = 3; map<string, In> d = 4;";
        check(&with(&format!("{all} double score = 9;"), "bool x = 1;"), None);
        check(
            &with("repeated float b = 2; In c = 3; map<string, In> d = 4;", "bool x = 1;"),
            Some("field `a` = 1"),
        );
        check(&with(&all.replace("int32", "sint32"), "bool x = 1;"), Some("another field"));
        check(&with(&all.replace("repeated", ""), "bool x = 1;"), Some("another field"));
        check(&with(&all.replace(" a ", " z "), "bool x = 1;"), Some("another field"));
        check(&with(all, "int32 x = 1;"), Some("message `In`: field `x` = 1"));
    }
}
