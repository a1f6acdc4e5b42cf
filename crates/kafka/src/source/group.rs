//! Reading as a member of a group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::error::RDKafkaErrorCode;
use salver_records::{Error, Event, Severity, Slot};

use super::{Given, KafkaSource, Membership, Mode};
use crate::Connection;
use crate::callbacks::{Callbacks, Named, Noted};
use crate::deadline::Deadline;
use crate::error::{failed, severity};
use crate::settings::{Isolation, Property, Protocol, Role, SourceSettings, Start, add};
use crate::slots::State;
use crate::topics::Topics;

impl KafkaSource {
    /// Makes a member of a group. Asks the brokers whether the topics are there; the group itself is joined by the first poll.
    ///
    /// # Errors
    /// Settings that cannot be, topics that are not there, brokers that cannot be reached.
    pub fn join(connection: &Connection, settings: &SourceSettings) -> Result<KafkaSource, Error> {
        check(settings)?;
        let topics = Topics::new(connection)?;
        for topic in &settings.topics {
            topics.require(topic, "input")?;
        }
        let mut config = reading(
            connection,
            &settings.group,
            settings.isolation,
            settings.read_ahead_bytes,
            &settings.properties,
        )?;
        config
            .set("auto.offset.reset", after_loss(settings.start))
            .set("max.poll.interval.ms", settings.max_poll_interval_ms.to_string())
            .set("statistics.interval.ms", "1000");
        if let Some(instance) = &settings.instance {
            config.set("group.instance.id", instance);
        }
        let mut classic = config.clone();
        classic
            .set("partition.assignment.strategy", settings.assignment.name())
            .set("session.timeout.ms", settings.session_timeout_ms.to_string());
        config.set("group.protocol", "consumer");
        let is_classic = settings.protocol == Protocol::Classic;
        let (first, fallback) = match settings.protocol {
            Protocol::Auto => (config, Some(classic)),
            Protocol::Consumer => (config, None),
            Protocol::Classic => (classic, None),
        };
        let place = format!("group {} at {}", settings.group, connection.brokers());
        let consumer = consumer(&first, &place)?;
        let (topics, start) = (settings.topics.clone(), settings.start);
        let mode = Mode::Group(Membership {
            topics,
            is_joined: false,
            start,
            config: first,
            fallback,
            is_taken: None,
            is_classic,
        });
        Ok(KafkaSource::new(consumer, mode, place, connection.timeout()))
    }

    /// Joins the group, if it is not joined yet.
    pub(super) fn subscribe(&mut self) -> Result<(), Error> {
        let Mode::Group(membership) = &mut self.mode else { return Ok(()) };
        if membership.is_joined || membership.is_taken.is_some_and(|(_, again)| !again.is_over()) {
            return Ok(());
        }
        let topics: Vec<_> = membership.topics.iter().map(String::as_str).collect();
        let joined = self.consumer.subscribe(&topics);
        joined.map_err(|error| failed(&format!("cannot join {}", self.place), &error))?;
        membership.is_joined = true;
        Ok(())
    }

    /// What to do once the client says that it cannot go on: join with the classic protocol if the brokers do not have the other one
    /// and that was left to us, or wait for the name of this member if the one before it had no time to give it back.
    pub(super) fn ended(&mut self, code: RDKafkaErrorCode, reason: &str) -> Result<(), Error> {
        let severity = match severity(code) {
            Severity::Fenced => Severity::Fenced,
            _ => Severity::Fatal,
        };
        let over = Error::new(severity, format!("cannot read {} any more: {reason}", self.place));
        let Mode::Group(membership) = &mut self.mode else { return Err(over) };
        let waiting = match code {
            RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::InconsistentGroupProtocol => {
                let Some(config) = membership.fallback.take() else { return Err(over) };
                tracing::info!(
                    "{}: the brokers lack the consumer protocol ({reason}); joining with the classic one",
                    self.place
                );
                (membership.config, membership.is_classic) = (config, true);
                None
            }
            // In the consumer protocol the name is taken until the session of a process that was killed is over.
            RDKafkaErrorCode::UnreleasedInstanceId => {
                let until =
                    membership.is_taken.map_or_else(|| Deadline::after(NAME_WAIT), |(until, _)| until);
                if until.is_over() {
                    return Err(over);
                }
                membership.is_taken = Some((until, Deadline::after(NAME_PAUSE)));
                Some(format!(
                    "{} still has a member of this name, which was not ended in order: waiting for it ({reason})",
                    self.place
                ))
            }
            _ => return Err(over),
        };
        membership.is_joined = false;
        let config = membership.config.clone();
        (self.asking, self.waking) = (None, None);
        self.consumer.context().close();
        self.consumer = Arc::new(consumer(&config, &self.place)?);
        match waiting {
            Some(message) => Err(Error::new(Severity::Passing, message)),
            None => self.subscribe(),
        }
    }

    /// Acts on rebalances that the client told of.
    pub(super) fn rebalance(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        while let Some(noted) = self.consumer.context().next_noted() {
            match noted {
                Noted::Assigned(named) => self.assigned(&named, events)?,
                Noted::Revoked(named) => self.revoked(&named, events)?,
                Noted::Lost(named) => {
                    let mut slots = self.slots_of(&named);
                    slots.extend(std::mem::take(&mut self.revoking).into_keys());
                    self.lost(slots, events)?;
                }
            }
        }
        Ok(())
    }

    fn slots_of(&mut self, named: &[Named]) -> Vec<Slot> {
        named.iter().map(|(topic, number)| self.slots.number(topic, *number)).collect()
    }

    fn assigned(&mut self, named: &[Named], events: &mut Vec<Event>) -> Result<(), Error> {
        if let Mode::Group(membership) = &mut self.mode {
            membership.is_taken = None;
        }
        let slots = self.slots_of(named);
        let is_cooperative = matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let returns = slots.iter().any(|slot| self.revoking.contains_key(slot));
        if !self.revoking.is_empty() && (returns || !is_cooperative) {
            // The group went on before all was given up.
            let gone = std::mem::take(&mut self.revoking).into_keys().collect();
            self.lost(gone, events)?;
        }
        // A number needs no question to the brokers whose answer could come after the right one.
        let list = self.slots.positions(slots.iter().map(|slot| (*slot, 0)));
        let taken = if is_cooperative {
            self.consumer.incremental_assign(&list)
        } else {
            self.consumer.assign(&list)
        };
        let what = || format!("cannot take over {} of {}", self.slots.names(&slots), self.place);
        taken.map_err(|error| failed(&what(), &error))?;
        if slots.is_empty() {
            return Ok(());
        }
        self.consumer.pause(&list).map_err(|error| failed(&what(), &error))?;
        self.forget(&slots);
        self.slots.set(&slots, State::Paused);
        self.unplaced.extend(slots);
        self.place(events)
    }

    fn revoked(&mut self, named: &[Named], events: &mut Vec<Event>) -> Result<(), Error> {
        let slots = self.slots_of(named);
        if slots.is_empty() {
            return self.release(&slots);
        }
        slots.iter().for_each(|slot| self.unplace(*slot));
        self.slots.set(&slots, State::Revoking);
        self.revoking.extend(slots.iter().map(|slot| (*slot, Given::Not)));
        events.push(Event::Revoking(slots));
        Ok(())
    }

    fn lost(&mut self, slots: Vec<Slot>, events: &mut Vec<Event>) -> Result<(), Error> {
        self.forget(&slots);
        let released = self.release(&slots);
        if !slots.is_empty() {
            events.push(Event::Lost(slots));
        }
        released.or_else(|error| {
            // They are gone in any case.
            tracing::debug!("{error}");
            Ok(())
        })
    }
}

/// What the client does about a position whose record is not there any more. Of a topic that deleted records before they were read,
/// what is left comes, and is not skipped to the end.
fn after_loss(start: Start) -> &'static str {
    if start == Start::Fail { "error" } else { "earliest" }
}

/// How long to wait for a name that is taken: more than brokers let a session last by default, which is 45 s.
const NAME_WAIT: Duration = Duration::from_secs(120);
/// Before it is tried again.
const NAME_PAUSE: Duration = Duration::from_secs(2);

fn check(settings: &SourceSettings) -> Result<(), Error> {
    if settings.topics.is_empty() {
        return Err(Error::fatal("no topic to read is named"));
    }
    if settings.group.is_empty() {
        return Err(Error::fatal("no group is named: those who share a group share the records"));
    }
    if settings.instance.as_ref().is_some_and(String::is_empty) {
        return Err(Error::fatal("instance is empty: leave it out, or name this process"));
    }
    Ok(())
}

pub(super) fn consumer(config: &ClientConfig, place: &str) -> Result<BaseConsumer<Callbacks>, Error> {
    let consumer = BaseConsumer::from_config_and_context(config, Callbacks::default());
    consumer.map_err(|error| failed(&format!("cannot join {place}"), &error))
}

/// What the brokers give at a time at most, but for a single batch that is larger.
const FETCH_BYTES: &str = "4194304";

/// A consumer's configuration that commits nothing by itself and whose memory is bounded.
pub(crate) fn reading(
    connection: &Connection,
    group: &str,
    isolation: Isolation,
    read_ahead_bytes: u64,
    properties: &std::collections::BTreeMap<String, Property>,
) -> Result<ClientConfig, Error> {
    let kilobytes = (read_ahead_bytes / 1024).clamp(1, 2_097_151);
    let mut config = connection.config(Role::Consumer);
    // While some partitions are paused, others must not wait long for those that come back.
    config.set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "20");
    // A larger answer lies in memory that the allocator asks of the system, and gives back, for each anew. It may not be less
    // than what a user says that a batch has at most.
    if !properties.contains_key("message.max.bytes") {
        config.set("fetch.max.bytes", FETCH_BYTES);
    }
    add(&mut config, properties)?;
    config
        .set("group.id", group)
        .set("isolation.level", isolation.name())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("queued.max.messages.kbytes", kilobytes.to_string());
    Ok(config)
}
