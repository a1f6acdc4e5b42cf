//! `--dry-run`: what becomes of the first record, shown step by step. Nothing is written and no position is committed.

mod preview;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use console::style;
use salver_lifecycle::Clock;
use salver_predict::{Answer, Asker, Call};
use salver_records::{Event, Record, Slot, Source};
use salver_stream::{self as stream, About, Class, Mapping, Plan, Refused, Windows};
use salver_tensor::Tensor;
use tempfile::TempDir;

use self::preview::{content, tensor};
use super::config::Config;
use super::model::{self, Answering};
use super::place::Place;
use super::windows::Kept;
use super::wiring::{self, CalledOff, Mapped, Opened};

/// Records that are read to see whether they can be.
const MAX_RECORDS: usize = 100;

/// Bytes that are read for that.
const MAX_BYTES: usize = 32 << 20;

/// How long records are waited for.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Records that could not be used, of which the reasons are shown.
const MAX_SHOWN: usize = 5;

/// The width of names at the beginning of lines.
const NAME: usize = 8;

/// What became of the records that were looked at.
#[derive(Debug, Default)]
struct Seen {
    n_fit: usize,
    n_filtered: usize,
    n_tombstones: usize,
    n_gathering: usize,
    refused: Vec<(i64, Refused)>,
    /// The first that the model would be asked about.
    first: Option<Fit>,
}

/// A record that fits the model.
#[derive(Debug)]
struct Fit {
    record: Record,
    /// What the mapping made of it.
    mapped: stream::Mapped,
    /// What the model is asked: the same, with the whole window.
    asked: Vec<Tensor>,
}

/// Has what lies on disk made anew in a folder that goes with what is given: the stream's own may be in use, and is not to
/// be written.
///
/// # Errors
/// When the folder cannot be made.
pub(super) fn aside(config: &mut Config) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir().context("a folder for tables")?;
    let stores = config.joins.iter_mut().filter_map(|join| join.store.as_mut());
    for (at, store) in stores.enumerate() {
        *store = folder.path().join(at.to_string());
    }
    Ok(folder)
}

/// Reads the first records, asks the model about the first that fits, and describes all of it. Blocks.
///
/// # Errors
/// When there are no records, none fits, or the model does not answer.
pub(super) fn check(
    config: &Config,
    answering: &Answering,
    clock: &dyn Clock,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<String> {
    let mut opened = wiring::open_to_look(config, is_called_off)?;
    let mapped = wiring::map(config, answering, opened.columns.clone(), is_called_off)?;
    // A window is only full after so many records.
    let n_records =
        MAX_RECORDS.max(config.window.as_ref().map_or(0, |window| window.rows.get().saturating_mul(2)));
    let records = read(&mut *opened.source, n_records, clock)?;
    if records.is_empty() {
        bail!("{}: no records", config.from);
    }
    let plan = mapped.fields.plan(&mapped.signature).map_err(anyhow::Error::msg)?;
    let seen = look(config, &*plan, &mapped, &opened, records)?;
    let mut text = heading(config, answering, &mapped, &seen);
    let Some(first) = &seen.first else {
        text.push_str(&problems(&seen));
        bail!("no record fits\n{}", text.trim_end());
    };
    describe(&mut text, config, &*plan, &mapped, &opened, first, clock)?;
    text.push_str(&problems(&seen));
    Ok(text)
}

/// The first records.
fn read(source: &mut dyn Source, n_records: usize, clock: &dyn Clock) -> anyhow::Result<Vec<Record>> {
    let (mut records, mut events) = (Vec::new(), Vec::new());
    let (mut n_open, mut is_begun) = (0_usize, false);
    let deadline = clock.now() + MAX_WAIT;
    while records.len() < n_records && clock.now() < deadline {
        source.poll(Duration::from_millis(100), MAX_BYTES, &mut records, &mut events)?;
        for event in events.drain(..) {
            match event {
                Event::Assigned(assigned) => {
                    let slots: Vec<_> = assigned.iter().map(|one| one.slot).collect();
                    source.resume(&slots);
                    n_open += slots.len();
                    is_begun = true;
                }
                Event::End(_) => n_open = n_open.saturating_sub(1),
                Event::Revoking(slots) | Event::Lost(slots) => n_open = n_open.saturating_sub(slots.len()),
            }
        }
        if is_begun && n_open == 0 {
            break;
        }
    }
    records.truncate(n_records);
    Ok(records)
}

/// What the mapping says to each record.
fn look(
    config: &Config,
    plan: &dyn Plan,
    mapped: &Mapped,
    opened: &Opened,
    records: Vec<Record>,
) -> anyhow::Result<Seen> {
    let mut windows = config.window.as_ref().map(Kept::to_look).transpose()?;
    if let Some(windows) = &mut windows {
        let slots: BTreeSet<_> = records.iter().map(|record| record.slot.0).collect();
        for slot in slots {
            let partition = opened.source.partition(Slot(slot));
            let restored = windows.restoration(partition).map_err(anyhow::Error::msg)?(&|| true)?;
            windows.assign(partition, restored).map_err(anyhow::Error::msg)?;
        }
    }
    let mut seen = Seen::default();
    for record in records {
        if record.value.is_none() {
            seen.n_tombstones += 1;
            continue;
        }
        let offset = record.offset;
        match fit(plan, mapped, opened, windows.as_mut(), record) {
            Ok(Looked::Fits(fit)) => {
                seen.n_fit += 1;
                seen.first.get_or_insert(*fit);
            }
            Ok(Looked::Filtered) => seen.n_filtered += 1,
            Ok(Looked::Gathering) => seen.n_gathering += 1,
            Err(refused) => seen.refused.push((offset, refused)),
        }
    }
    Ok(seen)
}

enum Looked {
    Fits(Box<Fit>),
    Filtered,
    Gathering,
}

fn fit(
    plan: &dyn Plan,
    mapped: &Mapped,
    opened: &Opened,
    windows: Option<&mut Kept>,
    record: Record,
) -> Result<Looked, Refused> {
    let Some(read) = plan.read(&record)? else { return Ok(Looked::Filtered) };
    let mut asked = read.inputs.clone();
    if let Some(windows) = windows {
        let refuse = |message: String| Refused { class: Class::Format, message, is_passing: false };
        let position = mapped.signature.input_index(windows.input());
        let place = position.and_then(|position| asked.get_mut(position));
        let place = place.ok_or_else(|| refuse(format!("no input '{}'", windows.input())))?;
        let key = record.key.clone();
        let key = key.ok_or_else(|| refuse("no key, by which windows are told apart".to_owned()))?;
        let partition = opened.source.partition(record.slot).clone();
        let pushed = windows.push(&partition, &key, record.offset, record.timestamp_ms, place);
        match pushed.map_err(|error| refuse(format!("{error:?}")))?.window {
            Some(window) => *place = window,
            None => return Ok(Looked::Gathering),
        }
    }
    Ok(Looked::Fits(Box::new(Fit { record, mapped: read, asked })))
}

fn heading(config: &Config, answering: &Answering, mapped: &Mapped, seen: &Seen) -> String {
    let n_all = seen.n_fit + seen.n_filtered + seen.n_tombstones + seen.n_gathering + seen.refused.len();
    let mut counts = vec![format!("{} of the first {n_all} records fit", seen.n_fit)];
    for (n, what) in [
        (seen.refused.len(), "do not"),
        (seen.n_filtered, "are filtered"),
        (seen.n_gathering, "only fill windows"),
        (seen.n_tombstones, "are tombstones"),
    ] {
        if n > 0 {
            counts.push(format!("{n} {what}"));
        }
    }
    let mut text = String::new();
    named(&mut text, "from", &format!("{}   {}", config.from, counts.join(", ")));
    named(&mut text, "model", &format!("{}   signature {}", answering.describe(), mapped.signature.name()));
    let dead = config.dead.as_ref().map(|dead| format!("   dead letters to {dead}")).unwrap_or_default();
    named(&mut text, "to", &format!("{}   {}{dead}", config.to, config.delivery().replace('_', " ")));
    text.push('\n');
    text
}

/// The record, what the model is asked, what it answers, and what is written.
fn describe(
    text: &mut String,
    config: &Config,
    plan: &dyn Plan,
    mapped: &Mapped,
    opened: &Opened,
    first: &Fit,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let value = first.record.value.clone().unwrap_or_default();
    let place = opened.source.partition(first.record.slot);
    let key = first.record.key.as_deref().filter(|key| !key.is_empty());
    let key = key.map(|key| format!(", key {}", content(key, 40))).unwrap_or_default();
    named(text, "record", &format!("{place} at {}, {} bytes{key}", first.record.offset, value.len()));
    line(text, &content(&value, 400));
    let signature = &mapped.signature;
    named(text, "inputs", "");
    for (spec, tensor) in signature.inputs().iter().zip(&first.asked) {
        line(text, &self::tensor(&spec.name, tensor));
    }
    let asked = clock.now();
    let answer = ask(config, plan, mapped, first, asked)?;
    let took = clock.now().saturating_duration_since(asked);
    named(text, "outputs", &format!("after {}", super::view::duration(took)));
    for (position, tensor) in plan.outputs().iter().zip(&answer.outputs) {
        let name = signature.outputs().get(*position).map(|spec| spec.name.to_string()).unwrap_or_default();
        line(text, &self::tensor(&name, tensor));
    }
    let id = mapped.target.id();
    let version = answer.version.unwrap_or(id.version);
    let about = About { model: &id.name, version, latency: took };
    let written = plan.write(&first.record, &first.mapped, &answer.outputs, &about);
    let written =
        written.map_err(|refused| anyhow::anyhow!("the answer cannot be written: {}", refused.message))?;
    let value = written.value.unwrap_or_default();
    let kind = written.content_type.map(|kind| format!("{kind}, ")).unwrap_or_default();
    named(text, "answer", &format!("{kind}{} bytes", value.len()));
    if let (Place::File(_) | Place::Standard, Some(columns)) = (&config.to, &mapped.output_columns) {
        line(text, &style(columns.join(",")).dim().to_string());
    }
    line(text, &content(&value, 800));
    Ok(())
}

/// Asks the model about one record alone.
fn ask(
    config: &Config,
    plan: &dyn Plan,
    mapped: &Mapped,
    first: &Fit,
    now: Instant,
) -> anyhow::Result<Answer> {
    let target = std::sync::Arc::clone(&mapped.target);
    let call = Call {
        signature: std::sync::Arc::clone(&mapped.signature),
        inputs: first.asked.clone(),
        outputs: plan.outputs().to_vec(),
        deadline: Some(now + config.pipeline.timeout),
        asker: Asker::default(),
    };
    let name = target.id().name.clone();
    let answer = model::block_on(target.predict(call))?;
    answer.with_context(|| format!("the model '{name}' does not answer"))
}

fn problems(seen: &Seen) -> String {
    let mut text = String::new();
    if seen.refused.is_empty() {
        return text;
    }
    named(&mut text, "refused", &format!("{} records", seen.refused.len()));
    for (offset, refused) in seen.refused.iter().take(MAX_SHOWN) {
        line(&mut text, &format!("at {offset} ({}): {}", refused.class, refused.message));
    }
    if seen.refused.len() > MAX_SHOWN {
        line(&mut text, &format!("and {} more", seen.refused.len() - MAX_SHOWN));
    }
    text
}

/// A line that begins with a name.
fn named(text: &mut String, name: &str, rest: &str) {
    let name = style(format!("{name:<NAME$}")).bold();
    text.push_str(format!("{name}{rest}").trim_end());
    text.push('\n');
}

/// A line below a name.
fn line(text: &mut String, rest: &str) {
    text.push_str("  ");
    text.push_str(rest);
    text.push('\n');
}
