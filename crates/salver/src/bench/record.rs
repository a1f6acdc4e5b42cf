//! The report as JSON.

use serde_json::{Map, Value, json};

use super::report::{Found, Report, Run};

/// All figures. Times are in milliseconds, rates per second, memory in bytes unless a name says otherwise.
pub(super) fn json(report: &Report) -> String {
    let object = |pairs: &[(&'static str, String)]| {
        Value::Object(
            pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>(),
        )
    };
    let value = json!({
        "salver": env!("CARGO_PKG_VERSION"),
        "server": report.target.to_string(),
        "protocol": report.protocol,
        "model": report.model,
        "version": report.version,
        "requests": report.what,
        "settings": object(&report.settings),
        "machine": object(&report.machine),
        "goal": report.goal.as_ref().map(ToString::to_string),
        "found_rate": report.found.and_then(Found::rate),
        "search_was_stopped": matches!(report.found, Some(Found::Stopped(_))),
        "highest_rate_so_far": report.found.and_then(Found::so_far),
        "not_held": report.broken,
        "runs": report.runs.iter().map(run).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn run(run: &Run) -> Value {
    let mut value = serde_json::to_value(&run.summary).expect("figures and texts have a JSON form");
    if let Some(object) = value.as_object_mut() {
        object.insert("role".to_owned(), json!(run.role));
        object.insert("misses".to_owned(), json!(run.misses));
    }
    value
}
