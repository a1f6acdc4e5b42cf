//! The report of a sweep: for the terminal, as JSON, and as the page in `docs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use crate::case::Case;
use crate::run::{Outcome, Status};

const FORMATS: [(&str, &str); 4] =
    [("h5", "`.h5`"), ("keras", "`.keras`"), ("savedmodel", "SavedModel"), ("frozen", "frozen graph")];

/// How many models of one family and format ended how.
#[derive(Debug, Default, Clone)]
struct Tally {
    agree: usize,
    refused: usize,
    unreadable: usize,
    faulty: usize,
    distance: f64,
    loads: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match &outcome.status {
            Status::Agrees(distance) => {
                self.agree += 1;
                self.distance = self.distance.max(*distance);
                self.loads.push(outcome.load);
            }
            Status::Refused(_) => self.refused += 1,
            Status::Unreadable(_) => self.unreadable += 1,
            Status::Differs(..) | Status::Fails(_) => self.faulty += 1,
        }
    }

    /// `12`, or `12, 3 refused, 1 FAILS`.
    fn text(&self) -> String {
        if self.agree + self.refused + self.unreadable + self.faulty == 0 {
            return "-".into();
        }
        let mut text = self.agree.to_string();
        for (n, word) in [(self.refused, "refused"), (self.unreadable, "unreadable"), (self.faulty, "FAIL")] {
            if n > 0 {
                write!(text, ", {n} {word}").expect("writing to a string does not fail");
            }
        }
        text
    }

    fn median_load(&self) -> Option<Duration> {
        let mut loads = self.loads.clone();
        loads.sort_unstable();
        loads.get(loads.len() / 2).copied()
    }
}

fn tally<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Tally {
    outcomes.fold(Tally::default(), |mut tally, outcome| {
        tally.add(outcome);
        tally
    })
}

fn families(outcomes: &[Outcome]) -> BTreeSet<&str> {
    outcomes.iter().map(|outcome| &*outcome.family).collect()
}

/// The table of families and formats, one row each, and the sums.
fn rows(outcomes: &[Outcome]) -> Vec<(String, Vec<Tally>)> {
    let row = |family: Option<&str>| {
        let of = |outcome: &&Outcome| family.is_none_or(|family| outcome.family == family);
        let mut tallies: Vec<Tally> = FORMATS
            .iter()
            .map(|(format, _)| tally(outcomes.iter().filter(of).filter(|outcome| outcome.format == *format)))
            .collect();
        tallies.push(tally(outcomes.iter().filter(of)));
        (family.unwrap_or("all").to_owned(), tallies)
    };
    families(outcomes).into_iter().map(Some).chain([None]).map(row).collect()
}

pub(crate) fn print(outcomes: &[Outcome]) {
    println!(
        "\n{:15} {:>24} {:>24} {:>24} {:>24} {:>9}",
        "family", "h5", "keras", "savedmodel", "frozen", "distance"
    );
    for (family, tallies) in rows(outcomes) {
        print!("{family:15}");
        for tally in &tallies[..FORMATS.len()] {
            print!(" {:>24}", tally.text());
        }
        println!(" {:9.1e}", tallies[FORMATS.len()].distance);
    }
    let mut faulty: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.status.is_fault()).collect();
    if !faulty.is_empty() {
        let far = |outcome: &&Outcome| std::cmp::Reverse(outcome.status.distance().map(f64::to_bits));
        faulty.sort_by_key(far);
        println!("\n{} models at fault, the farthest first:", faulty.len());
        for outcome in faulty {
            println!("{outcome}");
        }
    }
}

pub(crate) fn json(outcomes: &[Outcome]) -> String {
    let list: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            serde_json::json!({
                "family": outcome.family,
                "case": outcome.case,
                "format": outcome.format,
                "status": outcome.status.word(),
                "distance": outcome.status.distance().filter(|distance| distance.is_finite()),
                "text": outcome.status.text(),
                "load_ms": outcome.load.as_secs_f64() * 1e3,
            })
        })
        .collect();
    serde_json::Value::Array(list).to_string()
}

/// The page in `docs`.
pub(crate) fn markdown(cases: &[&Case], outcomes: &[Outcome]) -> String {
    let mut page = String::new();
    let n_models = outcomes.len();
    writeln!(
        page,
        "# Sweep: imported models against TensorFlow\n\n\
         `cargo xtask sweep` makes {} networks with random weights in up to four formats each (`tests/sweep` says how), loads all\n\
         {n_models} files with the embedded engine, runs batches of one and three, and compares with TensorFlow's own answers. This page is\n\
         written by that command.\n\n\
         A number is how many agree: the largest difference is at most 1e-4 of the larger of 1 and the largest expected value (2e-3 for\n\
         `float16`, 2e-2 for `bfloat16`); integers, texts and truth values are equal. *Refused* models are not loaded, with a message that\n\
         names the operator, layer or option. *Unreadable* are files that Keras writes and cannot read itself.\n",
        cases.len()
    ).expect("writing to a string does not fail");
    family_table(&mut page, outcomes);
    load_table(&mut page, outcomes);
    refusals(&mut page, outcomes);
    not_saved(&mut page, cases);
    layers(&mut page, cases, outcomes);
    page
}

fn family_table(page: &mut String, outcomes: &[Outcome]) {
    page.push_str("| family |");
    for (_, title) in FORMATS {
        write!(page, " {title} |").expect("writing to a string does not fail");
    }
    page.push_str(" largest difference |\n|---|---|---|---|---|---|\n");
    for (family, tallies) in rows(outcomes) {
        write!(page, "| {family} |").expect("writing to a string does not fail");
        for tally in &tallies[..FORMATS.len()] {
            write!(page, " {} |", tally.text()).expect("writing to a string does not fail");
        }
        writeln!(page, " {:.1e} |", tallies[FORMATS.len()].distance)
            .expect("writing to a string does not fail");
    }
}

fn load_table(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "\n## Time to load, ms (median)\n\n| format | keras.applications | all others |\n|---|---|---|\n",
    );
    for (format, title) in FORMATS {
        let median = |large: bool| {
            let of =
                |outcome: &&Outcome| outcome.format == format && (outcome.family == "applications") == large;
            let load = tally(outcomes.iter().filter(of)).median_load();
            load.map_or_else(|| "-".into(), |load| format!("{:.1}", load.as_secs_f64() * 1e3))
        };
        writeln!(page, "| {title} | {} | {} |", median(true), median(false))
            .expect("writing to a string does not fail");
    }
}

/// Refusals by what they say, with the cases.
fn refusals(page: &mut String, outcomes: &[Outcome]) {
    let mut by_text: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for outcome in outcomes {
        if let Status::Refused(text) = &outcome.status {
            by_text.entry(text).or_default().insert(format!("{} ({})", outcome.case, outcome.format));
        }
    }
    page.push_str("\n## Refused\n\n");
    if by_text.is_empty() {
        page.push_str("None.\n");
        return;
    }
    page.push_str("| message | models |\n|---|---|\n");
    for (text, models) in by_text {
        let models: Vec<String> = models.into_iter().collect();
        writeln!(page, "| {} | {} |", cell(text), cell(&models.join(", ")))
            .expect("writing to a string does not fail");
    }
}

/// Formats that TensorFlow or Keras cannot save.
fn not_saved(page: &mut String, cases: &[&Case]) {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for case in cases {
        for missing in &case.missing {
            by_reason.entry((&missing.format, &missing.reason)).or_default().push(&case.name);
        }
    }
    page.push_str("\n## Not saved by TensorFlow or Keras\n\n| format | reason | networks |\n|---|---|---|\n");
    for ((format, reason), names) in by_reason {
        writeln!(page, "| {format} | {} | {} |", cell(reason), cell(&names.join(", ")))
            .expect("writing to a string does not fail");
    }
}

/// Every layer with the options that the sweep has, and whether all of its models agree.
fn layers(page: &mut String, cases: &[&Case], outcomes: &[Outcome]) {
    let mut by_layer: BTreeMap<(&str, &str), Vec<&Case>> = BTreeMap::new();
    for case in cases {
        by_layer.entry((&case.family, &case.layer)).or_default().push(case);
    }
    page.push_str("\n## Layers and options\n\nOne network per set of options.\n\n| family | layer | models | options |\n|---|---|---|---|\n");
    for ((family, layer), cases) in by_layer {
        let names: BTreeSet<&str> = cases.iter().map(|case| &*case.name).collect();
        let tally = tally(outcomes.iter().filter(|outcome| names.contains(&*outcome.case)));
        let options: Vec<&str> =
            cases.iter().map(|case| if case.options.is_empty() { "-" } else { &*case.options }).collect();
        writeln!(page, "| {family} | {layer} | {} | {} |", tally.text(), cell(&options.join("; ")))
            .expect("writing to a string does not fail");
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
