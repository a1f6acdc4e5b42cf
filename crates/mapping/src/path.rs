//! Where a field lies in a record.

use std::fmt;
use std::sync::Arc;

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The field of that name.
    Key(Arc<str>),
    /// The item of that number, from 0.
    Index(usize),
}

/// The steps from the whole record to a field; none for the record itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Path(Vec<Step>);

/// How many steps a path may have.
const MAX_STEPS: usize = 32;

/// How many fields a range may stand for.
const MAX_RANGE: u64 = 65_536;

impl Path {
    pub(crate) fn new(steps: Vec<Step>) -> Path {
        Path(steps)
    }

    /// The field of that name, whatever characters it has.
    pub(crate) fn key(name: &str) -> Path {
        Path(vec![Step::Key(name.into())])
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Reads `a.b.c`, `a[3]`, `'a name with . in it'.b`; `$` is the whole record.
    pub(crate) fn parse(text: &str) -> Result<Path, String> {
        let wrong = |what: &str| format!("field `{text}`: {what}, expected a path such as `a.b` or `a[3]`");
        if text == "$" {
            return Ok(Path::default());
        }
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let (key, after) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').ok_or_else(|| wrong("a quote is not closed"))?,
                None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
            };
            // A list may be the record itself: `[3]`.
            let is_list = key.is_empty() && steps.is_empty() && after.starts_with('[');
            if !is_list {
                if key.is_empty() {
                    return Err(wrong("a name is empty"));
                }
                steps.push(Step::Key(key.into()));
            }
            rest = after;
            while let Some(inside) = rest.strip_prefix('[') {
                let (number, after) =
                    inside.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
                steps.push(Step::Index(number.parse().map_err(|_| wrong("a number is wrong"))?));
                rest = after;
            }
            if steps.len() > MAX_STEPS {
                return Err(wrong("it has more than 32 steps"));
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Path(steps)),
                None => return Err(wrong("something follows a bracket or a quote")),
            }
        }
    }
}

/// The names that `v1..v28` stands for; the text itself if it is no range.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = text.split_once("..") else { return Ok(vec![text.to_owned()]) };
    let wrong = || format!("fields `{text}`: expected a range such as `v1..v28`");
    let (prefix, low) = split_number(first).ok_or_else(wrong)?;
    let (other, high) = split_number(last).ok_or_else(wrong)?;
    if !prefix.ends_with(other) {
        return Err(wrong());
    }
    let width = if low.starts_with('0') { low.len() } else { 0 };
    let (low, high): (u64, u64) = (low.parse().map_err(|_| wrong())?, high.parse().map_err(|_| wrong())?);
    if high < low || high - low >= MAX_RANGE {
        return Err(format!("fields `{text}`: expected a range of 1 to {MAX_RANGE} fields, lowest first"));
    }
    Ok((low..=high).map(|number| format!("{prefix}{number:0width$}")).collect())
}

/// A name and the digits at its end.
fn split_number(name: &str) -> Option<(&str, &str)> {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = name.get(prefix.len()..)?;
    (!digits.is_empty()).then_some((prefix, digits))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("$");
        }
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if i == 0 { "" } else { "." };
                    let quote = if key.contains(['.', '[']) { "'" } else { "" };
                    write!(f, "{dot}{quote}{key}{quote}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_shown() {
        for (text, n_steps) in [
            ("a", 1),
            ("a.b.c", 3),
            ("a[3]", 2),
            ("a[3][4].b", 4),
            ("[0].x", 2),
            ("$", 0),
            ("'a.b'.c", 2),
            ("T (degC)", 1),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!((path.steps().len(), path.to_string().as_str()), (n_steps, text));
        }
        for text in ["", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "'a", "a[1]b", "a[99999999999999999999]"]
        {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&"a.".repeat(40)).is_err());
    }

    #[test]
    fn ranges_stand_for_fields() {
        let check = |text: &str, expected: &[&str]| assert_eq!(expand(text).unwrap(), expected, "{text}");
        check("v1..v3", &["v1", "v2", "v3"]);
        check("a.v9..a.v10", &["a.v9", "a.v10"]);
        check("v1..3", &["v1", "v2", "v3"]);
        check("p08..p10", &["p08", "p09", "p10"]);
        check("0..2", &["0", "1", "2"]);
        check("plain", &["plain"]);
        for text in ["v3..v1", "a1..b2", "a..b", "v0..v99999999", "v1..", "..v1", "v1..v99999999999999999999"]
        {
            assert!(expand(text).is_err(), "{text}");
        }
    }
}
