//! Times that settings name.

use std::time::Duration;

use anyhow::Context;

/// The longest time that settings may name, in seconds.
const LONGEST: f64 = 7.0 * 86_400.0;

pub(super) fn millis(key: &str, millis: Option<f64>) -> anyhow::Result<Option<Duration>> {
    time(key, millis, 1e3)
}

pub(super) fn seconds(key: &str, seconds: Option<f64>) -> anyhow::Result<Option<Duration>> {
    time(key, seconds, 1.0)
}

fn time(key: &str, number: Option<f64>, per_second: f64) -> anyhow::Result<Option<Duration>> {
    let Some(number) = number else { return Ok(None) };
    let time = Duration::try_from_secs_f64(number / per_second).ok();
    let time = time.filter(|time| time.as_secs_f64() <= LONGEST);
    time.map(Some)
        .with_context(|| format!("{key} = {number}, expected a time from 0 to {}", LONGEST * per_second))
}
