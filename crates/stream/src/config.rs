//! The settings of a pipeline. Keys are those of a TOML table; the default stands beside each.

use std::num::NonZeroUsize;
use std::time::Duration;

use salver_predict::{ModelName, ModelSpec, VersionChoice};
use serde::Deserialize;

use crate::{Class, Error, ErrorKind};

/// Workers at most: more are no use and may be more than a process can start.
const MAX_WORKERS: usize = 256;

/// Batches under way per worker at most.
const MAX_IN_FLIGHT: usize = 1024;

/// How a pipeline works.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What a crash may cost: `at_least_once` (records come twice) or `exactly_once` (nothing; needs a sink with
    /// transactions). Default: `at_least_once`.
    pub delivery: Delivery,
    /// `commit_interval_ms`: how often positions are committed; with `exactly_once` how long a transaction is open, and so
    /// how late its records are seen. Default: 100 with `exactly_once`, else 1000.
    #[serde(rename = "commit_interval_ms", with = "optional_millis")]
    pub commit_interval: Option<Duration>,
    /// Bytes of outputs after which a transaction is committed before its time. Default: 16 MiB.
    pub max_transaction_bytes: usize,
    /// What is answered in order, with `at_least_once`: `key` (records of one partition and key), `partition` or `none`. With
    /// `exactly_once` each partition is always answered in order. Default: `key`.
    pub order: Order,
    /// What `order = "key"` means for records without a key: `free` or `partition` (in order among themselves).
    /// Default: `free`.
    pub null_keys: NullKeys,
    /// The signature of the model; empty means its default. Default: empty.
    pub signature: String,
    /// Records, and rows, that are scored together at most. Default: 64.
    pub max_batch: NonZeroUsize,
    /// `linger_ms`: how long a record waits for others while a worker is idle. Default: 0, nothing waits then.
    #[serde(rename = "linger_ms", with = "millis")]
    pub linger: Duration,
    /// Threads that decode, score and encode, at most 256. Default: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Batches that one worker has under way at a time, at most 1024. More than 2 pay off where answers come over a network.
    /// Default: 2.
    pub in_flight: NonZeroUsize,
    /// `pipeline_after_ms`: how long records wait for a full batch before they are given to a worker that is busy and may
    /// have another batch under way. Default: 2.
    #[serde(rename = "pipeline_after_ms", with = "millis")]
    pub pipeline_after: Duration,
    /// `timeout_ms`: how long one call of the model may take. Default: 30000.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// Bytes of records and outputs in memory, beyond which the source is held back until a quarter of it is free. One poll of
    /// the source comes on top. Default: 128 MiB.
    pub max_bytes: usize,
    /// Records in memory, likewise. Default: 100000.
    pub max_records: NonZeroUsize,
    /// Records in memory of one partition, likewise, so that a partition whose oldest record is slow does not take the
    /// place of others. Default: 50000.
    pub max_partition_records: NonZeroUsize,
    /// The largest record that is decoded; others are refused as `oversize`. Default: 64 MiB.
    pub max_record_bytes: usize,
    /// `drain_ms`: how long records of a partition that others shall have may take to be finished. Default: 10000.
    #[serde(rename = "drain_ms", with = "millis")]
    pub drain: Duration,
    /// Records per second at most. Default: no limit.
    pub rate: Option<f64>,
    /// What becomes of records that have no answer, by class. Default: see [`Policies`].
    pub on: Policies,
    /// Calls that fail for troubles that pass. Default: see [`Retry`].
    pub retry: Retry,
    /// Another version or model for some keys. Default: none.
    pub canary: Option<Canary>,
    /// Another version or model that scores some keys as well, for comparison. Default: none.
    pub shadow: Option<Shadow>,
    /// Add the headers `salver-source-topic`, `-partition` and `-offset` to answers. Default: no.
    pub source_headers: bool,
    /// Write answers to the partition number that their record came from, rather than by key. Default: no.
    pub keep_partition: bool,
    /// `model_wait_ms`: how long the stream waits for a version of the model that can be used when there is none any more.
    /// Default: 60000.
    #[serde(rename = "model_wait_ms", with = "millis")]
    pub model_wait: Duration,
    /// How many times in a row writing may fail and be done again before the pipeline gives up. Default: 10.
    pub max_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        let n = |n| NonZeroUsize::new(n).expect("the defaults are not zero");
        Config {
            delivery: Delivery::AtLeastOnce,
            commit_interval: None,
            max_transaction_bytes: 16 << 20,
            order: Order::Key,
            null_keys: NullKeys::Free,
            signature: String::new(),
            max_batch: n(64),
            linger: Duration::ZERO,
            workers: None,
            in_flight: n(2),
            pipeline_after: Duration::from_millis(2),
            timeout: Duration::from_secs(30),
            max_bytes: 128 << 20,
            max_records: n(100_000),
            max_partition_records: n(50_000),
            max_record_bytes: 64 << 20,
            drain: Duration::from_secs(10),
            rate: None,
            on: Policies::default(),
            retry: Retry::default(),
            canary: None,
            shadow: None,
            source_headers: false,
            keep_partition: false,
            model_wait: Duration::from_secs(60),
            max_failures: 10,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the key, what it is and what was expected.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        if let Some(workers) = self.workers.filter(|workers| workers.get() > MAX_WORKERS) {
            return wrong(format!("workers is {workers}, expected at most {MAX_WORKERS}"));
        }
        if self.in_flight.get() > MAX_IN_FLIGHT {
            return wrong(format!("in_flight is {}, expected at most {MAX_IN_FLIGHT}", self.in_flight));
        }
        if let Some(rate) = self.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return wrong(format!("rate is {rate}, expected a positive number of records per second"));
        }
        if self.max_bytes == 0 || self.max_transaction_bytes == 0 || self.timeout.is_zero() {
            return wrong("max_bytes, max_transaction_bytes and timeout_ms must not be zero".into());
        }
        if let Some(class) = Class::ALL
            .into_iter()
            .find(|class| *class != Class::Tombstone && self.on.of(*class) == Policy::Pass)
        {
            return wrong(format!("on.{class} is 'pass', which is for tombstones only"));
        }
        for (key, part) in
            [("canary", self.canary.as_ref()), ("shadow", self.shadow.as_ref().map(|s| &s.part))]
        {
            part.map_or(Ok(()), |part| part.check(key))?;
        }
        Ok(())
    }

    /// How often positions are committed.
    pub fn commit_interval(&self) -> Duration {
        let default = match self.delivery {
            Delivery::AtLeastOnce => Duration::from_secs(1),
            Delivery::ExactlyOnce => Duration::from_millis(100),
        };
        self.commit_interval.unwrap_or(default)
    }

    /// How many workers there are.
    pub fn n_workers(&self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.workers.unwrap_or_else(all)
    }
}

/// What a crash may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Records may be answered twice, none is left out. Positions are committed once the answers last.
    #[default]
    AtLeastOnce,
    /// Each record is answered once: answers and positions become true together.
    ExactlyOnce,
}

/// What is answered in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Records of one partition and key.
    #[default]
    Key,
    /// Records of one partition.
    Partition,
    /// Nothing.
    None,
}

/// What an order by key means for records without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullKeys {
    /// They are answered in any order.
    #[default]
    Free,
    /// Those of one partition are answered in order among themselves.
    Partition,
}

/// What becomes of a record that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The pipeline ends with an error; the record's position is not committed.
    Fail,
    /// Counted and left out.
    Skip,
    /// Written to the dead letters as it came, with headers that say why.
    Dead,
    /// An error record, as JSON, is written among the answers.
    Emit,
    /// Written among the answers as it came. For tombstones only.
    Pass,
}

/// The policy of each class of trouble. Writing dead letters needs a sink that knows where to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// The value cannot be read in its format. Default: `fail`.
    pub format: Policy,
    /// The schema is not there or does not fit. Default: `fail`.
    pub schema: Policy,
    /// The fields do not fit the model's inputs. Default: `fail`.
    pub shape: Policy,
    /// There is no value. Default: `pass`.
    pub tombstone: Policy,
    /// The record, or its answer, is larger than what is taken. Default: `fail`.
    pub oversize: Policy,
    /// The model refuses the record or fails. Default: `fail`.
    pub model: Policy,
    /// The model did not answer in time, as many times as it was asked. Default: `fail`.
    pub timeout: Policy,
    /// Nobody answered, as many times as was asked. Default: `fail`.
    pub unavailable: Policy,
}

impl Default for Policies {
    fn default() -> Self {
        Policies { tombstone: Policy::Pass, ..Policies::all(Policy::Fail) }
    }
}

impl Policies {
    /// One policy for every class; tombstones too.
    pub fn all(policy: Policy) -> Policies {
        let (format, schema, shape, tombstone) = (policy, policy, policy, policy);
        let (oversize, model, timeout, unavailable) = (policy, policy, policy, policy);
        Policies { format, schema, shape, tombstone, oversize, model, timeout, unavailable }
    }

    /// The policy of a class.
    pub fn of(&self, class: Class) -> Policy {
        match class {
            Class::Format => self.format,
            Class::Schema => self.schema,
            Class::Shape => self.shape,
            Class::Tombstone => self.tombstone,
            Class::Oversize => self.oversize,
            Class::Model => self.model,
            Class::Timeout => self.timeout,
            Class::Unavailable => self.unavailable,
        }
    }
}

/// Calls that fail for troubles that pass: nobody there, or more asked than can be answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How many times a record is tried at most, the first time included. Default: 12.
    pub attempts: u32,
    /// `backoff_ms`: the wait after the first failure; it doubles with each that follows. Default: 20.
    #[serde(rename = "backoff_ms", with = "millis")]
    pub backoff: Duration,
    /// `max_backoff_ms`: the longest wait. Default: 5000.
    #[serde(rename = "max_backoff_ms", with = "millis")]
    pub max_backoff: Duration,
    /// Records tried again per hundred that succeed; beyond that each wait is the longest. Default: 20.
    pub budget_percent: f64,
    /// Whether calls that took too long are tried again. Default: yes.
    pub timeouts: bool,
}

impl Default for Retry {
    fn default() -> Self {
        let (backoff, max_backoff) = (Duration::from_millis(20), Duration::from_secs(5));
        Retry { attempts: 12, backoff, max_backoff, budget_percent: 20.0, timeouts: true }
    }
}

/// Which keys another version or model scores.
///
/// A key belongs to the share when the SipHash-2-4 of its bytes, modulo 10000, is below a hundred times `percent`; the
/// hash's key is 0 and 0 for a canary and 0 and 1 for a shadow. A record without a key counts by its topic, partition and
/// offset: the hash goes over the topic's bytes, then the partition (4 bytes) and the offset (8 bytes), little-endian.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Keys out of a hundred, 0 to 100.
    pub percent: f64,
    /// The model. Default: the same.
    #[serde(default)]
    pub model: Option<String>,
    /// The version. Default: the highest, or that of the label.
    #[serde(default)]
    pub version: Option<i64>,
    /// The label of the version. Default: none.
    #[serde(default)]
    pub label: Option<String>,
}

impl Canary {
    fn check(&self, key: &str) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        if !(0.0..=100.0).contains(&self.percent) {
            return wrong(format!("{key}.percent is {}, expected 0 to 100", self.percent));
        }
        if self.version.is_some() && self.label.is_some() {
            return wrong(format!("{key} has both a version and a label, expected one of them"));
        }
        if self.model.as_deref() == Some("") {
            return wrong(format!("{key}.model is empty"));
        }
        Ok(())
    }

    /// Which model is meant, beside the primary one.
    pub fn spec(&self, primary: &ModelSpec) -> ModelSpec {
        let name = self.model.as_deref().and_then(ModelName::new).unwrap_or_else(|| primary.name.clone());
        let version = match (&self.version, &self.label) {
            (Some(version), _) => VersionChoice::Number(*version),
            (None, Some(label)) => VersionChoice::Label(label.clone()),
            (None, None) => VersionChoice::Latest,
        };
        ModelSpec { name, version }
    }
}

/// Which keys are scored a second time, and how much of it may wait.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "RawShadow")]
pub struct Shadow {
    /// Which keys, and by what. In a file its keys stand beside the others.
    pub part: Canary,
    /// Records that may wait; those beyond are left out and counted. Default: 1000.
    pub max_records: NonZeroUsize,
    /// Bytes of records that may wait. Default: 16 MiB.
    pub max_bytes: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShadow {
    percent: f64,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    max_records: Option<NonZeroUsize>,
    #[serde(default)]
    max_bytes: Option<usize>,
}

impl From<RawShadow> for Shadow {
    fn from(raw: RawShadow) -> Shadow {
        let part = Canary { percent: raw.percent, model: raw.model, version: raw.version, label: raw.label };
        let max_records =
            raw.max_records.unwrap_or_else(|| NonZeroUsize::new(1000).expect("1000 is not zero"));
        Shadow { part, max_records, max_bytes: raw.max_bytes.unwrap_or(16 << 20) }
    }
}

/// Whole or broken milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse(f64::deserialize(from)?)
    }

    pub(super) fn parse<E: Error>(millis: f64) -> Result<Duration, E> {
        Duration::try_from_secs_f64(millis / 1000.0)
            .map_err(|_| E::custom(format!("{millis} is not a time in milliseconds")))
    }
}

/// The same where it may be left out.
mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?.map(super::millis::parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_default() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn keys_are_read() {
        let text = r#"
            delivery = "exactly_once"
            commit_interval_ms = 50
            linger_ms = 0.5
            null_keys = "partition"
            workers = 3
            [on]
            format = "dead"
            [retry]
            backoff_ms = 5
            [canary]
            percent = 2.5
            label = "next"
            [shadow]
            percent = 100
            version = 7
        "#;
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.delivery, Delivery::ExactlyOnce);
        assert_eq!(config.commit_interval(), Duration::from_millis(50));
        assert_eq!(config.linger, Duration::from_micros(500));
        assert_eq!(config.on.of(Class::Format), Policy::Dead);
        assert_eq!(config.on.of(Class::Model), Policy::Fail);
        assert_eq!(config.retry.backoff, Duration::from_millis(5));
        let primary = ModelSpec { name: ModelName::new("m").unwrap(), version: VersionChoice::Latest };
        let canary = config.canary.as_ref().unwrap().spec(&primary);
        assert_eq!(canary, ModelSpec { version: VersionChoice::Label("next".into()), ..primary.clone() });
        let shadow = config.shadow.as_ref().unwrap();
        assert_eq!(shadow.part.spec(&primary), ModelSpec { version: VersionChoice::Number(7), ..primary });
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |text: &str, expected: &str| {
            let message = match toml::from_str::<Config>(text) {
                Ok(config) => config.check().err().map(|error| error.to_string()).unwrap_or_default(),
                Err(error) => error.message().to_owned(),
            };
            assert!(message.starts_with(expected) && message.is_empty() == expected.is_empty(), "{message}");
        };
        check("max_batch = 8", "");
        check("max_batches = 8", "unknown field `max_batches`");
        check("max_batch = 0", "invalid value");
        check("workers = 1000", "workers is 1000, expected at most 256");
        check("rate = 0", "rate is 0, expected a positive number of records per second");
        check("linger_ms = -1", "-1 is not a time in milliseconds");
        check("on = { model = 'pass' }", "on.model is 'pass', which is for tombstones only");
        check("canary = { percent = 101 }", "canary.percent is 101, expected 0 to 100");
        check("shadow = { percent = 1, version = 1, label = 'x' }", "shadow has both a version and a label");
        check("shadow = { percent = 1, topic = 'x' }", "unknown field `topic`");
    }
}
