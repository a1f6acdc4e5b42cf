//! Tables of last values that records are joined with, by key: filled before the first record is read, and followed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use salver_files::{FileSource, Form, SourceSettings};
use salver_mapping as mapping;
use salver_records::{Event, Record, Source};
use salver_steps::{Table, TableSettings};
use salver_stream::{Joined, Lookup};
use tracing::info;

use super::config::Config;
use super::file::Join;
use super::place::Place;
use super::wiring::{self, CalledOff, Key, csv_form};

/// Bytes of a file's records that are read at a time.
const AT_A_TIME: usize = 4 << 20;

/// The last values of a table: read by workers, written by the thread that follows its topic.
#[derive(Debug)]
pub(super) struct Last(RwLock<Followed>);

#[derive(Debug)]
struct Followed {
    table: Table,
    /// Why it is of the past, while it is.
    trouble: Option<String>,
}

impl Last {
    pub(super) fn new(table: Table) -> Last {
        Last(RwLock::new(Followed { table, trouble: None }))
    }

    /// # Errors
    /// When the table cannot be read, or is of the past: nothing is answered with that.
    pub(super) fn find(&self, key: &[u8]) -> Result<Option<Record>, String> {
        let followed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &followed.trouble {
            None => followed.table.get(key).map_err(|error| error.to_string()),
            Some(trouble) => Err(trouble.clone()),
        }
    }

    /// Takes a later record in.
    ///
    /// # Errors
    /// As [`Table::apply`].
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only topics are followed"))]
    pub(super) fn apply(&self, record: Record) -> Result<(), salver_steps::Error> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).table.apply(record)
    }

    /// Says why the table is of the past from now on, or that it is not any more. Gives whether that is another than before.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only topics are followed"))]
    pub(super) fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut followed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = followed.trouble != trouble;
        followed.trouble = trouble;
        is_other
    }
}

/// A table, and what is looked for in it.
struct ByKey {
    /// The record's own key without it.
    on: Option<Key>,
    last: Arc<Last>,
}

impl fmt::Debug for ByKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").field("on", &self.on).finish_non_exhaustive()
    }
}

impl Lookup for ByKey {
    fn find(&self, record: &Record) -> Result<Option<Record>, String> {
        let key = match (&self.on, &record.value) {
            (None, _) => record.key.clone(),
            (Some(on), Some(value)) => on.find(value),
            (Some(_), None) => None,
        };
        let Some(key) = key else { return Ok(None) };
        self.last.find(&key)
    }
}

/// Fills all tables from where they come from, and follows those that are topics. `columns` are those of the stream's records.
/// Blocks.
///
/// # Errors
/// When one cannot be read, is larger than it may be, or it is called off.
pub(super) fn open(
    config: &Config,
    columns: Option<&[String]>,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Vec<Joined>> {
    let open = |join: &Join| {
        one(config, join, columns, is_called_off).with_context(|| format!("[[join]] '{}'", join.name))
    };
    let all = config.joins.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    for (at, joined) in all.iter().enumerate() {
        if all.iter().take(at).any(|other| other.name == joined.name) {
            bail!("[[join]]: two tables are named '{}'", joined.name);
        }
    }
    Ok(all)
}

fn one(
    config: &Config,
    join: &Join,
    columns: Option<&[String]>,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Joined> {
    let on =
        join.on.as_deref().map(|name| Key::of(name, wiring::form_of_records(config), columns).context("on"));
    let on = on.transpose()?;
    let from = config.from.beside(&join.from).with_context(|| format!("from = '{}'", join.from))?;
    let default = TableSettings::of(from.to_string());
    let settings = TableSettings {
        dir: join.store.clone(),
        max_keys: join.max_keys.unwrap_or(default.max_keys),
        max_bytes: join.max_bytes.unwrap_or(default.max_bytes),
        ..default
    };
    let mut table = Table::open(&settings)?;
    let mut input = join.input.clone();
    let (columns, follow) = match &from {
        Place::Topic(topic) => (None, Some(wiring::fill(config, topic, &mut table, is_called_off)?)),
        Place::File(path) => (file(path, join, &mut input, &mut table)?, None),
        Place::Standard => bail!("from = '-', expected a topic or a file"),
    };
    info!("the table '{}' has {} keys, from {from}", join.name, table.n_keys());
    let last = Arc::new(Last::new(table));
    if let Some(follow) = follow {
        follow(Arc::clone(&last))?;
    }
    Ok(Joined { name: join.name.clone(), input, columns, records: Arc::new(ByKey { on, last }) })
}

/// How records lie in a table's file: as its name says, else by the format. Settings that say nothing are told.
fn form_of(path: &std::path::Path, input: &mut mapping::settings::InputSettings) -> Form {
    let named = Form::of(path).0;
    if let Some(Form::Csv { delimiter, .. }) = named
        && *input.format.get_or_insert(mapping::Format::Csv) == mapping::Format::Csv
        && input.csv.delimiter == ','
    {
        input.csv.delimiter = char::from(delimiter);
    }
    match (named, input.format) {
        (Some(Form::Csv { .. }) | None, Some(mapping::Format::Csv)) => csv_form(&input.csv),
        (named, _) => named.unwrap_or(Form::JsonLines),
    }
}

/// Takes in a file, whose later records replace earlier ones of their key. Gives the names of its columns, if it has some.
fn file(
    path: &std::path::Path,
    join: &Join,
    input: &mut mapping::settings::InputSettings,
    table: &mut Table,
) -> anyhow::Result<Option<Vec<String>>> {
    let name =
        join.key.as_deref().context("key is missing: the field of the file's records that is their key")?;
    let form = form_of(path, input);
    let settings = SourceSettings { form: Some(form), ..SourceSettings::of(vec![path.to_path_buf()]) };
    let mut source = FileSource::open(&settings, None)?;
    let columns = source.columns().map(<[String]>::to_vec);
    let key = Key::of(name, Some(form), columns.as_deref()).context("key")?;
    let (mut records, mut events) = (Vec::new(), Vec::new());
    let mut is_ended = false;
    while !is_ended {
        source.poll(Duration::from_millis(10), AT_A_TIME, &mut records, &mut events)?;
        for record in records.drain(..) {
            let found = record.value.as_deref().and_then(|value| key.find(value));
            let place = record.offset + 1;
            let found = found.with_context(|| format!("{}:{place}: no '{name}'", path.display()))?;
            table.apply(Record { key: Some(found), ..record })?;
        }
        for event in events.drain(..) {
            match event {
                Event::Assigned(assigned) => {
                    source.resume(&assigned.iter().map(|one| one.slot).collect::<Vec<_>>());
                }
                Event::End(_) => is_ended = true,
                Event::Revoking(_) | Event::Lost(_) => {}
            }
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use salver_records::Slot;

    use super::*;

    #[test]
    fn nothing_is_found_in_a_table_of_the_past() {
        let key = Some(Bytes::from_static(b"k"));
        let record = Record {
            slot: Slot(0),
            offset: 0,
            key,
            value: Some(Bytes::from_static(b"v")),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        let last = Arc::new(Last::new(Table::open(&TableSettings::of("t")).unwrap()));
        let by_key = ByKey { on: None, last: Arc::clone(&last) };
        last.apply(record.clone()).unwrap();
        assert_eq!(by_key.find(&record), Ok(Some(record.clone())));
        let trouble = || Some("not followed".to_owned());
        assert_eq!([last.set_trouble(trouble()), last.set_trouble(trouble())], [true, false]);
        assert_eq!(by_key.find(&record), Err("not followed".to_owned()));
        assert!(last.set_trouble(None));
        assert_eq!(by_key.find(&record), Ok(Some(record)));
    }
}
