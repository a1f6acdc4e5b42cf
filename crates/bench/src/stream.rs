//! `salver stream` on a real broker: Crayfish's benchmark beside Kafka Streams, latency at half load, the model here or on
//! servers, and a file of a million rows beside a script in Python.

mod crayfish;
mod file;
mod kafka;
mod latency;
mod paced;
mod proxy;
mod record;
mod remote;
mod run;
mod side;
mod stage;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::Common;
use crate::report::{Report, Table};
use crate::sections::{self, Dated, dated, section};
use stage::Stage;

/// What the program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// The address of a real broker; without it only `file` is measured
    #[arg(long)]
    bootstrap: Option<String>,
    /// The jar of the Kafka Streams program; without it only Salver is measured
    #[arg(long)]
    kafka_streams: Option<PathBuf>,
    /// The Java that runs it
    #[arg(long, default_value = "java")]
    java: PathBuf,
    /// A Python interpreter with onnx, onnxruntime, numpy, pandas and pyarrow; without it Python is not measured
    #[arg(long)]
    python: Option<PathBuf>,
    /// Folder with the engines' libraries, as NAME/VERSION
    #[arg(long, env = "SALVER_RUNTIMES")]
    runtimes: Option<PathBuf>,
    /// Sections to measure, all by default; of the others the report keeps what it has
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Section>,
    /// Only sides whose label holds this text
    #[arg(long, default_value = "")]
    case: String,
    /// Rounds in which all sides take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records in the topics that are read
    #[arg(long, default_value_t = 60_000)]
    records: usize,
    /// Rows of the file
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// One round of short runs, printed and not written: shows that the program works
    #[arg(long)]
    quick: bool,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    Crayfish,
    Latency,
    Remote,
    File,
}

const SECTIONS: [Section; 4] = [Section::Crayfish, Section::Latency, Section::Remote, Section::File];

/// All that was found, each section with when that was.
#[derive(Debug, Default, Serialize)]
struct Found {
    crayfish: Option<Dated<crayfish::Found>>,
    latency: Option<Dated<latency::Found>>,
    remote: Option<Dated<remote::Found>>,
    file: Option<Dated<file::Found>>,
}

impl Settings {
    fn shortened(&self) -> Settings {
        let mut settings = self.clone();
        if self.quick {
            settings.rounds = 1;
            settings.records = settings.records.min(12_000);
            settings.rows = settings.rows.min(100_000);
        }
        settings
    }

    fn wants(&self, section: Section) -> bool {
        let is_asked = self.only.is_empty() || self.only.contains(&section);
        if is_asked && self.bootstrap.is_none() && section != Section::File {
            println!("skipped: {section:?}, as there is no broker");
            return false;
        }
        is_asked
    }

    /// So many seconds, fewer in a quick run.
    fn seconds(&self, full: f64) -> std::time::Duration {
        std::time::Duration::from_secs_f64(if self.quick { full * 0.4 } else { full })
    }
}

/// Measures and reports.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let settings = settings.shortened();
    let mut found = match settings.quick {
        true => Found::default(),
        false => Found::kept(&common.out.join("stream.json")),
    };
    let stage = Stage::new(common, &settings)?;
    let at = dated();
    let mut errors = Vec::new();
    for section in SECTIONS.into_iter().filter(|section| settings.wants(*section)) {
        println!("\n-- {section:?}");
        if let Err(error) = found.measure(section, &stage, &at) {
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
            crayfish: section(figures, "crayfish"),
            latency: section(figures, "latency"),
            remote: section(figures, "remote"),
            file: section(figures, "file"),
        }
    }

    fn measure(&mut self, section: Section, stage: &Stage<'_>, at: &str) -> Result<()> {
        let at = at.to_owned();
        let crayfish = self.crayfish.as_ref().map(|dated| &dated.found);
        match section {
            Section::Crayfish => self.crayfish = Some(Dated { at, found: crayfish::measure(stage)? }),
            Section::Latency => self.latency = Some(Dated { at, found: latency::measure(stage, crayfish)? }),
            Section::Remote => self.remote = Some(Dated { at, found: remote::measure(stage)? }),
            Section::File => self.file = Some(Dated { at, found: file::measure(stage)? }),
        }
        Ok(())
    }

    fn report(&self, now: &str) -> Result<Report> {
        let mut notes = vec![
            "One machine holds everything: the broker (Apache Kafka in a Java machine of its own), the scorer, servers where \
             there are any, and this program. The sides of a comparison take turns within a round on the same records, and \
             figures are medians over the rounds. CPU is user and kernel time of the scorer's process, with its threads, as \
             the kernel tells it."
                .to_owned(),
        ];
        let mut tables = Vec::new();
        let mut add = |at: &str, section_notes: Vec<String>, section_tables: Vec<Table>| {
            notes.extend(section_notes);
            for mut table in section_tables {
                if at != now {
                    table.title += &format!(" (measured {at})");
                }
                tables.push(table);
            }
        };
        if let Some(Dated { at, found }) = &self.crayfish {
            add(at, found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.latency {
            add(at, found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.remote {
            add(at, found.notes(), found.tables());
        }
        if let Some(Dated { at, found }) = &self.file {
            add(at, found.notes(), found.tables());
        }
        Ok(Report {
            name: "stream",
            title: "Scoring streams",
            notes,
            tables,
            figures: serde_json::to_value(self)?,
        })
    }
}
