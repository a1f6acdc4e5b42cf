//! The partitions that a source has or had, by small numbers.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::{Offset, TopicPartitionList};
use salver_records::{Partition, Slot};

/// What is done with a partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ours.
    Away,
    /// Ours, and not read.
    Paused,
    /// Ours, and read.
    Reading,
    /// Ours until it is given up, and not read any more.
    Revoking,
    /// Ours, and read to where it shall end.
    Ended,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) partition: Partition,
    pub(crate) state: State,
    /// The offset after the last record that was given out since it was assigned, or where it begins.
    pub(crate) next: Option<i64>,
    /// How often in a row the client has gone back to before that by itself.
    pub(crate) n_back: u32,
    /// The first record that came while the partition was not read, if one did: it is fetched again.
    pub(crate) missed: Option<i64>,
    /// Where a bounded run ends: the first offset that is not wanted.
    pub(crate) stop: Option<i64>,
}

/// Numbers for partitions; each keeps its number for good.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    entries: Vec<Entry>,
    topics: Vec<(Arc<str>, HashMap<i32, Slot>)>,
}

impl Slots {
    /// The number of a partition; a new one if it had none.
    pub(crate) fn number(&mut self, topic: &str, number: i32) -> Slot {
        if let Some(slot) = self.find(topic, number) {
            return slot;
        }
        let slot = Slot(u32::try_from(self.entries.len()).expect("a cluster has fewer than 2^32 partitions"));
        let place = match self.topics.iter().position(|(name, _)| **name == *topic) {
            Some(place) => place,
            None => {
                self.topics.push((topic.into(), HashMap::new()));
                self.topics.len() - 1
            }
        };
        let (name, numbers) = &mut self.topics[place];
        numbers.insert(number, slot);
        self.entries.push(Entry {
            partition: Partition { topic: Arc::clone(name), number },
            state: State::Away,
            next: None,
            n_back: 0,
            missed: None,
            stop: None,
        });
        slot
    }

    pub(crate) fn find(&self, topic: &str, number: i32) -> Option<Slot> {
        let (_, numbers) = self.topics.iter().find(|(name, _)| **name == *topic)?;
        numbers.get(&number).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> &Entry {
        &self.entries[index(slot)]
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[index(slot)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        (0..).map(Slot).zip(&self.entries)
    }

    /// Those of `slots` that are in that state.
    pub(crate) fn only(&self, slots: &[Slot], state: State) -> Vec<Slot> {
        slots.iter().copied().filter(|slot| self.get(*slot).state == state).collect()
    }

    pub(crate) fn set(&mut self, slots: &[Slot], state: State) {
        for slot in slots {
            self.get_mut(*slot).state = state;
        }
    }

    /// The client's list of these partitions, without offsets.
    pub(crate) fn list(&self, slots: &[Slot]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(slots.len());
        for slot in slots {
            let partition = &self.get(*slot).partition;
            list.add_partition(&partition.topic, partition.number);
        }
        list
    }

    /// The client's list of these positions; those that cannot be offsets are left out.
    pub(crate) fn positions(&self, positions: impl Iterator<Item = (Slot, i64)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (slot, next) in positions {
            let partition = &self.get(slot).partition;
            // The only error is a negative offset.
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(next)).unwrap_or(());
        }
        list
    }

    /// Their names, for messages: `t/0, t/1`.
    pub(crate) fn names(&self, slots: &[Slot]) -> String {
        const SHOWN: usize = 8;
        let shown: Vec<_> =
            slots.iter().take(SHOWN).map(|slot| self.get(*slot).partition.to_string()).collect();
        let more = slots.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        shown.join(", ") + &more
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot.0).expect("a number of 32 bits fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_keeps_its_number() {
        let mut slots = Slots::default();
        let check = |slots: &mut Slots, topic: &str, number: i32, expected: u32| {
            assert_eq!(slots.number(topic, number), Slot(expected), "{topic}/{number}");
            assert_eq!(slots.find(topic, number), Some(Slot(expected)));
            assert_eq!(slots.get(Slot(expected)).partition.to_string(), format!("{topic}/{number}"));
        };
        check(&mut slots, "a", 0, 0);
        check(&mut slots, "b", 0, 1);
        check(&mut slots, "a", i32::MAX, 2);
        check(&mut slots, "a", 0, 0);
        check(&mut slots, "b", 0, 1);
        assert_eq!(slots.find("a", 1), None);
        assert_eq!(slots.names(&[Slot(1), Slot(2)]), format!("b/0, a/{}", i32::MAX));
    }
}
