//! The file of `salver stream --config`, which says what flags say, and more. Flags are laid over it, key by key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use salver_mapping as mapping;
use salver_stream::{Delivery, NullKeys, Order, Policy, Retry};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, Deserializer};
use toml::{Spanned, Table, Value};

use super::config::Header;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The sections that say what is in records, which the mapping reads.
const OF_MAPPING: [&str; 3] = ["input", "output", "filter"];

/// Everything that can be said, as it was said: what is left out has no value yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sections {
    pub(super) source: Source,
    pub(super) sink: Sink,
    pub(super) model: Model,
    pub(super) remote: Remote,
    pub(super) batch: Batch,
    pub(super) delivery: DeliverySection,
    pub(super) errors: Errors,
    pub(super) retry: Retry,
    pub(super) window: Option<Window>,
    pub(super) join: Vec<Join>,
    pub(super) canary: Option<Canary>,
    pub(super) shadow: Option<Shadow>,
    pub(super) replay: Replay,
    pub(super) kafka: Kafka,
    pub(super) registry: Registry,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
}

/// `[source]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Source {
    pub(super) from: Option<String>,
    pub(super) group: Option<String>,
    /// Where a group begins that has no position yet: `earliest` or `latest`.
    pub(super) start: Option<Start>,
    /// A name that stays the same over restarts, so that they cause no rebalance.
    pub(super) instance: Option<String>,
    /// The field, or the column, of a file's records that is their key.
    pub(super) key: Option<String>,
    /// Whether a CSV file begins with the names of its columns.
    pub(super) header: Option<bool>,
    /// The names of the columns, where the file does not say them.
    pub(super) columns: Option<Vec<String>>,
}

/// Where a group begins that has no position yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    /// With the oldest record.
    Earliest,
    /// With the next one.
    Latest,
}

/// `[sink]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sink {
    pub(super) to: Option<String>,
    /// A place, the name of a topic beside that of `to`, or `none`.
    pub(super) dead_letters: Option<String>,
    /// Answers go to the partition of their record, rather than by key.
    pub(super) keep_partition: bool,
    /// Answers say in headers which record they answer.
    pub(super) source_headers: bool,
}

/// `[model]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Model {
    /// Where the model lies that runs in this process.
    pub(super) path: Option<PathBuf>,
    /// Its name: on the servers of `[remote]`, and in headers.
    pub(super) name: Option<String>,
    pub(super) version: Option<i64>,
    /// A label of the servers.
    pub(super) label: Option<String>,
    pub(super) signature: String,
    pub(super) timeout_ms: Option<f64>,
    /// How long the stream waits for a version that can be used when there is none any more.
    pub(super) wait_ms: Option<f64>,
    pub(super) engine: Option<String>,
    pub(super) precision: Option<String>,
    pub(super) threads: Option<NonZeroUsize>,
    pub(super) lanes: Option<NonZeroUsize>,
    pub(super) isolate: Option<bool>,
    pub(super) saved_model_tags: Option<String>,
    /// Seconds between two looks for versions; 0 looks once.
    pub(super) poll_seconds: Option<u64>,
    /// A file as `salver serve --config` takes it.
    pub(super) settings: Option<PathBuf>,
}

/// `[remote]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Remote {
    /// `HOST:PORT` of servers.
    pub(super) hosts: Vec<String>,
    /// `tfs-grpc`, `tfs-rest`, `oip-grpc` or `oip-rest`.
    pub(super) protocol: Option<String>,
    /// Connections to each server.
    pub(super) connections: Option<NonZeroUsize>,
    /// Threads that own the connections.
    pub(super) threads: Option<NonZeroUsize>,
    /// Servers that one call is sent to at most.
    pub(super) max_tries: Option<NonZeroUsize>,
    /// Retries as a share of calls.
    pub(super) retry_share: Option<f64>,
    pub(super) connect_timeout_ms: Option<f64>,
    /// How long one server may take for a call before another is asked; as long as the call may without it.
    pub(super) try_timeout_ms: Option<f64>,
    /// Certificates (PEM) of those who may vouch for servers; turns TLS on.
    pub(super) ca_file: Option<PathBuf>,
    /// The name in the servers' certificates, where it is not the host's.
    pub(super) server_name: Option<String>,
    /// This side's certificate and key (PEM), where servers want one.
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    /// What every request carries, by its name.
    pub(super) headers: BTreeMap<String, Header>,
}

/// `[batch]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Batch {
    /// Records, and rows, of one call at most.
    pub(super) max_batch: Option<NonZeroUsize>,
    pub(super) linger_ms: Option<f64>,
    pub(super) workers: Option<NonZeroUsize>,
    /// Calls that each worker has under way.
    pub(super) in_flight: Option<NonZeroUsize>,
    pub(super) pipeline_after_ms: Option<f64>,
}

/// `[delivery]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeliverySection {
    pub(super) mode: Option<Delivery>,
    pub(super) order: Option<Order>,
    pub(super) null_keys: Option<NullKeys>,
    pub(super) commit_interval_ms: Option<f64>,
    pub(super) max_transaction_bytes: Option<usize>,
    /// How long partitions may take that others shall have.
    pub(super) drain_ms: Option<f64>,
    /// How long the end may take.
    pub(super) grace_seconds: Option<f64>,
    /// How often writing may fail in a row.
    pub(super) max_failures: Option<u32>,
    /// What transactional ids begin with.
    pub(super) transactional_id: Option<String>,
}

/// `[errors]`: what becomes of records that have no answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Errors {
    /// For every class that is not named, but tombstones.
    pub(super) policy: Option<Policy>,
    pub(super) format: Option<Policy>,
    pub(super) schema: Option<Policy>,
    pub(super) shape: Option<Policy>,
    pub(super) tombstone: Option<Policy>,
    pub(super) oversize: Option<Policy>,
    pub(super) model: Option<Policy>,
    pub(super) timeout: Option<Policy>,
    pub(super) unavailable: Option<Policy>,
}

/// `[window]`: an input of the model that is made of several records of a key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// The input.
    pub(super) input: String,
    /// How many records.
    pub(super) rows: NonZeroUsize,
    /// Every so manieth record of a key is answered.
    pub(super) step: Option<NonZeroUsize>,
    /// What is given before there are enough.
    pub(super) partial: Option<Partial>,
    /// A key begins anew when it has no record for longer, by the records' own times.
    pub(super) ttl_seconds: Option<NonZeroU64>,
    /// The folder that windows are kept in; in memory without it.
    pub(super) store: Option<PathBuf>,
    /// The topic that changes are written to, or `none`.
    pub(super) changelog: Option<String>,
    /// Rows that are kept beyond a window, for records that come twice.
    pub(super) history: Option<usize>,
    /// Bytes that windows may take in memory.
    pub(super) max_bytes: Option<usize>,
    /// Keys that have windows at most.
    pub(super) max_keys: Option<u64>,
}

/// What is given while a key has fewer records than a window takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Partial {
    /// Nothing: the record gets no answer.
    Wait,
    /// Zeros before the first record.
    Zeros,
    /// The first record again and again before itself.
    First,
}

/// `[[join]]`: the last record of the same key of a compacted topic, or of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    /// What its fields are called in the mapping: `NAME.FIELD`.
    pub(super) name: String,
    /// A place, or the name of a topic beside that of the source.
    pub(super) from: String,
    /// The field, or the column, of the stream's records that is looked for; their key without it.
    pub(super) on: Option<String>,
    /// The field, or the column, of a file's records that is their key.
    pub(super) key: Option<String>,
    /// How its records are read.
    #[serde(default)]
    pub(super) input: mapping::settings::InputSettings,
    /// The folder that it is kept in; in memory without it.
    pub(super) store: Option<PathBuf>,
    /// Bytes that it may take in memory.
    pub(super) max_bytes: Option<usize>,
    /// Keys that it may have.
    pub(super) max_keys: Option<u64>,
}

/// `[canary]`: another version, or model, for some keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Canary {
    pub(super) percent: f64,
    /// Where another model lies.
    pub(super) path: Option<PathBuf>,
    /// The name of another model on the servers.
    pub(super) model: Option<String>,
    pub(super) version: Option<i64>,
    pub(super) label: Option<String>,
}

/// `[shadow]`: another version, or model, that answers as well, to a place of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shadow {
    pub(super) percent: f64,
    /// Where its answers go.
    pub(super) to: String,
    pub(super) path: Option<PathBuf>,
    pub(super) model: Option<String>,
    pub(super) version: Option<i64>,
    pub(super) label: Option<String>,
    pub(super) max_records: Option<NonZeroUsize>,
    pub(super) max_bytes: Option<usize>,
}

/// `[replay]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Replay {
    pub(super) from_offset: Option<String>,
    pub(super) from_time: Option<String>,
    pub(super) until: Option<String>,
    /// These partitions alone.
    pub(super) partitions: Option<Vec<i32>>,
    pub(super) rate: Option<f64>,
}

/// `[kafka]`: how brokers are reached, read and written, beyond what other sections say.
#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Kafka {
    pub(super) connection: salver_kafka::ConnectionSettings,
    pub(super) source: salver_kafka::SourceSettings,
    pub(super) sink: salver_kafka::SinkSettings,
}

/// `[registry]`: the schema registry.
#[cfg(feature = "kafka")]
pub(super) type Registry = Option<salver_kafka::RegistrySettings>;

/// What a build without Kafka reads over.
#[cfg(not(feature = "kafka"))]
pub(super) type Kafka = Table;

/// What a build without Kafka reads over.
#[cfg(not(feature = "kafka"))]
pub(super) type Registry = Option<Table>;

/// `[limits]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) max_bytes: Option<usize>,
    pub(super) max_records: Option<NonZeroUsize>,
    pub(super) max_partition_records: Option<NonZeroUsize>,
    pub(super) max_record_bytes: Option<usize>,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metrics {
    pub(super) port: Option<u16>,
    pub(super) host: Option<IpAddr>,
}

/// What was said, checked in its form.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) sections: Sections,
    pub(super) mapping: mapping::Settings,
    /// All of it, to be shown.
    pub(super) table: Table,
}

/// A file, as it lies there.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    table: Table,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, has a key that there is not or a value that does not fit; the text names the line.
    pub(super) fn read(path: &Path) -> anyhow::Result<File> {
        let context = || format!("--config={}", path.display());
        let size = std::fs::metadata(path).with_context(context)?.len();
        if size > MAX_BYTES {
            bail!("{}: {size} bytes, expected {MAX_BYTES} at most", context());
        }
        let text = std::fs::read_to_string(path).with_context(context)?;
        File::parse(&text).with_context(context)
    }

    /// The same of a text.
    ///
    /// # Errors
    /// As [`File::read`].
    pub(super) fn parse(text: &str) -> anyhow::Result<File> {
        let table = DeTable::parse(text).map_err(|error| crate::settings::plain(text, &error))?;
        let place = table.span();
        let (of_mapping, own): (DeTable<'_>, DeTable<'_>) =
            table.into_inner().into_iter().partition(|(key, _)| OF_MAPPING.contains(&key.get_ref().as_ref()));
        typed::<Sections>(text, Spanned::new(place.clone(), own))?;
        typed::<mapping::Settings>(text, Spanned::new(place, of_mapping))?;
        let table = toml::from_str(text).map_err(|error| crate::settings::plain(text, &error))?;
        Ok(File { table })
    }

    /// Whether the file names servers.
    pub(super) fn has_hosts(&self) -> bool {
        let hosts = self.table.get("remote").and_then(|remote| remote.get("hosts"));
        hosts.and_then(Value::as_array).is_some_and(|hosts| !hosts.is_empty())
    }

    /// What the file says and, before it, what flags say: `section.key`, or `section.part.key`, and the value.
    ///
    /// # Errors
    /// When a flag's value does not fit.
    pub(super) fn under(self, flags: Vec<(&'static str, Value)>) -> anyhow::Result<Said> {
        let mut table = self.table;
        for (path, value) in flags {
            lay(&mut table, path, value)?;
        }
        let (of_mapping, own): (Table, Table) =
            table.clone().into_iter().partition(|(key, _)| OF_MAPPING.contains(&key.as_str()));
        let sections = Sections::deserialize(own).map_err(|error| crate::settings::plain("", &error))?;
        let mapping =
            mapping::Settings::deserialize(of_mapping).map_err(|error| crate::settings::plain("", &error))?;
        Ok(Said { sections, mapping, table })
    }
}

fn typed<T: DeserializeOwned>(text: &str, table: Spanned<DeTable<'_>>) -> anyhow::Result<T> {
    T::deserialize(Deserializer::from(table)).map_err(|error| crate::settings::plain(text, &error))
}

/// Puts a value in its place, whatever was there.
fn lay(table: &mut Table, path: &str, value: Value) -> anyhow::Result<()> {
    let Some((section, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return Ok(());
    };
    let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(inner) = inner else { bail!("[{section}] is no table") };
    lay(inner, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_line() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", File::parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{text}: {error}");
        };
        check("[source]\nfrom = 'a'\nfrm = 'b'", "line 3: unknown field `frm`, expected one of");
        check("[sources]", "line 1: unknown field `sources`");
        check("[batch]\nmax_batch = 0", "line 2: invalid value: integer `0`, expected a positive number");
        check("\n[delivery]\nmode = 'twice'", "line 3: unknown variant `twice`");
        check("[input]\nformat = 'json'\nfoo = 1", "line 3: unknown field `foo`");
        check("[[filter]]\nfield = 'a'\n\n[[filter]]\nfeld = 'a'", "line 5: unknown field `feld`");
        check("[window]\nrows = 3", "line 1: missing field `input`");
        check("[source\n", "line 1: ");
    }

    #[test]
    fn flags_lie_over_the_file() {
        let file = File::parse(
            "[source]\nfrom = 'a'\ngroup = 'g'\n[input]\nformat = 'csv'\n[errors]\nformat = 'dead'\n[canary]\npercent = 5",
        );
        let flags = vec![
            ("source.from", Value::from("b")),
            ("batch.max_batch", Value::from(7)),
            ("input.format", Value::from("json")),
        ];
        let said = file.unwrap().under(flags).unwrap();
        let sections = &said.sections;
        assert_eq!(
            (sections.source.from.as_deref(), sections.source.group.as_deref()),
            (Some("b"), Some("g"))
        );
        assert_eq!(sections.batch.max_batch, NonZeroUsize::new(7));
        assert_eq!(said.mapping.input.format, Some(mapping::Format::Json));
        assert_eq!((sections.errors.format, sections.errors.shape), (Some(Policy::Dead), None));
        // What is shown says the same again.
        let again = File::parse(&toml::to_string_pretty(&said.table).unwrap()).unwrap();
        assert_eq!(again.table, said.table);
        let error = File::default().under(vec![("input.format", Value::from("xml"))]).unwrap_err();
        assert!(error.to_string().contains("unknown variant `xml`"), "{error}");
    }
}
