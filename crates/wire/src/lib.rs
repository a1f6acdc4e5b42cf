//! Bytes to requests and back: the TensorFlow Serving and Open Inference Protocol messages.
//!
//! This room knows the messages, their text and binary forms and the rules for reading them. It does not know
//! sockets, threads, loaded models or engines: it turns bytes and decoded messages into [`salver_predict`] types
//! and back, and refuses what the contract refuses.
//!
//! What comes in is not trusted: no reader panics, recurses without bound or reserves memory for a length that it was
//! told. Elements that arrive as bytes stay slices of the buffer they arrived in.

pub mod client;
pub mod json;
pub mod oip;
pub mod oip_grpc;
pub mod oip_rest;
pub mod proto;
pub mod status;
pub mod text_config;
pub mod tfs;
pub mod warmup;
