//! The figures as tables: medians over the rounds, and ratios taken within a round.

use serde_json::{Value, json};

use super::Settings;
use super::measure::{INTERFACES, Load, Record, Results, Seen};
use super::side::Side;
use crate::body::Interface;
use crate::engines::Made;
use crate::report::{Report, Table};
use crate::stats::{digits, median};

const MEGABYTE: f64 = 1e6;

pub(crate) fn report(models: &[Made], sides: &[Side], settings: &Settings, results: &Results) -> Report {
    let mut tables = Vec::new();
    for model in models {
        let of = Of { results, model, sides };
        tables.extend([of.starts(), of.closed(settings), of.ratios(settings), of.open(settings)]);
    }
    tables.retain(|table| !table.rows.is_empty());
    Report {
        name: "peers",
        title: "Peers: Salver beside Triton and Flask with TensorFlow",
        notes: notes(settings, results),
        tables,
        figures: figures(results),
    }
}

fn notes(settings: &Settings, results: &Results) -> Vec<String> {
    let farthest = results.differences.iter().map(|(_, _, far)| *far).fold(0.0, f64::max);
    let deadline = settings.deadline_ms;
    let header = match settings.no_deadline {
        true => "no server is told of it",
        false => {
            "Salver is told of it, as `grpc-timeout` or `x-request-timeout-ms`; the peers are not, since none plans by \
             it, and where Triton's gRPC server ends calls whose deadline is over, the client's HTTP/2 library takes \
             that for a broken connection"
        }
    };
    let mut notes = vec![
        format!(
            "{} rounds; in each, every server is started, measured and ended, in an order that moves on. Figures are \
             medians over the rounds, ratios are taken within a round. One row per request; the same generator sends \
             the same bytes to all on the machine's own cores. Closed-loop windows of {} ms, open-loop windows of {} \
             ms. CPU time and resident memory are those of all of a server's processes together (pages that \
             processes share count for each).",
            settings.rounds, settings.window_ms, settings.open_ms
        ),
        "Salver and Triton serve the same ONNX file; Triton's Python backend runs it on onnxruntime in two instances of \
         one thread with dynamic batching. Flask and gunicorn run the SavedModel that the file is converted from. All \
         settings are in `tests/peers`."
            .to_owned(),
        format!(
            "Every server's answer to every kind of request was compared with TensorFlow's at each start: the largest \
             difference is {farthest:.1e} of the largest number of the answer."
        ),
        format!(
            "Open loop: Poisson arrivals at multiples of the best closed-loop rate that a server had in the round; \
             latency counts from the moment a call was meant to leave, and an answer within {deadline} ms is good; \
             {header}, and the client does not give up. Unanswered are calls without an answer 2 s after the last \
             was sent. Where the generator's own delay (p99) is not far below the deadline, the generator was the \
             limit."
        ),
    ];
    if !results.failures.is_empty() {
        notes.push(format!("Not as it should be: {}.", results.failures.join("; ")));
    }
    notes
}

/// The results of one model.
struct Of<'a> {
    results: &'a Results,
    model: &'a Made,
    sides: &'a [Side],
}

impl Of<'_> {
    fn records(&self, side: Side, interface: Interface, load: Load) -> Vec<&Record> {
        let fits = |record: &&Record| {
            let is_asked = record.side == side && record.interface == interface && record.load == load;
            is_asked && record.model == self.model.name
        };
        self.results.records.iter().filter(fits).collect()
    }

    fn figure(&self, at: (Side, Interface, Load), figure: fn(&Seen) -> f64) -> Option<f64> {
        let records = self.records(at.0, at.1, at.2);
        (!records.is_empty()).then(|| median(records.iter().map(|record| figure(&record.seen))))
    }

    /// The median of `upper` by `lower` over the rounds that have both.
    fn ratio(
        &self,
        (upper, lower): (Side, Side),
        (interface, load): (Interface, Load),
        figure: fn(&Seen) -> f64,
    ) -> Option<f64> {
        let lower = self.records(lower, interface, load);
        let ratios: Vec<f64> = self
            .records(upper, interface, load)
            .iter()
            .filter_map(|above| {
                let below = lower.iter().find(|record| record.round == above.round)?;
                Some(figure(&above.seen) / figure(&below.seen))
            })
            .collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    fn title(&self, what: &str) -> String {
        format!("{}: {what}", self.model.title)
    }

    fn starts(&self) -> Table {
        let rows = self.sides.iter().filter_map(|&side| {
            let starts: Vec<_> = self
                .results
                .starts
                .iter()
                .filter(|start| start.side == side && start.model == self.model.name)
                .collect();
            let peak = |is_asked: fn(&Load) -> bool| {
                let own = self.results.records.iter().filter(|record| {
                    record.side == side && record.model == self.model.name && is_asked(&record.load)
                });
                own.map(|record| record.seen.peak).fold(0.0, f64::max) / MEGABYTE
            };
            (!starts.is_empty()).then(|| {
                let memory = median(starts.iter().map(|start| start.memory)) / MEGABYTE;
                let figures = [
                    median(starts.iter().map(|start| start.seconds)),
                    memory,
                    peak(|load| matches!(load, Load::Closed { .. })),
                    peak(|load| matches!(load, Load::Open { .. })),
                ];
                [side.label().to_owned()].into_iter().chain(figures.map(digits)).collect()
            })
        });
        Table {
            title: self.title("start and memory"),
            head: vec![
                "server",
                "start to first answer, s",
                "memory then, MB",
                "peak, closed loop, MB",
                "peak, open loop, MB",
            ],
            rows: rows.collect(),
        }
    }

    fn closed(&self, settings: &Settings) -> Table {
        let mut rows = Vec::new();
        for interface in INTERFACES {
            for &in_flight in &settings.in_flight {
                for &side in self.sides {
                    rows.extend(self.closed_row((side, interface, Load::Closed { in_flight }), in_flight));
                }
            }
        }
        Table {
            title: self.title("closed loop"),
            head: vec![
                "interface, server",
                "in flight",
                "requests/s",
                "p50, ms",
                "p99, ms",
                "CPU per request, µs",
                "peak memory, MB",
            ],
            rows,
        }
    }

    fn closed_row(&self, at: (Side, Interface, Load), in_flight: usize) -> Option<Vec<String>> {
        let mut row = vec![format!("{}: {}", at.1.label(), at.0.label()), in_flight.to_string()];
        let figures: [fn(&Seen) -> f64; 5] = [
            |seen| seen.answered,
            |seen| seen.p50_micros / 1e3,
            |seen| seen.p99_micros / 1e3,
            |seen| seen.cpu_micros,
            |seen| seen.peak / MEGABYTE,
        ];
        for figure in figures {
            row.push(digits(self.figure(at, figure)?));
        }
        Some(row)
    }

    /// How many times better Salver is: its throughput by the peer's, and the peer's other figures by its own.
    fn ratios(&self, settings: &Settings) -> Table {
        let mut rows = Vec::new();
        for interface in INTERFACES {
            for &in_flight in &settings.in_flight {
                for &salver in self.sides.iter().filter(|side| side.is_salver()) {
                    for &peer in self.sides.iter().filter(|side| !side.is_salver()) {
                        let at = (interface, Load::Closed { in_flight });
                        rows.extend(self.ratio_row(salver, peer, at, in_flight));
                    }
                }
            }
        }
        Table {
            title: self.title("how many times better than the peer (below 1: worse)"),
            head: vec!["interface, servers", "in flight", "throughput", "p50", "p99", "CPU", "memory"],
            rows,
        }
    }

    fn ratio_row(
        &self,
        salver: Side,
        peer: Side,
        at: (Interface, Load),
        in_flight: usize,
    ) -> Option<Vec<String>> {
        let label = format!("{}: {} by {}", at.0.label(), salver.label(), peer.label());
        let mut row = vec![label, in_flight.to_string()];
        row.push(digits(self.ratio((salver, peer), at, |seen| seen.answered)?));
        let figures: [fn(&Seen) -> f64; 4] =
            [|seen| seen.p50_micros, |seen| seen.p99_micros, |seen| seen.cpu_micros, |seen| seen.peak];
        for figure in figures {
            row.push(digits(self.ratio((peer, salver), at, figure)?));
        }
        Some(row)
    }

    fn open(&self, settings: &Settings) -> Table {
        let mut rows = Vec::new();
        for interface in INTERFACES {
            for &of in self.sides {
                for &times in &settings.times {
                    for &side in self.sides {
                        rows.extend(self.open_row((side, interface, Load::Open { of, times }), of, times));
                    }
                }
            }
        }
        Table {
            title: self.title(&format!("open loop, per second; good is within {} ms", settings.deadline_ms)),
            head: vec![
                "interface, server, load",
                "offered",
                "good",
                "late",
                "refused",
                "failed",
                "unanswered",
                "p50, ms",
                "p99, ms",
                "peak memory, MB",
                "generator's delay, ms",
            ],
            rows,
        }
    }

    fn open_row(&self, at: (Side, Interface, Load), of: Side, times: f64) -> Option<Vec<String>> {
        let whose = match of == at.0 {
            true => "its own rate".to_owned(),
            false => format!("the rate of {}", of.label()),
        };
        let mut row = vec![format!("{}: {}, {times} times {whose}", at.1.label(), at.0.label())];
        let figures: [fn(&Seen) -> f64; 10] = [
            |seen| seen.offered,
            |seen| seen.good,
            |seen| seen.late,
            |seen| seen.refused,
            |seen| seen.failed,
            |seen| seen.unanswered,
            |seen| seen.p50_micros / 1e3,
            |seen| seen.p99_micros / 1e3,
            |seen| seen.peak / MEGABYTE,
            |seen| seen.lag_micros / 1e3,
        ];
        for figure in figures {
            row.push(digits(self.figure(at, figure)?));
        }
        Some(row)
    }
}

fn figures(results: &Results) -> Value {
    let windows: Vec<Value> = results.records.iter().map(window).collect();
    let starts: Vec<Value> = results
        .starts
        .iter()
        .map(|start| {
            json!({
                "model": start.model,
                "server": start.side.label(),
                "seconds": start.seconds,
                "bytes": start.memory,
            })
        })
        .collect();
    json!({ "windows": windows, "starts": starts, "failures": results.failures })
}

fn window(record: &Record) -> Value {
    let seen = &record.seen;
    let load = match record.load {
        Load::Closed { in_flight } => json!({ "in_flight": in_flight }),
        Load::Open { of, times } => json!({ "rate_of": of.label(), "times": times }),
    };
    json!({
        "model": record.model,
        "round": record.round,
        "server": record.side.label(),
        "interface": record.interface.label(),
        "load": load,
        "offered_per_second": seen.offered,
        "answered_per_second": seen.answered,
        "good_per_second": seen.good,
        "late_per_second": seen.late,
        "refused_per_second": seen.refused,
        "failed_per_second": seen.failed,
        "unanswered_per_second": seen.unanswered,
        "p50_micros": seen.p50_micros,
        "p99_micros": seen.p99_micros,
        "cpu_micros": seen.cpu_micros,
        "peak_bytes": seen.peak,
        "generator_delay_micros": seen.lag_micros,
    })
}
