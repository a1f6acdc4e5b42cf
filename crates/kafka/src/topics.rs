//! Topics: whether they are there, how many partitions they have, and making them.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic as New, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use salver_records::{Error, Severity};

use crate::Connection;
use crate::address::check_topic;
use crate::callbacks::Callbacks;
use crate::deadline::{Deadline, pause};
use crate::error::{failed, severity};
use crate::settings::Role;

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it gets.
    pub partitions: i32,
    /// On how many brokers each is kept; the broker's default if `None`.
    pub replicas: Option<i32>,
    /// What it keeps of its records.
    pub keeps: Keeps,
}

/// What a topic keeps of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// All, for as long as the broker's default says.
    All,
    /// The last one of each key: for changelogs and tables.
    LastOfKey,
}

/// Asks brokers about topics. Every call blocks, for the connection's `timeout_ms` at most.
pub struct Topics {
    consumer: BaseConsumer<Callbacks>,
    connection: Connection,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("brokers", &self.connection.brokers()).finish_non_exhaustive()
    }
}

/// How long one request about topics may take, so that a reason can be told when there is no answer.
const STEP: Duration = Duration::from_secs(2);
/// How long a broker may take to hear of a topic that another has just made.
const SPREAD: Duration = Duration::from_secs(2);
/// How long to wait before asking again for what is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

impl Topics {
    /// Makes a client; asks nothing yet.
    ///
    /// # Errors
    /// When the client's library refuses the settings.
    pub fn new(connection: &Connection) -> Result<Topics, Error> {
        let what = format!("cannot make a client for {}", connection.brokers());
        let config = connection.config(Role::Any);
        let consumer = BaseConsumer::from_config_and_context(&config, Callbacks::default());
        Ok(Topics {
            consumer: consumer.map_err(|error| failed(&what, &error))?,
            connection: connection.clone(),
        })
    }

    /// How many partitions a topic has; `None` if there is no such topic.
    ///
    /// # Errors
    /// When no broker answers in time ([`Severity::Fatal`], as nothing was reached yet), or this client may not know it.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        check_topic(topic).map_err(Error::fatal)?;
        let until = Deadline::after(self.connection.timeout());
        loop {
            let left = until.left();
            match self.consumer.fetch_metadata(Some(topic), left.min(STEP)) {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|one| one.name() == topic);
                    let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
                    match (found, error) {
                        (Some(found), None) if !found.partitions().is_empty() => {
                            return Ok(Some(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)));
                        }
                        (
                            _,
                            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic),
                        ) => {
                            return Ok(None);
                        }
                        (_, Some(code)) if severity(code) == Severity::Fatal => {
                            let brokers = self.connection.brokers();
                            return Err(Error::fatal(format!(
                                "cannot use topic {topic} at {brokers}: {code}"
                            )));
                        }
                        // Being made, or without a leader for now.
                        _ if left.is_zero() => return Err(self.unanswered(topic, None)),
                        _ => pause(PAUSE),
                    }
                }
                Err(error) if left.is_zero() || is_final(&error) => {
                    return Err(self.unanswered(topic, Some(&error)));
                }
                Err(_) => {
                    if let Some(error) = self.refused() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// How many partitions a topic has that must be there; `role` says what for: `"input"`. Waits two seconds for
    /// one that is not there, as it may just have been made and not every broker knows it yet.
    ///
    /// # Errors
    /// As [`Topics::partitions`], and when it is not there: then with what to do.
    pub fn require(&self, topic: &str, role: &str) -> Result<i32, Error> {
        let until = Deadline::after(SPREAD.min(self.connection.timeout()));
        loop {
            match self.partitions(topic)? {
                Some(n) => return Ok(n),
                None if !until.is_over() => pause(PAUSE),
                None => {
                    let brokers = self.connection.brokers();
                    return Err(Error::fatal(format!(
                        "there is no topic {topic} at {brokers}, which is set as {role}: make it, or mend its name"
                    )));
                }
            }
        }
    }

    /// Makes a topic and waits until it is there. If it is there already, it is left as it is. Says how many partitions it
    /// has.
    ///
    /// # Errors
    /// When the broker refuses it, or does not answer in time.
    pub fn create(&self, topic: &NewTopic) -> Result<i32, Error> {
        if let Some(there) = self.partitions(&topic.name)? {
            return Ok(there);
        }
        let what = format!("cannot make topic {} at {}", topic.name, self.connection.brokers());
        let mut new =
            New::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replicas.unwrap_or(-1)));
        if topic.keeps == Keeps::LastOfKey {
            new = new.set("cleanup.policy", "compact");
        }
        let timeout = Some(self.connection.timeout());
        let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
        let results =
            wait_for(self.admin()?.create_topics([&new], &options)).map_err(|error| failed(&what, &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(Error::new(severity(code), format!("{what}: {code}"))),
            }
        }
        let until = Deadline::after(self.connection.timeout());
        loop {
            if let Some(there) = self.partitions(&topic.name)? {
                return Ok(there);
            }
            if until.is_over() {
                return Err(Error::fatal(format!("topic {} was made and does not appear", topic.name)));
            }
            pause(PAUSE);
        }
    }

    /// How many bytes a batch of records may have, if the broker tells.
    pub(crate) fn max_bytes(&self, topic: &str) -> Option<usize> {
        let options = AdminOptions::new().request_timeout(Some(self.connection.timeout().min(STEP)));
        let resource = ResourceSpecifier::Topic(topic);
        let admin = self.admin().ok()?;
        let found = wait_for(admin.describe_configs([&resource], &options));
        let found = found.ok()?.into_iter().next()?.ok()?;
        found.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Error> {
        let config = self.connection.config(Role::Any);
        AdminClient::from_config_and_context(&config, DefaultClientContext)
            .map_err(|error| failed("cannot make a client", &error))
    }

    /// What the library said meanwhile that will not pass: a refused password, say.
    fn refused(&self) -> Option<Error> {
        let mut reason = None;
        // Events that wait are bounded by the connections that were tried.
        while let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
            if is_final(&error) {
                reason = self.consumer.context().take_reason().or_else(|| Some(error.to_string()));
            }
        }
        let brokers = self.connection.brokers();
        reason.map(|reason| Error::fatal(format!("cannot use the brokers at {brokers}: {reason}")))
    }

    fn unanswered(&self, topic: &str, error: Option<&KafkaError>) -> Error {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let reason = self.consumer.context().take_reason();
        let reason = reason.or_else(|| error.map(ToString::to_string));
        let (brokers, timeout) = (self.connection.brokers(), self.connection.timeout());
        let reason = reason.unwrap_or_else(|| "it has no leader".to_owned());
        Error::fatal(format!("cannot learn of topic {topic} at {brokers} within {timeout:?}: {reason}"))
    }
}

fn is_final(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| severity(code) == Severity::Fatal)
}

/// Waits for a future of the client, whose own thread completes it.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Caller(Thread);
    impl Wake for Caller {
        fn wake(self: Arc<Caller>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Caller(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
