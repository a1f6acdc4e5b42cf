//! The CPU clock, medians, quantiles, and how figures are printed.

use std::time::Duration;

/// CPU time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The middle of the values; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The value that `part` (0 to 1) of the values do not exceed, in microseconds; 0 of none.
pub(crate) fn quantile(values: &mut [Duration], part: f64) -> f64 {
    values.sort_unstable();
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).map_or(0.0, |value| micros(*value))
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// With three significant digits, in groups of three.
pub(crate) fn digits(value: f64) -> String {
    let size = value.abs();
    if size < 0.995 {
        return format!("{value:.2}");
    }
    if size < 9.995 {
        return format!("{value:.2}");
    }
    if size < 99.95 {
        return format!("{value:.1}");
    }
    grouped(value.round() as i64)
}

fn grouped(value: i64) -> String {
    let text = value.unsigned_abs().to_string();
    let groups: Vec<&str> =
        text.as_bytes().rchunks(3).rev().map(|chunk| str::from_utf8(chunk).unwrap_or_default()).collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5)]
        {
            assert!((median(values.clone()) - expected).abs() < 1e-12, "{values:?}");
        }
    }

    #[test]
    fn a_quantile_is_a_value_that_occurred() {
        let mut values: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        for (part, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)] {
            assert!((quantile(&mut values, part) - expected).abs() < 1e-6, "{part}");
        }
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, expected) in
            [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (92_700.4, "92,700")]
        {
            assert_eq!(digits(value), expected);
        }
    }
}
