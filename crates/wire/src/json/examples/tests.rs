use salver_predict::Code;

use super::*;
use crate::proto::tensorflow::serving::{Class, Classifications, Regression};
use crate::tfs::example_tensor;

/// The features of all examples, context included, as one would write them down.
fn decoded(body: &str) -> Result<(String, Vec<String>), String> {
    let limits = Limits { max_depth: 8, max_elements: 20 };
    let request = decode_examples(body.as_bytes(), limits).map_err(|error| {
        assert_eq!(error.code(), Code::InvalidArgument);
        error.message().to_owned()
    })?;
    let examples = example_tensor(Some(request.input), 1 << 20).unwrap();
    let shown = examples.strings().unwrap().iter().map(|bytes| shown(bytes)).collect();
    Ok((request.signature_name, shown))
}

/// Merges what is joined, as a parser of examples does.
fn shown(bytes: &[u8]) -> String {
    use prost::Message as _;
    /// `tensorflow.Example`, taken apart.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Example {
        #[prost(message, optional, tag = "1")]
        features: Option<Features>,
    }
    let features = Example::decode(bytes).unwrap().features.unwrap_or_default().feature;
    let value = |feature: &Feature| match &feature.kind {
        None => "none".to_owned(),
        Some(Kind::Int64List(list)) => format!("{:?}", list.value),
        Some(Kind::FloatList(list)) => format!("{:?}", list.value),
        Some(Kind::BytesList(list)) => format!("{:?}", list.value),
    };
    features.iter().map(|(name, feature)| format!("{name}={}", value(feature))).collect::<Vec<_>>().join(" ")
}

#[test]
fn examples_are_read() {
    let cases = [
        (r#"{"examples": [{"x": 80.0}]}"#, "", vec!["x=[80.0]"]),
        (r#"{"examples": [{"x": 1}, {"x": [1, -2, true]}]}"#, "", vec!["x=[1]", "x=[1, -2, 1]"]),
        (
            r#"{"signature_name": "s", "examples": [{"x": [1e2, 1.0, NaN]}]}"#,
            "s",
            vec!["x=[100.0, 1.0, NaN]"],
        ),
        (
            r#"{"examples": [{"s": "aä"}, {"s": ["a", {"b64": "AP8="}]}]}"#,
            "",
            vec![r#"s=[b"a\xc3\xa4"]"#, r#"s=[b"a", b"\0\xff"]"#],
        ),
        (r#"{"examples": [{"x": []}, {}]}"#, "", vec!["x=none", ""]),
        // The context stands before each example, whose own features win.
        (
            r#"{"examples": [{"x": 2.0}, {"z": 3}], "context": {"x": 1.0, "y": "c"}}"#,
            "",
            vec![r#"x=[2.0] y=[b"c"]"#, r#"x=[1.0] y=[b"c"] z=[3]"#],
        ),
        (r#"{"examples": [{"x": 1}], "examples": 5, "other": [[]]}"#, "", vec!["x=[1]"]),
        (r#"{"examples": [{"x": 9223372036854775807}]}"#, "", vec!["x=[9223372036854775807]"]),
        (r#"{"examples": [{"x": 20000000000000000000}]}"#, "", vec!["x=[2e19]"]),
    ];
    for (body, name, expected) in cases {
        let expected = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(decoded(body), Ok((name.to_owned(), expected)), "{body}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        ("", "JSON Parse error: The document is empty"),
        ("[1]", "JSON Value: [1] Is not object"),
        (r#"{"examples": [{"x": nope}]}"#, "JSON Parse error: Invalid value. at offset: 21"),
        (r#"{"examples": [{"x": null}], "signature_name": 5"#, "JSON Parse error: Missing a comma or }"),
        (r#"{"examples": [{"x": null}], "signature_name": 5}"#, "JSON Value: {\n    \"examples\": [{"),
        ("{}", "When method is classify, key 'examples' is expected and was not found"),
        (r#"{"examples": {"x": 1}}"#, "Expecting 'examples' value to be an list/array"),
        (r#"{"examples": []}"#, "'examples' value is an empty array"),
        (r#"{"examples": [1]}"#, "Example must be JSON object but got JSON Number"),
        (r#"{"examples": [{}], "context": []}"#, "Example must be JSON object but got JSON Array"),
        (r#"{"examples": [{"f": null}]}"#, "Feature: f has element with unexpected JSON type: Null"),
        (r#"{"examples": [{"f": [1, [2]]}]}"#, "Feature: f has element with unexpected JSON type: Array"),
        (r#"{"examples": [{"f": {"a": 1}}]}"#, "Feature: f has element with unexpected JSON type: Object"),
        (r#"{"examples": [{"f": [1.5, 2]}]}"#, "Unexpected element type in feature: f expecting type: float"),
        (r#"{"examples": [{"f": [1, "a"]}]}"#, "Unexpected element type in feature: f expecting type: int64"),
        (r#"{"examples": [{"f": ["a", 1]}]}"#, "Unexpected element type in feature: f expecting type: bytes"),
        (
            r#"{"examples": [{"f": 9223372036854775808}]}"#,
            "Feature: f has uint64_t element. Only int64_t is supported.",
        ),
        (
            r#"{"examples": [{"f": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}]}"#,
            "the examples have more than 20 values, the most there may be",
        ),
        (r#"{"examples": [[[[[[[[[]]]]]]]]]}"#, "JSON Parse error: nested deeper than 8 levels"),
    ];
    for (body, expected) in cases {
        let error = decoded(body).unwrap_err();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

#[test]
fn results_are_written() {
    let class = |label: &str, score| Class { label: label.to_owned(), score };
    let row = |classes: &[Class]| Classifications { classes: classes.to_vec() };
    let classifications = vec![row(&[class("", 12.0)]), row(&[class("a\"b", 0.25), class("c", f32::NAN)])];
    let classes = encode_classify(&ClassificationResult { classifications }, NonFinite::Null);
    let expected = "{\"results\": [[[\"\", 12.0]], [[\"a\\\"b\", 0.25], [\"c\", null]]]}\n";
    assert_eq!(String::from_utf8(classes).unwrap(), expected);
    let regressions = [42.0, 0.1, f32::INFINITY].map(|value| Regression { value }).to_vec();
    let values = encode_regress(&RegressionResult { regressions }, NonFinite::Literal);
    assert_eq!(String::from_utf8(values).unwrap(), "{\"results\": [42.0, 0.1, Infinity]}\n");
}
