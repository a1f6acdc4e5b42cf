//! What only a real broker shows. `SALVER_KAFKA=host:port` says where one is (`cargo xtask kafka up` starts one); without it
//! each test says so in one line and ends.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and in limited time"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use salver_kafka::{
    AssignmentStrategy, Bound, Connection, ConnectionSettings, KafkaRestore, KafkaSink, KafkaSource, Keeps,
    NewTopic, Protocol, Replay, SinkSettings, SourceSettings, Topics, TransactionSettings,
};
use salver_records::{
    Event, Header, Outgoing, Output, Position, Receipt, Record, Restore, Severity, Sink, Slot, Source,
    Transaction,
};

/// How long anything may take before a test fails.
const LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);

fn broker() -> Option<Connection> {
    let Ok(brokers) = std::env::var("SALVER_KAFKA") else {
        eprintln!("skipped: SALVER_KAFKA is not set to the host:port of a broker");
        return None;
    };
    let settings = ConnectionSettings { brokers, ..ConnectionSettings::default() };
    Some(Connection::new(&settings, &|_| None).unwrap())
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A name that no other test or run has.
fn unique(name: &str) -> String {
    format!("test-{name}-{}-{}", std::process::id(), now_ms())
}

fn topic(connection: &Connection, name: &str, partitions: i32) -> String {
    let name = unique(name);
    let new = NewTopic { name: name.clone(), partitions, replicas: Some(1), keeps: Keeps::All };
    assert_eq!(Topics::new(connection).unwrap().create(&new).unwrap(), partitions);
    name
}

fn sink(connection: &Connection, topic: &str, transactions: Option<TransactionSettings>) -> KafkaSink {
    let settings =
        SinkSettings { topic: Some(topic.to_owned()), transactions, linger_ms: 1, ..SinkSettings::default() };
    KafkaSink::open(connection, &settings).unwrap()
}

fn record(key: &str, value: &str, partition: Option<i32>) -> Outgoing {
    Outgoing {
        output: Output::Main,
        partition,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// Writes records outside of transactions and waits until they last.
fn write(sink: &mut KafkaSink, records: impl IntoIterator<Item = Outgoing>) {
    let mut n = 0;
    for record in records {
        sink.send(record, Receipt(n)).unwrap();
        n += 1;
    }
    sink.flush().unwrap();
    let mut deliveries = Vec::new();
    sink.deliveries(Duration::ZERO, &mut deliveries);
    assert_eq!(deliveries.len() as u64, n);
    deliveries.iter().for_each(|delivery| delivery.result.clone().unwrap());
}

fn fill(connection: &Connection, topic: &str, records: impl IntoIterator<Item = Outgoing>) {
    write(&mut sink(connection, topic, None), records);
}

/// A source with what it has told.
struct Reading {
    source: KafkaSource,
    records: Vec<Record>,
    events: Vec<Event>,
    held: BTreeSet<Slot>,
}

impl Reading {
    fn new(source: KafkaSource) -> Reading {
        Reading { source, records: Vec::new(), events: Vec::new(), held: BTreeSet::new() }
    }

    fn join(connection: &Connection, topic: &str, group: &str) -> Reading {
        Reading::with(connection, topic, group, |_| ())
    }

    fn with(
        connection: &Connection,
        topic: &str,
        group: &str,
        change: impl Fn(&mut SourceSettings),
    ) -> Reading {
        let mut settings = SourceSettings {
            topics: vec![topic.to_owned()],
            group: group.to_owned(),
            ..SourceSettings::default()
        };
        change(&mut settings);
        Reading::new(KafkaSource::join(connection, &settings).unwrap())
    }

    /// One poll; what is assigned is read at once.
    fn step(&mut self, wait: Duration) {
        let mut events = Vec::new();
        match self.source.poll(wait, 1 << 20, &mut self.records, &mut events) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.severity, Severity::Passing, "{error}"),
        }
        for event in &events {
            match event {
                Event::Assigned(all) => {
                    let slots: Vec<_> = all.iter().map(|one| one.slot).collect();
                    slots.iter().for_each(|slot| assert!(self.held.insert(*slot), "{slot:?} was held"));
                    self.source.resume(&slots);
                }
                Event::Revoking(slots) | Event::Lost(slots) => {
                    slots.iter().for_each(|slot| assert!(self.held.remove(slot), "{slot:?} was not held"));
                }
                Event::End(_) => {}
            }
        }
        self.events.extend(events);
    }

    fn until(&mut self, what: &str, is_done: impl Fn(&Reading) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !is_done(self) {
            assert!(Instant::now() < limit, "{what}: {} records, {:?}", self.records.len(), self.events);
            self.step(STEP);
        }
    }

    fn values(&self) -> Vec<String> {
        let text = |record: &Record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        self.records.iter().map(text).collect()
    }

    /// The offset after the last record of each partition.
    fn positions(&self) -> Vec<Position> {
        let mut next = BTreeMap::new();
        for record in &self.records {
            next.insert(record.slot, record.offset + 1);
        }
        next.into_iter().map(|(slot, next)| Position { slot, next }).collect()
    }

    fn transaction(&self) -> Transaction {
        let positions = self.positions();
        let positions = positions.iter().map(|one| (self.source.partition(one.slot).clone(), one.next));
        Transaction { positions: positions.collect(), group: self.source.group() }
    }

    fn n_ends(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::End(_))).count()
    }
}

#[test]
fn records_come_back_as_they_were_sent_and_positions_stay() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "round-trip", 3);
    let group = unique("group");
    let header = |name: &str, value: Option<&'static [u8]>| Header {
        name: name.into(),
        value: value.map(Bytes::from_static),
    };
    let special = Outgoing {
        output: Output::Main,
        partition: Some(2),
        key: None,
        value: None,
        headers: vec![header("a", Some(b"1")), header("a", None), header("traceparent", Some(b""))],
        timestamp_ms: Some(1_700_000_000_123),
    };
    let mut writer = sink(&connection, &topic, None);
    write(&mut writer, std::iter::once(special.clone()));
    write(&mut writer, (0..3_000).map(|i| record(&format!("k{}", i % 17), &i.to_string(), None)));

    let mut reading = Reading::join(&connection, &topic, &group);
    reading.until("all records", |reading| reading.records.len() >= 3_001);
    let found = reading.records.iter().find(|record| record.key.is_none()).unwrap().clone();
    assert_eq!(reading.source.partition(found.slot).number, 2);
    assert_eq!(
        (found.value, found.headers, found.timestamp_ms),
        (None, special.headers, special.timestamp_ms)
    );

    reading.records.retain(|record| record.key.is_some());
    let mut of_key: HashMap<Bytes, Vec<u32>> = HashMap::new();
    for (record, value) in reading.records.iter().zip(reading.values()) {
        of_key.entry(record.key.clone().unwrap()).or_default().push(value.parse().unwrap());
    }
    assert_eq!(of_key.values().map(Vec::len).sum::<usize>(), 3_000);
    for (key, values) in of_key {
        assert!(values.is_sorted(), "{key:?}: {values:?}");
    }

    reading.source.commit(&reading.positions()).unwrap();
    reading.source.settle().unwrap();
    drop(reading);
    write(&mut writer, (0..3).map(|i| record("k", &format!("late {i}"), Some(i))));
    let mut again = Reading::join(&connection, &topic, &group);
    again.until("the late records", |again| again.records.len() >= 3);
    assert_eq!(
        again.values().into_iter().collect::<BTreeSet<_>>(),
        ["late 0", "late 1", "late 2"].map(String::from).into()
    );
}

#[test]
fn keys_go_where_clients_in_java_put_them() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "partitioner", 7);
    // murmur2 of these keys as Kafka's own tests have it (UtilsTest), made positive, modulo 7.
    let cases = [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
    let expected = cases.map(|(key, hash)| (key.to_owned(), (hash & 0x7fff_ffff) % 7));
    fill(&connection, &topic, cases.map(|(key, _)| record(key, "", None)));
    let mut reading = Reading::join(&connection, &topic, &unique("group"));
    reading.until("all records", |reading| reading.records.len() >= 3);
    let found = reading.records.iter().map(|record| {
        let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
        (key, reading.source.partition(record.slot).number)
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected.into());
}

#[test]
fn only_committed_transactions_are_seen_and_positions_go_with_them() {
    let Some(connection) = broker() else { return };
    let input = topic(&connection, "tx-in", 2);
    let output = topic(&connection, "tx-out", 2);
    let group = unique("group");
    fill(&connection, &input, (0..20).map(|i| record("k", &i.to_string(), Some(i % 2))));
    let mut reading = Reading::join(&connection, &input, &group);
    reading.until("the input", |reading| reading.records.len() >= 20);
    let mut writer = sink(&connection, &output, Some(TransactionSettings::default()));

    writer.begin().unwrap();
    (0..10).for_each(|i| writer.send(record("k", &format!("aborted {i}"), None), Receipt(i)).unwrap());
    writer.flush().unwrap();
    writer.abort().unwrap();
    for round in 0..3 {
        writer.begin().unwrap();
        (0..10).for_each(|i| writer.send(record("k", &format!("{round}/{i}"), None), Receipt(i)).unwrap());
        writer.commit(&reading.transaction()).unwrap();
    }
    // An empty one, and one that is left open.
    writer.begin().unwrap();
    writer.commit(&Transaction { positions: Vec::new(), group: None }).unwrap();
    writer.begin().unwrap();
    writer.send(record("k", "open", None), Receipt(0)).unwrap();
    writer.flush().unwrap();
    fill(&connection, &output, [record("k", "plain", Some(0)), record("k", "plain", Some(1))]);
    drop(writer);

    let mut seen = Reading::join(&connection, &output, &unique("group"));
    seen.until("what was committed", |seen| seen.records.len() >= 32);
    let expected = (0..3).flat_map(|round| (0..10).map(move |i| format!("{round}/{i}")));
    let values = seen.values().into_iter().filter(|value| value != "plain");
    assert_eq!(values.collect::<Vec<_>>(), expected.collect::<Vec<_>>());

    drop(reading);
    fill(&connection, &input, [record("k", "new", Some(0))]);
    let mut again = Reading::join(&connection, &input, &group);
    again.until("the new record", |again| !again.records.is_empty());
    assert_eq!(again.values(), ["new"]);
}

#[test]
fn a_second_producer_fences_off_the_first() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "fence", 1);
    let named = || Some(TransactionSettings { id: Some(topic.clone()), ..TransactionSettings::default() });
    let mut first = sink(&connection, &topic, named());
    first.begin().unwrap();
    first.send(record("k", "first", None), Receipt(0)).unwrap();
    let mut second = sink(&connection, &topic, named());
    second.begin().unwrap();
    second.send(record("k", "second", None), Receipt(0)).unwrap();
    second.commit(&Transaction { positions: Vec::new(), group: None }).unwrap();

    let sent = first.send(record("k", "first again", None), Receipt(1));
    let error =
        sent.and_then(|()| first.commit(&Transaction { positions: Vec::new(), group: None })).unwrap_err();
    assert_eq!(error.severity, Severity::Fenced, "{error}");
    assert_eq!(first.abort().unwrap_err().severity, Severity::Fenced);
    assert_eq!(first.begin().unwrap_err().severity, Severity::Fenced);

    let mut seen = Reading::join(&connection, &topic, &unique("group"));
    seen.until("what the second wrote", |seen| !seen.records.is_empty());
    assert_eq!(seen.values(), ["second"]);
}

#[test]
fn a_transaction_that_took_too_long_is_aborted_and_the_sink_goes_on() {
    let Some(connection) = broker() else { return };
    // Under an id of one's own, and under one that others might have.
    for id in [None, Some(unique("id"))] {
        let topic = topic(&connection, "too-long", 1);
        let mut writer = sink(&connection, &topic, Some(TransactionSettings { id, timeout_ms: 2_000 }));
        writer.begin().unwrap();
        writer.send(record("k", "late", None), Receipt(0)).unwrap();
        writer.flush().unwrap();
        // The broker looks for such transactions every ten seconds; a reader sees the plain record behind it then.
        fill(&connection, &topic, [record("k", "plain", None)]);
        let mut seen = Reading::join(&connection, &topic, &unique("group"));
        seen.until("the broker's abort", |seen| !seen.records.is_empty());
        let error = writer.commit(&Transaction { positions: Vec::new(), group: None }).unwrap_err();
        assert_eq!(error.severity, Severity::Doubtful, "{error}");
        writer.abort().unwrap();
        writer.begin().unwrap();
        writer.send(record("k", "again", None), Receipt(0)).unwrap();
        writer.commit(&Transaction { positions: Vec::new(), group: None }).unwrap();
        seen.until("what came after", |seen| seen.records.len() >= 2);
        assert_eq!(seen.values(), ["plain", "again"]);
    }
}

#[test]
fn of_a_group_that_grows_only_what_moves_is_given_up() {
    let Some(connection) = broker() else { return };
    let check = |protocol: Protocol| {
        let topic = topic(&connection, "grow", 4);
        let group = unique("group");
        let fill = |from: i32| {
            fill(&connection, &topic, (from..from + 40).map(|i| record("k", &i.to_string(), Some(i % 4))))
        };
        fill(0);
        let join = || Reading::with(&connection, &topic, &group, |settings| settings.protocol = protocol);
        let mut first = join();
        first.until("the first record of each", |first| first.records.len() >= 40);
        assert_eq!(first.held.len(), 4, "{protocol:?}");

        let mut second = join();
        let limit = Instant::now() + LIMIT;
        while !first.events.iter().any(|event| matches!(event, Event::Revoking(_))) {
            assert!(Instant::now() < limit, "{protocol:?}: {:?}", first.events);
            first.step(STEP);
            second.step(Duration::ZERO);
        }
        let revoking = first.events.iter().find_map(|event| match event {
            Event::Revoking(slots) => Some(slots.clone()),
            _ => None,
        });
        let revoking = revoking.unwrap();
        assert_eq!(revoking.len(), 2, "{protocol:?}");
        assert!(second.held.is_empty(), "{protocol:?}: nothing was given up yet");

        // Half of what moves is not enough; what was done is committed first.
        first.source.give_up(&revoking[..1]).unwrap();
        for _ in 0..5 {
            first.step(STEP);
            second.step(STEP);
        }
        assert!(second.held.is_empty(), "{protocol:?}: only one of two was given up");
        first.source.commit(&first.positions()).unwrap();
        first.source.settle().unwrap();
        first.source.give_up(&revoking[1..]).unwrap();
        let limit = Instant::now() + LIMIT;
        while second.held.len() < 2 {
            assert!(Instant::now() < limit, "{protocol:?}: {:?}", second.events);
            first.step(STEP);
            second.step(STEP);
        }
        fill(40);
        let limit = Instant::now() + LIMIT;
        while first.records.len() + second.records.len() < 80 {
            assert!(Instant::now() < limit, "{protocol:?}: {} {}", first.records.len(), second.records.len());
            first.step(STEP);
            second.step(STEP);
        }
        let mut values: Vec<u32> =
            first.values().iter().chain(&second.values()).map(|v| v.parse().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, (0..80).collect::<Vec<_>>(), "{protocol:?}");
        assert_eq!(first.held.len(), 2, "{protocol:?}");

        // The one that leaves leaves all to the other.
        second.source.commit(&second.positions()).unwrap();
        second.source.settle().unwrap();
        drop(second);
        first.until("all partitions again", |first| first.held.len() == 4);
    };
    check(Protocol::Classic);
    check(Protocol::Consumer);
    check(Protocol::Auto);
}

/// A member that gives up at once what is asked back, and keeps what it reads.
struct Member {
    source: KafkaSource,
    begins: Vec<Option<i64>>,
    offsets: Vec<(i32, i64)>,
}

impl Member {
    fn step(&mut self) {
        let (mut records, mut events) = (Vec::new(), Vec::new());
        if let Err(error) = self.source.poll(STEP, 1 << 20, &mut records, &mut events) {
            assert_eq!(error.severity, Severity::Passing, "{error}");
        }
        for event in events {
            match event {
                Event::Assigned(all) => {
                    self.begins.extend(all.iter().map(|one| one.next));
                    self.source.resume(&all.iter().map(|one| one.slot).collect::<Vec<_>>());
                }
                Event::Revoking(slots) => self.source.give_up(&slots).unwrap(),
                Event::Lost(_) | Event::End(_) => {}
            }
        }
        let read = records.iter().map(|one| (self.source.partition(one.slot).number, one.offset));
        self.offsets.extend(read);
    }
}

#[test]
fn a_partition_begins_at_its_position_though_a_transaction_is_open_and_the_group_changes() {
    let Some(connection) = broker() else { return };
    let bootstrap = std::env::var("SALVER_KAFKA").unwrap();
    let check = |protocol: Protocol| {
        let input = topic(&connection, "open", 4);
        let group = unique("group");
        fill(&connection, &input, (0..40).map(|i| record("k", &i.to_string(), Some(i % 4))));
        let settings = |pairs: &[(&str, &str)]| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &bootstrap);
            pairs.iter().for_each(|(name, value)| {
                config.set(*name, *value);
            });
            config
        };
        let asker: BaseConsumer = settings(&[("group.id", &group)]).create().unwrap();
        let writer: BaseProducer = settings(&[("transactional.id", &group)]).create().unwrap();
        let wait = Duration::from_secs(30);
        writer.init_transactions(wait).unwrap();
        let positions = |next: i64| {
            let mut list = TopicPartitionList::new();
            (0..4).for_each(|i| list.add_partition_offset(&input, i, Offset::Offset(next)).unwrap());
            writer.begin_transaction().unwrap();
            writer.send_offsets_to_transaction(&list, &asker.group_metadata().unwrap(), wait).unwrap();
        };
        positions(5);
        writer.commit_transaction(wait).unwrap();
        positions(7);

        // Somebody else's transaction is open while members come and go.
        let settings = SourceSettings {
            topics: vec![input.clone()],
            group: group.clone(),
            protocol,
            ..SourceSettings::default()
        };
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..3 {
            let source = KafkaSource::join(&connection, &settings).unwrap();
            members.push(Member { source, begins: Vec::new(), offsets: Vec::new() });
            (0..20).for_each(|_| members.iter_mut().for_each(Member::step));
        }
        let seen: Vec<_> = members.iter().flat_map(|one| &one.offsets).collect();
        assert!(seen.is_empty(), "{protocol:?}: {seen:?} were read before it was known where to begin");
        writer.commit_transaction(wait).unwrap();

        let limit = Instant::now() + LIMIT;
        while members.iter().map(|one| one.offsets.len()).sum::<usize>() < 12 {
            assert!(Instant::now() < limit, "{protocol:?}: records do not come");
            members.iter_mut().for_each(Member::step);
        }
        (0..10).for_each(|_| members.iter_mut().for_each(Member::step));
        let mut read: Vec<_> = members.iter().flat_map(|one| one.offsets.clone()).collect();
        read.sort_unstable();
        let expected: Vec<_> = (0..4).flat_map(|i| (7..10).map(move |offset| (i, offset))).collect();
        assert_eq!(read, expected, "{protocol:?}");
        assert!(members.iter().flat_map(|one| &one.begins).all(|next| *next == Some(7)), "{protocol:?}");
    };
    check(Protocol::Classic);
    check(Protocol::Consumer);
}

#[test]
fn with_an_eager_assignment_everything_is_given_up() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "eager", 4);
    let group = unique("group");
    let join = || {
        Reading::with(&connection, &topic, &group, |settings| {
            settings.protocol = Protocol::Classic;
            settings.assignment = AssignmentStrategy::Range;
        })
    };
    let mut first = join();
    first.until("all partitions", |first| first.held.len() == 4);
    let mut second = join();
    let limit = Instant::now() + LIMIT;
    while first.held.len() != 2 || second.held.len() != 2 {
        assert!(Instant::now() < limit, "{:?}, {:?}", first.events, second.events);
        let n_events = first.events.len();
        first.step(STEP);
        second.step(STEP);
        for event in first.events.split_off(n_events) {
            if let Event::Revoking(slots) = &event {
                assert_eq!(slots.len(), 4);
                first.source.give_up(slots).unwrap();
            }
            first.events.push(event);
        }
    }
}

#[test]
fn what_was_read_comes_again_after_a_rewind() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "rewind", 1);
    fill(&connection, &topic, (0..50).map(|i| record("k", &i.to_string(), None)));
    let mut reading = Reading::join(&connection, &topic, &unique("group"));
    reading.until("all records", |reading| reading.records.len() >= 50);
    let slot = reading.records[0].slot;
    let offsets = |reading: &Reading| reading.records.iter().map(|record| record.offset).collect::<Vec<_>>();

    reading.records.clear();
    reading.source.rewind(&[Position { slot, next: 20 }]).unwrap();
    reading.until("from 20 on", |reading| reading.records.len() >= 30);
    assert_eq!(offsets(&reading), (20..50).collect::<Vec<_>>());

    // Paused, moved, paused again: it goes on from where it was moved to.
    reading.records.clear();
    reading.source.pause(&[slot]);
    reading.source.rewind(&[Position { slot, next: 40 }]).unwrap();
    reading.source.pause(&[slot]);
    reading.step(Duration::from_millis(500));
    assert!(reading.records.is_empty(), "{:?}", offsets(&reading));
    reading.source.resume(&[slot]);
    reading.until("from 40 on", |reading| reading.records.len() >= 10);
    assert_eq!(offsets(&reading), (40..50).collect::<Vec<_>>());
}

#[test]
fn what_is_paused_is_not_read_and_loses_nothing() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "pause", 2);
    fill(&connection, &topic, (0..2_000).map(|i| record("k", &i.to_string(), Some(i % 2))));
    let mut reading = Reading::join(&connection, &topic, &unique("group"));
    let limit = Instant::now() + LIMIT;
    let mut events = Vec::new();
    while reading.records.len() < 2_000 {
        assert!(Instant::now() < limit, "{} records", reading.records.len());
        let n_before = reading.records.len();
        reading.source.poll(STEP, 4_000, &mut reading.records, &mut events).unwrap();
        for event in events.drain(..) {
            let Event::Assigned(all) = event else { panic!("{event:?}") };
            reading.held.extend(all.iter().map(|one| one.slot));
        }
        // Another one of the two each time: a pause in the middle of what was read ahead.
        let slots: Vec<_> = reading.held.iter().copied().collect();
        let [a, b] = slots[..] else { continue };
        let (on, off) = if n_before.is_multiple_of(2) { (a, b) } else { (b, a) };
        reading.source.pause(&[off]);
        reading.source.resume(&[on]);
        if reading.records.len() == n_before {
            reading.source.resume(&[off]);
        }
    }
    let mut offsets: BTreeMap<Slot, Vec<i64>> = BTreeMap::new();
    reading.records.iter().for_each(|record| offsets.entry(record.slot).or_default().push(record.offset));
    for (slot, offsets) in offsets {
        assert_eq!(offsets, (0..1_000).collect::<Vec<_>>(), "{slot:?}");
    }
}

#[test]
fn a_bounded_run_reads_what_it_shall_and_ends() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "replay", 2);
    let at = |i: i64| 1_700_000_000_000 + i * 1_000;
    let timed = |i: i64| Outgoing {
        timestamp_ms: Some(at(i)),
        ..record("k", &i.to_string(), Some(i32::try_from(i % 2).unwrap()))
    };
    let mut writer = sink(&connection, &topic, Some(TransactionSettings::default()));
    writer.begin().unwrap();
    (0..100).for_each(|i| writer.send(timed(i), Receipt(0)).unwrap());
    writer.commit(&Transaction { positions: Vec::new(), group: None }).unwrap();
    writer.begin().unwrap();
    (100..110).for_each(|i| writer.send(timed(i), Receipt(0)).unwrap());
    writer.flush().unwrap();
    writer.abort().unwrap();

    // Each partition ends with the marks of a commit, aborted records and the marks of an abort.
    let check = |run: Replay, expected: std::ops::Range<i64>| {
        let run = Replay { topic: topic.clone(), ..run };
        let mut reading = Reading::new(KafkaSource::replay(&connection, &run).unwrap());
        reading.until("both ends", |reading| reading.n_ends() >= 2);
        let mut found: Vec<i64> = reading.values().iter().map(|value| value.parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected.collect::<Vec<_>>(), "{run:?}");
        assert_eq!(reading.n_ends(), 2, "{run:?}");
        reading
    };
    check(Replay::default(), 0..100);
    check(Replay { from: Bound::Offset(10), to: Bound::Offset(20), ..Replay::default() }, 20..40);
    check(Replay { from: Bound::TimeMs(at(30)), to: Bound::TimeMs(at(50)), ..Replay::default() }, 30..50);
    check(Replay { from: Bound::TimeMs(at(1_000_000)), ..Replay::default() }, 0..0);
    check(Replay { from: Bound::Now, ..Replay::default() }, 0..0);
    check(Replay { from: Bound::Offset(30), to: Bound::Offset(10), ..Replay::default() }, 0..0);

    // A run that remembers goes on where it was.
    let group = unique("run");
    let remembered =
        |to: i64| Replay { to: Bound::Offset(to), group: Some(group.clone()), ..Replay::default() };
    let mut run = check(remembered(10), 0..20);
    run.source.commit(&run.positions()).unwrap();
    run.source.settle().unwrap();
    drop(run);
    let mut run = check(remembered(30), 20..60);
    // A partition that has ended can be read again.
    let slot = run.records[0].slot;
    run.records.clear();
    run.source.rewind(&[Position { slot, next: 25 }]).unwrap();
    run.until("a third end", |run| run.n_ends() >= 3);
    assert_eq!(
        run.records.iter().map(|record| record.offset).collect::<Vec<_>>(),
        (25..30).collect::<Vec<_>>()
    );
}

#[test]
fn a_changelog_is_restored_up_to_what_is_committed() {
    let Some(connection) = broker() else { return };
    let name = unique("changelog");
    let new = NewTopic { name: name.clone(), partitions: 2, replicas: Some(1), keeps: Keeps::LastOfKey };
    assert_eq!(Topics::new(&connection).unwrap().create(&new).unwrap(), 2);
    assert_eq!(Topics::new(&connection).unwrap().create(&new).unwrap(), 2);
    let mut restore = KafkaRestore::open(&connection, &name, "restore", &BTreeMap::new()).unwrap();
    assert_eq!(restore.n_partitions().unwrap(), 2);
    let read = |restore: &mut KafkaRestore, from: Option<i64>, most: usize| {
        let mut values = Vec::new();
        let end = restore.restore(1, from, &mut |record| {
            let Some(record) = record else { return true };
            assert_eq!(record.slot, Slot(1));
            values.push(record.value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
            values.len() < most
        });
        (end.unwrap(), values)
    };
    assert_eq!(read(&mut restore, None, 100), (0, vec![]));

    let settings = SinkSettings {
        changelog: Some(name.clone()),
        transactions: Some(TransactionSettings::default()),
        ..SinkSettings::default()
    };
    let mut writer = KafkaSink::open(&connection, &settings).unwrap();
    let change = |value: Option<&str>| Outgoing {
        output: Output::Changelog,
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        ..record("k", "", Some(1))
    };
    let nothing = Transaction { positions: Vec::new(), group: None };
    writer.begin().unwrap();
    ["a", "b"].into_iter().for_each(|value| writer.send(change(Some(value)), Receipt(0)).unwrap());
    writer.send(change(None), Receipt(0)).unwrap();
    writer.commit(&nothing).unwrap();
    writer.begin().unwrap();
    writer.send(change(Some("aborted")), Receipt(0)).unwrap();
    writer.flush().unwrap();
    writer.abort().unwrap();
    writer.begin().unwrap();
    writer.send(change(Some("open")), Receipt(0)).unwrap();
    writer.flush().unwrap();

    let all = vec![Some("a".to_owned()), Some("b".to_owned()), None];
    // Three records, a mark, an aborted one, a mark; then the open one.
    let (end, values) = read(&mut restore, None, 100);
    assert_eq!((end, values), (6, all.clone()));
    assert_eq!(read(&mut restore, Some(1), 100), (6, all[1..].to_vec()));
    assert_eq!(read(&mut restore, Some(6), 100), (6, vec![]));
    assert_eq!(read(&mut restore, None, 2), (2, all[..2].to_vec()));
    let error = restore.restore(1, Some(7), &mut |_| true).unwrap_err();
    assert!(error.message.contains("made anew"), "{error}");

    let mut tail = restore.follow(&[(0, 0), (1, 6)]).unwrap();

    // What is written and not decided is not left out.
    let mut waiting = KafkaRestore::open(&connection, &name, "restore", &BTreeMap::new()).unwrap();
    waiting = waiting.waiting(Duration::ZERO).unwrap();
    let error = waiting.restore(1, None, &mut |_| true).unwrap_err();
    assert!(error.severity == Severity::Fatal && error.message.contains("transaction"), "{error}");
    let mut waiting = waiting.waiting(LIMIT).unwrap();
    let error = waiting.restore(1, Some(1), &mut |record| panic!("{record:?}")).unwrap_err();
    assert!(error.severity == Severity::Passing && error.message.contains("begins at 6"), "{error}");
    writer.commit(&nothing).unwrap();
    let limit = Instant::now() + LIMIT;
    // The partition learns of the commit a little later.
    while waiting.restore(1, Some(1), &mut |_| false).is_err() {
        assert!(Instant::now() < limit);
    }
    let with_open = [&all[1..], &[Some("open".to_owned())]].concat();
    assert_eq!(read(&mut waiting, Some(1), 100), (8, with_open));
    let mut records = Vec::new();
    let limit = Instant::now() + LIMIT;
    while records.is_empty() {
        assert!(Instant::now() < limit);
        tail.poll(STEP, 1 << 20, &mut records).unwrap();
    }
    assert_eq!(records[0].value.as_deref(), Some(b"open".as_slice()));
    assert_eq!((records.len(), records[0].slot), (1, Slot(1)));
}

#[test]
fn lag_is_known_and_ends_at_nothing() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "lag", 1);
    let mut writer = sink(&connection, &topic, Some(TransactionSettings::default()));
    writer.begin().unwrap();
    (0..10).for_each(|i| writer.send(record("k", "v", None), Receipt(i)).unwrap());
    writer.commit(&Transaction { positions: Vec::new(), group: None }).unwrap();
    let mut reading = Reading::join(&connection, &topic, &unique("group"));
    reading.until("all records", |reading| reading.records.len() >= 10);
    let slot = reading.records[0].slot;
    let limit = Instant::now() + LIMIT;
    // There is a mark after the ten records, and yet nothing is behind.
    loop {
        let lags = reading.source.lags();
        if lags.iter().any(|lag| lag.slot == slot && lag.end == 10) {
            break;
        }
        assert!(Instant::now() < limit, "{lags:?}");
        reading.step(STEP);
    }
    reading.source.pause(&[slot]);
    write(&mut sink(&connection, &topic, None), (0..5).map(|_| record("k", "v", None)));
    reading.source.resume(&[slot]);
    reading.until("the rest", |reading| reading.records.len() >= 15);
    let limit = Instant::now() + LIMIT;
    while !reading.source.lags().iter().any(|lag| lag.slot == slot && lag.end == 16) {
        assert!(Instant::now() < limit, "{:?}", reading.source.lags());
        reading.step(STEP);
    }
}

#[test]
fn what_is_missing_or_too_large_is_said() {
    let Some(connection) = broker() else { return };
    let name = unique("missing");
    let check = |message: &str, parts: [&str; 2]| {
        parts.into_iter().for_each(|part| assert!(message.contains(part), "{message}, expected {part}"));
    };
    let settings =
        SourceSettings { topics: vec![name.clone()], group: name.clone(), ..SourceSettings::default() };
    let error = KafkaSource::join(&connection, &settings).unwrap_err();
    assert_eq!(error.severity, Severity::Fatal);
    check(&error.message, [name.as_str(), "there is no topic"]);
    let settings = SinkSettings { dead_letters: Some(name.clone()), ..SinkSettings::default() };
    check(&KafkaSink::open(&connection, &settings).unwrap_err().message, [name.as_str(), "dead_letters"]);
    let error = KafkaRestore::open(&connection, &name, "g", &BTreeMap::new()).unwrap_err();
    check(&error.message, [name.as_str(), "there is no topic"]);
    let run = Replay { topic: topic(&connection, "two", 2), partitions: Some(vec![2]), ..Replay::default() };
    check(
        &KafkaSource::replay(&connection, &run).unwrap_err().message,
        ["no partition 2", run.topic.as_str()],
    );

    let mut writer = sink(&connection, &run.topic, None);
    let large = Outgoing { value: Some(Bytes::from(vec![0; 2 << 20])), ..record("k", "", None) };
    let error = writer.send(large, Receipt(0)).unwrap_err();
    assert_eq!(error.severity, Severity::Record);
    check(&error.message, [run.topic.as_str(), "max.message.bytes"]);
    let error = writer.send(record("k", "", Some(2)), Receipt(0)).unwrap_err();
    check(&error.message, [run.topic.as_str(), "partition 2"]);
    let error =
        writer.send(Outgoing { output: Output::Dead, ..record("k", "", None) }, Receipt(0)).unwrap_err();
    check(&error.message, ["no topic is set", "dead_letters"]);
    write(&mut writer, [record("k", "small", None)]);
}

#[test]
fn a_member_with_a_name_keeps_its_partitions() {
    let Some(connection) = broker() else { return };
    let topic = topic(&connection, "static", 2);
    let group = unique("group");
    let check = |protocol: Protocol| {
        let group = format!("{group}-{protocol:?}");
        let join = |instance: &str| {
            Reading::with(&connection, &topic, &group, |settings| {
                settings.protocol = protocol;
                settings.instance = Some(instance.to_owned());
            })
        };
        let (mut first, mut second) = (join("one"), join("two"));
        let limit = Instant::now() + LIMIT;
        while first.held.len() != 1 || second.held.len() != 1 {
            assert!(Instant::now() < limit, "{protocol:?}: {:?}, {:?}", first.events, second.events);
            for one in [&mut first, &mut second] {
                let n_events = one.events.len();
                one.step(STEP);
                for event in &one.events[n_events..] {
                    if let Event::Revoking(slots) = event {
                        one.source.give_up(slots).unwrap();
                    }
                }
            }
        }
        let held = |one: &Reading| one.source.partition(*one.held.first().unwrap()).clone();
        let before = held(&second);
        drop(second);
        let mut second = join("two");
        let limit = Instant::now() + LIMIT;
        while second.held.len() != 1 {
            assert!(Instant::now() < limit, "{protocol:?}: {:?}", second.events);
            first.step(STEP);
            second.step(STEP);
        }
        assert_eq!(held(&second), before, "{protocol:?}");
        assert_eq!(first.held.len(), 1, "{protocol:?}");
    };
    check(Protocol::Classic);
    check(Protocol::Consumer);
}

#[test]
fn brokers_that_are_not_there_are_named() {
    let settings = ConnectionSettings {
        brokers: "127.0.0.1:1".to_owned(),
        timeout_ms: 1_000,
        ..ConnectionSettings::default()
    };
    let connection = Connection::new(&settings, &|_| None).unwrap();
    let topics = Arc::new(Topics::new(&connection).unwrap());
    let error = topics.partitions("some").unwrap_err();
    assert_eq!(error.severity, Severity::Fatal);
    assert!(error.message.contains("127.0.0.1:1") && error.message.contains("some"), "{error}");
}
