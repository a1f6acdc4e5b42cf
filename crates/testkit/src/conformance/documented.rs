//! What an engine says that it cannot do, beside the page that tells it to people.

use std::path::{Path, PathBuf};

use salver_engine::Engine;

use super::{Capabilities, Failures, Fixture, Refusal};

/// A difference names models of the suite, each once over all differences.
pub(super) fn names(capabilities: &Capabilities, fixtures: &[Fixture], failures: &mut Failures) {
    let mut seen = Vec::new();
    for &name in capabilities.differences.iter().flat_map(|difference| difference.models) {
        if !fixtures.iter().any(|fixture| fixture.name == name) {
            failures.add(format!("{name}: listed as a difference, and no model of the suite"));
        }
        if seen.contains(&name) {
            failures.add(format!("{name}: listed as a difference twice"));
        }
        seen.push(name);
    }
}

/// The engine's rows of the page are what its capabilities say.
#[expect(clippy::disallowed_methods, reason = "the person who runs the tests says whether to write the page")]
pub(super) fn page(engine: &dyn Engine, capabilities: &Capabilities, failures: &mut Failures) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engine-differences.md");
    let rows = rows(engine.name(), capabilities);
    if std::env::var_os("SALVER_WRITE_DOCS").is_some() {
        return write(&path, engine.name(), &rows);
    }
    if rows_in(&read(&path), engine.name()) != rows {
        let name = engine.name();
        failures.add(format!(
            "docs/engine-differences.md: the rows of {name} are stale; SALVER_WRITE_DOCS=1 writes them"
        ));
    }
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows(engine: &str, capabilities: &Capabilities) -> Vec<String> {
    let mut rows: Vec<_> = capabilities
        .differences
        .iter()
        .map(|difference| {
            let refusal = match difference.refusal {
                Refusal::AtLoad => "refuses to load",
                Refusal::InRuns => "refuses some inputs",
                Refusal::NoModel => "has no form to load",
            };
            let mut models = difference.models.to_vec();
            models.sort_unstable();
            format!("| {engine} | {refusal} | {} | {} |", models.join(", "), difference.reason)
        })
        .collect();
    rows.sort();
    rows
}

fn is_row_of(line: &str, engine: &str) -> bool {
    line.strip_prefix("| ").and_then(|rest| rest.split(" | ").next()) == Some(engine)
}

fn rows_in(page: &str, engine: &str) -> Vec<String> {
    page.lines().filter(|line| is_row_of(line, engine)).map(str::to_owned).collect()
}

/// Puts the rows where the engine's rows are, or sorted among those of the others.
fn write(path: &PathBuf, engine: &str, rows: &[String]) {
    let page = read(path);
    let is_table = |line: &&str| line.starts_with("| ") && !line.starts_with("| engine |");
    let mut table: Vec<String> =
        page.lines().filter(is_table).filter(|line| !is_row_of(line, engine)).map(str::to_owned).collect();
    table.extend_from_slice(rows);
    table.sort();
    let mut lines: Vec<String> = page.lines().filter(|line| !is_table(line)).map(str::to_owned).collect();
    let head = lines.iter().position(|line| line.starts_with("|---")).expect("the page has a table");
    lines.splice(head + 1..head + 1, table);
    std::fs::write(path, lines.join("\n") + "\n")
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
