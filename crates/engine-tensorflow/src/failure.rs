//! What TensorFlow says went wrong, as an error of an engine.

use std::path::Path;

use salver_engine::{Error, ErrorKind};

use crate::sys::Failure;

// Codes of `TF_Code`, which are gRPC's.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const DATA_LOSS: i32 = 15;

/// An error of loading: nothing but the model can be at fault for most of them.
pub(crate) fn of_load(failure: &Failure) -> Error {
    if let Some(error) = missing_operator(&failure.message) {
        return error;
    }
    let kind = match failure.code {
        UNIMPLEMENTED => ErrorKind::Unsupported,
        RESOURCE_EXHAUSTED => ErrorKind::ResourceExhausted,
        INVALID_ARGUMENT | NOT_FOUND | FAILED_PRECONDITION | OUT_OF_RANGE | DATA_LOSS => {
            ErrorKind::InvalidModel
        }
        _ => ErrorKind::Internal,
    };
    Error::new(kind, said(&failure.message))
}

/// An error of a run: the inputs are at fault where an operator refuses its arguments.
pub(crate) fn of_run(failure: &Failure) -> Error {
    if failure.message.contains("No OpKernel was registered") {
        return Error::new(ErrorKind::Unsupported, said(&failure.message));
    }
    let kind = match failure.code {
        INVALID_ARGUMENT | OUT_OF_RANGE => ErrorKind::InvalidInput,
        RESOURCE_EXHAUSTED => ErrorKind::ResourceExhausted,
        UNIMPLEMENTED => ErrorKind::Unsupported,
        FAILED_PRECONDITION | DATA_LOSS => ErrorKind::InvalidModel,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, said(&failure.message))
}

/// TensorFlow's own words, which end in the node that they are about.
fn said(message: &str) -> String {
    format!("TensorFlow: {}", message.trim())
}

/// An operator that this TensorFlow was not built with.
fn missing_operator(message: &str) -> Option<Error> {
    let name = message.split_once("Op type not registered '")?.1.split('\'').next()?;
    let message = format!(
        "TensorFlow has no operator '{name}': it is a custom one, or of another version; \
         export the model without it, or serve it where its library is built in"
    );
    Some(Error::new(ErrorKind::Unsupported, message))
}

/// The same error with the path that it is about in front, once.
pub(crate) fn in_source(path: &Path, error: Error) -> Error {
    let path = path.display().to_string();
    match error.location() {
        Some(place) if place.starts_with(&path) => error,
        Some(place) => {
            let place = format!("{path}: {place}");
            error.at(place)
        }
        None => error.at(path),
    }
}

/// The importer's errors as engines say them.
pub(crate) fn of_reading(error: &salver_graph::Error) -> Error {
    let kind = match error.kind() {
        salver_graph::ErrorKind::Unsupported => ErrorKind::Unsupported,
        salver_graph::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidModel,
    };
    let made = Error::new(kind, error.message());
    match error.place() {
        Some(place) => made.at(place),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_at_fault_depends_on_when() {
        let check = |code, message: &str, load, run| {
            let failure = Failure { code, message: message.into() };
            assert_eq!((of_load(&failure).kind(), of_run(&failure).kind()), (load, run), "{code} {message}");
        };
        check(INVALID_ARGUMENT, "shapes", ErrorKind::InvalidModel, ErrorKind::InvalidInput);
        check(OUT_OF_RANGE, "index", ErrorKind::InvalidModel, ErrorKind::InvalidInput);
        check(FAILED_PRECONDITION, "not initialised", ErrorKind::InvalidModel, ErrorKind::InvalidModel);
        check(RESOURCE_EXHAUSTED, "memory", ErrorKind::ResourceExhausted, ErrorKind::ResourceExhausted);
        check(UNIMPLEMENTED, "not here", ErrorKind::Unsupported, ErrorKind::Unsupported);
        check(13, "bug", ErrorKind::Internal, ErrorKind::Internal);
        let kernel = "No OpKernel was registered to support Op 'NcclAllReduce'";
        check(INVALID_ARGUMENT, kernel, ErrorKind::InvalidModel, ErrorKind::Unsupported);
    }

    #[test]
    fn a_custom_operator_is_named() {
        let message =
            "Op type not registered 'SentencepieceOp' in binary running on host. Make sure".to_owned();
        let error = of_load(&Failure { code: NOT_FOUND, message });
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("TensorFlow has no operator 'SentencepieceOp': "), "{error}");
    }
}
