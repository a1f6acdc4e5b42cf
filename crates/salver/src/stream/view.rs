//! What a person sees while records are scored: a bar for a run that has an end, one line that changes for one that has none,
//! lines in the log where nobody watches; and what came of it at the end.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;
use tracing_subscriber::fmt::MakeWriter;

use super::flags::Progress;

/// What a rate is taken over.
const WINDOW: Duration = Duration::from_secs(3);

/// How often a line goes to the log where nobody watches.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Moments that are kept for a rate; they come a few times a second.
const MAX_MOMENTS: usize = 64;

/// How a stream fares at one moment, as far as people want to know.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures {
    /// Records that were read.
    pub(crate) n_read: u64,
    /// Records that are done: answered, dropped or dead.
    pub(crate) n_done: u64,
    /// Records that were answered.
    pub(crate) n_answered: u64,
    /// Records that could not be answered and went to the dead letters.
    pub(crate) n_dead: u64,
    /// Records that were left out: filtered, tombstones, skipped errors.
    pub(crate) n_dropped: u64,
    /// Records that are there and were not read yet, where that is known.
    pub(crate) lag: Option<u64>,
    /// How old the oldest record is that is not done, where that is known.
    pub(crate) lag_time: Option<Duration>,
    /// Calls of the model.
    pub(crate) n_calls: u64,
    /// Rows of those calls together.
    pub(crate) n_rows: u64,
    /// From reading a record to its answer being written, of those that came lately.
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    /// How much of the whole is done, and the whole, where a run has an end that is known.
    pub(crate) progress: Option<(u64, u64)>,
}

/// Shows figures on standard error.
#[derive(Debug)]
pub(crate) struct View {
    bar: Option<ProgressBar>,
    is_on: bool,
    /// When how many records, and how much of the whole, were done.
    moments: VecDeque<(Instant, u64, u64)>,
    last_line: Option<Instant>,
}

/// The lines of the log, past what is drawn on the terminal.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    all: MultiProgress,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { all: MultiProgress::new() }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Screen;

    fn make_writer(&'a self) -> Screen {
        self.clone()
    }
}

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.all.suspend(|| std::io::stderr().write(text))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl View {
    /// Nothing is shown before the first [`View::show`]. `is_bounded` says whether the run has an end.
    pub(crate) fn start(progress: Progress, screen: &Screen, is_bounded: bool) -> View {
        let is_watched = progress == Progress::Auto && std::io::stderr().is_terminal();
        let bar = is_watched.then(|| {
            let bar = screen.all.add(ProgressBar::new(0));
            let form = match is_bounded {
                true => "{elapsed_precise} [{bar:20}] {percent:>3} %  {wide_msg}",
                false => "{elapsed_precise} {wide_msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        View { bar, is_on: progress == Progress::Auto, moments: VecDeque::new(), last_line: None }
    }

    /// Shows how things are now. Called a few times a second.
    pub(crate) fn show(&mut self, figures: &Figures, now: Instant) {
        if !self.is_on {
            return;
        }
        let rates = self.rates(figures, now);
        if let Some(bar) = &self.bar {
            if let Some((done, whole)) = figures.progress {
                bar.set_length(whole.max(1));
                bar.set_position(done.min(whole));
            }
            bar.set_message(line(figures, rates));
            bar.tick();
            return;
        }
        let last = *self.last_line.get_or_insert(now);
        if now.saturating_duration_since(last) >= LOG_EVERY {
            self.last_line = Some(now);
            info!("{}", line(figures, rates));
        }
    }

    /// What was drawn goes.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Records per second that were done lately, and how much of the whole.
    fn rates(&mut self, figures: &Figures, now: Instant) -> (f64, f64) {
        let of_whole = figures.progress.map_or(0, |(done, _)| done);
        self.moments.push_back((now, figures.n_done, of_whole));
        while self.moments.len() > MAX_MOMENTS
            || self.moments.get(1).is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.moments.pop_front();
        }
        let Some((at, n_done, of_whole_then)) = self.moments.front() else { return (0.0, 0.0) };
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        let per_second = |now: u64, then: u64| match seconds > 0.0 {
            true => now.saturating_sub(then) as f64 / seconds,
            false => 0.0,
        };
        (per_second(figures.n_done, *n_done), per_second(of_whole, *of_whole_then))
    }
}

/// One line: how fast, how far behind, how full the batches, how quick, what went wrong; and the time that is left.
fn line(figures: &Figures, (rate, of_whole): (f64, f64)) -> String {
    let mut parts = vec![format!("{}/s", count(rate.round() as u64))];
    if let Some((done, whole)) = figures.progress {
        let left = whole.saturating_sub(done) as f64 / of_whole;
        if let Ok(left) = Duration::try_from_secs_f64(left) {
            parts.push(format!("{} left", duration(left)));
        }
    } else if let Some(lag) = figures.lag {
        let time = figures.lag_time.map(|time| format!(" ({})", duration(time))).unwrap_or_default();
        parts.push(format!("lag {}{time}", count(lag)));
    }
    if figures.n_calls > 0 {
        parts.push(format!("batch {:.1}", figures.n_rows as f64 / figures.n_calls as f64));
    }
    if let Some(p99) = figures.p99 {
        parts.push(format!("p99 {}", duration(p99)));
    }
    if figures.n_dead > 0 {
        parts.push(format!("dead {}", count(figures.n_dead)));
    }
    parts.join("  ")
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    pub(crate) took: Duration,
    /// Where answers and dead letters went.
    pub(crate) to: String,
    pub(crate) dead: Option<String>,
    /// Why records were dead or dropped, with how many.
    pub(crate) reasons: Vec<(String, u64)>,
    /// What answered: `digits version 2`.
    pub(crate) models: Vec<String>,
    /// What the shadow did, if there is one.
    pub(crate) shadow: Option<Beside>,
}

/// What came of the shadow.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) to: String,
    pub(crate) n_answered: u64,
    /// Records that were left out: too many waited, or the end came first.
    pub(crate) n_dropped: u64,
    pub(crate) n_failed: u64,
}

impl Outcome {
    /// A few lines for a person.
    pub(crate) fn text(&self) -> String {
        let Figures { n_done, n_answered, n_dead, n_dropped, n_calls, n_rows, .. } = self.figures;
        let seconds = self.took.as_secs_f64();
        let rate = if seconds > 0.0 { n_done as f64 / seconds } else { 0.0 };
        let mut lines = vec![format!(
            "{} records in {} ({}/s)",
            count(n_done),
            duration(self.took),
            count(rate.round() as u64)
        )];
        lines.push(format!("  answers       {:>12}   {}", count(n_answered), self.to));
        if n_dead > 0 {
            let place = self.dead.as_deref().unwrap_or_default();
            lines.push(format!("  dead letters  {:>12}   {place}", count(n_dead)));
        }
        if n_dropped > 0 {
            lines.push(format!("  left out      {:>12}", count(n_dropped)));
        }
        for (reason, n) in self.reasons.iter().filter(|(_, n)| *n > 0) {
            lines.push(format!("    {reason:<12}{:>12}", count(*n)));
        }
        if n_calls > 0 {
            let times = match (self.figures.p50, self.figures.p99) {
                (Some(p50), Some(p99)) => format!(", p50 {}, p99 {}", duration(p50), duration(p99)),
                _ => String::new(),
            };
            let fill = n_rows as f64 / n_calls as f64;
            lines.push(format!("  model calls   {:>12}   {fill:.1} rows each{times}", count(n_calls)));
        }
        if let Some(Beside { to, n_answered, n_dropped, n_failed }) = &self.shadow {
            lines.push(format!("  shadow        {:>12}   {to}", count(*n_answered)));
            for (reason, n) in [("left out", n_dropped), ("failed", n_failed)].iter().filter(|(_, n)| **n > 0)
            {
                lines.push(format!("    {reason:<12}{:>12}", count(**n)));
            }
        }
        for model in &self.models {
            lines.push(format!("  answered by   {model}"));
        }
        lines.join("\n")
    }
}

/// A number with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time with three digits, or in minutes and hours.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = time.as_secs();
    match whole {
        0 if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        0 => format!("{:.1} ms", seconds * 1e3),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", count(whole / 3600), whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_readable() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        for (millis, expected) in [
            (0.0, "0 µs"),
            (0.25, "250 µs"),
            (12.34, "12.3 ms"),
            (1500.0, "1.5 s"),
            (61_000.0, "1 min 1 s"),
            (7_260_000.0, "2 h 1 min"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(millis / 1e3)), expected);
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut view = View::start(Progress::Off, &Screen::new(), false);
        let start = salver_lifecycle::Clock::now(&salver_lifecycle::SystemClock);
        let mut rates = (0.0, 0.0);
        // 100 a second for five seconds, then 10 a second for as long.
        for step in 0..=50_u64 {
            let n_done = if step <= 25 { step * 20 } else { 500 + (step - 25) * 2 };
            let figures = Figures { n_done, progress: Some((2 * n_done, 10_000)), ..Figures::default() };
            rates = view.rates(&figures, start + Duration::from_millis(step * 200));
        }
        assert!((rates.0 - 10.0).abs() < 1e-9 && (rates.1 - 20.0).abs() < 1e-9, "{rates:?}");
        assert!(view.moments.len() < 20);
    }

    #[test]
    fn a_line_says_what_is_known() {
        let figures = Figures {
            n_done: 500,
            n_calls: 4,
            n_rows: 10,
            lag: Some(1200),
            lag_time: Some(Duration::from_secs(3)),
            n_dead: 2,
            p99: Some(Duration::from_millis(12)),
            ..Figures::default()
        };
        let endless = line(&figures, (1234.4, 0.0));
        assert_eq!(endless, "1,234/s  lag 1,200 (3.0 s)  batch 2.5  p99 12.0 ms  dead 2");
        let bounded = line(&Figures { progress: Some((25, 100)), ..figures }, (100.0, 5.0));
        assert!(bounded.starts_with("100/s  15.0 s left  batch"), "{bounded}");
        assert_eq!(line(&Figures::default(), (0.0, 0.0)), "0/s");
    }

    #[test]
    fn the_end_is_told_in_a_few_lines() {
        let outcome = Outcome {
            figures: Figures { n_done: 1000, n_answered: 990, n_dead: 10, ..Figures::default() },
            took: Duration::from_secs(2),
            to: "out.csv".to_owned(),
            dead: Some("dead.jsonl".to_owned()),
            reasons: vec![("format".to_owned(), 10), ("shape".to_owned(), 0)],
            models: vec!["digits version 2".to_owned()],
            shadow: Some(Beside { to: "beside.csv".to_owned(), n_answered: 900, n_dropped: 90, n_failed: 0 }),
        };
        let expected = "1,000 records in 2.0 s (500/s)
  answers                990   out.csv
  dead letters            10   dead.jsonl
    format                10
  shadow                 900   beside.csv
    left out              90
  answered by   digits version 2";
        assert_eq!(outcome.text(), expected);
    }
}
