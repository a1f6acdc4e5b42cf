//! From flags and the file to what is to be done. Nothing is opened or started here; models' paths are looked at for their names.

mod contradictions;
mod headers;
mod models;
mod overlay;
mod pipeline;
mod times;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use salver_mapping as mapping;
use salver_predict::{ModelName, ModelSpec};
use salver_stream::{self as stream, Delivery};
use toml::{Table, Value};

use super::bounds::{self, Bound};
use super::embedded;
use super::file::{self, File, Said, Sections, Start};
use super::flags::StreamArgs;
use super::place::Place;

#[cfg(feature = "kafka")]
pub(super) use contradictions::classic_keys;
pub(super) use headers::Value as Header;

/// Time that the end may take.
const GRACE: Duration = Duration::from_secs(30);

/// What stands for what is secret.
const NOT_SHOWN: &str = "(not shown)";

/// Everything that `salver stream` does, checked.
#[derive(Debug)]
#[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "some of it is about topics"))]
pub(super) struct Config {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) dead: Option<Place>,
    pub(super) shadow_to: Option<Place>,
    pub(super) source: file::Source,
    pub(super) group: String,
    /// Where a group begins that has not read yet.
    pub(super) start: Start,
    /// From where to where, if the run has an end of its own.
    pub(super) replay: Option<Replay>,
    pub(super) restart: bool,
    pub(super) models: Where,
    pub(super) primary: ModelSpec,
    pub(super) pipeline: stream::Config,
    pub(super) mapping: mapping::Settings,
    pub(super) window: Option<file::Window>,
    pub(super) joins: Vec<file::Join>,
    pub(super) transactional_id: Option<String>,
    pub(super) kafka: file::Kafka,
    pub(super) registry: file::Registry,
    pub(super) grace: Duration,
    pub(super) metrics: Option<SocketAddr>,
    /// All that was said, and what was chosen where nothing was: to be shown.
    pub(super) shown: Table,
}

/// A run over a part of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) from: Bound,
    pub(super) until: Bound,
    /// These partitions; all of them without.
    pub(super) partitions: Option<Vec<i32>>,
}

/// Who runs the model.
#[derive(Debug)]
pub(super) enum Where {
    /// This process.
    Here(Box<embedded::Settings>),
    /// Other servers.
    There(Box<salver_remote::Settings>),
}

impl Config {
    /// Whether the run ends by itself.
    pub(super) fn is_bounded(&self) -> bool {
        self.replay.is_some() || self.from.file().is_some()
    }

    /// All that was said and chosen, as a file. What is secret is left out.
    ///
    /// # Errors
    /// Never in practice: it is a table.
    pub(super) fn shown_text(&self) -> anyhow::Result<String> {
        let mut shown = self.shown.clone();
        hide(&mut shown);
        Ok(toml::to_string_pretty(&shown)?)
    }

    /// What the delivery is called in settings.
    pub(super) fn delivery(&self) -> &'static str {
        match self.pipeline.delivery {
            Delivery::AtLeastOnce => "at_least_once",
            Delivery::ExactlyOnce => "exactly_once",
        }
    }
}

/// Takes passwords, tokens and the values of headers out, and of librdkafka's properties those that hold such, or keys.
fn hide(table: &mut Table) {
    let headers = table.get_mut("remote").and_then(|remote| remote.get_mut("headers"));
    for (_, value) in headers.and_then(Value::as_table_mut).into_iter().flatten() {
        if value.is_str() {
            *value = Value::from(NOT_SHOWN);
        }
    }
    hide_within(table);
}

fn hide_within(table: &mut Table) {
    for (key, value) in table {
        let is_secret = match key.split_once('.') {
            None => matches!(key.as_str(), "password" | "token"),
            Some(_) => ["password", "secret", ".pem", "oauthbearer"].iter().any(|part| key.contains(part)),
        };
        match value {
            _ if is_secret => *value = Value::from(NOT_SHOWN),
            Value::Table(inner) => hide_within(inner),
            _ => {}
        }
    }
}

/// Checks flags and the file and puts them together.
///
/// # Errors
/// Names the flag or the key, its value and what was expected.
pub(super) fn resolve(args: &StreamArgs) -> anyhow::Result<Config> {
    let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let is_remote = args.remote.is_some() || file.has_hosts();
    let said = file.under(overlay::overlay(args, is_remote)?)?;
    of_said(args, said)
}

fn of_said(args: &StreamArgs, said: Said) -> anyhow::Result<Config> {
    let Said { sections, mapping, table } = said;
    contradictions::check_said(&sections, &table)?;
    let from = place("source.from", "--from", sections.source.from.as_deref())?;
    let to = place("sink.to", "--to", sections.sink.to.as_deref())?;
    let dead = dead_letters(&to, sections.sink.dead_letters.as_deref())?;
    let shadow_to =
        sections.shadow.as_ref().map(|shadow| to.beside(&shadow.to).context("shadow.to")).transpose()?;
    contradictions::check_places(&from, &to, dead.as_ref(), shadow_to.as_ref())?;
    let primary = models::primary(&sections)?;
    let replay = replay(&sections)?;
    let group = group(sections.source.group.as_deref(), &primary.name, &to, replay.as_ref());
    let pipeline = pipeline::pipeline(&sections, &from, &to, dead.is_some(), &primary)?;
    pipeline.check()?;
    let models = models::models(args, &sections, &pipeline, &primary)?;
    let grace = times::seconds("delivery.grace_seconds", sections.delivery.grace_seconds)?.unwrap_or(GRACE);
    let host = sections.metrics.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut config = Config {
        start: sections.source.start.unwrap_or(Start::Earliest),
        replay,
        restart: args.restart,
        group,
        metrics: sections.metrics.port.map(|port| SocketAddr::new(host, port)),
        transactional_id: sections.delivery.transactional_id.clone(),
        mapping: with_schemas(with_format(mapping, &from, &to), &to)?,
        window: sections.window,
        joins: joins_with_schemas(sections.join)?,
        kafka: sections.kafka,
        registry: sections.registry,
        source: sections.source,
        from,
        to,
        dead,
        shadow_to,
        models,
        primary,
        pipeline,
        grace,
        shown: table,
    };
    contradictions::check_ends(&config)?;
    show_choices(&mut config);
    Ok(config)
}

fn place(key: &str, flag: &str, text: Option<&str>) -> anyhow::Result<Place> {
    let text = text.with_context(|| format!("{flag} is missing (or {key} in the file of --config)"))?;
    text.parse().with_context(|| format!("{key} = '{text}'"))
}

fn dead_letters(to: &Place, text: Option<&str>) -> anyhow::Result<Option<Place>> {
    let beside = |text: &str| to.beside(text).with_context(|| format!("sink.dead_letters = '{text}'"));
    match (text, to) {
        (Some("none"), _) => Ok(None),
        (Some(text), _) => beside(text).map(Some),
        // Beside a file there is always room for another one; topics are made by people.
        (None, Place::File(path)) => Ok(Some(Place::File(dead_file(path)))),
        (None, _) => Ok(None),
    }
}

/// Where the dead letters of an output lie if nothing is said.
fn dead_file(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".dead.jsonl");
    name.into()
}

fn replay(sections: &Sections) -> anyhow::Result<Option<Replay>> {
    let said = &sections.replay;
    let from = match (&said.from_offset, &said.from_time) {
        (Some(_), Some(_)) => {
            bail!("replay.from_offset and replay.from_time are both set, expected one of them")
        }
        (Some(text), None) => Some(bounds::from_offset(text).context("replay.from_offset")?),
        (None, Some(text)) => Some(bounds::from_time(text).context("replay.from_time")?),
        (None, None) => None,
    };
    let until = said.until.as_deref().map(bounds::until).transpose().context("replay.until")?;
    if from.is_none() && until.is_none() && said.partitions.is_none() {
        return Ok(None);
    }
    let (from, until) = (from.unwrap_or(Bound::Earliest), until.unwrap_or(Bound::End));
    Ok(Some(Replay { from, until, partitions: said.partitions.clone() }))
}

/// The group that was named, or one by the model. A replay has one of its own in any case: in the stream's own group it would
/// move the stream's positions, and its windows would get the replay's rows.
fn group(said: Option<&str>, model: &ModelName, to: &Place, replay: Option<&Replay>) -> String {
    let group = said.map_or_else(|| own_group(model), str::to_owned);
    let Some(replay) = replay else { return group };
    // The same for every build, since groups outlive them.
    let hash = siphasher::sip::SipHasher24::new().hash(format!("{replay:?} {to}").as_bytes());
    format!("{group}-replay-{:08x}", hash >> 32)
}

fn own_group(model: &ModelName) -> String {
    format!("salver-{model}")
}

/// Files hold what their names say, unless something else is said.
fn with_format(mut mapping: mapping::Settings, from: &Place, to: &Place) -> mapping::Settings {
    let form = |place: &Place| place.file().and_then(|path| salver_files::Form::of(path).0);
    if let (None | Some(mapping::Format::Csv), Some(salver_files::Form::Csv { delimiter, .. })) =
        (mapping.input.format, form(from))
    {
        mapping.input.format = Some(mapping::Format::Csv);
        separate(&mut mapping, delimiter);
    } else if let Some(salver_files::Form::Csv { delimiter, .. }) = form(to)
        && mapping.input.format != Some(mapping::Format::Csv)
    {
        // The one dialect there is, is that of the answers then.
        separate(&mut mapping, delimiter);
    }
    if mapping.output.format.is_none() {
        mapping.output.format = form(to).map(|form| match form {
            salver_files::Form::Csv { .. } => mapping::Format::Csv,
            salver_files::Form::JsonLines => mapping::Format::Json,
        });
    }
    mapping
}

/// Takes what a name says for the separator, unless something else is said.
fn separate(mapping: &mut mapping::Settings, delimiter: u8) {
    if mapping.input.csv.delimiter == ',' {
        mapping.input.csv.delimiter = char::from(delimiter);
    }
}

/// Reads the files of schemas, and says of which topic the name of the output's subject is made.
fn with_schemas(mut mapping: mapping::Settings, to: &Place) -> anyhow::Result<mapping::Settings> {
    mapping.input.schema.load(&mut text_of).context("[input.schema]")?;
    mapping.output.schema.load(&mut text_of).context("[output.schema]")?;
    mapping.output.schema.topic = to.topic().map(|topic| topic.name.clone());
    Ok(mapping)
}

fn joins_with_schemas(mut joins: Vec<file::Join>) -> anyhow::Result<Vec<file::Join>> {
    for join in &mut joins {
        join.input.schema.load(&mut text_of).with_context(|| format!("join '{}'", join.name))?;
    }
    Ok(joins)
}

fn text_of(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Writes into what is shown what was chosen where nothing was said.
fn show_choices(config: &mut Config) {
    let delivery = config.delivery();
    let size = |n: NonZeroUsize| Value::from(i64::try_from(n.get()).unwrap_or(i64::MAX));
    let millis = |time: Duration| Value::from(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let pipeline = &config.pipeline;
    let mut choices = vec![
        ("delivery", "mode", Value::from(delivery)),
        ("delivery", "commit_interval_ms", millis(pipeline.commit_interval())),
        ("delivery", "grace_seconds", Value::from(config.grace.as_secs_f64())),
        ("model", "name", Value::from(config.primary.name.as_str())),
        ("model", "timeout_ms", millis(pipeline.timeout)),
        ("batch", "max_batch", size(pipeline.max_batch)),
        ("batch", "workers", size(pipeline.n_workers())),
        ("batch", "in_flight", size(pipeline.in_flight)),
    ];
    if config.from.topic().is_some() {
        // Of which the group of a replay is made, each time.
        choices.push(("source", "group", Value::from(own_group(&config.primary.name))));
    }
    if let Some(dead) = &config.dead {
        choices.push(("sink", "dead_letters", Value::from(dead.to_string())));
    }
    for (section, key, value) in choices {
        let section = config.shown.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(section) = section {
            section.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests;
