//! What is configured: how to reach the brokers, what to read and where to write.

mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

pub use properties::Property;
pub(crate) use properties::{Role, add};

/// How brokers are reached; shared by everything that talks to them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionSettings {
    /// Brokers to ask first, with commas between: `host:port,host:port`.
    pub brokers: String,
    /// Whether connections are encrypted, and whether this client says who it is.
    pub security: Security,
    /// How it says so, with `sasl_plaintext` and `sasl_ssl`: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: Option<Mechanism>,
    /// Who it is.
    pub user: Option<String>,
    /// The password of `user`. Better said by `password_env` or `password_file`.
    pub password: Option<Secret>,
    /// The variable of the environment that holds the password.
    pub password_env: Option<String>,
    /// The file that holds the password; the end of its last line does not belong to it.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) of those who may vouch for brokers; the system's otherwise.
    pub ca_file: Option<PathBuf>,
    /// The certificate (PEM) of this client, where brokers want one.
    pub certificate_file: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    pub key_file: Option<PathBuf>,
    /// What this client is called in the brokers' logs and quotas.
    pub client_id: String,
    /// How long one call may take that asks brokers for something, in milliseconds.
    pub timeout_ms: u32,
    /// Properties of librdkafka, by its own names. Those that decide what is delivered are set otherwise and refused here.
    pub properties: BTreeMap<String, Property>,
}

impl Default for ConnectionSettings {
    fn default() -> ConnectionSettings {
        ConnectionSettings {
            brokers: String::new(),
            security: Security::Plaintext,
            mechanism: None,
            user: None,
            password: None,
            password_env: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            client_id: "salver".to_owned(),
            timeout_ms: 30_000,
            properties: BTreeMap::new(),
        }
    }
}

/// What is shown of it is only that it is there.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether connections are encrypted, and whether the client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Neither.
    Plaintext,
    /// Encrypted.
    Ssl,
    /// The client says who it is.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

impl Security {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Security::Plaintext => "plaintext",
            Security::Ssl => "ssl",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslSsl => "sasl_ssl",
        }
    }

    pub(crate) fn is_encrypted(self) -> bool {
        matches!(self, Security::Ssl | Security::SaslSsl)
    }

    pub(crate) fn names_the_client(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslSsl)
    }
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// The password itself: only over an encrypted connection or one that nobody can hear.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What a group reads, and how it shares it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// The topics.
    pub topics: Vec<String>,
    /// Those that share the partitions among them, and their positions.
    pub group: String,
    /// A name of this process that stays when it is started anew (static membership): its partitions wait for it for the
    /// session timeout instead of going to others at once.
    pub instance: Option<String>,
    /// How partitions are shared.
    pub protocol: Protocol,
    /// Who gets which partitions, with the classic protocol.
    pub assignment: AssignmentStrategy,
    /// Where a partition is read that the group has no position of.
    pub start: Start,
    /// Whether records of transactions that are open or were aborted are seen.
    pub isolation: Isolation,
    /// After how many milliseconds of silence the group goes on without this process, with the classic protocol (with the
    /// other one the broker decides). The broker bounds it, 6,000 to 1,800,000 by default.
    pub session_timeout_ms: u32,
    /// After how many milliseconds without a poll this process leaves the group. A rebalance waits as long for partitions to
    /// be given up, and with the consumer protocol also for a member that the answer did not reach in which it was asked to: the
    /// client asks again without saying what it has (librdkafka 2.12), and is told no more until it is thrown out and comes back.
    pub max_poll_interval_ms: u32,
    /// How many bytes are read ahead.
    pub read_ahead_bytes: u64,
    /// Properties of librdkafka for this consumer, on top of the connection's.
    pub properties: BTreeMap<String, Property>,
}

impl Default for SourceSettings {
    fn default() -> SourceSettings {
        SourceSettings {
            topics: Vec::new(),
            group: String::new(),
            instance: None,
            protocol: Protocol::Auto,
            assignment: AssignmentStrategy::CooperativeSticky,
            start: Start::Earliest,
            isolation: Isolation::ReadCommitted,
            session_timeout_ms: 15_000,
            max_poll_interval_ms: 90_000,
            read_ahead_bytes: 32 << 20,
            properties: BTreeMap::new(),
        }
    }
}

/// How members of a group share partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// As `consumer` if the brokers have it, else as `classic`.
    Auto,
    /// One of the members decides.
    Classic,
    /// The broker decides (KIP-848; brokers from 4.0 on).
    Consumer,
}

/// Who gets which partitions, with the classic protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentStrategy {
    /// What can stay stays, and only what moves is given up.
    CooperativeSticky,
    /// All is given up at every change; neighbouring partitions go together.
    Range,
    /// All is given up at every change; partitions are dealt out in turn.
    Roundrobin,
}

impl AssignmentStrategy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            AssignmentStrategy::CooperativeSticky => "cooperative-sticky",
            AssignmentStrategy::Range => "range",
            AssignmentStrategy::Roundrobin => "roundrobin",
        }
    }
}

/// Where a partition without a position is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// After the newest record.
    Latest,
    /// Nowhere: it is an error.
    Fail,
}

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Those outside of transactions and those of committed ones.
    ReadCommitted,
    /// All.
    ReadUncommitted,
}

impl Isolation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// Where records are written, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkSettings {
    /// The topic of answers.
    pub topic: Option<String>,
    /// The topic of records that could not be answered.
    pub dead_letters: Option<String>,
    /// The topic of state.
    pub changelog: Option<String>,
    /// Whether records are written in transactions, and which.
    pub transactions: Option<TransactionSettings>,
    /// How batches of records are compressed.
    pub compression: Compression,
    /// How long a record may wait for others to share a batch, in milliseconds.
    pub linger_ms: u32,
    /// How many bytes of records may wait for being written. When it is full, sending blocks.
    pub queue_bytes: u64,
    /// For how long a record is tried to be written, in milliseconds. In a transaction it is less than the transaction's
    /// time in any case.
    pub message_timeout_ms: u32,
    /// Which partition a key goes to.
    pub partitioner: Partitioner,
    /// Properties of librdkafka for this producer, on top of the connection's.
    pub properties: BTreeMap<String, Property>,
}

impl Default for SinkSettings {
    fn default() -> SinkSettings {
        SinkSettings {
            topic: None,
            dead_letters: None,
            changelog: None,
            transactions: None,
            compression: Compression::Lz4,
            linger_ms: 5,
            queue_bytes: 64 << 20,
            message_timeout_ms: 120_000,
            partitioner: Partitioner::Murmur2,
            properties: BTreeMap::new(),
        }
    }
}

/// Whose transactions, and for how long one may be open.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransactionSettings {
    /// The transactional id: one process at a time writes under it, and a new one fences off the one before. Without it
    /// each process makes its own; then a transaction that a killed process left open holds up readers until its time is
    /// over, and nobody can be fenced off but by the group.
    pub id: Option<String>,
    /// How long a transaction may be open before the broker aborts it, in milliseconds.
    pub timeout_ms: u32,
}

impl Default for TransactionSettings {
    fn default() -> TransactionSettings {
        TransactionSettings { id: None, timeout_ms: 60_000 }
    }
}

/// How batches of records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
    /// For old readers.
    Snappy,
    /// For old readers.
    Gzip,
}

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
        }
    }
}

/// Which partition a key goes to; records without a key go anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// The same as with the clients in Java.
    Murmur2,
    /// The same as with other clients over librdkafka by default (CRC-32).
    Crc32,
}

impl Partitioner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let text = r#"
            brokers = "a:1,b:2"
            security = "sasl_ssl"
            mechanism = "SCRAM-SHA-512"
            user = "u"
            password = "hidden"
            properties = { "socket.timeout.ms" = 5000, "socket.keepalive.enable" = false, "client.rack" = "r" }
        "#;
        let settings: ConnectionSettings = toml::from_str(text).expect("the settings are right");
        assert_eq!(settings.security, Security::SaslSsl);
        assert_eq!(settings.mechanism, Some(Mechanism::ScramSha512));
        assert!(!format!("{settings:?}").contains("hidden"));
        let texts: Vec<_> = settings.properties.values().map(ToString::to_string).collect();
        assert_eq!(texts, ["r", "false", "5000"]);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let check = |found: Result<(), toml::de::Error>, part: &str| {
            let text = found.expect_err(part).to_string();
            assert!(text.contains(part), "{text}");
        };
        check(toml::from_str::<ConnectionSettings>("broker = 'a:1'").map(|_| ()), "broker");
        check(toml::from_str::<SourceSettings>("protocol = 'eager'").map(|_| ()), "eager");
        check(toml::from_str::<SinkSettings>("compression = 'brotli'").map(|_| ()), "brotli");
        check(toml::from_str::<SinkSettings>("transactions = { name = 'x' }").map(|_| ()), "name");
    }
}
