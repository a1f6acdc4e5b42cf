//! Latency against throughput, as a drawing.

use std::collections::BTreeMap;
use std::fmt::Write;

use salver_engine::Precision;
use salver_tune::{Measured, Sharing};

use super::axes::{Axis, mark_text, time_unit};
use super::report::{Outcome, digits, time};
use super::table::settings;

const SIZE: (f64, f64) = (840.0, 520.0);

/// The space around the plot: left, top, right, bottom. The legend stands on the right.
const MARGIN: (f64, f64, f64, f64) = (76.0, 96.0, 190.0, 64.0);

/// Colours that most people can tell apart, by Okabe and Ito (Color universal design, 2008), on light and dark ground.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9"];

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#333}.small{font-size:12px;fill:#666}.title{font-size:16px;font-weight:600}\
.ground{fill:#fff}.grid{stroke:#e3e3e3}.axis{stroke:#888}.halo{fill:none;stroke:#333;stroke-width:2}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.ground{fill:#1b1d20}.grid{stroke:#34373b}\
.axis{stroke:#888}.halo{stroke:#eee}}";

/// The drawing.
pub(super) fn svg(outcome: &Outcome<'_>) -> String {
    let measured = &outcome.report.measured;
    let most = measured.iter().map(|one| one.p50.as_secs_f64()).fold(0.0, f64::max);
    let (unit, per_second) = time_unit(most);
    let plot = Plot {
        outcome,
        per_second,
        x: Axis::log(measured.iter().map(|one| one.p50.as_secs_f64() * per_second)),
        y: Axis::linear(measured.iter().map(|one| one.rows_per_second)),
        engines: engines(outcome),
    };
    let (width, height) = SIZE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    out.push_str(&plot.titles());
    out.push_str(&plot.grid(unit));
    out.push_str(&plot.lines());
    measured.iter().for_each(|one| out.push_str(&plot.point(one)));
    if let Some(choice) = outcome.choice() {
        out.push_str(&plot.halo(choice));
    }
    out.push_str(&plot.legend());
    out.push_str("</svg>\n");
    out
}

/// The engines in the order of the candidates, each once.
fn engines(outcome: &Outcome<'_>) -> Vec<String> {
    let mut engines: Vec<String> = Vec::new();
    for one in &outcome.report.measured {
        if !engines.iter().any(|engine| **engine == *one.engine) {
            engines.push(one.engine.to_string());
        }
    }
    engines
}

struct Plot<'a> {
    outcome: &'a Outcome<'a>,
    per_second: f64,
    x: Axis,
    y: Axis,
    engines: Vec<String>,
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML.
            sign if sign.is_control() => out.push('\u{fffd}'),
            sign => out.push(sign),
        }
    }
    out
}

/// The end of a path that fits the title.
fn short(path: &str) -> String {
    const MAX: usize = 60;
    let n = path.chars().count();
    if n <= MAX { path.to_owned() } else { format!("...{}", path.chars().skip(n - MAX).collect::<String>()) }
}

impl Plot<'_> {
    fn across(&self, place: f64) -> f64 {
        MARGIN.0 + place * (SIZE.0 - MARGIN.0 - MARGIN.2)
    }

    fn up(&self, place: f64) -> f64 {
        SIZE.1 - MARGIN.3 - place * (SIZE.1 - MARGIN.1 - MARGIN.3)
    }

    fn at(&self, one: &Measured) -> (f64, f64) {
        let x = self.x.place(one.p50.as_secs_f64() * self.per_second);
        (self.across(x), self.up(self.y.place(one.rows_per_second)))
    }

    fn colour(&self, engine: &str) -> &'static str {
        let at = self.engines.iter().position(|one| one == engine).unwrap_or(0);
        COLOURS[at % COLOURS.len()]
    }

    fn titles(&self) -> String {
        let mut out = String::new();
        let title = escape(&short(&self.outcome.path));
        line(&mut out, format_args!("<text class=\"title\" x=\"{}\" y=\"30\">{title}</text>", MARGIN.0));
        let n = self.outcome.n_processors;
        let machine = escape(&format!("{n} x {}", self.outcome.processor));
        line(&mut out, format_args!("<text class=\"small\" x=\"{}\" y=\"50\">{machine}</text>", MARGIN.0));
        if let Some(choice) = self.outcome.choice() {
            let figures = format!(
                "{} for one caller, {} rows/s",
                time(choice.one_caller),
                digits(choice.rows_per_second)
            );
            let text = escape(&format!("choice: {}; {figures}", settings(choice)));
            line(&mut out, format_args!("<text x=\"{}\" y=\"72\">{text}</text>", MARGIN.0));
        }
        out
    }

    fn grid(&self, unit: &str) -> String {
        let mut out = String::new();
        let (left, right) = (self.across(0.0), self.across(1.0));
        let (bottom, top) = (self.up(0.0), self.up(1.0));
        for mark in self.x.marks(8) {
            let x = self.across(self.x.place(mark));
            let text = mark_text(mark);
            line(&mut out, format_args!("<path class=\"grid\" d=\"M{x:.1} {bottom}V{top}\"/>"));
            let y = bottom + 20.0;
            line(&mut out, format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>"));
        }
        for mark in self.y.marks(6) {
            let y = self.up(self.y.place(mark));
            let text = mark_text(mark);
            line(&mut out, format_args!("<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>"));
            let (x, y) = (left - 8.0, y + 4.5);
            line(&mut out, format_args!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>"));
        }
        line(
            &mut out,
            format_args!("<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>"),
        );
        let (middle, under) = ((left + right) / 2.0, SIZE.1 - 18.0);
        let label =
            format!("time of a run, all lanes busy (median, {})", if unit == "us" { "µs" } else { unit });
        line(
            &mut out,
            format_args!("<text x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">{label}</text>"),
        );
        let centre = (bottom + top) / 2.0;
        line(
            &mut out,
            format_args!(
                "<text transform=\"translate(22 {centre}) rotate(-90)\" text-anchor=\"middle\">rows per second</text>"
            ),
        );
        out
    }

    /// Batch sizes of one way to run the model, joined.
    fn lines(&self) -> String {
        let mut ways: BTreeMap<(usize, Sharing), Vec<&Measured>> = BTreeMap::new();
        for one in &self.outcome.report.measured {
            ways.entry((one.candidate, one.sharing)).or_default().push(one);
        }
        let mut out = String::new();
        for all in ways.values_mut().filter(|all| all.len() > 1) {
            all.sort_by_key(|one| one.batch);
            let points: Vec<String> = all
                .iter()
                .map(|one| {
                    let (x, y) = self.at(one);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let (points, colour) = (points.join(" "), self.colour(&all[0].engine));
            line(
                &mut out,
                format_args!(
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-opacity=\".35\"/>"
                ),
            );
        }
        out
    }

    fn point(&self, one: &Measured) -> String {
        let (x, y) = self.at(one);
        let figures = format!("{}: {}, {} rows/s", settings(one), time(one.p50), digits(one.rows_per_second));
        sign(x, y, one.precision, self.colour(&one.engine), &format!("<title>{}</title>", escape(&figures)))
    }

    fn halo(&self, choice: &Measured) -> String {
        let (x, y) = self.at(choice);
        format!("<circle class=\"halo choice\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"10\"/>\n")
    }

    fn legend(&self) -> String {
        let mut out = String::new();
        let (x, mut y) = (self.across(1.0) + 24.0, MARGIN.1 + 8.0);
        let report = self.outcome.report;
        for (at, one) in report.candidates.iter().enumerate() {
            if !report.measured.iter().any(|measured| measured.candidate == at) {
                continue;
            }
            out.push_str(&sign(x, y - 4.5, one.precision, self.colour(&one.engine), ""));
            let (text, refused) =
                (escape(&format!("{} {}", one.engine, one.precision)), one.refusal.is_some());
            let after = if refused { " (refused)" } else { "" };
            line(&mut out, format_args!("<text x=\"{}\" y=\"{y}\">{text}{after}</text>", x + 14.0));
            y += 24.0;
        }
        line(&mut out, format_args!("<circle class=\"halo\" cx=\"{x}\" cy=\"{}\" r=\"8\"/>", y - 4.5));
        line(&mut out, format_args!("<text x=\"{}\" y=\"{y}\">the choice</text>", x + 14.0));
        out
    }
}

/// A sign whose form tells the precision.
fn sign(x: f64, y: f64, precision: Precision, colour: &str, inside: &str) -> String {
    let look = format!("fill=\"{colour}\" fill-opacity=\".85\"");
    match precision {
        Precision::Bf16 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" {look}>{inside}</rect>\n",
            x - 5.0,
            y - 5.0
        ),
        Precision::Int8 => {
            format!("<path d=\"M{x:.1} {:.1}l6.5 11h-13z\" {look}>{inside}</path>\n", y - 7.0)
        }
        _ => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5.5\" {look}>{inside}</circle>\n"),
    }
}
