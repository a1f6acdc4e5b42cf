use proptest::prelude::*;

use super::*;
use crate::message::{Load, Loaded, Run};

fn check<T: Wire + PartialEq + fmt::Debug>(value: &T) {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    assert_eq!(read::<T>(&bytes).as_ref(), Ok(value));
    for end in 0..bytes.len() {
        assert!(read::<T>(&bytes[..end]).is_err(), "{end} of {} bytes of {value:?}", bytes.len());
    }
    bytes.push(0);
    assert!(read::<T>(&bytes).is_err(), "a byte more than {value:?}");
}

fn spec(name: &str, dtype: DType, dims: Dims, default: Option<Tensor>) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: format!("{name}:0").into(), dtype, dims, default }
}

fn loaded() -> Loaded {
    let words = vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(&[0xff, 0])];
    let words = Tensor::from_strings(Shape::new(&[3]).unwrap(), words).unwrap();
    let rate = Tensor::from_vec(Shape::scalar(), vec![0.5f32]).unwrap();
    let inputs = vec![
        spec("words", DType::String, Dims::new(vec![None]), Some(words)),
        spec("rate", DType::F32, Dims::new(vec![]), Some(rate)),
        spec("x", DType::BF16, Dims::new(vec![None, Some(3)]), None),
    ];
    let outputs = vec![spec("y", DType::C128, Dims::unknown(), None)];
    let declared = vec![spec("x", DType::F32, Dims::unknown(), None)];
    let plain = Signature::new("plain", "tensorflow/serving/predict", inputs.clone(), outputs.clone());
    let odd = Signature::new("odd", "", inputs, outputs.clone());
    let odd = odd.with_declared(declared, outputs).with_any_shape();
    let state = Signature::new("état", "m", vec![], vec![]).with_state();
    let refused = Error::new(ErrorKind::Unsupported, "no operator 'Foo'").at("node 'a'");
    Loaded {
        signatures: vec![plain.into(), odd.into(), state.into()],
        refused: vec![("train".into(), refused)],
        n_bytes: u64::MAX,
    }
}

fn load() -> Load {
    let path = PathBuf::from(OsString::from_vec(b"/models/caf\xc3\xa9/\xff/1".to_vec()));
    let mut options = LoadOptions::default();
    options.saved_model_tags = vec!["serve".to_owned(), "gpu".to_owned()];
    options.threads = 3.try_into().unwrap();
    options.n_lanes = 5.try_into().unwrap();
    options.precision = Precision::Int8;
    options.ranges = Some("/ranges.json".into());
    Load { engine: "rten".to_owned(), source: ModelSource { path, format: Format::SavedModel }, options }
}

#[test]
fn values_come_back() {
    check(&load());
    check(&loaded());
    check(&Run { signature: 7, outputs: vec![2, 0, 2].into() });
    DType::ALL.iter().for_each(check);
    Precision::ALL.iter().for_each(check);
    FORMATS.iter().for_each(check);
    for kind in ERROR_KINDS {
        check(&Error::new(kind, "what: happened"));
        check(&Error::new(kind, "").at("place"));
    }
}

/// A field that is added to the options must be added here too, or workers would not hear of it.
#[test]
fn all_options_travel() {
    let options = load().options;
    let fields = format!("{options:?}");
    let fields: Vec<_> = fields.split([' ', '{', '}']).filter_map(|word| word.strip_suffix(':')).collect();
    assert_eq!(fields, ["saved_model_tags", "threads", "n_lanes", "precision", "ranges"]);
    let default = LoadOptions::default();
    assert!(
        options.saved_model_tags != default.saved_model_tags
            && options.threads != default.threads
            && options.n_lanes != default.n_lanes
            && options.precision != default.precision
            && options.ranges != default.ranges,
        "the test's options differ from the default in all fields"
    );
}

#[test]
fn claimed_lengths_allocate_nothing() {
    let mut bytes = Vec::new();
    (u64::MAX / 2).put(&mut bytes);
    bytes.extend([1; 64]);
    assert!(read::<Vec<u8>>(&bytes).is_err());
    assert!(read::<Vec<(u64, Arc<str>)>>(&bytes).is_err());
    assert!(read::<Bytes>(&bytes).is_err());
    assert!(read::<Shape>(&bytes).is_err());
}

proptest! {
    /// Damaged messages are errors or other messages, never a panic.
    #[test]
    fn damaged_messages_are_refused_or_read(
        which in 0..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = Vec::new();
        if which == 0 { load().put(&mut bytes) } else { loaded().put(&mut bytes) }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match which {
            0 => drop(read::<Load>(&bytes)),
            _ => drop(read::<Loaded>(&bytes)),
        }
    }
}
