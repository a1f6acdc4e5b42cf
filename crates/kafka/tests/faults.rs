//! Faults of brokers, by the client library's own mock of them.
//!
//! The mock speaks the real protocol over loopback, and keeps records. It does not write the marks of transactions, so what
//! readers see of them is shown by `broker.rs` alone.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and in limited time"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use salver_kafka::{
    Connection, ConnectionSettings, KafkaSink, KafkaSource, Protocol, SinkSettings, SourceSettings, Start,
    TransactionSettings,
};
use salver_records::{
    Delivery, Event, Outgoing, Output, Position, Receipt, Record, Severity, Sink, Slot, Source, Transaction,
};

const LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);
const TOPIC: &str = "t";

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> (Cluster, Connection) {
    cluster_with(partitions, ConnectionSettings::default())
}

fn cluster_with(partitions: i32, settings: ConnectionSettings) -> (Cluster, Connection) {
    cluster_of(1, partitions, settings)
}

fn cluster_of(n_brokers: i32, partitions: i32, settings: ConnectionSettings) -> (Cluster, Connection) {
    let cluster = MockCluster::new(n_brokers).unwrap();
    cluster.create_topic(TOPIC, partitions, 1).unwrap();
    let settings = ConnectionSettings { brokers: cluster.bootstrap_servers(), ..settings };
    let connection = Connection::new(&settings, &|_| None).unwrap();
    (cluster, connection)
}

fn sink(connection: &Connection, transactions: Option<TransactionSettings>) -> KafkaSink {
    let settings = SinkSettings { topic: Some(TOPIC.to_owned()), transactions, ..SinkSettings::default() };
    KafkaSink::open(connection, &settings).unwrap()
}

fn source(connection: &Connection) -> KafkaSource {
    source_from(connection, Start::Earliest)
}

fn source_from(connection: &Connection, start: Start) -> KafkaSource {
    let settings = SourceSettings {
        start,
        topics: vec![TOPIC.to_owned()],
        group: "g".to_owned(),
        protocol: Protocol::Classic,
        session_timeout_ms: 6_000,
        ..SourceSettings::default()
    };
    KafkaSource::join(connection, &settings).unwrap()
}

fn record(value: &str) -> Outgoing {
    Outgoing {
        output: Output::Main,
        partition: Some(0),
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn delivery(sink: &mut KafkaSink) -> Delivery {
    let mut deliveries = Vec::new();
    let limit = Instant::now() + LIMIT;
    while deliveries.is_empty() {
        assert!(Instant::now() < limit);
        sink.deliveries(STEP, &mut deliveries);
    }
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

#[derive(Default)]
struct Read {
    records: Vec<Record>,
    events: Vec<Event>,
}

impl Read {
    fn until(&mut self, source: &mut KafkaSource, is_done: impl Fn(&Read) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !is_done(self) {
            assert!(Instant::now() < limit, "{:?}", self.events);
            let n_events = self.events.len();
            // What passes is told for information.
            let polled = source.poll(STEP, 1 << 20, &mut self.records, &mut self.events);
            polled.unwrap_or_else(|error| assert_eq!(error.severity, Severity::Passing, "{error}"));
            for event in &self.events[n_events..] {
                if let Event::Assigned(all) = event {
                    source.resume(&all.iter().map(|one| one.slot).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn a_record_is_tried_again_and_refused_for_what_it_is() {
    let (cluster, connection) = cluster(1);
    let mut sink = sink(&connection, None);
    let mut check = |errors: &[RDKafkaRespErr], expected: Result<(), Severity>| {
        cluster.request_errors(RDKafkaApiKey::Produce, errors);
        sink.send(record("v"), Receipt(7)).unwrap();
        let found = delivery(&mut sink);
        assert_eq!(found.receipt, Receipt(7));
        assert_eq!(found.result.map_err(|error| error.severity), expected, "{errors:?}");
    };
    check(&[], Ok(()));
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 3], Ok(()));
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE], Err(Severity::Record));
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED], Err(Severity::Fatal));
}

#[test]
fn a_broker_that_is_away_for_a_while_costs_nothing_but_time() {
    let (cluster, connection) = cluster(1);
    let mut sink = sink(&connection, None);
    let mut source = source(&connection);
    let mut read = Read::default();
    sink.send(record("before"), Receipt(0)).unwrap();
    read.until(&mut source, |read| !read.records.is_empty());
    delivery(&mut sink).result.unwrap();

    cluster.broker_down(1).unwrap();
    sink.send(record("while away"), Receipt(1)).unwrap();
    let mut none = Vec::new();
    sink.deliveries(STEP, &mut none);
    assert_eq!(none, []);
    let trouble = Instant::now() + LIMIT;
    while source.poll(STEP, 1 << 20, &mut read.records, &mut read.events).is_ok() {
        assert!(Instant::now() < trouble, "nothing was said of it");
    }
    cluster.broker_up(1).unwrap();
    assert_eq!(delivery(&mut sink).receipt, Receipt(1));
    read.until(&mut source, |read| read.records.len() == 2);
}

#[test]
fn partitions_of_a_member_that_is_not_known_any_more_are_lost() {
    let (cluster, connection) = cluster(2);
    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| read.events.iter().any(|event| matches!(event, Event::Assigned(_))));
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    read.until(&mut source, |read| {
        let lost =
            read.events.iter().position(|event| matches!(event, Event::Lost(slots) if slots.len() == 2));
        lost.is_some_and(|lost| read.events[lost..].iter().any(|event| matches!(event, Event::Assigned(_))))
    });
    let revoked = read.events.iter().any(|event| matches!(event, Event::Revoking(_)));
    assert!(!revoked, "{:?}", read.events);
}

#[test]
fn a_group_is_joined_by_the_first_poll() {
    let (_cluster, connection) = cluster(2);
    let _not_ready_yet = source(&connection);
    let mut other = source(&connection);
    let mut read = Read::default();
    let all = |event: &Event| matches!(event, Event::Assigned(all) if all.len() == 2);
    read.until(&mut other, |read| read.events.iter().any(all));
}

#[test]
fn a_group_that_begins_at_the_newest_record_leaves_out_none_that_comes_later() {
    let (_cluster, connection) = cluster(1);
    let mut sink = sink(&connection, None);
    let mut write = |value: &str| {
        sink.send(record(value), Receipt(0)).unwrap();
        delivery(&mut sink).result.unwrap();
    };
    write("before the group");
    let mut first = source_from(&connection, Start::Latest);
    let mut read = Read::default();
    read.until(&mut first, |read| !read.events.is_empty());
    assert!(matches!(&read.events[0], Event::Assigned(all) if all[0].next == Some(1)), "{:?}", read.events);
    drop(first);
    write("while nobody reads");
    let mut second = source_from(&connection, Start::Latest);
    let mut read = Read::default();
    read.until(&mut second, |read| !read.records.is_empty());
    assert_eq!(read.records[0].value.as_deref(), Some(&b"while nobody reads"[..]));
    assert!(matches!(&read.events[0], Event::Assigned(all) if all[0].next == Some(1)), "{:?}", read.events);
}

#[test]
fn a_commit_fails_as_what_it_failed_of() {
    let (cluster, connection) = cluster(1);
    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| !read.events.is_empty());
    let mut next = 0;
    let mut check = |errors: &[RDKafkaRespErr], expected: Result<(), Severity>| {
        next += 1;
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, errors);
        let committed = source.commit(&[Position { slot: Slot(0), next }]).and_then(|()| source.settle());
        assert_eq!(committed.map_err(|error| error.severity), expected, "{errors:?}");
    };
    check(&[], Ok(()));
    // The first answer goes to the commit that is not waited for.
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS], Ok(()));
    // The group was about to go on with this member under another number.
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH; 2], Err(Severity::Passing));
    check(&[], Ok(()));
    check(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID; 2], Err(Severity::Fenced));
}

#[test]
fn a_transaction_fails_as_what_it_failed_of() {
    let (cluster, connection) = cluster(1);
    let nothing = Transaction { positions: Vec::new(), group: None };
    let named = || Some(TransactionSettings { id: Some("x".to_owned()), timeout_ms: 20_000 });
    let own = || Some(TransactionSettings { id: None, timeout_ms: 20_000 });
    let check = |settings,
                 key,
                 errors: &[RDKafkaRespErr],
                 expected: Result<(), Severity>,
                 after: Result<(), Severity>| {
        let mut sink = sink(&connection, settings);
        sink.begin().unwrap();
        sink.send(record("v"), Receipt(0)).unwrap();
        cluster.request_errors(key, errors);
        let committed = sink.commit(&nothing);
        assert_eq!(committed.map_err(|error| error.severity), expected, "{key:?} {errors:?}");
        cluster.clear_request_errors(key);
        let mut again = || {
            sink.abort()?;
            sink.begin()?;
            sink.send(record("w"), Receipt(1))?;
            sink.commit(&nothing)
        };
        // After a record was refused the library may throw away the first one of the next transaction, too.
        let again = again().or_else(|error| match error.severity {
            Severity::Transaction => again(),
            _ => Err(error),
        });
        let message = format!("{key:?} {errors:?}: {again:?}");
        assert_eq!(again.map_err(|error| error.severity), after, "{message}");
    };
    use RDKafkaRespErr as E;
    check(named(), RDKafkaApiKey::EndTxn, &[], Ok(()), Ok(()));
    check(
        named(),
        RDKafkaApiKey::EndTxn,
        &[E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 2],
        Ok(()),
        Ok(()),
    );
    check(
        named(),
        RDKafkaApiKey::EndTxn,
        &[E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED],
        Err(Severity::Fenced),
        Err(Severity::Fenced),
    );
    check(
        own(),
        RDKafkaApiKey::EndTxn,
        &[E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED],
        Err(Severity::Doubtful),
        Ok(()),
    );
    check(
        named(),
        RDKafkaApiKey::Produce,
        &[E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
        Err(Severity::Transaction),
        Ok(()),
    );
    // The brokers and the producer disagree: nobody else has the id, whether it is our own or was said.
    for settings in [named, own] {
        let check = |key, error, expected| check(settings(), key, &[error], Err(expected), Ok(()));
        let (produce, end) = (RDKafkaApiKey::Produce, RDKafkaApiKey::EndTxn);
        check(produce, E::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, Severity::Transaction);
        check(produce, E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Severity::Transaction);
        check(end, E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Severity::Transaction);
        check(end, E::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, Severity::Doubtful);
    }
    check(
        named(),
        RDKafkaApiKey::EndTxn,
        &[E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED],
        Err(Severity::Fatal),
        Err(Severity::Fatal),
    );
}

#[test]
fn a_transaction_that_the_group_refuses_is_aborted() {
    let (cluster, connection) = cluster(1);
    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| !read.events.is_empty());
    let positions = |source: &KafkaSource| Transaction {
        positions: vec![(source.partition(Slot(0)).clone(), 5)],
        group: source.group(),
    };
    let mut sink = sink(&connection, Some(TransactionSettings::default()));
    let mut check = |key, errors: &[RDKafkaRespErr], expected: Result<(), Severity>| {
        sink.begin().unwrap();
        cluster.request_errors(key, errors);
        let committed = sink.commit(&positions(&source));
        assert_eq!(committed.clone().map_err(|error| error.severity), expected, "{errors:?} {committed:?}");
        sink.abort().unwrap();
    };
    use RDKafkaRespErr as E;
    let (add, commit) = (RDKafkaApiKey::AddOffsetsToTxn, RDKafkaApiKey::TxnOffsetCommit);
    check(commit, &[], Ok(()));
    check(commit, &[E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS], Ok(()));
    // It is asked again after half a second: these are for longer than any other call takes at a time.
    check(commit, &[E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 6], Ok(()));
    check(commit, &[E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION], Err(Severity::Doubtful));
    check(commit, &[E::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID], Err(Severity::Doubtful));
    check(commit, &[E::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE], Err(Severity::Transaction));
    check(add, &[E::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE], Err(Severity::Transaction));
    check(commit, &[], Ok(()));
}

#[test]
fn a_coordinator_of_the_group_that_is_away_is_waited_for() {
    let (cluster, connection) = cluster(1);
    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| !read.events.is_empty());
    let positions =
        Transaction { positions: vec![(source.partition(Slot(0)).clone(), 5)], group: source.group() };
    let mut sink =
        sink(&connection, Some(TransactionSettings { id: Some("x".to_owned()), timeout_ms: 2_000 }));
    let mut commit = || {
        sink.begin().unwrap();
        sink.send(record("v"), Receipt(0)).unwrap();
        let committed = sink.commit(&positions).map_err(|error| error.severity);
        sink.abort().unwrap();
        committed
    };
    assert_eq!(commit(), Ok(()));
    let key = RDKafkaApiKey::TxnOffsetCommit;
    cluster.request_errors(key, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 1000]);
    // More than once: after one such transaction the client may throw away what comes first in the next.
    for _ in 0..4 {
        assert_eq!(commit(), Err(Severity::Passing));
    }
    cluster.clear_request_errors(key);
    let limit = Instant::now() + LIMIT;
    while let Err(severity) = commit() {
        assert!(severity == Severity::Passing && Instant::now() < limit, "{severity:?}");
    }
}

#[test]
fn a_leader_that_is_away_for_longer_than_a_transaction_is_waited_for() {
    let (cluster, connection) = cluster_of(2, 1, ConnectionSettings::default());
    cluster.partition_leader(TOPIC, 0, Some(2)).unwrap();
    cluster.coordinator(MockCoordinator::Transaction("x".to_owned()), 1).unwrap();
    let mut sink =
        sink(&connection, Some(TransactionSettings { id: Some("x".to_owned()), timeout_ms: 2_000 }));
    let nothing = Transaction { positions: Vec::new(), group: None };
    let mut commit = || {
        sink.begin().unwrap();
        let sent = sink.send(record("v"), Receipt(0));
        let committed = sent.and_then(|()| sink.commit(&nothing)).map_err(|error| error.severity);
        sink.abort().unwrap();
        committed
    };
    assert_eq!(commit(), Ok(()));
    cluster.broker_down(2).unwrap();
    for _ in 0..4 {
        assert_eq!(commit(), Err(Severity::Passing));
    }
    cluster.broker_up(2).unwrap();
    let limit = Instant::now() + LIMIT;
    while let Err(severity) = commit() {
        assert!(severity == Severity::Passing && Instant::now() < limit, "{severity:?}");
    }
}

#[test]
fn a_producer_that_brokers_disagree_with_is_replaced() {
    let (cluster, connection) = cluster(1);
    let mut sink = sink(&connection, None);
    let disagree = || {
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    };
    let found = |delivery: Delivery| (delivery.receipt, delivery.result.map_err(|error| error.severity));
    let mut next = 0;
    let mut send = |sink: &mut KafkaSink, value: &str| {
        next += 1;
        sink.send(record(value), Receipt(next)).map(|()| Receipt(next)).map_err(|error| error.severity)
    };
    let first = send(&mut sink, "0").unwrap();
    assert_eq!(found(delivery(&mut sink)), (first, Ok(())));
    // It is told by what became of a record.
    disagree();
    let receipt = send(&mut sink, "1").unwrap();
    assert_eq!(found(delivery(&mut sink)), (receipt, Err(Severity::Transaction)));
    let receipt = send(&mut sink, "1").unwrap();
    assert_eq!(found(delivery(&mut sink)), (receipt, Ok(())));
    // It is told by the next record, and nothing more is said of those before.
    disagree();
    send(&mut sink, "2").unwrap();
    drop(sink.flush());
    assert_eq!(send(&mut sink, "3"), Err(Severity::Transaction));
    let receipt = send(&mut sink, "2").unwrap();
    assert_eq!(found(delivery(&mut sink)), (receipt, Ok(())));
    let receipt = send(&mut sink, "3").unwrap();
    assert_eq!(found(delivery(&mut sink)), (receipt, Ok(())));

    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| read.records.len() >= 4);
    let values: Vec<_> = read.records.iter().map(|record| record.value.as_deref().unwrap()).collect();
    assert_eq!(values, [b"0", b"1", b"2", b"3"]);
}

#[test]
fn a_commit_without_an_answer_is_doubtful_and_another_producer_goes_on() {
    let settings = ConnectionSettings { timeout_ms: 1_000, ..ConnectionSettings::default() };
    let (cluster, connection) = cluster_with(1, settings);
    let nothing = Transaction { positions: Vec::new(), group: None };
    for id in [None, Some("x".to_owned())] {
        let mut sink = sink(&connection, Some(TransactionSettings { id, timeout_ms: 2_000 }));
        sink.begin().unwrap();
        sink.send(record("v"), Receipt(0)).unwrap();
        sink.flush().unwrap();
        // The coordinator is never there while the transaction may last.
        cluster.request_errors(
            RDKafkaApiKey::EndTxn,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 1000],
        );
        let committed = sink.commit(&nothing);
        assert_eq!(committed.map_err(|error| error.severity), Err(Severity::Doubtful));
        // While it is away the producer that takes over waits, and says so.
        cluster.broker_down(1).unwrap();
        assert_eq!(sink.abort().map_err(|error| error.severity), Err(Severity::Passing));
        assert_eq!(sink.begin().map_err(|error| error.severity), Err(Severity::Passing));
        cluster.broker_up(1).unwrap();
        cluster.clear_request_errors(RDKafkaApiKey::EndTxn);
        let limit = Instant::now() + LIMIT;
        while let Err(error) = sink.abort() {
            assert!(error.severity == Severity::Passing && Instant::now() < limit, "{error}");
        }
        sink.begin().unwrap();
        sink.send(record("w"), Receipt(1)).unwrap();
        sink.commit(&nothing).unwrap();
    }
}

#[test]
fn how_far_the_group_is_is_asked_anew() {
    let (_cluster, connection) = cluster(2);
    let mut source = source(&connection);
    let mut read = Read::default();
    read.until(&mut source, |read| !read.events.is_empty());
    let slots = [Slot(0), Slot(1)];
    assert_eq!(source.committed(&slots), Ok(Vec::new()));
    source.commit(&[Position { slot: Slot(1), next: 7 }]).unwrap();
    source.settle().unwrap();
    assert_eq!(source.committed(&slots), Ok(vec![Position { slot: Slot(1), next: 7 }]));
}
