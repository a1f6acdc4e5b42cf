//! What was measured, as tables.

use serde_json::json;

use super::measure::Cell;
use super::{AIM, Made, Settings, Side};
use crate::report::{Report, Table};
use crate::stats::digits;

const NONE: &str = "–";

pub(crate) fn report(made: &[Made], settings: &Settings, cells: &[Cell], refusals: &[String]) -> Report {
    let over: Vec<&Cell> = cells.iter().filter(|cell| cell.measured.ratio.is_some_and(|r| r > AIM)).collect();
    let n_compared = cells.iter().filter(|cell| cell.measured.ratio.is_some()).count();
    let version = made.first().map_or("?", |model| model.tensorflow.as_str());
    let mut notes = vec![
        format!(
            "Each engine runs each model in this process, loaded from one SavedModel as Salver loads it, and called \
             directly without Salver on the ONNX file that `salver convert` writes (TensorFlow: on the SavedModel). In each \
             round all sides take a turn, in an order that moves on; {} rounds or more, and three where they take very long; medians. Networks of pictures and \
             BERT-mini (4 layers, hidden 256, 128 words) have random weights, and statistics of random pictures.",
            settings.rounds
        ),
        format!(
            "Through Salver the engines take at most {AIM} times as long as called directly in {} of {n_compared} cases.",
            n_compared - over.len()
        ),
        format!(
            "Differences are the largest absolute ones to the answers of TensorFlow {version} in Python, over all batch \
             sizes and numbers of threads. Answers are probabilities (pictures), a scaled temperature (weather), logits \
             (Crayfish) and a tanh (BERT-mini)."
        ),
    ];
    if !refusals.is_empty() {
        notes.push(format!("Left out: {}.", refusals.join("; ")));
    }
    Report {
        name: "engines",
        title: "Engines beside each other",
        notes,
        tables: vec![
            times(made, cells),
            rates(made, cells),
            ratios(made, cells),
            over_aim(made, &over),
            differences(made, cells),
        ],
        figures: json!(cells.iter().map(figure).collect::<Vec<_>>()),
    }
}

fn figure(cell: &Cell) -> serde_json::Value {
    let measured = &cell.measured;
    json!({
        "model": cell.model, "batch": cell.batch, "threads": cell.threads, "engine": measured.side.engine,
        "precision": measured.side.precision.name(), "ms": measured.ms, "direct_ms": measured.direct_ms,
        "through_by_direct": measured.ratio, "difference": measured.difference,
        "direct_difference": measured.direct_difference, "rounds": measured.rounds,
    })
}

fn title<'a>(made: &'a [Made], name: &'a str) -> &'a str {
    made.iter().find(|model| model.name == name).map_or(name, |model| model.title)
}

/// One row per model, batch size and number of threads, and one column per side.
fn wide(made: &[Made], cells: &[Cell], what: String, show: impl Fn(&Cell, Option<&Cell>) -> String) -> Table {
    let mut keys: Vec<_> = Vec::new();
    for cell in cells {
        let key = (cell.model, cell.threads, cell.batch);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let rows = keys.iter().map(|&(model, threads, batch)| {
        let of = |side: Side| {
            cells.iter().find(|cell| {
                (cell.model, cell.threads, cell.batch) == (model, threads, batch)
                    && cell.measured.side == side
            })
        };
        let tensorflow = Side::ALL.into_iter().find(|side| side.engine == "tensorflow").and_then(of);
        let head = [title(made, model).to_owned(), batch.to_string(), threads.to_string()];
        let columns =
            Side::ALL.into_iter().map(|side| of(side).map_or(NONE.to_owned(), |cell| show(cell, tensorflow)));
        head.into_iter().chain(columns).collect()
    });
    let rows = rows.collect();
    let head = ["model", "batch", "threads"].into_iter().chain(Side::ALL.map(|side| side.label)).collect();
    Table { title: what, head, rows }
}

/// Milliseconds with three digits, also below one.
fn millis(ms: f64) -> String {
    match ms {
        ..0.1 => format!("{ms:.4}"),
        ..1.0 => format!("{ms:.3}"),
        _ => digits(ms),
    }
}

fn times(made: &[Made], cells: &[Cell]) -> Table {
    wide(
        made,
        cells,
        "Milliseconds per call, and how many times as fast as TensorFlow".into(),
        |cell, tensorflow| {
            let ms = cell.measured.ms;
            match tensorflow {
                Some(other) if other.measured.side != cell.measured.side => {
                    format!("{} ({}×)", millis(ms), digits(other.measured.ms / ms))
                }
                _ => millis(ms),
            }
        },
    )
}

fn rates(made: &[Made], cells: &[Cell]) -> Table {
    wide(made, cells, "Rows per second".into(), |cell, _| digits(cell.batch as f64 / cell.measured.ms * 1e3))
}

fn ratios(made: &[Made], cells: &[Cell]) -> Table {
    wide(made, cells, "Time through Salver by time called directly".into(), |cell, _| {
        cell.measured.ratio.map_or(NONE.to_owned(), |ratio| format!("{ratio:.3}"))
    })
}

/// Where the aim is missed, with what it costs.
fn over_aim(made: &[Made], over: &[&Cell]) -> Table {
    let rows = over.iter().map(|cell| {
        let measured = &cell.measured;
        let direct = measured.direct_ms.unwrap_or_default();
        vec![
            format!("{}, batch {}, {} threads", title(made, cell.model), cell.batch, cell.threads),
            measured.label.to_owned(),
            millis(measured.ms),
            millis(direct),
            format!("{:.3}", measured.ratio.unwrap_or_default()),
            digits((measured.ms - direct) * 1e3),
        ]
    });
    Table {
        title: format!("More than {AIM} times as long through Salver"),
        head: vec!["case", "engine", "through, ms", "direct, ms", "ratio", "µs more"],
        rows: rows.collect(),
    }
}

fn differences(made: &[Made], cells: &[Cell]) -> Table {
    let rows = made.iter().map(|model| {
        let worst = |side: Side| {
            let of = cells.iter().filter(|cell| cell.model == model.name && cell.measured.side == side);
            of.map(|cell| cell.measured.difference).reduce(f64::max)
        };
        let show = |side| worst(side).map_or(NONE.to_owned(), |far| format!("{far:.1e}"));
        [model.title.to_owned()].into_iter().chain(Side::ALL.map(show)).collect()
    });
    Table {
        title: "Largest difference to TensorFlow".into(),
        head: ["model"].into_iter().chain(Side::ALL.map(|side| side.label)).collect(),
        rows: rows.collect(),
    }
}
