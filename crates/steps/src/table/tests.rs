use proptest::prelude::*;

use super::*;

/// A topic of two partitions.
#[derive(Debug, Default)]
struct Topic {
    partitions: [Vec<Record>; 2],
    reads: u64,
}

impl Restore for Topic {
    fn restore(
        &mut self,
        partition: i32,
        from: Option<i64>,
        each: &mut dyn FnMut(Option<Record>) -> bool,
    ) -> Result<i64, salver_records::Error> {
        let records = &self.partitions[partition as usize];
        for record in records.iter().filter(|record| record.offset >= from.unwrap_or(0)) {
            self.reads += 1;
            if !each(Some(record.clone())) {
                break;
            }
        }
        Ok(records.len() as i64)
    }

    fn n_partitions(&mut self) -> Result<i32, salver_records::Error> {
        Ok(2)
    }
}

fn record(offset: i64, key: Option<u8>, value: Option<u8>) -> Record {
    let header =
        |value: Option<u8>| Header { name: "h".into(), value: value.map(|value| vec![value].into()) };
    Record {
        slot: Slot(3),
        offset,
        key: key.map(|key| vec![key].into()),
        value: value.map(|value| vec![value; 3].into()),
        headers: vec![header(value), header(None)],
        timestamp_ms: value.map(i64::from),
    }
}

proptest! {
    #[test]
    fn the_last_record_of_each_key(
        first in prop::collection::vec((0u8..6, prop::option::of(0u8..9)), 0..40),
        later in prop::collection::vec((0u8..6, prop::option::of(0u8..9)), 0..40),
        on_disk: bool, small: bool)
    {
        let folder = tempfile::tempdir().unwrap();
        let dir = on_disk.then(|| folder.path().to_path_buf());
        // A small table on disk is stored at each step.
        let max_bytes = if small && on_disk { 0 } else { 1 << 20 };
        let settings = TableSettings { dir, max_bytes, ..TableSettings::of("topic") };
        let mut topic = Topic::default();
        let mut expected = HashMap::new();
        let mut take = |topic: &mut Topic, key: u8, value: Option<u8>| {
            let partition = &mut topic.partitions[usize::from(key % 2)];
            let record = record(partition.len() as i64, Some(key), value);
            partition.push(record.clone());
            match value {
                Some(_) => drop(expected.insert(key, record.clone())),
                None => drop(expected.remove(&key)),
            }
            record
        };
        for &(key, value) in &first {
            take(&mut topic, key, value);
        }
        let mut table = Table::open(&settings).unwrap();
        table.fill(&mut topic, &|| true).unwrap();
        for &(key, value) in &later {
            let record = take(&mut topic, key, value);
            table.apply(record).unwrap();
        }
        for round in 0..2 {
            for key in 0..6 {
                prop_assert_eq!(&table.get(&[key]).unwrap(), &expected.get(&key).cloned(), "round {}", round);
            }
            drop(table);
            table = Table::open(&settings).unwrap();
            topic.reads = 0;
            let (n_records, ends) = table.fill(&mut topic, &|| true).unwrap();
            prop_assert_eq!(n_records, topic.reads);
            prop_assert_eq!(ends, [topic.partitions[0].len() as i64, topic.partitions[1].len() as i64]);
            if on_disk {
                let at_most = if round == 0 { later.len() as u64 } else { 0 };
                prop_assert!(n_records <= at_most);
            }
        }
    }

    #[test]
    fn hostile_bytes(bytes: Vec<u8>, key: Vec<u8>) {
        if let Ok(record) = decode(key.into(), &bytes.clone().into()) {
            prop_assert!(record.value.unwrap().len() <= bytes.len());
        }
    }
}

#[test]
fn bounds() {
    let keys = TableSettings { max_keys: 2, ..TableSettings::of("topic") };
    let mut table = Table::open(&keys).unwrap();
    for key in [1, 2, 2] {
        table.apply(record(0, Some(key), Some(7))).unwrap();
    }
    assert_eq!(table.apply(record(0, Some(3), Some(7))).unwrap_err().kind(), ErrorKind::Full);
    table.apply(record(0, Some(1), None)).unwrap();
    table.apply(record(0, Some(3), Some(7))).unwrap();
    table.apply(record(0, None, Some(7))).unwrap();
    assert_eq!(table.n_keys(), 2);
    let mut table = Table::open(&TableSettings { max_bytes: 300, ..TableSettings::of("topic") }).unwrap();
    let mut apply = |key| table.apply(record(0, Some(key), Some(7)));
    assert!((0..100).find_map(|key| apply(key).err()).is_some_and(|error| error.kind() == ErrorKind::Full));
}

/// A topic made anew may be longer than it was in one partition and shorter in another.
#[test]
fn a_topic_that_was_made_anew_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TableSettings { dir: Some(folder.path().into()), ..TableSettings::of("topic") };
    let fill = |partitions: [Vec<Record>; 2]| {
        let mut table = Table::open(&settings).unwrap();
        let mut topic = Topic { partitions, reads: 0 };
        let (_, ends) = table.fill(&mut topic, &|| true).unwrap();
        assert_eq!(ends, topic.partitions.map(|records| records.len() as i64));
        [1, 2, 3].map(|key| table.get(&[key]).unwrap().is_some())
    };
    let of = |key: u8, n: i64| (0..n).map(|offset| record(offset, Some(key), Some(7))).collect::<Vec<_>>();
    assert_eq!(fill([of(1, 2), of(2, 2)]), [true, true, false]);
    assert_eq!(fill([of(3, 3), of(2, 1)]), [false, true, true]);
}

/// What is stored already is no more by being replaced.
#[test]
fn a_full_table_on_disk_takes_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Some(folder.path().into());
    let mut table = Table::open(&TableSettings { dir, max_keys: 2, ..TableSettings::of("topic") }).unwrap();
    table.apply(record(0, Some(1), Some(7))).unwrap();
    table.store(None).unwrap();
    for (key, value) in [(1, 8), (2, 7), (1, 9), (2, 8)] {
        table.apply(record(0, Some(key), Some(value))).unwrap();
    }
    assert_eq!(table.apply(record(0, Some(3), Some(7))).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(table.get(&[1]).unwrap(), Some(record(0, Some(1), Some(9))));
}

#[test]
fn filling_may_be_called_off_and_begun_again() {
    let mut topic = Topic::default();
    topic.partitions[0].extend((0..5).map(|offset| record(offset, Some(0), Some(7))));
    let mut table = Table::open(&TableSettings::of("topic")).unwrap();
    let n_asked = std::cell::Cell::new(0);
    let is_wanted = || {
        n_asked.set(n_asked.get() + 1);
        n_asked.get() < 3
    };
    let error = table.fill(&mut topic, &is_wanted).unwrap_err();
    assert_eq!((error.severity(), n_asked.get()), (Severity::Passing, 3), "{error}");
    assert_eq!(table.fill(&mut topic, &|| true).unwrap(), (5, vec![5, 0]));
}
