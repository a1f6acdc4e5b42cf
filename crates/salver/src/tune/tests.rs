use std::sync::Arc;

use clap::Parser;
use salver_tune::{Agreement, CandidateReport, Failure, Footprint, Measured, OutputAgreement, Report, Share};

use super::report::Outcome;
use super::requests::Origin;
use super::*;
use crate::flags::{Cli, Command};
use crate::settings;

fn n(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn args(line: &[&str]) -> TuneArgs {
    let line = ["salver", "tune"].iter().chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Tune(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn agreement(max_absolute: f64, n_same: usize) -> Arc<Agreement> {
    let top_1 = Some(Share { n: n_same, of: 32 });
    let (signature, output) = ("serving_default".into(), "y".into());
    let output = OutputAgreement { signature, output, scale: 1.0, max_absolute, equal: None, top_1 };
    Arc::new(Agreement { outputs: vec![output], n_rows: 32 })
}

fn candidate(engine: &str, precision: Precision, agreement: Option<Arc<Agreement>>) -> CandidateReport {
    CandidateReport {
        engine: engine.into(),
        precision,
        agreement,
        one_caller: Some(Duration::from_millis(80)),
        failure: None,
        refusal: None,
        times_slower: None,
    }
}

fn measured(candidate: usize, one: &CandidateReport, batch: usize, millis: u64, speed: f64) -> Measured {
    Measured {
        candidate,
        engine: Arc::clone(&one.engine),
        precision: one.precision,
        sharing: Sharing::ONE,
        batch: n(batch),
        one_caller: Duration::from_millis(millis),
        p50: Duration::from_millis(millis * batch as u64),
        p99: Duration::from_millis(millis * batch as u64 + 1),
        rows_per_second: speed,
        cpu_per_row: Duration::from_millis(millis),
        footprint: Some(Footprint { model: 200_000_000, files: 93_400_000 }),
        load_time: Duration::from_millis(300),
        n_runs: 12,
        n_rounds: 5,
        agreement: one.agreement.clone().unwrap_or_default(),
    }
}

/// TensorFlow, the embedded engine that is fair, one that is refused, one that is too slow and one that fails.
fn report() -> Report {
    let refused = CandidateReport {
        refusal: Some("output 'y' differs by 3.70e-1 of its scale, allowed is 5.00e-2".into()),
        ..candidate("openvino", Precision::Bf16, Some(agreement(0.37, 22)))
    };
    let slow = CandidateReport {
        times_slower: Some(3.42),
        ..candidate("onnxruntime", Precision::F32, Some(agreement(0.0, 32)))
    };
    let failed = CandidateReport {
        failure: Some("node 'a': no operator B".into()),
        ..candidate("other", Precision::F32, None)
    };
    let candidates = vec![
        candidate("embedded", Precision::F32, Some(agreement(5.9e-5, 32))),
        candidate("tensorflow", Precision::F32, Some(agreement(0.0, 32))),
        refused,
        slow,
        failed,
    ];
    let mut rows = Vec::new();
    for (at, millis, speed) in [(0, 40, 24.6), (1, 80, 12.0), (2, 10, 96.0), (3, 137, 7.3)] {
        rows.push(measured(at, &candidates[at], 1, millis, speed));
        rows.push(measured(at, &candidates[at], 8, millis, speed * 1.02));
    }
    let failure = Failure {
        candidate: 1,
        engine: "tensorflow".into(),
        precision: Precision::F32,
        sharing: Some(Sharing::ONE),
        batch: Some(n(32)),
        reason: "out of memory".into(),
    };
    Report {
        reference: 1,
        candidates,
        measured: rows,
        choice: Some(0),
        failures: vec![failure],
        notes: vec!["something to know".into()],
    }
}

fn with_outcome<T>(report: &Report, body: impl FnOnce(&Outcome<'_>) -> T) -> T {
    let goal = Goal { aim: Aim::Balanced, allowed: vec![Precision::Bf16], tolerance: Tolerance::default() };
    body(&Outcome {
        path: "models/<net>/1".to_owned(),
        processor: "A & B processor".to_owned(),
        n_processors: 2,
        library: None,
        goal: &goal,
        origin: Origin::Recorded,
        signature: Some("s".into()),
        report,
    })
}

#[test]
fn flags_have_their_meaning() {
    let args = args(&[
        "net",
        "--engines",
        "embedded,openvino",
        "--allow",
        "int8,bf16",
        "--tolerance",
        "0.1",
        "--goal",
        "latency",
        "--batch-sizes",
        "16,4",
        "--max-threads",
        "1",
        "--budget",
        "5",
    ]);
    assert_eq!(args.engines, ["embedded", "openvino"]);
    let goal = args.goal();
    assert_eq!((goal.aim, goal.allowed), (Aim::Latency, vec![Precision::Bf16, Precision::Int8]));
    assert_eq!((goal.tolerance.reduced_relative, goal.tolerance.f32_relative), (0.1, 1e-3));
    let plan = args.plan(&Machine { n_usable: 8, ..Machine::here() }).unwrap();
    assert_eq!((plan.sharings, plan.batch_sizes), (vec![Sharing::ONE], vec![n(1), n(4), n(16)]));
    assert_eq!(plan.budget, Duration::from_secs(5));
    for wrong in
        [&["net", "--allow", "f8"][..], &["net", "--tolerance", "-1"], &["net", "--batch-sizes", "0"], &[]]
    {
        assert!(Cli::try_parse_from(["salver", "tune"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_table_says_who_agrees_and_what_is_chosen() {
    let report = report();
    let text = with_outcome(&report, |outcome| {
        table::text(outcome, false) + &table::conclusion(outcome, None, true)
    });
    let row =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
    assert!(row("  tensorflow   f32").ends_with("the reference"), "{text}");
    let refused = row("  openvino     bf16");
    assert!(refused.contains(" 22/32 ") && refused.contains("3.7e-1"), "{text}");
    assert!(refused.contains("refused: output 'y' differs by 3.70e-1"), "{text}");
    assert!(row("  onnxruntime  f32").ends_with("agrees; 3.42x slower than the best, not measured further"));
    assert!(row("  other        f32").ends_with("does not run it: node 'a': no operator B"));
    let choice = row("* embedded     f32");
    for part in ["40.0 ms", "24.6", "294 MB"] {
        assert!(choice.contains(part), "{choice}");
    }
    for part in [
        "  tensorflow f32 with 1 threads, 1 lanes, batch 32: out of memory",
        "  note: something to know",
        "Choice for a balance of latency and throughput: embedded f32, 1 thread, 1 lane, no batching",
        "  2.00x faster for one caller and 2.05x faster in throughput, compared with the best of tensorflow f32",
        "  answers differ by 5.9e-5 at most, 5.9e-5 of the scale, the same class in 32 of 32 rows",
        "Nothing was written (--dry-run).",
    ] {
        assert!(text.lines().any(|line| line == part), "{part} in:\n{text}");
    }
    assert!(!text.contains("random input"), "{text}");
    with_outcome(&report, |outcome| {
        let made_up = Outcome {
            origin: Origin::MadeUp,
            path: String::new(),
            processor: String::new(),
            library: None,
            signature: None,
            ..*outcome
        };
        assert!(table::text(&made_up, false).contains("note: agreement on random input says little"));
    });
    // Columns are aligned: all rows of figures end at the same column.
    let figures: Vec<usize> = text
        .lines()
        .skip_while(|line| !line.starts_with("Measured"))
        .skip(1)
        .take_while(|line| line.contains("MB") || line.contains("rounds"))
        .map(|line| line.chars().count())
        .collect();
    assert!(figures.len() == 9 && figures.iter().all(|width| *width == figures[0]), "{figures:?}\n{text}");
}

#[test]
fn without_a_choice_that_is_said_and_nothing_written() {
    let report = Report { choice: None, ..report() };
    let dir = tempfile::tempdir().unwrap();
    with_outcome(&report, |outcome| {
        assert!(table::conclusion(outcome, None, false).contains("No choice"));
        assert_eq!(record::write(dir.path(), outcome, None).unwrap(), None);
        assert!(!svg::svg(outcome).contains("choice:"));
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_chart_fits_a_terminal_and_shows_every_candidate() {
    let report = report();
    let text = with_outcome(&report, chart::chart);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["rows/s", "in ms", "o embedded f32", "x tensorflow f32", "+ openvino bf16", "* the choice"] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    let plotted: Vec<&str> = text.lines().filter_map(|line| line.get(12..)).take(15).collect();
    for sign in ['o', 'x', '+', 'v', '*'] {
        assert!(plotted.iter().any(|line| line.contains(sign)), "{sign} in:\n{text}");
    }
    let empty = Report { measured: Vec::new(), choice: None, ..report };
    assert_eq!(with_outcome(&empty, chart::chart), "");
}

#[test]
fn the_drawing_has_a_point_for_everything() {
    let report = report();
    let svg = with_outcome(&report, svg::svg);
    let count = |part: &str| svg.matches(part).count();
    assert_eq!(count("<title>"), report.measured.len());
    assert_eq!((count("<svg "), count("</svg>"), count("halo choice")), (1, 1, 1));
    assert_eq!(count("<polyline "), 4);
    for part in [
        "models/&lt;net&gt;/1",
        "2 x A &amp; B processor",
        "rows per second",
        "median, ms)",
        "choice: embedded f32, 1 thread, 1 lane, no batching; 40.0 ms for one caller, 24.6 rows/s",
        ">openvino bf16 (refused)</text>",
        "prefers-color-scheme:dark",
    ] {
        assert!(svg.contains(part), "{part} in:\n{svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn json_has_all_of_it() {
    let report = report();
    let text =
        with_outcome(&report, |outcome| report::json(outcome, Some(Path::new("salver.toml"))).unwrap());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["choice"]["engine"], "embedded");
    assert_eq!(json["choice"]["memory_bytes"], 293_400_000);
    assert_eq!(json["candidates"][2]["agreement"]["top_1"], 22.0 / 32.0);
    assert_eq!(json["times_faster_than_reference"]["latency"], 2.0);
    assert_eq!(json["measured"].as_array().unwrap().len(), 8);
    assert_eq!(json["failures"][0]["batch"], 32);
    assert_eq!(json["written"], "salver.toml");
}

#[test]
fn what_is_written_is_read_by_serve_and_keeps_what_others_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings::beside(dir.path());
    std::fs::write(&path, "engine = 'tensorflow'\npin = true\nprecision = 'bf16'").unwrap();
    let report = report();
    let written = with_outcome(&report, |outcome| record::write(dir.path(), outcome, None).unwrap());
    assert_eq!(written.as_deref(), Some(&*path));
    let read = settings::of_version(dir.path()).unwrap();
    assert_eq!((read.engine.as_deref(), read.precision.as_deref()), (Some("embedded"), Some("f32")));
    assert_eq!((read.threads, read.lanes, read.max_batch_size), (Some(n(1)), Some(n(1)), Some(n(1))));
    assert_eq!(read.pin, Some(true));
    let tuned = settings::read(&path).unwrap().unwrap().tuned;
    assert_eq!(tuned["reference"].as_str(), Some("tensorflow f32"));
    assert_eq!(tuned["times_faster_for_one_caller"].as_float(), Some(2.0));
    assert_eq!(tuned["rows_compared"].as_integer(), Some(32));
    assert_eq!(tuned["signature"].as_str(), Some("s"));
    let costs = tuned["seconds_by_rows"].as_table().unwrap();
    assert!(costs["1"].as_float().unwrap() > 0.0, "{costs:?}");
}

/// The example model, in a folder of its own.
fn digits() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/models/digits/2/model.onnx");
    let version = dir.path().join("digits/2");
    std::fs::create_dir_all(&version).unwrap();
    std::fs::copy(from, version.join("model.onnx")).unwrap();
    dir
}

#[test]
fn the_example_model_is_tuned() {
    let dir = digits();
    let model = dir.path().join("digits");
    let svg = dir.path().join("plot.svg");
    let line = [
        model.to_str().unwrap(),
        "--engines",
        "embedded",
        "--budget",
        "1",
        "--max-threads",
        "1",
        "--batch-sizes",
        "1,4",
        "--plot",
        svg.to_str().unwrap(),
    ];
    let version = model.join("2");
    let text = tune(&args(&[&line[..], &["--dry-run"]].concat())).unwrap();
    assert!(text.contains("Nothing was written"), "{text}");
    assert!(!settings::beside(&version).exists());
    let text = tune(&args(&line)).unwrap();
    for part in [
        "asked: random input (32 rows)",
        "the reference",
        "* embedded",
        "rows/s",
        "salver.toml; salver serve",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg "));
    let settings = settings::of_version(&version).unwrap();
    assert_eq!((settings.engine.as_deref(), settings.threads), (Some("embedded"), Some(n(1))));
    assert!(settings.max_batch_size.is_some_and(|size| [1, 4].contains(&size.get())));
}

#[test]
fn mistakes_are_named() {
    let dir = digits();
    let model = dir.path().join("digits");
    let model = model.to_str().unwrap();
    let check = |line: &[&str], expected: &str| {
        let error = format!("{:#}", tune(&args(line)).unwrap_err());
        assert!(error.contains(expected), "{line:?}: {error}");
    };
    check(&[model, "--engines", "fast"], "--engines has 'fast' (expected ");
    check(&["no/such/model"], "no/such/model: ");
    check(&[model, "--batch-sizes", "5000"], "--batch-sizes has 5000, expected 4096 at most");
    check(&[model, "--engines", "embedded", "--requests", "no/such.json"], "no/such.json: ");
}
