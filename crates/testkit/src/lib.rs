//! What tests of other rooms lean on: models that a test plays by hand ([`puppet`]) and the suite that every engine
//! must pass ([`conformance`]).
//!
//! This room is for development only: nothing that ships depends on it, and it knows no concrete engine. Because its
//! callers are tests, it panics where a test would.

pub mod conformance;
pub mod puppet;
