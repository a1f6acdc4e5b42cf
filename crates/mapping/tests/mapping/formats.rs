//! A worked example for each format.

use std::collections::BTreeMap;

use bytes::Bytes;
use image::{ExtendedColorType, ImageEncoder as _};
use prost::Message as _;
use salver_mapping::{Around, Plan, Settings, TableFormat, Window};
use salver_tensor::{DType, Dims, Shape, Tensor, TensorSpec};
use salver_wire::proto::tensorflow::serving::{PredictRequest, PredictResponse};
use salver_wire::proto::tensorflow::{Feature, Features, FloatList, Int64List, feature::Kind};
use salver_wire::tfs::{Encoding, SerializedExample, decode_tensor, encode_tensor};

use super::{answer, floats, inputs, plan, record, settings, signature, spec, tensor, text};

#[test]
fn json_becomes_tensors() {
    let check = |toml: &str, width: usize, content: &str, dims: &[usize], expected: &[f32]| {
        let got = inputs(&plan(toml, &floats(width, 1)), content.to_owned()).unwrap();
        assert_eq!(got, [tensor(dims, expected)], "{toml} {content}");
    };
    check("", 2, r#"{"x": [1, 2.5]}"#, &[1, 2], &[1.0, 2.5]);
    check("", 2, r#"{"x": [[1, 2], [3, 4]]}"#, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    check("", 2, "[1, 2]", &[1, 2], &[1.0, 2.0]);
    check("", 2, "[[1, 2], [3, 4]]", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    check("", 1, "3", &[1, 1], &[3.0]);
    // Of a name that comes twice the last counts.
    check("", 2, r#"{"x": [1, 2], "x": [3, 4]}"#, &[1, 2], &[3.0, 4.0]);
    let fields = |list: &str| format!("[[input.tensors]]\ninput = \"x\"\nfields = {list}\n");
    check(&fields(r#"["a", "v1..v2"]"#), 3, r#"{"v2": 2, "v1": 1, "a": 9}"#, &[1, 3], &[9.0, 1.0, 2.0]);
    check(&fields(r#"["a.b[1]", "a.c"]"#), 2, r#"{"a": {"b": [7, 8], "c": 1e2}}"#, &[1, 2], &[8.0, 100.0]);
    check(&fields(r#"["a", "a[0]"]"#), 3, r#"{"a": [5, 6]}"#, &[1, 3], &[5.0, 6.0, 5.0]);
    check(&fields(r#"["[1]", "[0].z"]"#), 2, r#"[{"z": 3}, 4]"#, &[1, 2], &[4.0, 3.0]);
    check(&fields(r#"["'a.b'", "c"]"#), 2, r#"{"a.b": true, "c": false}"#, &[1, 2], &[1.0, 0.0]);
    let one_hot = fields(r#"["n", "country"]"#) + "one_hot = { country = [\"NL\", \"DE\"] }\n";
    check(&one_hot, 3, r#"{"n": 5, "country": "DE"}"#, &[1, 3], &[5.0, 0.0, 1.0]);
    let zeros = one_hot.clone() + "unknown = \"zeros\"\n";
    check(&zeros, 3, r#"{"n": 5, "country": "FR"}"#, &[1, 3], &[5.0, 0.0, 0.0]);
    let missing = fields(r#"["a", "b"]"#) + "missing = -1\n";
    check(&missing, 2, r#"{"b": null}"#, &[1, 2], &[-1.0, -1.0]);
    let scaled = fields(r#"["a", "b"]"#) + "scale = { mean = [1.0, 2.0], std = [2.0, 4.0] }\n";
    check(&scaled, 2, r#"{"a": 2, "b": 0}"#, &[1, 2], &[0.5, -0.5]);
    let many = fields(r#"["a", "b"]"#) + "rows = \"many\"\n";
    check(&many, 2, r#"{"a": [1, 2, 3], "b": [4, 5, 6]}"#, &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let flat = "[[input.tensors]]\ninput = \"x\"\nfield = \"d\"\nrows = \"many\"\n";
    check(flat, 2, r#"{"d": [1, 2, 3, 4]}"#, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let reshaped = "[[input.tensors]]\ninput = \"x\"\nfield = \"d\"\nreshape = [4]\n";
    check(reshaped, 4, r#"{"d": [[1, 2], [3, 4]]}"#, &[1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let nulls = "[[input.tensors]]\ninput = \"x\"\nfield = \"d\"\nmissing = 0.5\n";
    check(nulls, 2, r#"{"d": [null, 1]}"#, &[1, 2], &[0.5, 1.0]);
    check(nulls, 2, "{}", &[1, 2], &[0.5, 0.5]);
    check("[[input.tensors]]\ninput = \"x\"\nvalue = 2\n", 2, "{}", &[1, 2], &[2.0, 2.0]);
}

#[test]
fn whole_numbers_text_and_booleans_are_exact() {
    let model = signature(
        vec![
            spec("flag", DType::Bool, &[None]),
            spec("id", DType::I64, &[None, Some(2)]),
            spec("small", DType::I32, &[None]),
            spec("words", DType::String, &[None, Some(2)]),
        ],
        vec![spec("y", DType::F32, &[None])],
    );
    let plan = plan("", &model);
    let got = inputs(
        &plan,
        r#"{"id": [9007199254740993, -9223372036854775808], "small": 7, "flag": true,
            "words": ["caf\u00e9", {"b64": "AP8="}]}"#,
    );
    let got = got.unwrap();
    assert_eq!(*got[1].to_slice::<i64>().unwrap(), [9_007_199_254_740_993, i64::MIN]);
    assert_eq!(*got[2].to_slice::<i32>().unwrap(), [7]);
    assert_eq!(got[0].bytes().unwrap()[..], [1]);
    assert_eq!(got[3].strings().unwrap(), ["café".as_bytes(), &[0, 255]]);
}

#[test]
fn answers_are_appended_to_json() {
    let check = |toml: &str, content: &str, output: Tensor, expected: &str| {
        let width = output.shape().dims().get(1).copied().unwrap_or(1);
        let plan = plan(toml, &floats(2, width));
        assert_eq!(text(answer(&plan, content.to_owned(), &[output])), expected, "{toml}");
    };
    let y = || tensor(&[1, 3], &[0.1, 0.7, 0.2]);
    // The record's own bytes stay as they are.
    check("", "{ \"x\" :[1,2.50] }\n", y(), "{ \"x\" :[1,2.50] ,\"y\":[0.1,0.7,0.2]}\n");
    check(
        "",
        r#"{"x":[[1,2],[3,4]]}"#,
        tensor(&[2, 1], &[0.5, 0.25]),
        r#"{"x":[[1,2],[3,4]],"y":[[0.5],[0.25]]}"#,
    );
    check("", r#"{"x":[[1,2]]}"#, tensor(&[1, 1], &[0.5]), r#"{"x":[[1,2]],"y":[[0.5]]}"#);
    let value = "[[input.tensors]]\ninput = \"x\"\nvalue = 1.0\n";
    check(value, "{ }", tensor(&[1, 1], &[0.5]), r#"{ "y":[0.5]}"#);
    let record = r#"{"x":[1,2]}"#;
    let field = |more: &str| format!("[[output.fields]]\nname = \"s\"\n{more}\n");
    check(&field("select = [1]"), record, y(), r#"{"x":[1,2],"s":0.7}"#);
    check(&field("select = [2, 0]"), record, y(), r#"{"x":[1,2],"s":[0.2,0.1]}"#);
    check(&field("argmax = true"), record, y(), r#"{"x":[1,2],"s":1}"#);
    check(&field("argmax = true\nlabels = [\"a\", \"b\", \"c\"]"), record, y(), r#"{"x":[1,2],"s":"b"}"#);
    check(
        &field("top_k = 2\nlabels = [\"a\", \"b\", \"c\"]"),
        record,
        y(),
        r#"{"x":[1,2],"s":[{"label":"b","score":0.7},{"label":"c","score":0.2}]}"#,
    );
    check(&field("reduce = \"max\"\nabove = 0.5"), record, y(), r#"{"x":[1,2],"s":true}"#);
    check(&field("reduce = \"sum\"\ndecimals = 3"), record, y(), r#"{"x":[1,2],"s":1.0}"#);
    // The error of a reconstruction: ((1 - 1.5)^2 + (2 - 1)^2) / 2.
    let output = || tensor(&[1, 2], &[1.5, 1.0]);
    check(&field("reduce = \"mse\""), record, output(), r#"{"x":[1,2],"s":0.625}"#);
    check(&field("reduce = \"mae\"\nabove = 0.7"), record, output(), r#"{"x":[1,2],"s":true}"#);
    check(&field("reduce = \"max_error\""), record, output(), r#"{"x":[1,2],"s":1.0}"#);
    let under = "[output]\nunder = \"p\"\nabout = [\"model\", \"version\", \"latency\"]\n";
    check(
        under,
        record,
        output(),
        r#"{"x":[1,2],"p":{"y":[1.5,1.0],"model":"m","model_version":7,"latency_ms":1.5}}"#,
    );
    check(
        "[output]\nmode = \"replace\"\nkeep = [\"x[1]\", \"z\"]",
        record,
        output(),
        r#"{"x[1]":2,"z":null,"y":[1.5,1.0]}"#,
    );
    check("[output]\nmode = \"only\"", record, output(), "[1.5,1.0]");
    check("", record, tensor(&[1, 2], &[f32::NAN, f32::INFINITY]), r#"{"x":[1,2],"y":[null,null]}"#);
    // What is no number is not passed over, wherever it stands.
    for reduce in ["min", "max", "sum", "max_error", "mae"] {
        for y in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
            let reduce = field(&format!("reduce = \"{reduce}\""));
            check(&reduce, record, tensor(&[1, 2], &y), r#"{"x":[1,2],"s":null}"#);
        }
    }
    check(&field("reduce = \"min\""), record, tensor(&[1, 2], &[2.0, -1.0]), r#"{"x":[1,2],"s":-1.0}"#);
    check(&field("argmax = true"), record, tensor(&[1, 2], &[-0.0, 0.0]), r#"{"x":[1,2],"s":0}"#);
    let csv = "[output]\nformat = \"csv\"\nmode = \"replace\"\nkeep = [\"n\"]";
    check(csv, r#"{"x":[1,2],"n":"a,\"b"}"#, output(), "\"a,\"\"b\",1.5,1.0");
}

#[test]
fn lines_become_tensors_and_get_columns() {
    let names: Vec<String> = ["time", "a", "b", "T (degC)"].map(String::from).to_vec();
    let model = floats(2, 2);
    let toml =
        "[input]\nformat = \"csv\"\n[[input.tensors]]\ninput = \"x\"\nfields = [\"a\", \"T (degC)\"]\n";
    let plan = Plan::new(&settings(toml), &model, None, Some(&names), None).unwrap();
    assert_eq!(plan.output_columns().unwrap(), ["time", "a", "b", "T (degC)", "y_0", "y_1"]);
    let line = "\"2018, May\",1.5,x,-3e0\r\n";
    assert_eq!(inputs(&plan, line).unwrap(), [tensor(&[1, 2], &[1.5, -3.0])]);
    let written = answer(&plan, line, &[tensor(&[1, 2], &[0.5, 1e-7])]);
    assert_eq!(text(written), "\"2018, May\",1.5,x,-3e0,0.5,1e-7");
    // What is kept of a line is not read as numbers first.
    let kept = |format: &str, expected: &str| {
        let toml = format!(
            "[input]\nformat = \"csv\"\ncsv = {{ null = [\"NA\"] }}\n[[input.tensors]]\ninput = \"x\"\nvalue = 1\n\
             [output]\nformat = \"{format}\"\nmode = \"replace\"\nkeep = [\"time\", \"a\", \"b\", \"T (degC)\"]\n\
             [[output.fields]]\nselect = [0]\n"
        );
        let plan = Plan::new(&settings(&toml), &model, None, Some(&names), None).unwrap();
        let written = |line: &str| text(answer(&plan, line.to_owned(), &[tensor(&[1, 2], &[0.5, 1.0])]));
        assert_eq!(
            [written("007,1.50,NA,true"), written("inf,-1e5,+1,12345678901234567890")].join(" "),
            expected
        );
    };
    kept("csv", "007,1.50,NA,true,0.5 inf,-1e5,+1,12345678901234567890,0.5");
    kept(
        "json",
        "{\"time\":\"007\",\"a\":1.5,\"b\":null,\"T (degC)\":true,\"y\":0.5} \
         {\"time\":\"inf\",\"a\":-100000.0,\"b\":\"+1\",\"T (degC)\":12345678901234567890,\"y\":0.5}",
    );
    // Without names and without fields all columns are taken.
    let plan = super::plan(
        "[input]\nformat = \"csv\"\ncsv = { delimiter = \";\", null = [\"NA\"] }\n[[input.tensors]]\ninput = \"x\"\nmissing = 0",
        &model,
    );
    assert_eq!(inputs(&plan, "1;NA").unwrap(), [tensor(&[1, 2], &[1.0, 0.0])]);
    assert_eq!(plan.output_columns(), None);
    assert_eq!(inputs(&plan, "1;NA;3").unwrap_err().message, "the line has 3 columns, expected 2");
}

#[test]
fn raw_elements_are_passed_on() {
    let model = signature(
        vec![spec("a", DType::F32, &[None, Some(2)]), spec("b", DType::I16, &[None])],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    let both = plan("[input]\nformat = \"raw\"", &model);
    let bytes = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>();
    let mut content = bytes(&[1.0, 2.0]);
    content.extend(5i16.to_le_bytes());
    let got = inputs(&both, content.clone()).unwrap();
    assert_eq!((&got[0], &*got[1].to_slice::<i16>().unwrap()), (&tensor(&[1, 2], &[1.0, 2.0]), &[5i16][..]));
    assert_eq!(answer(&both, content, &[tensor(&[1, 1], &[3.0])]).unwrap().value.unwrap(), bytes(&[3.0]));
    assert_eq!(inputs(&both, vec![0; 11]).unwrap_err().message, "the record has 11 bytes, expected 10");
    let one = plan("[input]\nformat = \"raw\"", &floats(2, 1));
    assert_eq!(inputs(&one, bytes(&[1.0, 2.0, 3.0, 4.0])).unwrap(), [tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
    let pixels = "[input]\nformat = \"raw\"\n[[input.tensors]]\ninput = \"x\"\ndtype = \"uint8\"\nscale = { factor = 0.5 }\n";
    assert_eq!(inputs(&plan(pixels, &floats(2, 1)), vec![4, 255]).unwrap(), [tensor(&[1, 2], &[2.0, 127.5])]);
}

#[test]
fn requests_are_answered_by_responses() {
    let model = floats(2, 1);
    let plan = plan("[input]\nformat = \"predict_request\"", &model);
    let x = tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let inputs_of = |encoding| BTreeMap::from([("x".to_owned(), encode_tensor(&x, encoding))]);
    for encoding in [Encoding::Fields, Encoding::Content] {
        let request = PredictRequest { inputs: inputs_of(encoding), ..PredictRequest::default() };
        let content = request.encode_to_vec();
        assert_eq!(inputs(&plan, content.clone()).unwrap(), std::slice::from_ref(&x));
        let y = tensor(&[2, 1], &[0.5, 0.75]);
        let written = answer(&plan, content, std::slice::from_ref(&y)).unwrap().value.unwrap();
        let mut response = PredictResponse::decode(written).unwrap();
        let spec = response.model_spec.take().unwrap();
        assert_eq!((spec.name.as_str(), spec.signature_name.as_str()), ("m", "serving_default"));
        assert_eq!(decode_tensor(response.outputs.remove("y").unwrap(), 1 << 20).unwrap(), y);
    }
}

#[test]
fn examples_are_read_and_extended() {
    let feature = |kind| Feature { kind: Some(kind) };
    let features = Features {
        feature: BTreeMap::from([
            ("x".to_owned(), feature(Kind::FloatList(FloatList { value: vec![1.0, 2.0] }))),
            ("id".to_owned(), feature(Kind::Int64List(Int64List { value: vec![9] }))),
        ]),
    };
    let content = SerializedExample::from(&features).as_bytes().to_vec();
    let read = plan("[input]\nformat = \"example\"\n[[filter]]\nfield = \"id\"\nequals = 9", &floats(2, 1));
    let decoded = read.decode(&record(content.clone())).unwrap();
    assert!(read.keep(&decoded).unwrap());
    assert_eq!(read.inputs(&decoded, &[]).unwrap(), [tensor(&[1, 2], &[1.0, 2.0])]);
    let written = answer(&read, content.clone(), &[tensor(&[1, 1], &[0.5])]).unwrap().value.unwrap();
    assert_eq!(written[..content.len()], content);
    // Read again, the example has both the old features and the answer.
    let again = plan(
        "[input]\nformat = \"example\"\n[[input.tensors]]\ninput = \"x\"\nfields = [\"x\", \"y\"]",
        &floats(3, 1),
    );
    assert_eq!(inputs(&again, written).unwrap(), [tensor(&[1, 3], &[1.0, 2.0, 0.5])]);
    // A model that parses examples itself gets the bytes.
    let parses = signature(
        vec![spec("examples", DType::String, &[None])],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    let whole = plan("[input]\nformat = \"example\"", &parses);
    assert_eq!(inputs(&whole, content.clone()).unwrap()[0].strings().unwrap(), [content]);
}

/// A picture of 2 x 2: red, green; blue, white.
fn png() -> Vec<u8> {
    let pixels = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];
    let mut out = Vec::new();
    image::codecs::png::PngEncoder::new(&mut out)
        .write_image(&pixels, 2, 2, ExtendedColorType::Rgb8)
        .unwrap();
    out
}

#[test]
fn pictures_become_tensors() {
    let model = |dtype, dims: &[Option<usize>]| {
        signature(vec![spec("x", dtype, dims)], vec![spec("y", DType::F32, &[None, Some(1)])])
    };
    let check = |toml: &str, dims: &[Option<usize>], shape: &[usize], expected: &[f32]| {
        let plan = plan(&format!("[input]\nformat = \"image\"\n{toml}"), &model(DType::F32, dims));
        let got = inputs(&plan, png()).unwrap().remove(0);
        assert_eq!(got.shape().dims(), shape, "{toml}");
        let got = got.to_slice::<f32>().unwrap();
        assert!(
            got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.01),
            "{toml} {got:?}"
        );
    };
    let (open, some) = (None, Some);
    let rgb = [255., 0., 0., 0., 255., 0., 0., 0., 255., 255., 255., 255.];
    check("", &[open, some(2), some(2), some(3)], &[1, 2, 2, 3], &rgb);
    check("", &[open, open, open, some(3)], &[1, 2, 2, 3], &rgb);
    let planes = [255., 0., 0., 255., 0., 255., 0., 255., 0., 0., 255., 255.];
    check("", &[open, some(3), some(2), some(2)], &[1, 3, 2, 2], &planes);
    let bgr = [0., 0., 255., 0., 255., 0., 255., 0., 0., 255., 255., 255.];
    check("image.channels = \"bgr\"", &[open, some(2), some(2), some(3)], &[1, 2, 2, 3], &bgr);
    let one = [open, some(1), some(1), some(3)];
    check("", &one, &[1, 1, 1, 3], &[127.5, 127.5, 127.5]);
    check("image.resize = \"nearest\"", &one, &[1, 1, 1, 3], &[255., 255., 255.]);
    check("image.resize = \"triangle\"", &one, &[1, 1, 1, 3], &[127.5, 127.5, 127.5]);
    let scaled =
        "[[input.tensors]]\ninput = \"x\"\nscale = { mean = [127.5, 0.0, 0.0], std = [127.5, 1.0, 255.0] }\n";
    check(scaled, &one, &[1, 1, 1, 3], &[0.0, 127.5, 0.5]);
    let planar = format!("image.layout = \"nchw\"\n{scaled}");
    check(&planar, &[open, some(3), some(1), some(1)], &[1, 3, 1, 1], &[0.0, 127.5, 0.5]);
    // As Pillow's `convert("L")` gives.
    check(
        "image.channels = \"gray\"\nimage.resize = \"none\"",
        &[open, some(2), some(2), some(1)],
        &[1, 2, 2, 1],
        &[76., 150., 29., 255.],
    );
    // From 2 to 4 pixels, as TensorFlow's `tf.image.resize` gives: 0, 1/4, 3/4, 1.
    let wide = plan("[input]\nformat = \"image\"", &model(DType::U8, &[open, some(2), some(4), some(3)]));
    let got = inputs(&wide, png()).unwrap();
    assert_eq!(got[0].bytes().unwrap()[..12], [255, 0, 0, 191, 64, 0, 64, 191, 0, 0, 255, 0]);
    let file = plan("[input]\nformat = \"image\"", &model(DType::String, &[None]));
    assert_eq!(inputs(&file, png()).unwrap()[0].strings().unwrap(), [png()]);
    assert_eq!(text(answer(&file, png(), &[tensor(&[1, 1], &[0.5])])), r#"{"y":[0.5]}"#);
}

#[test]
fn a_window_gets_one_row_of_each_record() {
    let model = signature(
        vec![spec("x", DType::F32, &[None, Some(120), Some(2)])],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    let window = Window { input: "x".into(), rows: 120 };
    let settings = settings("[[input.tensors]]\ninput = \"x\"\nfields = [\"a\", \"b\"]\n");
    let plan = Plan::new(&settings, &model, Some(&window), None, None).unwrap();
    let decoded = plan.decode(&record(r#"{"a": 1, "b": 2}"#)).unwrap();
    assert_eq!(plan.inputs(&decoded, &[]).unwrap(), [tensor(&[1, 2], &[1.0, 2.0])]);
    let window = Window { input: "x".into(), rows: 100 };
    assert!(Plan::new(&settings, &model, Some(&window), None, None).is_err());
}

#[test]
fn tables_are_joined() {
    let table: Settings = settings("[input]\nformat = \"csv\"\ncsv = { columns = [\"id\", \"age\"] }");
    let tables = [TableFormat { name: "customers", input: &table.input, columns: None }];
    let around = Around { tables: &tables, ..Around::default() };
    let toml = "[[input.tensors]]\ninput = \"x\"\nfields = [\"amount\", \"customers.age\"]\nmissing = -1\n";
    let plan = Plan::around(&settings(toml), &floats(2, 1), &around).unwrap();
    let decoded = plan.decode(&record(r#"{"amount": 3}"#)).unwrap();
    let joined = plan.decode_table(0, &record("7,42")).unwrap();
    assert_eq!(plan.inputs(&decoded, &[Some(joined)]).unwrap(), [tensor(&[1, 2], &[3.0, 42.0])]);
    assert_eq!(plan.inputs(&decoded, &[None]).unwrap(), [tensor(&[1, 2], &[3.0, -1.0])]);
}

#[test]
fn a_default_stands_for_a_missing_input() {
    let default = Tensor::from_vec(Shape::scalar(), vec![0.5f32]).unwrap();
    let rate = TensorSpec { default: Some(default.clone()), ..spec("rate", DType::F32, &[]) };
    let model = signature(vec![rate, spec("x", DType::F32, &[None])], vec![spec("y", DType::F32, &[None])]);
    let got = inputs(&plan("", &model), r#"{"x": 1}"#).unwrap();
    assert_eq!(got, [default, tensor(&[1], &[1.0])]);
}

#[test]
fn filters_choose_records() {
    let check = |filter: &str, content: &str, expected: bool| {
        let toml = format!("[[input.tensors]]\ninput = \"x\"\nvalue = 0\n{filter}");
        let plan = plan(&toml, &floats(1, 1));
        let decoded = plan.decode(&record(content.to_owned())).unwrap();
        assert_eq!(plan.keep(&decoded).unwrap(), expected, "{filter} {content}");
    };
    let on = |condition: &str| format!("[[filter]]\nfield = \"a\"\n{condition}\n");
    check(&on("above = 1"), r#"{"a": 1}"#, false);
    check(&on("at_least = 1\nbelow = 2"), r#"{"a": 1.5}"#, true);
    check(&on("at_most = 1"), "{}", false);
    check(&on("equals = \"x\""), r#"{"a": "x"}"#, true);
    check(&on("equals = 1"), r#"{"a": 1.0}"#, true);
    check(&on("not = \"x\""), "{}", true);
    check(&on("not = true"), r#"{"a": true}"#, false);
    check(&on("in = [1, \"b\"]"), r#"{"a": "b"}"#, true);
    check(&on("exists = false"), r#"{"a": null}"#, true);
    check(&on("matches = \"^a.c$\""), r#"{"a": "abc"}"#, true);
    let any = "[[filter]]\nany = [{ field = \"a\", above = 5 }, { field = \"b\", exists = true }]\n";
    check(any, r#"{"a": 1, "b": 0}"#, true);
    check(any, r#"{"a": 1}"#, false);
    check(&(any.to_owned() + &on("below = 9")), r#"{"a": 9}"#, false);
}

#[test]
fn dims_that_are_unknown_take_what_comes() {
    let x = TensorSpec { dims: Dims::unknown(), ..spec("x", DType::F32, &[]) };
    let y = TensorSpec { dims: Dims::unknown(), ..spec("y", DType::F32, &[]) };
    let plan = plan("", &signature(vec![x], vec![y]));
    assert_eq!(inputs(&plan, r#"{"x": [[1, 2]]}"#).unwrap(), [tensor(&[1, 1, 2], &[1.0, 2.0])]);
    assert_eq!(
        text(answer(&plan, Bytes::from(r#"{"x": 1}"#), &[tensor(&[1, 2], &[0.1, 2.0])])),
        r#"{"x": 1,"y":[0.1,2.0]}"#
    );
}

/// A file of the test data; `None`, with a line, where there are none.
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests find their data through the environment"
)]
fn test_data(path: &str) -> Option<Vec<u8>> {
    let Ok(folder) = std::env::var("SALVER_TESTDATA") else {
        println!("SALVER_TESTDATA is not set: nothing is tested");
        return None;
    };
    Some(std::fs::read(std::path::Path::new(&folder).join(path)).unwrap())
}

/// What `tf.io.decode_jpeg(.., channels=3, dct_method="INTEGER_ACCURATE")` and `tf.image.resize(.., [3, 4])` of TensorFlow 2.21
/// give. The two decoders round differently, by a level or two.
#[test]
fn a_photograph_is_read_as_tensorflow_reads_it() {
    let Some(photograph) = test_data("images/trained_butterfly.jpg") else { return };
    #[rustfmt::skip]
    let bilinear = [
        92.5, 93.0, 85.0, 251.0, 254.0, 247.0, 251.0, 253.0, 248.0, 51.0, 50.0, 47.0,
        245.5, 246.5, 240.5, 77.0, 107.0, 169.0, 88.5, 95.0, 125.5, 48.5, 44.5, 41.5,
        248.5, 250.5, 245.5, 44.0, 45.0, 44.5, 188.5, 181.5, 175.5, 247.0, 249.0, 244.0,
    ];
    #[rustfmt::skip]
    let nearest = [
        75.0, 75.0, 67.0, 251.0, 254.0, 247.0, 251.0, 253.0, 248.0, 51.0, 50.0, 46.0,
        246.0, 247.0, 241.0, 78.0, 108.0, 170.0, 79.0, 86.0, 115.0, 49.0, 45.0, 42.0,
        249.0, 251.0, 246.0, 44.0, 44.0, 44.0, 212.0, 205.0, 199.0, 247.0, 249.0, 244.0,
    ];
    let model = signature(
        vec![spec("x", DType::F32, &[None, Some(3), Some(4), Some(3)])],
        vec![spec("y", DType::F32, &[None, Some(1)])],
    );
    for (resize, expected) in [("bilinear", bilinear), ("nearest", nearest)] {
        let toml = format!("[input]\nformat = \"image\"\nimage = {{ resize = \"{resize}\" }}");
        let got = inputs(&plan(&toml, &model), photograph.clone()).unwrap().remove(0);
        let got = got.to_slice::<f32>().unwrap().into_owned();
        let worst =
            got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(worst <= 2.5, "{resize}: {worst} {got:?}");
    }
}

/// The columns of a file that names them with spaces, brackets and dots.
#[test]
fn rows_of_a_weather_station_are_read() {
    let Some(file) = test_data("jena/jena_climate_2018.csv") else { return };
    let file = String::from_utf8(file).unwrap();
    let mut lines = file.lines();
    let names: Vec<String> =
        lines.next().unwrap().split(',').map(|name| name.trim_matches('"').to_owned()).collect();
    let toml = "[input]\nformat = \"csv\"\n[[input.tensors]]\ninput = \"x\"\nfields = [\"T (degC)\", \"p (mbar)\"]\n\
                [output]\nmode = \"replace\"\nkeep = [\"Date Time\"]\n";
    let plan = Plan::new(&settings(toml), &floats(2, 1), None, Some(&names), None).unwrap();
    let column = |name: &str| names.iter().position(|known| known == name).unwrap();
    for line in lines.take(500) {
        let columns: Vec<&str> = line.split(',').collect();
        let number = |name| columns[column(name)].trim().parse::<f32>().unwrap();
        let row = [number("T (degC)"), number("p (mbar)")];
        assert_eq!(inputs(&plan, line.to_owned()).unwrap(), [tensor(&[1, 2], &row)]);
        let written = text(answer(&plan, line.to_owned(), &[tensor(&[1, 1], &[0.5])]));
        assert_eq!(written, format!("{},0.5", columns[column("Date Time")]));
    }
}
