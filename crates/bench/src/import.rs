//! Imported models beside TensorFlow itself: time to the first answer, and time per prediction.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use salver_engine::{Engine, LoadOptions, Model, ModelSource, Session};
use salver_engine_graph::{GraphEngine, Parts};
use salver_engine_rten::RtenEngine;
use salver_tensor::{Shape, Tensor};
use serde_json::{Value, json};

use crate::Common;
use crate::report::{Report, Table};
use crate::stats::{digits, median};

/// What the program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// A Python interpreter with tensorflow, keras and tf2onnx
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Folder for the models that are made
    #[arg(long, default_value = "target/bench-import")]
    models: PathBuf,
    /// Rounds in which the sides alternate
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

const PEER: &str = "crates/bench/python/peer.py";
const WEATHER: [usize; 3] = [1, 120, 14];
const PICTURE: [usize; 4] = [1, 299, 299, 3];

/// The aim of the issue: this many times faster than TensorFlow.
const AIM: f64 = 20.0;

/// Runs both sides and writes the report.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let mut peer = Peer::start(&settings.python)?;
    println!("making the models ...");
    let made = peer.ask(&json!({ "make": settings.models }))?;
    let version = made["tensorflow"].as_str().unwrap_or("?").to_owned();
    let weather = weather(common, settings, &mut peer)?;
    let inception = inception(settings)?;
    let first = first_answers(settings)?;
    Report {
        name: "import",
        title: "Imported models beside TensorFlow",
        notes: vec![
            format!(
                "TensorFlow {version} runs each SavedModel's signature in its own Python process, with one thread for \
                 operators; the embedded engine runs the imported model in this process, on one thread. Medians of {} \
                 rounds, the sides alternating.",
                settings.rounds
            ),
            format!("The aim for the weather network (120 hours of 14 values, GRU of 32, batch 1) is {AIM} times."),
        ],
        tables: vec![weather.0, first.0, inception.0],
        figures: json!({ "weather": weather.1, "first": first.1, "inception": inception.1 }),
    }
    .publish(common)
}

/// The process that runs TensorFlow.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path) -> Result<Peer> {
        let mut child = Command::new(python)
            .arg(PEER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let input = child.stdin.take().context("the peer's standard input")?;
        let output = BufReader::new(child.stdout.take().context("the peer's standard output")?);
        Ok(Peer { child, input, output })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.input, "{request}")?;
        self.input.flush()?;
        let mut line = String::new();
        let n_read = self.output.read_line(&mut line)?;
        ensure!(n_read > 0, "TensorFlow's process ended");
        serde_json::from_str(&line).with_context(|| format!("TensorFlow's process said: {line}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn engine() -> GraphEngine {
    GraphEngine::new(Parts::new(
        RtenEngine::new().name(),
        salver_engine_rten::supports_in,
        salver_engine_rten::load_graph,
    ))
}

fn load(path: &Path) -> Result<Arc<dyn Model>> {
    let source = ModelSource::find(path)?;
    let options = LoadOptions::default();
    let onnx = RtenEngine::new();
    let engine: &dyn Engine = if onnx.supports(source.format) { &onnx } else { &engine() };
    Ok(engine.load(&source, &options)?)
}

/// One model, ready to be run again and again on the same input.
struct Side {
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
    signature: usize,
    inputs: [Tensor; 1],
    outputs: Vec<usize>,
}

impl Side {
    fn new(path: &Path, input: Tensor) -> Result<Side> {
        let model = load(path)?;
        let signatures = model.signatures();
        let at =
            signatures.iter().position(|signature| &**signature.name() == salver_engine::DEFAULT_SIGNATURE);
        let signature = at.unwrap_or(0);
        let outputs = (0..signatures[signature].outputs().len()).collect();
        let session = model.session()?;
        Ok(Side { model, session, signature, inputs: [input], outputs })
    }

    /// The median time of a run, in microseconds, and the first output's elements.
    fn time(&mut self, runs: usize) -> Result<(f64, Vec<f32>)> {
        let Side { model, session, signature, inputs, outputs } = self;
        let mut result = Err(anyhow::anyhow!("the engine did not run"));
        model.enter(NonZeroUsize::MIN, &mut || {
            result = time(&mut **session, *signature, inputs, outputs, runs)
        });
        result
    }
}

fn time(
    session: &mut dyn Session,
    signature: usize,
    inputs: &[Tensor],
    outputs: &[usize],
    runs: usize,
) -> Result<(f64, Vec<f32>)> {
    let first = session.run(signature, inputs, outputs)?;
    let answer = first.first().and_then(|tensor| tensor.to_slice::<f32>()).context("an answer of float32")?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        std::hint::black_box(session.run(signature, inputs, outputs)?);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok((median(times), answer.to_vec()))
}

/// Numbers that look like measurements: the same in every run.
fn input(shape: &[usize], file: &Path) -> Result<Tensor> {
    let shape = Shape::new(shape)?;
    let values: Vec<f32> = (0..shape.n_elements()).map(|at| (at as f32 * 0.731).sin()).collect();
    let tensor = Tensor::from_vec(shape, values)?;
    std::fs::write(file, tensor.bytes().context("numbers")?)?;
    Ok(tensor)
}

/// The weather network from each of its formats, against TensorFlow running it.
fn weather(common: &Common, settings: &Settings, peer: &mut Peer) -> Result<(Table, Value)> {
    let file = settings.models.join("weather.f32");
    let values = input(&WEATHER, &file)?;
    let made = settings.models.join("weather");
    let mut pairs = vec![
        ("Keras 3, .h5", settings.models.join("weather.h5"), made.clone()),
        ("Keras 3, SavedModel", made.clone(), made),
    ];
    if let Some(data) = &common.testdata {
        let old = data.join("jena/savedmodel/weather/2");
        pairs.push(("Keras 2.1, .h5", data.join("jena/keras/jena_temp_pred.h5"), old.clone()));
        pairs.push(("TensorFlow 1.7, SavedModel", old.clone(), old));
    }
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (label, ours, theirs) in pairs {
        let mut side = Side::new(&ours, values.clone()).with_context(|| ours.display().to_string())?;
        let request = json!({ "run": theirs, "inputs": file, "shape": WEATHER, "runs": 40 });
        let (mut own, mut other, mut difference) = (Vec::new(), Vec::new(), 0f64);
        for _ in 0..settings.rounds {
            let answer = peer.ask(&request)?;
            other.push(answer["microseconds"].as_f64().context("a time")?);
            let (time, output) = side.time(400)?;
            own.push(time);
            let expected = answer["output"].as_array().context("an answer")?;
            let pairs = output.iter().zip(expected.iter().filter_map(Value::as_f64));
            difference = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(difference, f64::max);
        }
        let ratio = median(other.iter().zip(&own).map(|(other, own)| other / own));
        let (own, other) = (median(own), median(other));
        figures.push(json!({ "model": label, "salver_us": own, "tensorflow_us": other, "ratio": ratio, "difference": difference }));
        rows.push(vec![
            label.to_owned(),
            digits(own),
            digits(other),
            digits(ratio),
            format!("{difference:.1e}"),
        ]);
    }
    let table = Table {
        title: "The weather network, one prediction".into(),
        head: vec!["model", "Salver, us", "TensorFlow, us", "times faster", "largest difference"],
        rows,
    };
    Ok((table, json!(figures)))
}

/// Inception v3 as imported, and as tf2onnx converts it, both on the embedded engine.
fn inception(settings: &Settings) -> Result<(Table, Value)> {
    let values = input(&PICTURE, &settings.models.join("picture.f32"))?;
    let mut imported = Side::new(&settings.models.join("inception_v3"), values.clone())?;
    let mut converted = Side::new(&settings.models.join("inception_v3.onnx"), values)?;
    let (mut ours, mut theirs, mut difference) = (Vec::new(), Vec::new(), 0f32);
    for _ in 0..settings.rounds {
        let (own, a) = imported.time(3)?;
        let (other, b) = converted.time(3)?;
        ours.push(own / 1e3);
        theirs.push(other / 1e3);
        difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(difference, f32::max);
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(own, other)| own / other));
    let (ours, theirs) = (median(ours), median(theirs));
    let table = Table {
        title: "Inception v3 on the embedded engine, one picture".into(),
        head: vec!["graph", "ms", "ratio", "largest difference"],
        rows: vec![
            vec!["imported here".into(), digits(ours), digits(ratio), format!("{difference:.1e}")],
            vec!["converted by tf2onnx".into(), digits(theirs), "1".into(), String::new()],
        ],
    };
    Ok((
        table,
        json!({ "imported_ms": ours, "tf2onnx_ms": theirs, "ratio": ratio, "difference": difference }),
    ))
}

/// Loading and first answer of Inception v3 as SavedModel, each in a fresh process.
fn first_answers(settings: &Settings) -> Result<(Table, Value)> {
    let path = settings.models.join("inception_v3");
    let file = settings.models.join("picture.f32");
    let shape = serde_json::to_string(&PICTURE)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds.min(5) {
        let own = std::env::current_exe()?;
        ours.push(times(Command::new(own).arg("first").arg(&path))?);
        let peer = [Path::new(PEER), Path::new("--first"), &path, &file, Path::new(&shape)];
        theirs.push(times(Command::new(&settings.python).args(peer))?);
    }
    let column = |all: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| median(all.iter().map(of));
    let row = |label: &str, all: &[(f64, f64)]| {
        let sum = column(all, |(load, first)| load + first);
        vec![label.into(), digits(column(all, |t| t.0)), digits(column(all, |t| t.1)), digits(sum)]
    };
    let sum = |(load, first): &(f64, f64)| load + first;
    let ratio = median(theirs.iter().zip(&ours).map(|(a, b)| sum(a) / sum(b)));
    let table = Table {
        title: format!("Inception v3 as SavedModel in a fresh process: {} times sooner", digits(ratio)),
        head: vec!["side", "load, ms", "first answer, ms", "both, ms"],
        rows: vec![row("Salver", &ours), row("TensorFlow", &theirs)],
    };
    Ok((table, json!({ "salver_ms": ours, "tensorflow_ms": theirs, "ratio": ratio })))
}

fn times(command: &mut Command) -> Result<(f64, f64)> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    let said: Value = serde_json::from_slice(&output.stdout).context("times in JSON")?;
    let get = |key: &str| said[key].as_f64().with_context(|| format!("{key} of {said}"));
    Ok((get("load_ms")?, get("first_ms")?))
}

/// The other half of [`first_answers`]: loads a model of pictures and gives the times to its first answer.
pub(crate) fn first(path: &Path) -> Result<()> {
    let shape = Shape::new(&PICTURE)?;
    let values: Vec<f32> = (0..shape.n_elements()).map(|at| (at as f32 * 0.731).sin()).collect();
    let tensor = Tensor::from_vec(shape, values)?;
    let start = Instant::now();
    let mut side = Side::new(path, tensor)?;
    let load = start.elapsed();
    side.time(0)?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{}",
        json!({ "load_ms": milliseconds(load), "first_ms": milliseconds(start.elapsed() - load) })
    );
    Ok(())
}
