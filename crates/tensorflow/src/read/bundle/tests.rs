#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::collections::HashMap;

use super::*;

/// Files in memory.
#[derive(Default, Clone)]
struct Memory(HashMap<String, Bytes>);

impl Files for Memory {
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(name).cloned())
    }
}

const INDEX: &[u8] = include_bytes!("../../../testdata/bundle.index");
const SHARD_0: &[u8] = include_bytes!("../../../testdata/bundle.data-00000-of-00002");
const SHARD_1: &[u8] = include_bytes!("../../../testdata/bundle.data-00001-of-00002");

fn files() -> Memory {
    let file = |name: &str, bytes: &'static [u8]| (name.to_owned(), Bytes::from_static(bytes));
    Memory(HashMap::from([
        file("v/bundle.index", INDEX),
        file("v/bundle.data-00000-of-00002", SHARD_0),
        file("v/bundle.data-00001-of-00002", SHARD_1),
    ]))
}

fn read_all(files: &Memory) -> Result<Vec<(String, Tensor)>, Error> {
    let bundle = Bundle::open(files, "v/bundle")?.expect("the index is there");
    let names: Vec<String> = bundle.names().map(str::to_owned).collect();
    let read = |name: String| {
        let tensor = bundle.read(&name)?.expect("the name is one of the index's");
        let entry = bundle.entry(&name)?.expect("it was read");
        assert_eq!((entry.dtype, &entry.shape), (tensor.dtype(), tensor.shape()));
        Ok((name, tensor))
    };
    names.into_iter().map(read).collect()
}

#[test]
fn all_tensors_are_read() {
    let tensors: HashMap<String, Tensor> = read_all(&files()).unwrap().into_iter().collect();
    assert_eq!(tensors.len(), 18);
    for dtype in DType::ALL.into_iter().filter(|&dtype| dtype != DType::String) {
        let tensor = &tensors[dtype.name()];
        assert_eq!((tensor.dtype(), tensor.shape().dims()), (dtype, [2, 3].as_slice()));
    }
    assert_eq!(*tensors["float32"].to_slice::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 100.0, 1.0]);
    assert_eq!(*tensors["int64"].to_slice::<i64>().unwrap(), [0, 1, 2, 3, 100, 1]);
    assert_eq!(tensors["bool"].bytes().unwrap().as_ref(), [0, 1, 1, 1, 1, 1]);
    let long = "bc".repeat(100);
    assert_eq!(tensors["text"].strings().unwrap(), ["", "a", long.as_str()]);
    assert_eq!(*tensors["scalar"].to_slice::<f32>().unwrap(), [2.5]);
    let parts: Vec<f32> = (0u8..24).map(f32::from).collect();
    assert_eq!(tensors["parts/é"].shape().dims(), [4, 6]);
    assert_eq!(*tensors["parts/é"].to_slice::<f32>().unwrap(), parts);
}

#[test]
fn the_elements_are_a_slice_of_the_shard() {
    let files = files();
    let tensor = Bundle::open(&files, "v/bundle").unwrap().unwrap().read("float64").unwrap().unwrap();
    let shard = files.0["v/bundle.data-00000-of-00002"].as_ptr_range();
    assert!(shard.contains(&tensor.bytes().unwrap().as_ptr()));
}

#[test]
fn what_is_not_there_is_none() {
    let files = files();
    assert!(Bundle::open(&files, "w/bundle").unwrap().is_none());
    let bundle = Bundle::open(&files, "v/bundle").unwrap().unwrap();
    assert_eq!(bundle.read("nothing").unwrap(), None);
    assert_eq!(bundle.entry("").unwrap(), None);
}

#[test]
fn damage_names_the_tensor_and_the_shard() {
    let check = |change: &dyn Fn(&mut Memory), message: &str| {
        let mut files = files();
        change(&mut files);
        assert_eq!(read_all(&files).unwrap_err().to_string(), message);
    };
    let shard_0 = "v/bundle.data-00000-of-00002";
    check(
        &|files| drop(files.0.remove(shard_0)),
        "variable 'bfloat16': there is no shard v/bundle.data-00000-of-00002",
    );
    check(
        &|files| files.0.get_mut(shard_0).unwrap().truncate(5),
        "variable 'bfloat16': v/bundle.data-00000-of-00002: the tensor's 12 bytes at 222 go beyond the end of the shard, \
         which has 5 bytes",
    );
    check(
        &|files| {
            let mut bytes = SHARD_0.to_vec();
            bytes[225] ^= 1;
            files.0.insert(shard_0.to_owned(), bytes.into());
        },
        "variable 'bfloat16': v/bundle.data-00000-of-00002: checksum is 0xdf4b1486, expected 0x32dcacab",
    );
}

/// An index cut anywhere, or with any byte changed, is refused or gives what it gave before.
#[test]
fn a_damaged_index_never_panics() {
    let whole = read_all(&files()).unwrap();
    for at in 0..INDEX.len() {
        let mut files = files();
        files.0.insert("v/bundle.index".to_owned(), Bytes::copy_from_slice(&INDEX[..at]));
        assert!(read_all(&files).unwrap_err().to_string().starts_with("v/bundle.index: "), "cut at {at}");
        let mut bytes = INDEX.to_vec();
        bytes[at] ^= 0x41;
        files.0.insert("v/bundle.index".to_owned(), bytes.into());
        if let Ok(tensors) = read_all(&files) {
            assert_eq!(tensors, whole, "byte {at}");
        }
    }
}

#[test]
fn a_shard_with_any_byte_changed_is_refused() {
    for (name, shard) in
        [("v/bundle.data-00000-of-00002", SHARD_0), ("v/bundle.data-00001-of-00002", SHARD_1)]
    {
        for at in 0..shard.len() {
            let mut files = files();
            let mut bytes = shard.to_vec();
            bytes[at] ^= 0x10;
            files.0.insert(name.to_owned(), bytes.into());
            assert!(read_all(&files).is_err(), "byte {at} of {name}");
        }
    }
}

#[test]
fn numbers_are_coded_in_order() {
    let check = |number: i64, code: &[u8]| {
        let mut key = Vec::new();
        push_signed(&mut key, number);
        assert_eq!(key, code, "{number}");
    };
    check(0, &[0x80]);
    check(63, &[0xbf]);
    check(64, &[0xc0, 0x40]);
    check(-1, &[0x7f]);
    check(-64, &[0x40]);
    check(-65, &[0x3f, 0xbf]);
    check(i64::MAX, &[0xff, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
}
