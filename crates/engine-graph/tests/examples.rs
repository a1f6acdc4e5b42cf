//! Models that parse `tensorflow.Example` messages, and models that are given other shapes than they say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test data lie where the environment says"
)]

use std::path::Path;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, LoadOptions, Model, ModelSource};
use salver_engine_graph::{GraphEngine, Parts};
use salver_tensor::{DType, Shape, Signature, Tensor};

/// An example with one float feature, by hand: Example.features.feature[name].float_list.value.
fn example(name: &str, value: f32) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let feature = field(0x12, &field(0x0a, &value.to_le_bytes()));
    let entry = [field(0x0a, name.as_bytes()), field(0x12, &feature)].concat();
    field(0x0a, &field(0x0a, &entry))
}

fn examples(list: &[Vec<u8>]) -> Tensor {
    let list: Vec<_> = list.iter().map(|bytes| bytes.clone().into()).collect();
    Tensor::from_strings(Shape::vector(list.len()).unwrap(), list).unwrap()
}

/// An engine that runs everything on the host, and the one that is used.
fn engines() -> [GraphEngine; 2] {
    [
        GraphEngine::new(Parts::none()),
        GraphEngine::new(Parts::new(
            "embedded",
            salver_engine_rten::supports_in,
            salver_engine_rten::load_graph,
        )),
    ]
}

fn load(fixture: &str) -> Option<[Arc<dyn Model>; 2]> {
    let Ok(folder) = std::env::var("SALVER_TESTDATA") else {
        println!("SALVER_TESTDATA is not set: nothing is tested");
        return None;
    };
    let path = Path::new(&folder).join("tfserving").join(fixture).join("00000123");
    let source = ModelSource::find(&path).unwrap();
    Some(engines().map(|engine| engine.load(&source, &LoadOptions::default()).unwrap()))
}

fn run(model: &dyn Model, signature: &str, input: &Tensor) -> Result<Vec<f32>, Error> {
    let at = model.signatures().iter().position(|found| &**found.name() == signature).unwrap();
    let outputs = model.session()?.run(at, std::slice::from_ref(input), &[0])?;
    Ok(outputs[0].to_slice::<f32>().unwrap().into_owned())
}

#[test]
fn half_plus_two_takes_examples() {
    for fixture in [
        "saved_model_half_plus_two_cpu",
        "saved_model_half_plus_two_tf2_cpu",
        "saved_model_half_plus_two_cpu_with_saved_model_config",
    ] {
        let Some(models) = load(fixture) else { return };
        let context = [example("x", 1.0), example("x", 20.0)].concat();
        let batch = examples(&[example("x", 80.0), context]);
        for model in models {
            for (signature, expected) in [
                ("regress_x_to_y", [42.0, 12.0]),
                ("regress_x_to_y2", [43.0, 13.0]),
                ("classify_x_to_y", [42.0, 12.0]),
            ] {
                assert_eq!(run(&*model, signature, &batch).unwrap(), expected, "{fixture} {signature}");
            }
        }
    }
}

#[test]
fn a_missing_feature_is_named() {
    let Some(models) = load("saved_model_half_plus_two_cpu") else { return };
    for model in models {
        let error = run(&*model, "regress_x_to_y", &examples(&[example("y", 1.0)])).unwrap_err();
        let text = "Name: <unknown>, Feature: x (data type: float) is required but could not be found.";
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn half_plus_three_takes_strings_though_it_says_floats() {
    let Some(models) = load("saved_model_half_plus_three") else { return };
    for model in models {
        let regress = |one: &&Arc<Signature>| &**one.name() == "tensorflow/serving/regress";
        let signature = model.signatures().iter().find(regress).unwrap();
        assert_eq!(signature.inputs()[0].dtype, DType::String);
        assert_eq!(signature.declared_inputs()[0].dtype, DType::F32);
        let values = run(&*model, "tensorflow/serving/regress", &examples(&[example("x", 2.0)])).unwrap();
        assert_eq!(values, [4.0]);
    }
}

/// These say that they take one number, or a column of them.
#[test]
fn any_shape_is_taken() {
    for fixture in ["saved_model_half_plus_two_cpu", "saved_model_half_plus_two_tf2_cpu"] {
        let Some(models) = load(fixture) else { return };
        for model in models {
            for signature in model.signatures() {
                let is_default = &**signature.name() == "serving_default";
                assert!(signature.takes_any_shape() || !is_default, "{fixture}");
            }
            for dims in [&[][..], &[4], &[4, 1], &[2, 2], &[1, 2, 2]] {
                let shape = Shape::new(dims).unwrap();
                let all = [2.0f32, 3.0, 4.0, 5.0][..shape.n_elements()].to_vec();
                let expected: Vec<f32> = all.iter().map(|x| x * 0.5 + 2.0).collect();
                let input = Tensor::from_vec(shape, all).unwrap();
                assert_eq!(run(&*model, "serving_default", &input).unwrap(), expected, "{fixture} {dims:?}");
            }
        }
    }
}
