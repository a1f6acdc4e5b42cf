//! Requests that are joined and refused: throughput at saturation, overload, mixed and bad requests, no wait at low load, and
//! what an overloaded model does to another.

mod drive;
mod idle;
mod inside;
mod mixed;
mod neighbours;
mod overload;
mod saturation;
mod stage;

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::Common;
use crate::engines::Places;
use crate::report::{Report, Table};
use crate::sections::{self, Dated, dated, section};
use stage::Stage;

/// What the program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    places: Places,
    /// Sections to measure, all by default; of the others the report keeps what it has
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Section>,
    /// Only cases whose label holds this text
    #[arg(long, default_value = "")]
    case: String,
    /// One round of short windows, printed and not written: shows that the program works
    #[arg(long)]
    quick: bool,
    /// Passed on to each `salver serve`
    #[arg(long = "salver-argument", allow_hyphen_values = true)]
    salver_arguments: Vec<String>,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    Saturation,
    Overload,
    Mixed,
    Idle,
    Neighbours,
}

/// All that was found, each section with when that was.
#[derive(Debug, Default, Serialize)]
struct Found {
    saturation: Option<Dated<saturation::Found>>,
    overload: Option<Dated<overload::Found>>,
    mixed: Option<Dated<mixed::Found>>,
    idle: Option<Dated<idle::Found>>,
    neighbours: Option<Dated<neighbours::Found>>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    is_quick: bool,
}

impl Effort {
    fn rounds(self, full: usize) -> usize {
        if self.is_quick { 1 } else { full }
    }

    /// A window of so many seconds.
    fn seconds(self, full: f64) -> std::time::Duration {
        std::time::Duration::from_secs_f64(if self.is_quick { (full * 0.3).max(1.0) } else { full })
    }
}

impl Settings {
    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// Measures and reports.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let mut found = match settings.quick {
        true => Found::default(),
        false => Found::kept(&common.out.join("batching.json")),
    };
    let effort = Effort { is_quick: settings.quick };
    let stage = Stage::new(common, settings)?;
    let at = dated();
    let mut errors = Vec::new();
    for section in
        [Section::Overload, Section::Neighbours, Section::Idle, Section::Mixed, Section::Saturation]
    {
        if !settings.wants(section) {
            continue;
        }
        println!("\n-- {section:?}");
        if let Err(error) = found.measure(section, &stage, effort, &at) {
            // What the other sections found is not lost.
            println!("{section:?} was not measured: {error:#}");
            errors.push(error.context(format!("{section:?} was not measured")));
        }
    }
    let common = Common { dry: common.dry || settings.quick, ..common.clone() };
    found.report(&at)?.publish(&common)?;
    errors.into_iter().next().map_or(Ok(()), Err)
}

impl Found {
    /// What an earlier run has written, as far as it has the present form.
    fn kept(path: &Path) -> Found {
        let figures = &sections::kept(path);
        Found {
            saturation: section(figures, "saturation"),
            overload: section(figures, "overload"),
            mixed: section(figures, "mixed"),
            idle: section(figures, "idle"),
            neighbours: section(figures, "neighbours"),
        }
    }

    fn measure(&mut self, section: Section, stage: &Stage<'_>, effort: Effort, at: &str) -> Result<()> {
        let at = at.to_owned();
        match section {
            Section::Saturation => {
                self.saturation = Some(Dated { at, found: saturation::measure(stage, effort)? });
            }
            Section::Overload => self.overload = Some(Dated { at, found: overload::measure(stage, effort)? }),
            Section::Mixed => self.mixed = Some(Dated { at, found: mixed::measure(stage, effort)? }),
            Section::Idle => self.idle = Some(Dated { at, found: idle::measure(stage, effort)? }),
            Section::Neighbours => {
                self.neighbours = Some(Dated { at, found: neighbours::measure(stage, effort)? });
            }
        }
        Ok(())
    }

    fn report(&self, now: &str) -> Result<Report> {
        let mut notes = vec![
            "Closed loop: so many requests are kept on their way. Open loop: requests leave at random moments (Poisson) \
             whatever the answers do, and latency counts from the moment a request was meant to leave. All requests \
             travel over gRPC (TensorFlow Serving's `Predict`), one row each. The sides of a comparison take turns \
             within a round, and figures are medians over the rounds. The generator is a process beside the server and \
             shares its processors; its own share is said where it matters."
                .to_owned(),
        ];
        let mut tables = Vec::new();
        let mut add = |at: Option<&str>, section_notes: Vec<String>, section_tables: Vec<Table>| {
            notes.extend(section_notes);
            for mut table in section_tables {
                if let Some(at) = at.filter(|at| *at != now) {
                    table.title += &format!(" (measured {at})");
                }
                tables.push(table);
            }
        };
        if let Some(Dated { at, found }) = &self.saturation {
            add(Some(at), found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.overload {
            add(Some(at), found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.mixed {
            add(Some(at), found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.idle {
            add(Some(at), found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.neighbours {
            add(Some(at), found.notes(), found.tables());
        }
        Ok(Report {
            name: "batching",
            title: "Batching and overload",
            notes,
            tables,
            figures: serde_json::to_value(self)?,
        })
    }
}
