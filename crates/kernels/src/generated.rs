//! The messages that examples are made of, generated from `proto/` by `cargo xtask codegen`.
#![allow(dead_code, missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]

include!("generated/tensorflow.rs");
