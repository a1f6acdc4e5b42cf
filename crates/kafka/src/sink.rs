//! Records to topics, one by one or in transactions.

mod delivery;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use salver_records::{Delivery, Error, Outgoing, Output, Receipt, Severity, Sink, Transaction};

use crate::Connection;
use crate::deadline::Deadline;
use crate::error::{failed, severity, spoils};
use crate::settings::{Role, SinkSettings, add};
use crate::topics::Topics;
use delivery::Reports;
use transaction::Transactions;

/// A [`Sink`] into topics of Kafka.
///
/// The client's library sends on its own threads, and a thread of this sink takes its reports. A record lasts when all
/// replicas that are in step have it. Retries neither double records nor change their order (the producer is idempotent).
///
/// Where the brokers and the producer come to disagree about what was sent, another one takes its place. The caller is told by
/// [`Severity::Transaction`], outside of transactions too: what was sent and is not known to last counts as not written, and is
/// to be sent again. The next record that is sent waits until nothing of it can be written any more.
pub struct KafkaSink {
    producer: ThreadedProducer<Reports>,
    reports: Arc<delivery::Shared>,
    config: ClientConfig,
    topics: Vec<Topic>,
    transactions: Option<Transactions>,
    /// Outside of transactions: the caller was told that what is under way counts as not written, as the producer does not go on.
    is_spent: bool,
    place: String,
    message_timeout: Duration,
}

/// Where one kind of output goes.
#[derive(Debug)]
struct Topic {
    output: Output,
    name: String,
    n_partitions: i32,
    /// What a record may have at most.
    max_bytes: usize,
}

/// What a broker takes when its settings say nothing else, and cannot be asked.
const DEFAULT_MAX_BYTES: usize = 1_048_588;
/// What a batch has around its records, and a record around its content (the message format's version 2, rounded up).
const BATCH_OVERHEAD: usize = 128;
/// How long to wait for room in the queue, or for what is under way, before looking again.
const STEP: Duration = Duration::from_millis(2);
/// How long to wait at a time for what a producer still has under way that does not go on.
const REPLACEMENT: Duration = Duration::from_secs(5);

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("KafkaSink");
        debug
            .field("place", &self.place)
            .field("topics", &self.topics)
            .field("transactions", &self.transactions);
        debug.finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Makes a producer and asks the brokers about the topics. With transactions, whoever had the transactional id before is
    /// fenced off and what it left open is aborted. Blocks for the connection's `timeout_ms` at most.
    ///
    /// # Errors
    /// Settings that cannot be, topics that are not there, brokers that cannot be reached.
    pub fn open(connection: &Connection, settings: &SinkSettings) -> Result<KafkaSink, Error> {
        let place = connection.brokers().to_owned();
        let topics = topics(connection, settings)?;
        let mut config = connection.config(Role::Producer);
        if settings.transactions.is_some() {
            // Right after a commit the broker turns the next transaction away until it has written the marks of the last.
            config.set("retry.backoff.ms", "20");
            // librdkafka waits without end for a group coordinator that is away when positions are sent, and looks for another
            // only when some connection changes: one that is closed for being idle makes it look.
            config.set("connections.max.idle.ms", "10000");
        }
        add(&mut config, &settings.properties)?;
        let batch = topics.iter().map(|topic| topic.max_bytes).min().unwrap_or(DEFAULT_MAX_BYTES);
        let largest = topics.iter().map(|topic| topic.max_bytes).max().unwrap_or(DEFAULT_MAX_BYTES);
        let mut message_timeout = Duration::from_millis(u64::from(settings.message_timeout_ms.max(1_000)));
        let transactions = settings.transactions.as_ref().map(|wanted| Transactions::new(wanted, connection));
        let transactions = transactions.transpose()?;
        if let Some(transactions) = &transactions {
            message_timeout = message_timeout.min(transactions.timeout().mul_f64(0.9));
            transactions.add(&mut config);
        }
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", message_timeout.as_millis().to_string())
            .set("linger.ms", settings.linger_ms.to_string())
            .set("queue.buffering.max.kbytes", (settings.queue_bytes / 1024).clamp(1, 2_097_151).to_string())
            .set("queue.buffering.max.messages", "1000000")
            .set("compression.type", settings.compression.name())
            .set("partitioner", settings.partitioner.name())
            .set("batch.size", (batch - BATCH_OVERHEAD).clamp(1, 1_000_000).to_string())
            .set("message.max.bytes", largest.clamp(1_000, 1_000_000_000).to_string());
        let (producer, reports) = producer(&config, &place, transactions.is_some())?;
        let mut sink = KafkaSink {
            producer,
            reports,
            config,
            topics,
            transactions,
            is_spent: false,
            place,
            message_timeout,
        };
        sink.init_transactions(connection.timeout())?;
        Ok(sink)
    }

    fn topic(&self, output: Output) -> Result<&Topic, Error> {
        self.topics.iter().find(|topic| topic.output == output).ok_or_else(|| {
            let key = key(output);
            Error::fatal(format!("a record is to be written for which no topic is set: set {key}"))
        })
    }

    /// The topic of a record, if it can be taken there.
    fn check<'a>(&'a self, record: &Outgoing) -> Result<&'a Topic, Error> {
        let topic = self.topic(record.output)?;
        let refused =
            |why: String| Err(Error::new(Severity::Record, format!("a record for {}: {why}", topic.name)));
        let content =
            record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |v| v.len());
        let headers =
            record.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, |v| v.len()) + 10);
        let n_bytes = content + headers.sum::<usize>() + BATCH_OVERHEAD;
        if n_bytes > topic.max_bytes {
            let most = topic.max_bytes;
            return refused(format!(
                "it has {n_bytes} bytes, and the topic takes {most} (its max.message.bytes)"
            ));
        }
        match record.partition {
            None if record.output == Output::Changelog => {
                Err(Error::fatal(format!("a record for {} names no partition", topic.name)))
            }
            Some(number) if !(0..topic.n_partitions).contains(&number) => Err(Error::fatal(format!(
                "a record is for partition {number} of topic {}, which has {} from 0 on",
                topic.name, topic.n_partitions
            ))),
            _ => Ok(topic),
        }
    }

    /// Waits until nothing is under way; what lingers is sent at once.
    fn drain(&self, until: Deadline) -> Result<(), Error> {
        // The client's own wait would go by tenths of seconds; the thread of this sink takes the reports meanwhile.
        while self.producer.flush(Duration::ZERO).is_err() {
            if let Some(error) = self.fatal() {
                return Err(error);
            }
            if until.is_over() {
                let n = self.producer.in_flight_count();
                let what = format!("{n} records for {} are not acknowledged in time", self.place);
                return Err(Error::new(Severity::Passing, what));
            }
            self.reports.wait(STEP);
        }
        Ok(())
    }

    /// What ended this producer, if something did. [`Severity::Transaction`] where another can go on.
    fn fatal(&self) -> Option<Error> {
        let (code, reason) = self.producer.client().fatal_error()?;
        let severity = match severity(code) {
            Severity::Fenced => Severity::Fenced,
            _ if spoils(code) => Severity::Transaction,
            _ => Severity::Fatal,
        };
        Some(Error::new(severity, format!("cannot write to {} any more: {reason}", self.place)))
    }

    /// Whether the producer does not go on, and another would.
    fn is_spoiled(&self) -> bool {
        self.fatal().is_some_and(|fatal| fatal.severity == Severity::Transaction)
    }

    /// Whether an error that the caller gets tells that the producer does not go on, where no transaction is to be aborted.
    fn is_told(&self, error: &Error) -> bool {
        // After a record that is refused alone the caller goes on with others.
        self.transactions.is_none() && error.severity != Severity::Record && self.is_spoiled()
    }

    /// Puts another producer in the place of one that does not go on. What that one has sent is waited for, so that nothing of
    /// it is written behind what comes now.
    fn replace(&mut self) -> Result<(), Error> {
        let until = Deadline::after(REPLACEMENT);
        loop {
            // What it would try again it only keeps.
            self.producer.purge(PurgeConfig::default().queue().non_blocking());
            let n = self.producer.in_flight_count();
            if n == 0 {
                break;
            }
            if until.is_over() {
                let what = format!("{n} records for {} have no answer yet", self.place);
                return Err(Error::new(Severity::Passing, what));
            }
            self.reports.wait(STEP);
        }
        tracing::warn!("another producer takes over for {}", self.place);
        (self.producer, self.reports) = producer(&self.config, &self.place, false)?;
        self.is_spent = false;
        Ok(())
    }

    fn send_one(&mut self, record: &Outgoing, receipt: Receipt) -> Result<(), Error> {
        let topic = self.check(record)?;
        let opaque = usize::try_from(receipt.0)
            .map_err(|_| Error::fatal(format!("receipt {} is more than this machine counts", receipt.0)))?;
        let mut out = BaseRecord::<'_, [u8], [u8], usize>::with_opaque_to(&topic.name, opaque);
        out.partition = record.partition;
        out.key = record.key.as_deref();
        out.payload = record.value.as_deref();
        // The client takes 0 as "now".
        out.timestamp = record.timestamp_ms.filter(|time| *time > 0);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            out.headers = Some(record.headers.iter().fold(headers, |headers, header| {
                headers.insert(KafkaHeader { key: &header.name, value: header.value.as_deref() })
            }));
        }
        let until = Deadline::after(self.message_timeout);
        loop {
            match self.producer.send(out) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !until.is_over() =>
                {
                    out = back;
                    self.reports.wait(STEP);
                }
                Err((error, _)) => return Err(self.not_sent(&topic.name, &error)),
            }
        }
    }

    fn not_sent(&self, topic: &str, error: &KafkaError) -> Error {
        if let Some(fatal) = self.fatal() {
            return self.fenced(fatal);
        }
        let what = format!("cannot write to topic {topic} at {}", self.place);
        let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        let error = failed(&what, error);
        match (&self.transactions, error.severity) {
            // A transaction that was given up by the client takes no more records.
            (Some(_), Severity::Passing) if !is_full => Error::new(Severity::Transaction, error.message),
            _ => error,
        }
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, record: Outgoing, receipt: Receipt) -> Result<(), Error> {
        if self.is_spent {
            self.replace()?;
        }
        let sent = self.send_one(&record, receipt);
        self.is_spent = sent.as_ref().is_err_and(|error| self.is_told(error));
        sent.map_err(|error| self.given_up(error))
    }

    fn deliveries(&mut self, wait: Duration, into: &mut Vec<Delivery>) {
        let n_before = into.len();
        self.reports.take(wait, self.producer.in_flight_count() > 0, into);
        for delivery in &mut into[n_before..] {
            if let Err(error) = &mut delivery.result
                && self.is_told(error)
            {
                error.severity = Severity::Transaction;
                self.is_spent = true;
            }
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        // Each record is known of by then, as its own time is over.
        self.drain(Deadline::after(self.message_timeout + Duration::from_secs(5)))
    }

    fn is_transactional(&self) -> bool {
        self.transactions.is_some()
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.begin_transaction()
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.commit_transaction(transaction)
    }

    fn abort(&mut self) -> Result<(), Error> {
        self.abort_transaction()
    }
}

fn key(output: Output) -> &'static str {
    match output {
        Output::Main => "topic",
        Output::Dead => "dead_letters",
        Output::Changelog => "changelog",
    }
}

fn topics(connection: &Connection, settings: &SinkSettings) -> Result<Vec<Topic>, Error> {
    let named = [
        (Output::Main, &settings.topic),
        (Output::Dead, &settings.dead_letters),
        (Output::Changelog, &settings.changelog),
    ];
    let known = Topics::new(connection)?;
    let mut topics = Vec::new();
    for (output, name) in named {
        let Some(name) = name else { continue };
        let n_partitions = known.require(name, key(output))?;
        let max_bytes = known.max_bytes(name).unwrap_or(DEFAULT_MAX_BYTES).max(2 * BATCH_OVERHEAD);
        topics.push(Topic { output, name: name.clone(), n_partitions, max_bytes });
    }
    if topics.is_empty() {
        return Err(Error::fatal("no topic to write to is named"));
    }
    Ok(topics)
}

fn producer(
    config: &ClientConfig,
    place: &str,
    is_transactional: bool,
) -> Result<(ThreadedProducer<Reports>, Arc<delivery::Shared>), Error> {
    let reports = Arc::new(delivery::Shared::new(is_transactional));
    let context = Reports(Arc::clone(&reports));
    let producer = ThreadedProducer::from_config_and_context(config, context);
    let producer = producer.map_err(|error| failed(&format!("cannot write to {place}"), &error))?;
    Ok((producer, reports))
}
