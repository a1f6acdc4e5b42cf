#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use super::*;
use crate::proto::tensorflow::serving::model_server_config::Config;

fn models(text: &str) -> Vec<(String, String)> {
    match model_server_config(text).unwrap().config {
        Some(Config::ModelConfigList(list)) => {
            list.config.into_iter().map(|model| (model.name, model.base_path)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_spelling_of_a_list_is_read() {
    let expected = [("a".to_owned(), "/m/a".to_owned()), ("b".to_owned(), "/m/b".to_owned())];
    let spellings = [
        "model_config_list: { config: { name: 'a', base_path: '/m/a' }, config: { name: 'b', base_path: '/m/b' } }",
        "model_config_list { config { name: \"a\" base_path: \"/m/a\" } config { name: \"b\" base_path: \"/m/b\" } }",
        "model_config_list < config < name: 'a'; base_path: '/m' '/a' > config: <name:'b' base_path:'\\x2fm\\057b'> >",
        "# two\nmodel_config_list { # models\r\n config: [{ name: 'a' base_path: '/m/a' }, { name: 'b' base_path: '/m/b' }] }",
    ];
    for text in spellings {
        assert_eq!(models(text), expected, "{text}");
    }
}

#[test]
fn lists_and_maps_are_read() {
    let text = "model_config_list { config { name: 'a' base_path: '/a'
        model_version_policy { specific { versions: [1,2] versions: 3 } }
        version_labels { key: 'stable' value: 43 } version_labels: [{ key: \"canary\", value: 44 }] } }";
    let models = crate::tfs::resolve_models(model_server_config(text).unwrap()).unwrap();
    assert_eq!(models[0].policy, salver_predict::VersionPolicy::Specific(vec![1, 2, 3]));
    assert_eq!(models[0].labels, [("stable".to_owned(), 43), ("canary".to_owned(), 44)].into());
}

#[test]
fn mistakes_are_located() {
    let cases = [
        ("improperly formatted file", 1, 12, "expected"),
        ("model_config_list {\n  config { nam: 'a' }\n}", 2, 12, "'nam' not found"),
        ("model_config_list {\n  config { name: 7 }\n}", 2, 18, "expected a string"),
        ("# \u{e9}\n\u{e9}", 2, 1, "invalid token"),
        ("model_config_list {", 1, 20, "reached end of input"),
        ("model_config_list { config { name: 'a' name: 'b' } }", 1, 46, "already set"),
        ("model_config_list {} custom_model_config {}", 1, 42, "already set"),
    ];
    for (text, line, column, part) in cases {
        let error = model_server_config(text).unwrap_err();
        assert_eq!((error.line(), error.column()), (line, column), "{text}: {error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "model_config_list {".repeat(depth), "}".repeat(depth));
    let error = model_server_config(&nested(100_000)).unwrap_err().to_string();
    assert!(error.ends_with("messages are nested deeper than 32 levels"), "{error}");
    let quoted =
        format!("model_config_list {{ config {{ name: '{}' }} }} # {}", "{".repeat(99), "{".repeat(99));
    assert!(model_server_config(&quoted).is_ok());
    let error = model_server_config(&" ".repeat(MAX_TEXT_BYTES + 1)).unwrap_err().to_string();
    assert!(error.contains("at most 16777216"), "{error}");
}

#[test]
fn the_other_files_are_read() {
    let batching = batching_parameters(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 0 } thread_pool_name { value: 'p' }
         allowed_batch_sizes: 32 allowed_batch_sizes: [64, 128] pad_variable_length_inputs: true
         enable_large_batch_splitting { value: true }",
    )
    .unwrap();
    assert_eq!((batching.max_batch_size, batching.batch_timeout_micros), (Some(128), Some(0)));
    assert_eq!((batching.max_enqueued_batches, batching.num_batch_threads), (None, None));
    assert_eq!(batching.allowed_batch_sizes, [32, 64, 128]);
    assert_eq!(
        (batching.pad_variable_length_inputs, batching.enable_large_batch_splitting),
        (true, Some(true))
    );

    let ssl = ssl_config("server_key: 'k\\nl' server_cert: 'c' custom_ca: '' client_verify: true").unwrap();
    assert_eq!((&*ssl.server_key, &*ssl.server_cert, ssl.client_verify), ("k\nl", "c", true));

    let monitoring = monitoring_config("prometheus_config: { enable: true, path: '/m' }").unwrap();
    assert_eq!(monitoring.prometheus_config.unwrap().path, "/m");

    let session = session_config("intra_op_parallelism_threads: 3").unwrap();
    assert_eq!(session.intra_op_parallelism_threads, 3);

    let platforms = platform_configs(
        "platform_configs { key: 'tensorflow' value { source_adapter_config {
           [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
             legacy_config { enable_model_warmup: true batching_parameters { max_batch_size { value: 7 } } } } } } }",
    )
    .unwrap();
    let config = &platforms["tensorflow"];
    assert!(config.enable_model_warmup);
    assert_eq!(config.batching_parameters.as_ref().unwrap().max_batch_size, Some(7));
    assert!(platform_configs("platform_configs { key: 'x' value {} }").is_err());
}

/// Runs over the files of TensorFlow Serving's own tests, where they are at hand.
#[test]
#[expect(clippy::disallowed_methods, reason = "the environment says where the files are")]
fn files_of_tensorflow_serving() {
    let Some(root) = std::env::var_os("SALVER_TESTDATA") else {
        println!("skipped: SALVER_TESTDATA is not set");
        return;
    };
    let read = |name: &str| {
        std::fs::read_to_string(std::path::Path::new(&root).join("tfserving").join(name)).unwrap()
    };
    assert_eq!(models(&read("good_model_config.txt")).len(), 2);
    assert!(model_server_config(&read("bad_model_config.txt")).is_err());
    let batching = batching_parameters(&read("batching_config.txt")).unwrap();
    assert_eq!((batching.max_batch_size, batching.num_batch_threads), (Some(128), Some(8)));
    let monitoring = monitoring_config(&read("monitoring_config.txt")).unwrap();
    assert_eq!(monitoring.prometheus_config.unwrap().path, "/monitoring/prometheus/metrics");
}
