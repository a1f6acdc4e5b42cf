//! Where records come from and go to, as people write it: a topic, a file, or the standard streams.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A topic.
    Topic(Topic),
    /// A file; its name says how records lie in it.
    File(PathBuf),
    /// Standard input or standard output.
    Standard,
}

/// A topic, and where its brokers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    /// `HOST:PORT` between commas.
    pub(crate) brokers: String,
    pub(crate) name: String,
}

const FORMS: &str = "expected kafka://HOST[:PORT][,..]/TOPIC, a file, or -";

impl Place {
    pub(crate) fn topic(&self) -> Option<&Topic> {
        match self {
            Place::Topic(topic) => Some(topic),
            _ => None,
        }
    }

    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Place::File(path) => Some(path),
            _ => None,
        }
    }

    /// What is meant by a text beside this place: another topic of the same brokers by its name alone, else as it is written.
    ///
    /// # Errors
    /// As [`Place::from_str`].
    pub(crate) fn beside(&self, text: &str) -> anyhow::Result<Place> {
        match self {
            Place::Topic(topic) if !text.contains("://") && !text.contains('/') => {
                format!("kafka://{}/{text}", topic.brokers).parse()
            }
            _ => text.parse(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Topic(topic) => write!(f, "kafka://{}/{}", topic.brokers, topic.name),
            Place::File(path) => path.display().fmt(f),
            Place::Standard => f.write_str("-"),
        }
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Place> {
        if text.starts_with("kafka://") {
            return topic(text).map(Place::Topic);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            bail!("'{scheme}://' is not known, {FORMS}");
        }
        match text {
            "" => bail!("an empty name, {FORMS}"),
            "-" => Ok(Place::Standard),
            path => Ok(Place::File(path.into())),
        }
    }
}

#[cfg(feature = "kafka")]
fn topic(text: &str) -> anyhow::Result<Topic> {
    let address: salver_kafka::Address = text.parse()?;
    Ok(Topic { brokers: address.brokers, name: address.topic })
}

#[cfg(not(feature = "kafka"))]
fn topic(text: &str) -> anyhow::Result<Topic> {
    bail!("{text}: this build has no Kafka; it was made without the feature 'kafka'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_their_form() {
        let check = |text: &str, expected: Place| {
            assert_eq!(text.parse::<Place>().unwrap(), expected, "{text}");
        };
        check("-", Place::Standard);
        check("a/b.jsonl", Place::File("a/b.jsonl".into()));
        check("./odd:name.csv", Place::File("./odd:name.csv".into()));
        for (text, expected) in [("", "an empty name"), ("http://a/b", "'http://' is not known")] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn topics_have_brokers() {
        let main: Place = "kafka://a:1,b/t".parse().unwrap();
        assert_eq!(main, Place::Topic(Topic { brokers: "a:1,b:9092".into(), name: "t".into() }));
        assert_eq!(main.beside("dead").unwrap().to_string(), "kafka://a:1,b:9092/dead");
        assert_eq!(main.beside("kafka://b:2/dead").unwrap().to_string(), "kafka://b:2/dead");
        assert_eq!(main.beside("/tmp/dead.jsonl").unwrap(), Place::File("/tmp/dead.jsonl".into()));
        assert!("kafka://a:1".parse::<Place>().is_err());
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_build_without_kafka_says_so() {
        let error = "kafka://a/t".parse::<Place>().unwrap_err().to_string();
        assert!(error.contains("this build has no Kafka"), "{error}");
    }
}
