//! Topics of the broker: making, filling, reading and removing them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// As the published benchmark has them.
pub(crate) const N_PARTITIONS: i32 = 32;
const WAIT: Duration = Duration::from_secs(30);

/// A broker, and the clients that ask it.
pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    probe: BaseConsumer,
    runtime: tokio::runtime::Runtime,
    n_topics: Cell<u32>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

/// A topic of [`N_PARTITIONS`]; it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Topic<'a> {
    kafka: &'a Kafka,
    pub(crate) name: String,
}

impl Kafka {
    pub(crate) fn new(bootstrap: &str) -> Result<Kafka> {
        Ok(Kafka {
            bootstrap: bootstrap.to_owned(),
            admin: client(bootstrap).create()?,
            probe: client(bootstrap).set("group.id", "probe").create()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            n_topics: Cell::new(0),
        })
    }

    /// A new topic whose records get the time at which they are appended.
    pub(crate) fn topic(&self, what: &str) -> Result<Topic<'_>> {
        self.n_topics.set(self.n_topics.get() + 1);
        let name = format!("{what}-{}-{}", std::process::id(), self.n_topics.get());
        let topic = NewTopic::new(&name, N_PARTITIONS, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("file.delete.delay.ms", "100");
        let made = self.runtime.block_on(self.admin.create_topics([&topic], &options()))?;
        for result in made {
            result.map_err(|(name, code)| anyhow::anyhow!("topic {name} is not made: {code}"))?;
        }
        let topic = Topic { kafka: self, name };
        // It is made before the broker tells everybody of it.
        let give_up = Instant::now() + WAIT;
        while !self.knows(&topic.name)? {
            ensure!(Instant::now() < give_up, "{} is made and not there", topic.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(topic)
    }

    /// Whether all partitions of a topic have a leader.
    fn knows(&self, topic: &str) -> Result<bool> {
        let metadata = match self.probe.fetch_metadata(Some(topic), WAIT) {
            Err(error) if is_settling(&error) => return Ok(false),
            metadata => metadata?,
        };
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let has_leader =
            |partition: &MetadataPartition| partition.error().is_none() && partition.leader() >= 0;
        Ok(partitions.len() == N_PARTITIONS as usize && partitions.iter().all(has_leader))
    }

    /// A producer as programs have it that send a record as soon as there is one.
    pub(crate) fn producer(&self, linger_ms: u32) -> Result<ThreadedProducer<DefaultProducerContext>> {
        let mut config = client(&self.bootstrap);
        config.set("linger.ms", linger_ms.to_string()).set("queue.buffering.max.kbytes", "262144");
        Ok(config.create()?)
    }

    /// A reader of committed records from the oldest on; it tells where a partition ends.
    pub(crate) fn reader(&self, topic: &str) -> Result<BaseConsumer> {
        let mut config = client(&self.bootstrap);
        config.set("group.id", "reader").set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest").set("queued.max.messages.kbytes", "65536");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..N_PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        Ok(consumer)
    }
}

impl Topic<'_> {
    /// Writes so many records, in turn to each partition, and waits until the broker has them.
    pub(crate) fn fill(&self, n: usize, mut write: impl FnMut(u64, &mut Vec<u8>)) -> Result<()> {
        let producer = self.kafka.producer(20)?;
        let mut value = Vec::new();
        for index in 0..n as u64 {
            write(index, &mut value);
            let partition = (index % N_PARTITIONS.unsigned_abs() as u64) as i32;
            send(&producer, BaseRecord::<(), [u8]>::to(&self.name).partition(partition).payload(&value))?;
        }
        producer.flush(WAIT)?;
        let found = self.n_offsets()?;
        ensure!(found == n as u64, "{} has {found} records, expected {n}", self.name);
        Ok(())
    }

    /// Offsets given so far in all partitions: records, and marks of transactions.
    pub(crate) fn n_offsets(&self) -> Result<u64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..N_PARTITIONS {
            asked.add_partition_offset(&self.name, partition, Offset::End)?;
        }
        let give_up = Instant::now() + WAIT;
        let ends = loop {
            match self.kafka.probe.offsets_for_times(asked.clone(), WAIT) {
                Err(error) if is_settling(&error) && Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ends => break ends?,
            }
        };
        let mut n = 0;
        for end in ends.elements() {
            end.error()?;
            n += end.offset().to_raw().and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
        }
        Ok(n)
    }

    /// Reads all committed records there are; `expected` of them are waited for.
    pub(crate) fn read(&self, expected: usize, mut visit: impl FnMut(&BorrowedMessage<'_>)) -> Result<usize> {
        let consumer = self.kafka.reader(&self.name)?;
        let give_up = Instant::now() + WAIT;
        let (mut n, mut ended) = (0, [false; N_PARTITIONS as usize]);
        while n < expected || !ended.iter().all(|ended| *ended) {
            if Instant::now() > give_up {
                bail!("{} has {n} committed records, expected {expected}", self.name);
            }
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    n += 1;
                    visit(&message);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    *ended.get_mut(partition as usize).context("a partition of the topic")? = true;
                }
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
        }
        Ok(n)
    }
}

impl Drop for Topic<'_> {
    fn drop(&mut self) {
        let removed =
            self.kafka.runtime.block_on(self.kafka.admin.delete_topics(&[self.name.as_str()], &options()));
        if let Err(error) = removed {
            println!("{} is left behind: {error}", self.name);
        }
    }
}

/// Whether the broker does not know yet of a topic that was made a moment ago.
fn is_settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::UnknownTopicOrPartition)
    )
}

/// Hands a record to the producer; waits while its queue is full.
pub(crate) fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    mut record: BaseRecord<'_, (), [u8]>,
) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(WAIT))
}
