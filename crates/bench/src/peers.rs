//! Salver beside other servers: Triton with onnxruntime, and Flask with TensorFlow, on the same models with the same
//! client in one run.

mod answers;
mod measure;
mod poisson;
mod side;
mod tables;
pub(crate) mod tree;
mod triton;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use salver_tensor::Tensor;
use serde_json::Value;

use crate::Common;
use crate::blocking;
use crate::body::Interface;
use crate::engines::{Made, Places, make};
use crate::load::{Target, Transport};
use crate::subject::Subject;
use measure::{Asked, Results};
use side::{Side, Stage};
use triton::Triton;

/// What the program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    places: Places,
    /// The Python interpreter of an environment with Triton; without it Triton is left out
    #[arg(long)]
    triton_python: Option<PathBuf>,
    /// Models to measure: crayfish, mobilenet_v2, inception_v3
    #[arg(long, value_delimiter = ',', default_values_t = ["crayfish", "mobilenet_v2"].map(str::to_owned))]
    models: Vec<String>,
    /// Servers to measure; all that are installed without it
    #[arg(long, value_delimiter = ',', value_enum)]
    servers: Vec<Side>,
    /// Rounds; each measures every server once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests in flight in the closed loops
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    in_flight: Vec<usize>,
    /// Multiples of the closed-loop rate in the open loops; best in rising order
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 1.0, 2.0])]
    times: Vec<f64>,
    /// Interfaces of the open loops, by a part of their labels
    #[arg(long, value_delimiter = ',', default_values_t = ["gRPC", "rows"].map(str::to_owned))]
    open: Vec<String>,
    /// Length of a closed-loop window, in milliseconds
    #[arg(long, default_value_t = 1_500)]
    window_ms: u64,
    /// Length of an open-loop window, in milliseconds
    #[arg(long, default_value_t = 4_000)]
    open_ms: u64,
    /// How late an answer may be in the open loops, in milliseconds
    #[arg(long, default_value_t = 100)]
    deadline_ms: u64,
    /// Do not tell Salver of the deadline
    #[arg(long)]
    no_deadline: bool,
    /// An argument for `salver serve`; may be given several times
    #[arg(long = "salver-argument", allow_hyphen_values = true)]
    salver_arguments: Vec<String>,
    /// Folder for what the servers read and write
    #[arg(long, default_value = "target/bench-peers")]
    stage: PathBuf,
    /// One round of short windows
    #[arg(long)]
    quick: bool,
}

impl Settings {
    fn shortened(&self) -> Settings {
        let mut settings = self.clone();
        if self.quick {
            settings.rounds = 1;
            settings.window_ms = settings.window_ms.min(500);
            settings.open_ms = settings.open_ms.min(1_500);
        }
        settings
    }

    /// Whether this interface is measured in open loops.
    fn is_open(&self, interface: Interface) -> bool {
        self.open.iter().any(|part| interface.label().contains(part))
    }
}

/// Measures and reports.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let settings = settings.shortened();
    let made = make(common, &settings.places, &settings.models, &[1])?;
    let folder = std::path::absolute(&settings.stage)?;
    std::fs::create_dir_all(&folder)?;
    let triton = triton(&settings, &folder)?;
    let stage = Stage { common, settings: &settings, triton, folder };
    let sides: Vec<Side> = Side::ALL
        .into_iter()
        .filter(|side| settings.servers.is_empty() || settings.servers.contains(side))
        .filter(|side| *side != Side::Triton || stage.triton.is_some())
        .collect();
    ensure!(!sides.is_empty(), "none of the servers is installed");
    let mut results = Results::default();
    for model in &made {
        stage.install(model)?;
        let asked = ask(&stage, model)?;
        for round in 0..settings.rounds {
            println!("{}, round {} of {}", model.title, round + 1, settings.rounds);
            results.round(&stage, &asked, &sides, round);
        }
    }
    tables::report(&made, &sides, &settings, &results).publish(common)
}

fn triton(settings: &Settings, folder: &std::path::Path) -> Result<Option<Triton>> {
    let Some(python) = &settings.triton_python else {
        println!("skipped: Triton, as there is no --triton-python");
        return Ok(None);
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    Triton::find(python, &path, folder).map(Some)
}

/// What is asked of a model: one row. Salver tells what the ONNX file calls its input.
fn ask<'a>(stage: &Stage<'_>, model: &'a Made) -> Result<Asked<'a>> {
    let tree = stage.start(Side::Embedded, model)?;
    let answer = blocking::get(tree.address(Transport::Rest), &format!("/v2/models/{}", model.name))?;
    let about: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
    let input = about["inputs"][0]["name"].as_str().with_context(|| format!("an input in {about}"))?;
    let tensor: Tensor = model.input(1)?;
    let subject = Subject {
        name: model.name,
        label: model.title,
        model: Vec::new(),
        input: input.to_owned(),
        shape: tensor.shape().dims().to_vec(),
        values: tensor.to_slice::<f32>().context("an input of float32")?.to_vec(),
    };
    Ok(Asked { model, subject, expected: model.answer(1)? })
}
