//! Outcomes as text, numbers and pictures.

use std::time::Duration;

use salver_plot::{Axis, Chart, Reference, Series};
use serde_json::{Value, json};

use crate::Summary;
use crate::scenario::{Outcome, Scenario, Who};

/// All outcomes of one scenario.
#[derive(Debug)]
pub struct Chapter {
    /// What was simulated.
    pub scenario: Scenario,
    /// By load, then policy.
    pub outcomes: Vec<Outcome>,
}

impl Chapter {
    fn of(&self, who: Who) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.who == who)
    }

    fn at(&self, who: Who, load: f64) -> Option<&Outcome> {
        self.of(who).find(|outcome| outcome.load == load)
    }

    fn loads(&self) -> Vec<f64> {
        self.of(Who::Salver).map(|outcome| outcome.load).collect()
    }

    /// What came, in percent of capacity.
    fn offered(&self, summary: &Summary) -> f64 {
        100.0 * summary.offered / self.scenario.capacity()
    }

    /// Goodput in percent of capacity.
    fn goodput(&self, summary: &Summary) -> f64 {
        100.0 * summary.goodput / self.scenario.capacity()
    }
}

/// What was run, and what came of it.
#[derive(Debug)]
pub struct Report {
    /// The seed of all random numbers.
    pub seed: u64,
    /// Requests of a trace at capacity, about.
    pub n: usize,
    /// By scenario.
    pub chapters: Vec<Chapter>,
}

impl Report {
    /// The whole as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# The batching policy in simulated time\n\n\
             `cargo xtask simulate`, seed {}, traces of about {} requests at capacity, of which the first fifth is not \
             counted. It runs Salver's own policy, with a cost model that learns from simulated runs, beside three that \
             are written after their descriptions: a fixed wait (TensorFlow Serving, Triton), Clipper and Nexus. All \
             see the same requests and have the same lanes, batch sizes and a queue of 1000 requests. \
             `docs/decisions/016-batching-policy.md` says what follows from it.\n\n\
             What the others are here, and are not:\n\n\
             - *Fixed wait*: batches of the same largest size, a time-out of a twentieth of the objective; it looks at no \
             deadline, and its queue is that of all: where 1000 requests take longer than their deadline (157 ms in the first \
             scenario, with deadlines of 100 ms), a full queue means that every answer is late. \"0 %\" follows from \
             that; a queue cut to fit the deadlines, which somebody has to work out, does much better (\"four lanes\" shows it).\n\
             - *Clipper* finds its batch size by additive increase (1 row) and multiplicative decrease (10 %) as its paper says, \
             against half of the objective, since a request waits for one batch and is part of the next; it grows only on batches \
             that were full, never above the largest size of all, and drops what is expired when a lane is free.\n\
             - *Nexus* has a queue and a planned batch size for each shape and time-out and drops early. It is told the engine's true times and \
             counts a run as its 90th percentile. Several sessions on one lane are served by the earliest deadline of \
             their first requests; the paper's epochs and duty cycles are left out.\n\n\
             Traces with bursts, tails, stalls or phases are up to 25 times longer than others, so that these come often \
             enough in them. Each trace has as many requests as its load says, in the first fifth and after it; \"offered\" is what really \
             came, counted in rows.\n\n\
             Goodput is rows answered within their deadline, in percent of the rows that the lanes can do at \
             the best batch size; a row of a dear shape counts for as many as it costs. Load is in multiples of the same.\n\n![goodput against load](simulate.svg)\n\n",
            self.seed, self.n
        );
        text.push_str(&self.overview());
        for chapter in &self.chapters {
            chapter.write(&mut text);
        }
        text
    }

    /// One line for each scenario, as Markdown.
    pub fn overview(&self) -> String {
        let mut text =
            "## Goodput at 4 times the capacity, and p50 at a quarter of it\n\n| scenario |".to_owned();
        for who in Who::COMPARED {
            text.push_str(&format!(" {} |", who.name()));
        }
        for who in Who::COMPARED {
            text.push_str(&format!(" p50, {} |", who.name()));
        }
        text.push_str("\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for chapter in &self.chapters {
            text.push_str(&format!("| {} |", chapter.scenario.name));
            for who in Who::COMPARED {
                let percent = chapter.at(who, 4.0).map_or(f64::NAN, |outcome| chapter.goodput(&outcome.all));
                text.push_str(&format!(" {percent:.0} % |"));
            }
            for who in Who::COMPARED {
                let p50 = chapter.at(who, 0.25).map_or(Duration::ZERO, |outcome| outcome.all.p50);
                text.push_str(&format!(" {} |", time(p50)));
            }
            text.push('\n');
        }
        text.push('\n');
        text
    }

    /// All numbers.
    pub fn json(&self) -> Value {
        let chapters: Vec<Value> = self.chapters.iter().map(Chapter::json).collect();
        json!({ "seed": self.seed, "requests_at_capacity": self.n, "scenarios": chapters })
    }

    /// The pictures of some scenarios on one page.
    pub fn svg(&self) -> String {
        let find = |name: &str| self.chapters.iter().find(|chapter| chapter.scenario.name == name);
        let goodput = ["poisson", "bursts", "heavy runs", "mixed deadlines", "mixed shapes", "GPU"];
        let mut charts: Vec<Chart> =
            goodput.into_iter().filter_map(find).map(Chapter::goodput_chart).collect();
        if let Some(first) = find("poisson") {
            charts.extend([first.latency_chart(), first.refusal_chart(), first.batch_chart()]);
        }
        page(&charts)
    }
}

const SIZE: (u32, u32) = (560, 380);
const N_COLUMNS: u32 = 3;

fn page(charts: &[Chart]) -> String {
    let n_rows = u32::try_from(charts.len()).unwrap_or(0).div_ceil(N_COLUMNS);
    let (width, height) = (SIZE.0 * N_COLUMNS, SIZE.1 * n_rows);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n"
    );
    for (at, chart) in (0..).zip(charts) {
        let (x, y) = (at % N_COLUMNS * SIZE.0, at / N_COLUMNS * SIZE.1);
        let chart = chart.clone().size(SIZE.0, SIZE.1).svg();
        text.push_str(&format!("<g transform=\"translate({x} {y})\">\n{chart}</g>\n"));
    }
    text.push_str("</svg>\n");
    text
}

impl Chapter {
    fn write(&self, text: &mut String) {
        let Scenario { name, about, .. } = &self.scenario;
        text.push_str(&format!("## {name}\n\n{about} Capacity: {:.0} rows/s.\n\n", self.scenario.capacity()));
        text.push_str("| load | offered |");
        for who in Who::COMPARED {
            text.push_str(&format!(" {} | p50 | p99 |", who.name()));
        }
        text.push_str(" refused | dropped | late | batch | heard of it, p99 |\n|---:|---:|");
        text.push_str(&"---:|".repeat(3 * Who::COMPARED.len() + 5));
        text.push('\n');
        for load in self.loads() {
            let offered = self.at(Who::Salver, load).map_or(f64::NAN, |outcome| self.offered(&outcome.all));
            text.push_str(&format!("| {load} | {offered:.1} % |"));
            for Outcome { all, .. } in Who::COMPARED.into_iter().filter_map(|who| self.at(who, load)) {
                text.push_str(&format!(
                    " {:.1} % | {} | {} |",
                    self.goodput(all),
                    time(all.p50),
                    time(all.p99)
                ));
            }
            if let Some(Outcome { all, .. }) = self.at(Who::Salver, load) {
                let [refused, dropped, late] = [all.refused, all.dropped, all.late].map(|part| 100.0 * part);
                let heard = time(all.p99_refused);
                text.push_str(&format!(
                    " {refused:.1} % | {dropped:.2} % | {late:.2} % | {:.1} | {heard} |\n",
                    all.batch
                ));
            }
        }
        text.push_str("\nThe last five columns are Salver's.\n\n");
        self.write_parts(text);
    }

    /// Who got how much of what they asked for.
    fn write_parts(&self, text: &mut String) {
        let Some(first) = self.of(Who::Salver).next().filter(|outcome| !outcome.parts.is_empty()) else {
            return;
        };
        text.push_str("Answered in time, of what each asked for; then p99 of what was answered, all with Salver:\n\n| load |");
        for (name, _) in first.parts.iter().chain(&first.parts) {
            text.push_str(&format!(" {name} |"));
        }
        text.push_str(&format!("\n|---:|{}\n", "---:|".repeat(2 * first.parts.len())));
        for outcome in self.of(Who::Salver) {
            text.push_str(&format!("| {} |", outcome.load));
            for (_, part) in &outcome.parts {
                text.push_str(&format!(" {:.1} % |", 100.0 * part.good));
            }
            for (_, part) in &outcome.parts {
                text.push_str(&format!(" {} |", time(part.p99)));
            }
            text.push('\n');
        }
        text.push('\n');
    }

    fn json(&self) -> Value {
        let number = |summary: &Summary| {
            let micros = |time: Duration| rounded(time.as_secs_f64() * 1e6);
            json!({
                "requests": summary.n,
                "offered_rows_per_second": rounded(summary.offered),
                "goodput_rows_per_second": rounded(summary.goodput),
                "in_time": rounded(summary.good),
                "late": rounded(summary.late),
                "refused": rounded(summary.refused),
                "dropped": rounded(summary.dropped),
                "p50_micros": micros(summary.p50),
                "p99_micros": micros(summary.p99),
                "p99_until_refusal_micros": micros(summary.p99_refused),
            })
        };
        let outcome = |outcome: &Outcome| {
            let parts = outcome.parts.iter().map(|(name, part)| (name.clone(), number(part)));
            json!({
                "load": outcome.load,
                "policy": outcome.who.name(),
                "all": number(&outcome.all),
                "parts": parts.collect::<serde_json::Map<_, _>>(),
                "mean_batch_rows": rounded(outcome.all.batch),
                "busy": rounded(outcome.all.busy),
                "max_waiting": outcome.max_waiting,
            })
        };
        json!({
            "name": self.scenario.name,
            "about": self.scenario.about,
            "capacity_rows_per_second": self.scenario.capacity(),
            "outcomes": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        })
    }

    fn series(&self, who: Who, value: impl Fn(&Outcome) -> f64) -> Series {
        Series::new(who.name(), self.of(who).map(|outcome| (outcome.load, value(outcome))).collect())
    }

    fn goodput_chart(&self) -> Chart {
        let chart = Chart::new(
            format!("Goodput: {}", self.scenario.name),
            Axis::linear("offered load / capacity"),
            Axis::linear("in time, % of capacity").from(0.0).to(110.0),
        );
        let percent = |outcome: &Outcome| self.goodput(&outcome.all);
        Who::COMPARED.into_iter().fold(chart, |chart, who| chart.series(self.series(who, percent)))
    }

    fn latency_chart(&self) -> Chart {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let objective = milliseconds(self.scenario.objective);
        let chart = Chart::new(
            format!("Latency of the answered: {}", self.scenario.name),
            Axis::linear("offered load / capacity"),
            Axis::log("p50 (dashed) and p99, ms"),
        )
        .reference(Reference::horizontal(objective, "deadline"));
        let p99 = |outcome: &Outcome| milliseconds(outcome.all.p99);
        let p50 = |outcome: &Outcome| milliseconds(outcome.all.p50);
        let each = Who::COMPARED.into_iter().enumerate();
        let chart = each.fold(chart, |chart, (at, who)| chart.series(self.series(who, p99).colour(at)));
        chart.series(self.series(Who::Salver, p50).colour(0).dashed())
    }

    fn refusal_chart(&self) -> Chart {
        let chart = Chart::new(
            format!("Not answered in time: {}", self.scenario.name),
            Axis::linear("offered load / capacity"),
            Axis::linear("% of requests: dropped or late; refused dashed").from(0.0).to(100.0),
        );
        let lost = |outcome: &Outcome| 100.0 * (outcome.all.dropped + outcome.all.late);
        let refused = |outcome: &Outcome| 100.0 * outcome.all.refused;
        let each = Who::COMPARED.into_iter().enumerate();
        let chart = each.fold(chart, |chart, (at, who)| chart.series(self.series(who, lost).colour(at)));
        chart.series(self.series(Who::Salver, refused).colour(0).dashed())
    }

    fn batch_chart(&self) -> Chart {
        let chart = Chart::new(
            format!("Batch sizes: {}", self.scenario.name),
            Axis::linear("offered load / capacity"),
            Axis::linear("rows, mean").from(0.0),
        );
        let rows = |outcome: &Outcome| outcome.all.batch;
        Who::COMPARED.into_iter().fold(chart, |chart, who| chart.series(self.series(who, rows)))
    }
}

/// To four digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Milliseconds with three digits.
fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let digits = match ms {
        _ if ms >= 100.0 => 0,
        _ if ms >= 10.0 => 1,
        _ if ms >= 1.0 => 2,
        _ => 3,
    };
    format!("{ms:.digits$} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn reports_hold_what_was_simulated() {
        let scenario = scenario::all().swap_remove(0);
        let outcomes = Who::COMPARED.map(|who| scenario.simulate(who, 4.0, 500, 1)).to_vec();
        let report = Report { seed: 1, n: 500, chapters: vec![Chapter { scenario, outcomes }] };
        let text = report.markdown();
        assert!(text.contains("## poisson") && text.contains("| 4 |"), "{text}");
        let outcomes = report.json().pointer("/scenarios/0/outcomes").and_then(Value::as_array).map(Vec::len);
        assert_eq!(outcomes, Some(4));
        let svg = report.svg();
        for title in ["Goodput", "Latency of the answered", "Not answered in time", "Batch sizes"] {
            assert!(svg.contains(&format!("{title}: poisson")), "{title} is missing");
        }
    }

    #[test]
    fn times_have_three_digits() {
        let check = |micros, expected: &str| assert_eq!(time(Duration::from_micros(micros)), expected);
        check(7, "0.007 ms");
        check(1234, "1.23 ms");
        check(12_345, "12.3 ms");
        check(123_456, "123 ms");
    }
}
