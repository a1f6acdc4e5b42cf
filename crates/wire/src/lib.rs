//! Bytes to requests and back: the TensorFlow Serving and Open Inference Protocol messages.
//!
//! This room knows the messages, their text and binary forms and the rules for reading them. It does not know
//! sockets, threads, loaded models or engines: it turns bytes and decoded messages into [`salver_predict`] types
//! and back, and refuses what the contract refuses.

pub mod json;
pub mod oip_rest;
pub mod proto;
