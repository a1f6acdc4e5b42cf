//! Versions of libraries, as the packages that hold them write theirs.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

const MAX_LENGTH: usize = 64;

/// A version such as `1.32.0` or `2.22.0rc1`. It is fit to be the name of a folder.
///
/// The order is that of Python's version specifiers as far as these packages use it: numbers by value, missing ones are
/// 0, and `dev`, `a`, `b`, `rc` come before the release, `post` behind it.
#[derive(Debug, Clone)]
pub struct Version(String);

impl Version {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Numbers of the release, then the stage with its number, then the text: what the order goes by.
    fn key(&self) -> (Vec<u64>, i8, u64) {
        let text = self.0.split_once('+').map_or(self.0.as_str(), |(public, _)| public);
        let mut release = Vec::new();
        let mut rest = text;
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            if end == 0 {
                break;
            }
            release.push(rest[..end].parse().unwrap_or(u64::MAX));
            rest = &rest[end..];
            match rest.strip_prefix('.') {
                Some(behind) if behind.starts_with(|c: char| c.is_ascii_digit()) => rest = behind,
                _ => break,
            }
        }
        while release.last() == Some(&0) {
            release.pop();
        }
        let word = rest.trim_start_matches(['.', '-', '_']);
        let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        let stage = match word[..end].to_ascii_lowercase().as_str() {
            "dev" => -4,
            "a" | "alpha" => -3,
            "b" | "beta" => -2,
            "rc" | "c" => -1,
            "" => 0,
            _ => 1,
        };
        let number = word[end..].trim_start_matches(['.', '-', '_']);
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        (release, stage, number[..end].parse().unwrap_or(0))
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Version, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_' | '!');
        let good = text.len() <= MAX_LENGTH
            && text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(allowed)
            && !text.contains("..");
        if good {
            return Ok(Version(text.to_owned()));
        }
        let shown: String = text.chars().take(MAX_LENGTH).collect();
        Err(Error::new(
            ErrorKind::Invalid,
            format!("'{}' is no version, expected one such as 1.32.0", shown.escape_default()),
        ))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.key().cmp(&other.key()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.0 == other.0
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_versions() {
        let sorted = [
            "1.2.dev20251031003",
            "1.2.0a1",
            "1.2.0b2",
            "1.2.0rc1",
            "1.2.0rc2",
            "1.2.0",
            "1.2.0.post1",
            "1.9.3",
            "1.10.0",
            "1.10.0.1",
            "2024.6.0",
            "2026.4.1",
        ];
        let mut versions: Vec<Version> = sorted.iter().rev().map(|text| text.parse().unwrap()).collect();
        versions.sort();
        let found: Vec<_> = versions.iter().map(Version::as_str).collect();
        assert_eq!(found, sorted);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", ".", "..", "../1", "1/2", "1..2", "v1", "-1", "1 2", "1\n", &"1".repeat(65)] {
            assert_eq!(text.parse::<Version>().unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_an_order(texts in proptest::collection::vec("[0-9]{1,2}(\\.[0-9]{1,3}){0,3}(rc[0-9]|\\.dev[0-9]|\\.post[0-9])?", 3)) {
            let [a, b, c]: [Version; 3] = texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap();
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        }

        #[test]
        fn any_text_is_a_version_or_refused(text in "\\PC{0,70}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.cmp(&version), Ordering::Equal);
            }
        }
    }
}
