//! Reports of what became of records, from the client's thread to the one that sends.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use salver_records::{Delivery, Error, Receipt};

use crate::callbacks::{lock, log};
use crate::deadline::Deadline;
use crate::error::failed;

/// What was reported and has not been taken yet.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Within transactions only failures are of interest, and only the first.
    is_transactional: bool,
    deliveries: Vec<Delivery>,
    failure: Option<Error>,
    reason: Option<String>,
}

impl Shared {
    pub(super) fn new(is_transactional: bool) -> Shared {
        let state = State { is_transactional, deliveries: Vec::new(), failure: None, reason: None };
        Shared { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until something is reported, or that long.
    pub(super) fn wait(&self, wait: Duration) {
        drop(self.changed.wait_timeout(lock(&self.state), wait));
    }

    /// Appends what was reported; waits for it if more is to come.
    pub(super) fn take(&self, wait: Duration, more_to_come: bool, into: &mut Vec<Delivery>) {
        let until = Deadline::after(wait);
        let mut state = lock(&self.state);
        while state.deliveries.is_empty() && more_to_come {
            let left = until.left();
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        into.append(&mut state.deliveries);
    }

    /// The first failure since this was asked last.
    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.state).failure.take()
    }

    /// The same, left where it is.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.state).failure.clone()
    }

    /// The last thing that the client's library complained of.
    pub(super) fn reason(&self) -> Option<String> {
        lock(&self.state).reason.clone()
    }
}

/// The context of a producer.
pub(super) struct Reports(pub(super) Arc<Shared>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        lock(&self.0.state).reason = Some(reason.to_owned());
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, message)) => {
                let what = format!("cannot write to topic {}/{}", message.topic(), message.partition());
                Err(failed(&what, error))
            }
        };
        let mut state = lock(&self.0.state);
        if state.is_transactional {
            if let Err(error) = result {
                state.failure.get_or_insert(error);
            }
        } else {
            let receipt = Receipt(u64::try_from(opaque).unwrap_or(u64::MAX));
            state.deliveries.push(Delivery { receipt, result });
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_when_nothing_is_to_come() {
        let shared = Shared::new(false);
        let mut into = Vec::new();
        shared.take(Duration::from_secs(3600), false, &mut into);
        assert_eq!(into, []);
    }

    #[test]
    fn of_failures_the_first_is_kept() {
        let shared = Shared::new(true);
        lock(&shared.state).failure = Some(Error::fatal("first"));
        lock(&shared.state).failure.get_or_insert(Error::fatal("second"));
        assert_eq!(shared.take_failure(), Some(Error::fatal("first")));
        assert_eq!(shared.take_failure(), None);
    }
}
