#![allow(clippy::indexing_slicing, reason = "a test that panics has failed")]

use bytes::Bytes;
use prost::Message as _;
use salver_tensor::{Dims, Shape, TensorSpec};

use super::*;
use crate::proto::tensorflow::feature::Kind;
use crate::proto::tensorflow::serving::{
    ExampleList, ExampleListWithContext, Input, ModelSpec as ProtoSpec, input,
};
use crate::proto::tensorflow::{Feature, Features, FloatList};
use crate::tfs::{SerializedExample, example_tensor};

fn spec(name: &str) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::unknown(),
        default: None,
    }
}

fn signature(name: &str, inputs: &[&str], outputs: &[&str]) -> Arc<Signature> {
    let specs = |names: &[&str]| names.iter().map(|name| spec(name)).collect();
    Arc::new(Signature::new(name, "tensorflow/serving/classify", specs(inputs), specs(outputs)))
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.map_or_else(|error| error.message().to_owned(), |ok| format!("{ok:?}"))
}

#[test]
fn structure_decides() {
    let cases: [(Method, &[&str], &[&str], &str); 11] = [
        (Method::Classify, &["inputs"], &["scores", "classes"], "[0, 1]"),
        (Method::Classify, &["inputs"], &["scores"], "[0]"),
        (Method::Classify, &["inputs"], &["other", "classes"], "[0]"),
        (Method::Regress, &["inputs"], &["outputs"], "[0]"),
        (Method::Classify, &["a", "b"], &["scores"], "Expected one input Tensor."),
        (Method::Classify, &["inputs"], &["a", "b", "c"], "Expected one or two output Tensors, found 3"),
        (
            Method::Classify,
            &["x"],
            &["scores"],
            "No classification inputs found in SignatureDef: s (x) -> (scores)",
        ),
        (
            Method::Classify,
            &["inputs"],
            &["y"],
            "Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: s (inputs) -> (y)",
        ),
        (Method::Regress, &["inputs"], &["a", "b"], "Expected one output Tensor."),
        (
            Method::Regress,
            &["x"],
            &["outputs"],
            "No regression inputs found in SignatureDef: s (x) -> (outputs)",
        ),
        (
            Method::Regress,
            &["inputs"],
            &["y"],
            "No regression outputs found in SignatureDef: s (inputs) -> (y)",
        ),
    ];
    for (method, inputs, outputs, expected) in cases {
        assert_eq!(text(method.outputs(&signature("s", inputs, outputs))), expected);
    }
    let signature = signature("s", &["inputs"], &["scores"]);
    assert!(Method::Classify.check_name(&signature).is_ok());
    assert_eq!(
        text(Method::Regress.check_name(&signature)),
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify"
    );
    let found = example_signature(std::slice::from_ref(&signature), "");
    assert_eq!(text(found), "No signature was found with the name: serving_default");
}

fn strings(dims: &[usize], texts: &[&'static [u8]]) -> Tensor {
    let texts = texts.iter().map(|text| Bytes::from_static(text)).collect();
    Tensor::from_strings(Shape::new(dims).unwrap(), texts).unwrap()
}

fn floats(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), values.to_vec()).unwrap()
}

#[test]
fn outputs_become_classes() {
    let classes = strings(&[2, 1], &[b"a", b"\xff"]);
    let scores = floats(&[2, 1], &[0.5, 0.25]);
    let shown = |outputs: &[(&str, &Tensor)]| match classification_result(outputs, 2) {
        Err(error) => error.message().to_owned(),
        Ok(result) => {
            let classes = result.classifications.iter().flat_map(|row| &row.classes);
            classes.map(|class| format!("{}:{}", class.label, class.score)).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(shown(&[("classes", &classes), ("scores", &scores)]), "a:0.5 \u{fffd}:0.25");
    assert_eq!(shown(&[("classes", &classes)]), "a:0 \u{fffd}:0");
    assert_eq!(shown(&[("scores", &scores)]), ":0.5 :0.25");
    let flat = floats(&[2], &[1.0, 2.0]);
    assert_eq!(shown(&[("scores", &flat)]), "Expected Tensor shape: [batch_size num_classes] but got [2]");
    assert_eq!(shown(&[("classes", &scores)]), "Expected classes Tensor of DT_STRING. Got: DT_FLOAT");
    assert_eq!(shown(&[("scores", &classes)]), "Expected scores Tensor of DT_FLOAT. Got: DT_STRING");
    let three = floats(&[3, 1], &[0.0; 3]);
    assert_eq!(shown(&[("scores", &three)]), "Expected scores output batch size of 2. Got: 3");
    let wide = floats(&[2, 2], &[0.0; 4]);
    assert_eq!(
        shown(&[("classes", &classes), ("scores", &wide)]),
        "Tensors class and score should match in dim_size(1). Got 1 vs. 2"
    );
}

#[test]
fn outputs_become_values() {
    let shown = |tensor: &Tensor| match regression_result(&[("outputs", tensor)], 2) {
        Err(error) => error.message().to_owned(),
        Ok(result) => format!("{:?}", result.regressions.iter().map(|one| one.value).collect::<Vec<_>>()),
    };
    assert_eq!(shown(&floats(&[2], &[1.0, 2.0])), "[1.0, 2.0]");
    assert_eq!(shown(&floats(&[2, 1], &[1.0, 2.0])), "[1.0, 2.0]");
    assert_eq!(
        shown(&floats(&[1, 2], &[1.0, 2.0])),
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"
    );
    assert_eq!(shown(&floats(&[3], &[0.0; 3])), "Input batch size did not match output batch size: 2 vs. 3");
    assert_eq!(shown(&strings(&[2], &[b"a", b"b"])), "Expected output Tensor of DT_FLOAT.  Got: DT_STRING");
    assert_eq!(text(regression_result(&[], 2)), "Could not find output tensor 'outputs'");
}

#[test]
fn tasks_are_checked_in_order() {
    const CLASSIFY: &str = "tensorflow/serving/classify";
    const REGRESS: &str = "tensorflow/serving/regress";
    let signatures = [signature("c", &["inputs"], &["scores"]), signature("r", &["inputs"], &["outputs"])];
    let check = |tasks: &[(&str, &str, &str)], expected: &str| {
        let task = |&(model, signature, method): &(&str, &str, &str)| {
            let spec = ProtoSpec {
                name: model.to_owned(),
                signature_name: signature.to_owned(),
                ..ProtoSpec::default()
            };
            InferenceTask { model_spec: Some(spec), method_name: method.to_owned() }
        };
        let request = MultiInferenceRequest { tasks: tasks.iter().map(task).collect(), input: None };
        let planned = plan_tasks(&request, &signatures).map(|tasks| {
            tasks.iter().map(|task| (task.signature.name().to_string(), task.method)).collect::<Vec<_>>()
        });
        assert_eq!(text(planned), expected);
    };
    check(&[("m", "c", CLASSIFY), ("m", "r", REGRESS)], "[(\"c\", Classify), (\"r\", Regress)]");
    check(&[("m", "c", CLASSIFY), ("", "r", REGRESS)], "Found ModelSpec with an empty model name.");
    check(
        &[("m", "c", CLASSIFY), ("n", "r", REGRESS)],
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    );
    check(&[("m", "c", CLASSIFY), ("m", "c", REGRESS)], "Duplicate evaluation of signature: c");
    check(&[("m", "", CLASSIFY)], "Requested signature not found in model graph: serving_default");
    check(&[("m", "c", "predict")], "Unsupported signature method_name: predict");
    check(&[("m", "c", REGRESS)], "No regression outputs found in SignatureDef: c (inputs) -> (scores)");
}

#[test]
fn examples_become_strings() {
    let example = |value: f32| {
        let kind = Some(Kind::FloatList(FloatList { value: vec![value] }));
        let features = Features { feature: [("x".to_owned(), Feature { kind })].into() };
        SerializedExample::from(&features)
    };
    let (one, two) = (example(1.0), example(2.0));
    let decoded = |input: Input| {
        // Through the bytes of the message, as a server gets it.
        let input = Input::decode(input.encode_to_vec().as_slice()).unwrap();
        example_tensor(Some(input), 100).map(|tensor| tensor.strings().unwrap().to_vec())
    };
    let plain = |examples: Vec<SerializedExample>| Input {
        kind: Some(input::Kind::ExampleList(ExampleList { examples })),
    };
    assert_eq!(decoded(plain(vec![one.clone(), two.clone()])).unwrap(), [one.as_bytes(), two.as_bytes()]);
    let list =
        ExampleListWithContext { examples: vec![one.clone(), two.clone()], context: Some(two.clone()) };
    let joined = decoded(Input { kind: Some(input::Kind::ExampleListWithContext(list)) }).unwrap();
    assert_eq!(
        joined,
        [[two.as_bytes(), one.as_bytes()].concat(), [two.as_bytes(), two.as_bytes()].concat()]
    );
    assert_eq!(text(decoded(plain(vec![]))), "Input is empty.");
    assert_eq!(text(example_tensor(None, 100)), "Input is empty.");
    let many = vec![one.clone(); 20];
    let n_bytes = one.as_bytes().len() * 20;
    let expected = format!("the examples and their context take {n_bytes} bytes, at most 100 are allowed");
    assert_eq!(text(decoded(plain(many))), expected);
}

#[test]
fn fields_that_are_no_features_are_left_out() {
    let bytes = [&b"\x10\x05"[..], b"\x0a\x02\x08\x01", b"\x1d\0\0\0\0", b"\x0a\x00"].concat();
    let example = SerializedExample::decode(&*bytes).unwrap();
    assert_eq!(example.as_bytes(), b"\x0a\x02\x08\x01\x0a\x00");
    assert!(SerializedExample::decode(&b"\x0a\x05ab"[..]).is_err());
    assert!(SerializedExample::decode(&b"\x0b"[..]).is_err());
}
