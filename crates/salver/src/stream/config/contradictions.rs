//! What cannot be meant: settings that contradict each other, and such as nothing would look at.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use salver_mapping::Format;
use salver_stream::{Class, Policy};
use toml::Table;

use super::Config;
use crate::stream::file::Sections;
use crate::stream::place::Place;

/// Keys of `[model]` that are about running it.
const OF_RUNNING: [&str; 8] =
    ["engine", "precision", "threads", "lanes", "isolate", "saved_model_tags", "poll_seconds", "settings"];

/// Keys of `[kafka.source]` that the consumer protocol leaves to the brokers.
const OF_CLASSIC: [&str; 2] = ["session_timeout_ms", "assignment"];

/// Keys of `[kafka]` that other sections decide, and which.
const DECIDED: [(&str, &str, &str); 9] = [
    ("connection", "brokers", "source.from and sink.to"),
    ("source", "topics", "source.from"),
    ("source", "group", "source.group"),
    ("source", "instance", "source.instance"),
    ("source", "start", "source.start"),
    ("sink", "topic", "sink.to"),
    ("sink", "dead_letters", "sink.dead_letters"),
    ("sink", "changelog", "window.changelog"),
    ("sink", "transactions.id", "delivery.transactional_id"),
];

/// Refuses places of which one would be written over by another, or read again by the run that writes it.
///
/// # Errors
/// Names the places.
pub(super) fn check_places(
    from: &Place,
    to: &Place,
    dead: Option<&Place>,
    shadow: Option<&Place>,
) -> anyhow::Result<()> {
    if is_same(from, to) && *from != Place::Standard {
        bail!("records come from {from} and go to {to}, expected two places");
    }
    for (name, place) in [("dead letters", dead), ("answers of the shadow", shadow)] {
        if let Some(place) = place.filter(|place| is_same(place, to) || is_same(place, from)) {
            bail!("the {name} would go to {place}, where records come from or answers go to");
        }
    }
    if let (Some(dead), Some(shadow)) = (dead, shadow)
        && is_same(dead, shadow)
    {
        bail!("the dead letters and the answers of the shadow would go to {dead}, expected two places");
    }
    if let (Some(dead), Some(topic)) = (dead, to.topic())
        && dead.topic().is_none_or(|dead| dead.brokers != topic.brokers)
    {
        bail!("the dead letters would go to {dead}, expected a topic of the brokers that answers go to");
    }
    if let (Some(dead), None) = (dead, to.topic())
        && let Some(topic) = dead.topic()
    {
        bail!("the dead letters would go to the topic {}, expected a file, as answers do", topic.name);
    }
    if let (Some(Place::Standard), _) | (_, Some(Place::Standard)) = (dead, shadow) {
        bail!("standard output is for answers alone");
    }
    Ok(())
}

/// Whether two places are one: a topic by any of its brokers, a file by any of its names.
fn is_same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Topic(one), Place::Topic(other)) => {
            let is_shared = |broker: &str| other.brokers.split(',').any(|other| other == broker);
            one.name == other.name && one.brokers.split(',').any(is_shared)
        }
        (Place::File(one), Place::File(other)) => is_same_file(one, other),
        (one, other) => one == other,
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let is_linked = match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    is_linked || full(one) == full(other)
}

/// The full path, of a file that need not be there yet.
fn full(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize();
    match (path.canonicalize(), folder, path.file_name()) {
        (Ok(path), ..) => path,
        (Err(_), Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

/// Refuses keys that would be read and then not be looked at, by what was said beside them. `said` is all of it.
///
/// # Errors
/// Names the key and what it goes with.
pub(super) fn check_said(sections: &Sections, said: &Table) -> anyhow::Result<()> {
    let is_said = |section: &str, key: &str| {
        let section = said.get(section).and_then(|section| section.as_table());
        section.is_some_and(|section| section.contains_key(key))
    };
    if sections.remote.hosts.is_empty() {
        let remote = said.get("remote").and_then(|remote| remote.as_table());
        if let Some((key, _)) = remote.and_then(|remote| remote.iter().find(|(key, _)| *key != "hosts")) {
            bail!("remote.{key} without remote.hosts: no servers are asked");
        }
    } else {
        if let Some(key) = OF_RUNNING.into_iter().find(|key| is_said("model", key)) {
            bail!("model.{key} is for a model in this process, and remote.hosts says that servers run it");
        }
        if let Some(section) = ["canary", "shadow"].into_iter().find(|section| is_said(section, "path")) {
            bail!("{section}.path is for models in this process; name it by {section}.model");
        }
        let tls = ["server_name", "certificate_file", "key_file"];
        if let (None, Some(key)) =
            (&sections.remote.ca_file, tls.into_iter().find(|key| is_said("remote", key)))
        {
            bail!("remote.{key} without remote.ca_file, which turns TLS on");
        }
    }
    if let Some(share) = sections.remote.retry_share.filter(|share| !(0.0..=1.0).contains(share)) {
        bail!("remote.retry_share is {share}, expected 0 to 1");
    }
    if sections.metrics.host.is_some() && sections.metrics.port.is_none() {
        bail!("metrics.host without metrics.port (or --host without --metrics_port): nothing is opened");
    }
    check_kafka(said)?;
    check_stores(sections)
}

fn check_kafka(said: &Table) -> anyhow::Result<()> {
    for (section, key, decider) in DECIDED {
        let mut keys = ["kafka", section].into_iter().chain(key.split('.'));
        let first = keys.next().and_then(|key| said.get(key));
        if keys.try_fold(first, |value, key| Some(value?.get(key))).flatten().is_some() {
            bail!("kafka.{section}.{key} is said by {decider}");
        }
    }
    let source = said.get("kafka").and_then(|kafka| kafka.get("source"));
    let is_consumer = source.and_then(|source| source.get("protocol")?.as_str()) == Some("consumer");
    if let Some(key) = classic_keys(said).find(|_| is_consumer) {
        bail!(
            "kafka.source.{key} is for the classic protocol, and kafka.source.protocol is 'consumer', in which the brokers decide"
        );
    }
    Ok(())
}

/// The keys that were said and the consumer protocol has no use for.
pub(in crate::stream) fn classic_keys(said: &Table) -> impl Iterator<Item = &'static str> {
    let source = said.get("kafka").and_then(|kafka| kafka.get("source"));
    OF_CLASSIC.into_iter().filter(move |key| source.is_some_and(|source| source.get(key).is_some()))
}

fn check_stores(sections: &Sections) -> anyhow::Result<()> {
    let stores: Vec<_> =
        sections.join.iter().filter_map(|join| Some((&join.name, join.store.as_ref()?))).collect();
    for (at, (name, store)) in stores.iter().enumerate() {
        if let Some((other, _)) = stores.iter().take(at).find(|(_, other)| full(other) == full(store)) {
            bail!("join '{name}' has the store of '{other}', {}; each needs one of its own", store.display());
        }
    }
    Ok(())
}

/// Refuses what makes no sense with the places that were named.
///
/// # Errors
/// Names the key and the place.
pub(super) fn check_ends(config: &Config) -> anyhow::Result<()> {
    let Config { from, to, source, replay, .. } = config;
    let is_topic = from.topic().is_some();
    if !is_topic && replay.is_some() {
        bail!(
            "from where to where is said of topics; {from} is read from its beginning, or from where an earlier run left off"
        );
    }
    if replay.is_some() && (source.instance.is_some() || config.transactional_id.is_some()) {
        bail!(
            "source.instance and delivery.transactional_id are the stream's own; a replay under them would shut the stream out"
        );
    }
    if config.restart && from.file().is_none() {
        bail!("--restart is for files; use another group, or a replay, for topics");
    }
    for (key, is_said, is_for_topics) in [
        ("source.key", source.key.is_some(), false),
        ("source.header", source.header.is_some(), false),
        ("source.instance", source.instance.is_some(), true),
        ("source.start", source.start.is_some(), true),
    ] {
        match (is_said, is_topic, is_for_topics) {
            (true, true, false) => bail!("{key} is for files, and records come from {from}"),
            (true, false, true) => bail!("{key} is for topics, and records come from {from}"),
            _ => {}
        }
    }
    #[cfg(feature = "kafka")]
    check_drain(config)?;
    check_emitted(config)?;
    let changelog = config.window.as_ref().and_then(|window| window.changelog.as_deref());
    for (key, is_said) in [
        ("sink.keep_partition", config.pipeline.keep_partition),
        ("window.changelog", changelog.is_some_and(|name| name != "none")),
        ("delivery.transactional_id", config.transactional_id.is_some()),
    ] {
        if is_said && to.topic().is_none() {
            bail!("{key} is for topics, and answers go to {to}");
        }
    }
    Ok(())
}

/// Refuses to take longer over partitions that others shall have than the group waits.
#[cfg(feature = "kafka")]
fn check_drain(config: &Config) -> anyhow::Result<()> {
    let most = config.kafka.source.max_poll_interval_ms;
    let drain = config.pipeline.drain;
    if config.from.topic().is_some() && drain >= std::time::Duration::from_millis(most.into()) {
        bail!(
            "delivery.drain_ms is {}, expected less than kafka.source.max_poll_interval_ms, which is {most}: the group does not wait \
             longer for partitions to be given up",
            drain.as_millis()
        );
    }
    Ok(())
}

/// Refuses error records, which are JSON, among answers that are not: whoever reads those could not read these.
fn check_emitted(config: &Config) -> anyhow::Result<()> {
    let (input, output) = (config.mapping.input.format, config.mapping.output.format);
    let format = output.or(input.filter(|format| *format != Format::Image)).unwrap_or(Format::Json);
    let policies = &config.pipeline.on;
    let emitted = Class::ALL.into_iter().find(|class| policies.of(*class) == Policy::Emit);
    match emitted.filter(|_| format != Format::Json) {
        Some(class) => {
            bail!(
                "errors.{class} = 'emit' writes JSON among the answers, whose format is '{format}', expected json"
            )
        }
        None => Ok(()),
    }
}
