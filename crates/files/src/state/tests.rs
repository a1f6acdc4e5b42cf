use proptest::prelude::*;
use salver_records::Output;

use super::*;

fn outgoing(partition: i32, key: &[u8], value: Option<&[u8]>) -> Outgoing {
    Outgoing {
        output: Output::Changelog,
        partition: Some(partition),
        key: Some(Bytes::copy_from_slice(key)),
        value: value.map(Bytes::copy_from_slice),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// What the log holds of each key at the end.
fn restored(output: &Path, part: StatePart, partition: i32) -> HashMap<Vec<u8>, Vec<u8>> {
    let progress = Progress { state: part, ..Progress::default() };
    let mut log = StateLog::new(output, &progress, 2);
    let mut all = HashMap::new();
    let mut before = -1;
    let next = log
        .restore(partition, None, &mut |record| {
            let Some(record) = record else { return true };
            assert!(record.offset > before);
            before = record.offset;
            let key = record.key.unwrap().to_vec();
            match record.value {
                Some(value) => drop(all.insert(key, value.to_vec())),
                None => drop(all.remove(&key)),
            }
            true
        })
        .unwrap();
    assert_eq!(next, part.next);
    all
}

proptest! {
    /// Committed records are found again, others not, also after the log was rewritten and after a restart.
    #[test]
    fn holds_what_was_committed(steps in prop::collection::vec(
        prop::collection::vec((0..2i32, 0..5u8, prop::option::of(0..9u8)), 0..8), 0..20),
        aborted in prop::collection::vec(any::<bool>(), 20), reopened in prop::collection::vec(any::<bool>(), 20))
    {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let mut part = StatePart::default();
        let mut file = StateFile::with_bound(&output, part, 300).unwrap();
        let mut expected = [HashMap::new(), HashMap::new()];
        for (index, records) in steps.iter().enumerate() {
            for &(partition, key, value) in records {
                let value = value.map(|value| vec![value; 3]);
                file.append(&outgoing(partition, &[key], value.as_deref())).unwrap();
            }
            if aborted[index] {
                if index % 2 == 0 {
                    file.seal(false).unwrap();
                }
                file.abort(part).unwrap();
            } else {
                part = file.seal(false).unwrap();
                file.accept().unwrap();
                for &(partition, key, value) in records {
                    match value {
                        Some(value) => drop(expected[partition as usize].insert(vec![key], vec![value; 3])),
                        None => drop(expected[partition as usize].remove(&vec![key])),
                    }
                }
            }
            if reopened[index] {
                drop(file);
                file = StateFile::with_bound(&output, part, 300).unwrap();
            }
        }
        for partition in 0..2 {
            prop_assert_eq!(&restored(&output, part, partition), &expected[partition as usize]);
        }
        prop_assert!(part.bytes < 1500);
    }

    /// Damage is told, whatever it is, or harmless; never a panic, never memory for what a length claims.
    #[test]
    fn damage_is_told(at in 0usize..200, byte: u8) {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let mut file = StateFile::open(&output, StatePart::default()).unwrap();
        for key in 0..6u8 {
            file.append(&outgoing(0, &[key], Some(b"value"))).unwrap();
        }
        let part = file.seal(false).unwrap();
        drop(file);
        let state = path(&output, 0);
        let mut bytes = fs::read(&state).unwrap();
        let at = at % bytes.len();
        let before = std::mem::replace(&mut bytes[at], byte);
        fs::write(&state, &bytes).unwrap();
        let progress = Progress { state: part, ..Progress::default() };
        let result = StateLog::new(&output, &progress, 1).restore(0, None, &mut |_| true);
        prop_assert_eq!(result.is_ok(), before == byte);
    }
}
