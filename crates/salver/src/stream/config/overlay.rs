//! Flags as entries of the file.

use std::num::NonZeroUsize;

use anyhow::bail;
use toml::Value;

use crate::stream::flags::{self, StreamArgs};
use crate::stream::place::Place;

/// What flags say, by the keys that the file has for it.
pub(super) fn overlay(args: &StreamArgs, is_remote: bool) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut all = Vec::new();
    let mut text =
        |key: &'static str, value: Option<String>| all.extend(value.map(|value| (key, Value::from(value))));
    text("source.from", args.from.as_ref().map(Place::to_string));
    text("sink.to", args.to.as_ref().map(Place::to_string));
    text("sink.dead_letters", args.dead_letters.clone());
    text("source.group", args.group.clone());
    text("input.format", args.format.clone());
    text(if is_remote { "model.name" } else { "model.path" }, args.model.clone());
    text("model.signature", args.signature.clone());
    text("model.engine", args.engine.clone());
    text("model.precision", args.precision.clone());
    text("replay.from_offset", args.from_offset.clone());
    text("replay.from_time", args.from_time.clone());
    text("replay.until", args.until.clone());
    text("metrics.host", args.host.map(|host| host.to_string()));
    text(
        "delivery.mode",
        args.delivery.map(|delivery| match delivery {
            flags::Delivery::AtLeastOnce => "at_least_once".to_owned(),
            flags::Delivery::ExactlyOnce => "exactly_once".to_owned(),
        }),
    );
    let mut number =
        |key: &'static str, value: Option<i64>| all.extend(value.map(|value| (key, Value::from(value))));
    let size = |size: Option<NonZeroUsize>| size.map(|size| i64::try_from(size.get()).unwrap_or(i64::MAX));
    let whole = |n: Option<u64>| n.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    number("batch.max_batch", size(args.batch));
    number("batch.workers", size(args.workers));
    number("batch.in_flight", size(args.in_flight));
    number("model.timeout_ms", whole(args.timeout_ms));
    number("model.poll_seconds", whole(args.poll_seconds));
    number("delivery.commit_interval_ms", whole(args.commit_ms));
    number("delivery.grace_seconds", whole(args.grace));
    number("metrics.port", args.metrics_port.map(i64::from));
    all.extend(args.rate.map(|rate| ("replay.rate", Value::from(rate))));
    if let Some(version) = &args.model_version {
        all.push(match version.parse::<i64>() {
            Ok(number) => ("model.version", Value::from(number)),
            Err(_) if is_remote => ("model.label", Value::from(version.clone())),
            Err(_) => bail!("--model-version={version}, expected a number: labels are for --remote"),
        });
    }
    if !args.partitions.is_empty() {
        let partitions = args.partitions.iter().map(|&number| Value::from(i64::from(number))).collect();
        all.push(("replay.partitions", Value::Array(partitions)));
    }
    if let Some(hosts) = &args.remote {
        let hosts: Vec<_> = hosts.split(',').map(|host| Value::from(host.trim())).collect();
        all.push(("remote.hosts", Value::Array(hosts)));
    }
    Ok(all)
}
