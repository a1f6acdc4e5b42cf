//! Reading changelogs and tables from where they begin to where they end now, and on from there.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use salver_records::{Error, Partition, Record, Restore, Severity, Slot};

use crate::Connection;
use crate::callbacks::Callbacks;
use crate::deadline::{Deadline, pause};
use crate::error::failed;
use crate::read::Reader;
use crate::settings::{Isolation, Property};
use crate::source::reading;
use crate::topics::Topics;

/// How many bytes are read ahead.
const READ_AHEAD: u64 = 16 << 20;
/// How long one poll waits before the time is looked at.
const STEP: Duration = Duration::from_millis(500);
/// How long one question waits for its answer before it is asked again.
const ASK: Duration = Duration::from_secs(2);
/// What connections had to tell since the last question, at most.
const MAX_EVENTS: usize = 1000;
/// How long to wait before something is asked again that has not come true.
const PAUSE: Duration = Duration::from_millis(100);

/// A [`Restore`] over a topic. Slots are the numbers of its partitions.
///
/// What belongs to open or aborted transactions is not seen. The end is the last stable offset, unless
/// [`KafkaRestore::waiting`] says otherwise.
pub struct KafkaRestore {
    consumer: BaseConsumer<Callbacks>,
    written: Option<Written>,
    reader: Reader,
    topic: String,
    connection: Connection,
    group: String,
    properties: BTreeMap<String, Property>,
}

impl fmt::Debug for KafkaRestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaRestore").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Sees where a partition ends, whatever became of its transactions.
struct Written {
    consumer: BaseConsumer<Callbacks>,
    /// How long a transaction may be open.
    patience: Duration,
    /// Where the first transaction that is open begins, by partition, and until when it may be.
    open: BTreeMap<i32, (i64, Deadline)>,
}

impl Written {
    /// What is to be said of a partition with a transaction that is open from there on.
    fn undecided(&mut self, partition: i32, from: i64, what: &str) -> Error {
        let patience = self.patience;
        let seen = self.open.get(&partition).filter(|(begin, _)| *begin == from);
        let until = seen.map_or_else(|| Deadline::after(patience), |(_, until)| *until);
        self.open.insert(partition, (from, until));
        if until.is_over() {
            return Error::fatal(format!(
                "{what}: a transaction that begins at {from} has been open for {patience:?}, which is longer than any of a \
                 scorer may be: see who holds it, and abort it"
            ));
        }
        Error::new(
            Severity::Passing,
            format!(
                "{what}: a transaction that begins at {from} is open, as a killed scorer leaves one behind"
            ),
        )
    }
}

impl KafkaRestore {
    /// Makes a client for a topic that must be there. `group` is only a name under which the brokers let this client read;
    /// it is not joined and nothing is committed.
    ///
    /// # Errors
    /// A topic that is not there, brokers that cannot be reached.
    pub fn open(
        connection: &Connection,
        topic: &str,
        group: &str,
        properties: &BTreeMap<String, Property>,
    ) -> Result<KafkaRestore, Error> {
        Topics::new(connection)?.require(topic, "changelog or table")?;
        Ok(KafkaRestore {
            consumer: consumer(connection, topic, group, Isolation::ReadCommitted, properties)?,
            written: None,
            reader: Reader::default(),
            topic: topic.to_owned(),
            connection: connection.clone(),
            group: group.to_owned(),
            properties: properties.clone(),
        })
    }

    /// From now on a restoration ends behind all that is written when it begins: where a transaction is open, it fails as
    /// [`Severity::Passing`] until that is committed or aborted. Of state that only its owner writes nothing is missing then, as
    /// its last owner may have been killed, and brokers end a transaction only when its time is over. `patience` is how long
    /// that may take; then it fails for good.
    ///
    /// # Errors
    /// When the client's library refuses the settings.
    pub fn waiting(self, patience: Duration) -> Result<KafkaRestore, Error> {
        let isolation = Isolation::ReadUncommitted;
        let consumer = consumer(&self.connection, &self.topic, &self.group, isolation, &self.properties)?;
        Ok(KafkaRestore { written: Some(Written { consumer, patience, open: BTreeMap::new() }), ..self })
    }

    /// Follows partitions from the offsets at which [`Restore::restore`] ended.
    ///
    /// # Errors
    /// When the client's library refuses it.
    pub fn follow(&self, from: &[(i32, i64)]) -> Result<KafkaTail, Error> {
        let isolation = Isolation::ReadCommitted;
        let consumer = consumer(&self.connection, &self.topic, &self.group, isolation, &self.properties)?;
        let what = || format!("cannot read topic {} at {}", self.topic, self.connection.brokers());
        let mut list = TopicPartitionList::new();
        for (number, offset) in from {
            let added = list.add_partition_offset(&self.topic, *number, Offset::Offset(*offset));
            added.map_err(|error| failed(&what(), &error))?;
        }
        consumer.assign(&list).map_err(|error| failed(&what(), &error))?;
        Ok(KafkaTail { consumer, reader: Reader::default(), what: what() })
    }

    fn what(&self, number: i32) -> String {
        let partition = Partition { topic: self.topic.as_str().into(), number };
        format!("cannot restore from {partition} at {}", self.connection.brokers())
    }

    /// The first offset that is kept and the one after the last, as that client sees it. Gives nothing when `each` has had
    /// enough.
    fn marks(
        &self,
        consumer: &BaseConsumer<Callbacks>,
        number: i32,
        each: &mut Each<'_>,
    ) -> Result<Option<(i64, i64)>, Error> {
        let until = Deadline::after(self.connection.timeout());
        loop {
            // What connections have to tell is of no interest, and would wait for ever.
            for _ in 0..MAX_EVENTS {
                if consumer.poll(Duration::ZERO).is_none() {
                    break;
                }
            }
            match consumer.fetch_watermarks(&self.topic, number, until.left().clamp(STEP, ASK)) {
                Ok(marks) => return Ok(Some(marks)),
                Err(error) => {
                    let error = failed(&self.what(number), &error);
                    if error.severity == Severity::Fatal || until.is_over() {
                        return Err(said(error, consumer));
                    }
                }
            }
            if !each(None) {
                return Ok(None);
            }
            pause(PAUSE);
        }
    }
}

/// Who takes what is read.
type Each<'a> = dyn FnMut(Option<Record>) -> bool + 'a;

impl Restore for KafkaRestore {
    fn restore(
        &mut self,
        partition: i32,
        from: Option<i64>,
        each: &mut dyn FnMut(Option<Record>) -> bool,
    ) -> Result<i64, Error> {
        let what = self.what(partition);
        let seeing = self.written.as_ref().map_or(&self.consumer, |written| &written.consumer);
        let Some((low, high)) = self.marks(seeing, partition, each)? else { return Ok(from.unwrap_or(0)) };
        if let Some(from) = from.filter(|from| *from > high) {
            return Err(Error::fatal(format!(
                "{what}: it ends at {high}, and what is kept here came from up to {from}: the topic was made anew, so remove \
                 the kept state"
            )));
        }
        let next = from.unwrap_or(low).max(low);
        let Some((_, stable)) = self.marks(&self.consumer, partition, each)? else { return Ok(next) };
        if let Some(written) = self.written.as_mut().filter(|_| stable < high) {
            return Err(written.undecided(partition, stable, &what));
        }
        match self.read_through(partition, next, stable, &what, each)? {
            Read::Stopped(at) => Ok(at),
            Read::Through => Ok(next.max(stable)),
        }
    }

    fn n_partitions(&mut self) -> Result<i32, Error> {
        Topics::new(&self.connection)?.require(&self.topic, "changelog or table")
    }
}

/// How reading came to an end.
enum Read {
    Through,
    /// By whoever takes the records, before this offset.
    Stopped(i64),
}

impl KafkaRestore {
    /// Reads what is committed of `from..end`, where no transaction is open before `end`.
    fn read_through(
        &mut self,
        partition: i32,
        from: i64,
        end: i64,
        what: &str,
        each: &mut Each<'_>,
    ) -> Result<Read, Error> {
        if from >= end {
            return Ok(Read::Through);
        }
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(from));
        added.map_err(|error| failed(what, &error))?;
        self.consumer.assign(&list).map_err(|error| failed(what, &error))?;
        let result = self.read(partition, from, end, what, each);
        let left = self.consumer.unassign().map_err(|error| failed(what, &error));
        result.and_then(|read| left.map(|()| read))
    }

    fn read(
        &mut self,
        partition: i32,
        from: i64,
        end: i64,
        what: &str,
        each: &mut Each<'_>,
    ) -> Result<Read, Error> {
        let slot =
            Slot(u32::try_from(partition).map_err(|_| Error::fatal(format!("{what}: it is negative")))?);
        let mut next = from;
        let mut silence = Deadline::after(self.connection.timeout());
        loop {
            let is_silent = match self.consumer.poll(STEP) {
                Some(Ok(message)) => {
                    if message.partition() != partition {
                        continue;
                    }
                    if message.offset() >= end {
                        return Ok(Read::Through);
                    }
                    silence = Deadline::after(self.connection.timeout());
                    next = message.offset() + 1;
                    let record = self.reader.record(slot, &message);
                    if !each(Some(record)) {
                        return Ok(Read::Stopped(next));
                    }
                    if next >= end {
                        return Ok(Read::Through);
                    }
                    false
                }
                // Nothing readable is left before the end: what is there are marks of transactions.
                Some(Err(KafkaError::PartitionEOF(number))) if number == partition => {
                    return Ok(Read::Through);
                }
                Some(Err(error)) => {
                    let error = failed(what, &error);
                    if error.severity == Severity::Fatal {
                        return Err(said(error, &self.consumer));
                    }
                    true
                }
                None => true,
            };
            if is_silent && !each(None) {
                return Ok(Read::Stopped(next));
            }
            if silence.is_over() {
                let error = Error::new(
                    Severity::Passing,
                    format!("{what}: nothing comes, and its end is not reached"),
                );
                return Err(said(error, &self.consumer));
            }
        }
    }
}

/// Reads on where a table ended.
pub struct KafkaTail {
    consumer: BaseConsumer<Callbacks>,
    reader: Reader,
    what: String,
}

impl fmt::Debug for KafkaTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTail").field("what", &self.what).finish_non_exhaustive()
    }
}

impl KafkaTail {
    /// Waits up to `wait` for records and appends those that are there, at most about `max_bytes` of them. Says whether
    /// anything was heard of the topic: records, or that there are no more now.
    ///
    /// # Errors
    /// [`Severity::Passing`] while brokers are away; [`Severity::Fatal`] otherwise.
    pub fn poll(
        &mut self,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
    ) -> Result<bool, Error> {
        let (mut n_bytes, mut is_heard) = (0, false);
        let mut wait = wait;
        while n_bytes < max_bytes {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let slot = Slot(u32::try_from(message.partition()).unwrap_or(u32::MAX));
                    let record = self.reader.record(slot, &message);
                    n_bytes += record.n_bytes();
                    records.push(record);
                    wait = Duration::ZERO;
                    is_heard = true;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => is_heard = true,
                Some(Err(error)) => return Err(said(failed(&self.what, &error), &self.consumer)),
            }
        }
        Ok(is_heard)
    }
}

fn consumer(
    connection: &Connection,
    topic: &str,
    group: &str,
    isolation: Isolation,
    properties: &BTreeMap<String, Property>,
) -> Result<BaseConsumer<Callbacks>, Error> {
    let mut config = reading(connection, group, isolation, READ_AHEAD, properties)?;
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    let consumer = BaseConsumer::from_config_and_context(&config, Callbacks::default());
    consumer.map_err(|error| failed(&format!("cannot read topic {topic}"), &error))
}

/// Adds what the client's library said of it.
fn said(error: Error, consumer: &BaseConsumer<Callbacks>) -> Error {
    match consumer.context().take_reason() {
        Some(reason) => Error::new(error.severity, format!("{} ({reason})", error.message)),
        None => error,
    }
}
