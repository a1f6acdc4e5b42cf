//! How far partitions reach, out of the library's statistics (its STATISTICS.md).

use std::collections::HashMap;

use serde::Deserialize;

/// What the library knew of an assigned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) topic: String,
    pub(crate) number: i32,
    /// Up to where it can be read: the last stable offset for readers of what is committed.
    pub(crate) end: i64,
    /// Whether everything up to there has been given to the application.
    pub(crate) is_read: bool,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Figures>,
}

/// Offsets that are not known are negative.
#[derive(Deserialize)]
struct Figures {
    partition: i32,
    fetchq_cnt: i64,
    next_offset: i64,
    hi_offset: i64,
    ls_offset: i64,
}

pub(crate) fn marks(statistics: &[u8]) -> Result<Vec<Mark>, serde_json::Error> {
    let statistics: Statistics = serde_json::from_slice(statistics)?;
    let mut marks = Vec::new();
    for (topic, about) in statistics.topics {
        for figures in about.partitions.into_values() {
            let end = if figures.ls_offset >= 0 { figures.ls_offset } else { figures.hi_offset };
            // Partition -1 is for records that have none yet.
            if figures.partition >= 0 && end >= 0 {
                let is_read = figures.fetchq_cnt == 0 && figures.next_offset >= end;
                marks.push(Mark { topic: topic.clone(), number: figures.partition, end, is_read });
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read() {
        let check = |figures: [i64; 5], expected: Option<(i64, bool)>| {
            let [partition, fetchq_cnt, next_offset, hi_offset, ls_offset] = figures;
            let text = serde_json::json!({ "name": "c", "brokers": { "a:1/1": { "name": "a" } }, "topics": { "t": {
                "topic": "t", "partitions": { partition.to_string(): {
                    "partition": partition, "fetchq_cnt": fetchq_cnt, "next_offset": next_offset,
                    "hi_offset": hi_offset, "ls_offset": ls_offset, "consumer_lag": -1,
                } },
            } } });
            let found = marks(text.to_string().as_bytes()).expect("the text is right");
            let expected =
                expected.map(|(end, is_read)| Mark { topic: "t".to_owned(), number: 3, end, is_read });
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{figures:?}");
        };
        check([3, 0, 10, 12, 10], Some((10, true)));
        check([3, 2, 10, 12, 10], Some((10, false)));
        check([3, 0, 9, 12, 10], Some((10, false)));
        check([3, 0, 12, 12, -1], Some((12, true)));
        check([3, 0, -1001, -1001, -1001], None);
        check([-1, 0, 0, 0, 0], None);
    }

    #[test]
    fn text_that_is_none_is_refused() {
        assert!(marks(b"{").is_err());
        assert_eq!(marks(b"{}").expect("there are no topics"), []);
    }
}
