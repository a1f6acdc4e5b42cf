//! Sources and sinks of records over Kafka, and the schema registry.
//!
//! [`KafkaSource`] reads topics as a member of a group, or a bounded run of one; [`KafkaSink`] writes records one by one or
//! in transactions; [`KafkaRestore`] reads changelogs and tables. This room knows brokers, topics, groups and transactions.
//! It does not know what is in a record, what a model is, or what is done between reading and writing.
//!
//! The client is librdkafka, linked statically. Every call blocks and belongs to the thread that makes it; nothing is
//! waited for inside of the library's callbacks.

#![warn(missing_docs)]

mod address;
mod callbacks;
mod connection;
mod deadline;
mod error;
mod read;
mod registry;
mod restore;
mod settings;
mod sink;
mod slots;
mod source;
mod topics;

pub use address::Address;
pub use connection::Connection;
pub use registry::{Aside, Registry, RegistrySettings};
pub use restore::{KafkaRestore, KafkaTail};
pub use settings::{
    AssignmentStrategy, Compression, ConnectionSettings, Isolation, Mechanism, Partitioner, Property,
    Protocol, Secret, Security, SinkSettings, SourceSettings, Start, TransactionSettings,
};
pub use sink::KafkaSink;
pub use source::{Bound, KafkaSource, Replay};
pub use topics::{Keeps, NewTopic, Topics};
