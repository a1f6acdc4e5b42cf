//! From where to where a replay reads, as people write it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, bail};
use toml::value::{Datetime, Offset};

/// A place in each partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The oldest record that is still there.
    Earliest,
    /// Behind the last record that is there when the run starts.
    End,
    /// This offset of every partition.
    Offset(i64),
    /// These offsets of these partitions; others are not read.
    Offsets(BTreeMap<i32, i64>),
    /// The first record of this time or a later one, in milliseconds since 1970.
    Time(i64),
}

/// Partitions that may be named one by one.
const MAX_PARTITIONS: usize = 100_000;

const OFFSET: &str = "an offset, or PARTITION:OFFSET between commas";
const TIME: &str = "a time such as 2026-11-23T08:00:00Z";

/// Reads `--from-offset`.
///
/// # Errors
/// When it is none of its forms.
pub(crate) fn from_offset(text: &str) -> anyhow::Result<Bound> {
    match text {
        "earliest" => Ok(Bound::Earliest),
        _ => offset(text).with_context(|| format!("'{text}', expected earliest or {OFFSET}")),
    }
}

/// Reads `--from-time`: milliseconds since 1970, or a date with its time and zone.
///
/// # Errors
/// When it is neither.
pub(crate) fn from_time(text: &str) -> anyhow::Result<Bound> {
    let millis = text.parse::<i64>().ok().filter(|millis| *millis >= 0);
    let time = millis.map_or_else(|| time_of_date(text), Ok);
    time.map(Bound::Time).with_context(|| format!("'{text}', expected milliseconds since 1970 or {TIME}"))
}

/// Reads `--until`.
///
/// # Errors
/// When it is none of its forms.
pub(crate) fn until(text: &str) -> anyhow::Result<Bound> {
    match (text, time_of_date(text)) {
        ("end", _) => Ok(Bound::End),
        (_, Ok(time)) => Ok(Bound::Time(time)),
        _ => offset(text).with_context(|| format!("'{text}', expected end, {TIME} or {OFFSET}")),
    }
}

fn offset(text: &str) -> anyhow::Result<Bound> {
    if !text.contains(':') {
        return number(text).map(Bound::Offset);
    }
    let mut each = BTreeMap::new();
    for part in text.split(',') {
        let (partition, at) = part.split_once(':').context("a partition without its offset")?;
        let partition = i32::try_from(number(partition)?).context("no such partition")?;
        if each.insert(partition, number(at)?).is_some() {
            bail!("the partition {partition} is named twice");
        }
        if each.len() > MAX_PARTITIONS {
            bail!("{MAX_PARTITIONS} partitions at most");
        }
    }
    Ok(Bound::Offsets(each))
}

fn number(text: &str) -> anyhow::Result<i64> {
    text.trim().parse().ok().filter(|&number: &i64| number >= 0).context("no offset")
}

/// RFC 3339 with all its parts, as milliseconds since 1970.
fn time_of_date(text: &str) -> anyhow::Result<i64> {
    let moment = Datetime::from_str(text)?;
    let (Some(date), Some(time), Some(offset)) = (moment.date, moment.time, moment.offset) else {
        bail!("a part is missing");
    };
    let zone = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute) - zone;
    let millis = i64::from(time.nanosecond) / 1_000_000;
    Ok((minutes * 60 + i64::from(time.second)) * 1000 + millis)
}

/// Days from 1 January 1970 to a day of the Gregorian calendar, counted in years that begin in March: the day that comes
/// and goes is the last one then.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 1 March of the year 0 and 1 January 1970.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, expected: i64| {
            assert_eq!(from_time(text).unwrap(), Bound::Time(expected), "{text}");
        };
        check("0", 0);
        check("1795420800123", 1_795_420_800_123);
        check("1970-01-01T00:00:00Z", 0);
        check("2000-02-29T12:00:00.5Z", 951_825_600_500);
        check("2026-11-23T10:00:00+02:00", 1_795_420_800_000);
        check("2024-12-31T23:59:59Z", 1_735_689_599_000);
        for text in ["", "-5", "2026-11-23", "2026-11-23T08:00:00", "today", "2026-13-01T00:00:00Z"] {
            let error = format!("{:#}", from_time(text).unwrap_err());
            assert!(error.contains("expected milliseconds since 1970"), "{text}: {error}");
        }
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(from_offset("earliest").unwrap(), Bound::Earliest);
        assert_eq!(from_offset("7").unwrap(), Bound::Offset(7));
        assert_eq!(until("end").unwrap(), Bound::End);
        assert_eq!(until("12").unwrap(), Bound::Offset(12));
        assert_eq!(until("1970-01-01T00:00:01Z").unwrap(), Bound::Time(1000));
        let each = Bound::Offsets(BTreeMap::from([(0, 5), (3, 0)]));
        assert_eq!(from_offset("0:5,3:0").unwrap(), each);
        assert_eq!(until("3:0, 0:5").unwrap(), each);
        for text in ["", "-1", "0:", "latest", "now", "0:1,0:2", "a:1", "-1:4", "0:1,"] {
            assert!(from_offset(text).is_err(), "{text}");
            assert!(until(text).is_err(), "{text}");
        }
    }
}
