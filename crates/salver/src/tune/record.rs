//! Writing the choice beside the model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use salver_engine::Precision;
use salver_tune::{Footprint, Measured, Share};
use toml::Value;

use super::candidates::Ranges;
use super::report::Outcome;
use crate::settings::{self, Settings};

const HEAD: &str = "Written by `salver tune`, which overwrites what it measures: engine, precision, threads, lanes, batches.\n\
                    To have it for all versions of a model, move it to the folder around them.";

/// Writes the settings of the choice, keeping what a person said of other things; gives back where. Nothing is written when
/// there is no choice.
///
/// # Errors
/// When what is there cannot be read, or nothing can be written.
pub(super) fn write(
    place: &Path,
    outcome: &Outcome<'_>,
    ranges: Option<&Ranges>,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(choice) = outcome.choice() else { return Ok(None) };
    let path = settings::beside(place);
    let known = settings::read(&path)?.unwrap_or_default();
    let ranges = match choice.precision {
        Precision::Int8 => Some(keep_ranges(place, ranges)?),
        _ => None,
    };
    let settings = Settings {
        engine: Some(choice.engine.to_string()),
        precision: Some(choice.precision.name().to_owned()),
        ranges,
        threads: Some(choice.sharing.threads),
        lanes: Some(choice.sharing.lanes),
        max_batch_size: Some(choice.batch),
        tuned: tuned(outcome, choice),
        ..known
    };
    settings::write(&path, &settings, HEAD)?;
    Ok(Some(path))
}

/// Puts the ranges beside the settings, which name them without a folder.
fn keep_ranges(place: &Path, ranges: Option<&Ranges>) -> anyhow::Result<PathBuf> {
    let made = ranges.and_then(Ranges::made).context("the ranges for int8 are gone")?;
    let path = settings::ranges_beside(place);
    std::fs::copy(made, &path).with_context(|| path.display().to_string())?;
    path.file_name().map(PathBuf::from).with_context(|| format!("{}: not a file name", path.display()))
}

/// The figures of the choice, for people.
fn tuned(outcome: &Outcome<'_>, choice: &Measured) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    let mut text = |name: &str, value: String| facts.insert(name.to_owned(), Value::String(value));
    text("salver", env!("CARGO_PKG_VERSION").to_owned());
    if let Some(library) = &outcome.library {
        text("library", library.clone());
    }
    text("processor", outcome.processor.clone());
    text("requests", outcome.origin.to_string());
    text("reference", format!("{} f32", outcome.reference().engine));
    let top_1 = choice.agreement.top_1().map(Share::fraction);
    let relation = outcome.relation();
    let millis = |time: std::time::Duration| Some(time.as_secs_f64() * 1e3);
    let numbers = [
        ("one_caller_ms", millis(choice.one_caller)),
        ("p50_ms", millis(choice.p50)),
        ("p99_ms", millis(choice.p99)),
        ("rows_per_second", Some(choice.rows_per_second)),
        ("cpu_ms_per_row", millis(choice.cpu_per_row)),
        ("max_absolute_difference", Some(choice.agreement.max_absolute())),
        ("max_relative_difference", Some(choice.agreement.max_relative())),
        ("top_1_agreement", top_1),
        ("times_faster_for_one_caller", relation.map(|relation| relation.latency)),
        ("times_more_rows_per_second", relation.map(|relation| relation.throughput)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            facts.insert(name.to_owned(), Value::Float(rounded(number)));
        }
    }
    let counts = [
        ("processors", Some(outcome.n_processors as u64)),
        ("rows_compared", Some(choice.agreement.n_rows as u64)),
        ("memory_bytes", choice.footprint.map(Footprint::total)),
    ];
    for (name, count) in counts {
        if let Some(count) = count.and_then(|count| i64::try_from(count).ok()) {
            facts.insert(name.to_owned(), Value::Integer(count));
        }
    }
    if let Some(signature) = &outcome.signature {
        facts.insert("signature".to_owned(), Value::String(signature.to_string()));
        facts.insert("seconds_by_rows".to_owned(), Value::Table(seconds_by_rows(outcome, choice)));
    }
    facts
}

/// What runs of the choice cost, by their rows: `salver serve` plans batches by it until it knows better.
fn seconds_by_rows(outcome: &Outcome<'_>, choice: &Measured) -> toml::Table {
    let is_choice = |one: &&Measured| {
        (one.candidate, one.precision, one.sharing) == (choice.candidate, choice.precision, choice.sharing)
    };
    let entry = |one: &Measured| (one.batch.to_string(), Value::Float(rounded(one.p50.as_secs_f64())));
    outcome.report.measured.iter().filter(is_choice).map(entry).collect()
}

/// Four digits: more would be noise.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}
