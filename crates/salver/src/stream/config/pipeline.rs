//! The pipeline's settings, of what was said and what is chosen where nothing was.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, bail};
use salver_predict::{ModelName, ModelSpec};
use salver_stream::{self as stream, Delivery, Order, Policies, Policy};

use super::times::millis;
use crate::stream::embedded;
use crate::stream::file::{self, Sections};
use crate::stream::place::Place;

/// Calls that a worker has under way, where answers come over a network.
const REMOTE_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not zero");

pub(super) fn pipeline(
    sections: &Sections,
    from: &Place,
    to: &Place,
    has_dead_letters: bool,
    primary: &ModelSpec,
) -> anyhow::Result<stream::Config> {
    let default = stream::Config::default();
    let (batch, delivery, limits, model) =
        (&sections.batch, &sections.delivery, &sections.limits, &sections.model);
    let is_remote = !sections.remote.hosts.is_empty();
    let in_flight = if is_remote { REMOTE_IN_FLIGHT } else { default.in_flight };
    let delivery_mode = chosen_delivery(delivery.mode, from, to)?;
    // What was answered at least once must be a beginning of each partition, or a window would be asked for rows that
    // came before those it has. Lines of a file are expected in the order of the file.
    let is_in_turn = sections.window.is_some() && delivery_mode == Delivery::AtLeastOnce;
    if is_in_turn && delivery.order.is_some_and(|order| order != Order::Partition) {
        bail!(
            "delivery.order must be partition where windows are kept at least once: they take records in their order"
        );
    }
    let order = if from.topic().is_some() && !is_in_turn { Order::Key } else { Order::Partition };
    Ok(stream::Config {
        delivery: delivery_mode,
        commit_interval: millis("delivery.commit_interval_ms", delivery.commit_interval_ms)?,
        max_transaction_bytes: delivery.max_transaction_bytes.unwrap_or(default.max_transaction_bytes),
        order: delivery.order.unwrap_or(order),
        null_keys: delivery.null_keys.unwrap_or(default.null_keys),
        signature: model.signature.clone(),
        max_batch: batch.max_batch.unwrap_or(default.max_batch),
        linger: millis("batch.linger_ms", batch.linger_ms)?.unwrap_or(default.linger),
        workers: batch.workers,
        in_flight: batch.in_flight.unwrap_or(in_flight),
        pipeline_after: millis("batch.pipeline_after_ms", batch.pipeline_after_ms)?
            .unwrap_or(default.pipeline_after),
        timeout: millis("model.timeout_ms", model.timeout_ms)?.unwrap_or(default.timeout),
        max_bytes: limits.max_bytes.unwrap_or(default.max_bytes),
        max_records: limits.max_records.unwrap_or(default.max_records),
        max_partition_records: limits.max_partition_records.unwrap_or(default.max_partition_records),
        max_record_bytes: limits.max_record_bytes.unwrap_or(default.max_record_bytes),
        drain: millis("delivery.drain_ms", delivery.drain_ms)?.unwrap_or(default.drain),
        rate: sections.replay.rate,
        on: policies(sections, has_dead_letters)?,
        retry: sections.retry.clone(),
        canary: sections.canary.as_ref().map(|canary| canary_part(canary, primary)).transpose()?,
        shadow: sections.shadow.as_ref().map(|shadow| shadow_part(shadow, primary)).transpose()?,
        source_headers: sections.sink.source_headers,
        keep_partition: sections.sink.keep_partition,
        model_wait: millis("model.wait_ms", model.wait_ms)?.unwrap_or(default.model_wait),
        max_failures: delivery.max_failures.unwrap_or(default.max_failures),
    })
}

/// Exactly once where both ends can, unless something else is said.
fn chosen_delivery(said: Option<Delivery>, from: &Place, to: &Place) -> anyhow::Result<Delivery> {
    let missing = match (from, to) {
        (Place::Topic(from), Place::Topic(to)) if from.brokers == to.brokers => None,
        (Place::Topic(_), Place::Topic(_)) => Some("both topics must be at the same brokers, named alike"),
        (Place::File(_), Place::File(_)) => None,
        _ => Some("records must go from topic to topic or from file to file"),
    };
    match (said, missing) {
        (Some(Delivery::ExactlyOnce), Some(why)) => {
            bail!("exactly_once is not possible from {from} to {to}: {why}")
        }
        (Some(delivery), _) => Ok(delivery),
        (None, None) => Ok(Delivery::ExactlyOnce),
        (None, Some(_)) => Ok(Delivery::AtLeastOnce),
    }
}

fn policies(sections: &Sections, has_dead_letters: bool) -> anyhow::Result<Policies> {
    let errors = &sections.errors;
    let default = if has_dead_letters { Policy::Dead } else { Policy::Fail };
    let common = errors.policy.unwrap_or(default);
    let policies = Policies {
        format: errors.format.unwrap_or(common),
        schema: errors.schema.unwrap_or(common),
        shape: errors.shape.unwrap_or(common),
        tombstone: errors.tombstone.unwrap_or(Policies::default().tombstone),
        oversize: errors.oversize.unwrap_or(common),
        model: errors.model.unwrap_or(common),
        // What may pass is no fault of the record: dead letters would fill up while servers are away.
        timeout: errors.timeout.or(errors.policy).unwrap_or(Policies::default().timeout),
        unavailable: errors.unavailable.or(errors.policy).unwrap_or(Policies::default().unavailable),
    };
    for class in stream::Class::ALL {
        match policies.of(class) {
            Policy::Dead if !has_dead_letters => {
                bail!("errors.{class} = 'dead' without dead letters: say where with --dead-letters")
            }
            Policy::Pass if class != stream::Class::Tombstone => {
                bail!("errors.{class} = 'pass', expected fail, skip, dead or emit: pass is for tombstones")
            }
            _ => {}
        }
    }
    Ok(policies)
}

fn canary_part(canary: &file::Canary, primary: &ModelSpec) -> anyhow::Result<stream::Canary> {
    let file::Canary { percent, path, model, version, label } = canary;
    part("canary", *percent, (path.as_deref(), model.as_deref()), (*version, label.as_ref()), primary)
}

fn shadow_part(shadow: &file::Shadow, primary: &ModelSpec) -> anyhow::Result<stream::Shadow> {
    let file::Shadow { percent, path, model, version, label, .. } = shadow;
    let part =
        part("shadow", *percent, (path.as_deref(), model.as_deref()), (*version, label.as_ref()), primary)?;
    let max_records = shadow.max_records.unwrap_or(NonZeroUsize::new(1000).expect("1000 is not zero"));
    Ok(stream::Shadow { part, max_records, max_bytes: shadow.max_bytes.unwrap_or(16 << 20) })
}

fn part(
    key: &str,
    percent: f64,
    (path, model): (Option<&Path>, Option<&str>),
    (version, label): (Option<i64>, Option<&String>),
    primary: &ModelSpec,
) -> anyhow::Result<stream::Canary> {
    let name = match (path, model) {
        (Some(_), Some(_)) => bail!("{key}.path and {key}.model are both set, expected one of them"),
        (Some(path), None) => Some(embedded::name_of(path).with_context(|| format!("{key}.path"))?),
        (None, Some(name)) => Some(ModelName::new(name).with_context(|| format!("{key}.model is empty"))?),
        (None, None) => None,
    };
    if path.is_some() && name.as_ref() == Some(&primary.name) {
        bail!("{key}.path names a model '{}' as model.path does; say model.name for that one", primary.name);
    }
    let is_other = name.is_some() || version.is_some() || label.is_some();
    if !is_other {
        bail!("[{key}] names neither a version nor another model");
    }
    Ok(stream::Canary { percent, model: name.map(|name| name.to_string()), version, label: label.cloned() })
}
