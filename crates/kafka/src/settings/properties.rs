//! Properties of librdkafka that are passed through, and those that are not.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use salver_records::Error;
use serde::Deserialize;

/// The value of a property: text, a number or a truth.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Property {
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Property::Truth(truth) => truth.fmt(f),
            Property::Number(number) => number.fmt(f),
            Property::Text(text) => f.write_str(text),
        }
    }
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Any,
    Consumer,
    Producer,
}

/// Properties that are decided elsewhere, and where.
const DECIDED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is set by brokers"),
    ("metadata.broker.list", "it is set by brokers"),
    ("client.id", "it is set by client_id"),
    ("security.protocol", "it is set by security"),
    ("sasl.mechanism", "it is set by mechanism"),
    ("sasl.mechanisms", "it is set by mechanism"),
    ("sasl.username", "it is set by user"),
    ("sasl.password", "it is set by password_env or password_file"),
    ("ssl.ca.location", "it is set by ca_file"),
    ("ssl.certificate.location", "it is set by certificate_file"),
    ("ssl.key.location", "it is set by key_file"),
    ("group.id", "it is set by group"),
    ("group.instance.id", "it is set by instance"),
    ("group.protocol", "it is set by protocol"),
    ("group.protocol.type", "there is one kind"),
    ("partition.assignment.strategy", "it is set by assignment"),
    ("auto.offset.reset", "it is set by start"),
    ("isolation.level", "it is set by isolation"),
    ("session.timeout.ms", "it is set by session_timeout_ms"),
    ("max.poll.interval.ms", "it is set by max_poll_interval_ms"),
    ("queued.max.messages.kbytes", "it is set by read_ahead_bytes"),
    ("enable.auto.commit", "positions are committed only when answers last"),
    ("auto.commit.enable", "positions are committed only when answers last"),
    ("auto.commit.interval.ms", "positions are committed only when answers last"),
    ("enable.auto.offset.store", "positions are committed only when answers last"),
    ("offset.store.method", "positions are committed only when answers last"),
    ("offset.store.path", "positions are committed only when answers last"),
    ("offset.store.sync.interval.ms", "positions are committed only when answers last"),
    ("enable.partition.eof", "the end of a partition is asked for where it is needed"),
    ("allow.auto.create.topics", "a misspelt topic must not come to be"),
    ("statistics.interval.ms", "lags are taken from statistics"),
    ("transactional.id", "it is set by transactions.id"),
    ("transaction.timeout.ms", "it is set by transactions.timeout_ms"),
    ("enable.idempotence", "without it records are doubled and change places"),
    ("enable.gapless.guarantee", "it ends the producer where a retry would do"),
    ("acks", "a record lasts only when all replicas in step have it"),
    ("request.required.acks", "a record lasts only when all replicas in step have it"),
    ("max.in.flight", "order is kept by the client's own choice"),
    ("max.in.flight.requests.per.connection", "order is kept by the client's own choice"),
    ("retries", "the time for trying is set by message_timeout_ms"),
    ("message.send.max.retries", "the time for trying is set by message_timeout_ms"),
    ("message.timeout.ms", "it is set by message_timeout_ms"),
    ("delivery.timeout.ms", "it is set by message_timeout_ms"),
    ("delivery.report.only.error", "positions are committed only when answers last"),
    ("linger.ms", "it is set by linger_ms"),
    ("queue.buffering.max.ms", "it is set by linger_ms"),
    ("queue.buffering.max.kbytes", "it is set by queue_bytes"),
    ("queue.buffering.max.messages", "it is set by queue_bytes"),
    ("compression.codec", "it is set by compression"),
    ("compression.type", "it is set by compression"),
    ("partitioner", "it is set by partitioner"),
    ("batch.size", "it follows from what the topics take"),
    ("message.max.bytes", "it follows from what the topics take"),
    ("log.queue", "the client's log goes to the log of this process"),
    ("log_level", "the client's log goes to the log of this process"),
    ("plugin.library.paths", "no other library is loaded"),
    ("sasl.oauthbearer.method", "this build has no HTTP client for tokens"),
    ("ssl.engine.location", "no other library is loaded"),
    ("ssl.providers", "no other library is loaded"),
];

/// Puts properties into a configuration; those that would undo what is promised are refused by name.
pub(crate) fn add(config: &mut ClientConfig, properties: &BTreeMap<String, Property>) -> Result<(), Error> {
    for (name, value) in properties {
        if let Some((_, why)) = DECIDED.iter().find(|(decided, _)| decided == name) {
            return Err(Error::fatal(format!("the property {name:?} cannot be set: {why}")));
        }
        if name.ends_with("_cb") || name == "opaque" || name == "interceptors" {
            return Err(Error::fatal(format!("the property {name:?} cannot be set: it is not text")));
        }
        config.set(name, value.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_promise_is_refused() {
        let check = |name: &str, expected: Result<(), &str>| {
            let mut config = ClientConfig::new();
            let given = BTreeMap::from([(name.to_owned(), Property::Truth(true))]);
            match (add(&mut config, &given), expected) {
                (Ok(()), Ok(())) => assert_eq!(config.get(name), Some("true")),
                (Err(error), Err(part)) => {
                    assert!(error.message.contains(name) && error.message.contains(part), "{error}");
                }
                (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
            }
        };
        check("enable.auto.commit", Err("only when answers last"));
        check("enable.idempotence", Err("doubled"));
        check("acks", Err("all replicas"));
        check("group.id", Err("set by group"));
        check("rebalance_cb", Err("not text"));
        check("check.crcs", Ok(()));
        check("client.rack", Ok(()));
    }
}
