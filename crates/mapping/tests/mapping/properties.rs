//! Answers leave what was there as it was.

use proptest::prelude::*;
use serde_json::Value;

use super::{answer, inputs, plan, signature, spec, tensor, text};
use salver_mapping::Plan;
use salver_tensor::DType;

/// Any JSON value, as deep as records are.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn appending_keeps_the_record(
        members in prop::collection::hash_map("[a-w]{1,6}", json(), 0..6),
        row in prop::collection::vec(-1e6f32..1e6, 2),
        is_pretty in any::<bool>(),
        score in any::<f32>().prop_filter("JSON has no others", |number| number.is_finite()),
    ) {
        let mut record: Value = Value::from_iter(members);
        record["x"] = Value::from(row.clone());
        let content = if is_pretty { serde_json::to_string_pretty(&record) } else { serde_json::to_string(&record) };
        let content = content.unwrap();
        let plan = plan("[[output.fields]]\nselect = [0]\nname = \"yy\"", &super::floats(2, 1));
        prop_assert_eq!(inputs(&plan, content.clone()).unwrap(), [tensor(&[1, 2], &row)]);
        let written = text(answer(&plan, content.clone(), &[tensor(&[1, 1], &[score])]));
        let close = content.rfind('}').unwrap();
        prop_assert_eq!(&written[..close], &content[..close]);
        let mut parsed: Value = serde_json::from_str(&written).unwrap();
        let answered = parsed.as_object_mut().unwrap().remove("yy").unwrap();
        prop_assert_eq!(answered.to_string().parse::<f32>().unwrap(), score);
        prop_assert_eq!(parsed, serde_json::from_str::<Value>(&content).unwrap());
    }

    #[test]
    fn fields_are_found_in_any_order_and_among_others(
        names in prop::collection::hash_set("[a-z]{1,3}", 2..40),
        n_wanted in 1usize..40,
        order in any::<prop::sample::Index>(),
        places in prop::collection::btree_set(0usize..60, 1..20),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let n_wanted = n_wanted.min(names.len());
        let wanted: Vec<String> = names[..n_wanted].iter().map(|name| format!("'{name}'")).collect();
        let listed: Vec<String> = places.iter().rev().map(|place| format!("'0'[{place}]")).collect();
        let fields: Vec<&str> = wanted.iter().chain(&listed).map(String::as_str).collect();
        let toml = format!("[[input.tensors]]\ninput = \"x\"\nfields = {fields:?}\n");
        let plan = plan(&toml, &super::floats(fields.len(), 1));
        let mut members: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("\"{name}\": {i}")).collect();
        members.push(format!("\"0\": {:?}", (100..160).collect::<Vec<usize>>()));
        let first = order.index(members.len());
        members.rotate_left(first);
        let listed = places.iter().rev().map(|place| 100.0 + *place as f32);
        let row: Vec<f32> = (0..n_wanted).map(|i| i as f32).chain(listed).collect();
        prop_assert_eq!(inputs(&plan, format!("{{{}}}", members.join(", "))).unwrap(), [tensor(&[1, row.len()], &row)]);
    }

    #[test]
    fn lines_are_read_as_they_were_written(
        columns in prop::collection::vec("[ -~\"\n\r,;é]{0,8}", 1..6),
        score in any::<f32>().prop_filter("a number", |number| number.is_finite()),
    ) {
        let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
        let quoted: Vec<String> = columns.iter().map(|text| format!("\"{}\"", text.replace('"', "\"\""))).collect();
        let line = quoted.join(",") + "\n";
        let model = signature(
            vec![spec("x", DType::String, &[None, Some(columns.len())])],
            vec![spec("y", DType::F32, &[None, Some(1)])],
        );
        let settings = super::settings("[input]\nformat = \"csv\"\ncsv = { null = [] }\n");
        let plan = Plan::new(&settings, &model, None, Some(&names), None).unwrap();
        let got = inputs(&plan, line.clone()).unwrap();
        let strings: Vec<&[u8]> = got[0].strings().unwrap().iter().map(|text| &text[..]).collect();
        let expected: Vec<&[u8]> = columns.iter().map(|text| text.as_bytes()).collect();
        prop_assert_eq!(strings, expected);
        // The answer is read by a plan that expects one column more.
        let written = answer(&plan, line, &[tensor(&[1, 1], &[score])]).unwrap().value.unwrap();
        let names: Vec<String> = (0..=columns.len()).map(|i| format!("c{i}")).collect();
        let model = signature(
            vec![spec("x", DType::String, &[None, Some(names.len())])],
            vec![spec("y", DType::F32, &[None, Some(1)])],
        );
        let again = Plan::new(&settings, &model, None, Some(&names), None).unwrap();
        let got = inputs(&again, written).unwrap();
        let (last, others) = got[0].strings().unwrap().split_last().unwrap();
        prop_assert_eq!(std::str::from_utf8(last).unwrap().parse::<f32>().unwrap(), score);
        prop_assert_eq!(others, columns.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
    }
}
