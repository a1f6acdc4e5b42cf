//! The client fetches again as soon as there is something to fetch.
//!
//! A thread of librdkafka that talks to a broker of which no partition is read sleeps until something comes for it, for a second
//! at most (`rd_kafka_max_block_ms`), and neither a seek nor a resumption is such a thing (`rd_kafka_toppar_pause_resume` in 2.12
//! to 2.16). So whoever is given its first partitions, or reads on after everything was paused, would wait for half a second on
//! average. A question to the broker wakes the thread. It is not waited for, and given time: where an answer takes longer than
//! it may, the client begins a connection anew, on which others wait for records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer};
use salver_records::Slot;

use super::question::{IsOver, Question};
use super::{KafkaSource, STEP};
use crate::callbacks::Callbacks;

impl KafkaSource {
    /// Has partitions fetched at once that are read again, where none was read before. What fails costs a second: the client
    /// wakes by itself then.
    pub(super) fn wake(&mut self, slots: &[Slot]) {
        if self.waking.as_ref().is_some_and(|question| !question.is_answered()) {
            return;
        }
        let mut topics: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for slot in slots {
            let partition = &self.slots.get(*slot).partition;
            topics.entry(partition.topic.to_string()).or_default().insert(partition.number);
        }
        let consumer = Arc::clone(&self.consumer);
        let question = Question::start("wake", move |is_over| ask(&consumer, &topics, is_over));
        self.waking = question.inspect_err(|error| tracing::debug!(%error, "nobody wakes the client")).ok();
    }
}

/// Asks each broker for the ends of one of these partitions, of which it is the leader. Not for what it says.
fn ask(consumer: &BaseConsumer<Callbacks>, topics: &BTreeMap<String, BTreeSet<i32>>, is_over: &IsOver) {
    let mut asked = BTreeSet::new();
    for (topic, numbers) in topics {
        let Ok(metadata) = consumer.fetch_metadata(Some(topic), STEP) else { continue };
        for found in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let is_wanted = found.leader() >= 0 && numbers.contains(&found.id());
            if is_wanted && !is_over.get() && asked.insert(found.leader()) {
                let _watermarks = consumer.fetch_watermarks(topic, found.id(), STEP);
            }
        }
    }
}
