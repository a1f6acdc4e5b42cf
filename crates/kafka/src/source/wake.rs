//! The client fetches again as soon as there is something to fetch.
//!
//! A thread of librdkafka that talks to a broker of which no partition is read sleeps until something comes for it, for a second
//! at most (`rd_kafka_max_block_ms`), and neither a seek nor a resumption is such a thing (`rd_kafka_toppar_pause_resume` in 2.12
//! to 2.16). So whoever is given its first partitions, or reads on after everything was paused, would wait for half a second on
//! average. A question to the broker wakes the thread.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use salver_records::Slot;

use super::KafkaSource;

/// How long an answer is waited for, about: nobody needs it.
const WAIT: Duration = Duration::from_millis(100);

impl KafkaSource {
    /// Has partitions fetched at once that are read again, where none was read before. Blocks for a question to each of their
    /// leaders. What fails costs a second: the client wakes by itself then.
    pub(super) fn wake(&self, slots: &[Slot]) {
        let partitions = || slots.iter().map(|slot| &self.slots.get(*slot).partition);
        let topics: BTreeSet<&str> = partitions().map(|partition| &*partition.topic).collect();
        let mut asked = BTreeSet::new();
        for topic in topics {
            let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), WAIT) else { continue };
            let all = metadata.topics().iter().flat_map(|topic| topic.partitions());
            for found in all {
                let is_read = || partitions().any(|one| &*one.topic == topic && one.number == found.id());
                if found.leader() >= 0 && !asked.contains(&found.leader()) && is_read() {
                    asked.insert(found.leader());
                    // Not for what it says.
                    let _watermarks = self.consumer.fetch_watermarks(topic, found.id(), WAIT);
                }
            }
        }
    }
}
