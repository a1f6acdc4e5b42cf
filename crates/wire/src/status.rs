//! The one table of outcomes: gRPC and TensorFlow number, HTTP status, TensorFlow name.

use salver_predict::{Code, Error};
use tonic::Status;

/// Code, number in gRPC and TensorFlow, HTTP status, TensorFlow's name.
const TABLE: [(Code, i32, u16, &str); 17] = [
    (Code::Ok, 0, 200, "OK"),
    (Code::Cancelled, 1, 499, "CANCELLED"),
    (Code::Unknown, 2, 500, "UNKNOWN"),
    (Code::InvalidArgument, 3, 400, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, 4, 504, "DEADLINE_EXCEEDED"),
    (Code::NotFound, 5, 404, "NOT_FOUND"),
    (Code::AlreadyExists, 6, 409, "ALREADY_EXISTS"),
    (Code::PermissionDenied, 7, 403, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, 8, 429, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, 9, 400, "FAILED_PRECONDITION"),
    (Code::Aborted, 10, 409, "ABORTED"),
    (Code::OutOfRange, 11, 400, "OUT_OF_RANGE"),
    (Code::Unimplemented, 12, 501, "UNIMPLEMENTED"),
    (Code::Internal, 13, 500, "INTERNAL"),
    (Code::Unavailable, 14, 503, "UNAVAILABLE"),
    (Code::DataLoss, 15, 500, "DATA_LOSS"),
    (Code::Unauthenticated, 16, 401, "UNAUTHENTICATED"),
];

/// Longer messages are cut, as TensorFlow Serving does; HTTP/2 headers, which carry them, are limited.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The metadata key by which gRPC servers say when to try again.
const RETRY_KEY: &str = "grpc-retry-pushback-ms";

fn row(code: Code) -> (Code, i32, u16, &'static str) {
    *TABLE.iter().find(|row| row.0 == code).expect("the table has a row for every code")
}

/// The number that gRPC and TensorFlow share.
pub fn number(code: Code) -> i32 {
    row(code).1
}

/// The HTTP status.
pub fn http(code: Code) -> u16 {
    row(code).2
}

/// TensorFlow's name, such as `NOT_FOUND`.
pub fn name(code: Code) -> &'static str {
    row(code).3
}

/// The code of a number; [`Code::Unknown`] for a number that has none.
pub fn from_number(number: i32) -> Code {
    TABLE.iter().find(|row| row.1 == number).map_or(Code::Unknown, |row| row.0)
}

/// The gRPC status of an error. The message is cut at 1024 bytes; when to try again goes into the metadata.
pub fn grpc(error: &Error) -> Status {
    let mut status = Status::new(number(error.code()).into(), truncated(error.message()));
    if let Some(after) = error.retry_after() {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(RETRY_KEY, millis.into());
    }
    status
}

fn truncated(message: &str) -> String {
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
    let start = message.get(..end).unwrap_or_default();
    format!("{start}...TRUNCATED")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::tensorflow::error::Code as ProtoCode;

    #[test]
    fn numbers_and_names_are_those_of_the_protocol() {
        for (code, number, _, name) in TABLE {
            assert_eq!(from_number(number), code);
            assert_eq!(ProtoCode::try_from(number).unwrap().as_str_name(), name);
            assert_eq!(i32::from(tonic::Code::from_i32(number)), number);
        }
        assert_eq!(from_number(17), Code::Unknown);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cases = [
            ("a".repeat(1024), "a".repeat(1024)),
            ("a".repeat(1025), "a".repeat(1024) + "...TRUNCATED"),
            ("a".repeat(1023) + "\u{e9}", "a".repeat(1023) + "...TRUNCATED"),
        ];
        for (message, expected) in cases {
            assert_eq!(grpc(&Error::invalid(message)).message(), expected);
        }
    }

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let error = Error::overloaded(Code::Unavailable, "full", Duration::from_millis(250));
        let status = grpc(&error);
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(status.metadata().get(RETRY_KEY).unwrap(), "250");
        assert!(grpc(&Error::invalid("x")).metadata().is_empty());
    }
}
