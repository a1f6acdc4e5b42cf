//! What cannot be, and what is said of it.

use salver_mapping::{Plan, RefusedClass};
use salver_tensor::DType;

use super::{answer, floats, inputs, plan, settings, signature, spec, tensor};

#[test]
fn records_are_refused_with_the_field_and_what_was_expected() {
    let check = |toml: &str, content: &str, class: RefusedClass, message: &str| {
        let refused = inputs(&plan(toml, &floats(2, 1)), content.to_owned()).unwrap_err();
        assert_eq!((refused.class, refused.message.as_str()), (class, message), "{toml} {content}");
        assert!(!refused.passing);
    };
    use RefusedClass::{Format, Shape, TooLarge};
    check("", "{\"x\": [1", Format, "not JSON at byte 8: EOF while parsing a list, before ``");
    check("", "{\"x\": [1, 2]} 3", Format, "not JSON at byte 14: trailing characters, before `3`");
    check("", "", Format, "not JSON at byte 0: EOF while parsing a value, before ``");
    check(
        "",
        "{\"x\": [1, 1e999]}",
        Format,
        "not JSON at byte 15: the number before it is too large for a double",
    );
    check("", "{}", Shape, "field `x`, for input `x`: it is missing, and no value for missing fields is set");
    check(
        "",
        "{\"x\": null}",
        Shape,
        "field `x`, for input `x`: it is null, and no value for missing fields is set",
    );
    check(
        "",
        "{\"x\": [1]}",
        Shape,
        "field `x`, for input `x`: it has a list of 1, expected [2], or a list of such rows",
    );
    check(
        "",
        "{\"x\": [1, \"a\"]}",
        Shape,
        "field `x`, for input `x`: `a` is text, expected a number that fits (float32)",
    );
    check(
        "",
        "{\"x\": [1, null]}",
        Shape,
        "field `x`, for input `x`: it has a null, and no value for missing fields is set",
    );
    check("", "{\"x\": [[1, 2], [3]]}", Shape, "field `x`, for input `x`: its lists have different lengths");
    check(
        "",
        "{\"x\": [1, 1e300]}",
        Shape,
        &format!("field `x`, for input `x`: {} is a number, expected a number that fits (float32)", 1e300),
    );
    let scaled = "[[input.tensors]]\ninput = \"x\"\nscale = { factor = 1e300 }\n";
    for content in ["{\"x\": [0, 1e9]}", "{\"x\": [0.5, 1000000000]}", "{\"x\": [true, 1e9]}"] {
        let refused = inputs(&plan(scaled, &floats(2, 1)), content).unwrap_err();
        assert!(refused.message.ends_with("a number that fits (float32)"), "{refused}");
    }
    let deep = format!("{{\"x\": {}", "[".repeat(70));
    check("", &deep, TooLarge, "JSON at byte 69: nested deeper than 64 levels");
    let tight = "[input.limits]\nmax_bytes = 10\n";
    check(tight, "{\"x\": [1, 2]}", TooLarge, "the record has 13 bytes, at most 10 are allowed");
    check(
        "[input.limits]\nmax_elements = 2\n",
        "{\"x\": [1, 2, 3]}",
        TooLarge,
        "the fields that are read have more than 2 values in all",
    );
    let long = format!("{{\"x\": [1, \"{}\"]}}", "a".repeat(1000));
    let refused = inputs(&plan("", &floats(2, 1)), long).unwrap_err();
    assert!(refused.message.len() < 250, "{}", refused.message);
    let csv = "[input]\nformat = \"csv\"\n";
    check(csv, "1,b", Shape, "field `1`, for input `x`: `b` is text, expected a number that fits (float32)");
    check(csv, "1,2\n3,4", Format, "the record has more than one line; the next is `3,4`");
    // A whole file may follow.
    check(csv, "1,\"2\n3,4\n", Format, "column 1 begins with a quote that is not closed");
    check(csv, "\"\"\",2", Format, "column 0 begins with a quote that is not closed");
    check(csv, "1,-1e999", Format, "column 1: `-1e999` is too large for a double");
    let hot = "[[input.tensors]]\ninput = \"x\"\nfield = \"c\"\none_hot = { c = [\"a\", \"b\"] }\n";
    check(
        hot,
        "{\"c\": \"z\"}",
        Shape,
        "field `c`, for input `x`: `z` is text, expected one of its 2 categories",
    );
    check(
        "[input]\nformat = \"example\"\n",
        "\u{1}",
        Format,
        "not a tensorflow.Example: failed to decode Protobuf message: invalid tag value: 0",
    );
}

#[test]
fn whole_numbers_are_never_rounded() {
    let model = |dtype| signature(vec![spec("n", dtype, &[None])], vec![spec("y", DType::F32, &[None])]);
    for (dtype, number, fits) in [
        (DType::I32, "2147483647", true),
        (DType::I32, "2147483648", false),
        (DType::I64, "9223372036854775807", true),
        (DType::I64, "9223372036854775808", false),
        (DType::U64, "18446744073709551615", true),
        (DType::U64, "-1", false),
        (DType::I32, "1.0", true),
        (DType::I32, "1.5", false),
        (DType::I64, "1e300", false),
        (DType::U8, "256", false),
        (DType::I32, "true", true),
        (DType::I32, "\"1\"", false),
    ] {
        for (format, content) in
            [("json", format!("{{\"n\": {number}}}")), ("csv", number.trim_matches('"').to_owned())]
        {
            let toml = format!("[input]\nformat = \"{format}\"\n");
            let got = inputs(&plan(&toml, &model(dtype)), content);
            // A line has only text: there `"1"` is a number.
            let fits = fits || format == "csv" && number.starts_with('"');
            assert_eq!(got.is_ok(), fits, "{dtype} {number} {format} {got:?}");
        }
    }
}

#[test]
fn answers_that_cannot_be_written_are_refused() {
    let y = || tensor(&[1, 1], &[f32::NAN]);
    let array = answer(&plan("", &floats(2, 1)), "[1, 2]", &[y()]).unwrap_err();
    assert!(array.message.contains("expected an object"), "{array:?}");
    let finite = plan("[output]\nnon_finite = \"refuse\"", &floats(2, 1));
    let refused = answer(&finite, r#"{"x": [1, 2]}"#, &[y()]).unwrap_err();
    assert_eq!(refused.message, "output `y`, for field `y`: it has a number that is not finite");
    let above = plan(
        "[output]\nnon_finite = \"refuse\"\n[[output.fields]]\nselect = [0]\nabove = 0.5",
        &floats(2, 1),
    );
    assert_eq!(answer(&above, r#"{"x": [1, 2]}"#, &[y()]).unwrap_err(), refused);
    let rows = answer(&plan("", &floats(2, 1)), r#"{"x": [[1, 2], [3, 4]]}"#, &[y()]).unwrap_err();
    assert_eq!(
        rows.message,
        "output `y`, for field `y`: it has shape [1,1], expected 2 rows, as the inputs have"
    );
    let line = plan("[output]\nformat = \"csv\"\nmode = \"replace\"", &floats(2, 1));
    assert!(answer(&line, r#"{"x": [[1, 2]]}"#, &[y()]).is_err());
}

#[test]
fn settings_are_checked_against_the_signature() {
    let check = |toml: &str, expected: &[&str]| {
        let error = Plan::new(&settings(toml), &floats(2, 3), None, None, None).unwrap_err();
        for expected in expected {
            assert!(error.problems().iter().any(|problem| problem.contains(expected)), "{toml} {error}");
        }
        assert_eq!(error.problems().len(), expected.len(), "{toml} {error}");
    };
    let tensor = |more: &str| format!("[[input.tensors]]\ninput = \"x\"\n{more}");
    check(
        "[[input.tensors]]\ninput = \"z\"\n[output]\nkeep = [\"a[\"]\nmode = \"replace\"",
        &["no input `z`; it has x", "a bracket is not closed"],
    );
    check(&tensor("fields = [\"a\", \"b\", \"c\"]"), &["its 3 fields give 3 elements, a row has 2"]);
    check(&tensor("field = \"a\"\nfields = [\"b\"]"), &["both set"]);
    check(&tensor("reshape = [3]"), &["reshape: [3] does not fit rows of [2]"]);
    check(&tensor("scale = { mean = 1.0 }"), &["expected `mean` and `std`"]);
    check(&tensor("missing = \"a\""), &["`missing` is no float32"]);
    check(&tensor("one_hot = { z = [\"a\"] }"), &["`z` is none of its fields"]);
    check(&tensor("dtype = \"uint8\""), &["goes with format `raw`"]);
    check("[[output.fields]]\noutput = \"z\"", &["no output `z`; it has y"]);
    check("[[output.fields]]\nselect = [3]", &["element 3 of rows of 3"]);
    check("[[output.fields]]\nargmax = true\ntop_k = 1", &["one of `select`"]);
    check("[[output.fields]]\nargmax = true\nlabels = [\"a\"]", &["1 labels for rows of 3"]);
    check("[[output.fields]]\nabove = 0.5", &["needs a single number"]);
    check("[[output.fields]]\n[[output.fields]]\n", &["two fields have the name `y`"]);
    check("[input]\nformat = \"raw\"\n[output]\nmode = \"append\"", &["cannot"]);
    check("[output]\nformat = \"raw\"\n[[output.fields]]\nargmax = true", &["holds outputs as they are"]);
    check("[output]\nformat = \"csv\"\nmode = \"replace\"\nunder = \"p\"", &["csv has no objects"]);
    check("[[filter]]\nabove = 1", &["`field` is not set"]);
    check("[[filter]]\nfield = \"a\"", &["no condition"]);
    check("[[filter]]\nfield = \"a\"\nmatches = \"(\"", &["no regular expression"]);
    check(
        "[input]\nformat = \"csv\"\ncsv = { columns = [\"a\", \"b\", \"c\"] }",
        &["it takes 2 numbers, the lines have 3 columns"],
    );
    check(
        "[input]\nformat = \"csv\"\ncsv = { columns = [\"a\", \"b\"] }\n[[filter]]\nfield = \"c\"\nexists = true",
        &["there is no such column; columns are a, b"],
    );
    check(
        "[input]\nformat = \"csv\"\ncsv = { columns = [\"a\", \"a\"] }",
        &["field `a`: several columns have this name"],
    );
    check("[input.limits]\nmax_depth = 0", &["max_depth is 0"]);
    for toml in [
        "[input]\nformats = \"json\"",
        "[input]\nformat = \"xml\"",
        "[output]\nmode = \"add\"",
        "[[filter]]\nabove = \"a\"",
    ] {
        assert!(toml::from_str::<salver_mapping::Settings>(toml).is_err(), "{toml}");
    }
}
