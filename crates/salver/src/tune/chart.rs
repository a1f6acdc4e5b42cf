//! Latency against throughput, in characters.

use std::fmt::Write;

use salver_tune::Measured;

use super::axes::{Axis, mark_text, time_unit};
use super::report::Outcome;

const WIDTH: usize = 66;
const HEIGHT: usize = 14;

/// One sign per candidate; the choice has its own.
const SIGNS: [char; 8] = ['o', 'x', '+', 'v', '#', '%', '&', '$'];
const CHOICE: char = '*';

/// The plot, 80 columns wide; nothing when there is nothing to plot.
pub(super) fn chart(outcome: &Outcome<'_>) -> String {
    let measured = &outcome.report.measured;
    if measured.is_empty() {
        return String::new();
    }
    let most = measured.iter().map(|one| one.p50.as_secs_f64()).fold(0.0, f64::max);
    let (unit, per_second) = time_unit(most);
    let latency = |one: &Measured| one.p50.as_secs_f64() * per_second;
    let x = Axis::log(measured.iter().map(latency));
    let y = Axis::linear(measured.iter().map(|one| one.rows_per_second));
    let mut grid = vec![vec![' '; WIDTH]; HEIGHT];
    let place = |at: f64, n: usize| (at * (n - 1) as f64).round() as usize;
    let mut put = |one: &Measured, sign: char| {
        let (column, row) =
            (place(x.place(latency(one)), WIDTH), place(y.place(one.rows_per_second), HEIGHT));
        grid[HEIGHT - 1 - row][column] = sign;
    };
    // The simpler candidates come first and lie on top.
    for one in measured.iter().rev() {
        put(one, SIGNS[one.candidate % SIGNS.len()]);
    }
    if let Some(choice) = outcome.choice() {
        put(choice, CHOICE);
    }
    let mut out = String::from("\nrows/s\n");
    let marks: Vec<(usize, String)> = y
        .marks(5)
        .into_iter()
        .map(|mark| (HEIGHT - 1 - place(y.place(mark), HEIGHT), mark_text(mark)))
        .collect();
    for (at, row) in grid.iter().enumerate() {
        let mark = marks.iter().find(|(row, _)| *row == at);
        let (label, tick) = mark.map_or(("", '|'), |(_, text)| (text.as_str(), '+'));
        let row: String = row.iter().collect();
        line(&mut out, format_args!("{}", format!("{label:>9} {tick} {row}").trim_end()));
    }
    out.push_str(&below(x, unit));
    out.push_str(&legend(outcome));
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

/// The axis of times with its marks; a mark that would touch the one before is left out.
fn below(x: Axis, unit: &str) -> String {
    let (mut ruler, mut labels) = (vec!['-'; WIDTH + 1], String::new());
    for mark in x.marks(6) {
        let column = (x.place(mark) * (WIDTH - 1) as f64).round() as usize;
        let text = mark_text(mark);
        let start = (column + 1).saturating_sub(text.len() / 2);
        if start < labels.len() + usize::from(!labels.is_empty()) * 2 || start + text.len() > WIDTH + 1 {
            continue;
        }
        ruler[column + 1] = '+';
        labels.push_str(&" ".repeat(start - labels.len()));
        labels.push_str(&text);
    }
    let ruler: String = ruler.into_iter().collect();
    format!("{:>9} +{ruler}\n{:>9}  {labels}\n{:>9}  p50 of a run in {unit}, all lanes busy\n", "", "", "")
}

fn legend(outcome: &Outcome<'_>) -> String {
    let report = outcome.report;
    let is_shown = |at: &usize| report.measured.iter().any(|one| one.candidate == *at);
    let mut parts: Vec<String> = (0..report.candidates.len())
        .filter(is_shown)
        .map(|at| {
            let one = &report.candidates[at];
            format!("{} {} {}", SIGNS[at % SIGNS.len()], one.engine, one.precision)
        })
        .collect();
    if outcome.choice().is_some() {
        parts.push(format!("{CHOICE} the choice"));
    }
    let mut out = String::new();
    let mut row = String::new();
    for part in parts {
        if row.len() + part.len() > WIDTH {
            line(&mut out, format_args!("{:>9}  {}", "", row.trim_end()));
            row.clear();
        }
        row.push_str(&part);
        row.push_str("   ");
    }
    line(&mut out, format_args!("{:>9}  {}", "", row.trim_end()));
    out
}
