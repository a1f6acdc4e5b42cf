//! What is happening: a few lines that change on a terminal, one line for each window elsewhere.

use std::io::Write as _;

use console::Term;
use salver_load::{Load, Plan, Progress, WindowRow};
use salver_plot::sparkline;

use super::text::{digits, millis, printable};

/// Windows of a sparkline.
const WIDTH: usize = 60;

/// Says on standard error what is happening.
pub(super) struct Live {
    /// `None` where nobody watches.
    term: Option<Term>,
    /// Lines that are to be written over.
    n_lines: usize,
    title: String,
    is_closed: bool,
}

impl Live {
    pub(super) fn start() -> Live {
        let term = Term::stderr();
        let term = term.is_term().then_some(term);
        Live { term, n_lines: 0, title: String::new(), is_closed: false }
    }

    /// A line that stays.
    pub(super) fn note(&mut self, text: &str) {
        self.end();
        drop(writeln!(std::io::stderr(), "{}", printable(text)));
    }

    pub(super) fn begin(&mut self, plan: &Plan, role: &str) {
        let role = if role.is_empty() { String::new() } else { format!(" ({role})") };
        self.title = format!("{}{role}", plan.load.describe());
        self.is_closed = matches!(plan.load, Load::Closed { .. });
        match &self.term {
            Some(_) => self.draw(&[format!("{} ...", self.title)]),
            None => drop(writeln!(std::io::stderr(), "{}", self.title)),
        }
    }

    pub(super) fn window(&mut self, progress: &Progress<'_>) {
        let Some(last) = progress.windows.last() else { return };
        let phase = if progress.is_warm_up { "warm-up" } else { "measuring" };
        if self.term.is_none() {
            drop(writeln!(std::io::stderr(), "{:>6.1} s {phase:<9} {}", last.at, line(last)));
            return;
        }
        let of = |value: fn(&WindowRow) -> f64| -> Vec<f64> { progress.windows.iter().map(value).collect() };
        let counts = last.counts;
        let mut lines = vec![
            format!("{}: {phase}, {:.1} s", self.title, last.at),
            format!(
                "  in time {:>9}/s   p50 {:>8}   p99 {:>8}   in flight {:>5}   answered {:>8}/s",
                digits(last.goodput()),
                millis(last.p50),
                millis(last.p99),
                last.in_flight,
                digits(last.answered_per_second()),
            ),
            format!(
                "  late {}   refused {}   expired {}   failed {}   wrong {}   not sent {}   overdue {}{}",
                counts.late,
                counts.refused,
                counts.expired,
                counts.failed,
                counts.wrong,
                counts.not_sent,
                counts.overdue,
                last.rss.map(memory).unwrap_or_default(),
            ),
            format!("  p99  {}", sparkline(&of(|row| row.p99), WIDTH)),
        ];
        lines.push(format!("  rate {}", sparkline(&of(WindowRow::answered_per_second), WIDTH)));
        self.draw(&lines);
    }

    /// What was drawn goes; lines that were written stay.
    pub(super) fn end(&mut self) {
        if let Some(term) = &self.term {
            drop(term.clear_last_lines(self.n_lines));
        }
        self.n_lines = 0;
    }

    fn draw(&mut self, lines: &[String]) {
        self.end();
        let Some(term) = &self.term else { return };
        let width = usize::from(term.size().1).max(20);
        for text in lines {
            // A line that is broken in two could not be written over.
            drop(term.write_line(&console::truncate_str(text, width - 1, "")));
        }
        self.n_lines = lines.len();
    }
}

fn memory(rss: u64) -> String {
    format!("   server {} MB", rss / 1_000_000)
}

fn line(row: &WindowRow) -> String {
    let counts = row.counts;
    let mut text = format!(
        "{:>9}/s in time   in flight {:>5}   p50 {:>9}   p99 {:>9}",
        digits(row.goodput()),
        row.in_flight,
        millis(row.p50),
        millis(row.p99)
    );
    for (name, n) in [
        ("late", counts.late),
        ("refused", counts.refused),
        ("expired", counts.expired),
        ("failed", counts.failed),
        ("wrong", counts.wrong),
        ("not sent", counts.not_sent),
        ("overdue", counts.overdue),
    ] {
        if n > 0 {
            text.push_str(&format!("   {name} {n}"));
        }
    }
    text
}
