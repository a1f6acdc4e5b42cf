//! What becomes of records that have no answer.

use std::sync::Arc;

use bytes::Bytes;
use salver_predict::ModelId;
use salver_records::{Header, Outgoing, Output, Partition, Record};
use smallvec::SmallVec;

use crate::header::Names;
use crate::status::Meter;
use crate::{Class, Config, Error, ErrorKind, Policies, Policy};

/// What is written for one record; nearly always one answer.
pub(crate) type Outputs = SmallVec<[Outgoing; 1]>;

/// Where a record came from and what was tried with it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    /// How many times it was tried before.
    pub(crate) n_attempts: u32,
    /// Who was asked, or would have been.
    pub(crate) model: Option<Arc<ModelId>>,
}

/// The policies, and what they make of a record.
#[derive(Debug)]
pub(crate) struct Refusals {
    policies: Policies,
    keeps_partition: bool,
    names: Names,
    meter: Arc<Meter>,
}

impl Refusals {
    pub(crate) fn new(config: &Config, meter: Arc<Meter>) -> Refusals {
        let (policies, keeps_partition) = (config.on.clone(), config.keep_partition);
        Refusals { policies, keeps_partition, names: Names::default(), meter }
    }

    /// What is written instead of an answer.
    ///
    /// # Errors
    /// Where the policy is to end the pipeline.
    pub(crate) fn refuse(&self, class: Class, message: &str, origin: &Origin) -> Result<Outputs, Error> {
        let policy = self.policies.of(class);
        let n = self.meter.refused(class, policy);
        let place = Place(origin);
        if n.is_power_of_two() && policy != Policy::Pass {
            tracing::warn!(class = class.name(), n, "{place} has no answer: {message}");
        } else {
            tracing::debug!(class = class.name(), "{place} has no answer: {message}");
        }
        match policy {
            Policy::Fail => {
                Err(Error::new(ErrorKind::Record, format!("{place} has no answer ({class}): {message}")))
            }
            Policy::Skip => Ok(Outputs::new()),
            Policy::Dead => Ok(smallvec::smallvec![self.dead(class, message, origin)]),
            Policy::Emit => Ok(smallvec::smallvec![self.error_record(class, message, origin)]),
            Policy::Pass => Ok(smallvec::smallvec![self.passed(origin)]),
        }
    }

    /// The record among the answers, where its answer would be.
    fn passed(&self, origin: &Origin) -> Outgoing {
        let mut passed = as_it_came(origin, Output::Main);
        passed.partition = self.keeps_partition.then_some(origin.partition.number);
        passed.headers.retain(|header| !Names::is_of_input(&header.name));
        passed
    }

    fn dead(&self, class: Class, message: &str, origin: &Origin) -> Outgoing {
        let mut dead = as_it_came(origin, Output::Dead);
        self.add_reason(&mut dead.headers, class, message, origin);
        dead
    }

    fn error_record(&self, class: Class, message: &str, origin: &Origin) -> Outgoing {
        let (record, partition) = (&origin.record, &origin.partition);
        let mut body = serde_json::json!({
            "error": {
                "class": class.name(),
                "message": message,
                "topic": &*partition.topic,
                "partition": partition.number,
                "offset": record.offset,
                "attempt": origin.n_attempts.saturating_add(1),
            }
        });
        if let Some(model) = &origin.model {
            body["error"]["model"] = model.name.as_str().into();
            body["error"]["model_version"] = model.version.0.into();
        }
        let mut emitted = self.passed(origin);
        emitted.value = Some(Bytes::from(body.to_string()));
        let is_of_content = |name: &str| name == &*self.names.content_type || Names::is_of_content(name);
        emitted.headers.retain(|header| !is_of_content(&header.name));
        let json = Bytes::from_static(b"application/json");
        emitted.headers.push(Header { name: Arc::clone(&self.names.content_type), value: Some(json) });
        self.add_reason(&mut emitted.headers, class, message, origin);
        emitted
    }

    /// Headers of an earlier refusal give way, so that a dead letter that is read again tells of its last trouble.
    fn add_reason(&self, headers: &mut Vec<Header>, class: Class, message: &str, origin: &Origin) {
        let (names, record) = (&self.names, &origin.record);
        headers.retain(|header| !Names::is_ours(&header.name));
        let mut add = |name: &Arc<str>, value: Bytes| {
            headers.push(Header { name: Arc::clone(name), value: Some(value) });
        };
        add(&names.error_class, Bytes::from_static(class.name().as_bytes()));
        add(&names.error_message, Bytes::copy_from_slice(message.as_bytes()));
        add(&names.error_topic, Bytes::copy_from_slice(origin.partition.topic.as_bytes()));
        add(&names.error_partition, Bytes::from(origin.partition.number.to_string()));
        add(&names.error_offset, Bytes::from(record.offset.to_string()));
        if let Some(timestamp) = record.timestamp_ms {
            add(&names.error_timestamp, Bytes::from(timestamp.to_string()));
        }
        add(&names.error_attempt, Bytes::from(origin.n_attempts.saturating_add(1).to_string()));
        if let Some(model) = &origin.model {
            add(&names.error_model, Bytes::copy_from_slice(model.name.as_str().as_bytes()));
            add(&names.error_model_version, Bytes::from(model.version.to_string()));
        }
    }
}

/// The record with all that came along.
fn as_it_came(origin: &Origin, output: Output) -> Outgoing {
    let record = &origin.record;
    Outgoing {
        output,
        partition: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp_ms: record.timestamp_ms,
    }
}

/// `offset 7 of images/3`.
struct Place<'a>(&'a Origin);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "offset {} of {}", self.0.record.offset, self.0.partition)
    }
}

#[cfg(test)]
mod tests {
    use salver_predict::{ModelName, Version};
    use salver_records::{CUT_FROM, Slot};

    use super::*;

    fn origin(headers: &[(&str, &str)]) -> Origin {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).into(),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        };
        let record = Record {
            slot: Slot(0),
            offset: 7,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"?")),
            headers: headers.iter().map(header).collect(),
            timestamp_ms: Some(11),
        };
        let model = ModelId { name: ModelName::new("m").unwrap(), version: Version(3) };
        let partition = Arc::new(Partition { topic: "in".into(), number: 2 });
        Origin { record, partition, n_attempts: 1, model: Some(Arc::new(model)) }
    }

    fn text(header: &Header) -> (&str, &str) {
        (&header.name, std::str::from_utf8(header.value.as_ref().unwrap()).unwrap())
    }

    fn refuse(policy: Policy, origin: &Origin) -> Result<Outputs, Error> {
        refuse_in(policy, origin, false)
    }

    fn refuse_in(policy: Policy, origin: &Origin, keep_partition: bool) -> Result<Outputs, Error> {
        let meter = Arc::new(Meter::default());
        let config = Config { on: Policies::all(policy), keep_partition, ..Config::default() };
        let refusals = Refusals::new(&config, Arc::clone(&meter));
        let refused = refusals.refuse(Class::Format, "no JSON", origin);
        let (class, counts) = meter.read().refused[0];
        let n = counts.skipped + counts.dead + counts.emitted + counts.passed + counts.failed;
        assert_eq!((class, n), (Class::Format, 1));
        refused
    }

    #[test]
    fn a_dead_letter_is_the_record_and_its_reason() {
        let origin = origin(&[("traceparent", "00"), ("salver-error-class", "model")]);
        let outputs = refuse(Policy::Dead, &origin).unwrap();
        let [dead] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(
            (dead.output, &dead.key, &dead.value),
            (Output::Dead, &origin.record.key, &origin.record.value)
        );
        assert_eq!(dead.timestamp_ms, Some(11));
        let headers: Vec<(&str, &str)> = dead.headers.iter().map(text).collect();
        let expected = [
            ("traceparent", "00"),
            ("salver-error-class", "format"),
            ("salver-error-message", "no JSON"),
            ("salver-error-topic", "in"),
            ("salver-error-partition", "2"),
            ("salver-error-offset", "7"),
            ("salver-error-timestamp", "11"),
            ("salver-error-attempt", "2"),
            ("salver-error-model", "m"),
            ("salver-error-model-version", "3"),
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn other_policies() {
        let origin = origin(&[]);
        let error = refuse(Policy::Fail, &origin).unwrap_err();
        assert_eq!(error.to_string(), "offset 7 of in/2 has no answer (format): no JSON");
        assert!(refuse(Policy::Skip, &origin).unwrap().is_empty());
        let emitted = refuse(Policy::Emit, &origin).unwrap();
        let body: serde_json::Value = serde_json::from_slice(emitted[0].value.as_ref().unwrap()).unwrap();
        assert_eq!((emitted[0].output, &body["error"]["offset"]), (Output::Main, &7.into()));
        assert_eq!(body["error"]["model_version"], 3);
        let passed = refuse(Policy::Pass, &origin).unwrap();
        assert_eq!((&passed[0].value, passed[0].headers.len()), (&origin.record.value, 0));
    }

    #[test]
    fn what_is_among_the_answers_has_the_partition_of_answers() {
        let check = |policy, keeps, expected| {
            let outputs = refuse_in(policy, &origin(&[]), keeps).unwrap();
            let partitions: Vec<Option<i32>> = outputs.iter().map(|outgoing| outgoing.partition).collect();
            assert_eq!(partitions, [expected], "{policy:?} {keeps}");
        };
        for policy in [Policy::Pass, Policy::Emit] {
            check(policy, true, Some(2));
            check(policy, false, None);
        }
        check(Policy::Dead, true, None);
    }

    #[test]
    fn headers_of_the_input_that_are_not_true_of_what_is_written_are_left_out() {
        let came = [
            ("traceparent", "00"),
            ("content-type", "image/png"),
            ("__value_schema_id", "7"),
            ("__key_schema_id", "8"),
            ("salver-model", "earlier"),
            ("salver-part", "canary"),
            (CUT_FROM, "1000"),
        ];
        let check = |policy, expected: &[(&str, &str)]| {
            let outputs = refuse(policy, &origin(&came)).unwrap();
            let is_reason = |header: &&Header| header.name.starts_with("salver-error-");
            let headers = outputs[0].headers.iter().filter(|header| !is_reason(header));
            assert_eq!(headers.map(text).collect::<Vec<_>>(), expected, "{policy:?}");
        };
        check(Policy::Pass, &came[..4]);
        check(Policy::Emit, &[came[0], came[3], ("content-type", "application/json")]);
        // What the source says of it is true of the original.
        check(Policy::Dead, &[came[0], came[1], came[2], came[3], came[6]]);
    }
}
