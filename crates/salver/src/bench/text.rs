//! The report as text.

use salver_load::{Counts, Latency, Summary};

use super::report::{Report, Run};

/// Three digits that mean something.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A time in milliseconds with its unit.
pub(super) fn millis(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{} s", digits(value / 1e3)),
        value if value < 0.1 && value > 0.0 => format!("{} us", digits(value * 1e3)),
        value => format!("{} ms", digits(value)),
    }
}

fn micros(value: f64) -> String {
    millis(value / 1e3)
}

pub(super) fn megabytes(bytes: u64) -> String {
    format!("{} MB", digits(bytes as f64 / 1e6))
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    if part > 0 && percent < 0.01 { "< 0.01 %".to_owned() } else { format!("{percent:.2} %") }
}

/// One line without signs that a terminal obeys: what a server says may hold any.
pub(super) fn printable(text: &str) -> String {
    let obeyed = |sign: char| {
        // Controls, ends of lines, and signs that turn the direction of writing.
        sign.is_control()
            || matches!(sign, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        if obeyed(sign) { out.extend(sign.escape_default()) } else { out.push(sign) }
    }
    out
}

impl Report {
    /// What is printed in the end.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}\n{}\n", printable(&self.subject()), printable(&self.what));
        let sweep = self.sweep();
        if sweep.is_empty() {
            self.runs.iter().for_each(|run| out.push_str(&one(run)));
        } else {
            out.push_str(&table(&sweep));
        }
        if let (Some(run), false) = (self.winner(), sweep.is_empty()) {
            out.push_str(&one(run));
        }
        if let Some(found) = self.found {
            out.push_str(&format!("\n{found}\n"));
        }
        for what in &self.broken {
            out.push_str(&format!("NOT HELD: {}\n", printable(what)));
        }
        out
    }
}

/// One line of a search.
pub(super) fn trial(run: &Run) -> String {
    let summary = &run.summary;
    let verdict = match run.role {
        _ if summary.is_interrupted => "   stopped".to_owned(),
        "first look" => String::new(),
        _ if run.misses.is_empty() => "   meets the goal".to_owned(),
        _ => format!("   misses: {}", run.misses.join("; ")),
    };
    let latency = summary.latency;
    format!(
        "{:<11} {:>9}/s: in time {:>9}/s   p50 {:>9}   p99 {:>9}{verdict}",
        run.role,
        summary.rate.map_or_else(|| "-".to_owned(), digits),
        digits(summary.goodput),
        millis(latency.p50),
        millis(latency.p99)
    )
}

fn one(run: &Run) -> String {
    let summary = &run.summary;
    let mut out = format!("{}\n\n", summary.load);
    let mut row = |name: &str, text: String| out.push_str(&format!("  {name:<12} {text}\n"));
    row("measured", measured(summary));
    row(
        "per second",
        format!(
            "offered {}   answered {}   in time {}   rows in time {}",
            digits(summary.offered),
            digits(summary.answered),
            digits(summary.goodput),
            digits(summary.rows)
        ),
    );
    if summary.falls_behind {
        row("BEHIND", behind(summary));
    }
    row("latency", latency(&summary.latency));
    row("outcomes", outcomes(&summary.counts));
    for (name, latency_of) in
        [("refused in", &summary.refused_latency), ("expired in", &summary.expired_latency)]
    {
        if latency_of.n > 0 {
            row(name, latency(latency_of));
        }
    }
    if let Some(server) = &summary.server {
        row(
            "server",
            format!(
                "{} CPUs   {} of CPU per request   memory {}, at most {}",
                digits(server.cpus),
                micros(server.cpu_micros_per_request),
                megabytes(server.rss_after),
                megabytes(server.rss_peak)
            ),
        );
    }
    row("generator", generator(summary));
    for (text, n) in &summary.errors {
        row("error", format!("{n} x {}", printable(text)));
    }
    for why in &summary.invalid {
        row("NOT VALID", why.clone());
    }
    out
}

fn measured(summary: &Summary) -> String {
    let how = match (summary.is_interrupted, summary.is_stable) {
        (true, _) => ", stopped before its end",
        (false, Some(true)) => ", the last windows are alike",
        (false, Some(false)) => ", NOT STABLE: windows did not become alike",
        (false, None) => "",
    };
    format!("{} s{how}", digits(summary.seconds))
}

/// What is said where the server does less than it is offered.
pub(super) fn behind(summary: &Summary) -> String {
    let [before, after] = summary.in_flight;
    format!(
        "the server does less than is offered: {before} requests were on their way at first, {after} in the end"
    )
}

fn latency(latency: &Latency) -> String {
    if latency.n == 0 {
        return "no answer".to_owned();
    }
    format!(
        "p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
        millis(latency.p50),
        millis(latency.p90),
        millis(latency.p99),
        millis(latency.p999),
        millis(latency.max)
    )
}

fn outcomes(counts: &Counts) -> String {
    let total = counts.total();
    let mut out = format!("ok {} ({})", counts.ok, percent(counts.ok, total));
    for (name, n) in [
        ("late", counts.late),
        ("wrong", counts.wrong),
        ("refused", counts.refused),
        ("expired", counts.expired),
        ("failed", counts.failed),
        ("not sent", counts.not_sent),
        ("overdue", counts.overdue),
    ] {
        if n > 0 {
            out.push_str(&format!("   {name} {n} ({})", percent(n, total)));
        }
    }
    out
}

pub(super) fn generator(summary: &Summary) -> String {
    let generator = &summary.generator;
    let mut out = format!(
        "{} thread{}, {:.0} % busy",
        generator.threads,
        if generator.threads == 1 { "" } else { "s" },
        generator.busy * 100.0
    );
    if summary.rate.is_some() {
        out.push_str(&format!(", p99 of its delay {}", millis(generator.lag.p99)));
    } else {
        out.push_str(&format!(", waited for a processor {:.0} % of the time", generator.waited * 100.0));
    }
    if generator.unfinished > 0 {
        out.push_str(&format!(", {} answers no longer waited for", generator.unfinished));
    }
    out
}

/// The head of a table of several rates, and what stands below it.
pub(super) const HEAD: [&str; 9] =
    ["offered/s", "answered/s", "in time/s", "p50", "p99", "p99.9", "refused", "failed", "CPU each"];

pub(super) fn cells(summary: &Summary) -> [String; 9] {
    let counts = summary.counts;
    let failed = counts.failed + counts.wrong + counts.not_sent + counts.overdue;
    [
        digits(summary.rate.unwrap_or(summary.offered)),
        digits(summary.answered),
        digits(summary.goodput),
        millis(summary.latency.p50),
        millis(summary.latency.p99),
        millis(summary.latency.p999),
        percent(counts.refused + counts.expired, counts.total()),
        percent(failed, counts.total()),
        summary.server.map_or_else(String::new, |server| micros(server.cpu_micros_per_request)),
    ]
}

fn table(runs: &[&Run]) -> String {
    let line = |cells: &[String]| cells.iter().map(|cell| format!("{cell:>11}")).collect::<String>();
    let mut out = format!("\n{}\n", line(&HEAD.map(str::to_owned)));
    for run in runs {
        out.push_str(&line(&cells(&run.summary)));
        let mut notes = run.misses.clone();
        if notes.is_empty() {
            notes.extend(run.summary.invalid.iter().map(|why| format!("NOT VALID: {why}")));
        }
        if run.summary.falls_behind && run.misses.is_empty() {
            notes.push("does less than is offered".to_owned());
        }
        if run.summary.is_interrupted {
            notes.push("stopped".to_owned());
        }
        if run.summary.is_stable == Some(false) {
            notes.push("not stable".to_owned());
        }
        if !notes.is_empty() {
            out.push_str(&format!("   {}", notes.join("; ")));
        }
        out.push('\n');
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_servers_are_one_line_that_a_terminal_shows() {
        for (text, expected) in [
            ("plain, \u{e4}\u{6f22} 'x'", "plain, \u{e4}\u{6f22} 'x'"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("a\r\nNOT HELD: b\tc", "a\\r\\nNOT HELD: b\\tc"),
            ("\u{9b}2J\u{2028}\u{202e}x", "\\u{9b}2J\\u{2028}\\u{202e}x"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn figures_are_short() {
        for (value, expected) in
            [(0.0, "0"), (0.1234, "0.123"), (1.236, "1.24"), (56.78, "56.8"), (1234.5, "1234")]
        {
            assert_eq!(digits(value), expected);
        }
        for (value, expected) in [(0.05, "50.0 us"), (1.5, "1.50 ms"), (12_000.0, "12.0 s"), (0.0, "0 ms")] {
            assert_eq!(millis(value), expected);
        }
        assert_eq!(
            (percent(1, 3), percent(1, 1_000_000), percent(0, 0)),
            ("33.33 %".into(), "< 0.01 %".into(), "0.00 %".into())
        );
    }
}
