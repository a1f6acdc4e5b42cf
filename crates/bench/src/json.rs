//! CPU time from JSON text to tensor, in process: one picture as TensorFlow Serving rows.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use salver_wire::json::{Limits, decode_predict};
use serde_json::{Value, json};

use crate::Common;
use crate::body::Interface;
use crate::report::{Report, Table};
use crate::stats::{digits, median, thread_cpu};
use crate::subject::Subject;

/// The aim for the picture, in milliseconds.
const AIM: f64 = 4.0;
const ROUNDS: u32 = 15;
const RUNS: u32 = 5;

pub(crate) fn run(common: &Common) -> Result<()> {
    let subject = Subject::picture();
    let body = Interface::RestJson.call(&subject, subject.name).body;
    let model = salver_engine_rten::load_bytes(subject.model.clone())?;
    let signature = model.signatures().first().context("the model has no signature")?;
    let decode = || {
        let decoded = decode_predict(&body, |_| Ok(Arc::clone(signature)), Limits::default())?;
        anyhow::Ok(decoded.inputs.into_iter().next().context("an input")?)
    };
    let tensor = decode()?;
    ensure!(
        *tensor.bytes().context("numbers")? == subject.bytes(),
        "the tensor differs from what was written"
    );
    let (mut ours, mut values) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(time(&mut || decode().map(drop))?);
        values.push(time(&mut || tree(&body))?);
    }
    let ratio = median(values.iter().zip(&ours).map(|(value, ours)| value / ours));
    let (ours, values) = (median(ours), median(values));
    let row = |label: &str, milliseconds: f64| {
        let megabytes = body.len() as f64 / 1e6;
        vec![label.to_owned(), digits(milliseconds), digits(megabytes / milliseconds * 1e3)]
    };
    Report {
        name: "json",
        title: "JSON text to tensor",
        notes: vec![format!(
            "{} numbers in {} bytes of nested lists (one 224x224x3 picture) become a tensor, in process on one \
             thread; medians of {ROUNDS} rounds of {RUNS} runs, the sides alternating. The aim is {AIM} ms. The \
             other side is serde_json's `Value`, which is text to a tree of values and not yet a tensor: {ratio:.1} \
             times as long.",
            subject.values.len(),
            body.len(),
        )],
        tables: vec![Table {
            title: "One picture".to_owned(),
            head: vec!["reader", "ms", "MB/s"],
            rows: vec![row("Salver, text to tensor", ours), row("serde_json, text to Value", values)],
        }],
        figures: json!({ "bytes": body.len(), "salver_ms": ours, "serde_json_value_ms": values, "ratio": ratio }),
    }
    .publish(common)
}

/// Text to a tree, dropped again.
fn tree(body: &[u8]) -> Result<()> {
    std::hint::black_box(serde_json::from_slice::<Value>(body)?);
    Ok(())
}

/// CPU milliseconds of one run, of several.
fn time(run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let start = thread_cpu();
    for _ in 0..RUNS {
        run()?;
    }
    Ok((thread_cpu() - start).as_secs_f64() * 1e3 / f64::from(RUNS))
}
