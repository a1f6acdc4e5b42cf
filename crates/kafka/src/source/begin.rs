//! Where partitions begin that were assigned: at the group's position, or where a group begins that has none.
//!
//! The client can look that up itself, and must not: where partitions are assigned or given up while it asks, and an open
//! transaction keeps the answer back, librdkafka takes the unstable offset for none at all and begins at the first record
//! (`rd_kafka_assignment_apply_offsets` in 2.12 to 2.16). Where a broker says that it is not the coordinator any longer, it
//! never asks again (librdkafka #5586). So each partition is taken over at offset 0, paused, asked for here, on a thread of its
//! own since an open transaction may last, and moved to where it begins before it is read. It is not taken over at its first or
//! last record, whatever that is: the library looks these up, and half a second after an answer that came too late for a move
//! it looks them up again and goes back there (`rd_kafka_toppar_handle_Offset`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use salver_records::{Assignment, Error, Event, Severity, Slot};

use super::question::{IsOver, Question};
use super::{KafkaSource, Mode, STEP};
use crate::callbacks::{Callbacks, Named};
use crate::deadline::Deadline;
use crate::error::failed;
use crate::settings::Start;

/// A question that is on its way.
pub(super) struct Asking {
    /// Those whose answers are wanted: the others were given up meanwhile, and may have been assigned again since.
    wanted: BTreeSet<Slot>,
    answers: Receiver<Vec<Answer>>,
    _question: Question,
}

/// The first offset to read, or why it is not known.
type Answer = (Slot, Result<i64, Unknown>);

#[derive(Debug)]
enum Unknown {
    Failed(KafkaError),
    /// The group has no position, and shall not begin anywhere by itself.
    Nowhere,
}

impl From<KafkaError> for Unknown {
    fn from(error: KafkaError) -> Unknown {
        Unknown::Failed(error)
    }
}

impl Asking {
    fn start(
        consumer: Arc<BaseConsumer<Callbacks>>,
        partitions: Vec<(Slot, Named)>,
        start: Start,
        wait: Duration,
    ) -> Result<Asking, std::io::Error> {
        let (sender, answers) = mpsc::sync_channel(1);
        let wanted = partitions.iter().map(|(slot, _)| *slot).collect();
        let positions = Positions { consumer, start, wait };
        let question = Question::start("positions", move |is_over| {
            // Nobody may be there any more to hear it.
            sender.send(positions.ask(partitions, is_over)).unwrap_or(());
        })?;
        Ok(Asking { wanted, answers, _question: question })
    }
}

/// Asks how far a group is.
struct Positions {
    consumer: Arc<BaseConsumer<Callbacks>>,
    start: Start,
    wait: Duration,
}

impl Positions {
    fn ask(&self, partitions: Vec<(Slot, Named)>, is_over: &IsOver) -> Vec<Answer> {
        if let Ok(answers) = self.ask_for(&partitions, self.wait) {
            return answers;
        }
        // The answer for all waits for the one whose transaction is open. Not for long alone, as all may be known meanwhile.
        let until = Deadline::after(self.wait * 2);
        let alone = |one: (Slot, Named)| {
            let slot = one.0;
            let asked = if until.is_over() || is_over.get() {
                Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut))
            } else {
                self.ask_for(&[one], self.wait / 4)
            };
            asked.unwrap_or_else(|error| vec![(slot, Err(error.into()))])
        };
        partitions.into_iter().flat_map(alone).collect()
    }

    fn ask_for(&self, partitions: &[(Slot, Named)], wait: Duration) -> Result<Vec<Answer>, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (_, (topic, number)) in partitions {
            list.add_partition(topic, *number);
        }
        let found = self.consumer.committed_offsets(list, wait)?;
        let answer = |(slot, (topic, number)): &(Slot, Named)| {
            let missing = Unknown::Failed(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
            let one = found.find_partition(topic, *number).ok_or(missing);
            let next = one.and_then(|one| {
                one.error()?;
                match one.offset() {
                    Offset::Offset(next) => Ok(next),
                    _ => self.first(topic, *number, wait),
                }
            });
            (*slot, next)
        };
        Ok(partitions.iter().map(answer).collect())
    }

    /// Where a group begins that has no position. The end is another one for each who looks: it becomes the group's
    /// position before anything is read.
    fn first(&self, topic: &str, number: i32, wait: Duration) -> Result<i64, Unknown> {
        if self.start == Start::Fail {
            return Err(Unknown::Nowhere);
        }
        let (first, end) = self.consumer.fetch_watermarks(topic, number, wait)?;
        if self.start == Start::Earliest {
            return Ok(first);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Offset::Offset(end))?;
        self.consumer.commit(&list, CommitMode::Sync)?;
        Ok(end)
    }
}

impl KafkaSource {
    /// Where the partition begins is of no interest any more.
    pub(super) fn unplace(&mut self, slot: Slot) {
        self.unplaced.remove(&slot);
        if let Some(asking) = &mut self.asking {
            asking.wanted.remove(&slot);
        }
    }

    /// Asks where partitions begin that were taken over, and tells of those of which it is known.
    ///
    /// # Errors
    /// [`Severity::Passing`] when it cannot be learnt for now: it is asked again.
    pub(super) fn place(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let said = match &self.asking {
            None => Ok(()),
            Some(asking) => match asking.answers.try_recv() {
                Ok(answers) => {
                    let said = self.placed(answers, events);
                    self.asking = None;
                    said
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.asking = None;
                    Ok(())
                }
            },
        };
        if self.unplaced.is_empty() {
            self.n_asked = 0;
            return said;
        }
        let Mode::Group(membership) = &self.mode else { return said };
        let named = |slot: &Slot| {
            let partition = &self.slots.get(*slot).partition;
            (*slot, (partition.topic.to_string(), partition.number))
        };
        let mut partitions: Vec<_> = self.unplaced.iter().map(named).collect();
        // Each is asked for alone in its turn.
        let n_partitions = partitions.len();
        partitions.rotate_left(self.n_asked as usize % n_partitions);
        let (start, wait) = (membership.start, self.timeout.min(STEP));
        let asking = Asking::start(Arc::clone(&self.consumer), partitions, start, wait);
        self.asking = Some(asking.map_err(|error| {
            Error::new(
                Severity::Passing,
                format!("cannot ask where partitions of {} begin: {error}", self.place),
            )
        })?);
        self.n_asked += 1;
        said
    }

    fn placed(&mut self, answers: Vec<Answer>, events: &mut Vec<Event>) -> Result<(), Error> {
        let (mut assigned, mut unknown) = (Vec::new(), None);
        for (slot, next) in answers {
            if !self.unplaced.contains(&slot)
                || !self.asking.as_ref().is_some_and(|asking| asking.wanted.contains(&slot))
            {
                continue;
            }
            match next {
                Ok(next) => {
                    self.unplaced.remove(&slot);
                    // It is moved there when it is read first.
                    let entry = self.slots.get_mut(slot);
                    (entry.missed, entry.next) = (Some(next), Some(next));
                    assigned.push(Assignment { slot, next: Some(next) });
                }
                Err(Unknown::Failed(error)) => unknown = Some((slot, error)),
                Err(Unknown::Nowhere) => {
                    let what = self.slots.names(&[slot]);
                    return Err(Error::fatal(format!(
                        "{} has no position of {what}, and its start is set so that it begins nowhere by itself",
                        self.place
                    )));
                }
            }
        }
        if !assigned.is_empty() {
            events.push(Event::Assigned(assigned));
        }
        match unknown {
            // A transaction of a process that was killed keeps the answer back for a while: that is told ever more rarely.
            Some((slot, error)) if self.n_asked.is_power_of_two() && self.n_asked > 1 => {
                let what =
                    format!("cannot learn where {} of {} begins", self.slots.names(&[slot]), self.place);
                Err(Error::new(Severity::Passing, failed(&what, &error).message))
            }
            _ => Ok(()),
        }
    }
}
