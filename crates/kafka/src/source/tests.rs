//! What brokers cannot be made to do from outside, over the client library's own mock of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::mocking::MockCluster;
use salver_records::{Outgoing, Output, Receipt, Sink};

use super::*;
use crate::settings::Isolation;
use crate::{Connection, ConnectionSettings, KafkaSink, SinkSettings};

#[test]
fn what_cannot_be_resumed_is_resumed_later_from_where_it_was() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let settings =
        ConnectionSettings { brokers: cluster.bootstrap_servers(), ..ConnectionSettings::default() };
    let connection = Connection::new(&settings, &|_| None).unwrap();
    let settings = SinkSettings { topic: Some("t".to_owned()), ..SinkSettings::default() };
    let mut sink = KafkaSink::open(&connection, &settings).unwrap();
    let mut write = |values: &[&'static str]| {
        for value in values {
            let record = Outgoing {
                output: Output::Main,
                partition: Some(0),
                key: None,
                value: Some(Bytes::from_static(value.as_bytes())),
                headers: Vec::new(),
                timestamp_ms: None,
            };
            sink.send(record, Receipt(0)).unwrap();
        }
        sink.flush().unwrap();
    };
    write(&["0", "1", "2", "3", "4"]);

    let config = reading(&connection, "g", Isolation::ReadUncommitted, 1 << 20, &BTreeMap::new()).unwrap();
    let consumer = group::consumer(&config, "there").unwrap();
    let mode = Mode::Replay(Positions::Forgotten);
    let mut source = KafkaSource::new(consumer, mode, "there".to_owned(), Duration::from_secs(10));
    let slot = source.slots.number("t", 0);
    let entry = source.slots.get_mut(slot);
    (entry.state, entry.missed) = (State::Paused, Some(3));
    // The client does not have it yet.
    source.resume(&[slot]);
    let entry = source.slots.get(slot);
    assert_eq!((entry.state, entry.missed), (State::Paused, Some(3)));

    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(0)).unwrap();
    source.consumer.assign(&list).unwrap();
    source.consumer.pause(&list).unwrap();
    let (mut records, mut events) = (Vec::new(), Vec::new());
    let until = Deadline::after(Duration::from_secs(60));
    let mut poll = |source: &mut KafkaSource, records: &mut Vec<Record>| {
        assert!(!until.is_over());
        if let Err(error) = source.poll(Duration::from_millis(100), 1 << 20, records, &mut events) {
            assert_eq!(error.severity, Severity::Passing, "{error}");
        }
    };
    let offsets = |records: &[Record]| records.iter().map(|record| record.offset).collect::<Vec<_>>();
    while records.len() < 2 {
        poll(&mut source, &mut records);
    }
    assert_eq!(offsets(&records), [3, 4]);

    // The client goes back without having been asked to.
    let back = |source: &KafkaSource| {
        source.consumer.seek_partitions(list.clone(), Duration::from_secs(10)).unwrap();
    };
    back(&source);
    write(&["5"]);
    while records.len() < 3 {
        poll(&mut source, &mut records);
    }
    assert_eq!(offsets(&records), [3, 4, 5]);
    // Again and again: then the records are told.
    while records.len() < 4 {
        back(&source);
        poll(&mut source, &mut records);
    }
    assert_eq!(offsets(&records[..4]), [3, 4, 5, 0]);
}
