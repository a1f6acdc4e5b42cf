//! Start to first answer, size of the binary, memory at rest.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::Common;
use crate::blocking;
use crate::body::Interface;
use crate::load::Call;
use crate::report::{Report, Table};
use crate::server::{Server, tail};
use crate::stats::{digits, median, quantile};
use crate::subject::Subject;

const MEGABYTE: f64 = 1e6;

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// How often the server is started
    #[arg(long, default_value_t = 20)]
    starts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { starts: 20 }
    }
}

pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let subject = Subject::tiny(common)?;
    let folder = tempfile::tempdir()?;
    let (models, log) = (folder.path().join("models"), folder.path().join("log"));
    subject.install(&models, subject.name, 1)?;
    let call = Interface::RestJson.call(&subject, subject.name);
    let mut times = Vec::new();
    let mut idle = Vec::new();
    let mut own = Vec::new();
    let mut used = Vec::new();
    for start in 0..settings.starts {
        let begin = Instant::now();
        let server = Server::salver(&common.salver, &models, &[], &log)?;
        first_answer(&server, &call, &log)?;
        times.push(begin.elapsed());
        idle.push(server.memory()? as f64 / MEGABYTE);
        own.push(server.own_memory()? as f64 / MEGABYTE);
        if start < 3 {
            crate::load::closed_requests(&server, &call, 1_000)?;
            used.push(server.memory()? as f64 / MEGABYTE);
        }
    }
    let binary = std::fs::metadata(&common.salver)?.len() as f64 / MEGABYTE;
    report(&mut times, binary, [idle, own, used].map(median)).publish(common)
}

/// Tries without pause until a prediction comes back.
fn first_answer(server: &Server, call: &Call, log: &Path) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = blocking::post(server.rest, call);
        match answer {
            Ok(answer) if answer.status == 200 => return Ok(()),
            _ if Instant::now() > give_up => bail!("no answer after 20 s: {answer:?}\n{}", tail(log)),
            _ => std::thread::sleep(Duration::from_micros(300)),
        }
    }
}

fn report(times: &mut [Duration], binary: f64, [idle, own, used]: [f64; 3]) -> Report {
    let [p50, p90, longest] = [0.5, 0.9, 1.0].map(|part| quantile(times, part) / 1e3);
    let row = |label: &str, value: f64, aim: &str| vec![label.to_owned(), digits(value), aim.to_owned()];
    Report {
        name: "start",
        title: "Starting: time, size, memory",
        notes: vec![format!(
            "{} starts with one small model; the time runs from starting the process to the end of the first REST \
             prediction. The model's file is an hour old (one that has just changed is waited for until it is \
             complete). Memory is what is resident, after the first answer and after 1,000 more.",
            times.len()
        )],
        tables: vec![Table {
            title: "Start, size and memory".to_owned(),
            head: vec!["what", "value", "aim"],
            rows: vec![
                row("start to first answer, median, ms", p50, "100"),
                row("start to first answer, 90th percentile, ms", p90, ""),
                row("start to first answer, longest, ms", longest, ""),
                row("binary, MB", binary, "40"),
                row("idle memory, MB", idle, "30"),
                row("of that not the binary's file, MB", own, ""),
                row("memory after 1,000 requests, MB", used, ""),
            ],
        }],
        figures: json!({
            "start_ms": { "p50": p50, "p90": p90, "max": longest, "n": times.len() },
            "binary_megabytes": binary,
            "idle_megabytes": idle,
            "idle_own_megabytes": own,
            "used_megabytes": used,
        }),
    }
}
