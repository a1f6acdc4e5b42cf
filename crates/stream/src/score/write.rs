//! Answers into records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use salver_predict::{Answer, Version};
use salver_records::{Header, Outgoing, Output};
use salver_tensor::Tensor;

use super::group::Group;
use super::{Failure, Item, Scorer, Scoring, State, Work};
use crate::header::Names;
use crate::{About, Class, Mapped, Refused, clock};

impl Scoring {
    pub(super) fn write_all(&self, scorer: &Arc<Scorer>, group: &Group, answer: &Answer, items: &mut [Item]) {
        let (start, outputs) = (clock::now(), &answer.outputs);
        let mut said = Said::new(scorer, answer.version);
        let mut row = 0;
        for (index, n_rows) in group.members.iter().zip(&group.rows) {
            let own: Option<Vec<Tensor>> = match group.members.len() {
                1 => Some(outputs.to_vec()),
                _ => outputs.iter().map(|output| output.rows(row, *n_rows)).collect(),
            };
            row += n_rows;
            let item = &mut items[*index];
            said.look(start, item.queued.taken);
            item.state = match (&item.state, own) {
                (State::Read(mapped), Some(own)) => {
                    match self.write(scorer, &item.queued.work, mapped, &own, &said) {
                        Ok(outgoing) => State::Done(smallvec::smallvec![outgoing]),
                        Err(refused) => self.after(&Failure::of(refused), &item.queued, Some(&scorer.id)),
                    }
                }
                _ => {
                    let failure = Failure::lasting(Class::Model, "the answer has too few rows".into());
                    self.after(&failure, &item.queued, Some(&scorer.id))
                }
            };
        }
        let n = group.members.len();
        let each =
            clock::now().saturating_duration_since(start) / u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        self.meter.stages.encode.record_n(each, u64::try_from(n).unwrap_or(u64::MAX));
    }

    fn write(
        &self,
        scorer: &Scorer,
        work: &Work,
        mapped: &Mapped,
        outputs: &[Tensor],
        said: &Said,
    ) -> Result<Outgoing, Refused> {
        let about = About { model: &scorer.id.name, version: said.version, latency: said.latency };
        let written = scorer.plan.write(&work.record, mapped, outputs, &about)?;
        Ok(Outgoing {
            output: Output::Main,
            partition: self.keeps_partition.then_some(work.partition.number),
            key: work.record.key.clone(),
            value: written.value,
            headers: self.headers(scorer, work, written.content_type, said),
            timestamp_ms: work.record.timestamp_ms,
        })
    }

    fn headers(
        &self,
        scorer: &Scorer,
        work: &Work,
        content_type: Option<&'static str>,
        said: &Said,
    ) -> Vec<Header> {
        let (names, came) = (&self.names, &work.record.headers);
        let mut headers = Vec::with_capacity(came.len() + 8);
        let stays = |header: &&Header| {
            !Names::is_ours(&header.name)
                && !Names::is_of_content(&header.name)
                && (content_type.is_none() || *header.name != *names.content_type)
        };
        headers.extend(came.iter().filter(stays).cloned());
        let mut add = |name: &Arc<str>, value: Bytes| {
            headers.push(Header { name: Arc::clone(name), value: Some(value) });
        };
        if let Some(content_type) = content_type {
            add(&names.content_type, Bytes::from_static(content_type.as_bytes()));
        }
        add(&names.model, scorer.model.clone());
        add(&names.model_version, said.version_text.clone());
        add(&names.latency, said.latency_text.clone());
        if let Some(part) = scorer.role.part() {
            add(&names.part, Bytes::from_static(part.as_bytes()));
        }
        if self.has_source_headers {
            let partition = &work.partition;
            add(&names.source_topic, Bytes::copy_from_slice(partition.topic.as_bytes()));
            add(&names.source_partition, Bytes::from(partition.number.to_string()));
            add(&names.source_offset, Bytes::from(work.record.offset.to_string()));
        }
        headers
    }
}

/// What answers say of themselves: texts that are made once for a group, and once for records that were read together.
struct Said {
    version: Version,
    version_text: Bytes,
    taken: Option<Instant>,
    latency: Duration,
    latency_text: Bytes,
}

impl Said {
    /// A server far away may have answered with another version than was asked for.
    fn new(scorer: &Scorer, answered: Option<Version>) -> Said {
        let other = answered.filter(|version| *version != scorer.id.version);
        Said {
            version: other.unwrap_or(scorer.id.version),
            version_text: other
                .map_or_else(|| scorer.version.clone(), |other| Bytes::from(other.to_string())),
            taken: None,
            latency: Duration::ZERO,
            latency_text: Bytes::new(),
        }
    }

    fn look(&mut self, now: Instant, taken: Instant) {
        if self.taken != Some(taken) {
            self.taken = Some(taken);
            self.latency = now.saturating_duration_since(taken);
            self.latency_text = Bytes::from(self.latency.as_micros().to_string());
        }
    }
}
