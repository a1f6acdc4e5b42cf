//! Bounded runs: chosen partitions of one topic, from somewhere to somewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use salver_records::{Assignment, Error, Event};
use serde::Deserialize;

use super::group::reading;
use super::{KafkaSource, Mode, Positions};
use crate::Connection;
use crate::callbacks::Callbacks;
use crate::error::failed;
use crate::settings::{Isolation, Property};
use crate::slots::State;
use crate::topics::Topics;

/// What a bounded run reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// The topic.
    pub topic: String,
    /// Which of its partitions; all of them if `None`.
    pub partitions: Option<Vec<i32>>,
    /// Where each partition is begun.
    pub from: Bound,
    /// Where each partition ends: the first record that is not read. It is looked up once, at the beginning.
    pub to: Bound,
    /// Where these partitions begin instead.
    pub from_each: BTreeMap<i32, i64>,
    /// Where these partitions end instead.
    pub to_each: BTreeMap<i32, i64>,
    /// Under which group the run remembers how far it is: started again under that name, it goes on there. Nobody else may
    /// be reading under it. Without it nothing is remembered.
    pub group: Option<String>,
    /// Whether records of transactions that are open or were aborted are seen.
    pub isolation: Isolation,
    /// How many bytes are read ahead.
    pub read_ahead_bytes: u64,
    /// Properties of librdkafka for this consumer, on top of the connection's.
    pub properties: BTreeMap<String, Property>,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay {
            topic: String::new(),
            partitions: None,
            from: Bound::Beginning,
            to: Bound::Now,
            from_each: BTreeMap::new(),
            to_each: BTreeMap::new(),
            group: None,
            isolation: Isolation::ReadCommitted,
            read_ahead_bytes: 32 << 20,
            properties: BTreeMap::new(),
        }
    }
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The first record that is kept.
    Beginning,
    /// After the record that is the newest one when the run begins.
    Now,
    /// The record with this offset.
    Offset(i64),
    /// The first record that is not older than that: milliseconds since 1970. The newest one's end if there is none.
    TimeMs(i64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Beginning => f.write_str("beginning"),
            Bound::Now => f.write_str("now"),
            Bound::Offset(offset) => write!(f, "offset:{offset}"),
            Bound::TimeMs(time) => write!(f, "time:{time}"),
        }
    }
}

impl FromStr for Bound {
    type Err = Error;

    /// `beginning`, `now`, `offset:N`, `time:MILLISECONDS` or `time:2026-11-23T08:00:00Z`.
    fn from_str(text: &str) -> Result<Bound, Error> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        let found = match kind {
            "beginning" if value.is_empty() => Some(Bound::Beginning),
            "now" if value.is_empty() => Some(Bound::Now),
            "offset" => value.parse().ok().filter(|offset| *offset >= 0).map(Bound::Offset),
            "time" => {
                value.parse().ok().filter(|time| *time >= 0).or_else(|| utc_ms(value)).map(Bound::TimeMs)
            }
            _ => None,
        };
        found.ok_or_else(|| {
            Error::fatal(format!(
                "{text:?} is not a place in a topic: expected beginning, now, offset:N, time:MILLISECONDS or \
                 time:2026-11-23T08:00:00Z"
            ))
        })
    }
}

/// RFC 3339 in UTC, to milliseconds since 1970.
fn utc_ms(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let month_days = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let n_days = *month_days.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || !(1..=n_days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let whole_years: i64 = year - 1;
    let leaps = |years: i64| years / 4 - years / 100 + years / 400;
    let days_before = (year - 1970) * 365 + leaps(whole_years) - leaps(1969);
    let days_in_year: i64 = month_days.iter().take(usize::try_from(month).ok()? - 1).sum::<i64>() + day - 1;
    let ms = match fraction {
        "" => 0,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse::<i64>().ok()?
        }
        _ => return None,
    };
    Some((((days_before + days_in_year) * 24 + hour) * 60 + minute) * 60_000 + second * 1_000 + ms)
}

fn numbers(text: &str, between: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width)?;
        *number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

/// What a bounded run reads of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    number: i32,
    from: i64,
    to: i64,
}

impl KafkaSource {
    /// Begins a bounded run. Looks up where it begins and ends; then [`Event::End`] comes for
    /// each partition when all of it was read. No group is joined.
    ///
    /// # Errors
    /// A topic or partition that is not there, brokers that cannot be reached.
    pub fn replay(connection: &Connection, run: &Replay) -> Result<KafkaSource, Error> {
        let brokers = connection.brokers();
        let n_partitions = Topics::new(connection)?.require(&run.topic, "input")?;
        let numbers = numbers_of(run, n_partitions)?;
        // The client's library wants a group to be named where partitions are chosen, and does not join it.
        let group = run.group.as_deref().unwrap_or("salver-replay");
        let mut config = reading(connection, group, run.isolation, run.read_ahead_bytes, &run.properties)?;
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        let place = format!("topic {} at {brokers}", run.topic);
        let consumer = BaseConsumer::from_config_and_context(&config, Callbacks::default());
        let consumer = consumer.map_err(|error| failed(&format!("cannot read {place}"), &error))?;
        let ranges = ranges(&consumer, connection, run, &numbers)?;
        let positions = if run.group.is_some() { Positions::Remembered } else { Positions::Forgotten };
        let mut source = KafkaSource::new(consumer, Mode::Replay(positions), place, connection.timeout());
        source.begin(&run.topic, &ranges)?;
        Ok(source)
    }

    /// How many offsets the run goes over: an upper bound of its records.
    pub fn n_offsets(&self) -> Option<u64> {
        let Mode::Replay(_) = self.mode else { return None };
        let each = self.slots.iter().filter_map(|(_, entry)| Some((entry.next?, entry.stop?)));
        Some(each.map(|(from, to)| u64::try_from(to - from).unwrap_or(0)).sum())
    }

    fn begin(&mut self, topic: &str, ranges: &[Range]) -> Result<(), Error> {
        let mut assigned = Vec::new();
        let mut ended = Vec::new();
        for range in ranges {
            let slot = self.slots.number(topic, range.number);
            let entry = self.slots.get_mut(slot);
            (entry.next, entry.stop) = (Some(range.from), Some(range.to));
            let is_empty = range.from >= range.to;
            entry.state = if is_empty { State::Ended } else { State::Paused };
            assigned.push(Assignment { slot, next: Some(range.from) });
            if is_empty {
                ended.push(slot);
            }
        }
        let what = || format!("cannot read {}", self.place);
        let list = self.slots.positions(assigned.iter().filter_map(|one| Some((one.slot, one.next?))));
        self.consumer.assign(&list).map_err(|error| failed(&what(), &error))?;
        self.consumer.pause(&list).map_err(|error| failed(&what(), &error))?;
        self.events.push(Event::Assigned(assigned));
        self.events.extend(ended.into_iter().map(Event::End));
        Ok(())
    }
}

fn numbers_of(run: &Replay, n_partitions: i32) -> Result<Vec<i32>, Error> {
    let Some(chosen) = &run.partitions else { return Ok((0..n_partitions).collect()) };
    if let Some(wrong) = chosen.iter().find(|number| !(0..n_partitions).contains(*number)) {
        let topic = &run.topic;
        return Err(Error::fatal(format!(
            "topic {topic} has no partition {wrong}, but {n_partitions} from 0 on"
        )));
    }
    let mut chosen = chosen.clone();
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn ranges(
    consumer: &BaseConsumer<Callbacks>,
    connection: &Connection,
    run: &Replay,
    numbers: &[i32],
) -> Result<Vec<Range>, Error> {
    let timeout = connection.timeout();
    let what = |what: &str| format!("cannot learn {what} of topic {} at {}", run.topic, connection.brokers());
    let mut kept = BTreeMap::new();
    for number in numbers {
        let marks = consumer.fetch_watermarks(&run.topic, *number, timeout);
        kept.insert(*number, marks.map_err(|error| failed(&what("the offsets"), &error))?);
    }
    let places = |bound: Bound| -> Result<BTreeMap<i32, i64>, Error> {
        let Bound::TimeMs(time) = bound else { return Ok(BTreeMap::new()) };
        let mut list = TopicPartitionList::new();
        for number in numbers {
            let added = list.add_partition_offset(&run.topic, *number, Offset::Offset(time));
            added.map_err(|error| failed(&what("the offsets of that time"), &error))?;
        }
        let found = consumer.offsets_for_times(list, timeout);
        let found = found.map_err(|error| failed(&what("the offsets of that time"), &error))?;
        let found = found.elements().into_iter().filter_map(|one| match one.offset() {
            Offset::Offset(offset) => Some((one.partition(), offset)),
            _ => None,
        });
        Ok(found.collect())
    };
    let (from_time, to_time) = (places(run.from)?, places(run.to)?);
    let mut committed = BTreeMap::new();
    if run.group.is_some() {
        let mut list = TopicPartitionList::new();
        for number in numbers {
            list.add_partition(&run.topic, *number);
        }
        let found = consumer.committed_offsets(list, timeout);
        let found = found.map_err(|error| failed(&what("how far an earlier run came"), &error))?;
        committed.extend(found.elements().into_iter().filter_map(|one| match one.offset() {
            Offset::Offset(offset) => Some((one.partition(), offset)),
            _ => None,
        }));
    }
    let range = |(number, (low, high)): (i32, (i64, i64))| {
        let of = |bound, each: &BTreeMap<i32, i64>| each.get(&number).copied().map_or(bound, Bound::Offset);
        let from = place(of(run.from, &run.from_each), low, high, from_time.get(&number).copied());
        let from = from.max(committed.get(&number).copied().unwrap_or(low));
        let to = place(of(run.to, &run.to_each), low, high, to_time.get(&number).copied());
        Range { number, from, to }
    };
    Ok(kept.into_iter().map(range).collect())
}

/// The offset of a bound in a partition that keeps `low..high`.
fn place(bound: Bound, low: i64, high: i64, of_time: Option<i64>) -> i64 {
    match bound {
        Bound::Beginning => low,
        Bound::Now => high,
        Bound::Offset(offset) => offset.clamp(low, high.max(low)),
        Bound::TimeMs(_) => of_time.unwrap_or(high).clamp(low, high.max(low)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read() {
        let check = |text: &str, expected: Option<Bound>| match (text.parse::<Bound>(), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), None) => assert!(error.message.contains(text), "{error}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        };
        check("beginning", Some(Bound::Beginning));
        check("now", Some(Bound::Now));
        check("offset:12", Some(Bound::Offset(12)));
        check("offset:-1", None);
        check("time:1700000000000", Some(Bound::TimeMs(1_700_000_000_000)));
        check("time:1970-01-01T00:00:00Z", Some(Bound::TimeMs(0)));
        check("time:2000-02-29T12:34:56.789Z", Some(Bound::TimeMs(951_827_696_789)));
        check("time:2023-11-14T22:13:20Z", Some(Bound::TimeMs(1_700_000_000_000)));
        check("time:2026-12-31T23:59:59.5Z", Some(Bound::TimeMs(1_798_761_599_500)));
        check("time:2023-02-29T00:00:00Z", None);
        check("time:2023-11-14T22:13:20", None);
        check("time:2023-13-14T22:13:20Z", None);
        check("time:2023-11-14T24:13:20Z", None);
        check("time:+023-11-14T22:13:20Z", None);
        check("yesterday", None);
    }

    #[test]
    fn places_stay_within_what_is_kept() {
        let check = |bound: Bound, of_time: Option<i64>, expected: i64| {
            assert_eq!(place(bound, 10, 20, of_time), expected, "{bound} {of_time:?}");
        };
        check(Bound::Beginning, None, 10);
        check(Bound::Now, None, 20);
        check(Bound::Offset(5), None, 10);
        check(Bound::Offset(15), None, 15);
        check(Bound::Offset(25), None, 20);
        check(Bound::TimeMs(1), Some(12), 12);
        check(Bound::TimeMs(1), None, 20);
    }

    #[test]
    fn partitions_are_chosen_among_those_there_are() {
        let check = |chosen: Option<Vec<i32>>, expected: Option<Vec<i32>>| {
            let run = Replay { topic: "t".to_owned(), partitions: chosen.clone(), ..Replay::default() };
            assert_eq!(numbers_of(&run, 3).ok(), expected, "{chosen:?}");
        };
        check(None, Some(vec![0, 1, 2]));
        check(Some(vec![2, 0, 2]), Some(vec![0, 2]));
        check(Some(vec![3]), None);
        check(Some(vec![-1]), None);
    }
}
