//! Transactions: records and positions that come to last together, or not at all.
//!
//! All calls of the client's library about transactions can be made again when they ran out of time, and go on where they
//! were. So each is made in steps until its time is over. A commit that has no answer by then has an unknown outcome: throwing
//! the work away could double it, and so the group has to be asked. The producer is used up by then, as it is by whatever it
//! does not come back from itself: another one under the same id ends what it left open.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rdkafka::producer::Producer;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use salver_records::{Error, Severity, Transaction};

use super::{KafkaSink, producer};
use crate::Connection;
use crate::callbacks::Member;
use crate::deadline::{Deadline, pause};
use crate::error::failed_transaction;
use crate::settings::TransactionSettings;

/// Where this sink stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed,
    /// The broker may give the transaction up from then on.
    Open(Deadline),
    /// The producer does not go on: another one is to take its place.
    Spent,
    /// The producer is another one, and has not ended yet what the one before it left open.
    New,
    /// Not used any more, and why.
    Over(Error),
}

/// The transactions of a sink.
#[derive(Debug)]
pub(super) struct Transactions {
    id: String,
    is_own_id: bool,
    timeout: Duration,
    /// How long a renewal may take at a time.
    patience: Duration,
    state: State,
    /// The last transaction failed because brokers were away. The client may throw away the first record of the next, too.
    was_away: bool,
}

/// How long one call may take before it is looked at what happened.
const STEP: Duration = Duration::from_secs(2);

/// How much of the time that is left to a transaction its positions may take. The client does not ask twice.
const POSITIONS: f64 = 0.9;

/// How long a producer that takes another's place may take at a time.
const RENEWAL: Duration = Duration::from_secs(5);

impl Transactions {
    pub(super) fn new(
        settings: &TransactionSettings,
        connection: &Connection,
    ) -> Result<Transactions, Error> {
        if settings.timeout_ms < 2_000 {
            let found = settings.timeout_ms;
            return Err(Error::fatal(format!(
                "the timeout_ms of transactions is {found}, expected 2000 at least"
            )));
        }
        if settings.id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::fatal("the id of transactions is empty: leave it out, or name this process"));
        }
        Ok(Transactions {
            id: settings.id.clone().unwrap_or_else(unique_id),
            is_own_id: settings.id.is_none(),
            timeout: Duration::from_millis(u64::from(settings.timeout_ms)),
            patience: connection.timeout().min(RENEWAL),
            state: State::Closed,
            was_away: false,
        })
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn add(&self, config: &mut ClientConfig) {
        config
            .set("transactional.id", &self.id)
            .set("transaction.timeout.ms", self.timeout.as_millis().to_string());
    }
}

/// An id that no other process makes.
fn unique_id() -> String {
    // The keys of the hasher are random.
    let random = RandomState::new().hash_one(std::process::id());
    format!("salver-{random:016x}")
}

/// What was tried, for messages.
fn what(verb: &str, transactions: &Transactions, place: &str) -> String {
    format!("cannot {verb} transaction of {} at {place}", transactions.id)
}

impl KafkaSink {
    pub(super) fn init_transactions(&mut self, patience: Duration) -> Result<(), Error> {
        let Some(transactions) = &self.transactions else { return Ok(()) };
        let until = Deadline::after(patience);
        let what = what("begin with a", transactions, &self.place);
        loop {
            let Err(error) = self.producer.init_transactions(until.left().max(Duration::from_millis(1)))
            else {
                return Ok(());
            };
            let error = failed_transaction(&what, &error);
            if error.severity != Severity::Passing {
                return Err(error);
            }
            if until.is_over() {
                let reason = self.reports.reason().map_or_else(String::new, |reason| format!(": {reason}"));
                return Err(Error::new(Severity::Passing, error.message + &reason));
            }
        }
    }

    /// The transactions of this sink, if it has them and can be used.
    fn usable(&self) -> Result<&Transactions, Error> {
        let transactions = self.transactions.as_ref();
        let transactions =
            transactions.ok_or_else(|| Error::fatal("this sink was opened without transactions"))?;
        match &transactions.state {
            State::Over(error) => Err(error.clone()),
            _ => Ok(transactions),
        }
    }

    fn set_state(&mut self, state: State) {
        if let Some(transactions) = &mut self.transactions {
            transactions.state = state;
        }
    }

    /// Whether nobody else can have ended the producer: the id is our own, or the broker may have given the transaction up,
    /// which took too long.
    fn is_fenced_by_time(&self) -> bool {
        self.transactions.as_ref().is_some_and(|transactions| {
            transactions.is_own_id
                || matches!(transactions.state, State::Open(until) if until.is_over())
                || transactions.state == State::Spent
        })
    }

    /// What the end of the producer means for the transaction.
    pub(super) fn fenced(&self, error: Error) -> Error {
        match error.severity {
            Severity::Fenced if self.is_fenced_by_time() => Error::new(Severity::Transaction, error.message),
            _ => error,
        }
    }

    /// Keeps in mind what an error means for later calls.
    fn noted(&mut self, error: Error) -> Error {
        match error.severity {
            // Nobody else has taken its place, whatever the id is.
            _ if self.is_spoiled() => {
                self.set_state(State::Spent);
                Error::new(Severity::Transaction, error.message)
            }
            Severity::Fenced if self.is_fenced_by_time() => {
                self.set_state(State::Spent);
                self.fenced(error)
            }
            Severity::Fenced | Severity::Fatal => {
                self.set_state(State::Over(error.clone()));
                error
            }
            _ => error,
        }
    }

    pub(super) fn begin_transaction(&mut self) -> Result<(), Error> {
        match self.usable()?.state {
            State::Open(_) => return Err(Error::fatal("a transaction is begun while another is open")),
            State::Spent | State::New => self.renew()?,
            State::Closed | State::Over(_) => {}
        }
        let transactions = self.usable()?;
        let (what, until) =
            (what("begin a", transactions, &self.place), Deadline::after(transactions.timeout));
        self.reports.take_failure();
        match self.producer.begin_transaction() {
            Ok(()) => {
                self.set_state(State::Open(until));
                Ok(())
            }
            Err(error) => Err(self.noted(failed_transaction(&what, &error))),
        }
    }

    pub(super) fn commit_transaction(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let transactions = self.usable()?;
        match transactions.state {
            State::Open(_) => {}
            State::Spent | State::New => {
                return Err(Error::new(
                    Severity::Transaction,
                    "the broker gave the transaction up: it took too long",
                ));
            }
            State::Closed | State::Over(_) => {
                return Err(Error::fatal("no transaction is open to be committed"));
            }
        }
        let until = Deadline::after(transactions.timeout);
        let sent = self.send_positions(transaction, until).and_then(|()| self.drain(until));
        let sent = sent.map_err(|error| self.must_abort(error));
        sent.and_then(|()| self.settle_records()).map_err(|error| self.noted(error))?;
        self.end_transaction(until)
    }

    /// What a record that is not written means for its transaction.
    fn not_written(&mut self, failure: Error) -> Error {
        let is_away = failure.severity == Severity::Passing;
        let was_away = self.set_away(is_away);
        match failure.severity {
            Severity::Passing => failure,
            // It was thrown away with those of the transaction before.
            Severity::Transaction if was_away => Error::new(Severity::Passing, failure.message),
            _ => Error::new(Severity::Transaction, failure.message),
        }
    }

    /// What an error of the sink's `send` is: a transaction that takes no more records was given up for what became of those
    /// before.
    pub(super) fn given_up(&mut self, error: Error) -> Error {
        if self.transactions.is_none() || error.severity != Severity::Transaction || self.is_spoiled() {
            return error;
        }
        match self.reports.failure() {
            Some(failure) => self.not_written(failure),
            None => error,
        }
    }

    /// What could not be sent can be thrown away as long as nothing was committed.
    fn must_abort(&mut self, error: Error) -> Error {
        match error.severity {
            Severity::Passing => {
                self.set_away(true);
                error
            }
            Severity::Record => Error::new(Severity::Transaction, error.message),
            _ => error,
        }
    }

    fn set_away(&mut self, is_away: bool) -> bool {
        let was_away = self.transactions.as_mut().map(|transactions| &mut transactions.was_away);
        was_away.is_some_and(|was_away| std::mem::replace(was_away, is_away))
    }

    /// Records travel while the positions are sent.
    fn send_positions(&self, transaction: &Transaction, until: Deadline) -> Result<(), Error> {
        let (Some(group), Some(transactions)) = (&transaction.group, &self.transactions) else {
            return Ok(());
        };
        if transaction.positions.is_empty() {
            return Ok(());
        }
        let member = group.get::<Member>();
        let member =
            member.ok_or_else(|| Error::fatal("the positions are not those of a source of Kafka"))?;
        let mut list = TopicPartitionList::with_capacity(transaction.positions.len());
        for (partition, next) in &transaction.positions {
            let added = list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*next));
            added.map_err(|_| Error::fatal(format!("{partition} has no position {next}")))?;
        }
        let what = what("send positions within a", transactions, &self.place);
        // The client takes the time of one call for that of all it tries, and gives the transaction up when it is over.
        let until = Deadline::after(until.left().mul_f64(POSITIONS));
        let send = |_| {
            let left = until.left().max(Duration::from_millis(1));
            self.producer.send_offsets_to_transaction(&list, &member.0, left)
        };
        retried(&what, until, send)
    }

    fn settle_records(&mut self) -> Result<(), Error> {
        match self.reports.take_failure() {
            None => Ok(()),
            Some(failure) => Err(self.fatal().unwrap_or_else(|| self.not_written(failure))),
        }
    }

    fn end_transaction(&mut self, until: Deadline) -> Result<(), Error> {
        let Some(transactions) = &self.transactions else { return Ok(()) };
        let what = what("commit a", transactions, &self.place);
        let Err(error) = retried(&what, until, |step| self.producer.commit_transaction(step)) else {
            self.set_state(State::Closed);
            self.set_away(false);
            return Ok(());
        };
        match error.severity {
            // It may have been committed: nobody can tell without asking.
            Severity::Passing => {
                self.set_state(State::Spent);
                let message = format!("{}; it is unknown whether it was committed", error.message);
                Err(Error::new(Severity::Doubtful, message))
            }
            Severity::Fenced if self.is_fenced_by_time() => {
                self.set_state(State::Spent);
                Err(Error::new(Severity::Doubtful, error.message))
            }
            Severity::Doubtful => {
                self.set_state(State::Spent);
                Err(error)
            }
            _ => Err(self.noted(error)),
        }
    }

    pub(super) fn abort_transaction(&mut self) -> Result<(), Error> {
        let transactions = self.usable()?;
        match transactions.state {
            State::Closed | State::Over(_) => return Ok(()),
            State::Spent | State::New => return self.renew(),
            State::Open(_) => {}
        }
        let what = what("abort a", transactions, &self.place);
        let until = Deadline::after(transactions.timeout);
        let result = retried(&what, until, |step| self.producer.abort_transaction(step));
        self.reports.take_failure();
        let Err(error) = result else {
            self.set_state(State::Closed);
            return Ok(());
        };
        match self.noted(error) {
            error if matches!(error.severity, Severity::Fenced | Severity::Fatal) => Err(error),
            error => {
                tracing::warn!("{error}; another producer ends it");
                self.set_state(State::Spent);
                self.renew()
            }
        }
    }

    /// Has another producer under the same id end what was left open. Whoever has the id is fenced off by that, so it is not
    /// done for a process that was fenced off by another.
    fn renew(&mut self) -> Result<(), Error> {
        let Some(transactions) = &self.transactions else { return Ok(()) };
        let patience = transactions.patience;
        if transactions.state == State::Spent {
            let (producer, reports) = producer(&self.config, &self.place, true)?;
            (self.producer, self.reports) = (producer, reports);
            self.set_state(State::New);
        }
        match self.init_transactions(patience) {
            Ok(()) => {
                self.set_state(State::Closed);
                Ok(())
            }
            // It goes on by itself meanwhile, and is asked again.
            Err(error) if error.severity == Severity::Passing => Err(error),
            Err(error) => Err(self.noted(error)),
        }
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        // An open transaction would hold up readers until its time is over.
        if self.transactions.as_ref().is_some_and(|t| matches!(t.state, State::Open(_)))
            && let Err(error) = self.producer.abort_transaction(STEP)
        {
            tracing::debug!(%error, "an open transaction is left to the broker");
        }
    }
}

/// Calls again what ran out of time, as the client's library wants it.
fn retried(
    what: &str,
    until: Deadline,
    mut call: impl FnMut(Duration) -> rdkafka::error::KafkaResult<()>,
) -> Result<(), Error> {
    loop {
        let Err(error) = call(STEP.min(until.left()).max(Duration::from_millis(1))) else { return Ok(()) };
        let error = failed_transaction(what, &error);
        if error.severity != Severity::Passing || until.is_over() {
            return Err(error);
        }
        // Some of these come at once.
        pause(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id(), unique_id());
    }
}
