//! What the client's library calls: rebalances, commits, statistics, errors and its log.
//!
//! Everything here only notes what happened; the source acts on it later, on its own thread. A rebalance in particular is
//! answered outside of the callback, when what was begun has been finished: a callback that waited for that would wait for
//! itself, as it runs inside of the poll that the work needs.

mod statistics;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, TopicPartitionList};

pub(crate) use statistics::Mark;

/// A partition by name.
pub(crate) type Named = (String, i32);

/// What became of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    Assigned(Vec<Named>),
    Revoked(Vec<Named>),
    Lost(Vec<Named>),
}

/// Who a process is in a group, for the brokers to tell it from one that was there before.
pub(crate) struct Member(pub(crate) ConsumerGroupMetadata);

/// A commit that was answered.
pub(crate) struct Committed {
    pub(crate) result: KafkaResult<()>,
    pub(crate) positions: Vec<(Named, i64)>,
}

/// What the library told and nobody has acted on yet.
#[derive(Default)]
pub(crate) struct Callbacks {
    noted: Mutex<VecDeque<Noted>>,
    committed: Mutex<Vec<Committed>>,
    marks: Mutex<Vec<Mark>>,
    /// Who this process was in the group when partitions were last assigned to it or asked back.
    member: Mutex<Option<Arc<Member>>>,
    /// The last error in the library's own words, which name hosts and topics.
    reason: Mutex<Option<String>>,
    is_closing: AtomicBool,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("noted", &*lock(&self.noted)).finish_non_exhaustive()
    }
}

/// Nothing is left half done where a lock is held.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Callbacks {
    pub(crate) fn next_noted(&self) -> Option<Noted> {
        lock(&self.noted).pop_front()
    }

    pub(crate) fn take_committed(&self) -> Vec<Committed> {
        std::mem::take(&mut *lock(&self.committed))
    }

    /// How far partitions reach, as the last statistics said.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        lock(&self.marks).clone()
    }

    pub(crate) fn take_reason(&self) -> Option<String> {
        lock(&self.reason).take()
    }

    /// Who this process was in the group when partitions were last assigned to it or asked back.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        lock(&self.member).clone()
    }

    /// From now on partitions are given up at once, inside of the callback: the consumer is being closed.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match statistics::marks(statistics) {
            Ok(marks) => *lock(&self.marks) = marks,
            Err(error) => tracing::debug!(%error, "statistics of the client cannot be read"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::debug!(%error, reason, "kafka");
            *lock(&self.reason) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let is_assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::Relaxed) {
            // The library takes what is assigned while closing as given up again.
            let result = match (consumer.rebalance_protocol(), is_assign) {
                (RebalanceProtocol::Cooperative, true) => consumer.incremental_assign(partitions),
                (RebalanceProtocol::Cooperative, false) => consumer.incremental_unassign(partitions),
                _ => consumer.unassign(),
            };
            if let Err(error) = result {
                tracing::debug!(%error, "partitions are not given up while closing");
            }
            return;
        }
        let named =
            partitions.elements().iter().map(|one| (one.topic().to_owned(), one.partition())).collect();
        let noted = match (is_assign, consumer.assignment_lost()) {
            (true, _) => Noted::Assigned(named),
            (false, false) => Noted::Revoked(named),
            (false, true) => Noted::Lost(named),
        };
        // Not of one that was thrown out, who has no name any more: brokers take what is sent without one.
        if !matches!(noted, Noted::Lost(_))
            && let Some(member) = consumer.group_metadata()
        {
            *lock(&self.member) = Some(Arc::new(Member(member)));
        }
        lock(&self.noted).push_back(noted);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let positions = offsets.elements();
        let positions = positions.iter().filter_map(|one| {
            let offset = one.offset().to_raw()?;
            one.error().is_ok().then(|| ((one.topic().to_owned(), one.partition()), offset))
        });
        let positions = positions.collect();
        lock(&self.committed).push(Committed { result, positions });
    }

    fn main_queue_min_poll_interval(&self) -> Timeout {
        Timeout::After(Duration::from_secs(1))
    }
}

/// The library's log becomes ours. What it calls an error is mostly a connection that it makes again.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{message}"),
    }
}
