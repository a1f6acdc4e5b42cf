//! What a file source gives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use salver_files::{FileSource, Form, LineSink, SourceSettings};
use salver_records::{Event, Outgoing, Output, Position, Receipt, Sink, Slot, Source};

/// Everything that a source gives, as (slot, offset, value), and the slots that ended.
fn all(source: &mut FileSource, max_bytes: usize) -> (Vec<(u32, i64, String)>, Vec<u32>) {
    let (mut records, mut events, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    source.poll(Duration::ZERO, max_bytes, &mut records, &mut events).unwrap();
    let Some(Event::Assigned(assigned)) = events.pop() else { panic!("expected an assignment first") };
    let slots: Vec<Slot> = assigned.iter().map(|assignment| assignment.slot).collect();
    source.poll(Duration::ZERO, max_bytes, &mut records, &mut events).unwrap();
    assert!(records.is_empty() && events.is_empty(), "paused");
    source.resume(&slots);
    while ended.len() < slots.len() {
        source.poll(Duration::from_secs(10), max_bytes, &mut records, &mut events).unwrap();
        ended.extend(events.drain(..).map(|event| match event {
            Event::End(slot) => slot.0,
            other => panic!("unexpected {other:?}"),
        }));
    }
    let shown = records.iter().map(|record| {
        let value = String::from_utf8_lossy(record.value.as_ref().unwrap()).into_owned();
        (record.slot.0, record.offset, value)
    });
    (shown.collect(), ended)
}

fn check(name: &str, bytes: &[u8], columns: Option<&[&str]>, expected: &[(i64, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let expected: Vec<_> = expected.iter().map(|(offset, value)| (0, *offset, (*value).to_owned())).collect();
    for max_bytes in [1, 300, 1 << 20] {
        let mut source = FileSource::open(&SourceSettings::of(vec![path.clone()]), None).unwrap();
        let names = source.columns().map(<[String]>::to_vec);
        assert_eq!(names, columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect()));
        let (got, ended) = all(&mut source, max_bytes);
        assert_eq!(got, expected, "{name}");
        assert_eq!(ended, [0]);
        let meter = source.meter();
        assert_eq!(meter.records(), expected.len() as u64);
        assert_eq!((meter.total(), meter.read()), (Some(bytes.len() as u64), bytes.len() as u64));
    }
}

#[test]
fn files() {
    let csv: &[u8] = b"\xef\xbb\xbfa,\"b \"\"x\"\"\"\r\n1,2\r\n\r\n\"x\r\ny\",3\r\n4,5";
    let rows = [(1, "1,2"), (3, "\"x\r\ny\",3"), (5, "4,5")];
    check("a.jsonl", b"{}\n\n[]", None, &[(0, "{}"), (2, "[]")]);
    check("a.jsonl", b"", None, &[]);
    check("a.csv", csv, Some(&["a", "b \"x\""]), &rows);
    check("a.csv.zst", &zstd::bulk::compress(csv, 1).unwrap(), Some(&["a", "b \"x\""]), &rows);
    check("a.tsv", b"a\tb,c\n1\t2\n", Some(&["a", "b,c"]), &[(1, "1\t2")]);
    check("a.csv", b"only,header", Some(&["only", "header"]), &[]);
}

#[test]
fn files_come_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [("a.csv", "x\n1\n2\n"), ("b.csv", "x\n"), ("c.csv", "x\n3\n")] {
        fs::write(path(name), text).unwrap();
    }
    let settings = SourceSettings::of(vec![path("a.csv"), path("b.csv"), path("c.csv")]);
    let (got, ended) = all(&mut FileSource::open(&settings, None).unwrap(), 1);
    assert_eq!(got, [(0, 1, "1".into()), (0, 2, "2".into()), (2, 1, "3".into())]);
    assert_eq!(ended, [0, 1, 2]);
    fs::write(path("b.csv"), "y\n").unwrap();
    let error = FileSource::open(&settings, None).unwrap_err();
    assert!(error.message.contains("b.csv is y, expected x"), "{error}");
}

#[test]
fn without_a_header_the_first_row_is_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "1,2\n").unwrap();
    let settings = SourceSettings { header: false, ..SourceSettings::of(vec![path]) };
    let mut source = FileSource::open(&settings, None).unwrap();
    assert_eq!(source.columns(), None);
    assert_eq!(all(&mut source, 1).0, [(0, 0, "1,2".into())]);
}

#[test]
fn a_record_too_large_is_cut_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, format!("{}\nb\n", "x".repeat(1_000_000))).unwrap();
    let settings = SourceSettings { max_record_bytes: 10, ..SourceSettings::of(vec![path]) };
    let mut source = FileSource::open(&settings, None).unwrap();
    source.poll(Duration::ZERO, 1, &mut Vec::new(), &mut Vec::new()).unwrap();
    source.resume(&[Slot(0)]);
    let mut records = Vec::new();
    source.poll(Duration::ZERO, 1 << 20, &mut records, &mut Vec::new()).unwrap();
    assert_eq!(records[0].cut_from(), Some(1_000_000));
    assert_eq!(&records[0].value.as_ref().unwrap()[..], b"xxxxxxxxxx");
    assert_eq!((records[1].offset, records[1].cut_from()), (1, None));
}

#[test]
fn a_damaged_file_gives_what_it_has_and_then_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl.zst");
    let mut packed = zstd::bulk::compress(b"1\n2\n", 1).unwrap();
    packed.extend_from_slice(b"no frame");
    fs::write(&path, packed).unwrap();
    let mut source = FileSource::open(&SourceSettings::of(vec![path]), None).unwrap();
    let (mut records, mut events) = (Vec::new(), Vec::new());
    source.poll(Duration::ZERO, 1, &mut records, &mut events).unwrap();
    source.resume(&[Slot(0)]);
    let error = std::iter::repeat_with(|| source.poll(Duration::ZERO, 1 << 20, &mut records, &mut events))
        .find_map(Result::err)
        .unwrap();
    assert!(error.message.contains("a.jsonl.zst"), "{error}");
    assert_eq!(records.len(), 2);
}

#[test]
fn an_error_of_reading_is_no_end_though_the_reader_says_so_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl.gz");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"1\n2\n").unwrap();
    let mut packed = packed.finish().unwrap();
    // The checksum of what was packed.
    let sum = packed.len() - 8;
    packed[sum] ^= 1;
    fs::write(&path, packed).unwrap();
    let file = FileSource::open(&SourceSettings::of(vec![path]), None).unwrap();
    let broken = Drops(b"1\n2\n").chain(Fails);
    let stream = FileSource::stream("a.jsonl.gz", Box::new(broken), &SourceSettings::of(vec![])).unwrap();
    for mut source in [file, stream] {
        let (mut records, mut events) = (Vec::new(), Vec::new());
        source.poll(Duration::ZERO, 1, &mut records, &mut events).unwrap();
        source.resume(&[Slot(0)]);
        events.clear();
        let wait = Duration::from_secs(10);
        let error = loop {
            match source.poll(wait, 1 << 20, &mut records, &mut events) {
                Ok(()) => assert!(events.is_empty(), "{events:?}"),
                Err(error) => break error,
            }
        };
        assert!(error.message.contains("a.jsonl.gz"), "{error}");
        assert_eq!(source.poll(wait, 1 << 20, &mut records, &mut events), Err(error));
        assert_eq!((records.len(), events.len()), (2, 0));
    }
}

#[test]
fn a_header_that_ends_with_a_carriage_return_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "a,b\r1,2\r3,4\r").unwrap();
    let error = FileSource::open(&SourceSettings::of(vec![path]), None).unwrap_err();
    assert!(error.message.contains("carriage return"), "{error}");
}

/// Gives an error.
struct Fails;

impl Read for Fails {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("it is torn"))
    }
}

/// Gives a few bytes at a time.
struct Drops(&'static [u8]);

impl Read for Drops {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = 3.min(buffer.len()).min(self.0.len());
        buffer[..n_bytes].copy_from_slice(&self.0[..n_bytes]);
        self.0 = &self.0[n_bytes..];
        Ok(n_bytes)
    }
}

#[test]
fn a_stream() {
    let csv = SourceSettings { form: Some(Form::csv(b',')), ..SourceSettings::of(vec![]) };
    let mut source = FileSource::stream("-", Box::new(Drops(b"a,b\n1,\"\n\"\n2,3")), &csv).unwrap();
    assert_eq!(source.columns(), Some(&["a".to_owned(), "b".to_owned()][..]));
    let (got, ended) = all(&mut source, 1);
    assert_eq!(got, [(0, 1, "1,\"\n\"".into()), (0, 3, "2,3".into())]);
    assert_eq!(ended, [0]);
    assert_eq!(source.meter().total(), None);
    // After the last record is where it is; before it, it is gone.
    source.rewind(&[Position { slot: Slot(0), next: 4 }]).unwrap();
    assert!(source.rewind(&[Position { slot: Slot(0), next: 1 }]).is_err());
    let empty = FileSource::stream("-", Box::new(io::empty()), &csv).unwrap_err();
    assert!(empty.message.contains("is empty"), "{empty}");
}

#[test]
fn a_position_in_the_middle_can_be_gone_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "0\n1\n2\n3\n").unwrap();
    let mut source = FileSource::open(&SourceSettings::of(vec![path]), None).unwrap();
    source.rewind(&[Position { slot: Slot(0), next: 2 }]).unwrap();
    assert_eq!(all(&mut source, 1).0, [(0, 2, "2".into()), (0, 3, "3".into())]);
}

#[test]
fn positions_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "0\n1\n2\n3\n").unwrap();
    let progress = Some(folder.path().join("progress"));
    let settings = SourceSettings { progress, ..SourceSettings::of(vec![path]) };
    let mut source = FileSource::open(&settings, None).unwrap();
    all(&mut source, 1);
    source.commit(&[Position { slot: Slot(0), next: 2 }]).unwrap();
    let mut source = FileSource::open(&settings, None).unwrap();
    assert_eq!(all(&mut source, 1).0, [(0, 2, "2".into()), (0, 3, "3".into())]);
}

#[test]
fn lines_to_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let dead = folder.path().join("dead.jsonl");
    let answer = |output, value: &'static [u8]| Outgoing {
        output,
        partition: None,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    let sink = |dead: Option<&Path>| {
        let to = Box::new(fs::File::create(&path).unwrap());
        let columns = ["a".to_owned(), "b".to_owned()];
        LineSink::new("out", to, Form::csv(b','), Some(&columns), dead.map(Path::to_path_buf))
    };
    let mut lines = sink(Some(&dead));
    lines.send(answer(Output::Main, b"1,2"), Receipt(7)).unwrap();
    lines.send(answer(Output::Dead, b"x"), Receipt(8)).unwrap();
    let mut deliveries = Vec::new();
    lines.deliveries(Duration::ZERO, &mut deliveries);
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|delivery| delivery.result.is_ok()));
    assert_eq!(fs::read(&path).unwrap(), b"a,b\n1,2\n");
    assert!(fs::read_to_string(&dead).unwrap().contains("\"value\":\"x\""));
    assert!(!lines.is_transactional() && lines.begin().is_err());
    assert!(sink(None).send(answer(Output::Dead, b"x"), Receipt(9)).is_err());
}
