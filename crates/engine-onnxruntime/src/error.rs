//! What the library says, as errors.

use ort::ErrorCode;
use salver_engine::{Error, ErrorKind};

use crate::divide::trapped;

/// Characters of a message that are kept.
const MAX_MESSAGE: usize = 2000;

/// Said of a division of whole numbers that cannot be computed.
pub(crate) const DIVIDED: &str = "a whole number is divided by zero, or the least one by -1";

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidModel, message)
}

pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

pub(crate) fn internal<R>(error: &ort::Error<R>) -> Error {
    Error::new(ErrorKind::Internal, format!("ONNX Runtime failed: {}", text_of(error.message())))
}

/// Texts by which the library says that it lacks something, where its code does not.
const LACKS: &[&str] = &[
    "is not a registered function/op",
    "No Op registered for",
    "Could not find an implementation",
    "Unsupported model IR version",
    "only *guarantees* support for models stamped with",
    "No opset import for domain",
    "NOT_IMPLEMENTED",
    "not supported",
    "not implemented",
];

/// Texts by which it says that there is no memory.
const FULL: &[&str] = &["bad_alloc", "Failed to allocate memory", "BFCArena::AllocateRawInternal"];

fn has(message: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| message.contains(text))
}

/// Why a model was not loaded.
pub(crate) fn load_error<R>(error: &ort::Error<R>) -> Error {
    classify_load(error.code(), error.message())
}

fn classify_load(code: ErrorCode, message: &str) -> Error {
    let kind = match code {
        ErrorCode::NotImplemented => ErrorKind::Unsupported,
        _ if has(message, FULL) => ErrorKind::ResourceExhausted,
        _ if has(message, LACKS) => ErrorKind::Unsupported,
        ErrorCode::EngineError | ErrorCode::ExecutionProviderFailure => ErrorKind::Internal,
        _ => ErrorKind::InvalidModel,
    };
    located(Error::new(kind, format!("ONNX Runtime does not load the model: {}", text_of(message))), message)
}

/// Why a run failed. What goes wrong in a node is taken for the inputs' fault: the model was found to be sound at load.
/// `traps` are the places of divisions that have one.
pub(crate) fn run_error(error: &ort::Error, traps: &[String]) -> Error {
    match trapped(error.message(), traps) {
        Some(place) => Error::new(ErrorKind::InvalidInput, DIVIDED).at(place),
        None => classify_run(error.code(), error.message()),
    }
}

fn classify_run(code: ErrorCode, message: &str) -> Error {
    let kind = match code {
        _ if has(message, FULL) => ErrorKind::ResourceExhausted,
        ErrorCode::NotImplemented => ErrorKind::Unsupported,
        ErrorCode::InvalidArgument => ErrorKind::InvalidInput,
        _ if message.contains("while running") => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    };
    located(
        Error::new(kind, format!("the model cannot be run on these inputs: {}", text_of(message))),
        message,
    )
}

/// The message on one line, without where in the library's source it was made: the innermost one where nodes hold graphs.
/// All of it where nothing else is left.
fn text_of(message: &str) -> String {
    let shown = message.rsplit_once("Status Message: ").map_or(message, |(_, rest)| rest);
    let text = without_source(shown);
    let whole = || message.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if text.is_empty() { whole().trim_end_matches(" Status Message:").to_owned() } else { text };
    let text: String = text.chars().take(MAX_MESSAGE).collect();
    text.trim_end_matches('.').to_owned()
}

/// A message starts in several ways: with a file, its line and a function's name; or with the same and the function's whole
/// signature, which ends in a bracket or in what its types stand for; then maybe with the condition that does not hold.
fn without_source(text: &str) -> String {
    let is_line = |word: &str| {
        let mut parts = word.split(':');
        let is_file = parts
            .next()
            .is_some_and(|file| [".cc", ".h", ".cpp", ".hpp", ".inc"].iter().any(|end| file.ends_with(end)));
        is_file
            && parts.next().is_some_and(|line| !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(at) = words.iter().position(|word| is_line(word)) else { return words.join(" ") };
    let (before, after) = (&words[..at], words[at + 1..].join(" "));
    let after = without_function(&after).trim();
    let is_told = before.is_empty() || after.is_empty();
    let whole = if is_told { after.to_owned() } else { format!("{} {after}", before.join(" ")) };
    whole.trim().to_owned()
}

/// Takes a function's name or signature off the start.
fn without_function(text: &str) -> &str {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_name = |word: &str| word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '~'));
    if first == "operator()" {
        return rest;
    }
    // A signature has brackets and a namespace; its end is where all brackets are closed, before what is not part of it.
    let head = text.find('(').map(|open| &text[..open]);
    if let Some(head) = head.filter(|head| head.contains("::") && !head.ends_with(' ')) {
        return after_brackets(&text[head.len()..]);
    }
    let is_function = first.starts_with(char::is_uppercase) && is_name(first);
    if is_function && !rest.is_empty() { rest } else { text }
}

/// What follows a pair of round brackets, `const` and what types stand for.
fn after_brackets(text: &str) -> &str {
    let mut depth = 0usize;
    let end = text.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at + 1)
    });
    let rest = end.and_then(|end| text.get(end..)).unwrap_or_default().trim_start();
    let rest = rest.strip_prefix("const").map_or(rest, str::trim_start);
    match rest.strip_prefix("[with ").and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest,
    }
}

/// The error at the node that the message names, if it names one.
fn located(error: Error, message: &str) -> Error {
    let between = |before: &str, after: char| {
        let (_, rest) = message.split_once(before)?;
        rest.split_once(after).map(|(text, _)| text.trim()).filter(|text| !text.is_empty())
    };
    let op = between("while running ", ' ').or_else(|| between("implementation for ", '('));
    let name = between("Name:'", '\'').or_else(|| between("node with name '", '\''));
    match (op, name) {
        (Some(op), Some(name)) => error.at(format!("node '{name}' ({op})")),
        (None, Some(name)) => error.at(format!("node '{name}'")),
        (Some(op), None) => error.at(format!("a node {op}")),
        (None, None) => error,
    }
}

/// The same error, in this file.
pub(crate) fn in_file(error: Error, path: &std::path::Path) -> Error {
    match error.location() {
        Some(place) => {
            let place = format!("{}: {place}", path.display());
            error.at(place)
        }
        None => error.at(path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_says_is_left_without_its_source() {
        let node = "Non-zero status code returned while running Op node. Name:'n' Status Message: ";
        for (message, expected) in [
            ("", "Non-zero status code returned while running Op node. Name:'n'"),
            ("invalid expand shape", "invalid expand shape"),
            ("matmul_helper.h:59 Compute MatMul dimension mismatch", "MatMul dimension mismatch"),
            ("element_wise_ops.cc:2421 operator() Integer modulo by zero", "Integer modulo by zero"),
            (
                "/onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:563 void \
                 onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. \
                 Attempting to broadcast an axis by a dimension other than 1. 3 by 4\n",
                "axis == 1 || axis == largest was false. Attempting to broadcast an axis by a dimension other than 1. \
                 3 by 4",
            ),
            (
                "/x/a.cc:7 static T onnxruntime::f(const S&, int (*)(int)) const [with T = int; S = g(int)] n was 3",
                "n was 3",
            ),
            (
                "Non-zero status code returned while running Add node. Name:'add' Status Message: concatbase.h:135 \
                 PrepareForComputeImpl axes differ.",
                "axes differ",
            ),
        ] {
            assert_eq!(text_of(&format!("{node}{message}")), expected);
        }
    }

    #[test]
    fn messages_become_errors_of_a_kind_and_a_place() {
        let load = |code, message| classify_load(code, message);
        let run = |code, message| classify_run(code, message);
        let node = "Non-zero status code returned while running Reshape node. Name:'r/1' Status Message: \
                    /onnxruntime_src/onnxruntime/core/x.cc:45 the shape does not fit.";
        for (error, kind, text) in [
            (
                load(
                    ErrorCode::NotImplemented,
                    "Could not find an implementation for BitShift(11) node with name 'b'",
                ),
                ErrorKind::Unsupported,
                "node 'b' (BitShift): ONNX Runtime does not load the model: Could not find an implementation for \
                 BitShift(11) node with name 'b'",
            ),
            (
                load(ErrorCode::GenericFailure, "Fatal error: com.x:Foo(-1) is not a registered function/op"),
                ErrorKind::Unsupported,
                "ONNX Runtime does not load the model: Fatal error: com.x:Foo(-1) is not a registered function/op",
            ),
            (
                load(ErrorCode::InvalidProtobuf, "Protobuf parsing failed."),
                ErrorKind::InvalidModel,
                "ONNX Runtime does not load the model: Protobuf parsing failed",
            ),
            (
                run(ErrorCode::GenericFailure, node),
                ErrorKind::InvalidInput,
                "node 'r/1' (Reshape): the model cannot be run on these inputs: the shape does not fit",
            ),
            (
                run(ErrorCode::RuntimeException, "std::bad_alloc"),
                ErrorKind::ResourceExhausted,
                "the model cannot be run on these inputs: std::bad_alloc",
            ),
            (
                run(ErrorCode::EngineError, "x"),
                ErrorKind::Internal,
                "the model cannot be run on these inputs: x",
            ),
        ] {
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
    }
}
