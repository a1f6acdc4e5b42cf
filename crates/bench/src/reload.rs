//! Memory over loads and unloads of models in this process: each engine for itself, and all of them in turn.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use salver_engine::Engine;
use serde_json::json;

use crate::Common;
use crate::engines::{Made, Places, Side, Through, make};
use crate::report::{Report, Table};
use crate::stats::digits;

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    places: Places,
    /// Loads of each part: of every engine for itself, and of all in turn
    #[arg(long, default_value_t = 200)]
    loads: usize,
    /// Models, loaded in turn
    #[arg(long, value_delimiter = ',', default_values_t = ["mobilenet_v2".to_owned(), "weather".to_owned(), "crayfish".to_owned()])]
    models: Vec<String>,
}

/// The aim of the issue: memory at the end by memory after the first tenth of the loads.
const AIM: f64 = 1.1;

/// The readings that are shown.
const TENTHS: [usize; 6] = [1, 2, 4, 6, 8, 10];

/// What one part took: its name, and bytes each time that every model was loaded on every engine of it.
struct Part {
    label: String,
    points: Vec<u64>,
}

impl Part {
    /// Bytes after so many tenths of the loads.
    fn after(&self, tenths: usize) -> u64 {
        let at = (self.points.len() * tenths).div_ceil(10).saturating_sub(1);
        self.points.get(at).copied().unwrap_or_default()
    }

    /// Memory at the end by memory after the first tenth.
    fn ratio(&self) -> f64 {
        self.after(10) as f64 / self.after(1).max(1) as f64
    }
}

/// Loads, and reports what memory did.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let models = make(common, &settings.places, &settings.models, &[1])?;
    let mut engines = Vec::new();
    for side in Side::ALL {
        match side.engine(&settings.places) {
            Ok(engine) if engine.is_present() => engines.push((side, engine)),
            Ok(_) => println!("{} is left out: it is not there", side.label),
            Err(error) => println!("{} is left out: {error:#}", side.label),
        }
    }
    let mut parts = Vec::new();
    for one in &engines {
        parts.push(part(one.0.label.to_owned(), std::slice::from_ref(one), &models, settings.loads)?);
    }
    parts.push(part("all in turn".to_owned(), &engines, &models, settings.loads)?);
    report(&parts, settings).publish(common)
}

fn part(label: String, engines: &[(Side, Arc<dyn Engine>)], models: &[Made], loads: usize) -> Result<Part> {
    let pairs: Vec<_> =
        models.iter().flat_map(|model| engines.iter().map(move |engine| (model, engine))).collect();
    ensure!(!pairs.is_empty(), "no models");
    let mut points = Vec::new();
    for _ in 0..loads.div_ceil(pairs.len()) {
        for &(model, (side, engine)) in &pairs {
            let place = || format!("{} on {}", model.name, side.label);
            let mut through = Through::load(&**engine, &model.saved_model, side.precision, NonZeroUsize::MIN)
                .with_context(place)?;
            through.run(&[model.input(1)?], 1).with_context(place)?;
        }
        points.push(resident()?);
    }
    let part = Part { label, points };
    let megabytes: Vec<u64> = TENTHS.iter().map(|&tenths| part.after(tenths) / 1_000_000).collect();
    println!("{}: {megabytes:?} MB, ratio {:.3}", part.label, part.ratio());
    Ok(part)
}

/// Resident memory in bytes.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

fn report(parts: &[Part], settings: &Settings) -> Report {
    let rows = parts.iter().map(|part| {
        let cells = TENTHS.iter().map(|&tenths| digits(part.after(tenths) as f64 / 1e6));
        [part.label.clone()].into_iter().chain(cells).chain([format!("{:.3}", part.ratio())]).collect()
    });
    Report {
        name: "reload",
        title: "Memory over loads and unloads",
        notes: vec![format!(
            "Models ({}) are loaded in turn, run once on one row and let go, {} times on each engine and as often on all of \
             them in turn, in one process. The aim is that memory at the end is at most \
             {AIM} times that after a tenth of the loads.",
            settings.models.join(", "),
            settings.loads
        )],
        tables: vec![Table {
            title: "Resident memory in MB after parts of the loads".into(),
            head: vec!["engine", "1/10", "2/10", "4/10", "6/10", "8/10", "10/10", "ratio"],
            rows: rows.collect(),
        }],
        figures: json!(
            parts
                .iter()
                .map(|part| json!({ "engine": part.label, "bytes": part.points, "ratio": part.ratio() }))
                .collect::<Vec<_>>()
        ),
    }
}
