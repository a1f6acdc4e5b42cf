//! What runs leave that were killed at a bad moment, or that went on in another way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use salver_files::{FileSink, SinkSettings};
use salver_records::{Outgoing, Output, Receipt, Sink};

fn answer(text: &'static str) -> Outgoing {
    let value = Some(Bytes::from_static(text.as_bytes()));
    Outgoing {
        output: Output::Main,
        partition: None,
        key: None,
        value,
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// One run that sends a record outside of any transaction.
fn run(settings: &SinkSettings, text: &'static str) {
    let progress = settings.progress().unwrap();
    let mut sink = FileSink::open(settings, progress).unwrap();
    sink.send(answer(text), Receipt(0)).unwrap();
    sink.flush().unwrap();
}

fn settings(folder: &Path, name: &str) -> SinkSettings {
    SinkSettings {
        columns: Some(vec!["a".into(), "b\nc".into()]),
        ..SinkSettings::of(PathBuf::from(folder).join(name))
    }
}

#[test]
fn one_by_one_a_row_that_was_not_finished_is_cut_off_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, torn: &str, expected: &str| {
        let settings = settings(folder.path(), name);
        run(&settings, "1,\"x\ny\"");
        let mut output = fs::OpenOptions::new().append(true).open(&settings.path).unwrap();
        output.write_all(torn.as_bytes()).unwrap();
        run(&settings, "3,z");
        assert_eq!(fs::read_to_string(&settings.path).unwrap(), expected, "{torn}");
    };
    let whole = "a,\"b\nc\"\n1,\"x\ny\"\n3,z\n";
    check("quoted.csv", "2,\"tor\nn", whole);
    check("plain.csv", "2,tor", whole);
    check("whole.csv", "", whole);
    check("lines.jsonl", "tor", "1,\"x y\"\n3,z\n");
}

#[test]
fn what_was_written_one_by_one_is_not_written_exactly_once_after_that() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "out.jsonl");
    run(&settings, "1");
    let mut sink = FileSink::open(&settings, settings.progress().unwrap()).unwrap();
    let error = sink.begin().unwrap_err();
    assert!(error.message.contains("out.jsonl was written one by one"), "{error}");
    assert_eq!(fs::read(&settings.path).unwrap(), b"1\n");
}

#[test]
fn an_output_that_was_made_and_not_begun_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "out.jsonl");
    fs::write(&settings.path, "").unwrap();
    run(&settings, "1");
    assert_eq!(fs::read(&settings.path).unwrap(), b"1\n");
}
