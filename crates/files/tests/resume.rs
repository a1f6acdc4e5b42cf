//! A run over files that is killed anywhere and resumed gives what a run in one go gives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use salver_files::{FileSink, FileSource, Form, Progress, SinkSettings, SourceSettings, StateLog};
use salver_records::{
    Event, Header, Outgoing, Output, Position, Receipt, Record, Restore, Severity, Sink, Slot, Source,
    Transaction,
};

fn outgoing(output: Output, key: Option<Bytes>, value: Option<Bytes>) -> Outgoing {
    Outgoing { output, partition: Some(0), key, value, headers: Vec::new(), timestamp_ms: None }
}

/// What is written for a record: state, and an answer or a dead letter.
fn answers(record: &Record, partition: i32, state: &mut BTreeMap<(i32, u8), u64>) -> Vec<Outgoing> {
    let value = record.value.clone().unwrap();
    let key = value.iter().copied().find(u8::is_ascii_alphabetic).unwrap_or(b'-');
    let count = state.entry((partition, key)).or_default();
    *count += 1;
    let text = String::from_utf8_lossy(&value);
    let mut change =
        outgoing(Output::Changelog, Some(Bytes::copy_from_slice(&[key])), Some(count.to_string().into()));
    change.partition = Some(partition);
    let mut answer = if value.contains(&b'!') {
        outgoing(Output::Dead, None, Some(value.clone()))
    } else {
        outgoing(Output::Main, None, Some(format!("{text},{count}").into()))
    };
    let offset = Bytes::from(record.offset.to_string());
    answer.headers.push(Header { name: "offset".into(), value: Some(offset) });
    vec![change, answer]
}

/// What a run does and when it dies.
#[derive(Debug, Clone)]
struct Script {
    poll_bytes: usize,
    commit_every: usize,
    /// Every so many commits is an abort.
    abort_every: usize,
    /// It dies after so many records.
    dies_after: usize,
    /// Bytes that were written after what lasts: garbage of that length, or less than there is.
    tail: Vec<u8>,
}

struct Place {
    folder: tempfile::TempDir,
    inputs: Vec<PathBuf>,
    output: PathBuf,
}

impl Place {
    fn new(inputs: &[(&str, Vec<u8>)], output: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join(output);
        let write = |(name, bytes): &(&str, Vec<u8>)| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let inputs = inputs.iter().map(write).collect();
        Place { folder, inputs, output }
    }

    /// One run; whether it came to the end.
    fn run(&self, script: &Script) -> bool {
        let mut settings = SinkSettings::of(self.output.clone());
        settings.sync = false;
        settings.columns = Some(vec!["value".into(), "count".into()]);
        let progress = settings.progress().unwrap();
        if progress.as_ref().is_some_and(|progress| progress.finished) {
            return true;
        }
        let mut source =
            FileSource::open(&SourceSettings::of(self.inputs.clone()), progress.as_ref()).unwrap();
        let n_partitions = i32::try_from(self.inputs.len()).unwrap();
        let mut state = BTreeMap::new();
        if let Some(progress) = &progress {
            let mut log = StateLog::new(&self.output, progress, n_partitions);
            for partition in 0..log.n_partitions().unwrap() {
                let mut each = |record: Option<Record>| {
                    let record = record.unwrap();
                    let count = std::str::from_utf8(&record.value.unwrap()).unwrap().parse().unwrap();
                    state.insert((partition, record.key.unwrap()[0]), count);
                    true
                };
                log.restore(partition, None, &mut each).unwrap();
            }
        }
        let mut sink = FileSink::open(&settings, progress).unwrap();
        let finished = drive(&mut source, &mut sink, script, state);
        drop(sink);
        let said = Progress::read(&self.output).unwrap().unwrap();
        assert!(!finished || said.finished || said.done.is_empty(), "{said:?}");
        if !finished && !script.tail.is_empty() {
            let mut output = fs::OpenOptions::new().append(true).open(&self.output).unwrap();
            output.write_all(&script.tail).unwrap();
        }
        finished
    }

    fn outputs(&self) -> (Vec<u8>, Vec<u8>) {
        let dead = self.folder.path().join(format!("{}.dead.jsonl", self.output.display()));
        (fs::read(&self.output).unwrap(), fs::read(dead).unwrap_or_default())
    }
}

/// A processor of records, one thread, no batches.
fn drive(
    source: &mut FileSource,
    sink: &mut FileSink,
    script: &Script,
    state: BTreeMap<(i32, u8), u64>,
) -> bool {
    let (mut records, mut events) = (Vec::new(), Vec::new());
    source.poll(Duration::ZERO, 1, &mut records, &mut events).unwrap();
    let Some(Event::Assigned(assigned)) = events.pop() else { panic!("expected an assignment first") };
    let slots: Vec<Slot> = assigned.iter().map(|assignment| assignment.slot).collect();
    let mut lasting: Vec<i64> = assigned.iter().map(|assignment| assignment.next.unwrap()).collect();
    let mut next = lasting.clone();
    source.resume(&slots);
    let (mut ended, mut n_records, mut n_commits) = (0, 0, 0);
    let (mut live, mut committed) = (state.clone(), state);
    sink.begin().unwrap();
    let mut uncommitted = 0;
    while ended < slots.len() || uncommitted > 0 {
        source.poll(Duration::ZERO, script.poll_bytes, &mut records, &mut events).unwrap();
        for record in records.drain(..) {
            if n_records == script.dies_after {
                return false;
            }
            n_records += 1;
            uncommitted += 1;
            let slot = record.slot;
            let partition = source.partition(slot).number;
            for outgoing in answers(&record, partition, &mut live) {
                sink.send(outgoing, Receipt(0)).unwrap();
            }
            next[slot.0 as usize] = record.offset + 1;
        }
        ended += events.drain(..).filter(|event| matches!(event, Event::End(_))).count();
        if uncommitted >= script.commit_every || (ended == slots.len() && uncommitted > 0) {
            n_commits += 1;
            uncommitted = 0;
            if n_commits % script.abort_every == 0 {
                sink.abort().unwrap();
                let position = |slot: &Slot| Position { slot: *slot, next: lasting[slot.0 as usize] };
                source.pause(&slots);
                source.rewind(&slots.iter().map(position).collect::<Vec<_>>()).unwrap();
                source.resume(&slots);
                live.clone_from(&committed);
                next.clone_from(&lasting);
                ended = 0;
            } else {
                let positions =
                    slots.iter().map(|slot| (source.partition(*slot).clone(), next[slot.0 as usize]));
                let transaction = Transaction { positions: positions.collect(), group: source.group() };
                sink.commit(&transaction).unwrap();
                committed.clone_from(&live);
                lasting.clone_from(&next);
            }
            sink.begin().unwrap();
        }
    }
    true
}

const IN_ONE_GO: Script = Script {
    poll_bytes: 1 << 20,
    commit_every: 1 << 20,
    abort_every: 1 << 20,
    dies_after: 1 << 20,
    tail: Vec::new(),
};

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let tail = prop::collection::vec(any::<u8>(), 0..20);
    let script = (1usize..2000, 1usize..8, 2usize..6, 0usize..30, tail).prop_map(
        |(poll_bytes, commit_every, abort_every, dies_after, tail)| Script {
            poll_bytes,
            commit_every,
            abort_every,
            dies_after,
            tail,
        },
    );
    prop::collection::vec(script, 0..6)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut flate2::bufread::MultiGzDecoder::new(bytes), &mut all).unwrap();
    all
}

fn check(inputs: &[(&str, Vec<u8>)], output: &str, scripts: &[Script]) {
    let once = Place::new(inputs, output);
    assert!(once.run(&IN_ONE_GO));
    let killed = Place::new(inputs, output);
    for script in scripts {
        killed.run(script);
    }
    assert!(killed.run(&IN_ONE_GO));
    let (expected, expected_dead) = once.outputs();
    let (got, got_dead) = killed.outputs();
    let show = |bytes: &[u8]| {
        String::from_utf8_lossy(&if output.ends_with(".gz") { unpacked(bytes) } else { bytes.to_vec() })
            .into_owned()
    };
    assert_eq!(show(&got), show(&expected));
    assert_eq!(String::from_utf8_lossy(&got_dead), String::from_utf8_lossy(&expected_dead));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn lines(text in "[ab!\n\r ]{0,80}", scripts in scripts()) {
        check(&[("in.jsonl", text.into_bytes())], "out.jsonl", &scripts);
    }

    #[test]
    fn rows(text in "(h,\"h\n\"\n)[ab!,\"\n\r]{0,80}", scripts in scripts()) {
        check(&[("in.csv", text.into_bytes())], "out.csv", &scripts);
    }

    #[test]
    fn several_packed_files(a in "[ab!\n]{0,60}", b in "[ab!\n]{0,60}", scripts in scripts()) {
        let inputs = [("a.jsonl.gz", gzip(a.as_bytes())), ("b.jsonl", b.into_bytes())];
        check(&inputs, "out.jsonl.gz", &scripts);
    }
}

fn settings(place: &Place) -> SinkSettings {
    SinkSettings::of(place.output.clone())
}

fn message<T: std::fmt::Debug>(result: Result<T, salver_records::Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.severity, Severity::Fatal);
    error.message
}

#[test]
fn what_is_refused() {
    let place = Place::new(&[("in.jsonl", b"a\nb\nc!\n".to_vec())], "out.jsonl");
    let dying = Script { commit_every: 1, poll_bytes: 1, dies_after: 2, ..IN_ONE_GO };
    assert!(!place.run(&dying));
    let progress = settings(&place).progress().unwrap().unwrap();
    assert_eq!(progress.positions()[0].1, 2);
    // Another process is writing.
    let sink = FileSink::open(&settings(&place), Some(progress.clone())).unwrap();
    let second = message(FileSink::open(&settings(&place), Some(progress.clone())));
    assert!(second.contains("another process is writing it"), "{second}");
    drop(sink);
    // Resuming was forgotten.
    assert!(message(FileSink::open(&settings(&place), None)).contains("has a progress file"));
    // Other files than before.
    let source = |paths: &[&Path], progress: &Progress| {
        FileSource::open(
            &SourceSettings::of(paths.iter().map(|path| path.to_path_buf()).collect()),
            Some(progress),
        )
    };
    let other = place.folder.path().join("other.jsonl");
    fs::write(&other, "x\n").unwrap();
    assert!(message(source(&[&other], &progress)).contains("name the same files"));
    let twice = message(source(&[&place.inputs[0], &place.inputs[0]], &progress));
    assert!(twice.contains("is named twice"), "{twice}");
    // The output lost something.
    fs::write(&place.output, "a").unwrap();
    let short = message(FileSink::open(&settings(&place), Some(progress.clone())));
    assert!(short.contains("expected at least"), "{short}");
    // The input changed.
    fs::write(&place.inputs[0], "a\nb\nc\nd\n").unwrap();
    assert!(message(source(&[&place.inputs[0]], &progress)).contains("has changed"));
    // Nobody knows how the output was made.
    fs::remove_file(Progress::path(&place.output)).unwrap();
    assert!(message(settings(&place).progress()).contains("no progress file says how it was made"));
    // It may be thrown away, and then it is: what was there, dead letters too, is gone.
    let mut overwrite = settings(&place);
    overwrite.overwrite = true;
    assert_eq!(overwrite.progress().unwrap(), None);
    drop(FileSink::open(&overwrite, None).unwrap());
    assert_eq!(fs::read(&place.output).unwrap(), b"");
    // A progress file of another version, or damaged.
    let progress_path = Progress::path(&place.output);
    for (text, expected) in
        [("{\"format\":2}", "is of format 2, expected 1"), ("{", "is not a progress file")]
    {
        fs::write(&progress_path, text).unwrap();
        assert!(message(settings(&place).progress()).contains(expected));
    }
}

#[test]
fn names_that_say_nothing_are_refused() {
    let place = Place::new(&[("in.txt", b"a\n".to_vec())], "out.bin");
    assert!(message(FileSource::open(&SourceSettings::of(place.inputs.clone()), None)).contains("in.txt"));
    assert!(message(FileSink::open(&settings(&place), None)).contains("out.bin"));
    let mut source = SourceSettings::of(place.inputs.clone());
    source.form = Some(Form::JsonLines);
    FileSource::open(&source, None).unwrap();
    assert!(message(FileSource::open(&SourceSettings::of(vec![]), None)).contains("no input"));
    let missing = SourceSettings::of(vec!["/does/not/exist.csv".into()]);
    assert!(message(FileSource::open(&missing, None)).contains("/does/not/exist.csv"));
    let folder = SourceSettings { form: Some(Form::JsonLines), ..SourceSettings::of(vec!["/".into()]) };
    assert!(message(FileSource::open(&folder, None)).contains("folder"));
}

#[test]
fn one_by_one_nothing_is_cut() {
    let place = Place::new(&[], "out.jsonl");
    let answer = |text: &'static str| outgoing(Output::Main, None, Some(Bytes::from_static(text.as_bytes())));
    let mut sink = FileSink::open(&settings(&place), None).unwrap();
    sink.send(answer("1"), Receipt(1)).unwrap();
    sink.send(answer("2"), Receipt(2)).unwrap();
    let mut deliveries = Vec::new();
    sink.deliveries(Duration::ZERO, &mut deliveries);
    assert_eq!(
        deliveries.iter().map(|delivery| (delivery.receipt.0, delivery.result.is_ok())).collect::<Vec<_>>(),
        [(1, true), (2, true)]
    );
    drop(sink);
    let mut torn = fs::OpenOptions::new().append(true).open(&place.output).unwrap();
    torn.write_all(b"tor").unwrap();
    let progress = settings(&place).progress().unwrap();
    let mut sink = FileSink::open(&settings(&place), progress).unwrap();
    sink.send(answer("3"), Receipt(3)).unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read(&place.output).unwrap(), b"1\n2\n3\n");
}
