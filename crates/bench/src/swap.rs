//! Two models under a constant rate of requests while one rolls through versions and a third is broken on purpose.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use prost::Message;
use serde_json::{Value, json};

use crate::Common;
use crate::blocking;
use crate::body::Interface;
use crate::open_loop::{Sample, Stream, open_loop};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::{digits, quantile};
use crate::subject::Subject;
use salver_wire::proto::tensorflow::serving::{PredictResponse, model_spec::VersionChoice};

/// The aim: p99 during the swaps over the steady p99.
const AIM: f64 = 1.5;
/// How long after a swap its traces may last.
const AFTER: Duration = Duration::from_millis(250);
/// How long the status may take to show a new version.
const PATIENCE: Duration = Duration::from_secs(15);

const ROLLING: &str = "rolling";
const STEADY: &str = "steady";
const BROKEN: &str = "broken";

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Requests per second in all, over two models and two interfaces
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How many new versions the one model gets
    #[arg(long, default_value_t = 10)]
    versions: u32,
    /// Length of the quiet time before each new version, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    steady_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { rate: 200, versions: 10, steady_ms: 2_000 }
    }
}

/// The moments of one swap.
#[derive(Debug, Clone, Copy)]
struct Swap {
    /// The new version's folder was renamed into place.
    dropped: Instant,
    /// The status showed the new version available.
    available: Instant,
    /// The status showed no other version.
    settled: Instant,
}

pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let subject = Subject::tiny(common)?;
    let folder = tempfile::tempdir()?;
    let (models, log) = (folder.path().join("models"), folder.path().join("log"));
    for name in [ROLLING, STEADY, BROKEN] {
        subject.install(&models, name, 1)?;
    }
    let mut server = Server::salver(&common.salver, &models, &[], &log)?;
    server.wait_ready(&log)?;
    let streams = streams(&server, &subject)?;
    let stop = AtomicBool::new(false);
    let (samples, swaps) = std::thread::scope(|scope| {
        let load = scope.spawn(|| open_loop(&streams, settings.rate, &stop));
        let swaps = roll(&server, &subject, folder.path(), settings);
        stop.store(true, Ordering::Relaxed);
        (load.join(), swaps)
    });
    let samples = samples.map_err(|_| anyhow::anyhow!("the load panicked"))??;
    let swaps = swaps.with_context(|| crate::server::tail(&log))?;
    let good = blocking::post(server.rest, &Interface::RestJson.call(&subject, BROKEN))?;
    report(&samples, &swaps, settings, good.status == 200).publish(common)
}

fn streams(server: &Server, subject: &Subject) -> Result<Vec<Arc<Stream>>> {
    let calls = [
        (Interface::GrpcPacked, ROLLING),
        (Interface::RestJson, STEADY),
        (Interface::RestJson, ROLLING),
        (Interface::GrpcPacked, STEADY),
    ];
    calls
        .into_iter()
        .map(|(interface, name)| {
            let address = server.address(interface.transport());
            Ok(Arc::new(Stream::new(address, &interface.call(subject, name))?))
        })
        .collect()
}

/// Drops version after version in, each with a broken one of another model beside it.
fn roll(server: &Server, subject: &Subject, folder: &Path, settings: &Settings) -> Result<Vec<Swap>> {
    let quiet = Duration::from_millis(settings.steady_ms);
    watch(server, Instant::now() + quiet, |_| false)?;
    let mut swaps = Vec::new();
    for version in 2..settings.versions + 2 {
        watch(server, Instant::now() + quiet, |_| false)?;
        let dropped = Instant::now();
        drop_in(folder, ROLLING, version, &subject.model)?;
        drop_in(folder, BROKEN, version, b"\x08\x08 this is no model")?;
        let available = until(server, |states| states.contains(&(version, "AVAILABLE".to_owned())))
            .with_context(|| format!("version {version} did not become available"))?;
        let settled =
            until(server, |states| states.iter().all(|(number, state)| *number == version || state == "END"))
                .with_context(|| format!("the version before {version} did not end"))?;
        println!(
            "version {version}: available after {:.2} s, the one before it ended after {:.2} s",
            (available - dropped).as_secs_f64(),
            (settled - dropped).as_secs_f64()
        );
        swaps.push(Swap { dropped, available, settled });
    }
    watch(server, Instant::now() + quiet, |_| false)?;
    Ok(swaps)
}

/// Writes a version folder beside the models and renames it into place.
fn drop_in(folder: &Path, name: &str, version: u32, model: &[u8]) -> Result<()> {
    let staging = folder.join(format!("staging-{name}-{version}"));
    std::fs::create_dir_all(&staging)?;
    std::fs::write(staging.join("model.onnx"), model)?;
    std::fs::rename(&staging, folder.join("models").join(name).join(version.to_string()))?;
    Ok(())
}

type States = BTreeSet<(u32, String)>;

fn until(server: &Server, reached: impl Fn(&States) -> bool) -> Result<Instant> {
    match watch(server, Instant::now() + PATIENCE, reached)? {
        Some(moment) => Ok(moment),
        None => bail!("the status shows {:?}", states(server)?),
    }
}

/// Asks for the status every 20 ms, in quiet times as in swaps so that both carry the same load.
fn watch(server: &Server, end: Instant, reached: impl Fn(&States) -> bool) -> Result<Option<Instant>> {
    while Instant::now() < end {
        if reached(&states(server)?) {
            return Ok(Some(Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

fn states(server: &Server) -> Result<States> {
    let answer = blocking::get(server.rest, &format!("/v1/models/{ROLLING}"))?;
    let status: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
    let versions = status["model_version_status"].as_array().context("no model_version_status")?;
    let state = |version: &Value| {
        let number = version["version"].as_str()?.parse().ok()?;
        Some((number, version["state"].as_str()?.to_owned()))
    };
    Ok(versions.iter().filter_map(state).collect())
}

/// Which part of the run a moment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Steady,
    /// From the rename until the old version has ended.
    Roll,
    /// Around the moment at which requests move to the new version.
    Turn,
}

fn belongs(at: Instant, part: Part, swaps: &[Swap]) -> bool {
    let within = |from: Instant, to: Instant| from <= at && at <= to;
    match part {
        Part::Steady => !swaps.iter().any(|swap| within(swap.dropped, swap.settled + AFTER)),
        Part::Roll => swaps.iter().any(|swap| within(swap.dropped, swap.settled + AFTER)),
        Part::Turn => swaps.iter().any(|swap| within(swap.available - AFTER, swap.settled + AFTER)),
    }
}

/// n, p50, p99 and the longest, in microseconds, of the calls that pass the filter.
fn figures(samples: &[Sample], keep: impl Fn(&Sample) -> bool) -> [f64; 4] {
    let mut latencies: Vec<_> = samples.iter().filter(|sample| keep(sample)).map(|s| s.latency).collect();
    [
        latencies.len() as f64,
        quantile(&mut latencies, 0.5),
        quantile(&mut latencies, 0.99),
        quantile(&mut latencies, 1.0),
    ]
}

fn report(samples: &[Sample], swaps: &[Swap], settings: &Settings, good_serves: bool) -> Report {
    let failed: Vec<String> = samples
        .iter()
        .filter_map(|sample| sample.answer.as_ref().err())
        .map(|error| format!("{error:#}"))
        .collect();
    for error in failed.iter().take(5) {
        println!("failed: {error}");
    }
    let of = |part| figures(samples, |sample| belongs(sample.at, part, swaps));
    let (steady, roll, turn) = (of(Part::Steady), of(Part::Roll), of(Part::Turn));
    let ratio = roll[2] / steady[2];
    let versions = versions_seen(samples);
    let row = |label: &str, figures: [f64; 4]| {
        let mut row = vec![label.to_owned()];
        row.extend(figures.map(digits));
        row.push(format!("{:.2}", figures[2] / steady[2]));
        row
    };
    let mut rows = vec![row("steady", steady), row("during swaps", roll), row("around the turn", turn)];
    for (stream, label) in
        ["rolling, gRPC", "steady, REST", "rolling, REST", "steady, gRPC"].into_iter().enumerate()
    {
        let of = |part| figures(samples, |s| s.stream == stream && belongs(s.at, part, swaps));
        rows.push(row(&format!("{label}: steady"), of(Part::Steady)));
        rows.push(row(&format!("{label}: during swaps"), of(Part::Roll)));
    }
    Report {
        name: "swap",
        title: "Swapping versions under load",
        notes: vec![
            format!(
                "{} requests a second at fixed moments over two models, REST and gRPC, while one of them rolls \
                 through {} versions (folders renamed into place) and a third gets a broken version each time. \
                 Latency counts from the moment a request was meant to leave. During swaps: from the rename until \
                 the old version has ended, and {} ms more; around the turn: from {2} ms before the new version \
                 showed as available. Steady: all other times of the same run.",
                settings.rate,
                settings.versions,
                AFTER.as_millis()
            ),
            format!(
                "**{} of {} requests failed.** p99 during swaps is {ratio:.2} times the steady p99 (aim: {AIM}). \
                 Answers came from {} versions. The broken model's good version {}.",
                failed.len(),
                samples.len(),
                versions.len(),
                if good_serves { "went on serving" } else { "DID NOT go on serving" },
            ),
        ],
        tables: vec![Table {
            title: "Latency in µs".to_owned(),
            head: vec!["requests", "n", "p50", "p99", "longest", "p99 / steady p99"],
            rows,
        }],
        figures: json!({
            "requests": samples.len(),
            "failed": failed.len(),
            "versions": versions,
            "good_version_of_broken_model_serves": good_serves,
            "steady_micros": { "n": steady[0], "p50": steady[1], "p99": steady[2], "max": steady[3] },
            "swap_micros": { "n": roll[0], "p50": roll[1], "p99": roll[2], "max": roll[3] },
            "turn_micros": { "n": turn[0], "p50": turn[1], "p99": turn[2], "max": turn[3] },
            "ratio": ratio,
            "seconds_to_available": swaps.iter().map(|s| (s.available - s.dropped).as_secs_f64()).collect::<Vec<_>>(),
        }),
    }
}

/// The versions of the rolling model that gRPC answers name.
fn versions_seen(samples: &[Sample]) -> BTreeSet<i64> {
    let answers = samples.iter().filter(|sample| sample.stream == 0).filter_map(|s| s.answer.as_ref().ok());
    answers
        .filter_map(|answer| PredictResponse::decode(answer.get(5..)?).ok()?.model_spec?.version_choice)
        .filter_map(|choice| match choice {
            VersionChoice::Version(version) => Some(version),
            VersionChoice::VersionLabel(_) => None,
        })
        .collect()
}
