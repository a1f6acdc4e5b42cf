//! Files that are damaged, hostile, or ask for what is not here.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use salver_graph::{Error, ErrorKind};
use serde_json::{Value as Json, json};

use super::read;
use crate::import;

fn file(name: &str) -> Bytes {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name))
}

/// The members of a `.keras` file, packed again.
fn pack(members: &[(&str, &[u8])]) -> Bytes {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    Bytes::from(zip.finish().unwrap().into_inner())
}

fn member(file: &Bytes, name: &str) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(file)).unwrap();
    let mut content = Vec::new();
    std::io::copy(&mut zip.by_name(name).unwrap(), &mut content).unwrap();
    content
}

fn layer(class: &str, name: &str, config: &Json, inbound: &Json) -> Json {
    let mut config = config.clone();
    config["name"] = json!(name);
    config["trainable"] = json!(true);
    json!({"module": "keras.layers", "class_name": class, "name": name, "config": config, "inbound_nodes": inbound})
}

fn call(of: &str) -> Json {
    json!([{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": [of, 0, 0]}}], "kwargs": {}}])
}

/// A model `x -> layers`, without weights.
fn model(layers: &[Json], output: &str) -> Bytes {
    let input =
        layer("InputLayer", "x", &json!({"batch_shape": [null, 4, 3], "dtype": "float32"}), &json!([]));
    let mut all = vec![input];
    all.extend_from_slice(layers);
    let config = json!({"module": "keras", "class_name": "Functional", "config": {
        "name": "model", "layers": all, "input_layers": [["x", 0, 0]], "output_layers": [[output, 0, 0]],
    }});
    pack(&[
        ("config.json", config.to_string().as_bytes()),
        ("metadata.json", br#"{"keras_version": "3.0.0"}"#),
    ])
}

fn refused(file: &Bytes) -> Error {
    import(file, None).expect_err("refused")
}

#[track_caller]
fn check(file: &Bytes, kind: ErrorKind, parts: &[&str]) {
    let error = refused(file);
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "'{text}' does not say '{part}'");
    }
}

#[test]
fn what_is_not_a_model_is_refused() {
    check(&Bytes::from_static(b"hello"), ErrorKind::Invalid, &["neither HDF5 nor zip"]);
    check(&Bytes::from_static(b"\x89HDF\r\n\x1a\n"), ErrorKind::Invalid, &["cannot be read as HDF5"]);
    check(&pack(&[("hello.txt", b"hello")]), ErrorKind::Invalid, &["zip without config.json"]);
    check(&pack(&[("config.json", b"{")]), ErrorKind::Invalid, &["the model's configuration"]);
}

#[test]
fn weights_alone_need_their_architecture() {
    let whole = file("nest.keras");
    let weights = Bytes::from(member(&whole, "model.weights.h5"));
    check(&weights, ErrorKind::Invalid, &["weights without architecture", "model.to_json()"]);
    let config = member(&whole, "config.json");
    let model = import(&weights, Some(&config)).unwrap();
    let expected = import(&whole, None).unwrap();
    let names = |model: &salver_graph::Model| -> Vec<String> {
        model.signatures[0].outputs.iter().map(|port| port.name.clone()).collect()
    };
    assert_eq!(names(&model), names(&expected));
}

#[test]
fn code_is_refused_by_name() {
    let dense = json!({"units": 2});
    let cases = [
        ("Lambda", json!({"function": "lambda x: x"}), "Lambda layer holds Python code"),
        ("MyLayer", json!({}), "'MyLayer' is not one of Keras' own"),
        ("HashedCrossing", json!({"num_bins": 3}), "HashedCrossing"),
        ("Activation", json!({"activation": "my_function"}), "activation 'my_function'"),
        ("GRU", json!({"units": 2, "time_major": true}), "time_major"),
    ];
    for (class, config, part) in cases {
        let file = model(&[layer(class, "it", &config, &call("x"))], "it");
        check(&file, ErrorKind::Unsupported, &["layer 'it'", part]);
    }
    let mut custom = layer("Dense", "it", &dense, &call("x"));
    custom["module"] = json!("my_package.layers");
    check(&model(&[custom], "it"), ErrorKind::Unsupported, &["layer 'it'"]);
}

#[test]
fn a_broken_architecture_is_refused_at_its_layer() {
    let dense = json!({"units": 2});
    let circle = [layer("Dense", "a", &dense, &call("b")), layer("Dense", "b", &dense, &call("a"))];
    check(&model(&circle, "a"), ErrorKind::Invalid, &["in a circle"]);
    let itself = [layer("Dense", "a", &dense, &call("a"))];
    check(&model(&itself, "a"), ErrorKind::Invalid, &["in a circle", "layer 'a'"]);
    let twice = [layer("Dense", "a", &dense, &call("x")), layer("Dense", "a", &dense, &call("x"))];
    check(&model(&twice, "a"), ErrorKind::Invalid, &["two layers are called 'a'"]);
    check(
        &model(&[layer("Dense", "a", &dense, &call("nobody"))], "a"),
        ErrorKind::Invalid,
        &["no layer 'nobody'"],
    );
    check(
        &model(&[layer("Dense", "a", &dense, &call("x"))], "a"),
        ErrorKind::Invalid,
        &["layer 'a'", "no weights for 'kernel'"],
    );
    let wide = json!({"units": 1i64 << 60});
    check(
        &model(&[layer("Dense", "a", &wide, &call("x"))], "a"),
        ErrorKind::Invalid,
        &["layer 'a'", "units is 1152921504606846976"],
    );
    let bad = json!({"units": "two"});
    check(
        &model(&[layer("Dense", "a", &bad, &call("x"))], "a"),
        ErrorKind::Invalid,
        &["units is \"two\", expected an integer"],
    );
}

#[test]
fn sizes_are_bounded() {
    let huge = [
        ("ZeroPadding1D", json!({"padding": [1i64 << 60, 0]})),
        ("RepeatVector", json!({"n": 1i64 << 60})),
        ("Reshape", json!({"target_shape": [1i64 << 60]})),
        ("UpSampling1D", json!({"size": 1i64 << 60})),
        ("AdaptiveMaxPooling1D", json!({"output_size": 1i64 << 30})),
        ("MaxPooling1D", json!({"pool_size": 1i64 << 60})),
        ("CategoryEncoding", json!({"num_tokens": 1i64 << 60})),
        ("CategoryEncoding", json!({"num_tokens": (1i64 << 31) - 1})),
        ("UpSampling1D", json!({"size": 1i64 << 30})),
        ("ZeroPadding1D", json!({"padding": [1i64 << 30, 0]})),
    ];
    for (class, config) in huge {
        let error = refused(&model(&[layer(class, "it", &config, &call("x"))], "it"));
        assert!(error.to_string().contains("layer 'it'"), "{error}");
    }
    let input =
        layer("InputLayer", "x", &json!({"batch_shape": [null, 1i64 << 60], "dtype": "float32"}), &json!([]));
    let config = json!({"class_name": "Functional", "config": {
        "name": "model", "layers": [input], "input_layers": [["x", 0, 0]], "output_layers": [["x", 0, 0]],
    }});
    check(&pack(&[("config.json", config.to_string().as_bytes())]), ErrorKind::TooLarge, &["input 'x'"]);
}

/// A model of one layer on an input of the given type and shape.
fn on(dtype: &str, dims: &Json, class: &str, config: &Json) -> Bytes {
    let input = layer("InputLayer", "x", &json!({"batch_shape": dims, "dtype": dtype}), &json!([]));
    let layers = [input, layer(class, "it", config, &call("x"))];
    let config = json!({"module": "keras", "class_name": "Functional", "config": {
        "name": "model", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["it", 0, 0]],
    }});
    pack(&[
        ("config.json", config.to_string().as_bytes()),
        ("metadata.json", br#"{"keras_version": "3.0.0"}"#),
    ])
}

#[test]
fn rows_of_a_result_are_bounded() {
    let vector = json!([null, 4]);
    let cases = [
        ("float32", vector.clone(), "RepeatVector", json!({"n": 1i64 << 31})),
        ("float32", json!([null, 4, 4, 3]), "UpSampling2D", json!({"size": [1i64 << 30, 1i64 << 30]})),
        ("string", vector.clone(), "StringLookup", idf(json!({"num_oov_indices": (1i64 << 31) - 1}))),
        (
            "string",
            vector,
            "StringLookup",
            idf(json!({"max_tokens": (1i64 << 31) - 1, "pad_to_max_tokens": true})),
        ),
    ];
    for (dtype, dims, class, config) in cases {
        check(&on(dtype, &dims, class, &config), ErrorKind::TooLarge, &["layer 'it'"]);
    }
}

fn idf(mut config: Json) -> Json {
    config["vocabulary"] = json!(["a", "b"]);
    config["idf_weights"] = json!([1.0, 2.0]);
    config["output_mode"] = json!("tf_idf");
    config
}

#[test]
fn one_mean_is_broadcast_over_a_large_input() {
    let config = json!({"axis": [1, 2], "mean": 1.0, "variance": 4.0});
    let file = on("float32", &json!([null, 1 << 14, 1 << 14]), "Normalization", &config);
    let model = import(&file, None).unwrap();
    let held = model.signatures[0].graph.n_constant_bytes();
    assert!(held < 1 << 10, "{held} bytes of constants");
    let file = on("float32", &json!([null, 1 << 20, 1 << 20]), "Normalization", &config);
    check(&file, ErrorKind::TooLarge, &["layer 'it'", "more than 268435456 elements"]);
}

#[test]
fn salt_is_one_or_two_integers() {
    let config = json!({"vocabulary": ["a"], "num_oov_indices": 3, "salt": []});
    check(
        &on("string", &json!([null, 4]), "StringLookup", &config),
        ErrorKind::Invalid,
        &["layer 'it'", "salt []"],
    );
}

#[test]
fn pictures_without_height_are_refused() {
    let cases = [
        ("Resizing", json!({"height": 2, "width": 2, "interpolation": "nearest"})),
        ("Resizing", json!({"height": 2, "width": 2, "crop_to_aspect_ratio": true})),
        ("CenterCrop", json!({"height": 2, "width": 2})),
    ];
    for (class, config) in cases {
        check(
            &on("float32", &json!([null, 0, 4, 3]), class, &config),
            ErrorKind::Invalid,
            &["layer 'it'", "height or width of 0"],
        );
    }
}

#[test]
fn a_vocabulary_without_places_for_the_unknown_is_noted() {
    let config = json!({"vocabulary": ["a"], "num_oov_indices": 0});
    let model = import(&on("string", &json!([null, 4]), "StringLookup", &config), None).unwrap();
    assert!(model.notes.iter().any(|note| note.contains("'it'") && note.contains("becomes -1")));
}

#[test]
fn a_zip_bomb_is_refused() {
    let zeros = vec![0u8; 64 << 20];
    check(&pack(&[("config.json", &zeros)]), ErrorKind::TooLarge, &["'config.json'", "unpacks to more than"]);
}

#[test]
fn models_that_grow_without_end_are_refused() {
    // Each model calls the one inside twice: 2^24 calls.
    let mut inner = json!({"class_name": "Dropout", "config": {"rate": 0.1}});
    for depth in 0..24 {
        let mut layer = inner.clone();
        layer["name"] = json!("inner");
        layer["config"]["name"] = json!("inner");
        layer["inbound_nodes"] =
            json!([[["x", 0, 0, {}]], [["inner", if depth == 0 { 0 } else { 1 }, 0, {}]]]);
        inner = json!({"class_name": "Model", "config": {
            "name": "model",
            "layers": [
                {"class_name": "InputLayer", "name": "x", "config": {"batch_input_shape": [null, 3], "name": "x"}, "inbound_nodes": []},
                layer,
            ],
            "input_layers": [["x", 0, 0]],
            "output_layers": [["inner", if depth == 0 { 1 } else { 2 }, 0]],
        }});
    }
    let text = inner.to_string();
    let file = pack(&[("config.json", text.as_bytes()), ("metadata.json", br#"{"keras_version": "2.9.0"}"#)]);
    check(&file, ErrorKind::TooLarge, &["more than 200000 calls"]);
}

#[test]
fn truncated_files_are_refused() {
    for name in ["nest.keras", "nest.h5.zip", "keras2_rnn.h5.zip"] {
        let whole = file(name);
        for part in 0..64 {
            let cut = whole.slice(..whole.len() * part / 64);
            assert!(import(&cut, None).is_err(), "{name} cut to {} bytes", cut.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage anywhere is refused or changes numbers; it never panics.
    #[test]
    fn damaged_files_do_no_harm(
        which in 0usize..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let name = ["nest.h5.zip", "rnn.h5.zip", "keras2_layers.h5.zip", "text.keras", "dense.keras"][which];
        let mut bytes = file(name).to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Err(error) = import(&Bytes::from(bytes), None) {
            prop_assert!(!error.message().is_empty());
        }
    }

    /// The same for the architecture alone: numbers and words of the JSON changed.
    #[test]
    fn damaged_architectures_do_no_harm(
        which in 0usize..6,
        damage in prop::collection::vec((any::<prop::sample::Index>(), "[-0-9a-z\\[\\]{}\",: .]{0,3}"), 1..6),
    ) {
        let name = ["attention.keras", "conv13.keras", "rnn.keras", "ops.keras", "text.keras", "pool.keras"][which];
        let whole = file(name);
        let mut config = String::from_utf8(member(&whole, "config.json")).unwrap();
        for (at, text) in damage {
            let at = at.index(config.len());
            let end = (at + text.len()).min(config.len());
            if config.is_char_boundary(at) && config.is_char_boundary(end) {
                config.replace_range(at..end, &text);
            }
        }
        let weights = Bytes::from(member(&whole, "model.weights.h5"));
        if let Err(error) = import(&weights, Some(config.as_bytes())) {
            prop_assert!(!error.message().is_empty());
        }
    }
}
