//! The Java of this machine.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Missing;
use crate::place::Place;

/// What the brokers of Kafka 4 ask for.
const OLDEST: u32 = 17;

/// The program `java`: of JAVA_HOME if that is set, else of the search path.
pub(crate) fn found(place: &Place) -> Result<PathBuf> {
    let program = place
        .java_home
        .as_deref()
        .map_or_else(|| PathBuf::from("java"), |home| home.join("bin").join("java"));
    let answer = place.command(&program).args(["--version"]).answer();
    Ok(judged(&program, answer.as_deref()).map(|()| program)?)
}

fn judged(program: &Path, answer: Option<&str>) -> Result<(), Missing> {
    let program = program.display();
    match answer.map(major) {
        Some(Some(major)) if major >= OLDEST => Ok(()),
        Some(Some(major)) => {
            Err(Missing(format!("{program} is Java {major}, and Kafka needs Java {OLDEST} or newer")))
        }
        Some(None) => Err(Missing(format!(
            "{program} does not say its version, and Kafka needs Java {OLDEST} or newer"
        ))),
        None => Err(Missing(format!(
            "Java is not installed ({program} does not run), and Kafka needs Java {OLDEST} or newer"
        ))),
    }
}

/// The 17 of `openjdk 17.0.15 2025-04-15`.
fn major(answer: &str) -> Option<u32> {
    let digits = |word: &str| word.split(['.', '-', '+']).next().and_then(|digits| digits.parse().ok());
    answer.lines().next()?.split_whitespace().nth(1).and_then(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_is_taken_from_17_on() {
        #[track_caller]
        fn check(answer: Option<&str>, refused: Option<&str>) {
            let judged = judged(Path::new("java"), answer).map_err(|missing| missing.0);
            match refused {
                None => assert_eq!(judged, Ok(())),
                Some(part) => assert!(judged.clone().is_err_and(|why| why.contains(part)), "{judged:?}"),
            }
        }
        check(Some("openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment"), None);
        check(Some("openjdk 25 2025-09-16"), None);
        check(Some("java 21-ea 2023-09-19"), None);
        check(Some("openjdk 11.0.2 2019-01-15"), Some("is Java 11"));
        check(Some("something else"), Some("does not say its version"));
        check(None, Some("not installed"));
    }
}
