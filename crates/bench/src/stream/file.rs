//! A file of a million rows scored from CSV to CSV by one command, killed and resumed, beside a script in Python.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::load::Target;
use crate::peers::tree::Tree;
use crate::report::Table;
use crate::sections::yes;
use crate::server::free_address;
use crate::stats::{digits, median};

const PROGRAM: &str = "crates/bench/python/stream.py";
/// Numeric columns that the model reads; one before them numbers the rows.
const COLUMNS: usize = 8;
/// The ways of the script.
const WAYS: [&str; 3] = ["csv", "pandas", "pyarrow"];
/// How far Salver's answers and Python's may lie apart, which may be written with fewer digits.
const TOLERANCE: f64 = 1e-5;
/// At which parts of the whole output a run is killed.
const KILLS: [f64; 2] = [0.3, 0.6];
const MOST: Duration = Duration::from_secs(180);

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    n_rows: usize,
    bytes: u64,
    sides: Vec<Measured>,
    killed: Option<Killed>,
    largest_difference: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    label: String,
    is_salver: bool,
    runs: Vec<Cost>,
}

/// Seconds of one whole run, with its start, and of CPU.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Killed {
    /// Shares of the output that were written when the run was killed.
    at: Vec<f64>,
    /// Seconds that the runs took together.
    seconds: f64,
    is_equal: bool,
}

/// Where things are.
struct Places<'a> {
    stage: &'a Stage<'a>,
    model: PathBuf,
    config: PathBuf,
    input: PathBuf,
}

pub(crate) fn measure(stage: &Stage<'_>) -> Result<Found> {
    let Some(python) = stage.settings.python.as_deref() else {
        bail!("there is no --python, which makes the model");
    };
    let places = Places::made(stage, python)?;
    let n_rows = stage.settings.rows;
    let mut found = Found { n_rows, bytes: fs::metadata(&places.input)?.len(), ..Found::default() };
    let mut engines = vec!["embedded"];
    if stage.has_onnxruntime() {
        engines.insert(0, "onnxruntime");
    }
    let whole = stage.path("whole.csv");
    let peer = stage.path("python.csv");
    for round in 0..stage.settings.rounds {
        println!("round {} of {}", round + 1, stage.settings.rounds);
        for engine in engines.iter().rev() {
            let label = format!("salver stream, {engine}");
            let cost = end(places.salver(engine, &whole, true)?)?;
            found.add(label, true, cost);
        }
        for way in WAYS {
            let cost = end(places.python(python, way, &peer)?)?;
            found.add(format!("Python, {way} and onnxruntime"), false, cost);
            if round == 0 {
                let difference = difference(&whole, &peer, n_rows).with_context(|| way.to_owned())?;
                ensure!(difference <= TOLERANCE, "Python with {way} answers otherwise, by {difference}");
                found.largest_difference = Some(found.largest_difference.unwrap_or(0.0).max(difference));
            }
        }
    }
    found.killed = Some(places.killed(engines[0], &whole)?);
    println!("{:?}", found.killed);
    for path in [&whole, &peer, &places.input] {
        fs::remove_file(path)?;
    }
    Ok(found)
}

impl Places<'_> {
    fn made<'a>(stage: &'a Stage<'a>, python: &Path) -> Result<Places<'a>> {
        let (model, config, input) =
            (stage.path("mlp.onnx"), stage.path("stream.toml"), stage.path("rows.csv"));
        let made =
            Command::new(python).arg(PROGRAM).args(["make", &COLUMNS.to_string()]).arg(&model).status()?;
        ensure!(made.success(), "{PROGRAM} has made no model");
        fs::write(
            &config,
            format!(
                "[[input.tensors]]\ninput = \"x\"\nfields = [\"x1..x{COLUMNS}\"]\n\n\
                 [[output.fields]]\noutput = \"y\"\nselect = [0]\n"
            ),
        )?;
        write_rows(&input, stage.settings.rows)?;
        Ok(Places { stage, model, config, input })
    }

    fn salver(&self, engine: &str, output: &Path, is_anew: bool) -> Result<Tree> {
        let mut command = Command::new(&self.stage.common.salver);
        command.args(["stream", "--progress=off", "--log_level=warn", "--engine", engine]);
        if let Some(runtimes) = &self.stage.settings.runtimes {
            command.arg("--runtime_dir").arg(runtimes);
        }
        command.arg("--config").arg(&self.config).arg("--model").arg(&self.model);
        command.arg("--from").arg(&self.input).arg("--to").arg(output);
        if is_anew {
            command.arg("--restart");
        }
        self.start(command)
    }

    fn python(&self, python: &Path, way: &str, output: &Path) -> Result<Tree> {
        let mut command = Command::new(python);
        command.arg(PROGRAM).args(["score", way]).args([&self.model, &self.input]).arg(output);
        self.start(command)
    }

    fn start(&self, command: Command) -> Result<Tree> {
        // No port is asked.
        let nowhere = free_address()?;
        Tree::start(command, nowhere, nowhere, &self.stage.path("log"))
    }

    /// A run that is killed at some parts of its output, and started again with the same command each time.
    fn killed(&self, engine: &str, whole: &Path) -> Result<Killed> {
        let output = self.stage.path("killed.csv");
        let size = fs::metadata(whole)?.len() as f64;
        let written = || fs::metadata(&output).map_or(0.0, |file| file.len() as f64) / size;
        let (begin, mut at) = (Instant::now(), Vec::new());
        for part in KILLS {
            let scorer = self.salver(engine, &output, false)?;
            while written() < part {
                ensure!(!scorer.has_ended(), "it ended before it was killed:\n{}", scorer.said());
                ensure!(begin.elapsed() < MOST, "not there after {MOST:?}:\n{}", scorer.said());
                std::thread::sleep(Duration::from_millis(1));
            }
            scorer.kill();
            at.push(written());
        }
        end(self.salver(engine, &output, false)?)?;
        let seconds = begin.elapsed().as_secs_f64();
        let is_equal = fs::read(&output)? == fs::read(whole)?;
        fs::remove_file(&output)?;
        Ok(Killed { at, seconds, is_equal })
    }
}

/// Waits for the end of a run.
fn end(mut run: Tree) -> Result<Cost> {
    while !run.has_ended() {
        ensure!(run.started.elapsed() < MOST, "not done after {MOST:?}:\n{}", run.said());
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = run.started.elapsed().as_secs_f64();
    let cpu_seconds = run.cpu()?.as_secs_f64();
    ensure!(run.has_succeeded()?, "it has failed:\n{}", run.said());
    Ok(Cost { seconds, cpu_seconds })
}

/// Rows of numbers with up to six digits, the same in each run.
fn write_rows(path: &Path, n: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    write!(file, "id")?;
    for column in 1..=COLUMNS {
        write!(file, ",x{column}")?;
    }
    writeln!(file)?;
    for row in 0..n as u64 {
        write!(file, "{row}")?;
        for column in 0..COLUMNS as u64 {
            let mixed = (row * COLUMNS as u64 + column + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let number = (mixed % 8_000_000) as f64 / 1e6 - 4.0;
            write!(file, ",{number}")?;
        }
        writeln!(file)?;
    }
    Ok(file.flush()?)
}

/// The largest difference of the last columns of two files, which have so many rows.
fn difference(one: &Path, other: &Path, n: usize) -> Result<f64> {
    let (one, other) = (fs::read_to_string(one)?, fs::read_to_string(other)?);
    let last = |line: &str| -> Result<f64> {
        let cell = line.rsplit(',').next().unwrap_or_default();
        cell.trim().parse().with_context(|| format!("the last column of {line:?}"))
    };
    let mut largest: f64 = 0.0;
    let mut n_rows = 0;
    for (one, other) in one.lines().skip(1).zip(other.lines().skip(1)) {
        largest = largest.max((last(one)? - last(other)?).abs());
        n_rows += 1;
    }
    ensure!(n_rows == n && one.lines().count() == n + 1, "{n_rows} rows, expected {n}");
    Ok(largest)
}

impl Found {
    fn add(&mut self, label: String, is_salver: bool, cost: Cost) {
        println!("{label}: {:.2} s, {:.2} s CPU", cost.seconds, cost.cpu_seconds);
        match self.sides.iter_mut().find(|side| side.label == label) {
            Some(side) => side.runs.push(cost),
            None => self.sides.push(Measured { label, is_salver, runs: vec![cost] }),
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let difference = self.largest_difference.map_or_else(
            || "Python's answers were not compared".to_owned(),
            |largest| format!("all rows of all sides were compared: they differ by {largest:.1e} at most"),
        );
        vec![format!(
            "A file: {} rows of {} columns ({} MB of CSV) are scored by a network of {COLUMNS}-32-16-1 and written with one column \
             more. Time is that of the whole command, with its start and its imports. The script in Python reads and scores \
             batches of 65,536 rows with onnxruntime, by the `csv` module, pandas, or pyarrow (whose reading has threads of its \
             own); {difference}.",
            digits(self.n_rows as f64),
            COLUMNS + 1,
            digits(self.bytes as f64 / 1e6),
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let fastest = |side: &&Measured| median(side.runs.iter().map(|run| run.seconds));
        let peers = self.sides.iter().filter(|side| !side.is_salver);
        let best = peers.map(|side| fastest(&side)).fold(f64::INFINITY, f64::min);
        let rows = self.sides.iter().map(|side| {
            let seconds = median(side.runs.iter().map(|run| run.seconds));
            let cpu = median(side.runs.iter().map(|run| run.cpu_seconds));
            let n = self.n_rows as f64;
            vec![
                side.label.clone(),
                digits(n / seconds),
                digits(seconds),
                digits(cpu * 1e6 / n),
                format!("{:.2}", best / seconds),
            ]
        });
        let mut tables = vec![Table {
            title: "A million rows from CSV to CSV".to_owned(),
            head: vec!["program", "rows /s", "seconds", "CPU µs a row", "times the fastest Python"],
            rows: rows.collect(),
        }];
        if let Some(killed) = &self.killed {
            let at: Vec<String> = killed.at.iter().map(|part| format!("{:.0} %", part * 100.0)).collect();
            tables.push(Table {
                title: "The same killed (SIGKILL) and started again".to_owned(),
                head: vec!["killed at", "seconds in all", "output equal to the byte"],
                rows: vec![vec![at.join(", "), digits(killed.seconds), yes(killed.is_equal)]],
            });
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_columns_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "other"].map(|name| folder.path().join(name));
        fs::write(&paths[0], "id,y\n0,0.5\n1,2\n").unwrap();
        fs::write(&paths[1], "id,y\r\n0,0.5\r\n1,2.25\r\n").unwrap();
        assert!((difference(&paths[0], &paths[1], 2).unwrap() - 0.25).abs() < 1e-12);
        assert!(difference(&paths[0], &paths[1], 3).is_err());
    }
}
