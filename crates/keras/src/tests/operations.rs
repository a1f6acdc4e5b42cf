//! Operations of functional models: arguments that change the result are followed or refused.

use std::io::Write;

use bytes::Bytes;
use salver_graph::ErrorKind;
use salver_tensor::{Shape, Tensor};
use serde_json::{Value as Json, json};

use super::{numbers, run};
use crate::import;

/// A model of one operation on an input `x` of the shape `[2, 3]`: of Keras 3, or a function of TensorFlow.
fn model(class: &str, config: &Json, kwargs: &Json) -> Bytes {
    let tensorflow = class.contains('.');
    let mut config = config.clone();
    config["name"] = json!("it");
    let (input, layer) = if tensorflow {
        config["function"] = json!(class);
        (
            json!({"batch_input_shape": [2, 3], "dtype": "float32", "name": "x"}),
            json!({"class_name": "TFOpLambda", "name": "it", "config": config,
                "inbound_nodes": [["x", 0, 0, kwargs]]}),
        )
    } else {
        let x = json!({"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}});
        (
            json!({"batch_shape": [2, 3], "dtype": "float32", "name": "x"}),
            json!({"module": if config.get("trainable").is_some() { "keras.layers" } else { "keras.src.ops.numpy" }, "class_name": class, "name": "it", "config": config,
                "inbound_nodes": [{"args": [x], "kwargs": kwargs}]}),
        )
    };
    let input = json!({"class_name": "InputLayer", "name": "x", "config": input, "inbound_nodes": []});
    let config = json!({"class_name": "Functional", "config": {
        "name": "model", "layers": [input, layer], "input_layers": [["x", 0, 0]], "output_layers": [["it", 0, 0]],
    }});
    let version = if tensorflow { "2.9.0" } else { "3.0.0" };
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let metadata = json!({"keras_version": version});
    for (name, content) in [("config.json", config), ("metadata.json", metadata)] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content.to_string().as_bytes()).unwrap();
    }
    Bytes::from(zip.finish().unwrap().into_inner())
}

/// The operation on `[[1, 2, 3], [6, 5, 4]] * scale`.
#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "cases are written in place")]
fn check(class: &str, config: Json, kwargs: Json, scale: f32, expected: &[f64]) {
    let model =
        import(&model(class, &config, &kwargs), None).unwrap_or_else(|error| panic!("{class}: {error}"));
    let x: Vec<f32> = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0].map(|value: f32| value * scale).to_vec();
    let x = Tensor::from_vec(Shape::new(&[2, 3]).unwrap(), x).unwrap();
    let results = run(&model, &|_| x.clone()).unwrap_or_else(|error| panic!("{class}: {error}"));
    let got = numbers(&results[0].1);
    assert_eq!(got.len(), expected.len(), "{class}: {got:?}");
    for (got, want) in got.iter().zip(expected) {
        assert!((got - want).abs() <= 1e-6 * want.abs(), "{class} {config}: {got}, expected {want}");
    }
}

#[test]
fn an_axis_that_is_none_is_not_one_that_is_missing() {
    let none = || json!({"axis": null});
    check("Argmax", none(), json!({}), 1.0, &[3.0]);
    check("Argmax", json!({"axis": 1, "keepdims": true}), json!({}), 1.0, &[2.0, 0.0]);
    check("math.argmax", json!({}), json!({}), 1.0, &[1.0, 1.0, 1.0]);
    check("math.argmax", json!({}), json!({"axis": 1, "output_type": "int32"}), 1.0, &[2.0, 0.0]);
    check("Cumsum", none(), json!({}), 1.0, &[1.0, 3.0, 6.0, 12.0, 17.0, 21.0]);
    check("math.cumsum", json!({}), json!({}), 1.0, &[1.0, 2.0, 3.0, 7.0, 7.0, 7.0]);
    check("Repeat", json!({"repeats": 2, "axis": 0}), json!({}), 1.0, &{
        let rows = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [6.0, 5.0, 4.0], [6.0, 5.0, 4.0]];
        rows.concat()
    });
    let flat = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 6.0, 6.0, 5.0, 5.0, 4.0, 4.0];
    check("Repeat", json!({"repeats": 2, "axis": null}), json!({}), 1.0, &flat);
    check("Take", none(), json!({"indices": [4, 0]}), 1.0, &[5.0, 1.0]);
    let sum = 91f64.sqrt();
    let all = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0].map(|value| value / sum);
    check("math.l2_normalize", json!({}), json!({"axis": null}), 1.0, &all);
}

#[test]
fn options_are_followed() {
    let reverse = json!({"axis": 1, "reverse": true});
    check("math.cumsum", json!({}), reverse, 1.0, &[6.0, 5.0, 3.0, 15.0, 9.0, 4.0]);
    let exclusive = json!({"axis": 1, "exclusive": true});
    check("math.cumsum", json!({}), exclusive, 1.0, &[0.0, 1.0, 3.0, 0.0, 6.0, 11.0]);
    let by = |b: Json| json!({"b": b, "transpose_b": true});
    check("linalg.matmul", json!({}), by(json!([[1.0, 0.0, 1.0]])), 1.0, &[4.0, 10.0]);
    check("Max", json!({"axis": 1, "initial": 4.0}), json!({}), 1.0, &[4.0, 6.0]);
    check("Round", json!({"decimals": 1}), json!({}), 0.26, &[0.3, 0.5, 0.8, 1.6, 1.3, 1.0]);
    let plus = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0].map(|x: f64| (x + (x * x + 9.0).sqrt()) / 2.0);
    check("Squareplus", json!({"b": 9.0}), json!({}), 1.0, &plus);
    let tiny = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0].map(|x: f64| f64::from(x as f32 * 1e-6));
    check("Expm1", json!({}), json!({}), 1e-6, &tiny.map(f64::exp_m1));
    check("Log1p", json!({}), json!({}), 1e-6, &tiny.map(f64::ln_1p));
}

#[test]
fn arguments_that_are_not_understood_are_refused() {
    let cases = [
        ("Relu", json!({"limit": 3.0}), json!({}), "'limit'"),
        ("math.reduce_sum", json!({}), json!({"axis": 1, "where": true}), "'where'"),
        ("array_ops.gather", json!({}), json!({"indices": [0], "batch_dims": 1}), "batch_dims"),
        ("Cumsum", json!({"axis": 0, "dtype": "float64"}), json!({}), "'dtype'"),
        ("linalg.normalize", json!({}), json!({}), "linalg.normalize"),
    ];
    for (class, config, kwargs, part) in cases {
        let error = import(&model(class, &config, &kwargs), None).expect_err(class);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains("layer 'it'") && text.contains(part), "'{text}' does not say {part}");
    }
}

#[test]
fn relu_is_0_at_its_threshold() {
    let config = json!({"threshold": 2.0, "negative_slope": 0.5, "trainable": false});
    check("ReLU", config, json!({}), 1.0, &[-0.5, 0.0, 3.0, 6.0, 5.0, 4.0]);
}
