//! Which records are wanted.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::Refused;
use crate::fields::Hint;
use crate::inputs::{as_float, describe, equal};
use crate::settings::{FilterSettings, Literal};
use crate::value::Value;

/// Conditions, all of which must hold.
#[derive(Debug, Default)]
pub(crate) struct Filter(Vec<Condition>);

#[derive(Debug)]
enum Condition {
    Field { slot: usize, name: Arc<str>, test: Test },
    Any(Vec<Filter>),
}

#[derive(Debug)]
enum Test {
    Equals(Value),
    Not(Value),
    OneOf(Vec<Value>),
    Compare(Order, f64),
    Exists(bool),
    Matches(Box<Regex>),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// How deep groups may be nested.
const MAX_DEPTH: usize = 8;

impl Filter {
    /// Checks the settings; `slot` gives the number of a field.
    pub(crate) fn new(
        settings: &[FilterSettings],
        slot: &mut dyn FnMut(&str, Hint) -> Result<usize, String>,
    ) -> Result<Filter, Vec<String>> {
        Filter::nested(settings, slot, 0)
    }

    fn nested(
        settings: &[FilterSettings],
        slot: &mut dyn FnMut(&str, Hint) -> Result<usize, String>,
        depth: usize,
    ) -> Result<Filter, Vec<String>> {
        let mut conditions = Vec::new();
        let mut problems = Vec::new();
        for setting in settings {
            match conditions_of(setting, slot, depth) {
                Ok(more) => conditions.extend(more),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(Filter(conditions)) } else { Err(problems) }
    }

    /// Whether all conditions hold of the record whose fields are given.
    pub(crate) fn holds(&self, fields: &[Option<Value>]) -> Result<bool, Refused> {
        for condition in &self.0 {
            let holds = match condition {
                Condition::Field { slot, name, test } => {
                    let value =
                        fields.get(*slot).and_then(Option::as_ref).filter(|value| **value != Value::Null);
                    test.holds(value).map_err(|expected| wrong(name, value, expected))?
                }
                Condition::Any(groups) => {
                    let mut any = false;
                    for group in groups {
                        any = any || group.holds(fields)?;
                    }
                    any
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cold]
fn wrong(name: &str, value: Option<&Value>, expected: &str) -> Refused {
    let got = value.map_or_else(String::new, describe);
    Refused::shape(format!("field `{name}`, in a filter: {got}, expected {expected}"))
}

fn conditions_of(
    settings: &FilterSettings,
    slot: &mut dyn FnMut(&str, Hint) -> Result<usize, String>,
    depth: usize,
) -> Result<Vec<Condition>, Vec<String>> {
    if !settings.any.is_empty() {
        let alone = FilterSettings { any: settings.any.clone(), ..FilterSettings::default() };
        if !tests(settings).map_err(|problem| vec![problem])?.is_empty() || settings.field.is_some() {
            return Err(vec!["filter: `any` stands alone, without `field` or conditions".into()]);
        }
        if depth >= MAX_DEPTH {
            return Err(vec![format!("filter: `any` is nested deeper than {MAX_DEPTH} times")]);
        }
        let groups: Result<Vec<Filter>, Vec<String>> = alone
            .any
            .iter()
            .map(|group| Filter::nested(std::slice::from_ref(group), slot, depth + 1))
            .collect();
        return Ok(vec![Condition::Any(groups?)]);
    }
    let Some(field) = &settings.field else { return Err(vec!["filter: `field` is not set".into()]) };
    let tests = tests(settings).map_err(|problem| vec![problem])?;
    if tests.is_empty() {
        return Err(vec![format!("filter on `{field}`: no condition is set")]);
    }
    let name: Arc<str> = field.as_str().into();
    tests
        .into_iter()
        .map(|(hint, test)| {
            let slot = slot(field, hint).map_err(|problem| vec![format!("filter: {problem}")])?;
            Ok(Condition::Field { slot, name: name.clone(), test })
        })
        .collect()
}

fn tests(settings: &FilterSettings) -> Result<Vec<(Hint, Test)>, String> {
    let mut tests = Vec::new();
    if let Some(literal) = &settings.equals {
        tests.push((hint(literal), Test::Equals(literal.to_value())));
    }
    if let Some(literal) = &settings.not {
        tests.push((hint(literal), Test::Not(literal.to_value())));
    }
    if let Some(literals) = &settings.one_of {
        let is_text = literals.iter().all(|literal| matches!(literal, Literal::Text(_)));
        let hint = if is_text { Hint::Text } else { Hint::Any };
        tests.push((hint, Test::OneOf(literals.iter().map(Literal::to_value).collect())));
    }
    let bounds = [
        (Order::Above, settings.above),
        (Order::AtLeast, settings.at_least),
        (Order::Below, settings.below),
        (Order::AtMost, settings.at_most),
    ];
    for (order, bound) in bounds {
        tests.extend(bound.map(|bound| (Hint::Any, Test::Compare(order, bound))));
    }
    tests.extend(settings.exists.map(|exists| (Hint::Any, Test::Exists(exists))));
    if let Some(pattern) = &settings.matches {
        let regex = RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let regex = regex.map_err(|error| format!("filter: `matches` is no regular expression: {error}"))?;
        tests.push((Hint::Text, Test::Matches(Box::new(regex))));
    }
    Ok(tests)
}

fn hint(literal: &Literal) -> Hint {
    match literal {
        Literal::Text(_) => Hint::Text,
        _ => Hint::Any,
    }
}

impl Literal {
    /// The value that is meant.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(number) => Value::Int(i128::from(*number)),
            Literal::Float(number) => Value::Float(*number),
            Literal::Text(text) => Value::text(text),
        }
    }
}

impl Test {
    /// The error is what was expected instead.
    fn holds(&self, value: Option<&Value>) -> Result<bool, &'static str> {
        match (self, value) {
            (Test::Exists(exists), value) => Ok(value.is_some() == *exists),
            (Test::Not(_), None) => Ok(true),
            (_, None) => Ok(false),
            (Test::Equals(expected), Some(value)) => Ok(equal(expected, value)),
            (Test::Not(expected), Some(value)) => Ok(!equal(expected, value)),
            (Test::OneOf(expected), Some(value)) => {
                Ok(expected.iter().any(|expected| equal(expected, value)))
            }
            (Test::Compare(order, bound), Some(value @ (Value::Int(_) | Value::Float(_)))) => {
                let number = as_float(value).unwrap_or(f64::NAN);
                Ok(match order {
                    Order::Above => number > *bound,
                    Order::AtLeast => number >= *bound,
                    Order::Below => number < *bound,
                    Order::AtMost => number <= *bound,
                })
            }
            (Test::Compare(..), Some(Value::Tensor(tensor))) if tensor.shape().n_elements() == 1 => {
                let number = crate::answers::tensor_numbers(tensor).and_then(|numbers| numbers.get(0));
                self.holds(Some(&number.ok_or("a number")?))
            }
            (Test::Compare(..), Some(_)) => Err("a number"),
            (Test::Matches(regex), Some(Value::Text(text))) => Ok(regex.is_match(text)),
            (Test::Matches(regex), Some(Value::Bytes(bytes))) => {
                std::str::from_utf8(bytes).map(|text| regex.is_match(text)).map_err(|_| "text")
            }
            (Test::Matches(_), Some(_)) => Err("text"),
        }
    }
}
