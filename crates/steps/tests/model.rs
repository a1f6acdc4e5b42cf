//! Windows under commits, aborts, crashes, moves between processes and restoration from a compacted changelog are what the
//! records alone say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use salver_records::{Error, Outgoing, Output, Record, Restore, Slot};
use salver_steps::{ErrorKind, Partial, State, StateSettings};
use salver_tensor::{Shape, Tensor};

/// A record of the stream.
#[derive(Debug, Clone)]
struct Input {
    key: u8,
    timestamp_ms: Option<i64>,
    width: usize,
}

/// A topic of one partition, as a broker keeps it.
#[derive(Debug, Clone, Default)]
struct Changelog {
    records: Vec<(i64, Bytes, Option<Bytes>)>,
    next: i64,
}

impl Changelog {
    fn append(&mut self, record: Outgoing) {
        assert_eq!((record.output, record.partition), (Output::Changelog, Some(0)));
        // Offsets leave gaps, as those of transactions do.
        self.records.push((self.next, record.key.unwrap(), record.value));
        self.next += 2;
    }

    /// Removes what Kafka's log cleaner may have removed when it knew the keys of the first `known` records and got through
    /// the first `done` of them: records that a later known one of the same key outdates, and some tombstones, but none
    /// that outdates what is still there. A tombstone goes in a later pass than the records before it.
    fn compact(&mut self, known: usize, done: usize, mut is_tombstone_old: impl FnMut() -> bool) {
        let known = &self.records[..known];
        let last: HashMap<Bytes, i64> = known.iter().map(|(offset, key, _)| (key.clone(), *offset)).collect();
        let done = known.len().min(done);
        let tail = self.records.split_off(done);
        self.records
            .retain(|(offset, key, value)| last[key] == *offset && (value.is_some() || !is_tombstone_old()));
        self.records.extend(tail);
    }
}

impl Restore for Changelog {
    fn restore(
        &mut self,
        partition: i32,
        from: Option<i64>,
        each: &mut dyn FnMut(Option<Record>) -> bool,
    ) -> Result<i64, Error> {
        assert_eq!(partition, 0);
        for (offset, key, value) in &self.records {
            let record = Record {
                slot: Slot(0),
                offset: *offset,
                key: Some(key.clone()),
                value: value.clone(),
                headers: Vec::new(),
                timestamp_ms: None,
            };
            if from.is_none_or(|from| *offset >= from) && !each(Some(record)) {
                break;
            }
        }
        Ok(self.next)
    }

    fn n_partitions(&mut self) -> Result<i32, Error> {
        Ok(1)
    }
}

fn row(inputs: &[Input], index: usize) -> Tensor {
    let width = inputs[index].width;
    let values: Vec<f32> = (0..width).map(|column| (index * 10 + column) as f32).collect();
    Tensor::from_vec(Shape::new(&[1, width]).unwrap(), values).unwrap()
}

/// The window of a record, from nothing but the records up to it.
fn expected(inputs: &[Input], index: usize, settings: &StateSettings) -> Option<Vec<f32>> {
    let mut clock = None;
    // The rows of the record's key since its window began, and the clock of the last.
    let (mut rows, mut seen): (Vec<usize>, Option<i64>) = (Vec::new(), None);
    for (at, input) in inputs[..=index].iter().enumerate() {
        clock = clock.max(input.timestamp_ms);
        if input.key != inputs[index].key {
            continue;
        }
        let ttl = settings.ttl.map(|ttl| ttl.as_millis() as i64);
        let expired = seen.zip(clock).zip(ttl).is_some_and(|((seen, clock), ttl)| clock - seen > ttl);
        if expired || rows.last().is_some_and(|last| inputs[*last].width != input.width) {
            rows.clear();
        }
        rows.push(at);
        seen = clock;
    }
    let (n, step) = (settings.rows.get(), settings.step.get());
    let values = |rows: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|at| row(inputs, *at).to_slice::<f32>().unwrap().into_owned()).collect()
    };
    if rows.len() >= n {
        let phase = if settings.partial == Partial::Wait { rows.len() - n } else { rows.len() - 1 };
        return (phase % step == 0).then(|| values(&rows[rows.len() - n..]));
    }
    if settings.partial == Partial::Wait || (rows.len() - 1) % step != 0 {
        return None;
    }
    let missing = n - rows.len();
    let before = match settings.partial {
        Partial::First => values(&vec![rows[0]; missing]),
        _ => vec![0.0; missing * inputs[index].width],
    };
    Some([before, values(&rows)].concat())
}

#[derive(Debug, Clone)]
enum Action {
    Push(usize),
    /// All but so many of the records that were pushed.
    Commit {
        back: usize,
        covered: bool,
    },
    Abort,
    /// The process ends, with or without time to say goodbye, and comes again; after a while of another one's work.
    Restart {
        graceful: bool,
        elsewhere: usize,
    },
    Compact {
        known: Index,
        done: Index,
        seed: u64,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => (1usize..6).prop_map(Action::Push),
        3 => (0usize..4, any::<bool>()).prop_map(|(back, covered)| Action::Commit { back, covered }),
        1 => Just(Action::Abort),
        1 => (any::<bool>(), 0usize..6).prop_map(|(graceful, elsewhere)| Action::Restart { graceful, elsewhere }),
        1 => any::<(Index, Index, u64)>().prop_map(|(known, done, seed)| Action::Compact { known, done, seed }),
    ];
    prop::collection::vec(action, 1..40)
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input =
        (0u8..4, prop::option::weighted(0.8, -3i64..12), prop_oneof![9 => Just(1usize), 1 => Just(2)]);
    prop::collection::vec(input, 200).prop_map(|all| {
        let mut time = 0;
        let mut step = |(key, by, width): (u8, Option<i64>, usize)| {
            let timestamp_ms = by.map(|by| {
                time += by;
                time
            });
            Input { key, timestamp_ms, width }
        };
        all.into_iter().map(&mut step).collect()
    })
}

fn settings() -> impl Strategy<Value = StateSettings> {
    let partial = prop_oneof![Just(Partial::Wait), Just(Partial::Zeros), Just(Partial::First)];
    (1usize..5, 0usize..3, 1usize..4, partial, prop::option::of(5u64..60)).prop_map(
        |(rows, history, step, partial, ttl)| StateSettings {
            history,
            step: NonZeroUsize::new(step).unwrap(),
            partial,
            ttl: ttl.map(Duration::from_millis),
            ..StateSettings::of(NonZeroUsize::new(rows).unwrap())
        },
    )
}

/// A scorer of one partition, its broker, and what is not committed.
struct World<'a> {
    inputs: &'a [Input],
    settings: StateSettings,
    state: State,
    changelog: Changelog,
    pending: Vec<(usize, Outgoing)>,
    committed: usize,
    next: usize,
}

impl<'a> World<'a> {
    fn new(inputs: &'a [Input], settings: &StateSettings) -> World<'a> {
        let mut state = State::open(settings).unwrap();
        let mut changelog = Changelog::default();
        state.assign(0, Some(&mut changelog)).unwrap();
        World {
            inputs,
            settings: settings.clone(),
            state,
            changelog,
            pending: Vec::new(),
            committed: 0,
            next: 0,
        }
    }

    fn push(&mut self) {
        let index = self.next;
        let Some(input) = self.inputs.get(index) else { return };
        let row = row(self.inputs, index);
        let pushed = self.state.push_at(0, &[input.key], index as i64, input.timestamp_ms, &row).unwrap();
        let got = pushed.window.map(|window| {
            assert_eq!(window.shape().dims(), [1, self.settings.rows.get(), input.width]);
            window.to_slice::<f32>().unwrap().into_owned()
        });
        assert_eq!(got, expected(self.inputs, index, &self.settings), "record {index}");
        self.pending.push((index, pushed.change));
        self.pending.extend(pushed.deleted.into_iter().map(|record| (index, record)));
        self.next += 1;
    }

    fn commit(&mut self, back: usize) {
        self.committed = self.next.saturating_sub(back).max(self.committed);
        let committed = self.committed;
        let (done, pending) = self.pending.drain(..).partition(|(index, _)| *index < committed);
        self.pending = pending;
        let done: Vec<(usize, Outgoing)> = done;
        done.into_iter().for_each(|(_, record)| self.changelog.append(record));
        self.state.committed(0, committed as i64).unwrap();
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Push(n) => (0..n).for_each(|_| self.push()),
            Action::Commit { back, covered } => {
                self.commit(back);
                if covered {
                    self.state.covered(0, self.changelog.next);
                }
            }
            Action::Abort => {
                self.state.rewind(0, self.committed as i64);
                self.pending.clear();
                self.next = self.committed;
            }
            Action::Restart { graceful, elsewhere } => self.restart(graceful, elsewhere),
            Action::Compact { known, done, mut seed } => {
                let known = known.index(self.changelog.records.len() + 1);
                self.changelog.compact(known, done.index(known + 1), || {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed >> 63 == 0
                });
            }
        }
    }

    fn restart(&mut self, graceful: bool, elsewhere: usize) {
        self.pending.clear();
        self.next = self.committed;
        if graceful {
            self.state.release(0).unwrap();
        }
        // Somewhere else there is no store.
        let elsewhere_settings = StateSettings { dir: None, max_bytes: 1 << 20, ..self.settings.clone() };
        let other = State::open(&elsewhere_settings).unwrap();
        drop(std::mem::replace(&mut self.state, other));
        if elsewhere > 0 {
            self.state.assign(0, Some(&mut self.changelog)).unwrap();
            (0..elsewhere).for_each(|_| self.push());
            self.commit(1);
            self.pending.clear();
            self.next = self.committed;
        }
        self.state = State::open(&self.settings).unwrap();
        self.state.assign(0, Some(&mut self.changelog)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn in_memory(inputs in inputs(), settings in settings(), actions in actions()) {
        let mut world = World::new(&inputs, &settings);
        actions.iter().for_each(|action| world.act(action));
        world.restart(false, 0);
        (0..20).for_each(|_| world.push());
    }

    /// Everything was committed but the position of the source: records come again, with the windows they had, or, with
    /// more of them than there is history, with an error.
    #[test]
    fn records_come_again(inputs in inputs(), settings in settings(), n in 1usize..60, back in 1usize..12) {
        let mut world = World::new(&inputs, &settings);
        (0..n).for_each(|_| world.push());
        world.commit(0);
        world.restart(false, 0);
        let from = n.saturating_sub(back);
        let before = world.changelog.clone();
        for index in from..n {
            let input = &inputs[index];
            let again = inputs[index + 1..n].iter().filter(|other| other.key == input.key).count();
            let began = inputs[index..n].iter().any(|other| other.key == input.key && other.width != input.width);
            let pushed = world.state.push_at(0, &[input.key], index as i64, input.timestamp_ms, &row(&inputs, index));
            match pushed {
                Ok(pushed) => {
                    let got = pushed.window.map(|window| window.to_slice::<f32>().unwrap().into_owned());
                    prop_assert_eq!(got, expected(&inputs, index, &settings));
                    // What it writes again is there already, and nothing else is there.
                    let (key, value) = (pushed.change.key.unwrap(), pushed.change.value);
                    let last = before.records.iter().rev().find(|(_, other, _)| *other == key).unwrap();
                    prop_assert_eq!(&last.2, &value);
                    prop_assert!(pushed.deleted.is_empty());
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), ErrorKind::Replay);
                    prop_assert!(again > settings.history || began || settings.ttl.is_some());
                }
            }
        }
        (0..10).for_each(|_| world.push());
    }
}

proptest! {
    // Each case writes to disk.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn with_a_store(inputs in inputs(), mut settings in settings(), actions in actions(), max_bytes in 0usize..3000) {
        let folder = tempfile::tempdir().unwrap();
        settings.dir = Some(folder.path().into());
        settings.max_bytes = max_bytes;
        let mut world = World::new(&inputs, &settings);
        actions.iter().for_each(|action| world.act(action));
        world.restart(false, 0);
        (0..20).for_each(|_| world.push());
    }
}

/// Keys that expired leave the changelog, and the memory.
#[test]
fn expired_keys_are_deleted() {
    let settings = StateSettings {
        ttl: Some(Duration::from_millis(100)),
        ..StateSettings::of(NonZeroUsize::new(2).unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    // In a store, keys are looked for when it is written.
    let stored = StateSettings { dir: Some(folder.path().into()), max_bytes: 0, ..settings.clone() };
    for settings in [settings, stored] {
        let key =
            |index: usize| Input { key: (index % 200) as u8, timestamp_ms: Some(index as i64), width: 1 };
        let inputs: Vec<Input> = (0..1000).map(|index| key(if index < 200 { index } else { 0 })).collect();
        let inputs: Vec<Input> = inputs
            .into_iter()
            .enumerate()
            .map(|(at, input)| Input { timestamp_ms: Some(at as i64), ..input })
            .collect();
        let mut world = World::new(&inputs, &settings);
        for _ in 0..1000 {
            world.push();
            world.commit(0);
        }
        assert_eq!(world.state.n_keys(), 1, "{:?}", settings.dir);
        let n_records = world.changelog.records.len();
        world.changelog.compact(n_records, n_records, || true);
        assert_eq!(world.changelog.records.len(), settings.rows.get() + settings.history);
    }
}

/// A window that ended leaves the changelog too, though its key came again with fewer rows and never after.
#[test]
fn windows_that_ended_are_deleted() {
    let ttl = Some(Duration::from_millis(100));
    for (ttl, second_width) in [(ttl, 1), (None, 2)] {
        let settings = StateSettings { ttl, history: 0, ..StateSettings::of(NonZeroUsize::new(4).unwrap()) };
        let record =
            |key: u8, timestamp_ms: i64, width: usize| Input { key, timestamp_ms: Some(timestamp_ms), width };
        let first = (0..6).map(|at| record(0, at, 1));
        let second = std::iter::once(record(0, 1000, second_width));
        let rest = (0..10).map(|at| record(1, 2000 + at, 1));
        let inputs: Vec<Input> = first.chain(second).chain(rest).collect();
        let mut world = World::new(&inputs, &settings);
        (0..inputs.len()).for_each(|_| world.push());
        world.commit(0);
        world.restart(false, 0);
        let n_records = world.changelog.records.len();
        world.changelog.compact(n_records, n_records, || true);
        let rows_of_second = usize::from(ttl.is_none());
        assert_eq!(world.changelog.records.len(), rows_of_second + settings.rows.get());
    }
}

#[test]
fn what_is_refused() {
    let small = StateSettings { max_keys: 1, history: 0, ..StateSettings::of(NonZeroUsize::MIN) };
    let mut state = State::open(&small).unwrap();
    let mut changelog = Changelog::default();
    let good = Tensor::from_vec(Shape::new(&[1, 1]).unwrap(), vec![1f32]).unwrap();
    let kind = |result: Result<salver_steps::Pushed, salver_steps::Error>| result.unwrap_err().kind();
    assert_eq!(kind(state.push(0, b"a", 0, &good)), ErrorKind::Order);
    state.assign(0, Some(&mut changelog)).unwrap();
    let two_rows = Tensor::from_vec(Shape::new(&[2, 1]).unwrap(), vec![1f32, 2.0]).unwrap();
    let text = Tensor::from_strings(Shape::new(&[1]).unwrap(), vec![Bytes::new()]).unwrap();
    let scalar = Tensor::from_vec(Shape::scalar(), vec![1f32]).unwrap();
    for row in [&two_rows, &text, &scalar] {
        assert_eq!(kind(state.push(0, b"a", 0, row)), ErrorKind::Row);
    }
    let pushed = state.push(0, b"a", 5, &good).unwrap();
    assert_eq!(pushed.window.unwrap().shape().dims(), [1, 1, 1]);
    changelog.append(pushed.change);
    assert_eq!(kind(state.push(0, b"b", 6, &good)), ErrorKind::Full);
    assert_eq!(kind(state.push(0, b"a", 4, &good)), ErrorKind::Replay);
    // A window of other rows cannot be restored from this changelog.
    let other = StateSettings { history: 3, ..small.clone() };
    let error = State::open(&other).unwrap().assign(0, Some(&mut changelog)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert!(error.to_string().contains("history of 1 rows, expected 4"), "{error}");
    // Nor from anything else.
    changelog.records.push((9, Bytes::from_static(b"noise"), None));
    assert_eq!(state.assign(0, Some(&mut changelog)).unwrap_err().kind(), ErrorKind::Changelog);
}

#[test]
fn a_store_is_of_one_process_and_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let settings = StateSettings {
        dir: Some(folder.path().into()),
        name: "a".into(),
        ..StateSettings::of(NonZeroUsize::MIN)
    };
    let state = State::open(&settings).unwrap();
    let error = State::open(&settings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    state.close().unwrap();
    let other = StateSettings { name: "b".into(), ..settings.clone() };
    let error = State::open(&other).unwrap_err();
    assert!(error.to_string().contains("belongs to 'a', expected 'b'"), "{error}");
    State::open(&settings).unwrap();
}

/// What a store has is not read again, and a store of a changelog that was made anew is not believed.
#[test]
fn restoration_begins_where_the_store_ends() {
    let folder = tempfile::tempdir().unwrap();
    let settings = StateSettings { dir: Some(folder.path().into()), ..StateSettings::of(NonZeroUsize::MIN) };
    let inputs: Vec<Input> = (0..20).map(|key| Input { key, timestamp_ms: None, width: 1 }).collect();
    let mut world = World::new(&inputs, &settings);
    (0..20).for_each(|_| world.push());
    world.commit(0);
    world.state.covered(0, world.changelog.next);
    world.state.release(0).unwrap();
    let restored = world.state.assign(0, Some(&mut world.changelog)).unwrap();
    assert_eq!((restored.keys, restored.records, restored.next), (20, 0, Some(40)));
    world.changelog.records.truncate(1);
    world.changelog.next = 1;
    let restored = world.state.assign(0, Some(&mut world.changelog)).unwrap();
    assert_eq!((restored.keys, restored.records, restored.next), (1, 1, Some(1)));
    let restored = world.state.assign(0, None).unwrap();
    assert_eq!((restored.keys, restored.next), (0, None));
}

/// What was read before a restoration was called off, or failed, does no harm to the next one.
#[test]
fn a_restoration_may_be_called_off_and_run_again() {
    let inputs: Vec<Input> = (0..20).map(|key| Input { key, timestamp_ms: None, width: 1 }).collect();
    for stored in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let dir = stored.then(|| folder.path().into());
        let settings = StateSettings { dir, ..StateSettings::of(NonZeroUsize::MIN) };
        let mut world = World::new(&inputs, &settings);
        (0..20).for_each(|_| world.push());
        world.commit(0);
        let restorer = world.state.begin(0).unwrap();
        let n_asked = std::cell::Cell::new(0);
        let is_wanted = || {
            n_asked.set(n_asked.get() + 1);
            n_asked.get() < 5
        };
        let error = restorer.run(Some(&mut world.changelog), &is_wanted).unwrap_err();
        assert_eq!((error.severity(), n_asked.get()), (salver_records::Severity::Passing, 5), "{error}");
        // Meanwhile the partition is nobody's.
        let good = row(&inputs, 0);
        assert_eq!(world.state.push(0, b"a", 100, &good).unwrap_err().kind(), ErrorKind::Order);
        let filled = restorer.run(Some(&mut world.changelog), &|| true).unwrap();
        let restored = world.state.take_on(filled).unwrap();
        assert_eq!((restored.keys, restored.next), (20, Some(40)), "stored: {stored}");
    }
}
