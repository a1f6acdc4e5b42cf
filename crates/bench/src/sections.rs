//! Reports of several sections: what a run does not measure again is kept from the one before, with its time.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::answer;

/// What was found, and the time and the commit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dated<T> {
    pub(crate) at: String,
    pub(crate) found: T,
}

/// The time and the commit now.
pub(crate) fn dated() -> String {
    let commit = answer("git", &["rev-parse", "--short", "HEAD"]);
    format!("{} at commit {commit}", answer("date", &["-u", "+%Y-%m-%d %H:%M UTC"]))
}

/// The figures that an earlier run has written there; null where there are none.
pub(crate) fn kept(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut report: Value = serde_json::from_str(&text).unwrap_or_default();
    report["figures"].take()
}

/// A section of these figures, if it has the present form.
pub(crate) fn section<T: DeserializeOwned>(figures: &Value, name: &str) -> Option<T> {
    let value = figures.get(name).filter(|value| !value.is_null())?;
    match T::deserialize(value) {
        Ok(found) => Some(found),
        Err(error) => {
            println!("the {name} of the earlier report has another form and is left out: {error}");
            None
        }
    }
}

/// Yes or no, for a column that says whether an aim is met.
pub(crate) fn yes(is_met: bool) -> String {
    if is_met { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_before_is_kept_in_its_present_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        assert_eq!(kept(&path), Value::Null);
        let text =
            r#"{"machine": null, "figures": {"one": {"at": "then", "found": 3}, "none": null, "old": 4}}"#;
        std::fs::write(&path, text).unwrap();
        let figures = kept(&path);
        let check = |name: &str, expected: Option<(&str, u32)>| {
            let found = section::<Dated<u32>>(&figures, name);
            assert_eq!(found.as_ref().map(|dated| (&*dated.at, dated.found)), expected, "{name}");
        };
        check("one", Some(("then", 3)));
        check("none", None);
        check("old", None);
        check("missing", None);
    }
}
